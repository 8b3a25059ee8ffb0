// Package token is the commands for tokens.
package token

import (
	"fmt"
	"io"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "token", Short: "Work with tokens"}
	group.AddCommand(create(s), lookup(s), renew(s), revoke(s), capabilities(s))
	return group
}

func create(s *client.Session) *cobra.Command {
	var request api.TokenCreateRequest
	var orphan, renewable bool
	var role, id string
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			request.Renewable = &renewable
			if id != "" {
				if request.ID, err = s.Secret(id, "Token id"); err != nil {
					return err
				}
			}
			var secret *api.Secret
			switch tokens := c.Auth().Token(); {
			case role != "":
				secret, err = tokens.CreateWithRoleWithContext(cmd.Context(), &request, role)
			case orphan:
				secret, err = tokens.CreateOrphanWithContext(cmd.Context(), &request)
			default:
				secret, err = tokens.CreateWithContext(cmd.Context(), &request)
			}
			if err != nil {
				return err
			}
			return s.PrintSecret(secret)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&request.Policies, "policy", nil, "`name` of a policy; may be repeated")
	f.StringVar(&request.TTL, "ttl", "", "`duration` that it lives")
	f.StringVar(&request.ExplicitMaxTTL, "explicit-max-ttl", "", "`duration` that no renewal prolongs")
	f.StringVar(&request.Period, "period", "", "`duration` that each renewal gives, for ever")
	f.StringVar(&request.DisplayName, "display-name", "", "`name` for logs")
	f.StringVar(&request.Type, "type", "", "`kind` of token: service or batch")
	f.StringVar(&request.EntityAlias, "entity-alias", "", "`name` of the entity alias to use, with -role")
	f.IntVar(&request.NumUses, "use-limit", 0, "`number` of requests that it is good for; 0: any")
	f.StringToStringVar(&request.Metadata, "metadata", nil, "`key=value` for logs; may be repeated")
	f.BoolVar(&request.NoDefaultPolicy, "no-default-policy", false, "leave the policy default out")
	f.BoolVar(&renewable, "renewable", true, "it can be renewed")
	f.BoolVar(&orphan, "orphan", false, "it outlives the token that makes it")
	f.StringVar(&role, "role", "", "`name` of the token role")
	f.StringVar(&id, "id", "", "the token itself, instead of a random one: - for standard input, @FILE for a file")
	s.AddField(cmd)
	return cmd
}

// target is the token that a command is about: one given as "-", "@FILE" or itself, or that of an accessor, or the
// caller's own.
type target struct {
	token, accessor string
	self            bool
}

func aim(s *client.Session, accessor bool, args []string, self bool) (target, error) {
	switch {
	case len(args) == 0 && accessor:
		return target{}, client.Usagef("with -accessor an accessor must be given")
	case len(args) == 0:
		return target{self: self}, nil
	case accessor:
		return target{accessor: args[0]}, nil
	}
	token, err := s.Secret(args[0], "Token")
	return target{token: token}, err
}

func lookup(s *client.Session) *cobra.Command {
	var accessor bool
	cmd := &cobra.Command{
		Use: "lookup [TOKEN | - | -accessor ACCESSOR]", Short: "Show what a token is; your own without an argument", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := aim(s, accessor, args, true)
			if err != nil {
				return err
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			var secret *api.Secret
			switch tokens := c.Auth().Token(); {
			case of.self:
				secret, err = tokens.LookupSelfWithContext(cmd.Context())
			case of.accessor != "":
				secret, err = tokens.LookupAccessorWithContext(cmd.Context(), of.accessor)
			default:
				secret, err = tokens.LookupWithContext(cmd.Context(), of.token)
			}
			if err != nil {
				return err
			}
			return s.PrintSecret(secret)
		},
	}
	cmd.Flags().BoolVar(&accessor, "accessor", false, "the argument is an accessor")
	s.AddField(cmd)
	return cmd
}

