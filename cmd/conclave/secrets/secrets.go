// Package secrets is the commands for what is mounted: secrets engines, and auth methods, which are mounted below auth/.
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
	"github.com/spf13/pflag"
)

// kind is what the two groups differ in.
type kind struct {
	noun   string
	routes string // in the API
	below  string // where paths of the kind begin
}

// Command is the group for secrets engines.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "secrets", Short: "Mount secrets engines"}
	engines := kind{"secrets engine", "sys/mounts/", ""}
	group.AddCommand(engines.list(s), engines.enable(s), engines.disable(s), engines.tune(s), engines.move(s))
	return group
}

// AuthCommand is the group for auth methods.
func AuthCommand(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "auth", Short: "Mount auth methods: ways to log in"}
	methods := kind{"auth method", "sys/auth/", "auth/"}
	group.AddCommand(methods.list(s), methods.enable(s), methods.disable(s), methods.tune(s), methods.move(s))
	return group
}

// clean is a path of the kind without slashes around it, and without what all paths of the kind begin with.
func (k kind) clean(path string) string {
	path = strings.Trim(path, "/")
	if k.below != "" {
		path = strings.TrimPrefix(path, k.below)
	}
	return path
}

func (k kind) list(s *client.Session) *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the mounts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			read := c.Sys().ListMountsWithContext
			if k.below != "" {
				read = c.Sys().ListAuthWithContext
			}
			mounts, err := read(cmd.Context())
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
	options map[string]string
	version int
}

// setting is a flag that is sent under its own name, with underscores.
type setting struct {
	name, usage string
	add         func(f *pflag.FlagSet, name, usage string)
}

func text(f *pflag.FlagSet, name, usage string)   { f.String(name, "", usage) }
func list(f *pflag.FlagSet, name, usage string)   { f.StringSlice(name, nil, usage) }
func number(f *pflag.FlagSet, name, usage string) { f.Uint(name, 0, usage) }
func truth(f *pflag.FlagSet, name, usage string)  { f.Bool(name, false, usage) }

// settings are those of all mounts; the description is the only one that isn't below config.
var settings = []setting{
	{"description", "what it is for, in `words`", text},
	{"default-lease-ttl", "`duration` of leases that ask for none", text},
	{"max-lease-ttl", "longest `duration` of leases", text},
	{"listing-visibility", "`who` may see that it is there: hidden (those who may use it), or unauth (everybody)", text},
	{"audit-non-hmac-request-keys", "`name` of a request's field that the audit log shows as it is; may be repeated", list},
	{"audit-non-hmac-response-keys", "`name` of an answer's field that the audit log shows as it is; may be repeated", list},
	{"passthrough-request-headers", "`name` of a header that it is shown; may be repeated", list},
	{"allowed-response-headers", "`name` of a header that it may set; may be repeated", list},
	{"force-no-cache", "kept with the mount", truth},
}

// lockoutPrefix begins the flags that say how wrong guesses lock accounts; lockoutField is what they are sent in.
const (
	lockoutPrefix = "user-lockout-"
	lockoutField  = "user_lockout_config"
)

// authSettings are those of auth methods alone.
var authSettings = []setting{
	{"token-type", "`kind` of tokens that logins get: default-service, default-batch, service or batch", text},
	{lockoutPrefix + "threshold", "`number` of wrong guesses that lock an account", number},
	{lockoutPrefix + "duration", "`duration` that it stays locked", text},
	{lockoutPrefix + "counter-reset-duration", "`duration` without a wrong guess after which all are forgotten", text},
	{lockoutPrefix + "disable", "lock no accounts", truth},
}

func (f *mountFlags) add(cmd *cobra.Command, k kind) {
	for _, s := range k.settings() {
		s.add(cmd.Flags(), s.name, s.usage)
	}
	cmd.Flags().StringToStringVar(&f.options, "options", nil, "`key=value` options of the "+k.noun+"; may be repeated")
	if k.below == "" {
		cmd.Flags().IntVar(&f.version, "version", 0, "`version` of the engine: 1 or 2 for kv")
	}
}

