package policy

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"conclave/policy"
)

func TestRulesAreFormatted(t *testing.T) {
	for _, tc := range []struct{ name, rules, want string }{
		{"hcl", "path  \"a/*\" {capabilities=[\"read\",\n\"list\"]}\n# why\npath \"b\" { policy = \"write\" }", `path "a/*" {
  capabilities = [
    "read",
    "list",
  ]
}

# why
path "b" {
  policy = "write"
}
`},
		{"JSON", `{"path":{"a":{"capabilities":["read"]}}}`, "{\n  \"path\": {\n    \"a\": {\n      \"capabilities\": [\n        \"read\"\n      ]\n    }\n  }\n}\n"},
	} {
		got, err := formatRules(tc.rules)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: %v, formatted as\n%s\nwant\n%s", tc.name, err, got, tc.want)
		}
		if again, err := formatRules(string(got)); err != nil || string(again) != string(got) {
			t.Errorf("%s: %v, formatted again as\n%s", tc.name, err, again)
		}
	}
	for _, rules := range []string{`path "a" { capabilities = ["fly"] }`, `path "a" {`, `[]`, `path "a" { capabilities = ["read"] }}`} {
		if got, err := formatRules(rules); err == nil {
			t.Errorf("%s is formatted as %s, want an error", rules, got)
		}
	}
}

// FuzzFormat has whatever is a policy be the same policy afterwards.
func FuzzFormat(f *testing.F) {
	f.Add(`path "a/+/b" { capabilities = ["read"] allowed_parameters = { "x" = ["1", "2"] } } # why`)
	f.Add(`{"path":{"a":{"policy":"write"}}}`)
	f.Fuzz(func(t *testing.T, rules string) {
		formatted, err := formatRules(rules)
		if err != nil {
			return
		}
		before, err := policy.Parse("rules", rules)
		if err != nil {
			t.Fatal(err)
		}
		after, err := policy.Parse("rules", string(formatted))
		if err != nil || !sameRules(before.Rules, after.Rules) {
			t.Fatalf("%q is formatted as %q: %v", rules, formatted, err)
		}
	})
}

func TestFilesKeepTheirModeAndLinks(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "a.hcl"), filepath.Join(dir, "link.hcl")
	if err := os.WriteFile(file, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := replace(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	info, statErr := os.Lstat(file)
	if err != nil || statErr != nil || string(text) != "new" || info.Mode() != 0o640 {
		t.Errorf("the file has %q with mode %v: %v, %v", text, info.Mode(), err, statErr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
}

// sameRules compares all but the lines that rules are in.
func sameRules(a, b []policy.Rule) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	for _, rules := range [][]policy.Rule{a, b} {
		for i := range rules {
			rules[i].Line = 0
		}
	}
	return reflect.DeepEqual(a, b)
}