func renew(s *client.Session) *cobra.Command {
	var accessor bool
	var increment string
	cmd := &cobra.Command{
		Use: "renew [TOKEN | - | -accessor ACCESSOR]", Short: "Prolong a token's life; your own without an argument", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := aim(s, accessor, args, true)
			if err != nil {
				return err
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			body, path := map[string]any{}, "auth/token/renew"
			if increment != "" {
				body["increment"] = increment
			}
			switch {
			case of.self:
				path = "auth/token/renew-self"
			case of.accessor != "":
				path, body["accessor"] = "auth/token/renew-accessor", of.accessor
			default:
				body["token"] = of.token
			}
			secret, err := c.Logical().WriteWithContext(cmd.Context(), path, body)
			if err != nil {
				return err
			}
			return s.PrintSecret(secret)
		},
	}
	cmd.Flags().BoolVar(&accessor, "accessor", false, "the argument is an accessor")
	cmd.Flags().StringVarP(&increment, "increment", "i", "", "`duration` to ask for")
	s.AddField(cmd)
	return cmd
}

func revoke(s *client.Session) *cobra.Command {
	var accessor, self bool
	var mode string
	cmd := &cobra.Command{
		Use: "revoke [TOKEN | - | -accessor ACCESSOR | -self]", Short: "End a token, and all that was made with it", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if self == (len(args) == 1) {
				return client.Usagef("name a token (- for standard input), or -self, one of them")
			}
			byPath := mode == "path" && len(args) == 1 && !accessor
			var of target
			if !byPath {
				var err error
				if of, err = aim(s, accessor, args, true); err != nil {
					return err
				}
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			switch tokens := c.Auth().Token(); {
			case byPath:
				err = c.Sys().RevokePrefixWithContext(cmd.Context(), strings.Trim(args[0], "/"))
			case mode != "" && (mode != "orphan" || of.token == ""):
				return client.Usagef("-mode is orphan, with a token: it ends that token and not those made with it; or path, with where logins made tokens")
			case of.self:
				if err = tokens.RevokeSelfWithContext(cmd.Context(), ""); err == nil {
					err = s.EraseToken(c.Token())
				}
			case of.accessor != "":
				err = tokens.RevokeAccessorWithContext(cmd.Context(), of.accessor)
			case mode == "orphan":
				err = tokens.RevokeOrphanWithContext(cmd.Context(), of.token)
			default:
				err = tokens.RevokeTreeWithContext(cmd.Context(), of.token)
			}
			if err != nil {
				return err
			}
			return s.Done("Success! Revoked the token (if it existed)")
		},
	}
	cmd.Flags().BoolVar(&accessor, "accessor", false, "the argument is an accessor")
	cmd.Flags().BoolVar(&self, "self", false, "your own token, which is forgotten here too")
	cmd.Flags().StringVar(&mode, "mode", "", "`what` to end: orphan leaves the tokens that were made with it; path ends those that logins below a path, auth/PATH, have made")
	return cmd
}

func capabilities(s *client.Session) *cobra.Command {
	var accessor bool
	cmd := &cobra.Command{
		Use: "capabilities [TOKEN | -] PATH", Short: "Show what a token may do at a path; your own without one", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[len(args)-1]
			of, err := aim(s, accessor, args[:len(args)-1], true)
			if err != nil {
				return err
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			var list []string
			switch {
			case of.self:
				list, err = c.Sys().CapabilitiesSelfWithContext(cmd.Context(), path)
			case of.accessor != "":
				list, err = c.Sys().CapabilitiesAccessorWithContext(cmd.Context(), of.accessor, path)
			default:
				list, err = c.Sys().CapabilitiesWithContext(cmd.Context(), of.token, path)
			}
			if err != nil {
				return err
			}
			return s.Print(list, func(w io.Writer) { fmt.Fprintln(w, strings.Join(list, ", ")) })
		},
	}
	cmd.Flags().BoolVar(&accessor, "accessor", false, "the first argument is an accessor")
	return cmd
}
