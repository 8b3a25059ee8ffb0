package operator

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

func raft(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "raft", Short: "Look at the Raft configuration and change it"}
	autopilot := &cobra.Command{Use: "autopilot", Short: "Look at the health of the cluster's servers"}
	autopilot.AddCommand(autopilotState(s))
	group.AddCommand(listPeers(s), removePeer(s), autopilot)
	return group
}

func listPeers(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "list-peers", Short: "List the servers of the Raft configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			secret, err := c.Logical().ReadWithContext(cmd.Context(), "sys/storage/raft/configuration")
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("this vault has no Raft configuration")
			}
			return s.Print(secret, func(w io.Writer) {
				config, _ := secret.Data["config"].(map[string]any)
				servers, _ := config["servers"].([]any)
				rows := make([][]string, 0, len(servers))
				for _, item := range servers {
					server, _ := item.(map[string]any)
					state := "follower"
					if leader, _ := server["leader"].(bool); leader {
						state = "leader"
					}
					rows = append(rows, []string{client.Text(server["node_id"]), client.Text(server["address"]), state, client.Text(server["voter"])})
				}
				client.WriteTable(w, []string{"Node", "Address", "State", "Voter"}, rows)
			})
		},
	}
}

func removePeer(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "remove-peer NODE_ID", Short: "Remove a server from the cluster", Args: cobra.ExactArgs(1),
		Long: "Remove a server from the cluster; it is cut off at once. Remove one at a time, and never so many that the rest is no majority.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			body := map[string]any{"server_id": args[0]}
			if _, err := client.Request(cmd.Context(), c, http.MethodPost, "sys/storage/raft/remove-peer", body); err != nil {
				return err
			}
			return s.Done("Success! Peer removed: %s", args[0])
		},
	}
}

func autopilotState(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "state", Short: "Show how the cluster's servers are", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			secret, err := c.Logical().ReadWithContext(cmd.Context(), "sys/storage/raft/autopilot/state")
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("this vault keeps no autopilot state")
			}
			return s.Print(secret.Data, func(w io.Writer) { writeAutopilot(w, secret) })
		},
	}
}

func writeAutopilot(w io.Writer, secret *api.Secret) {
	state := secret.Data
	client.WriteTable(w, []string{"Key", "Value"}, [][]string{{"Healthy", client.Text(state["healthy"])},
		{"Failure Tolerance", client.Text(state["failure_tolerance"])}, {"Leader", client.Text(state["leader"])}, {"Voters", client.Text(state["voters"])}})
	servers, _ := state["servers"].(map[string]any)
	rows := make([][]string, 0, len(servers))
	for _, id := range slices.Sorted(maps.Keys(servers)) {
		server, _ := servers[id].(map[string]any)
		rows = append(rows, []string{id, client.Text(server["address"]), client.Text(server["status"]), client.Text(server["healthy"]),
			client.Text(server["last_contact"]), client.Text(server["last_term"]), client.Text(server["last_index"])})
	}
	fmt.Fprintln(w)
	client.WriteTable(w, []string{"Server", "Address", "Status", "Healthy", "Last Contact", "Last Term", "Last Index"}, rows)
}
