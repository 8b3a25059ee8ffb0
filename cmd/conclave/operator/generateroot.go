package operator

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"conclave/cmd/conclave/client"
	"conclave/token"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// rootFlags say which step of making a root token is asked for.
type rootFlags struct {
	init, cancel, status, generate bool
	otp, pgp, nonce, decode        string
}

func generateRoot(s *client.Session) *cobra.Command {
	var f rootFlags
	cmd := &cobra.Command{
		Use: "generate-root [- | @FILE | KEY]", Short: "Make a root token by shares of the unseal key", Args: cobra.MaximumNArgs(1),
		Long: "Make a root token by shares of the unseal key, when there is none any more. One holder begins with -init and tells the others\n" +
			"the nonce; each then gives a share with -nonce, on any node. The last share's answer is the token, encoded with the one-time\n" +
			"password that -init showed, or encrypted to the PGP key that it named. -decode shows it. An attempt ends after an hour.\n" +
			"The share is asked for, hidden; - reads it from standard input and @FILE from a file.",
		Example: "  conclave operator generate-root -init\n  conclave operator generate-root -nonce=NONCE\n  conclave operator generate-root -decode=ENCODED -otp=OTP\n" +
			"  conclave operator generate-root -init -pgp-key=me.asc.bin",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.generate {
				otp, err := token.Letters(rand.Reader, rootTokenLength)
				if err != nil {
					return err
				}
				return s.Print(map[string]any{"otp": otp}, func(w io.Writer) { fmt.Fprintln(w, otp) })
			}
			if f.decode != "" {
				root, err := decodeRoot(f.decode, f.otp)
				if err != nil {
					return err
				}
				return s.Print(map[string]any{"token": root}, func(w io.Writer) { fmt.Fprintln(w, root) })
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			return f.run(s, cmd, c, args)
		},
	}
	cmd.Flags().BoolVar(&f.init, "init", false, "begin an attempt")
	cmd.Flags().BoolVar(&f.cancel, "cancel", false, "cancel the attempt that -nonce names, or those that nobody gave a share to")
	cmd.Flags().BoolVar(&f.status, "status", false, "show how the attempt stands")
	cmd.Flags().BoolVar(&f.generate, "generate-otp", false, "make a one-time password for -init")
	cmd.Flags().StringVar(&f.otp, "otp", "", "the one-time `password`, for -init and -decode")
	cmd.Flags().StringVar(&f.pgp, "pgp-key", "", "with -init: the `file` of the PGP public key, binary or base64, that the token is encrypted to")
	cmd.Flags().StringVar(&f.nonce, "nonce", "", "the attempt's `nonce`")
	cmd.Flags().StringVar(&f.decode, "decode", "", "decode the `encoded` token with -otp")
	cmd.MarkFlagsMutuallyExclusive("init", "cancel", "status", "generate-otp", "decode")
	return cmd
}

func (f *rootFlags) run(s *client.Session, cmd *cobra.Command, c *api.Client, args []string) error {
	ctx := cmd.Context()
	switch {
	case f.init:
		key, err := readPGP(f.pgp)
		if err != nil {
			return err
		}
		status, err := c.Sys().GenerateRootInitWithContext(ctx, f.otp, key)
		if err != nil {
			return err
		}
		return printRoot(s, status)
	case f.cancel:
		r := c.NewRequest(http.MethodDelete, "/v1/sys/generate-root/attempt")
		r.Params = url.Values{"nonce": {f.nonce}}
		resp, err := c.RawRequestWithContext(ctx, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return s.Done("Success! The attempt is cancelled.")
	case f.status:
		r := c.NewRequest(http.MethodGet, "/v1/sys/generate-root/attempt")
		r.Params = url.Values{"nonce": {f.nonce}}
		resp, err := c.RawRequestWithContext(ctx, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var status api.GenerateRootStatusResponse
		if err := resp.DecodeJSON(&status); err != nil {
			return err
		}
		return printRoot(s, &status)
	}
	if f.nonce == "" {
		return client.Usagef("give the attempt's -nonce, which -init showed, or begin one with -init")
	}
	arg := ""
	if len(args) == 1 {
		arg = args[0]
	}
	share, err := s.Secret(arg, "Unseal key share")
	if err != nil {
		return err
	}
	status, err := c.Sys().GenerateRootUpdateWithContext(ctx, share, f.nonce)
	if err != nil {
		return err
	}
	return printRoot(s, status)
}

// readPGP reads a public key for the API, which wants base64 of the binary form.
func readPGP(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := strings.Join(strings.Fields(string(raw)), "")
	if _, err := base64.StdEncoding.DecodeString(text); err == nil {
		return text, nil
	}
	return base64.StdEncoding.EncodeToString(raw), nil
}

// rootTokenLength is that of tokens which shares make, prefix included.
const rootTokenLength = 28

func decodeRoot(encoded, otp string) (string, error) {
	if otp == "" {
		return "", client.Usagef("-decode needs the -otp that the attempt was begun with")
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if err != nil {
		return "", client.Usagef("the encoded token is not base64: was it encrypted to a PGP key?")
	}
	if len(raw) != len(otp) {
		return "", client.Usagef("the encoded token has %d bytes, the one-time password %d: they don't belong together", len(raw), len(otp))
	}
	for i := range raw {
		raw[i] ^= otp[i]
	}
	return string(raw), nil
}

func printRoot(s *client.Session, status *api.GenerateRootStatusResponse) error {
	return s.Print(status, func(w io.Writer) {
		rows := [][]string{{"Started", strconv.FormatBool(status.Started)}, {"Progress", fmt.Sprintf("%d/%d", status.Progress, status.Required)},
			{"Complete", strconv.FormatBool(status.Complete)}}
		for _, row := range [][]string{{"Nonce", status.Nonce}, {"OTP", status.OTP}, {"PGP Fingerprint", status.PGPFingerprint}, {"Encoded Token", status.EncodedToken}} {
			if row[1] != "" {
				rows = append(rows, row)
			}
		}
		client.WriteTable(w, []string{"Key", "Value"}, rows)
		switch {
		case status.OTP != "":
			fmt.Fprintln(w, "\nKeep the OTP: only it decodes the token. The other holders need the nonce.")
		case status.Complete && status.PGPFingerprint == "":
			fmt.Fprintln(w, "\nconclave operator generate-root -decode=ENCODED -otp=OTP shows the token.")
		}
	})
}
