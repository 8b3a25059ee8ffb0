// Package policy is the commands for policies, and for the questions that they answer: who may do what, and why not.
package policy

import (
	"fmt"
	"io"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
)

// Command is the group for policies.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "policy", Short: "Work with policies"}
	group.AddCommand(policyList(s), policyRead(s), policyWrite(s), policyDelete(s))
	return group
}

func policyList(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the policies", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			names, err := c.Sys().ListPoliciesWithContext(cmd.Context())
			if err != nil {
				return err
			}
			return s.Print(names, func(w io.Writer) {
				for _, name := range names {
					fmt.Fprintln(w, name)
				}
			})
		},
	}
}

func policyRead(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "read NAME", Short: "Show a policy", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			name := strings.ToLower(strings.TrimSpace(args[0]))
			rules, err := c.Sys().GetPolicyWithContext(cmd.Context(), name)
			if err != nil {
				return err
			}
			if rules == "" {
				return client.Remotef("there is no policy %s", name)
			}
			return s.Print(map[string]string{"policy": rules}, func(w io.Writer) { fmt.Fprintln(w, strings.TrimRight(rules, "\n")) })
		},
	}
}

func policyWrite(s *client.Session) *cobra.Command {
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
			name := strings.ToLower(strings.TrimSpace(args[0]))
			if err := c.Sys().PutPolicyWithContext(cmd.Context(), name, rules); err != nil {
				return err
			}
			return s.Done("Success! Uploaded policy: %s", name)
		},
	}
}

func policyDelete(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a policy", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			name := strings.ToLower(strings.TrimSpace(args[0]))
			if err := c.Sys().DeletePolicyWithContext(cmd.Context(), name); err != nil {
				return err
			}
			return s.Done("Success! Deleted policy: %s", name)
		},
	}
}
