package access

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
)

// Why is the command that says why a request was denied.
func Why(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "why REQUEST_ID", Short: "Say why a request was denied", Args: cobra.ExactArgs(1),
		Long: "Say why a request was denied: the rule that decided, and the capability that would be needed on which path.\n\n" +
			"The id comes with every answer, in the header X-Request-Id, and stands below the error that this program shows.\n" +
			"It is looked up in the audit records, and takes the capability update on sys/access/explain.",
		Example: "  conclave why 1c3f8a52-6f0e-4c5e-9f5a-0d8b7f2f7f10",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			secret, err := client.Request(cmd.Context(), c, http.MethodPost, "sys/access/explain", map[string]any{"request_id": strings.TrimSpace(args[0])})
			if err != nil {
				return err
			}
			if s.Field != "" {
				return s.PrintSecret(secret)
			}
			var e explanation
			if err := decode(secret, &e); err != nil {
				return err
			}
			return s.Print(secret.Data, e.write)
		},
	}
	s.AddField(cmd)
	return cmd
}

// explanation is what the vault answers.
type explanation struct {
	RequestID   string   `json:"request_id"`
	Time        string   `json:"time"`
	Node        string   `json:"node"`
	Namespace   string   `json:"namespace"`
	Operation   string   `json:"operation"`
	Path        string   `json:"path"`
	DisplayName string   `json:"display_name"`
	Policies    []string `json:"policies"`
	Denied      bool     `json:"denied"`
	Error       string   `json:"error"`
	Because     string   `json:"because"`
	Pattern     string   `json:"pattern"`
	Suggestion  string   `json:"suggestion"`
	Needed      struct {
		Path         string   `json:"path"`
		Capabilities []string `json:"capabilities"`
	} `json:"needed"`
}

// write shows it to a person.
func (e *explanation) write(w io.Writer) {
	asked := e.Operation + " " + e.Path
	if e.Namespace != "" {
		asked += ", in the namespace " + e.Namespace
	}
	rows := [][]string{{"Request", e.RequestID}, {"Time", e.Time + ", on " + e.Node}, {"Asked", asked}}
	if e.DisplayName != "" {
		rows = append(rows, []string{"By", e.DisplayName})
	}
	if len(e.Policies) > 0 {
		rows = append(rows, []string{"Policies", strings.Join(e.Policies, ", ")})
	}
	if e.Error != "" {
		rows = append(rows, []string{"Answer", strings.Join(strings.Fields(e.Error), " ")})
	}
	rows = append(rows, []string{"Why", e.Because})
	if len(e.Needed.Capabilities) > 0 {
		rows = append(rows, []string{"Needed", strings.Join(e.Needed.Capabilities, " and ") + " on " + e.Needed.Path})
	}
	client.WriteTable(w, []string{"Key", "Value"}, rows)
	if e.Suggestion != "" {
		fmt.Fprintf(w, "\nThis rule, in one of the policies, would let it pass:\n\n%s\n", e.Suggestion)
		if e.Pattern != "" {
			fmt.Fprintf(w, "\nIt would decide alone on its path, so it should give what the rule for %q gives there, too.\n", e.Pattern)
		}
	}
}
