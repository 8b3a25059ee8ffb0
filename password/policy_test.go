package password

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

const vaultsExample = `
length = 20
rule "charset" {
  charset = "abcdefghijklmnopqrstuvwxyz"
  min-chars = 1
}
rule "charset" {
  charset = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
  min-chars = 1
}
rule "charset" {
  charset = "0123456789"
  min-chars = 1
}
rule "charset" { # the last one
  charset = "!@#$%^&*"
  min-chars = 1
}
`

func random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return p
}

func TestPasswordsMeetTheRules(t *testing.T) {
	for _, p := range []*Policy{Default(), mustParse(t, vaultsExample),
		mustParse(t, `length = 4 rule "charset" { charset = "é√0" }`),
		mustParse(t, `length = 100 rule "charset" { charset = "ab" min-chars = 40 } rule "charset" { charset = "bc" min-chars = 40 }`)} {
		if err := p.Try(); err != nil {
			t.Fatalf("Try of\n%s: %v", p, err)
		}
		seen := map[string]bool{}
		for range 200 {
			text, err := p.Generate(random(byte(len(seen))))
			if err != nil {
				t.Fatal(err)
			}
			if !p.Allows(text) || len([]rune(text)) != p.Length() {
				t.Fatalf("%q is not what this allows:\n%s", text, p)
			}
			seen[text] = true
		}
		if p.Length() >= 20 && len(seen) < 200 {
			t.Errorf("%d different passwords of 200", len(seen))
		}
	}
	if Default().Length() != 20 || Default().Allows("aaaaaaaaaaaaaaaaaaaa") || !Default().Allows("aB3-aaaaaaaaaaaaaaaa") {
		t.Error("the default policy isn't 20 characters of four kinds")
	}
}

// TestEveryPasswordIsEquallyLikely counts passwords of a policy with few of them. Making what the rules want first and
// shuffling then, or a remainder of bytes, fails it.
func TestEveryPasswordIsEquallyLikely(t *testing.T) {
	p := mustParse(t, `length = 4 rule "charset" { charset = "abc" min-chars = 1 } rule "charset" { charset = "cd1" min-chars = 2 }`)
	possible := 0
	for n := range 5 * 5 * 5 * 5 {
		letters := "abcd1"
		if p.Allows(string([]byte{letters[n%5], letters[n/5%5], letters[n/25%5], letters[n/125%5]})) {
			possible++
		}
	}
	const each = 400
	source, counts := random(7), map[string]int{}
	for range each * possible {
		text, err := p.Generate(source)
		if err != nil {
			t.Fatal(err)
		}
		counts[text]++
	}
	if possible < 300 || len(counts) != possible {
		t.Fatalf("%d different passwords, want all of %d", len(counts), possible)
	}
	chi := 0.0 // is about possible, with a standard deviation of sqrt(2·possible)
	for _, n := range counts {
		chi += float64((n-each)*(n-each)) / each
	}
	if limit := float64(possible) + 5*25; chi > limit {
		t.Errorf("χ² is %.0f with %d passwords, want less than %.0f", chi, possible, limit)
	}
}

func TestRulesThatHardlyAnyTextMeetsAreFound(t *testing.T) {
	for _, row := range []struct {
		text string
		ok   bool
	}{
		{`length = 4 rule "charset" { charset = "ab" min-chars = 3 } rule "charset" { charset = "01" min-chars = 2 }`, false}, // none
		{`length = 10 rule "charset" { charset = "ab" min-chars = 10 } rule "charset" { charset = "0123456789" }`, false},     // 1 in 6^10
		{`length = 4 rule "charset" { charset = "ab" min-chars = 2 } rule "charset" { charset = "01" min-chars = 2 }`, true},
		{`length = 8 rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz" min-chars = 2 } rule "charset" { charset = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" min-chars = 2 }
		  rule "charset" { charset = "0123456789" min-chars = 2 } rule "charset" { charset = "-" min-chars = 2 }`, true}, // 1 in 2,200
	} {
		p := mustParse(t, row.text)
		if err := p.Try(); (err == nil) != row.ok || err != nil && !errors.Is(err, ErrHardlyMet) {
			t.Errorf("Try of %s: %v, want success: %v", row.text, err, row.ok)
		}
	}
	p := mustParse(t, `length = 4 rule "charset" { charset = "ab" min-chars = 3 } rule "charset" { charset = "01" min-chars = 2 }`)
	if text, err := p.Generate(random(1)); !errors.Is(err, ErrHardlyMet) || text != "" {
		t.Errorf("Generate by rules that can't be met: %q, %v", text, err)
	}
}

func TestFailingRandomnessMakesNoPassword(t *testing.T) {
	broken := errors.New("broken")
	if text, err := Default().Generate(iotest.ErrReader(broken)); !errors.Is(err, broken) || text != "" {
		t.Errorf("Generate = %q, %v", text, err)
	}
	if text, err := Default().Generate(strings.NewReader("short")); !errors.Is(err, io.ErrUnexpectedEOF) || text != "" {
		t.Errorf("Generate = %q, %v", text, err)
	}
}

