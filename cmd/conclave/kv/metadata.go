package kv

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
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
	some         bool // at least one has to be given
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
	custom, err := client.Pairs("custom-metadata", f.custom, f.gone)
	if err == nil && f.some && len(fields)+len(custom) == 0 {
		err = client.Usagef("there is nothing to change: give at least one flag")
	}
	return merged(fields, custom), err
}

func metadataPut(s *client.Session, mount *string) *cobra.Command {
	return metadataSet(s, mount, &cobra.Command{
		Use: "put PATH", Short: "Set a secret's settings; custom metadata is replaced as a whole", Args: cobra.ExactArgs(1),
	}, &settings{}, (*api.Logical).WriteWithContext)
}

func metadataPatch(s *client.Session, mount *string) *cobra.Command {
	flags := &settings{some: true}
	cmd := metadataSet(s, mount, &cobra.Command{
		Use: "patch PATH", Short: "Change single settings of a secret", Args: cobra.ExactArgs(1),
	}, flags, (*api.Logical).JSONMergePatch)
	cmd.Flags().StringSliceVar(&flags.gone, "remove-custom-metadata", nil, "`key` of custom metadata to remove; may be repeated")
	return cmd
}

// metadataSet makes cmd send settings by way of how.
func metadataSet(s *client.Session, mount *string, cmd *cobra.Command, flags *settings,
	how func(*api.Logical, context.Context, string, map[string]any) (*api.Secret, error)) *cobra.Command {
	flags.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
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
		secret, err := how(w.c.Logical(), cmd.Context(), w.at.at("metadata"), fields)
		if err != nil {
			return err
		}
		if secret != nil {
			return s.PrintSecret(secret)
		}
		return s.Done("Success! Data written to: %s", w.at.at("metadata"))
	}
	return cmd
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
