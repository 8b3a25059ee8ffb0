package operator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// maxKeyFile bounds a file with a PGP key, in bytes.
const maxKeyFile = 1 << 20

// initFlags are what `operator init` is given.
type initFlags struct {
	shares, threshold                 int
	recoveryShares, recoveryThreshold int
	pgpKeys, recoveryPGPKeys          []string
	rootPGPKey                        string
	status, ifNeeded                  bool
	named, recoveryNamed              bool // flags of shares, or of recovery shares, were given
}

func initialise(s *client.Session) *cobra.Command {
	var flags initFlags
	cmd := &cobra.Command{
		Use: "init", Short: "Initialise a new cluster, once, on any node", Args: cobra.NoArgs,
		Long: "Initialise a new cluster, once, on any node: its keys are made, and the shares that open it are printed, this one time.\n" +
			"Hand each share to a different person; with -pgp-keys each is encrypted to its holder first. It is refused while fewer nodes\n" +
			"have found each other than bootstrap_expect says, and may be repeated until the first successful unseal.\n\n" +
			"With -if-needed a cluster that is initialised is no error. With -status nothing is done: exit status 0 says initialised, 2 not.",
		Example: "  conclave operator init\n  conclave operator init -key-shares=3 -key-threshold=2 -format=json\n" +
			"  conclave operator init -key-shares=2 -key-threshold=2 -pgp-keys=ann.asc,bob.asc",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			if flags.status || flags.ifNeeded {
				done, err := c.Sys().InitStatusWithContext(cmd.Context())
				switch {
				case err != nil:
					return err
				case done:
					return s.Done("The vault is initialised.")
				case flags.status:
					return client.Remotef("the vault is not initialised")
				}
			}
			flags.named, flags.recoveryNamed = given(cmd, "key-shares", "key-threshold", "pgp-keys"), given(cmd, "recovery-shares", "recovery-threshold", "recovery-pgp-keys")
			if _, err := flags.request(flags.recoveryNamed); err != nil { // before anybody is asked
				return err
			}
			status, err := c.Sys().SealStatusWithContext(cmd.Context())
			if err != nil {
				return err
			}
			request, err := flags.request(status.RecoverySeal)
			if err != nil {
				return err
			}
			made, err := sendInit(cmd.Context(), c, request)
			if err != nil {
				return err
			}
			return printInit(s, request, made)
		},
	}
	f := cmd.Flags()
	f.IntVarP(&flags.shares, "key-shares", "n", 5, "`number` of shares that the unseal key is split into")
	f.IntVarP(&flags.threshold, "key-threshold", "t", 3, "`number` of shares that open the vault")
	f.StringSliceVar(&flags.pgpKeys, "pgp-keys", nil, "`files` of PGP public keys, one for each share, separated by commas")
	f.StringVar(&flags.rootPGPKey, "root-token-pgp-key", "", "`file` of the PGP public key that the root token is encrypted to")
	f.IntVar(&flags.recoveryShares, "recovery-shares", 5, "`number` of recovery shares, of a vault that opens by itself, in place of unseal shares")
	f.IntVar(&flags.recoveryThreshold, "recovery-threshold", 3, "`number` of recovery shares that are needed together")
	f.StringSliceVar(&flags.recoveryPGPKeys, "recovery-pgp-keys", nil, "`files` of PGP public keys, one for each recovery share")
	f.BoolVar(&flags.status, "status", false, "only tell whether the vault is initialised")
	f.BoolVar(&flags.ifNeeded, "if-needed", false, "end well if the vault is initialised already")
	return cmd
}

// given reports whether one of the flags was.
func given(cmd *cobra.Command, names ...string) bool {
	return slices.ContainsFunc(names, cmd.Flags().Changed)
}

// request is what the flags ask for, of a vault that opens by itself or by its shares, with the keys read from their
// files.
func (f *initFlags) request(opensItself bool) (*api.InitRequest, error) {
	shares, threshold, files := f.shares, f.threshold, f.pgpKeys
	thresholdFlag, keysFlag := "-key-threshold", "-pgp-keys"
	if opensItself {
		shares, threshold, files = f.recoveryShares, f.recoveryThreshold, f.recoveryPGPKeys
		thresholdFlag, keysFlag = "-recovery-threshold", "-recovery-pgp-keys"
	}
	switch {
	case opensItself && f.named:
		return nil, client.Usagef("this vault opens by itself, so its shares are recovery shares: -recovery-shares, -recovery-threshold, -recovery-pgp-keys")
	case !opensItself && f.recoveryNamed:
		return nil, client.Usagef("this vault doesn't open by itself, so it has no recovery shares: -key-shares, -key-threshold, -pgp-keys")
	case threshold > shares || threshold < 1:
		return nil, client.Usagef("%s=%d: it takes at least one share to open the vault, and at most the %d there are", thresholdFlag, threshold, shares)
	case len(files) > 0 && len(files) != shares:
		return nil, client.Usagef("%s names %d files for %d shares: it takes one for each", keysFlag, len(files), shares)
	}
	keys, err := readKeys(files)
	if err != nil {
		return nil, err
	}
	request := &api.InitRequest{SecretShares: shares, SecretThreshold: threshold, PGPKeys: keys}
	if opensItself {
		request = &api.InitRequest{RecoveryShares: shares, RecoveryThreshold: threshold, RecoveryPGPKeys: keys}
	}
	if f.rootPGPKey != "" {
		request.RootTokenPGPKey, err = readKey(f.rootPGPKey)
	}
	return request, err
}

