package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"conclave/cmd/conclave/client"
	"conclave/policy"

	"github.com/hashicorp/hcl/hcl/printer"
	"github.com/spf13/cobra"
)

func format(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "fmt FILE", Short: "Give the rules in a file their usual form", Args: cobra.ExactArgs(1),
		Long: "Give the rules in a file their usual form. The file is replaced, unless it isn't a policy; - reads standard input and writes\n" +
			"standard output. No vault is asked.",
		RunE: func(_ *cobra.Command, args []string) error {
			path := args[0]
			rules, err := s.Text(path)
			if err != nil {
				return err
			}
			formatted, err := formatRules(rules)
			if err != nil {
				return client.Usagef("%s: %w", path, err)
			}
			if path == "-" {
				_, err := s.Out.Write(formatted)
				return err
			}
			if string(formatted) != rules {
				if err := replace(path, formatted); err != nil {
					return client.Usagef("replace %s: %w", path, err)
				}
			}
			return s.Done("Success! Formatted policy: %s", path)
		},
	}
}

// formatRules is rules as they are usually laid out, by the syntax that they are in. What it returns says the same.
func formatRules(rules string) ([]byte, error) {
	if _, err := policy.Parse("rules", rules); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if json.Valid([]byte(rules)) {
		if err := json.Indent(&out, bytes.TrimSpace([]byte(rules)), "", "  "); err != nil {
			return nil, err
		}
		return append(out.Bytes(), '\n'), nil
	}
	formatted, err := printer.Format([]byte(rules))
	if err != nil {
		return nil, err
	}
	return append(bytes.TrimRight(formatted, "\n"), '\n'), nil
}

// replace gives a file new contents in one step; links are followed and the mode is kept.
func replace(path string, text []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(info.Mode().Perm()), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
