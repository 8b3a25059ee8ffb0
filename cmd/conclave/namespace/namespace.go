// Package namespace is the commands for namespaces: vaults within the vault, with mounts, policies and tokens of their own.
//
// A path of several segments is followed from the namespace that the command works in.
package namespace

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// routes are where the API has namespaces.
const routes = "sys/namespaces"

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "namespace", Short: "Work with namespaces: vaults within the vault"}
	group.AddCommand(create(s), list(s), lookup(s), patch(s), remove(s), lock(s), unlock(s))
	return group
}

// at is a client for the namespace that holds the one at path, and the route that names it there.
func at(c *api.Client, path string) (*api.Client, string, error) {
	path = strings.Trim(strings.TrimSpace(path), "/")
	if path == "" {
		return nil, "", client.Usagef("name the namespace")
	}
	slash := strings.LastIndexByte(path, '/')
	if slash < 0 {
		return c, routes + "/" + path, nil
	}
	return c.WithNamespace(join(c.Namespace(), path[:slash])), routes + "/" + path[slash+1:], nil
}

func join(namespace, below string) string {
	return strings.Trim(strings.Trim(namespace, "/")+"/"+below, "/")
}

// shown is a namespace's path for people.
func shown(namespace string) string {
	if namespace = strings.Trim(namespace, "/"); namespace == "" {
		return "the root namespace"
	}
	return namespace + "/"
}

// metadataFields are the fields that set custom metadata, none if nothing is to be set.
func metadataFields(pairs, gone []string) (map[string]any, error) {
	custom, err := client.Pairs("custom-metadata", pairs, gone)
	if err != nil || len(custom) == 0 {
		return map[string]any{}, err
	}
	return map[string]any{"custom_metadata": custom}, nil
}

func metadataFlag(cmd *cobra.Command, pairs *[]string) {
	cmd.Flags().StringArrayVar(pairs, "custom-metadata", nil, "`key=value` to keep with the namespace; may be repeated")
}

func create(s *client.Session) *cobra.Command {
	var pairs []string
	cmd := &cobra.Command{
		Use: "create PATH", Short: "Make a namespace", Args: cobra.ExactArgs(1),
		Example: "  conclave namespace create -custom-metadata=owner=payments pay\n  conclave namespace create pay/cards",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			fields, err := metadataFields(pairs, nil)
			if err != nil {
				return err
			}
			c, route, err := at(c, args[0])
			if err != nil {
				return err
			}
			secret, err := c.Logical().WriteWithContext(ctx, route, fields)
			if err != nil {
				return err
			}
			return s.PrintSecret(secret)
		}),
	}
	metadataFlag(cmd, &pairs)
	s.AddField(cmd)
	return cmd
}

func list(s *client.Session) *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the namespaces directly below", Args: cobra.NoArgs,
		RunE: s.Connected(func(ctx context.Context, c *api.Client, _ []string) error {
			secret, err := c.Logical().ListWithContext(ctx, routes)
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("there are no namespaces below %s", shown(c.Namespace()))
			}
			if !detailed {
				return s.PrintKeys(secret)
			}
			info, _ := secret.Data["key_info"].(map[string]any)
			return s.Print(info, func(w io.Writer) { client.WriteTable(w, heads, rows(info)) })
		}),
	}
	cmd.Flags().BoolVar(&detailed, "detailed", false, "show identifiers, locks and metadata too")
	return cmd
}

var heads = []string{"Path", "ID", "Locked", "Custom Metadata"}

func rows(info map[string]any) [][]string {
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(info)) {
		about, _ := info[name].(map[string]any)
		rows = append(rows, []string{name, client.Text(about["id"]), client.Text(about["locked"]), client.Text(about["custom_metadata"])})
	}
	return rows
}

func lookup(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "lookup PATH", Short: "Show a namespace", Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			c, route, err := at(c, args[0])
			if err != nil {
				return err
			}
			secret, err := c.Logical().ReadWithContext(ctx, route)
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("there is no namespace %s", args[0])
			}
			return s.PrintSecret(secret)
		}),
	}
	s.AddField(cmd)
	return cmd
}

