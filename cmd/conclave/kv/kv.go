package kv

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	group := &cobra.Command{Use: "kv", Short: "Work with secrets of the kv engine",
		Example: "  conclave kv put -mount=secret app/db password=@password.txt\n  conclave kv get -mount=secret -field=password app/db"}
	var mount string
	group.PersistentFlags().StringVar(&mount, "mount", "", "`path` of the mount; PATH is relative to it then")
	group.AddCommand(put(s, &mount), get(s, &mount), list(s, &mount), remove(s, &mount), undelete(s, &mount), destroy(s, &mount),
		patch(s, &mount), rollback(s, &mount), relocate(s, &mount, "copy"), relocate(s, &mount, "move"), metadata(s, &mount))
	return group
}

// casFlag is -cas; a negative number is none.
func casFlag(cmd *cobra.Command, cas *int) {
	cmd.Flags().IntVar(cas, "cas", -1, "write only if the newest version has this `number`; 0: only if there is none")
}

func options(cas int) map[string]any {
	if cas < 0 {
		return map[string]any{}
	}
	return map[string]any{"cas": cas}
}

func put(s *client.Session, mount *string) *cobra.Command {
	var cas int
	cmd := &cobra.Command{
		Use: "put PATH [key=value | key=@FILE | key=- | @FILE | -]…", Short: "Write a secret, or a new version of it", Args: cobra.MinimumNArgs(2),
		Long: "Write a secret, or a new version of it; the fields replace all that it had (`kv patch` changes single ones).\n" +
			"Values typed as arguments stay in the shell's history: key=@FILE, key=-, @FILE and - don't.",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := s.Data(args[1:])
			if err != nil {
				return err
			}
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if !w.at.versioned {
				if cas >= 0 {
					return w.at.needVersions("check-and-set")
				}
				secret, err := w.c.Logical().WriteWithContext(cmd.Context(), w.at.at("data"), data)
				return w.printWritten(secret, err)
			}
			secret, err := w.c.Logical().WriteWithContext(cmd.Context(), w.at.at("data"), map[string]any{"data": data, "options": options(cas)})
			return w.printWritten(secret, err)
		},
	}
	casFlag(cmd, &cas)
	s.AddField(cmd)
	return cmd
}

// printWritten shows what a change answered: the new version's metadata.
func (w *work) printWritten(secret *api.Secret, err error) error {
	if err != nil {
		return err
	}
	if secret == nil {
		return w.s.Done("Success! Data written to: %s", w.at.at("data"))
	}
	return w.print(secret, secret.Data, "")
}

// print shows an answer of version 2 in parts: its path, its metadata, its data.
func (w *work) print(secret *api.Secret, meta map[string]any, dataOf string) error {
	format, err := w.s.OutputFormat()
	if err != nil {
		return err
	}
	if w.s.Field != "" || format != client.Table || secret.WrapInfo != nil || len(secret.Warnings) > 0 && meta == nil {
		return w.s.PrintSecret(secret)
	}
	out := w.s.Out
	if w.at.versioned {
		path := w.at.at("data")
		client.WriteHeading(out, "Secret Path", utf8.RuneCountInString(path))
		fmt.Fprintf(out, "%s\n\n", path)
	}
	if meta != nil {
		section(out, "Metadata", meta)
	}
	data := secret.Data
	if dataOf != "" {
		data, _ = secret.Data[dataOf].(map[string]any)
	} else if meta != nil {
		data = nil
	}
	if data != nil {
		if meta != nil {
			fmt.Fprintln(out)
		}
		section(out, "Data", data)
	}
	for _, warning := range secret.Warnings {
		fmt.Fprintln(w.s.Err, "WARNING!", warning)
	}
	return nil
}

func section(out io.Writer, title string, data map[string]any) {
	rows := make([][]string, 0, len(data))
	width := 0
	for _, key := range slices.Sorted(maps.Keys(data)) {
		rows = append(rows, []string{key, client.Text(data[key])})
		width = max(width, utf8.RuneCountInString(key))
	}
	client.WriteHeading(out, title, max(width+len("    Value"), len(title)+8))
	client.WriteTable(out, []string{"Key", "Value"}, rows)
}

