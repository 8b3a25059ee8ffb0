package kv

import (
	"context"
	"encoding/json"
	"maps"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

func patch(s *client.Session, mount *string) *cobra.Command {
	var cas int
	var method string
	var removed []string
	cmd := &cobra.Command{
		Use: "patch PATH key=value…", Short: "Change single fields of a secret, in a new version", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := s.Data(args[1:])
			if err != nil {
				return err
			}
			for _, key := range removed {
				data[key] = nil
			}
			if len(data) == 0 {
				return client.Usagef("there is nothing to change: give key=value, @FILE, - or -remove-data=KEY")
			}
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if err := w.at.needVersions("patch"); err != nil {
				return err
			}
			var secret *api.Secret
			switch method {
			case "", "patch":
				secret, err = w.c.Logical().JSONMergePatch(cmd.Context(), w.at.at("data"), map[string]any{"data": data, "options": options(cas)})
				if err == nil && secret == nil {
					err = client.Remotef("no value found at %s", w.at.at("data"))
				}
			case "rw":
				secret, err = w.readThenWrite(cmd.Context(), data)
			default:
				return client.Usagef("unknown method %q: patch or rw", method)
			}
			return w.printWritten(secret, err)
		},
	}
	casFlag(cmd, &cas)
	cmd.Flags().StringVar(&method, "method", "", "`how`: patch (the default) in one step, or rw, which reads and writes where the token may not patch")
	cmd.Flags().StringSliceVar(&removed, "remove-data", nil, "`key` to remove; may be repeated")
	s.AddField(cmd)
	return cmd
}

// readThenWrite changes fields of the newest version, if no other version comes between.
func (w *work) readThenWrite(ctx context.Context, changes map[string]any) (*api.Secret, error) {
	secret, err := w.read(ctx, 0)
	if err != nil {
		return nil, err
	}
	data, _ := secret.Data["data"].(map[string]any)
	if data == nil {
		return nil, client.Remotef("the newest version of %s is deleted: there is nothing to change", w.at)
	}
	version, err := versionOf(secret)
	if err != nil {
		return nil, err
	}
	for key, value := range changes {
		if value == nil {
			delete(data, key)
		} else {
			data[key] = value
		}
	}
	return w.c.Logical().WriteWithContext(ctx, w.at.at("data"), map[string]any{"data": data, "options": options(version)})
}

// versionOf is the number of the version that was read.
func versionOf(secret *api.Secret) (int, error) {
	meta, _ := secret.Data["metadata"].(map[string]any)
	number, ok := meta["version"].(json.Number)
	if !ok {
		return 0, client.Remotef("the answer doesn't name the version")
	}
	n, err := number.Int64()
	return int(n), err
}

func rollback(s *client.Session, mount *string) *cobra.Command {
	var version int
	cmd := &cobra.Command{
		Use: "rollback -version=N PATH", Short: "Write an older version again, as the newest", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if version < 1 {
				return client.Usagef("name the version: -version=N")
			}
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if err := w.at.needVersions("older versions"); err != nil {
				return err
			}
			newest, err := w.read(cmd.Context(), 0)
			if err != nil {
				return err
			}
			current, err := versionOf(newest)
			if err != nil {
				return err
			}
			old, err := w.read(cmd.Context(), version)
			if err != nil {
				return err
			}
			data, _ := old.Data["data"].(map[string]any)
			if data == nil {
				return client.Remotef("version %d of %s is deleted: there is nothing to go back to", version, w.at)
			}
			secret, err := w.c.Logical().WriteWithContext(cmd.Context(), w.at.at("data"), map[string]any{"data": data, "options": options(current)})
			return w.printWritten(secret, err)
		},
	}
	cmd.Flags().IntVar(&version, "version", 0, "`number` of the version to go back to")
	return cmd
}

// relocate is copy or move: one step in the vault, with all versions.
func relocate(s *client.Session, mount *string, how string) *cobra.Command {
	var force bool
	short := map[string]string{"copy": "Copy a secret with all its versions, in one step", "move": "Move a secret with all its versions, in one step"}
	cmd := &cobra.Command{
		Use: how + " PATH DESTINATION", Short: short[how], Args: cobra.ExactArgs(2),
		Long: short[how] + ". Both paths are in the same mount; a destination that exists is refused, unless -force is given.",
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if err := w.at.needVersions(how); err != nil {
				return err
			}
			to := resolve(w.at.mount, *mount, args[1], true)
			if *mount == "" {
				if to, err = locate(cmd.Context(), w.c, "", args[1]); err != nil {
					return err
				}
			}
			if to.mount != w.at.mount {
				return client.Usagef("%s is in the mount %s and %s in %s: a secret moves within its mount", w.at, w.at.mount, to, to.mount)
			}
			secret, err := w.c.Logical().WriteWithContext(cmd.Context(), w.at.at(how), map[string]any{"destination": to.path, "force": force})
			if err != nil {
				return err
			}
			if secret == nil {
				return s.Done("Success! %s is now at: %s", w.at, to)
			}
			return s.PrintSecret(secret)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace what is at the destination")
	return cmd
}

// merged is fields with custom metadata, as the API takes them.
func merged(fields map[string]any, custom map[string]any) map[string]any {
	all := maps.Clone(fields)
	if len(custom) > 0 {
		all["custom_metadata"] = custom
	}
	return all
}
