// Package pki is the commands for certificate authorities: making intermediates, asking who has signed whom, and looking
// over a mount.
package pki

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "pki", Short: "Work with certificate authorities",
		Example: "  conclave pki issue pki/issuer/default pki-int/ common_name=\"Example Intermediate\" ttl=43800h\n  conclave pki health-check pki-int/"}
	group.AddCommand(issue(s), listIntermediates(s), verifySign(s), healthCheck(s))
	return group
}

// clean is a path as the API has it.
func clean(path string) string { return strings.Trim(path, "/") }

func issue(s *client.Session) *cobra.Command {
	var kind, name string
	cmd := &cobra.Command{
		Use: "issue [-type=internal] [-issuer_name=NAME] PARENT CHILD-MOUNT [key=value]…", Short: "Make an intermediate authority in one mount, signed in another", Args: cobra.MinimumNArgs(2),
		Long: "Make an intermediate authority: a key and a CSR in CHILD-MOUNT, signed by the issuer PARENT, which is written MOUNT/issuer/REF,\n" +
			"and imported into CHILD-MOUNT with the parent's certificate. Further arguments are fields of both requests.",
		Example: "  conclave pki issue -issuer_name=2026 pki/issuer/default pki-int/ common_name=\"Example Intermediate\" key_type=ec ttl=43800h",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			parent, child := clean(args[0]), clean(args[1])
			if _, ref, ok := strings.Cut(parent, "/issuer/"); !ok || ref == "" {
				return client.Usagef("the parent is MOUNT/issuer/REF, such as pki/issuer/default")
			}
			fields, err := s.Data(args[2:])
			if err != nil {
				return err
			}
			return makeIntermediate(ctx, s, c, parent, child, kind, name, fields)
		}),
	}
	cmd.Flags().StringVar(&kind, "type", "internal", "`kind` of key: internal, exported or existing")
	cmd.Flags().StringVar(&name, "issuer_name", "", "`name` of the new issuer")
	s.AddField(cmd)
	return cmd
}

// makeIntermediate is the three requests that it takes, and the one that names the result.
func makeIntermediate(ctx context.Context, s *client.Session, c *api.Client, parent, child, kind, name string, fields map[string]any) error {
	csr, err := c.Logical().WriteWithContext(ctx, child+"/intermediate/generate/"+kind, fields)
	if err != nil {
		return err
	}
	text, _ := field(csr, "csr").(string)
	signing := map[string]any{"csr": text, "format": "pem"}
	for key, value := range fields {
		if key != "format" && key != "csr" {
			signing[key] = value
		}
	}
	signed, err := c.Logical().WriteWithContext(ctx, parent+"/sign-intermediate", signing)
	if err != nil {
		return err
	}
	bundle := []string{client.Text(field(signed, "certificate"))}
	if chain, ok := field(signed, "ca_chain").([]any); ok {
		for _, link := range chain {
			bundle = append(bundle, client.Text(link))
		}
	}
	imported, err := c.Logical().WriteWithContext(ctx, child+"/intermediate/set-signed", map[string]any{"certificate": strings.Join(bundle, "\n")})
	if err != nil {
		return err
	}
	id := newIssuer(imported)
	if id == "" {
		return client.Remotef("the certificate was signed, but %s/ has no issuer with the key that it is for", child)
	}
	if name != "" {
		if _, err := c.Logical().JSONMergePatch(ctx, child+"/issuer/"+id, map[string]any{"issuer_name": name}); err != nil {
			return err
		}
	}
	made, err := c.Logical().ReadWithContext(ctx, child+"/issuer/"+id)
	if err != nil {
		return err
	}
	return s.PrintSecret(made)
}

func field(secret *api.Secret, name string) any {
	if secret == nil {
		return nil
	}
	return secret.Data[name]
}

// newIssuer is the issuer among imported ones whose key is there.
func newIssuer(imported *api.Secret) string {
	mapping, _ := field(imported, "mapping").(map[string]any)
	for _, list := range []string{"imported_issuers", "existing_issuers"} {
		ids, _ := field(imported, list).([]any)
		for _, id := range ids {
			if key, _ := mapping[client.Text(id)].(string); key != "" {
				return client.Text(id)
			}
		}
	}
	return ""
}

// authority is an issuer as the commands see it.
type authority struct {
	Path string
	Cert *x509.Certificate
}

