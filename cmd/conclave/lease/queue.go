package lease

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// page is how much of a listing is asked for.
type page struct {
	after string
	limit int
}

func (p *page) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.after, "after", "", "go on after this `name`, the last one of the page before")
	cmd.Flags().IntVar(&p.limit, "limit", 0, "at most this `number`")
}

// list asks for a page; nil if there is nothing.
func (p *page) list(ctx context.Context, c *api.Client, path string) (*api.Secret, error) {
	query := url.Values{"list": {"true"}}
	if p.after != "" {
		query.Set("after", p.after)
	}
	if p.limit > 0 {
		query.Set("limit", strconv.Itoa(p.limit))
	}
	return c.Logical().ReadWithDataWithContext(ctx, path, query)
}

func list(s *client.Session) *cobra.Command {
	var p page
	cmd := &cobra.Command{
		Use: "list [-after=NAME] [-limit=N] [PREFIX]", Short: "List leases by the path that they are for", Args: cobra.MaximumNArgs(1),
		Example: "  conclave lease list\n  conclave lease list database/creds/app",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			path := "sys/leases/lookup/"
			if len(args) > 0 {
				path += clean(args[0]) + "/"
			}
			secret, err := p.list(ctx, c, path)
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("no leases there")
			}
			return s.PrintKeys(secret)
		}),
	}
	p.flags(cmd)
	return cmd
}

func queue(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "queue", Short: "Work with leases that are over and not ended outside yet"}
	group.AddCommand(listed(s, "sys/leases/queue", "Show what is over and not ended outside yet", "attempts", "error", "next_attempt"),
		readOne(s, "sys/leases/queue/", "Show how far the end of a lease is"),
		change(s, http.MethodPut, "retry KEY", "Try at once to end a lease, also one that was abandoned", "sys/leases/queue/", "/retry", "Success! It is tried at once: %s"),
		abandon(s))
	return group
}

func damaged(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "damaged", Short: "Work with leases whose records can't be read"}
	group.AddCommand(listed(s, "sys/leases/damaged", "Show the leases whose records can't be read"),
		readOne(s, "sys/leases/damaged/", "Show what is known of one"),
		change(s, http.MethodPut, "retry KEY", "Look at it again", "sys/leases/damaged/", "/retry", "Success! It is looked at again: %s"),
		change(s, http.MethodDelete, "forget KEY", "Forget it: what it stands for may live on", "sys/leases/damaged/", "", "Success! Forgot: %s"))
	return group
}

// listed shows a listing with some of the details that it has of each key.
func listed(s *client.Session, path, short string, columns ...string) *cobra.Command {
	var p page
	cmd := &cobra.Command{
		Use: "list [-after=KEY] [-limit=N]", Short: short, Args: cobra.NoArgs,
		RunE: s.Connected(func(ctx context.Context, c *api.Client, _ []string) error {
			secret, err := p.list(ctx, c, path)
			if err != nil {
				return err
			}
			if secret == nil {
				return s.Print([]any{}, func(w io.Writer) { client.WriteTable(w, []string{"Nothing"}, nil) })
			}
			info, ok := secret.Data["key_info"].(map[string]any)
			if !ok {
				return s.PrintKeys(secret)
			}
			return s.Print(info, func(w io.Writer) {
				keys, _ := secret.Data["keys"].([]any)
				writeDetails(w, keys, info, append([]string{"lease_id"}, columns...))
			})
		}),
	}
	p.flags(cmd)
	return cmd
}

func writeDetails(w io.Writer, keys []any, info map[string]any, columns []string) {
	rows := make([][]string, 0, len(keys))
	for _, key := range keys {
		name := client.Text(key)
		details, _ := info[name].(map[string]any)
		row := []string{name}
		for _, column := range columns {
			row = append(row, client.Text(details[column]))
		}
		rows = append(rows, row)
	}
	client.WriteTable(w, append([]string{"key"}, columns...), rows)
}