func patch(s *client.Session) *cobra.Command {
	var pairs, gone []string
	cmd := &cobra.Command{
		Use: "patch PATH", Short: "Change single entries of a namespace's metadata", Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			fields, err := metadataFields(pairs, gone)
			if err != nil {
				return err
			}
			if len(fields) == 0 {
				return client.Usagef("there is nothing to change: give -custom-metadata or -remove-custom-metadata")
			}
			c, route, err := at(c, args[0])
			if err != nil {
				return err
			}
			secret, err := c.Logical().JSONMergePatch(ctx, route, fields)
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("there is no namespace %s", args[0])
			}
			return s.PrintSecret(secret)
		}),
	}
	metadataFlag(cmd, &pairs)
	cmd.Flags().StringSliceVar(&gone, "remove-custom-metadata", nil, "`key` of metadata to remove; may be repeated")
	s.AddField(cmd)
	return cmd
}

func remove(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "delete PATH", Short: "Delete a namespace and destroy all that is in it", Args: cobra.ExactArgs(1),
		Long: "Delete a namespace and destroy all that is in it, with the keys that it was encrypted with. Namespaces below it have to be\n" +
			"deleted first.",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			c, route, err := at(c, args[0])
			if err != nil {
				return err
			}
			if _, err := c.Logical().DeleteWithContext(ctx, route); err != nil {
				return err
			}
			return s.Done("Success! Deleted the namespace (if it existed): %s/", strings.Trim(args[0], "/"))
		}),
	}
}

// locking is the client and the route to lock or unlock a namespace with: the one that is named, or the one that the
// command works in.
func locking(c *api.Client, how string, args []string) (*api.Client, string, error) {
	base, path := strings.Trim(c.Namespace(), "/"), ""
	if len(args) == 1 {
		path = strings.Trim(args[0], "/")
	}
	if path == "" && base == "" {
		return nil, "", client.Usagef("name the namespace: the root namespace can't be locked")
	}
	if path == "" {
		return c, routes + "/api-lock/" + how, nil
	}
	return c.WithNamespace(base), routes + "/api-lock/" + how + "/" + path, nil
}

func lock(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "lock [PATH]", Short: "Refuse all requests to a namespace and those below it", Args: cobra.MaximumNArgs(1),
		Long: "Refuse all requests to a namespace and those below it: the one at PATH, or the one that -namespace names. The answer has the\n" +
			"key that unlocks it, once.",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			c, route, err := locking(c, "lock", args)
			if err != nil {
				return err
			}
			secret, err := client.Request(ctx, c, http.MethodPut, route, map[string]any{})
			if err != nil {
				return err
			}
			return s.PrintSecret(secret)
		}),
	}
	s.AddField(cmd)
	return cmd
}

func unlock(s *client.Session) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "unlock [-unlock-key=- | @FILE | KEY] [PATH]", Short: "Let requests into a namespace again", Args: cobra.MaximumNArgs(1),
		Long: "Let requests into a namespace again: the one at PATH, or the one that -namespace names. The key is what locking it has\n" +
			"answered: - reads it from standard input, @FILE from a file. A root token needs none.",
		RunE: func(cmd *cobra.Command, args []string) error {
			fields := make(map[string]any)
			if cmd.Flags().Changed("unlock-key") {
				secret, err := s.Secret(key, "Unlock key")
				if err != nil {
					return err
				}
				fields["unlock_key"] = secret
			}
			c, err := s.Client()
			if err != nil {
				return err
			}
			c, route, err := locking(c, "unlock", args)
			if err != nil {
				return err
			}
			if _, err := client.Request(cmd.Context(), c, http.MethodPut, route, fields); err != nil {
				return err
			}
			return s.Done("Success! Unlocked the namespace")
		},
	}
	cmd.Flags().StringVar(&key, "unlock-key", "", "the `key`")
	return cmd
}