// readAuthority reads an issuer by its path, MOUNT/issuer/REF.
func readAuthority(ctx context.Context, c *api.Client, path string) (*authority, error) {
	path = clean(path)
	if _, ref, ok := strings.Cut(path, "/issuer/"); !ok || strings.Contains(ref, "/") {
		return nil, client.Usagef("%s is no issuer: MOUNT/issuer/REF is wanted", path)
	}
	secret, err := c.Logical().ReadWithContext(ctx, path+"/json")
	if err != nil {
		return nil, err
	}
	if secret == nil {
		return nil, client.Remotef("there is no issuer at %s", path)
	}
	cert, err := parseCert(client.Text(field(secret, "certificate")))
	return &authority{path, cert}, err
}

func parseCert(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, client.Remotef("the answer holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, client.Remotef("the answer's certificate can't be read")
	}
	return cert, nil
}

// relation is what one issuer's certificate has to do with another's.
type relation struct {
	Subject   bool `json:"subject_match"`
	KeyID     bool `json:"key_id_match"`
	Signature bool `json:"signature_match"`
	Trusted   bool `json:"path_match"`
}

func relate(parent, child *x509.Certificate) relation {
	r := relation{Subject: string(parent.RawSubject) == string(child.RawIssuer),
		KeyID:     len(child.AuthorityKeyId) == 0 || string(parent.SubjectKeyId) == string(child.AuthorityKeyId),
		Signature: child.CheckSignatureFrom(parent) == nil}
	anchors := x509.NewCertPool()
	anchors.AddCert(parent)
	_, err := child.Verify(x509.VerifyOptions{Roots: anchors, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	r.Trusted = err == nil
	return r
}

func verifySign(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "verify-sign POSSIBLE-ISSUER POSSIBLE-ISSUED", Short: "Show whether one issuer has signed another", Args: cobra.ExactArgs(2),
		Example: "  conclave pki verify-sign pki/issuer/default pki-int/issuer/default",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			parent, err := readAuthority(ctx, c, args[0])
			if err != nil {
				return err
			}
			child, err := readAuthority(ctx, c, args[1])
			if err != nil {
				return err
			}
			r := relate(parent.Cert, child.Cert)
			return s.Print(r, func(w io.Writer) {
				client.WriteTable(w, []string{"Key", "Value"}, [][]string{{"subject_match", yes(r.Subject)}, {"key_id_match", yes(r.KeyID)}, {"signature_match", yes(r.Signature)}, {"path_match", yes(r.Trusted)}})
			})
		}),
	}
}

func yes(is bool) string {
	if is {
		return "true"
	}
	return "false"
}

func listIntermediates(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "list-intermediates PARENT [MOUNT | CHILD]…", Short: "Show which issuers one has signed", Args: cobra.MinimumNArgs(1),
		Long:    "Show whether PARENT, written MOUNT/issuer/REF, has signed issuers: those that are named, those of mounts that are named, or\nthose of all mounts of the engine that this token can see.",
		Example: "  conclave pki list-intermediates pki/issuer/default pki-int/",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			parent, err := readAuthority(ctx, c, args[0])
			if err != nil {
				return err
			}
			paths, err := childPaths(ctx, c, args[1:])
			if err != nil {
				return err
			}
			signed := map[string]bool{}
			var rows [][]string
			for _, path := range paths {
				child, err := readAuthority(ctx, c, path)
				if err != nil {
					return err
				}
				r := relate(parent.Cert, child.Cert)
				signed[child.Path] = r.Signature && r.Subject
				rows = append(rows, []string{child.Path, yes(signed[child.Path])})
			}
			return s.Print(signed, func(w io.Writer) { client.WriteTable(w, []string{"Intermediate", "Match"}, rows) })
		}),
	}
}

// childPaths are the issuers that arguments stand for.
func childPaths(ctx context.Context, c *api.Client, args []string) ([]string, error) {
	if len(args) == 0 {
		mounts, err := c.Sys().ListMountsWithContext(ctx)
		if err != nil {
			return nil, err
		}
		for path, mount := range mounts {
			if mount.Type == "pki" {
				args = append(args, path)
			}
		}
	}
	var paths []string
	for _, arg := range args {
		if arg = clean(arg); strings.Contains(arg, "/issuer/") {
			paths = append(paths, arg)
			continue
		}
		secret, err := c.Logical().ListWithContext(ctx, arg+"/issuers")
		if err != nil {
			return nil, err
		}
		ids, _ := field(secret, "keys").([]any)
		for _, id := range ids {
			paths = append(paths, arg+"/issuer/"+client.Text(id))
		}
	}
	return paths, nil
}
