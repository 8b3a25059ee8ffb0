package lease

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

const everythingPath = "sys/revoke-everything"

// Everything is the command for emergencies.
func Everything(s *client.Session) *cobra.Command {
	scope := map[string]*string{}
	var yes bool
	var reason string
	cmd := &cobra.Command{
		Use:   "revoke-everything -entity=ID | -accessor=ACCESSOR | -path=PATH | -mount=PATH",
		Short: "Revoke all that an entity or token has got, or that a path or mount has given out", Args: cobra.NoArgs,
		Long: "Revoke all that an entity or token has got, or that a path or mount has given out: tokens and leases end, certificates are\n" +
			"revoked and static credentials rotated where the engine can tell. First a dry run shows what that is; then it asks, or with -yes\n" +
			"goes on. An entity is disabled. The token that you use stays, and so do those above it.\n\n" +
			"The vault does it in the background: this command shows how far it is, and may be interrupted.",
		Example: "  conclave revoke-everything -accessor=8609694a-cdbc-db9b-d345-e782dbb562ed\n  conclave revoke-everything -mount=database -reason='backup leaked' -yes",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, _ []string) error {
			fields := map[string]any{}
			for name, value := range scope {
				if *value != "" {
					fields[name] = *value
				}
			}
			if len(fields) != 1 {
				return client.Usagef("give one of -entity, -accessor, -path and -mount")
			}
			if reason != "" {
				fields["reason"] = reason
			}
			return revokeEverything(ctx, s, c, fields, yes)
		}),
	}
	for name, help := range map[string]string{"entity": "`id` of an entity: it is disabled, and its tokens are revoked", "accessor": "`accessor` of a token: it is revoked with all below it",
		"path": "`path` that leases, credentials or tokens were given for, or one above", "mount": "`path` of a mount"} {
		scope[name] = cmd.Flags().String(name, "", help)
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask after the dry run")
	cmd.Flags().StringVar(&reason, "reason", "", "`text` that stays in the report")
	return cmd
}

func revokeEverything(ctx context.Context, s *client.Session, c *api.Client, fields map[string]any, yes bool) error {
	dry, err := runEverything(ctx, s, c, fields, true)
	if err != nil {
		return err
	}
	if !yes {
		if err := printReport(s, dry); err != nil {
			return err
		}
		if confirmed, err := confirm(s); err != nil || !confirmed {
			return err
		}
	} else if format, err := s.OutputFormat(); err != nil || format == client.Table {
		if err := printReport(s, dry); err != nil {
			return err
		}
	}
	done, err := runEverything(ctx, s, c, fields, false)
	if err != nil {
		return err
	}
	return printReport(s, done)
}

// confirm asks whoever sits at a terminal. Without one nothing is changed.
func confirm(s *client.Session) (bool, error) {
	answer, err := s.Prompt("Revoke all that? Only yes goes on")
	if err != nil {
		fmt.Fprintln(s.Err, "Nothing was changed. With -yes it is done without a question.")
		return false, nil
	}
	if strings.TrimSpace(answer) != "yes" {
		fmt.Fprintln(s.Err, "Nothing was changed.")
		return false, nil
	}
	return true, nil
}

// runEverything starts a job and returns its report.
func runEverything(ctx context.Context, s *client.Session, c *api.Client, fields map[string]any, dry bool) (map[string]any, error) {
	body := maps.Clone(fields)
	body["dry_run"] = dry
	started, err := client.Request(ctx, c, http.MethodPut, everythingPath, body)
	if err != nil {
		return nil, err
	}
	if started == nil {
		return nil, client.Remotef("the vault did not say what it has begun")
	}
	id := client.Text(started.Data["id"])
	shown := ""
	for {
		secret, err := c.Logical().ReadWithContext(ctx, everythingPath+"/"+id)
		if err != nil {
			return nil, err
		}
		if secret == nil {
			return nil, client.Remotef("somebody has stopped it: %s", id)
		}
		if secret.Data["done"] == true {
			return secret.Data, nil
		}
		if at := progress(secret.Data); at != shown {
			fmt.Fprintln(s.Err, at)
			shown = at
		}
		if err := client.Pause(ctx, client.PollEvery); err != nil {
			return nil, err
		}
	}
}

func progress(report map[string]any) string {
	return fmt.Sprintf("at %s: %s tokens, %s leases, %s", client.Text(report["phase"]), client.Text(report["tokens"]), client.Text(report["leases"]), kindsOf(report))
}

// kindsOf says what engines take back.
func kindsOf(report map[string]any) string {
	taken, _ := report["taken_back"].(map[string]any)
	parts := []string{}
	for _, kind := range slices.Sorted(maps.Keys(taken)) {
		parts = append(parts, kind+": "+client.Text(taken[kind]))
	}
	if len(parts) == 0 {
		return "nothing else"
	}
	return strings.Join(parts, ", ")
}

func printReport(s *client.Session, report map[string]any) error {
	return s.Print(report, func(w io.Writer) {
		what := "Revoked"
		if report["dry_run"] == true {
			what = "Would be revoked"
		}
		client.WriteTable(w, []string{what, ""}, [][]string{{"tokens", client.Text(report["tokens"])}, {"leases", client.Text(report["leases"])},
			{"taken back by engines", kindsOf(report)}, {"failed", client.Text(report["failed"])}})
		for _, part := range []struct{ head, member string }{{"Among them", "items"}, {"Failed", "failures"}, {"Stays", "kept"}} {
			writeItems(w, part.head, report[part.member])
		}
		if waiting := client.Text(report["leases_waiting"]); report["dry_run"] != true && waiting != "0" {
			fmt.Fprintf(w, "\n%s leases wait to be ended outside: see conclave lease queue list\n", waiting)
		}
	})
}

func writeItems(w io.Writer, head string, list any) {
	items, _ := list.([]any)
	if len(items) == 0 {
		return
	}
	rows := make([][]string, 0, len(items))
	for _, item := range items {
		details, _ := item.(map[string]any)
		row := []string{client.Text(details["kind"]), client.Text(details["name"])}
		if why, failed := details["error"]; failed {
			row = append(row, client.Text(why))
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	heads := []string{head, "Name"}
	if len(rows[0]) > 2 {
		heads = append(heads, "Why")
	}
	client.WriteTable(w, heads, rows)
}
