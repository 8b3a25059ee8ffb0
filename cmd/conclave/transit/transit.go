// Package transit is the commands that bring keys to a transit engine: they wrap a key on this machine, so that it never
// travels, nor lies in an audit log, in plaintext.
package transit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"strings"

	"conclave/cmd/conclave/client"
	"conclave/engine/transit"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "transit", Short: "Bring keys to a transit engine",
		Example: "  conclave transit import transit/keys/app @app.pem type=rsa-2048\n  conclave transit import-version transit/keys/app @app2.pem"}
	group.AddCommand(bring(s, "import", "import", "Make a key of one that is brought"),
		bring(s, "import-version", "import_version", "Add a version that is brought to an imported key"))
	return group
}

const long = `KEY is base64 of the key: raw bytes for symmetric keys, PKCS #8 (DER) for those with a public half. @FILE takes it
from a file and - from standard input; both may hold PEM instead, of a private key or of a public one alone. What is
typed as an argument stays in the shell's history.

The key is wrapped here, under the mount's wrapping key, as PKCS #11's CKM_RSA_AES_KEY_WRAP does. Further arguments are
fields of the request, such as type=ecdsa-p256 exportable=true.`

// bring is a command that wraps a key and writes it to PATH/route.
func bring(s *client.Session, name, route, short string) *cobra.Command {
	return &cobra.Command{
		Use: name + " PATH KEY [key=value]…", Short: short, Long: short + ".\n\n" + long, Args: cobra.MinimumNArgs(2),
		Example: "  conclave transit " + name + " transit/keys/app @key.pem",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			mount, _, ok := splitPath(args[0])
			if !ok {
				return client.Usagef("the path is MOUNT/keys/NAME")
			}
			fields, err := s.Data(args[2:])
			if err != nil {
				return err
			}
			if err := addKey(ctx, s, c, mount, args[1], fields); err != nil {
				return err
			}
			secret, err := c.Logical().WriteWithContext(ctx, strings.Trim(args[0], "/")+"/"+route, fields)
			if err != nil {
				return err
			}
			if secret != nil && len(secret.Warnings) > 0 {
				return s.PrintSecret(secret)
			}
			return s.Done("Success! Imported: %s", strings.Trim(args[0], "/"))
		}),
	}
}

// splitPath takes MOUNT/keys/NAME apart; the mount may have slashes.
func splitPath(path string) (mount, name string, ok bool) {
	path = strings.Trim(path, "/")
	at := strings.LastIndex(path, "/")
	if at < 0 {
		return "", "", false
	}
	mount, isKey := strings.CutSuffix(path[:at], "/keys")
	return mount, path[at+1:], isKey && mount != "" && path[at+1:] != ""
}

// addKey puts the key into the fields of an import: wrapped, or as it is if it is a public one.
func addKey(ctx context.Context, s *client.Session, c *api.Client, mount, arg string, fields map[string]any) error {
	text, err := read(s, arg)
	if err != nil {
		return err
	}
	key, public, err := parse(text)
	if err != nil {
		return err
	}
	defer clear(key)
	if public != "" {
		fields["public_key"] = public
		return nil
	}
	secret, err := c.Logical().ReadWithContext(ctx, mount+"/wrapping_key")
	if err != nil {
		return err
	}
	if secret == nil {
		return client.Remotef("there is no transit engine at %s/", mount)
	}
	wrapping, _ := secret.Data["public_key"].(string)
	hash, _ := fields["hash_function"].(string)
	ciphertext, err := transit.Wrap(wrapping, hash, key)
	if err != nil {
		return client.Usagef("%s", err.Error())
	}
	fields["ciphertext"] = ciphertext
	return nil
}

func read(s *client.Session, arg string) (string, error) {
	if arg == "-" {
		return s.Text("-")
	}
	if file, ok := strings.CutPrefix(arg, "@"); ok {
		return s.Text(file)
	}
	return arg, nil
}

// parse reads base64 or PEM. A public key is returned as it is.
func parse(text string) (key []byte, public string, err error) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		key, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil || len(key) == 0 {
			return nil, "", client.Usagef("the key is neither base64 nor PEM")
		}
		return key, "", nil
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, "", client.Usagef("there is more than one block of PEM in the key's file")
	case block.Type == "PUBLIC KEY":
		return nil, text, nil
	case block.Type == "PRIVATE KEY":
		return block.Bytes, "", nil
	}
	return nil, "", client.Usagef("the key is %s in PEM: convert it to PRIVATE KEY (PKCS #8) with openssl pkcs8 -topk8 -nocrypt", block.Type)
}
