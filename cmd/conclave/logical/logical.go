// Package logical is the commands that work on any path of the vault: read, write, patch, list, delete,
// unwrap and path-help.
package logical

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Commands are the commands of this package.
func Commands(s *client.Session) []*cobra.Command {
	return []*cobra.Command{read(s), write(s), patch(s), list(s), remove(s), unwrap(s), help(s)}
}

// clean is a path as the API has it: without slashes around it.
func clean(path string) string { return strings.Trim(path, "/") }

func read(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "read PATH [key=value…]", Short: "Read what is at a path", Args: cobra.MinimumNArgs(1),
		Long:    "Read what is at a path. Fields after it are sent as parameters of the query.",
		Example: "  conclave read cubbyhole/note\n  conclave read -field=value cubbyhole/note",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			data, err := s.Data(args[1:])
			if err != nil {
				return err
			}
			query := make(url.Values)
			for key, value := range data {
				query.Set(key, client.Text(value))
			}
			secret, err := c.Logical().ReadWithDataWithContext(cmd.Context(), clean(args[0]), query)
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("nothing is at %s", clean(args[0]))
			}
			return s.PrintSecret(secret)
		},
	}
	s.AddField(cmd)
	return cmd
}

func write(s *client.Session) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "write PATH [key=value | key=@FILE | key=- | @FILE | -]…", Short: "Write fields to a path", Args: cobra.MinimumNArgs(1),
		Long: "Write fields to a path. A value that begins with @ is read from a file, the value - from standard input;\n" +
			"@FILE and - alone are an object of JSON. Secrets typed as arguments stay in the shell's history: prefer - or @FILE.",
		Example: "  conclave write cubbyhole/note text=@note.txt\n  conclave write -f sys/rotate",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !force {
				return client.Usagef("there is nothing to write: give key=value, @FILE or -, or -force to write no data")
			}
			data, err := s.Data(args[1:])
			if err != nil {
				return err
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			if len(data) == 0 {
				data = nil
			}
			secret, err := c.Logical().WriteWithContext(cmd.Context(), clean(args[0]), data)
			if err != nil {
				return err
			}
			return written(s, secret, clean(args[0]))
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "write even though there is no data")
	s.AddField(cmd)
	return cmd
}

// written shows the answer to a change, which often has none.
func written(s *client.Session, secret *api.Secret, path string) error {
	if secret != nil {
		return s.PrintSecret(secret)
	}
	if s.Field != "" {
		return client.Usagef("field %q is not in the answer: there was none", s.Field)
	}
	return s.Done("Success! Data written to: %s", path)
}

func patch(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "patch PATH key=value…", Short: "Change single fields of what is at a path", Args: cobra.MinimumNArgs(2),
		Long: "Change single fields of what is at a path (a JSON merge patch), for paths that allow it. Fields are given as for write.",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := s.Data(args[1:])
			if err != nil {
				return err
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			secret, err := c.Logical().JSONMergePatch(cmd.Context(), clean(args[0]), data)
			if err != nil {
				return err
			}
			return written(s, secret, clean(args[0]))
		},
	}
	s.AddField(cmd)
	return cmd
}

func list(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "list PATH", Short: "List the names below a path", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			secret, err := c.Logical().ListWithContext(cmd.Context(), clean(args[0]))
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("nothing is below %s", clean(args[0]))
			}
			return s.PrintKeys(secret)
		},
	}
}

func remove(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "delete PATH [key=value…]", Short: "Delete what is at a path", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := s.Data(args[1:])
			if err != nil {
				return err
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			query := make(map[string][]string)
			for key, value := range data {
				query[key] = []string{client.Text(value)}
			}
			secret, err := c.Logical().DeleteWithDataWithContext(cmd.Context(), clean(args[0]), query)
			if err != nil {
				return err
			}
			if secret != nil {
				return s.PrintSecret(secret)
			}
			return s.Done("Success! Data deleted (if it existed) at: %s", clean(args[0]))
		},
	}
}

func unwrap(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "unwrap [- | @FILE | TOKEN]", Short: "Show the answer that a wrapping token stands for, once", Args: cobra.MaximumNArgs(1),
		Long: "Show the answer that a wrapping token stands for. It works once: a token that is refused was used, by you or by somebody\n" +
			"else, or has expired. Without an argument the token is asked for, hidden; - reads it from standard input, @FILE from a file.",
		Example: "  conclave kv get -wrap-ttl=5m secret/app\n  conclave unwrap - < wrapping-token",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			arg := ""
			if len(args) == 1 {
				arg = args[0]
			}
			token, err := s.Secret(arg, "Wrapping token")
			if err != nil {
				return err
			}
			c.SetToken(token) // whoever has it needs no other
			secret, err := c.Logical().UnwrapWithContext(cmd.Context(), "")
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("the wrapped answer was empty")
			}
			return s.PrintSecret(secret)
		},
	}
	s.AddField(cmd)
	return cmd
}

func help(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "path-help PATH", Short: "Show what a path is for", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			r := c.NewRequest(http.MethodGet, "/v1/"+clean(args[0]))
			r.Params.Set("help", "1")
			resp, err := c.RawRequestWithContext(cmd.Context(), r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			answer := make(map[string]any)
			if err := resp.DecodeJSON(&answer); err != nil {
				return client.Remotef("the answer is not JSON")
			}
			if data, ok := answer["data"].(map[string]any); ok && answer["help"] == nil {
				answer = data
			}
			if text, ok := answer["help"].(string); ok {
				format, err := s.OutputFormat()
				if err != nil {
					return err
				}
				if format == client.Table {
					_, err = fmt.Fprintln(s.Out, text)
					return err
				}
			}
			return s.PrintSecret(&api.Secret{Data: pruned(answer)})
		},
	}
}

// pruned is an answer without the parts that say nothing.
func pruned(answer map[string]any) map[string]any {
	kept := make(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(answer)) {
		if answer[key] != nil {
			kept[key] = answer[key]
		}
	}
	return kept
}
