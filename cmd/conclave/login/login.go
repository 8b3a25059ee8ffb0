// Package login is the command that gets a token from an auth method and keeps it for later commands.
//
// What proves who somebody is (passwords, secret-ids, signed tokens, codes) is asked for without showing it when it isn't
// given, or comes from a file or standard input; none has to be an argument.
package login

import (
	"context"
	"fmt"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// flags are those of the command.
type flags struct {
	method, path                string
	noStore, noPrint, tokenOnly bool
}

// Command is the command.
func Command(s *client.Session) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "login [-method=NAME] [TOKEN | - | key=value…]", Short: "Log in and keep the token for later commands",
		Long: "Log in with a token, or with another auth method. The token is kept in ~/.conclave-token (CONCLAVE_TOKEN_FILE), which only\n" +
			"its owner may read. Without an argument the token is asked for, hidden; - reads it from standard input.\n\n" +
			"Other methods take fields (username=ann); a password or another secret that isn't given is asked for.\n" +
			"`conclave auth help METHOD` shows what each takes: " + strings.Join(names(), ", ") + ".",
		Example: "  conclave login\n  conclave login - < token-file\n  conclave login -method=userpass username=ann\n  conclave login -method=oidc role=dev",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			secret, err := f.login(ctx, s, c, args)
			if err != nil {
				return err
			}
			return f.finish(s, secret)
		}),
	}
	cmd.Flags().StringVar(&f.method, "method", "token", "auth `method`: "+strings.Join(names(), ", "))
	cmd.Flags().StringVar(&f.path, "path", "", "`path` that the method is mounted at below auth/, if it isn't the method's name")
	cmd.Flags().BoolVar(&f.noStore, "no-store", false, "don't keep the token")
	cmd.Flags().BoolVar(&f.noPrint, "no-print", false, "print nothing")
	cmd.Flags().BoolVar(&f.tokenOnly, "token-only", false, "print the token alone and don't keep it")
	s.AddField(cmd)
	return cmd
}

// login gets a token, or what wraps one.
func (f *flags) login(ctx context.Context, s *client.Session, c *api.Client, args []string) (*api.Secret, error) {
	if f.method == "" || f.method == "token" {
		if f.path != "" && strings.Trim(f.path, "/") != "token" {
			return nil, client.Usagef("tokens have no other path: leave out -path, or name a method")
		}
		return withToken(ctx, s, c, args)
	}
	how := find(f.method)
	if how == nil {
		return nil, client.Usagef("unknown method %q: %s. For another kind of method, `conclave write auth/PATH/login …` logs in", f.method, strings.Join(names(), ", "))
	}
	fields, err := s.Data(args)
	if err != nil {
		return nil, err
	}
	path := strings.TrimPrefix(strings.Trim(f.path, "/"), "auth/")
	if path == "" {
		path = how.name
	}
	c.ClearToken()
	a := &attempt{s, c, "auth/" + path + "/", fields}
	secret, err := how.login(ctx, a)
	if err != nil {
		return nil, err
	}
	if secret, err = a.passFactors(ctx, secret); err != nil {
		return nil, err
	}
	if secret == nil || secret.WrapInfo == nil && (secret.Auth == nil || secret.Auth.ClientToken == "") {
		return nil, client.Remotef("the answer of %s holds no token", a.mount)
	}
	return secret, nil
}

// finish keeps the token and shows it, as the flags say.
func (f *flags) finish(s *client.Session, secret *api.Secret) error {
	quiet := f.noPrint || f.tokenOnly || s.Field != ""
	if secret.WrapInfo == nil && !f.noStore && !f.tokenOnly {
		file, err := s.StoreToken(secret.Auth.ClientToken)
		if err != nil {
			return err
		}
		if name := s.TokenVariable(); name != "" && !f.noPrint {
			fmt.Fprintf(s.Err, "WARNING! The variable %s is set, and commands go on using its token. Unset it to use the one of this login.\n", name)
		}
		if !quiet {
			if err := s.Done("Success! You are logged in. The token is kept in %s.\n", file); err != nil {
				return err
			}
		}
	}
	if f.noPrint {
		return nil
	}
	if f.tokenOnly {
		if s.Field = "token"; secret.WrapInfo != nil {
			s.Field = "wrapping_token"
		}
	}
	return s.PrintSecret(secret)
}

// withToken checks a token by looking it up.
func withToken(ctx context.Context, s *client.Session, c *api.Client, args []string) (*api.Secret, error) {
	if len(args) > 1 {
		return nil, client.Usagef("one token is enough: give it when asked, or - for standard input. For another method: -method=NAME")
	}
	arg := ""
	if len(args) == 1 {
		arg = strings.TrimPrefix(args[0], "token=")
	}
	token, err := s.Secret(arg, "Token")
	if err != nil {
		return nil, err
	}
	c.SetToken(token)
	c.SetWrappingLookupFunc(nil) // what is looked up here is shown to nobody else
	found, err := c.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return nil, err
	}
	auth := &api.SecretAuth{ClientToken: token}
	if auth.Accessor, err = found.TokenAccessor(); err != nil {
		return nil, client.Remotef("the answer can't be read: %w", err)
	}
	auth.Policies, _ = found.TokenPolicies()
	auth.TokenPolicies = auth.Policies
	auth.Renewable, _ = found.TokenIsRenewable()
	auth.Metadata, _ = found.TokenMetadata()
	if ttl, err := found.TokenTTL(); err == nil {
		auth.LeaseDuration = int(ttl.Seconds())
	}
	return &api.Secret{Auth: auth}, nil
}
