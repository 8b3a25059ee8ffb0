// Package operator is the commands for those who run a cluster: initialise, open and close it, look after its members
// and its keys.
package operator

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "operator", Short: "Run a cluster"}
	group.AddCommand(initialise(s), unseal(s), seal(s), stepDown(s), members(s), admit(s), raft(s), keyStatus(s), rotate(s), generateRoot(s), shares(s))
	return group
}

func seal(s *client.Session) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: "seal", Short: "Close the vault on all nodes, or on one", Args: cobra.NoArgs,
		Long: "Close the vault on all nodes: requests in flight are finished, then all keys are wiped. With -node only that node closes.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			if node == "" {
				if err := c.Sys().SealWithContext(cmd.Context()); err != nil {
					return err
				}
				return s.Done("Success! The vault is sealed.")
			}
			r := c.NewRequest(http.MethodPut, "/v1/sys/seal")
			r.Params = url.Values{"node": {node}}
			resp, err := c.RawRequestWithContext(cmd.Context(), r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			return s.Done("Success! Node %s is sealed.", node)
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "close the node with this `id` alone")
	return cmd
}

func stepDown(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "step-down", Short: "Hand leadership to another node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			if err := c.Sys().StepDownWithContext(cmd.Context()); err != nil {
				return err
			}
			return s.Done("Success! Stepped down: %s", c.Address())
		},
	}
}

func keyStatus(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "key-status", Short: "Show the version of the encryption keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			return printKeyStatus(cmd, s, c)
		},
	}
}

func printKeyStatus(cmd *cobra.Command, s *client.Session, c *api.Client) error {
	status, err := c.Sys().KeyStatusWithContext(cmd.Context())
	if err != nil {
		return err
	}
	return s.Print(status, func(w io.Writer) {
		client.WriteTable(w, []string{"Key", "Value"}, [][]string{{"Key Term", strconv.Itoa(status.Term)},
			{"Install Time", status.InstallTime.Format(time.RFC3339)}, {"Encryption Count", strconv.Itoa(status.Encryptions)}})
	})
}

func rotate(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Make new encryption keys; what is stored is re-encrypted in the background", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			if err := c.Sys().RotateWithContext(cmd.Context()); err != nil {
				return err
			}
			if err := s.Done("Success! Rotated the keys.\n"); err != nil {
				return err
			}
			return printKeyStatus(cmd, s, c)
		},
	}
}

func members(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "members", Short: "List the members of the cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			list, raw, err := Members(cmd.Context(), c)
			if err != nil {
				return err
			}
			return s.Print(raw, func(w io.Writer) {
				rows := make([][]string, len(list))
				for i, m := range list {
					rows[i] = []string{m.NodeID, m.APIAddress, m.Address, m.ServerID, strconv.FormatBool(m.Voter), strconv.FormatBool(m.Unsealed), strconv.FormatBool(m.Leader)}
				}
				client.WriteTable(w, []string{"Node", "API Address", "Cluster Address", "Raft Server", "Voter", "Unsealed", "Leader"}, rows)
			})
		},
	}
}

func admit(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "admit", Short: "Make a token with which one more node may join", Args: cobra.NoArgs,
		Long: "Make a token with which one more node may join the cluster, once, within an hour: it goes into the new node's configuration\n" +
			"(cluster.admit_token). The vault must be open.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			answer, err := client.Request(cmd.Context(), c, http.MethodPost, "sys/admit", nil)
			if err != nil {
				return err
			}
			if answer == nil {
				return client.Remotef("the answer holds no token")
			}
			return s.PrintSecret(answer)
		},
	}
	s.AddField(cmd)
	return cmd
}