func (k kind) settings() []setting {
	if k.below == "" {
		return settings
	}
	return slices.Concat(settings, authSettings)
}

// given are the settings that were given, options apart.
func (k kind) given(cmd *cobra.Command) map[string]any {
	fields, lockout := make(map[string]any), make(map[string]any)
	for _, s := range k.settings() {
		flag := cmd.Flags().Lookup(s.name)
		if !flag.Changed {
			continue
		}
		value := any(flag.Value.String())
		if several, ok := flag.Value.(pflag.SliceValue); ok {
			value = several.GetSlice()
		}
		name, isLockout := strings.CutPrefix(s.name, lockoutPrefix)
		if name = strings.ReplaceAll(name, "-", "_"); isLockout {
			lockout["lockout_"+name] = value
		} else {
			fields[name] = value
		}
	}
	if len(lockout) > 0 {
		fields[lockoutField] = lockout
	}
	return fields
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

func (k kind) one() string {
	if k.below != "" {
		return "an " + k.noun
	}
	return "a " + k.noun
}

func (k kind) example() string {
	if k.below != "" {
		return "  conclave auth enable userpass\n  conclave auth enable -path=robots approle"
	}
	return "  conclave secrets enable -path=secret -version=2 kv\n  conclave secrets enable kv-v2"
}

func (k kind) enable(s *client.Session) *cobra.Command {
	var flags mountFlags
	var path string
	var local, sealWrap bool
	cmd := &cobra.Command{
		Use: "enable [-path=PATH] TYPE", Short: "Mount " + k.one(), Args: cobra.ExactArgs(1), Example: k.example(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			named := args[0]
			if named == "kv-v2" && k.below == "" {
				named, flags.version = "kv", 2
			}
			if path = k.clean(path); path == "" {
				path = named
			}
			config := k.given(cmd)
			fields := map[string]any{"type": named, "description": config["description"], "local": local, "seal_wrap": sealWrap,
				"options": flags.merge(), "config": config}
			delete(config, "description")
			if _, err := client.Request(cmd.Context(), c, http.MethodPost, k.routes+path, fields); err != nil {
				return err
			}
			return s.Done("Success! Enabled the %s %s at: %s/", named, k.noun, path)
		},
	}
	flags.add(cmd, k)
	cmd.Flags().StringVar(&path, "path", "", "`path` to mount it at; default the type")
	cmd.Flags().BoolVar(&local, "local", false, "kept with the mount; there is no replication between clusters")
	cmd.Flags().BoolVar(&sealWrap, "seal-wrap", false, "kept with the mount")
	return cmd
}

func (k kind) disable(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "disable PATH", Short: "Remove a mount and destroy all that is in it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			path := k.clean(args[0])
			if path == "" {
				return client.Usagef("name the path that is to be disabled")
			}
			unmount := c.Sys().UnmountWithContext
			if k.below != "" {
				unmount = c.Sys().DisableAuthWithContext
			}
			if err := unmount(cmd.Context(), path); err != nil {
				return err
			}
			return s.Done("Success! Disabled the %s (if it existed) at: %s/", k.noun, path)
		},
	}
}

func (k kind) tune(s *client.Session) *cobra.Command {
	var flags mountFlags
	cmd := &cobra.Command{
		Use: "tune PATH", Short: "Change the settings of a mount", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fields := k.given(cmd)
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
			path := k.clean(args[0])
			if _, err := client.Request(cmd.Context(), c, http.MethodPost, k.routes+path+"/tune", fields); err != nil {
				return err
			}
			return s.Done("Success! Tuned the %s at: %s/", k.noun, path)
		},
	}
	flags.add(cmd, k)
	return cmd
}

func (k kind) move(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "move SOURCE DESTINATION", Short: "Mount it at another path, with all that is in it", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			from, to := k.below+k.clean(args[0]), k.below+k.clean(args[1])
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
			return s.Done("Success! Moved the %s %s/ to: %s/", k.noun, from, to)
		},
	}
}
