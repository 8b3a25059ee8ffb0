package pki

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// How bad something is. The exit code is that of the worst, as Vault's.
const (
	statusOK = iota
	_        // 1 is a wrong use of the command
	statusInformational
	statusWarning
	statusCritical
	_ // 5 is a version that doesn't fit
	statusPermission
)

var statusNames = map[int]string{statusOK: "ok", statusInformational: "informational", statusWarning: "warning", statusCritical: "critical", statusPermission: "insufficient_permissions"}

// finding is what a check has to say of something.
type finding struct {
	Status   string `json:"status"`
	Endpoint string `json:"endpoint"`
	Message  string `json:"message"`

	code int
}

// inquiry is one look over a mount.
type inquiry struct {
	client *api.Client
	mount  string
	found  []finding
}

func (q *inquiry) report(code int, path, message string, args ...any) {
	q.found = append(q.found, finding{statusNames[code], "/v1/" + q.mount + "/" + path, fmt.Sprintf(message, args...), code})
}

// read reads a path of the mount. A refusal is a finding, and then there is nothing to look at.
func (q *inquiry) read(ctx context.Context, path string) (map[string]any, error) {
	return q.answer(path)(q.client.Logical().ReadWithContext(ctx, q.mount+"/"+path))
}

func (q *inquiry) list(ctx context.Context, path string) ([]string, error) {
	data, err := q.answer(path)(q.client.Logical().ListWithContext(ctx, q.mount+"/"+path))
	keys, _ := data["keys"].([]any)
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = client.Text(key)
	}
	return names, err
}

func (q *inquiry) answer(path string) func(*api.Secret, error) (map[string]any, error) {
	return func(secret *api.Secret, err error) (map[string]any, error) {
		if refused, ok := errors.AsType[*api.ResponseError](err); ok && refused.StatusCode == 403 {
			q.report(statusPermission, path, "the token may not read this")
			return nil, nil
		}
		if err != nil || secret == nil {
			return nil, err
		}
		return secret.Data, nil
	}
}

func healthCheck(s *client.Session) *cobra.Command {
	var list bool
	var indicator string
	cmd := &cobra.Command{
		Use: "health-check [-list] [-return-indicator=default] MOUNT", Short: "Look over a mount: what ends soon, what is too open, what grows", Args: cobra.MaximumNArgs(1),
		Long: "Look over a mount of the engine pki. The exit code is 0 if all is well, 1 for a wrong use of the command, 2 if there is something\n" +
			"to know, 3 to be warned of, 4 to be mended at once, 6 where the token may not look. -return-indicator names the least that counts.",
		Example: "  conclave pki health-check -return-indicator=warning pki-int/",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			if list {
				return listChecks(s)
			}
			least := map[string]int{"default": statusInformational, "informational": statusInformational, "warning": statusWarning, "critical": statusCritical, "permission": statusPermission}[indicator]
			if len(args) != 1 || least == 0 {
				return client.Usagef("name the mount; -return-indicator is default, informational, warning, critical or permission")
			}
			results, worst, err := look(ctx, c, clean(args[0]))
			if err != nil {
				return err
			}
			if err := s.Print(results, func(w io.Writer) { show(w, results) }); err != nil {
				return err
			}
			if worst >= least {
				return &client.ExitError{Code: worst}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&list, "list", false, "list the checks")
	cmd.Flags().StringVar(&indicator, "return-indicator", "default", "`least` that makes the exit code differ from 0: informational, warning, critical or permission")
	return cmd
}

// look does all checks and returns what they found, by check, and the worst of it.
func look(ctx context.Context, c *api.Client, mount string) (map[string][]finding, int, error) {
	results := map[string][]finding{}
	worst := statusOK
	for _, check := range checks {
		q := &inquiry{client: c, mount: mount}
		if err := check.run(ctx, q); err != nil {
			return nil, 0, err
		}
		results[check.name] = append([]finding{}, q.found...)
		for _, f := range q.found {
			worst = max(worst, f.code)
		}
	}
	return results, worst, nil
}

func show(w io.Writer, results map[string][]finding) {
	for _, check := range checks {
		client.WriteHeading(w, check.name, len(check.name))
		var rows [][]string
		for _, f := range results[check.name] {
			rows = append(rows, []string{f.Status, f.Endpoint, f.Message})
		}
		if len(rows) == 0 {
			rows = [][]string{{"ok", "", "nothing to look at"}}
		}
		slices.SortStableFunc(rows, func(a, b []string) int { return strings.Compare(a[1], b[1]) })
		client.WriteTable(w, []string{"Status", "Endpoint", "Message"}, rows)
		_, _ = fmt.Fprintln(w)
	}
}

func listChecks(s *client.Session) error {
	all := map[string]string{}
	var rows [][]string
	for _, check := range checks {
		all[check.name] = check.about
		rows = append(rows, []string{check.name, check.about})
	}
	return s.Print(all, func(w io.Writer) { client.WriteTable(w, []string{"Check", "What it looks at"}, rows) })
}
