package client

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

func secrets() map[string]*api.Secret {
	return map[string]*api.Secret{
		"data": {RequestID: "r", Data: map[string]any{"text": "a <b> & c", "number": json.Number("7"), "none": nil,
			"list": []any{"x", json.Number("1")}, "object": map[string]any{"k": "v"}, "lines": "one\ntwo"}},
		"lease": {LeaseID: "db/creds/x", LeaseDuration: 3600, Renewable: true, Data: map[string]any{"username": "u"}},
		"login": {Auth: &api.SecretAuth{ClientToken: "hvs.t", Accessor: "acc", LeaseDuration: 90, Renewable: true, TokenPolicies: []string{"default", "ro"},
			Policies: []string{"default", "ro"}, Metadata: map[string]string{"username": "ann"}}},
		"wrapped": {WrapInfo: &api.SecretWrapInfo{Token: "hvs.w", Accessor: "acc", TTL: 60, CreationPath: "secret/data/x"}},
	}
}

func TestSecretsInEachFormat(t *testing.T) {
	for name, secret := range secrets() {
		for _, format := range []string{Table, JSON, YAML} {
			t.Run(name+"/"+format, func(t *testing.T) {
				s := session("")
				s.Format = format
				if err := s.PrintSecret(secret); err != nil {
					t.Fatal(err)
				}
				golden(t, name+"."+format, s.Out.(*strings.Builder).String())
			})
		}
	}
}

func TestFormatComesFromTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		flag, ours, theirs, want string
	}{{"", "", "", Table}, {"", "", "json", JSON}, {"", "yaml", "json", YAML}, {"table", "yaml", "json", Table}, {"JSON", "", "", JSON}} {
		s := session("")
		s.Format = tc.flag
		s.Getenv = func(name string) string {
			return map[string]string{"CONCLAVE_FORMAT": tc.ours, "VAULT_FORMAT": tc.theirs}[name]
		}
		if got, err := s.OutputFormat(); got != tc.want || err != nil {
			t.Errorf("OutputFormat with %+v = %q, %v, want %q", tc, got, err, tc.want)
		}
	}
	s := session("")
	s.Format = "xml"
	if got, err := s.OutputFormat(); err == nil {
		t.Errorf("OutputFormat of xml = %q, want an error", got)
	}
}

func TestFieldAloneHasNoNewlineInAPipe(t *testing.T) {
	for _, tc := range []struct{ secret, field, want string }{
		{"data", "text", "a <b> & c"}, {"data", "number", "7"}, {"login", "token", "hvs.t"}, {"wrapped", "wrapping_token", "hvs.w"},
	} {
		s := session("")
		s.Field = tc.field
		if err := s.PrintSecret(secrets()[tc.secret]); err != nil {
			t.Fatal(err)
		}
		if got := s.Out.(*strings.Builder).String(); got != tc.want {
			t.Errorf("field %s = %q, want %q", tc.field, got, tc.want)
		}
	}
	s := session("")
	s.Field = "nope"
	if err := s.PrintSecret(secrets()["data"]); ExitCode(err) != ExitLocal {
		t.Errorf("an absent field = %v, want an error", err)
	}
}

func TestWarningsDontGetIntoTheOutput(t *testing.T) {
	s := session("")
	s.Format = JSON
	if err := s.PrintSecret(&api.Secret{Data: map[string]any{"a": "b"}, Warnings: []string{"mind the gap"}}); err != nil {
		t.Fatal(err)
	}
	if got := s.Err.(*strings.Builder).String(); !strings.Contains(got, "mind the gap") {
		t.Errorf("standard error = %q, want the warning", got)
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(s.Out.(*strings.Builder).String()), &out); err != nil {
		t.Errorf("standard output isn't JSON: %v", err)
	}
}
