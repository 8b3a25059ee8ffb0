package login

import (
	"context"
	"fmt"
	"io"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
)

// Help is the command that says how to log in with a method, by its name or by the path that it is mounted at.
func Help(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "help METHOD | PATH", Short: "Show how to log in with an auth method", Args: cobra.ExactArgs(1),
		Example: "  conclave auth help userpass\n  conclave auth help auth/people/",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.ToLower(strings.TrimPrefix(strings.Trim(args[0], "/"), "auth/"))
			how := find(name)
			if how == nil && name != tokens.name {
				kind, err := kindAt(cmd.Context(), s, name)
				if err != nil {
					return err
				}
				how = find(kind)
			}
			switch {
			case name == tokens.name:
				how = &tokens
			case how == nil:
				return client.Remotef("there is no help on %s: `conclave path-help auth/%s` shows its routes", name, name)
			}
			return s.Print(map[string]string{"method": how.name, "help": how.usage}, func(w io.Writer) { fmt.Fprintln(w, how.usage) })
		},
	}
}

// tokens are what is logged in with where no method is named.
var tokens = method{name: "token", usage: `Whoever has a token logs in with it: it is checked and kept for later commands.

  conclave login
  conclave login - < token-file`}

// kindAt is the kind of the method that is mounted at path.
func kindAt(ctx context.Context, s *client.Session, path string) (string, error) {
	c, err := s.Client()
	if err != nil {
		return "", err
	}
	mounts, err := c.Sys().ListAuthWithContext(ctx)
	if err != nil {
		return "", err
	}
	mount := mounts[path+"/"]
	if mount == nil {
		return "", client.Remotef("%s is neither a method (%s) nor a path that one is mounted at", path, strings.Join(names(), ", "))
	}
	return mount.Type, nil
}
