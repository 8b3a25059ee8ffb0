package policy

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
)

const everything = `
# all that a rule can say
path "secret/data/+/config" {
  comment = "for operators"
  capabilities = ["create", "read", "update", "delete", "list", "scan", "patch", "sudo"]
  required_parameters = ["Reason"]
  allowed_parameters = { "ttl" = ["1h", "2h"]  "*" = [] }
  denied_parameters = { "force" = [true], "n" = [5] }
  min_wrapping_ttl = "1m"
  max_wrapping_ttl = 3600
  pagination_limit = 100
}
path "old/*" { policy = "write" }
`

const everythingJSON = `{"path": {"secret/data/+/config": {
  "comment": "for operators",
  "capabilities": ["create", "read", "update", "delete", "list", "scan", "patch", "sudo"],
  "required_parameters": ["Reason"],
  "allowed_parameters": {"ttl": ["1h", "2h"], "*": []},
  "denied_parameters": {"force": [true], "n": [5]},
  "min_wrapping_ttl": "1m", "max_wrapping_ttl": 3600, "pagination_limit": 100},
 "old/*": {"policy": "write"}}}`

func TestParseReadsAllMembers(t *testing.T) {
	want := []Rule{
		{Pattern: "secret/data/+/config", Capabilities: Deny - 1, Limits: Limits{
			Required: []string{"reason"},
			Allowed:  map[string][]string{"ttl": {"1h", "2h"}, "*": {}},
			Denied:   map[string][]string{"force": {"true"}, "n": {"5"}},
			MinWrap:  time.Minute, MaxWrap: time.Hour, PageLimit: 100}},
		{Pattern: "old/*", Capabilities: legacyCapabilities["write"]},
	}
	for name, text := range map[string]string{"HCL": everything, "JSON": everythingJSON} {
		p := mustParse(t, "Ops ", text)
		if p.Name != "ops" || p.Source != text {
			t.Errorf("%s: name %q", name, p.Name)
		}
		for i := range p.Rules {
			p.Rules[i].Line = 0
		}
		if !reflect.DeepEqual(p.Rules, want) {
			t.Errorf("%s:\n%+v, want\n%+v", name, p.Rules, want)
		}
	}
}

func TestParseErrorsNameTheLine(t *testing.T) {
	tests := []struct{ source, want string }{
		{"path \"a\" {\n capabilities = [\"raed\"]\n}", "line 2"},
		{"path \"a\" {\n\n capabilites = [\"read\"]\n}", "line 3"},
		{"\npath \"a\" {", "line 2"},
		{"paht \"a\" {}", "line 1"},
		{"path \"a\" { policy = \"all\" }", "must be read, write, sudo or deny"},
		{"path \"+*\" { }", "+* is not a pattern"},
		{"path \"\" { }", "is empty"},
		{"path \"a/{{identity.x\" { }", "not closed"},
		{"path \"a/{{os.env}}\" { }", "identity."},
		{"path \"a\" \"b\" { }", "one pattern"},
		{"path = \"a\"", "block"},
		{"path \"a\" { min_wrapping_ttl = \"2h\" max_wrapping_ttl = \"1h\" }", "max_wrapping_ttl"},
		{"path \"a\" { min_wrapping_ttl = \"-2h\" }", "negative"},
		{"path \"a\" { pagination_limit = -1 }", "whole number"},
		{"path \"a\" { allowed_parameters = [1] }", "must map"},
		{"path \"a\" { capabilities = [[\"read\"]] }", "value"},
		{`{"path": {"a": {"capabilities": ["raed"]}}}`, "unknown capability"},
		{"{\"path\":\n {\"a\": nope}}", "line 2"},
		{`{"path": {}} {}`, "after the end"},
		{`{"path": {"a": 5}}`, ""},
		{"path \"a\" " + strings.Repeat("{ x ", 100000), "nested too deeply"},
		{`{"path":` + strings.Repeat("[", 100000), "nested too deeply"},
		{"path \"a\xff\" {}", "UTF-8"},
		{"a = 1", "unknown key"},
	}
	for _, test := range tests {
		_, err := Parse("p", test.source)
		if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Parse(%.60q) = %v, want %q", test.source, err, test.want)
		}
	}
	if _, err := Parse("p", strings.Repeat("#", MaxSource+1)); !conclave.Is(err, conclave.TooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestRootAndOddNamesCantBeWritten(t *testing.T) {
	for _, name := range []string{"root", "ROOT", " Root ", "", "a/b", "a,b", "a*", "a+", "a\nb", "{{x}}", strings.Repeat("x", 300)} {
		if _, err := Parse(name, ""); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("Parse(%q) = %v, want an error", name, err)
		}
	}
}

func TestBuiltinDefaultParses(t *testing.T) {
	acl := Compile(builtin())
	if !acl.Allows(Check{Path: "auth/token/lookup-self", Operation: conclave.Read}).Allowed {
		t.Error("default doesn't let a token look itself up")
	}
	if acl.Allows(Check{Path: "secret/data/x", Operation: conclave.Read}).Allowed {
		t.Error("default opens secrets")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{everything, everythingJSON, defaultSource, `{"path":[{"a":{"policy":"deny"}}]}`, `path "x" { policy = <<E
read
E
}`, "path \"${a}\" {}", "path \"a\" { x = -0x }"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("p", text)
		if err != nil {
			if k := conclave.KindOf(err); k != conclave.Invalid && k != conclave.TooLarge {
				t.Fatalf("kind %v: %v", k, err)
			}
			return
		}
		acl := Compile(p)
		for _, path := range []string{"a", "a/b", "secret/x/config", ""} {
			if acl.Allows(Check{Path: path, Operation: conclave.Read}).Allowed != strings.Contains(strings.Join(acl.Capabilities(path), " "), "read") {
				t.Fatal("Allows and Capabilities disagree")
			}
		}
		acl.Touches("a/")
	})
}
