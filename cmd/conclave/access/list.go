package access

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// kinds are those of whom can be asked for, in the order that they are shown in.
var kinds = []string{"policies", "entities", "roles", "tokens"}

// pageSize is how many the vault looks at for one answer.
const pageSize = 500

// Command is the group for questions about who may do what.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "access", Short: "Ask who may do what"}
	group.AddCommand(list(s))
	return group
}

func list(s *client.Session) *cobra.Command {
	l := &lister{session: s}
	cmd := &cobra.Command{
		Use: "list PATH", Short: "List who may do something on a path", Args: cobra.ExactArgs(1),
		Long: "List who may do something on a path: policies, each by itself; entities, by what they and their groups give; roles, users and groups of\n" +
			"auth methods, by what a login gets before its identity; tokens, by all that they have. All are of the namespace that is asked.\n\n" +
			"It takes the capability update on sys/access/list.",
		Example: "  conclave access list secret/data/team/app\n  conclave access list -kind=roles -capability=update secret/data/team/app",
		RunE:    func(cmd *cobra.Command, args []string) error { return l.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&l.kinds, "kind", kinds, "`kind` of whom to list; may be repeated")
	f.StringVar(&l.capability, "capability", "", "`name` of the one capability that matters; any, if not given")
	f.IntVar(&l.limit, "limit", 1000, "`number` of those to list of each kind at most")
	return cmd
}

type lister struct {
	session    *client.Session
	kinds      []string
	capability string
	limit      int
}

// holder is one who has access, as the vault answers.
type holder struct {
	Kind         string   `json:"kind"`
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	EntityID     string   `json:"entity_id"`
	Policies     []string `json:"policies"`
	Capabilities []string `json:"capabilities"`
	Rule         string   `json:"rule"`
}

func (l *lister) run(ctx context.Context, path string) error {
	for _, kind := range l.kinds {
		if !slices.Contains(kinds, kind) {
			return client.Usagef("unknown kind %q: %s", kind, strings.Join(kinds, ", "))
		}
	}
	if l.limit < 1 {
		return client.Usagef("-limit is at least 1")
	}
	c, err := l.session.Client()
	if err != nil {
		return err
	}
	found := []holder{}
	var more []string // kinds that were cut off
	for _, kind := range l.kinds {
		some, cut, err := l.ask(ctx, c, kind, path)
		if err != nil {
			return err
		}
		found = append(found, some...)
		if cut {
			more = append(more, kind)
		}
	}
	if len(more) > 0 {
		fmt.Fprintf(l.session.Err, "Warning: there may be more %s than are shown; -limit raises how many.\n", strings.Join(more, " and "))
	}
	return l.session.Print(found, func(w io.Writer) {
		if len(found) == 0 {
			fmt.Fprintln(w, "Nobody.")
			return
		}
		rows := make([][]string, len(found))
		for i, h := range found {
			rows[i] = []string{h.Kind, h.ID, h.Name, strings.Join(h.Capabilities, ", "), strings.Join(h.Policies, ", ")}
		}
		client.WriteTable(w, []string{"Kind", "Who", "Name", "May", "By policies"}, rows)
	})
}

// ask goes through the pages of one kind.
func (l *lister) ask(ctx context.Context, c *api.Client, kind, path string) (found []holder, cut bool, err error) {
	for after := ""; ; {
		secret, err := client.Request(ctx, c, http.MethodPost, "sys/access/list",
			map[string]any{"path": path, "kind": kind, "capability": l.capability, "after": after, "limit": pageSize})
		if err != nil {
			return nil, false, err
		}
		var page struct {
			Results []holder `json:"results"`
			Next    string   `json:"next"`
		}
		if err := decode(secret, &page); err != nil {
			return nil, false, err
		}
		for _, h := range page.Results {
			if len(found) == l.limit {
				return found, true, nil
			}
			h.Kind = kind
			found = append(found, h)
		}
		if after = page.Next; after == "" {
			return found, false, nil
		}
	}
}
