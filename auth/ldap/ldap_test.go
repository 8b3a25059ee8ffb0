package ldap

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.Conformance(t, Plugin()) }

func TestSpelling(t *testing.T) {
	for _, tc := range []struct{ name, want string }{
		{"alice", "alice"}, {"ALICE", "alice"}, {"  a \t b\u00a0 c ", "a b c"}, {"ﬁ", "fi"}, {"Ａ", "a"}, {"É", "é"}, {"e\u0301", "é"}, {"Strauß", "strauß"}, {"İvan", "İvan"}, {"ǅ", "dž"}, {"a\u3164", ""}, {"a\ue000", ""}, {"STRAUSS", "strauss"},
		{"Ω", "ω"}, {"K", "k"}, {"user@example.org", "user@example.org"}, {"日本", "日本"}, {"a/b", "a/b"},
		{"", ""}, {"   ", ""}, {"a\x00", ""}, {"a\x7f", ""}, {"a\u200b", ""}, {"a\u202eb", ""}, {"a\u00ad", ""}, {"a\ufe0f", ""}, {"a\ufffd", ""}, {"\xff", ""}, {"a\U000e0001", ""},
		{strings.Repeat("a", maxName), strings.Repeat("a", maxName)}, {strings.Repeat("a", maxName+1), ""}, {strings.Repeat("ﷺ", 100), ""},
	} {
		got, ok := spelling(tc.name, false)
		if got != tc.want || ok != (tc.want != "") {
			t.Errorf("spelling(%q) = %q, %v, want %q", tc.name, got, ok, tc.want)
		}
	}
	if got, _ := spelling(" Alice ", true); got != "Alice" {
		t.Errorf("spelling where case counts = %q", got)
	}
}

func FuzzSpelling(f *testing.F) {
	for _, name := range []string{"Alice", "ﬁ", "İ", "e\u0301\u0301", "ς", "ǅ", "\u1e9b\u0323"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, caseCounts := range []bool{false, true} {
			once, ok := spelling(name, caseCounts)
			if !ok {
				continue
			}
			if twice, ok := spelling(once, caseCounts); !ok || twice != once {
				t.Errorf("spelling(%q) = %q, whose spelling is %q", name, once, twice)
			}
			if !utf8.ValidString(once) || len(once) > maxName || strings.ContainsAny(once, "\x00\n") {
				t.Errorf("spelling(%q) = %q", name, once)
			}
		}
	})
}

func FuzzFilter(f *testing.F) {
	f.Add(defaultUserFilter, "alice")
	f.Add(defaultGroupFilter, "x)(cn=*")
	f.Add("(&(a={{.Username}})(!(b={{if eq .UserDN \"x\"}}1{{else}}2{{end}})))", "*")
	f.Fuzz(func(t *testing.T, text, name string) {
		filter, err := filterOf(text, names{UserAttr: "uid", Username: name, UserDN: "cn=" + name})
		if err != nil {
			return
		}
		plain, err := filterOf(text, names{UserAttr: "uid", Username: "alice", UserDN: "cn=alice"})
		if err != nil || strings.Contains(text, "{{if") || strings.Contains(text, "{{ if") || strings.Contains(text, "{{-") {
			return // what a condition chooses may differ
		}
		one, err := ldapv3.CompileFilter(filter)
		other, otherErr := ldapv3.CompileFilter(plain)
		if err == nil && otherErr == nil && strings.Count(text, "{{") < 3 && len(one.Children) != len(other.Children) && one.Tag <= 2 {
			t.Errorf("%q with %q has another shape: %s", text, name, filter)
		}
	})
}

