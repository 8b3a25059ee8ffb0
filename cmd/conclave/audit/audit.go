// Package audit is the commands for the audit log: the devices that get its lines, and the proof that it is whole.
package audit

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "audit", Short: "Work with the audit log"}
	group.AddCommand(list(s), enable(s), disable(s), hash(s), verify(s), export(s), rotate(s), prune(s))
	return group
}

func list(s *client.Session) *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the audit devices", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			devices, err := c.Sys().ListAuditWithContext(cmd.Context())
			if err != nil {
				return err
			}
			if len(devices) == 0 {
				return client.Remotef("no audit devices are enabled: records are kept in the cluster's own log alone (`conclave audit verify`)")
			}
			return s.Print(devices, func(w io.Writer) {
				heads, rows := []string{"Path", "Type", "Description"}, make([][]string, 0, len(devices))
				if detailed {
					heads = append(heads, "Options")
				}
				for _, path := range slices.Sorted(maps.Keys(devices)) {
					rows = append(rows, deviceRow(path, devices[path], detailed))
				}
				client.WriteTable(w, heads, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&detailed, "detailed", false, "show options too")
	return cmd
}

func deviceRow(path string, d *api.Audit, detailed bool) []string {
	row := []string{path, d.Type, d.Description}
	if d.Description == "" {
		row[2] = "n/a"
	}
	if detailed {
		var options []string
		for _, key := range slices.Sorted(maps.Keys(d.Options)) {
			options = append(options, key+"="+d.Options[key])
		}
		row = append(row, strings.Join(options, " "))
	}
	return row
}

func enable(s *client.Session) *cobra.Command {
	var path, description string
	var local bool
	cmd := &cobra.Command{
		Use: "enable TYPE [key=value…]", Short: "Enable an audit device", Args: cobra.MinimumNArgs(1),
		Long:    "Enable an audit device. Files must lie in a directory that the servers' configuration names for them.",
		Example: "  conclave audit enable file file_path=/var/log/conclave/audit.log",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := args[0]
			data, err := s.Data(args[1:])
			if err != nil {
				return err
			}
			options := make(map[string]string)
			for key, value := range data {
				options[key] = client.Text(value)
			}
			if path = strings.Trim(path, "/"); path == "" {
				path = kind
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			err = c.Sys().EnableAuditWithOptionsWithContext(cmd.Context(), path, &api.EnableAuditOptions{Type: kind, Description: description, Options: options, Local: local})
			if err != nil {
				return err
			}
			return s.Done("Success! Enabled the %s audit device at: %s/", kind, path)
		},
	}
	cmd.Flags().StringVar(&path, "path", "", "`path` that it is managed at; default the type")
	cmd.Flags().StringVar(&description, "description", "", "what it is for, in `words`")
	cmd.Flags().BoolVar(&local, "local", false, "kept with the device")
	return cmd
}

func disable(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "disable PATH", Short: "Disable an audit device; what it has written stays", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			path := strings.Trim(args[0], "/")
			if err := c.Sys().DisableAuditWithContext(cmd.Context(), path); err != nil {
				return err
			}
			return s.Done("Success! Disabled the audit device (if it was enabled) at: %s/", path)
		},
	}
}

func hash(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "hash PATH [- | @FILE | TEXT]", Short: "Hash a text as audit records do, to find it there", Args: cobra.RangeArgs(1, 2),
		Long: "Hash a text as audit records do, to find it there. Without TEXT it is asked for, hidden; - reads it from standard input.",
		RunE: func(cmd *cobra.Command, args []string) error {
			arg := ""
			if len(args) == 2 {
				arg = args[1]
			}
			text, err := s.Secret(arg, "Text to hash")
			if err != nil {
				return err
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			hashed, err := c.Sys().AuditHashWithContext(cmd.Context(), strings.Trim(args[0], "/"), text)
			if err != nil {
				return err
			}
			return s.Print(map[string]string{"hash": hashed}, func(w io.Writer) { fmt.Fprintln(w, hashed) })
		},
	}
}
