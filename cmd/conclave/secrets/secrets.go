// Package secrets is the commands for secrets engines and where they are mounted.
package secrets

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "secrets", Short: "Mount secrets engines"}
	group.AddCommand(list(s), enable(s), disable(s), tune(s), move(s))
	return group
}

func list(s *client.Session) *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the mounts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			mounts, err := c.Sys().ListMountsWithContext(cmd.Context())
			if err != nil {
				return err
			}
			return s.Print(mounts, func(w io.Writer) {
				heads, rows := []string{"Path", "Type", "Accessor", "Description"}, make([][]string, 0, len(mounts))
				if detailed {
					heads = []string{"Path", "Type", "Accessor", "Default TTL", "Max TTL", "Options", "UUID", "Description"}
				}
				for _, path := range slices.Sorted(maps.Keys(mounts)) {
					rows = append(rows, mountRow(path, mounts[path], detailed))
				}
				client.WriteTable(w, heads, rows)
			})
		},
	}
	cmd.Flags().BoolVar(&detailed, "detailed", false, "show lifetimes, options and identifiers too")
	return cmd
}

func mountRow(path string, m *api.MountOutput, detailed bool) []string {
	description := m.Description
	if description == "" {
		description = "n/a"
	}
	if !detailed {
		return []string{path, m.Type, m.Accessor, description}
	}
	var options []string
	for _, key := range slices.Sorted(maps.Keys(m.Options)) {
		options = append(options, key+"="+m.Options[key])
	}
	return []string{path, m.Type, m.Accessor, ttl(m.Config.DefaultLeaseTTL), ttl(m.Config.MaxLeaseTTL), strings.Join(options, ","), m.UUID, description}
}

func ttl(seconds int) string {
	if seconds == 0 {
		return "system"
	}
	return strconv.Itoa(seconds) + "s"
}

// mountFlags are the settings that enable and tune share.
type mountFlags struct {
	description, defaultTTL, maxTTL string
	options                         map[string]string
	version                         int
}

func (f *mountFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.description, "description", "", "what it is for, in `words`")
	cmd.Flags().StringVar(&f.defaultTTL, "default-lease-ttl", "", "`duration` of leases that ask for none")
	cmd.Flags().StringVar(&f.maxTTL, "max-lease-ttl", "", "longest `duration` of leases")
	cmd.Flags().StringToStringVar(&f.options, "options", nil, "`key=value` options of the engine; may be repeated")
	cmd.Flags().IntVar(&f.version, "version", 0, "`version` of the engine: 1 or 2 for kv")
}

// merge is the options, the version among them.
func (f *mountFlags) merge() map[string]string {
	if f.version == 0 {
		return f.options
	}
	options := map[string]string{"version": strconv.Itoa(f.version)}
	maps.Copy(options, f.options)
	return options
}

func enable(s *client.Session) *cobra.Command {
	var flags mountFlags
	var path string
	var local, sealWrap bool
	cmd := &cobra.Command{
		Use: "enable [-path=PATH] TYPE", Short: "Mount a secrets engine", Args: cobra.ExactArgs(1),
		Example: "  conclave secrets enable -path=secret -version=2 kv\n  conclave secrets enable kv-v2",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			kind := args[0]
			if kind == "kv-v2" {
				kind, flags.version = "kv", 2
			}
			if path = strings.Trim(path, "/"); path == "" {
				path = kind
			}
			err = c.Sys().MountWithContext(cmd.Context(), path, &api.MountInput{Type: kind, Description: flags.description, Local: local, SealWrap: sealWrap,
				Options: flags.merge(), Config: api.MountConfigInput{DefaultLeaseTTL: flags.defaultTTL, MaxLeaseTTL: flags.maxTTL}})
			if err != nil {
				return err
			}
			return s.Done("Success! Enabled the %s secrets engine at: %s/", kind, path)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&path, "path", "", "`path` to mount it at; default the type")
	cmd.Flags().BoolVar(&local, "local", false, "kept with the mount; there is no replication between clusters")
	cmd.Flags().BoolVar(&sealWrap, "seal-wrap", false, "kept with the mount")
	return cmd
}

func disable(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "disable PATH", Short: "Remove a mount and destroy all that is in it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			path := strings.Trim(args[0], "/")
			if err := c.Sys().UnmountWithContext(cmd.Context(), path); err != nil {
				return err
			}
			return s.Done("Success! Disabled the secrets engine (if it existed) at: %s/", path)
		},
	}
}

func tune(s *client.Session) *cobra.Command {
	var flags mountFlags
	cmd := &cobra.Command{
		Use: "tune PATH", Short: "Change the settings of a mount", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fields := make(map[string]any)
			for name, value := range map[string]string{"description": flags.description, "default-lease-ttl": flags.defaultTTL, "max-lease-ttl": flags.maxTTL} {
				if cmd.Flags().Changed(name) {
					fields[strings.ReplaceAll(name, "-", "_")] = value
				}
			}
			if options := flags.merge(); len(options) > 0 {
				fields["options"] = options
			}
			if len(fields) == 0 {
				return client.Usagef("there is nothing to change: give at least one flag")
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			path := strings.Trim(args[0], "/")
			if _, err := client.Request(cmd.Context(), c, http.MethodPost, "sys/mounts/"+path+"/tune", fields); err != nil {
				return err
			}
			return s.Done("Success! Tuned the secrets engine at: %s/", path)
		},
	}
	flags.add(cmd)
	return cmd
}

func move(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "move SOURCE DESTINATION", Short: "Mount an engine at another path, with all that is in it", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			from, to := strings.Trim(args[0], "/"), strings.Trim(args[1], "/")
			started, err := c.Sys().StartRemountWithContext(cmd.Context(), from, to)
			if err != nil {
				return err
			}
			for started.MigrationID != "" {
				status, err := c.Sys().RemountStatusWithContext(cmd.Context(), started.MigrationID)
				if err != nil {
					return err
				}
				if status.MigrationInfo.MigrationStatus == "success" {
					break
				}
				if status.MigrationInfo.MigrationStatus == "failure" {
					return client.Remotef("the move of %s/ to %s/ failed: the server's log says why", from, to)
				}
				if err := client.Pause(cmd.Context(), client.PollEvery); err != nil {
					return err
				}
			}
			return s.Done("Success! Moved the secrets engine %s/ to: %s/", from, to)
		},
	}
}
