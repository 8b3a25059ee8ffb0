package username

import (
	"bytes"
	"crypto/rand"
	"regexp"
	"strings"
	"testing"
	"time"

	"conclave"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

func TestMake(t *testing.T) {
	fields := Fields{DisplayName: "token-Bob", RoleName: "my.role"}
	for text, want := range map[string]string{
		`{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}`: `^v-token-Bo-my\.role-[A-Za-z0-9]{20}-1767323045$`,
		`{{.DisplayName | lowercase}}_{{.RoleName | uppercase | replace "." "-"}}_{{random 4}}`:                                   `^token-bob_MY-ROLE_[A-Za-z0-9]{4}$`,
		`{{uuid}}`: `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`,
		`{{unix_time_millis}}.{{timestamp "2006-01-02T15_04"}}.{{random 1}}`: `^1767323045678\.2026-01-02T03_04\.[A-Za-z0-9]$`,
		`{{"abcdefghijklmnopqrstuvwxyz" | truncate_sha256 20}}`:              `^abcdefghijkl872808ff$`, // the example of Vault's documentation
		`{{.RoleName | sha256 | truncate 8}}{{base64 "ab"|replace "=" ""}}`:  `^[0-9a-f]{8}YWI$`,
		`{{if eq .RoleName "my.role"}}a{{else}}b{{end}}-{{random 3}}`:        `^a-[A-Za-z0-9]{3}$`,
	} {
		tmpl, err := Parse(text, 100)
		if err != nil {
			t.Errorf("Parse(%s): %v", text, err)
			continue
		}
		if got, err := tmpl.Make(fields, now, rand.Reader); err != nil || !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s makes %q, %v, want %s", text, got, err, want)
		}
	}
}

// Names of people and roles come from anybody: quotes, backslashes and comment marks don't get through.
func TestHostileFieldsBecomePlain(t *testing.T) {
	tmpl, err := Parse(`v-{{.DisplayName}}-{{.RoleName}}-{{random 3}}`, 200)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tmpl.Make(Fields{"a\"'`\\;\x00\n/*--é", `{{random 5}}$x$`}, now, rand.Reader)
	if err != nil || !strings.HasPrefix(got, "v-a_________--_-__random_5___x_-") {
		t.Errorf("Make = %q, %v", got, err)
	}
}

func TestTemplatesThatAreRefused(t *testing.T) {
	for _, text := range []string{`{{`, `{{nothing}}`, `{{range 1000000000}}x{{end}}`, `{{define "a"}}{{end}}`, `{{template "username"}}`, `{{block "a" .}}{{end}}`, `{{with .}}{{end}}`,
		`{{html .}}`, `{{js "x"}}`, `{{call .X}}`, `{{index .DisplayName 1}}`, `{{slice "a" 1}}`, `{{.DisplayName.X}}`, strings.Repeat("x", maxTemplate+1), strings.Repeat("{{random 1}}", maxNodes)} {
		tmpl, err := Parse(text, 100)
		if err == nil {
			_, err = tmpl.Make(Fields{}, now, rand.Reader)
		}
		if !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%.40s: %v, want Invalid", text, err)
		}
	}
	for _, text := range []string{``, `{{random 101}}`, `{{random 129}}`, `{{random 0}}`, `{{random -1}}`, `{{truncate 0 "a"}}`, `{{printf "%1000000s" "a"}}`, `{{printf "%*d" 99999999 1}}`, `{{.Nothing}}`,
		`{{truncate_sha256 8 "a"}}`, `a b`, `é`, `"`, `{{timestamp "Jan 2"}}`, `{{"a" | replace "a" "aaaaaaaaaa" | replace "a" "aaaaaaaaaa" | replace "a" "aaaaaaaaaa" | replace "a" "aaaaaaaaaa"}}`} {
		tmpl, err := Parse(text, 100)
		if err == nil {
			_, err = tmpl.Make(Fields{"d", "r"}, now, rand.Reader)
		}
		if !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%.40s: %v, want Invalid", text, err)
		}
	}
}

// A template that makes a name twice would have the end of one lease end the login of another.
func TestTemplatesMustMakeNewNames(t *testing.T) {
	for text, good := range map[string]bool{`v-{{random 8}}`: true, `{{uuid}}`: true, `v-{{.RoleName}}`: false, `{{unix_time}}`: false, `{{random 1}}`: false,
		`prefix-{{random 20 | truncate 1}}`: false, `{{printf "a-long-prefix-%s" (random 20) | truncate 14}}`: false} {
		tmpl, err := Parse(text, 63)
		if err != nil {
			t.Fatal(err)
		}
		if err := tmpl.Differ(rand.Reader); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestFailingRandomnessMakesNoName(t *testing.T) {
	tmpl, err := Parse(`{{random 20}}`, 63)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tmpl.Make(Fields{}, now, bytes.NewReader(nil)); err == nil {
		t.Errorf("Make = %q", got)
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add(`{{ printf "v-%s-%s" (.DisplayName | truncate 8) (random 20) | truncate 63 }}`, "a", "b")
	f.Add(`{{$x := random 5}}{{$x}}{{if and .RoleName 1}}y{{end}}`, "é", "\x00")
	f.Add(`{{/* c */}}{{- 1 -}}{{nil}}`, "", "")
	f.Fuzz(func(t *testing.T, text, display, role string) {
		tmpl, err := Parse(text, 63)
		if err != nil {
			return
		}
		name, err := tmpl.Make(Fields{display, role}, now, rand.Reader)
		if err == nil && (name == "" || len(name) > 63 || name != Plain(name)) {
			t.Errorf("%q makes %q", text, name)
		}
	})
}

func BenchmarkMake(b *testing.B) {
	const text = `{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}`
	tmpl, err := Parse(text, 63)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := tmpl.Make(Fields{"token", "role"}, now, rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
}