func get(s *client.Session, mount *string) *cobra.Command {
	var version int
	cmd := &cobra.Command{
		Use: "get PATH", Short: "Read a secret", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if version > 0 {
				if err := w.at.needVersions("older versions"); err != nil {
					return err
				}
			}
			secret, err := w.read(cmd.Context(), version)
			if err != nil {
				return err
			}
			if !w.at.versioned || secret.WrapInfo != nil {
				return w.print(secret, nil, "")
			}
			if s.Field != "" {
				data, _ := secret.Data["data"].(map[string]any)
				if data == nil {
					return client.Remotef("this version of %s is deleted: `conclave kv metadata get` shows when", w.at)
				}
				return s.PrintField(data, s.Field)
			}
			meta, _ := secret.Data["metadata"].(map[string]any)
			return w.print(secret, meta, "data")
		},
	}
	cmd.Flags().IntVar(&version, "version", 0, "`number` of the version; 0: the newest")
	s.AddField(cmd)
	return cmd
}

// read returns a version of the secret, the newest for 0. One that was deleted has metadata and no data.
func (w *work) read(ctx context.Context, version int) (*api.Secret, error) {
	query := make(map[string][]string)
	if version > 0 {
		query["version"] = []string{strconv.Itoa(version)}
	}
	secret, err := w.c.Logical().ReadWithDataWithContext(ctx, w.at.at("data"), query)
	if err != nil {
		return nil, err
	}
	if secret == nil {
		return nil, client.Remotef("no value found at %s", w.at.at("data"))
	}
	return secret, nil
}

func list(s *client.Session, mount *string) *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use: "list [PATH]", Short: "List the names of secrets below a path", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := ""
			if len(args) == 1 {
				path = args[0]
			} else if *mount == "" {
				return client.Usagef("name a path, or a mount with -mount")
			}
			w, err := begin(cmd, s, *mount, path)
			if err != nil {
				return err
			}
			var secret *api.Secret
			if recursive {
				secret, err = client.Request(cmd.Context(), w.c, "SCAN", w.at.at("metadata")+"/", nil)
			} else {
				secret, err = w.c.Logical().ListWithContext(cmd.Context(), w.at.at("metadata"))
			}
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("no secrets are below %s", w.at.at("metadata"))
			}
			return s.PrintKeys(secret)
		},
	}
	cmd.Flags().BoolVar(&recursive, "recursive", false, "list the paths of all secrets below, however deep")
	return cmd
}

func remove(s *client.Session, mount *string) *cobra.Command {
	var versions []string
	cmd := &cobra.Command{
		Use: "delete PATH", Short: "Delete the newest version of a secret, or others", Args: cobra.ExactArgs(1),
		Long: "Delete the newest version of a secret, or those that -versions names. In version 2 `kv undelete` brings them back.",
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if len(versions) > 0 {
				return w.onVersions(cmd.Context(), "delete", versions)
			}
			secret, err := w.c.Logical().DeleteWithContext(cmd.Context(), w.at.at("data"))
			if err != nil {
				return err
			}
			if secret != nil {
				return s.PrintSecret(secret)
			}
			return s.Done("Success! Data deleted (if it existed) at: %s", w.at.at("data"))
		},
	}
	cmd.Flags().StringSliceVar(&versions, "versions", nil, "`numbers` of the versions, separated by commas")
	return cmd
}

func undelete(s *client.Session, mount *string) *cobra.Command {
	return versionsCommand(s, mount, "undelete", "Bring deleted versions of a secret back")
}

func destroy(s *client.Session, mount *string) *cobra.Command {
	return versionsCommand(s, mount, "destroy", "Remove versions of a secret for good")
}

func versionsCommand(s *client.Session, mount *string, part, short string) *cobra.Command {
	var versions []string
	cmd := &cobra.Command{
		Use: part + " -versions=N,… PATH", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(versions) == 0 {
				return client.Usagef("name the versions: -versions=1,2")
			}
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			return w.onVersions(cmd.Context(), part, versions)
		},
	}
	cmd.Flags().StringSliceVar(&versions, "versions", nil, "`numbers` of the versions, separated by commas")
	return cmd
}

// onVersions sends version numbers to delete, undelete or destroy.
func (w *work) onVersions(ctx context.Context, part string, versions []string) error {
	numbers := make([]int, len(versions))
	for i, text := range versions {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return client.Usagef("%q is not the number of a version", text)
		}
		numbers[i] = n
	}
	if err := w.at.needVersions(part + " of versions"); err != nil {
		return err
	}
	secret, err := w.c.Logical().WriteWithContext(ctx, w.at.at(part), map[string]any{"versions": numbers})
	if err != nil {
		return err
	}
	if secret != nil {
		return w.s.PrintSecret(secret)
	}
	return w.s.Done("Success! Data written to: %s", w.at.at(part))
}
