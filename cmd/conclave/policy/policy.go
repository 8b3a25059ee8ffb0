// Package policy is the commands for policies, which say what tokens may do.
package policy

import (
	"context"
	"fmt"
	"io"
	"strings"

	"conclave/cmd/conclave/client"
	"conclave/policy"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "policy", Short: "Work with policies"}
	group.AddCommand(list(s), read(s), write(s), remove(s), format(s))
	return group
}

func list(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the policies", Args: cobra.NoArgs,
		RunE: s.Connected(func(ctx context.Context, c *api.Client, _ []string) error {
			names, err := c.Sys().ListPoliciesWithContext(ctx)
			if err != nil {
				return err
			}
			return s.Print(names, func(w io.Writer) {
				for _, name := range names {
					fmt.Fprintln(w, name)
				}
			})
		}),
	}
}

func read(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "read NAME", Short: "Show a policy", Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			name := policy.NormalName(args[0])
			rules, err := c.Sys().GetPolicyWithContext(ctx, name)
			if err != nil {
				return err
			}
			if rules == "" {
				return client.Remotef("there is no policy %s", name)
			}
			return s.Print(map[string]string{"policy": rules}, func(w io.Writer) { fmt.Fprintln(w, strings.TrimRight(rules, "\n")) })
		}),
	}
}

func write(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "write NAME FILE", Short: "Make or replace a policy with the rules in a file", Args: cobra.ExactArgs(2),
		Long: "Make or replace a policy with the rules in a file; - is standard input.",
		RunE: func(cmd *cobra.Command, args []string) error {
			rules, err := s.Text(strings.TrimPrefix(args[1], "@"))
			if err != nil {
				return err
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			name := policy.NormalName(args[0])
			if err := c.Sys().PutPolicyWithContext(cmd.Context(), name, rules); err != nil {
				return err
			}
			return s.Done("Success! Uploaded policy: %s", name)
		},
	}
}

func remove(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a policy", Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			name := policy.NormalName(args[0])
			if err := c.Sys().DeletePolicyWithContext(ctx, name); err != nil {
				return err
			}
			return s.Done("Success! Deleted policy: %s", name)
		}),
	}
}
