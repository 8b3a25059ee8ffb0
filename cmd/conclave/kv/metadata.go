package kv

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"conclave/cmd/conclave/client"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

func metadata(s *client.Session, mount *string) *cobra.Command {
	group := &cobra.Command{Use: "metadata", Short: "Work with what a secret's versions have in common"}
	group.AddCommand(metadataGet(s, mount), metadataPut(s, mount), metadataPatch(s, mount), metadataDelete(s, mount))
	return group
}

func metadataGet(s *client.Session, mount *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "get PATH", Short: "Show a secret's settings and versions", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if err := w.at.needVersions("metadata"); err != nil {
				return err
			}
			secret, err := w.c.Logical().ReadWithContext(cmd.Context(), w.at.at("metadata"))
			if err != nil {
				return err
			}
			if secret == nil {
				return client.Remotef("no value found at %s", w.at.at("metadata"))
			}
			format, err := s.OutputFormat()
			if err != nil {
				return err
			}
			if s.Field != "" || format != client.Table || secret.WrapInfo != nil {
				return s.PrintSecret(secret)
			}
			w.printMetadata(secret)
			return nil
		},
	}
	s.AddField(cmd)
	return cmd
}

func (w *work) printMetadata(secret *api.Secret) {
	out := w.s.Out
	path := w.at.at("metadata")
	client.WriteHeading(out, "Metadata Path", utf8.RuneCountInString(path))
	fmt.Fprintf(out, "%s\n\n", path)
	versions, _ := secret.Data["versions"].(map[string]any)
	settings := maps.Clone(secret.Data)
	delete(settings, "versions")
	section(out, "Metadata", settings)
	byNumber := func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return cmp.Compare(x, y)
	}
	for _, number := range slices.SortedFunc(maps.Keys(versions), byNumber) {
		if version, ok := versions[number].(map[string]any); ok {
			fmt.Fprintln(out)
			section(out, "Version "+number, version)
		}
	}
}

// settings are the flags of metadata put and patch.
type settings struct {
	casRequired  bool
	maxVersions  int
	deleteAfter  string
	custom, gone []string
}

func (f *settings) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.casRequired, "cas-required", false, "every write must name the version that it follows")
	cmd.Flags().IntVar(&f.maxVersions, "max-versions", 0, "`number` of versions to keep; 0: as the mount says")
	cmd.Flags().StringVar(&f.deleteAfter, "delete-version-after", "", "`duration` after which a version is deleted; 0s: never")
	cmd.Flags().StringArrayVar(&f.custom, "custom-metadata", nil, "`key=value` to keep with the secret; may be repeated")
}

// fields are the settings that were given.
func (f *settings) fields(cmd *cobra.Command) (map[string]any, error) {
	fields := make(map[string]any)
	if cmd.Flags().Changed("cas-required") {
		fields["cas_required"] = f.casRequired
	}
	if cmd.Flags().Changed("max-versions") {
		fields["max_versions"] = f.maxVersions
	}
	if f.deleteAfter != "" {
		fields["delete_version_after"] = f.deleteAfter
	}
	custom := make(map[string]any)
	for _, text := range f.custom {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, client.Usagef("-custom-metadata is key=value")
		}
		custom[key] = value
	}
	for _, key := range f.gone {
		custom[key] = nil
	}
	return merged(fields, custom), nil
}

func metadataPut(s *client.Session, mount *string) *cobra.Command {
	var flags settings
	cmd := &cobra.Command{
		Use: "put PATH", Short: "Set a secret's settings; custom metadata is replaced as a whole", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fields, err := flags.fields(cmd)
			if err != nil {
				return err
			}
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if err := w.at.needVersions("metadata"); err != nil {
				return err
			}
			secret, err := w.c.Logical().WriteWithContext(cmd.Context(), w.at.at("metadata"), fields)
			return w.printSet(secret, err)
		},
	}
	flags.add(cmd)
	return cmd
}

func metadataPatch(s *client.Session, mount *string) *cobra.Command {
	var flags settings
	cmd := &cobra.Command{
		Use: "patch PATH", Short: "Change single settings of a secret", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fields, err := flags.fields(cmd)
			if err != nil {
				return err
			}
			if len(fields) == 0 {
				return client.Usagef("there is nothing to change: give at least one flag")
			}
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if err := w.at.needVersions("metadata"); err != nil {
				return err
			}
			secret, err := w.c.Logical().JSONMergePatch(cmd.Context(), w.at.at("metadata"), fields)
			return w.printSet(secret, err)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringSliceVar(&flags.gone, "remove-custom-metadata", nil, "`key` of custom metadata to remove; may be repeated")
	return cmd
}

func (w *work) printSet(secret *api.Secret, err error) error {
	if err != nil {
		return err
	}
	if secret != nil {
		return w.s.PrintSecret(secret)
	}
	return w.s.Done("Success! Data written to: %s", w.at.at("metadata"))
}

func metadataDelete(s *client.Session, mount *string) *cobra.Command {
	return &cobra.Command{
		Use: "delete PATH", Short: "Remove a secret with all its versions, for good", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := begin(cmd, s, *mount, args[0])
			if err != nil {
				return err
			}
			if err := w.at.needVersions("metadata"); err != nil {
				return err
			}
			if _, err := w.c.Logical().DeleteWithContext(cmd.Context(), w.at.at("metadata")); err != nil {
				return err
			}
			return s.Done("Success! Data deleted (if it existed) at: %s", w.at.at("metadata"))
		},
	}
}
