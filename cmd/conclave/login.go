package main

import (
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

func newLogin(s *client.Session) *cobra.Command {
	var method, path string
	var noStore, noPrint, tokenOnly bool
	cmd := &cobra.Command{
		Use: "login [-method=NAME] [TOKEN | - | key=value…]", Short: "Log in and keep the token for later commands",
		Long: "Log in with a token, or with another auth method. The token is kept in ~/.conclave-token (CONCLAVE_TOKEN_FILE), which only\n" +
			"its owner may read. Without an argument the token is asked for, hidden; - reads it from standard input.\n\n" +
			"For methods that have names and passwords the name is a field (username=…); a password that isn't given is asked for.",
		Example: "  conclave login\n  conclave login - < token-file\n  conclave login -method=userpass username=ann",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			var secret *api.Secret
			if method == "" || method == "token" {
				secret, err = loginToken(cmd, s, c, args)
			} else {
				secret, err = loginMethod(cmd, s, c, method, path, args)
			}
			if err != nil {
				return err
			}
			if secret.WrapInfo == nil && !noStore {
				file, err := s.StoreToken(secret.Auth.ClientToken)
				if err != nil {
					return err
				}
				if !tokenOnly && !noPrint && s.Field == "" {
					if err := s.Done("Success! You are logged in. The token is kept in %s.\n", file); err != nil {
						return err
					}
				}
			}
			if noPrint {
				return nil
			}
			if tokenOnly {
				s.Field = "token"
			}
			return s.PrintSecret(secret)
		},
	}
	f := cmd.Flags()
	f.StringVar(&method, "method", "", "auth `method`: token (the default), userpass, approle…")
	f.StringVar(&path, "path", "", "`path` that the method is mounted at below auth/, if it isn't the method's name")
	f.BoolVar(&noStore, "no-store", false, "don't keep the token")
	f.BoolVar(&noPrint, "no-print", false, "print nothing")
	f.BoolVar(&tokenOnly, "token-only", false, "print the token alone and don't keep it")
	cmd.PreRun = func(*cobra.Command, []string) { noStore = noStore || tokenOnly }
	s.AddField(cmd)
	return cmd
}

// loginToken checks a token by looking it up.
func loginToken(cmd *cobra.Command, s *client.Session, c *api.Client, args []string) (*api.Secret, error) {
	if len(args) > 1 {
		return nil, client.Usagef("one token is enough: give it when asked, or - for standard input")
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
	found, err := c.Auth().Token().LookupSelfWithContext(cmd.Context())
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

// named are the methods that log in below a name: method → path after the mount.
var named = map[string]string{"userpass": "login/", "ldap": "login/", "radius": "login/", "okta": "login/"}

func loginMethod(cmd *cobra.Command, s *client.Session, c *api.Client, method, path string, args []string) (*api.Secret, error) {
	if path = strings.TrimPrefix(strings.Trim(path, "/"), "auth/"); path == "" {
		path = method
	}
	data, err := s.Data(args)
	if err != nil {
		return nil, err
	}
	route := "auth/" + path + "/login"
	if below, ok := named[method]; ok {
		name, ok := data["username"].(string)
		if !ok || name == "" {
			return nil, client.Usagef("a name is needed: username=NAME")
		}
		delete(data, "username")
		if data["password"] == nil {
			if data["password"], err = s.Prompt("Password"); err != nil {
				return nil, err
			}
		}
		route = "auth/" + path + "/" + below + name
	}
	c.ClearToken()
	secret, err := c.Logical().WriteWithContext(cmd.Context(), route, data)
	if err != nil {
		return nil, err
	}
	if secret == nil || secret.Auth == nil && secret.WrapInfo == nil {
		return nil, client.Remotef("the answer of %s holds no token", route)
	}
	return secret, nil
}
