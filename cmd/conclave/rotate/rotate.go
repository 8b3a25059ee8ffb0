// Package rotate is the commands for secrets that the engine rotate keeps: rotate them, stop that, see how they do. Entries
// are written, and values read, as with any engine: `conclave write rotate/entries/app …`, `conclave read rotate/creds/app`.
package rotate

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "rotate", Short: "Rotate secrets that are handed over by webhook or command",
		Example: "  conclave rotate now -reason=\"bob has left\" app\n  conclave rotate status app"}
	mount := "rotate"
	group.PersistentFlags().StringVar(&mount, "mount", mount, "`path` of the mount")
	group.AddCommand(rotation(s, &mount), urgent(s, &mount),
		change(s, &mount, "pause", "Stop an entry's scheduled rotations, and further attempts", "Paused %s"),
		change(s, &mount, "resume", "Let a paused entry rotate again", "Resumed %s"),
		status(s, &mount), history(s, &mount), list(s, &mount))
	return group
}

// at is the path of a route of an entry.
func at(mount, route, name string) (string, error) {
	mount, name = strings.Trim(strings.TrimSpace(mount), "/"), strings.TrimSpace(name)
	if mount == "" || name == "" || strings.Contains(name, "/") {
		return "", client.Usagef("name an entry, and with -mount the path of its engine")
	}
	return mount + "/" + route + "/" + name, nil
}

func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "`text` for the history and the audit log")
}

func fieldsOf(reason string) map[string]any {
	fields := map[string]any{}
	if reason != "" {
		fields["reason"] = reason
	}
	return fields
}

func rotation(s *client.Session, mount *string) *cobra.Command {
	var reason string
	var newValue bool
	cmd := &cobra.Command{
		Use: "now [-reason=TEXT] [-new-value] NAME", Short: "Make a new value and hand it over", Args: cobra.ExactArgs(1),
		Long: "Make a new value, hand it to its source and wait until that has verified it. If it fails the old value stays current, and the\n" +
			"new one is handed over again later.",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			path, err := at(*mount, "rotate", args[0])
			if err != nil {
				return err
			}
			fields := fieldsOf(reason)
			if newValue {
				fields["new_value"] = true
			}
			return send(ctx, s, c, path, fields)
		}),
	}
	reasonFlag(cmd, &reason)
	cmd.Flags().BoolVar(&newValue, "new-value", false, "make another value than the one that was handed over without success")
	s.AddField(cmd)
	return cmd
}

func urgent(s *client.Session, mount *string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "emergency [-reason=TEXT] NAME", Short: "Make a new value, and drop the value before at once", Args: cobra.ExactArgs(1),
		Long: "Make a new value and hand it over as `rotate now` does, but leave no time of grace to the value before. This works while the\n" +
			"entry is paused, too.",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			path, err := at(*mount, "emergency", args[0])
			if err != nil {
				return err
			}
			return send(ctx, s, c, path, fieldsOf(reason))
		}),
	}
	reasonFlag(cmd, &reason)
	s.AddField(cmd)
	return cmd
}

func send(ctx context.Context, s *client.Session, c *api.Client, path string, fields map[string]any) error {
	secret, err := client.Request(ctx, c, http.MethodPut, path, fields)
	if err != nil {
		return err
	}
	return s.PrintSecret(secret)
}

func change(s *client.Session, mount *string, route, short, done string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: route + " [-reason=TEXT] NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			path, err := at(*mount, route, args[0])
			if err != nil {
				return err
			}
			if _, err := client.Request(ctx, c, http.MethodPut, path, fieldsOf(reason)); err != nil {
				return err
			}
			return s.Done("Success! "+done, args[0])
		}),
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func status(s *client.Session, mount *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status NAME", Short: "Show how an entry does: versions, what is due, what failed and why", Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			secret, err := read(ctx, c, *mount, "status", args[0])
			if err != nil {
				return err
			}
			return s.PrintSecret(secret)
		}),
	}
	s.AddField(cmd)
	return cmd
}

func read(ctx context.Context, c *api.Client, mount, route, name string) (*api.Secret, error) {
	path, err := at(mount, route, name)
	if err != nil {
		return nil, err
	}
	secret, err := c.Logical().ReadWithContext(ctx, path)
	if err == nil && secret == nil {
		err = client.Remotef("there is no entry %s", name)
	}
	return secret, err
}

// columns of a history: heading → member of a line.
var columns = []struct{ head, member string }{{"Version", "version"}, {"What", "what"}, {"At", "at"}, {"Who", "who"}, {"Reason", "reason"}, {"Attempts", "attempts"}, {"Failure", "failure"}}

func history(s *client.Session, mount *string) *cobra.Command {
	return &cobra.Command{
		Use: "history NAME", Short: "Show an entry's last rotations, the newest first: who, when and why", Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			secret, err := read(ctx, c, *mount, "history", args[0])
			if err != nil {
				return err
			}
			return s.Print(secret, func(w io.Writer) {
				lines, _ := secret.Data["history"].([]any)
				var heads []string
				rows := make([][]string, len(lines))
				for _, column := range columns {
					heads = append(heads, column.head)
					for i := range lines {
						line, _ := lines[i].(map[string]any)
						text := ""
						if value, given := line[column.member]; given {
							text = fmt.Sprint(value)
						}
						rows[i] = append(rows[i], text)
					}
				}
				client.WriteTable(w, heads, rows)
			})
		}),
	}
}

func list(s *client.Session, mount *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the entries", Args: cobra.NoArgs,
		RunE: s.Connected(func(ctx context.Context, c *api.Client, _ []string) error {
			secret, err := c.Logical().ListWithContext(ctx, strings.Trim(*mount, "/")+"/entries")
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("there are no entries below %s/", strings.Trim(*mount, "/"))
			}
			return s.PrintKeys(secret)
		}),
	}
}
