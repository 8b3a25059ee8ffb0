package client

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/vault/api"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// The forms of output.
const (
	Table = "table"
	JSON  = "json"
	YAML  = "yaml"
)

// OutputFormat is the form that flag or environment ask for.
func (s *Session) OutputFormat() (string, error) {
	format := s.Format
	if format == "" {
		format = s.env("FORMAT")
	}
	switch strings.ToLower(format) {
	case "", Table:
		return Table, nil
	case JSON:
		return JSON, nil
	case YAML, "yml":
		return YAML, nil
	}
	return "", Usagef("unknown format %q: table, json or yaml", format)
}

// Print shows value as JSON or YAML, or calls table where neither is asked for.
func (s *Session) Print(value any, table func(w io.Writer)) error {
	format, err := s.OutputFormat()
	if err != nil {
		return err
	}
	switch format {
	case JSON:
		return s.printJSON(value)
	case YAML:
		text, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = s.Out.Write(text)
		return err
	}
	table(s.Out)
	return nil
}

func (s *Session) printJSON(value any) error {
	enc := json.NewEncoder(s.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// Done says that something went well. Only people read it, so JSON and YAML have none.
func (s *Session) Done(format string, args ...any) error {
	form, err := s.OutputFormat()
	if err != nil || form != Table {
		return err
	}
	_, err = fmt.Fprintf(s.Out, format+"\n", args...)
	return err
}

// PrintField shows one field of data and nothing else: without a newline where it goes to a file or a pipe.
func (s *Session) PrintField(data map[string]any, field string) error {
	value, ok := data[field]
	if !ok || value == nil {
		return Usagef("field %q is not in the answer", field)
	}
	format, err := s.OutputFormat()
	if err != nil {
		return err
	}
	if format != Table {
		return s.Print(value, nil)
	}
	text := Text(value)
	if f, ok := s.Out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		text += "\n"
	}
	_, err = io.WriteString(s.Out, text)
	return err
}

// PrintSecret shows an answer, or the one field that -field names.
func (s *Session) PrintSecret(secret *api.Secret) error {
	if secret == nil {
		return nil
	}
	s.warn(secret)
	if s.Field != "" {
		return s.PrintField(s.fields(secret), s.Field)
	}
	return s.Print(secret, func(w io.Writer) { WriteTable(w, []string{"Key", "Value"}, s.rows(secret)) })
}

// PrintKeys shows the names that a listing answered, one a line; as JSON or YAML it is the list alone.
func (s *Session) PrintKeys(secret *api.Secret) error {
	s.warn(secret)
	keys, ok := secret.Data["keys"].([]any)
	if !ok {
		return Remotef("the answer holds no list of keys")
	}
	return s.Print(keys, func(w io.Writer) {
		rows := make([][]string, len(keys))
		for i, key := range keys {
			rows[i] = []string{Text(key)}
		}
		WriteTable(w, []string{"Keys"}, rows)
	})
}

// warn shows what the vault warns of, where it doesn't get into the output.
func (s *Session) warn(secret *api.Secret) {
	if len(secret.Warnings) == 0 {
		return
	}
	fmt.Fprintln(s.Err, "WARNING! The vault says:")
	for _, warning := range secret.Warnings {
		fmt.Fprintln(s.Err, "  *", warning)
	}
}

// fields are what -field can name: the data, or the token of a login, or what wraps the answer.
func (s *Session) fields(secret *api.Secret) map[string]any {
	fields := make(map[string]any)
	for _, row := range s.pairs(secret) {
		fields[row.key] = row.value
	}
	return fields
}

type pair struct {
	key   string
	value any
}

func (s *Session) pairs(secret *api.Secret) []pair {
	switch {
	case secret.WrapInfo != nil:
		w := secret.WrapInfo
		return []pair{{"wrapping_token", w.Token}, {"wrapping_accessor", w.Accessor}, {"wrapping_token_ttl", (time.Duration(w.TTL) * time.Second).String()},
			{"wrapping_token_creation_time", w.CreationTime.String()}, {"wrapping_token_creation_path", w.CreationPath},
			{"wrapped_accessor", w.WrappedAccessor}}
	case secret.Auth != nil:
		return authPairs(secret.Auth)
	}
	var list []pair
	if secret.LeaseID != "" {
		list = append(list, pair{"lease_id", secret.LeaseID}, pair{"lease_duration", (time.Duration(secret.LeaseDuration) * time.Second).String()},
			pair{"lease_renewable", secret.Renewable})
	} else if secret.LeaseDuration > 0 {
		list = append(list, pair{"refresh_interval", (time.Duration(secret.LeaseDuration) * time.Second).String()})
	}
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		list = append(list, pair{key, secret.Data[key]})
	}
	return list
}

func authPairs(auth *api.SecretAuth) []pair {
	list := []pair{{"token", auth.ClientToken}, {"token_accessor", auth.Accessor}}
	ttl := any("∞")
	if auth.LeaseDuration != 0 {
		ttl = (time.Duration(auth.LeaseDuration) * time.Second).String()
	}
	list = append(list, pair{"token_duration", ttl}, pair{"token_renewable", auth.Renewable}, pair{"token_policies", auth.TokenPolicies},
		pair{"identity_policies", auth.IdentityPolicies}, pair{"policies", auth.Policies})
	for _, key := range slices.Sorted(maps.Keys(auth.Metadata)) {
		list = append(list, pair{"token_meta_" + key, auth.Metadata[key]})
	}
	return list
}

func (s *Session) rows(secret *api.Secret) [][]string {
	var rows [][]string
	for _, p := range s.pairs(secret) {
		rows = append(rows, []string{p.key, Text(p.value)})
	}
	return rows
}

// Text is a value of JSON as a person reads it: a string as it is, a list in brackets, an object as JSON.
func Text(value any) string {
	switch value := value.(type) {
	case nil:
		return "n/a"
	case string:
		return value
	case json.Number:
		return value.String()
	case []string:
		return "[" + quoted(value) + "]"
	case []any:
		parts := make([]string, len(value))
		for i, part := range value {
			parts[i] = Text(part)
		}
		return "[" + strings.Join(parts, " ") + "]"
	case map[string]any:
		text, err := json.Marshal(value)
		if err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(value)
}

func quoted(list []string) string {
	parts := make([]string, len(list))
	for i, part := range list {
		parts[i] = fmt.Sprintf("%q", part)
	}
	return strings.Join(parts, " ")
}

// columnGap is what stands between two columns.
const columnGap = "    "

// WriteTable shows rows in columns under heads that are underlined. Values of several lines stay as they are.
func WriteTable(w io.Writer, heads []string, rows [][]string) {
	under := make([]string, len(heads))
	for i, head := range heads {
		under[i] = strings.Repeat("-", utf8.RuneCountInString(head))
	}
	all := append([][]string{heads, under}, rows...)
	widths := make([]int, len(heads))
	for _, row := range all {
		for i, cell := range row[:min(len(row), len(heads)-1)] {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)) + columnGap)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// WriteHeading shows a line, about as wide as width, that divides an answer into parts.
func WriteHeading(w io.Writer, title string, width int) {
	sides := max((width-utf8.RuneCountInString(title)-1)/2, 2)
	fmt.Fprintf(w, "%s %s %s\n", strings.Repeat("=", sides), title, strings.Repeat("=", sides))
}