func readOne(s *client.Session, path, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "read KEY", Short: short, Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			secret, err := c.Logical().ReadWithContext(ctx, path+clean(args[0]))
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("there is no such lease")
			}
			return s.PrintSecret(secret)
		}),
	}
	s.AddField(cmd)
	return cmd
}

// change sends one request about a lease.
func change(s *client.Session, method, use, short, before, after, done string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			key := clean(args[0])
			if _, err := client.Request(ctx, c, method, before+key+after, nil); err != nil {
				return err
			}
			return s.Done(done, key)
		}),
	}
}

func abandon(s *client.Session) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "abandon -reason=TEXT KEY", Short: "Give up ending a lease: what it stands for may live on", Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			if reason == "" {
				return client.Usagef("say why with -reason: it stays listed")
			}
			key := clean(args[0])
			if _, err := client.Request(ctx, c, http.MethodPut, "sys/leases/queue/"+key+"/abandon", map[string]any{"reason": reason}); err != nil {
				return err
			}
			return s.Done("Success! Abandoned: %s", key)
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` that stays listed")
	return cmd
}

func count(s *client.Session) *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use: "count [-type=irrevocable]", Short: "Count leases, by mount", Args: cobra.NoArgs,
		RunE: s.Connected(func(ctx context.Context, c *api.Client, _ []string) error {
			secret, err := c.Logical().ReadWithDataWithContext(ctx, "sys/leases/count", kinds(kind))
			if err != nil || secret == nil {
				return err
			}
			return s.Print(secret.Data, func(w io.Writer) {
				counts, _ := secret.Data["counts"].(map[string]any)
				rows := [][]string{}
				for _, mount := range slices.Sorted(maps.Keys(counts)) {
					rows = append(rows, []string{mount, client.Text(counts[mount])})
				}
				client.WriteTable(w, []string{"Mount", "Leases"}, append(rows, []string{"all", client.Text(secret.Data["lease_count"])}))
			})
		}),
	}
	cmd.Flags().StringVar(&kind, "type", "", "irrevocable: those that were abandoned")
	return cmd
}

func kinds(kind string) url.Values {
	if kind == "" {
		return nil
	}
	return url.Values{"type": {kind}}
}

func irrevocable(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "irrevocable", Short: "Work with leases that were abandoned"}
	group.AddCommand(&cobra.Command{
		Use: "list", Short: "Show the leases that were abandoned", Args: cobra.NoArgs,
		RunE: s.Connected(func(ctx context.Context, c *api.Client, _ []string) error {
			secret, err := c.Logical().ReadWithDataWithContext(ctx, "sys/leases", kinds("irrevocable"))
			if err != nil || secret == nil {
				return err
			}
			return s.Print(secret.Data, func(w io.Writer) {
				leases, _ := secret.Data["leases"].([]any)
				columns := []string{"lease_id", "attempts", "error", "reason", "abandoned_by"}
				rows := make([][]string, 0, len(leases))
				for _, lease := range leases {
					details, _ := lease.(map[string]any)
					row := make([]string, len(columns))
					for i, column := range columns {
						row[i] = client.Text(details[column])
					}
					rows = append(rows, row)
				}
				client.WriteTable(w, columns, rows)
			})
		}),
	}, change(s, http.MethodDelete, "forget KEY", "Forget a lease that was abandoned", "sys/leases/abandoned/", "", "Success! Forgot: %s"))
	return group
}

func tidy(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "tidy", Short: "Kept for scripts: there is nothing to tidy", Args: cobra.NoArgs,
		RunE: s.Connected(func(ctx context.Context, c *api.Client, _ []string) error {
			if _, err := client.Request(ctx, c, http.MethodPut, "sys/leases/tidy", nil); err != nil {
				return err
			}
			return s.Done("Success! A lease and its entries are removed together: there is nothing to tidy.")
		}),
	}
}