func readKeys(files []string) ([]string, error) {
	var keys []string
	for _, file := range files {
		key, err := readKey(file)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// readKey returns a PGP public key in the base64 that the API takes; the file may be binary, ASCII-armoured or base64.
func readKey(file string) (string, error) {
	f, err := os.Open(strings.TrimPrefix(file, "@"))
	if err != nil {
		return "", client.Usagef("read a PGP key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil || len(text) > maxKeyFile {
		return "", client.Usagef("%s is not a PGP key of at most 1 MiB", file)
	}
	trimmed := strings.TrimSpace(string(text))
	if strings.HasPrefix(trimmed, "-----BEGIN") {
		return dearmour(file, trimmed)
	}
	if _, err := base64.StdEncoding.DecodeString(trimmed); err == nil && trimmed != "" {
		return trimmed, nil
	}
	return base64.StdEncoding.EncodeToString(text), nil
}

// dearmour takes the base64 out of an ASCII armour (RFC 9580, section 6): headers end with an empty line, and a
// checksum may follow after "=".
func dearmour(file, text string) (string, error) {
	const begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
	_, rest, ok := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), begin)
	body, _, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", client.Usagef("%s is not a PGP public key", file)
	}
	if _, after, ok := strings.Cut(strings.TrimLeft(body, " \t"), "\n\n"); ok {
		body = after
	}
	var b strings.Builder
	for line := range strings.Lines(body) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "=") && !strings.Contains(line, ":") {
			b.WriteString(line)
		}
	}
	if _, err := base64.StdEncoding.DecodeString(b.String()); err != nil || b.Len() == 0 {
		return "", client.Usagef("%s is not a PGP public key", file)
	}
	return b.String(), nil
}

// initAnswer is Vault's answer, and who the shares will be sent to.
type initAnswer struct {
	api.InitResponse
	Members []initMember `json:"members"`
}

// initMember is a node that shares will be sent to.
type initMember struct {
	NodeID    string `json:"node_id"`
	Address   string `json:"address"`
	TLSPublic string `json:"tls_public"`
}

// sendInit does what Vault's client does, and keeps the members.
func sendInit(ctx context.Context, c *api.Client, request *api.InitRequest) (*initAnswer, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	response, err := c.Logical().WriteRawWithContext(ctx, "sys/init", body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	made := new(initAnswer)
	return made, response.DecodeJSON(made)
}

// initOutput is Vault's form of the answer for programs.
type initOutput struct {
	KeysB64           []string `json:"unseal_keys_b64"`
	KeysHex           []string `json:"unseal_keys_hex"`
	Shares            int      `json:"unseal_shares"`
	Threshold         int      `json:"unseal_threshold"`
	RecoveryB64       []string `json:"recovery_keys_b64"`
	RecoveryHex       []string `json:"recovery_keys_hex"`
	RecoveryShares    int      `json:"recovery_keys_shares"`
	RecoveryThreshold int      `json:"recovery_keys_threshold"`
	RootToken         string   `json:"root_token"`

	Members []initMember `json:"members,omitempty"`
}

func printInit(s *client.Session, request *api.InitRequest, made *initAnswer) error {
	out := initOutput{nonNil(made.KeysB64), nonNil(made.Keys), request.SecretShares, request.SecretThreshold, nonNil(made.RecoveryKeysB64),
		nonNil(made.RecoveryKeys), request.RecoveryShares, request.RecoveryThreshold, made.RootToken, made.Members}
	return s.Print(out, func(w io.Writer) {
		for i, key := range made.KeysB64 {
			fmt.Fprintf(w, "Unseal Key %d: %s\n", i+1, key)
		}
		for i, key := range made.RecoveryKeysB64 {
			fmt.Fprintf(w, "Recovery Key %d: %s\n", i+1, key)
		}
		fmt.Fprintf(w, "\nInitial Root Token: %s\n\n", made.RootToken)
		if len(made.Members) > 1 {
			fmt.Fprintln(w, "These nodes will be sent the shares. Compare each with the tls_public in its own log before you submit one:")
			for _, m := range made.Members {
				fmt.Fprintf(w, "  %s  %s  %s\n", m.NodeID, m.Address, m.TLSPublic)
			}
			fmt.Fprintln(w)
		}
		if len(made.KeysB64) == 0 {
			fmt.Fprintf(w, "The vault is initialised, and opens by itself with the key of its seal. Should that be lost, %d of the %d recovery shares\n"+
				"open it: hand each to a different person. This is the only time that they are together.\n", request.RecoveryThreshold, request.RecoveryShares)
			return
		}
		fmt.Fprintf(w, "The vault is initialised with %d shares, of which %d open it. Hand each to a different person: this is the only\n"+
			"time that they are together, and without %d of them what is stored can never be read again.\n\n"+
			"Next: `conclave operator unseal`, %d times, on any node. Until that has worked once, init may be repeated.\n",
			request.SecretShares, request.SecretThreshold, request.SecretThreshold, request.SecretThreshold)
	})
}

func nonNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
