package main

import (
	"fmt"
	"io"
	"runtime"
	"strconv"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// newStatus exits with 0 for an open vault, 2 for a sealed one, and 1 if neither can be told.
func newStatus(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show whether a node is open", Args: cobra.NoArgs,
		Long: "Show whether a node is open. Exit status: 0 open, 2 sealed, 1 an error: the node can't be asked.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return &client.ExitError{Code: client.ExitLocal, Err: err}
			}
			status, err := c.Sys().SealStatusWithContext(cmd.Context())
			if err != nil {
				return &client.ExitError{Code: client.ExitLocal, Err: err}
			}
			rows := statusRows(status)
			if !status.Sealed {
				if leader, err := c.Sys().LeaderWithContext(cmd.Context()); err == nil {
					rows = append(rows, leaderRows(leader)...)
				}
			}
			if err := printStatus(s, status, rows); err != nil {
				return err
			}
			if status.Sealed {
				return &client.ExitError{Code: client.ExitRemote}
			}
			return nil
		},
	}
	s.AddField(cmd)
	return cmd
}

func printStatus(s *client.Session, status *api.SealStatusResponse, rows [][]string) error {
	if s.Field != "" {
		return s.PrintField(map[string]any{"sealed": status.Sealed, "initialized": status.Initialized, "type": status.Type, "t": status.T,
			"n": status.N, "progress": status.Progress, "nonce": status.Nonce, "version": status.Version,
			"cluster_name": status.ClusterName, "cluster_id": status.ClusterID, "storage_type": status.StorageType}, s.Field)
	}
	return s.Print(status, func(w io.Writer) { client.WriteTable(w, []string{"Key", "Value"}, rows) })
}

func statusRows(status *api.SealStatusResponse) [][]string {
	rows := [][]string{
		{"Seal Type", status.Type},
		{"Initialized", strconv.FormatBool(status.Initialized)},
		{"Sealed", strconv.FormatBool(status.Sealed)},
		{"Total Shares", strconv.Itoa(status.N)},
		{"Threshold", strconv.Itoa(status.T)},
	}
	if status.Sealed {
		rows = append(rows, []string{"Unseal Progress", fmt.Sprintf("%d/%d", status.Progress, status.T)}, []string{"Unseal Nonce", status.Nonce})
	}
	rows = append(rows, []string{"Version", status.Version}, []string{"Storage Type", status.StorageType})
	if status.ClusterName != "" {
		rows = append(rows, []string{"Cluster Name", status.ClusterName})
	}
	if status.ClusterID != "" {
		rows = append(rows, []string{"Cluster ID", status.ClusterID})
	}
	for _, warning := range status.Warnings {
		rows = append(rows, []string{"Warning", warning})
	}
	return rows
}

func leaderRows(leader *api.LeaderResponse) [][]string {
	mode := "follower"
	if leader.IsSelf {
		mode = "leader"
	}
	rows := [][]string{{"HA Enabled", strconv.FormatBool(leader.HAEnabled)}, {"Raft Role", mode}, {"Leader Address", orNone(leader.LeaderAddress)}}
	if leader.RaftCommittedIndex > 0 {
		rows = append(rows, []string{"Raft Committed Index", strconv.FormatUint(leader.RaftCommittedIndex, 10)},
			[]string{"Raft Applied Index", strconv.FormatUint(leader.RaftAppliedIndex, 10)})
	}
	return rows
}

func orNone(text string) string {
	if text == "" {
		return "<none>"
	}
	return text
}

func newVersion(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			value := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return s.Print(value, func(w io.Writer) {
				fmt.Fprintf(w, "Conclave %s (%s, %s)\n", version, value["go"], value["platform"])
			})
		},
	}
}
