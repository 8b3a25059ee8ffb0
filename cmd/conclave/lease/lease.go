// Package lease is the commands for leases: what the vault made for a time, and ends when the time is over.
package lease

import (
	"context"
	"net/http"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "lease", Short: "Work with leases: what was made for a time"}
	group.AddCommand(lookup(s), list(s), renew(s), revoke(s), queue(s), count(s), irrevocable(s), damaged(s), tidy(s))
	return group
}

// clean is a lease's id as the API has it.
func clean(id string) string { return strings.Trim(strings.TrimSpace(id), "/") }

func lookup(s *client.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "lookup ID", Short: "Show a lease", Args: cobra.ExactArgs(1),
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			secret, err := c.Sys().LookupWithContext(ctx, clean(args[0]))
			if err != nil {
				return err
			}
			return s.PrintSecret(secret)
		}),
	}
	s.AddField(cmd)
	return cmd
}

func renew(s *client.Session) *cobra.Command {
	var increment string
	cmd := &cobra.Command{
		Use: "renew [-increment=DURATION] ID", Short: "Prolong a lease", Args: cobra.ExactArgs(1),
		Example: "  conclave lease renew -increment=1h database/creds/app/2f6a614c",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			fields := map[string]any{"lease_id": clean(args[0])}
			if increment != "" {
				fields["increment"] = increment
			}
			secret, err := client.Request(ctx, c, http.MethodPut, "sys/leases/renew", fields)
			if err != nil {
				return err
			}
			return s.PrintSecret(secret)
		}),
	}
	cmd.Flags().StringVarP(&increment, "increment", "i", "", "`duration` to ask for, from now on")
	s.AddField(cmd)
	return cmd
}

func revoke(s *client.Session) *cobra.Command {
	var prefix, force, sync bool
	var reason string
	cmd := &cobra.Command{
		Use: "revoke [-prefix] [-force [-reason=TEXT]] [-sync] ID", Short: "End a lease, or all below a prefix", Args: cobra.ExactArgs(1),
		Long: "End a lease, and what was made with it, or with -prefix all leases below a path. Without -sync the answer may come before\n" +
			"what was made is gone; the lease itself is over by then.",
		Example: "  conclave lease revoke database/creds/app/2f6a614c\n  conclave lease revoke -prefix -sync database/creds",
		RunE: s.Connected(func(ctx context.Context, c *api.Client, args []string) error {
			if force && !prefix {
				return client.Usagef("-force goes with -prefix: it abandons leases that can't be ended, and leaves what was made to you")
			}
			id := clean(args[0])
			if id == "" {
				return client.Usagef("name the lease, or with -prefix the path that they are below")
			}
			if force {
				return forceOut(ctx, s, c, id, reason)
			}
			err := c.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: id, Prefix: prefix, Sync: sync})
			if err != nil {
				return err
			}
			switch {
			case prefix:
				return s.Done("Success! Revoked all leases below: %s", id)
			case sync:
				return s.Done("Success! Revoked the lease (if it existed): %s", id)
			}
			return s.Done("All revocation operations queued successfully!")
		}),
	}
	cmd.Flags().BoolVar(&prefix, "prefix", false, "end all leases below the path that is given")
	cmd.Flags().BoolVar(&force, "force", false, "with -prefix: abandon those that can't be ended at the first attempt")
	cmd.Flags().BoolVar(&sync, "sync", false, "answer when all is done")
	cmd.Flags().StringVar(&reason, "reason", "", "with -force: `text` that stays listed with what was abandoned")
	return cmd
}

// forceOut ends all leases below a path, with one attempt each.
func forceOut(ctx context.Context, s *client.Session, c *api.Client, prefix, reason string) error {
	var body any
	if reason != "" {
		body = map[string]any{"reason": reason}
	}
	secret, err := client.Request(ctx, c, http.MethodPut, "sys/leases/revoke-force/"+prefix, body)
	if err != nil {
		return err
	}
	if secret != nil && len(secret.Data) > 0 {
		return s.PrintSecret(secret)
	}
	return s.Done("Success! There were no leases below: %s", prefix)
}
