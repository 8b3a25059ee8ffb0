package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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
			status, fields, err := askStatus(cmd.Context(), c)
			if err != nil {
				return &client.ExitError{Code: client.ExitLocal, Err: err}
			}
			rows := statusRows(status, fields)
			if !status.Sealed {
				if leader, err := c.Sys().LeaderWithContext(cmd.Context()); err == nil {
					rows = append(rows, leaderRows(leader)...)
					addLeader(fields, leader)
				}
			}
			if err := printStatus(s, fields, rows); err != nil {
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

// maxStatus bounds the answer of a status, in bytes.
const maxStatus = 1 << 20

// askStatus reads the seal's status, and all that the answer says of it: the client library knows Vault's fields alone.
func askStatus(ctx context.Context, c *api.Client) (*api.SealStatusResponse, map[string]any, error) {
	c = c.WithNamespace("") // there is one seal
	resp, err := c.RawRequestWithContext(ctx, c.NewRequest(http.MethodGet, "/v1/sys/seal-status"))
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, nil, err
	}
	status, fields := new(api.SealStatusResponse), make(map[string]any)
	numbers := json.NewDecoder(bytes.NewReader(text))
	numbers.UseNumber()
	if err := errors.Join(json.Unmarshal(text, status), numbers.Decode(&fields)); err != nil {
		return nil, nil, client.Remotef("what answers at this address is no vault: %w", err)
	}
	return status, fields, nil
}

// addLeader puts who leads beside the seal's fields, by Vault's names.
func addLeader(fields map[string]any, leader *api.LeaderResponse) {
	fields["ha_enabled"], fields["is_self"], fields["active_time"] = leader.HAEnabled, leader.IsSelf, leader.ActiveTime
	fields["leader_address"], fields["leader_cluster_address"] = leader.LeaderAddress, leader.LeaderClusterAddress
	fields["raft_committed_index"], fields["raft_applied_index"] = leader.RaftCommittedIndex, leader.RaftAppliedIndex
}

func printStatus(s *client.Session, fields map[string]any, rows [][]string) error {
	if s.Field != "" {
		return s.PrintField(fields, s.Field)
	}
	return s.Print(fields, func(w io.Writer) { client.WriteTable(w, []string{"Key", "Value"}, rows) })
}

func statusRows(status *api.SealStatusResponse, fields map[string]any) [][]string {
	shares := "Total Shares"
	if status.RecoverySeal {
		shares = "Total Recovery Shares"
	}
	rows := [][]string{
		{"Seal Type", status.Type},
		{"Initialized", strconv.FormatBool(status.Initialized)},
		{"Sealed", strconv.FormatBool(status.Sealed)},
		{shares, strconv.Itoa(status.N)},
		{"Threshold", strconv.Itoa(status.T)},
	}
	if status.Sealed {
		rows = append(rows, []string{"Unseal Progress", fmt.Sprintf("%d/%d", status.Progress, status.T)}, []string{"Unseal Nonce", status.Nonce})
	}
	rows = append(rows, []string{"Version", status.Version})
	if own, ok := fields["conclave_version"].(string); ok {
		rows = append(rows, []string{"Conclave Version", own})
	}
	rows = append(rows, []string{"Storage Type", status.StorageType})
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