func TestFilters(t *testing.T) {
	for _, tc := range []struct {
		text, want string
	}{
		{defaultUserFilter, `(uid=\2a\29\28\5c)`},
		{"(&(objectClass=person)(uid={{.Username}}))", `(&(objectClass=person)(uid=\2a\29\28\5c))`},
		{"{{if eq .UserAttr \"uid\"}}(a={{.Username}}){{else}}(b=1){{end}}", `(a=\2a\29\28\5c)`},
		{"(member={{ .UserDN }})", `(member=cn=\5c2c)`},
		{"{{range 1000000000}}x{{end}}", ""},
		{"{{printf \"%999999d\" 1}}", ""},
		{"{{define \"x\"}}{{template \"x\"}}{{end}}{{template \"x\"}}", ""},
		{"{{.Password}}", ""},
		{"{{.Username", ""},
		{"{{$x := .Username}}{{$x}}", ""},
		{"{{with .Username}}{{.}}{{end}}", ""},
	} {
		got, err := filterOf(tc.text, names{UserAttr: "uid", Username: `*)(\`, UserDN: `cn=\2c`})
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("filterOf(%q) = %q, %v, want %q", tc.text, got, err, tc.want)
		}
	}
}

func TestConfigurationsAreCheckedBeforeTheyAreStored(t *testing.T) {
	for _, tc := range []struct {
		field string
		value any
		text  string
	}{
		{"url", "http://x", "ldap:// or ldaps://"}, {"url", "ldapi:///run/slapd", "of the form"}, {"url", "ldap://u:p@x", "of the form"}, {"url", "", "of the form"},
		{"url", strings.Repeat("ldap://x,", 9) + "ldap://x", "of the form"}, {"url", "ldap://x/dc=a", "of the form"},
		{"userattr", "uid=*)(x", "names of attributes"}, {"groupattr", "", "names of attributes"},
		{"userdn", "people", "userdn is not"}, {"groupdn", "x", "groupdn is not"}, {"binddn", "x", "binddn is not"},
		{"upndomain", "a@b", "name of a domain"}, {"upndomain", "a)(b=*", "name of a domain"},
		{"userfilter", "(uid=alice)", "must compare"}, {"userfilter", "(!(uid={{.Username}}))", "must compare"}, {"userfilter", "(uid=*{{.Username}})", "must compare"},
		{"userfilter", "(uid={{.Username}}", "isn't an LDAP filter"}, {"groupfilter", "x", "isn't an LDAP filter"}, {"groupfilter", "{{range 9}}x{{end}}", "template"},
		{"userfilter", strings.Repeat("x", maxText+1), "at most 4096 bytes"},
		{"tls_min_version", "tls10", "tls12 or tls13"}, {"tls_max_version", "x", "tls12 or tls13"},
		{"certificate", "x", "server tls cert"}, {"client_tls_cert", "x", "both client_tls_cert"}, {"client_tls_key", "x", "both client_tls_cert"},
		{"dereference_aliases", "sometimes", "never, finding"}, {"max_page_size", -1, "negative"}, {"request_timeout", -1, "negative"},
		{"token_policies", "root", "policy root"},
	} {
		h := enginetest.New(t, Engine{})
		h.Fails(conclave.Update, "config", map[string]any{tc.field: tc.value}, conclave.Invalid, tc.text)
	}
	h := enginetest.New(t, Engine{})
	h.Data(conclave.Update, "config", map[string]any{"tls_min_version": "tls13"})
	h.Fails(conclave.Update, "config", map[string]any{"tls_max_version": "tls12"}, conclave.Invalid, "must be greater")
	h.Data(conclave.Update, "config", map[string]any{"binddn": `EXAMPLE\search`})
	h.Data(conclave.Update, "config", map[string]any{"binddn": "search@example.org", "userfilter": "(|({{.UserAttr}}={{.Username}})(mail={{.Username}}@example.org))"})
}

func TestConfigurationKeepsWhatIsntGivenAndShowsNoSecret(t *testing.T) {
	h := enginetest.New(t, Engine{})
	h.Fails(conclave.Read, "config", nil, conclave.NotFound, "")
	h.Data(conclave.Update, "config", map[string]any{"url": "ldaps://a, ldap://b:390", "bindpass": "hush-hush", "binddn": "cn=x", "token_ttl": "1h"})
	h.Data(conclave.Update, "config", map[string]any{"userattr": "uid", "starttls": true})
	want := enginetest.Decode(t, map[string]any{"url": "ldaps://a, ldap://b:390", "starttls": true, "insecure_tls": false, "certificate": "", "client_tls_cert": "",
		"tls_min_version": "tls12", "tls_max_version": "tls13", "binddn": "cn=x", "discoverdn": false, "upndomain": "", "userdn": "", "userattr": "uid",
		"userfilter": defaultUserFilter, "groupdn": "", "groupfilter": defaultGroupFilter, "groupattr": "cn", "anonymous_group_search": false, "deny_null_bind": true,
		"case_sensitive_names": false, "username_as_alias": false, "request_timeout": 90, "connection_timeout": 30, "max_page_size": 0, "dereference_aliases": "never",
		"use_token_groups": false, "token_bound_cidrs": []any{}, "token_explicit_max_ttl": 0, "token_max_ttl": 0, "token_no_default_policy": false, "token_num_uses": 0,
		"token_period": 0, "token_policies": []any{}, "token_ttl": 3600, "token_type": "default"})
	if got := h.Data(conclave.Read, "config", nil); !reflect.DeepEqual(got, want) {
		t.Errorf("config = %v\nwant %v", got, want)
	}
	if !strings.Contains(string(h.Stored()["config"]), "hush-hush") {
		t.Error("the password isn't stored")
	}
}

func TestUsersAndGroupsAreStoredUnderOneSpelling(t *testing.T) {
	h := enginetest.New(t, Engine{})
	for _, name := range []string{"Alice", "ＡＬＩＣＥ", " alice"} {
		h.Data(conclave.Update, "users/"+name, map[string]any{"policies": "P1, p2"})
	}
	h.Data(conclave.Update, "users/alice", map[string]any{"groups": []string{"Devs", " OPS"}})
	got := h.Data(conclave.Read, "users/ALICE", nil)
	if !reflect.DeepEqual(got, map[string]any{"groups": "devs,ops", "policies": []any{"p1", "p2"}}) {
		t.Errorf("user = %v", got)
	}
	if keys := h.Data(conclave.List, "users", nil)["keys"]; !reflect.DeepEqual(keys, []any{"alice"}) {
		t.Errorf("users = %v", keys)
	}
	h.Data(conclave.Update, "groups/Devs", map[string]any{"policies": "dev"})
	if got := h.Data(conclave.Read, "groups/devs", nil); !reflect.DeepEqual(got, map[string]any{"policies": []any{"dev"}}) {
		t.Errorf("group = %v", got)
	}
	h.Data(conclave.Delete, "users/Alice", nil)
	h.Data(conclave.Delete, "groups/DEVS", nil)
	h.Fails(conclave.Read, "users/alice", nil, conclave.NotFound, "")
	h.Fails(conclave.Read, "groups/devs", nil, conclave.NotFound, "")
	for _, name := range []string{"a\u200bb", strings.Repeat("a", maxName+1)} {
		h.Fails(conclave.Update, "users/"+name, nil, conclave.Invalid, "a name has")
		h.Fails(conclave.Update, "groups/"+name, nil, conclave.Invalid, "a name has")
	}
	h.Fails(conclave.Update, "users/a", map[string]any{"groups": []string{"a,b"}}, conclave.Invalid, "no comma")
	h.Fails(conclave.Update, "users/a", map[string]any{"policies": "root"}, conclave.Invalid, "policy root")
	h.Fails(conclave.Update, "users/a", map[string]any{"groups": strings.Repeat("a,", maxList+1)}, conclave.Invalid, "at most 256 groups")
	h.Data(conclave.Update, "config", map[string]any{"case_sensitive_names": true})
	h.Data(conclave.Update, "users/Alice", map[string]any{"policies": "p"})
	if keys := h.Data(conclave.List, "users", nil)["keys"]; !reflect.DeepEqual(keys, []any{"Alice"}) {
		t.Errorf("users = %v", keys)
	}
}

func TestGroupNames(t *testing.T) {
	entry := func(dn string, values ...string) *ldapv3.Entry {
		return ldapv3.NewEntry(dn, map[string][]string{"x": values})
	}
	for _, tc := range []struct {
		entry *ldapv3.Entry
		want  []string
	}{
		{entry("cn=a,dc=x", "a"), []string{"a"}},
		{entry("cn=a,dc=x"), []string{"a"}},
		{entry("ou=a,dc=x"), []string{"ou=a,dc=x"}},
		{entry("uid=u,dc=x", "CN=Admins,OU=g,DC=x", "ou=b,dc=x", "plain"), []string{"Admins", "ou=b,dc=x", "plain"}},
		{entry(`cn=cn\3dadmins,dc=x`, "cn=admins"), []string{"cn=admins"}},
	} {
		if got := groupNames(tc.entry, "X"); !slices.Equal(got, tc.want) {
			t.Errorf("groupNames(%q) = %v, want %v", tc.entry.DN, got, tc.want)
		}
	}
}

// TestStoredFormatIsRead reads what the first version stored.
func TestStoredFormatIsRead(t *testing.T) {
	golden, err := os.ReadFile("testdata/stored.json")
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]json.RawMessage
	if err := json.Unmarshal(golden, &stored); err != nil {
		t.Fatal(err)
	}
	h := enginetest.New(t, Engine{})
	for path, value := range stored {
		h.Store(path, value)
	}
	if got := h.Data(conclave.Read, "config", nil); got["url"] != "ldaps://directory.example.org" || got["token_ttl"] != json.Number("60") || got["case_sensitive_names"] != true {
		t.Errorf("config = %v", got)
	}
	if got := h.Data(conclave.Read, "users/Alice", nil); !reflect.DeepEqual(got, map[string]any{"groups": "Devs", "policies": []any{"p"}}) {
		t.Errorf("user = %v", got)
	}
	if got := h.Data(conclave.Read, "groups/Devs", nil); !reflect.DeepEqual(got, map[string]any{"policies": []any{"dev"}}) {
		t.Errorf("group = %v", got)
	}
}

func BenchmarkSpelling(b *testing.B) {
	for b.Loop() {
		_, _ = spelling("Alice Liddell", false)
	}
}