func TestFormsOfAPolicy(t *testing.T) {
	want := mustParse(t, `length = 8
rule "charset" { charset = "cba" min-chars = 2 }
rule "charset" { charset = "0\"\\" }`).String()
	for _, text := range []string{
		`{"length": 8, "rule": [{"charset": {"charset": "abc", "min-chars": 2}}, {"charset": {"charset": "\\\"0"}}]}`,
		`{"length": 8, "rule": {"charset": [{"charset": "abcabc", "min-chars": 2}, {"charset": "0\\\""}]}}`,
		"length = \"8\"\nrule = { charset = { charset = \"abc\" \"min-chars\" = 2 } }\nrule \"charset\" { charset = <<END\n0\\\"\nEND\n}",
		want,
	} {
		if got := mustParse(t, text).String(); got != want {
			t.Errorf("%s is\n%s\nwant\n%s", text, got, want)
		}
	}
}

func TestWrongPoliciesAreRefusedByLine(t *testing.T) {
	good := "rule \"charset\" {\n  charset = \"abc\"\n}\n"
	for _, row := range []struct{ text, want string }{
		{"", "there is no length"},
		{"length = 20", "there is no rule"},
		{good, "there is no length"},
		{"length = 3\n" + good, "line 1: length must be"},
		{"length = 101\n" + good, "line 1: length must be"},
		{"length = 2.5\n" + good, "line 1: length must be"},
		{"length = -20\n" + good, "line 1: length must be"},
		{"length = 99999999999999999999\n" + good, ""},
		{"length = 20\nlength = 21\n" + good, "line 2: length is given twice"},
		{"length = 20\n" + good + "lenght = 1", "line 5: unknown key"},
		{"length = 20\nrule \"regex\" {\n}", `line 2: unknown kind of rule "regex"`},
		{"length = 20\nrule {\n}", "there is no rule"},
		{"length = 20\nrule \"charset\" {\n}", "line 2: the rule has no charset"},
		{"length = 20\nrule \"charset\" {\n charset = \"\" }", "line 3: charset is empty"},
		{"length = 20\nrule \"charset\" {\n charset = \"a\\tb\" }", "line 3: charset has a character that can't be printed"},
		{"length = 20\nrule \"charset\" {\n charset = [\"a\"] }", "line 3: charset must be text"},
		{"length = 20\nrule \"charset\" {\n charset = 12 }", "line 3: charset must be text"},
		{"length = 20\nrule \"charset\" {\n charset = \"a\"\n charset = \"b\" }", "line 4: charset is given twice"},
		{"length = 20\nrule \"charset\" {\n charset = \"a\"\n min-chars = -1 }", "line 4: min-chars must be"},
		{"length = 20\nrule \"charset\" {\n charset = \"a\"\n min-chars = 1\n min-chars = 1 }", "line 5: min-chars is given twice"},
		{"length = 20\nrule \"charset\" {\n charset = \"a\"\n min_chars = 1 }", `line 4: unknown key "min_chars"`},
		{"length = 20\nrule \"charset\" {\n charset = \"a\"\n min-chars = 21 }", "a rule wants more characters"},
		{"length = 20\nrule \"charset\" \"x\" {\n charset = \"a\" }", "line 2: a rule is a block"},
		{"length = 20\nrule \"charset\" {", ""},
		{"length = 20\n\x01", ""},
		{"length = \xff", "not valid UTF-8"},
		{"{\"length\": 20,\n \"rule\": }", "line 2: not valid JSON"},
		{"{\"length\": 20} x", "line 1: text after the end"},
		{"{\"length\": null}", ""},
		{strings.Repeat("a = {", 1000), "nested too deeply"},
		{strings.Repeat(`{"rule":`, 1000), "nested too deeply"},
		{strings.Repeat("#", MaxSource+1), "at most 65536 bytes"},
		{"length = 20\n" + strings.Repeat(good, MaxRules+1), "too many rules"},
		{"length = 20\nrule \"charset\" { charset = \"" + manyCharacters() + "\" }", "more than 256 different characters"},
	} {
		p, err := Parse(row.text)
		if syntax := new(SyntaxError); err == nil || p != nil || !errors.As(err, &syntax) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("Parse(%.60q) = %v, %v, want an error with %q", row.text, p, err, row.want)
		}
	}
}

func manyCharacters() string {
	var b strings.Builder
	for i := range MaxCharacters + 1 {
		fmt.Fprintf(&b, "%c", 0x4e00+i)
	}
	return b.String()
}

func TestPlain(t *testing.T) {
	p, err := Plain(32)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := p.Generate(random(3)); err != nil || len(text) != 32 || strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		t.Errorf("Generate = %q, %v", text, err)
	}
	for _, length := range []int{-1, 3, 101} {
		if _, err := Plain(length); err == nil {
			t.Errorf("Plain(%d) is no error", length)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{vaultsExample, `{"length":8,"rule":[{"charset":{"charset":"abc","min-chars":2}}]}`, "length = 4 rule \"charset\" { charset = \"${a}\" }",
		"length = 0x10 rule \"charset\" { charset = <<E\n${\nE\n}", "length = -0x", `{"length":4,"rule":{"charset":[{"charset":"\u00e9"}]}}`, Default().String()} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			if syntax := new(SyntaxError); !errors.As(err, &syntax) {
				t.Fatalf("error of another type: %v", err)
			}
			return
		}
		again, err := Parse(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("the canonical form %q of %q: %v", p, text, err)
		}
		if made, err := p.Generate(random(1)); err == nil && !p.Allows(made) || err != nil && !errors.Is(err, ErrHardlyMet) {
			t.Fatalf("made %q, %v by %q", made, err, text)
		}
	})
}

func BenchmarkGenerate(b *testing.B) {
	p, source := Default(), random(1)
	for b.Loop() {
		if _, err := p.Generate(source); err != nil {
			b.Fatal(err)
		}
	}
}
