package driver

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"conclave"
)

var (
	postgres = Dialect{Dollars: true}
	mysql    = Dialect{Backslashes: true}
)

func TestRender(t *testing.T) {
	values := Values{"name": `o"'\x`, "username": "v-token-app-x-1", "password": `p'"\; DROP`, "expiration": "2026-01-02 03:04:05+0000"}
	for _, row := range []struct {
		d          Dialect
		text, want string
	}{
		{postgres, `CREATE ROLE "{{name}}" PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
			`CREATE ROLE "o""'\x" PASSWORD 'p''"\; DROP' VALID UNTIL '2026-01-02 03:04:05+0000'`},
		{postgres, `SELECT E'{{password}}', e'{{name}}', fooe'{{name}}'`, `SELECT E'p''"\\; DROP', e'o"''\\x', fooe'o"''\x'`},
		{postgres, `DO $$BEGIN EXECUTE 'CREATE ROLE "{{username}}"'; END$$`, `DO $$BEGIN EXECUTE 'CREATE ROLE "v-token-app-x-1"'; END$$`},
		{postgres, `SELECT '{{1,2},{3}}', $1, a$b$c, 'it''s {{unknown}}'`, `SELECT '{{1,2},{3}}', $1, a$b$c, 'it''s {{unknown}}'`},
		{postgres, "-- don't {{username}}\nSELECT 1 /* a /* \" */ ' */", "-- don't v-token-app-x-1\nSELECT 1 /* a /* \" */ ' */"},
		{postgres, `SELECT {{ expiration }}, '{{ username }}'`, `SELECT 2026-01-02 03:04:05+0000, 'v-token-app-x-1'`},
		{postgres, `SELECT $t$'{{expiration}}'$t$`, `SELECT $t$'2026-01-02 03:04:05+0000'$t$`},
		{mysql, `CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'`, `CREATE USER 'o"''\\x'@'%' IDENTIFIED BY 'p''"\\; DROP'`},
		{mysql, "GRANT ALL ON `{{name}}`.* TO \"{{name}}\"", "GRANT ALL ON `o\"'\\x`.* TO \"o\"\"'\\\\x\""},
		{mysql, "# it's\nSELECT 1-- '\n, 5--3, '\\'', '{{username}}'", "# it's\nSELECT 1-- '\n, 5--3, '\\'', 'v-token-app-x-1'"},
	} {
		got, err := row.d.Render(row.text, values)
		if err != nil || got != row.want {
			t.Errorf("Render(%s) =\n%s, %v, want\n%s", row.text, got, err, row.want)
		}
	}
}

// isEnclosed tells a placeholder with quotes on both sides: dashes are no comment there.
var isEnclosed = regexp.MustCompile(`["']\{\{name\}\}["']`)

// Whatever a name or password holds, it can't end the quotes that it stands in, or begin a comment or a statement.
func TestNoValueChangesAStatement(t *testing.T) {
	hostile := []string{`a"b`, `a'b`, `a\`, "a`b", "a;b", "a--b", "a/*b", "a#b", "a$$b", "a$t$b", "a b", "a(b)", `'; DROP TABLE x; --`, `" SUPERUSER; --`, "é", "a$b"}
	never := []string{"a\x00b", "a\nb", "a\rb", "a\tb", "a\x7fb", "a\xffb"}
	bare := []struct {
		d    Dialect
		text string
	}{
		{postgres, `ALTER ROLE {{name}} LOGIN`}, {postgres, `DO $$ ALTER ROLE {{name}} $$`}, {postgres, `EXECUTE 'ALTER ROLE {{name}} LOGIN'`},
		{postgres, `EXECUTE 'CREATE ROLE "{{name}}"'`}, {postgres, `DO $t$ BEGIN EXECUTE 'CREATE ROLE "{{name}}"'; END $t$`}, {postgres, "-- {{name}}"},
		{postgres, "/* {{name}} */"}, {postgres, `SELECT 'x{{name}}'`}, {postgres, `SELECT "x{{name}}"`}, {postgres, `'it''s "{{name}}"'`},
		{mysql, `DROP USER {{name}}`}, {mysql, "# {{name}}"}, {mysql, `PREPARE s FROM "DROP USER '{{name}}'"`}, {mysql, "'{{name}}@%'"},
	}
	for _, row := range bare {
		for _, value := range slices.Concat(hostile, never) {
			if got, err := row.d.Render(row.text, Values{"name": value}); !conclave.Is(err, conclave.Invalid) && !(value == "a--b" && isEnclosed.MatchString(row.text)) {
				t.Errorf("Render(%s) with %q = %s, %v, want Invalid", row.text, value, got, err)
			}
		}
		if _, err := row.d.Render(row.text, Values{"name": "good_name1"}); err != nil {
			t.Errorf("Render(%s) with a plain name: %v", row.text, err)
		}
	}
	for _, value := range never {
		if _, err := postgres.Render(`'{{name}}'`, Values{"name": value}); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%q in quotes: %v, want Invalid", value, err)
		}
	}
	for _, text := range []string{`'`, `"{{name}}`, `'\''`, "$$ x", "/* x", "$t$ $$"} {
		if got, err := postgres.Render(text, Values{"name": "x"}); text != `'\''` && !conclave.Is(err, conclave.Invalid) {
			t.Errorf("Render(%s) = %s, %v, want Invalid", text, got, err)
		}
	}
}

// unquote is what a quoted text stands for, read by rules of its own; ok is false if it ends early.
func unquote(s string, backslashes bool) (string, bool) {
	var b strings.Builder
	quote := s[0]
	for i := 1; i < len(s); i++ {
		switch {
		case backslashes && s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			b.WriteByte(quote)
			i++
		case s[i] == quote:
			return b.String(), i == len(s)-1
		default:
			b.WriteByte(s[i])
		}
	}
	return "", false
}

func FuzzRender(f *testing.F) {
	f.Add(`CREATE ROLE "{{name}}" $$ '{{password}}' $$`, `a"'\$`, `b'; --`)
	f.Add("/* {{name}} */ -- x\n E'{{password}}' `{{name}}`", "x", "y")
	f.Fuzz(func(t *testing.T, text, name, password string) {
		values := Values{"name": name, "password": password}
		for _, d := range []Dialect{postgres, mysql} {
			if got, err := d.Render(text, values); err == nil && !strings.Contains(text, "{{") && got != text {
				t.Errorf("Render(%q) = %q: it has no placeholder", text, got)
			}
			for quote, backslashes := range map[string]bool{`'`: d.Backslashes, `"`: d.Backslashes} {
				got, err := d.Render(quote+"{{name}}"+quote, values)
				if err != nil {
					continue
				}
				if back, whole := unquote(got, backslashes); !whole || back != name {
					t.Errorf("%q in %s becomes %s, which is %q", name, quote, got, back)
				}
			}
			if got, err := d.Render("x {{name}} y", values); err == nil && (!strings.HasPrefix(got, "x "+name+" y") || !isWordText(name)) {
				t.Errorf("%q outside of quotes becomes %s", name, got)
			}
		}
	})
}

func TestJoinAndExpand(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte(`["SELECT 1;", "SELECT ';' -- x"]`))
	got := Expand([]string{" A; B ", `["C","D"]`, encoded, "", "[not json"})
	if want := []string{"A; B", "C", "D", "SELECT 1;", "SELECT ';' -- x", "[not json"}; !slices.Equal(got, want) {
		t.Errorf("Expand = %q, want %q", got, want)
	}
	text, err := postgres.Join([]string{"A; B;", encoded, " ; "}, nil)
	if want := "A; B\n;\nSELECT 1\n;\nSELECT ';' -- x\n;\n"; err != nil || text != want {
		t.Errorf("Join = %q, %v, want %q", text, err, want)
	}
	if _, err := postgres.Join([]string{strings.Repeat("x", maxStatement+1)}, nil); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("a statement over the limit: %v", err)
	}
}

func TestValuesOfALogin(t *testing.T) {
	l := Login{Name: "n", Password: "p", Until: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))}
	if got := l.Values()["expiration"]; got != "2026-01-02 02:04:05+0000" {
		t.Errorf("expiration is %q", got)
	}
	if got := (&Login{}).Values()["expiration"]; got != "infinity" {
		t.Errorf("without an end expiration is %q", got)
	}
}

func TestRefusedHidesSecretsAndIsShort(t *testing.T) {
	err := Refused("near \"se\x00cret\" and s3cret\n"+strings.Repeat("é", maxMessage), "42601", "s3cret", "")
	if text := err.Error(); strings.Contains(text, "s3cret") || strings.ContainsAny(text, "\x00\n") || len(text) > maxMessage+100 || !utf8.ValidString(text) {
		t.Errorf("Refused = %q", text)
	}
}

// MySQL quotes the first 80 bytes of a statement from where it doesn't understand it, PostgreSQL a word as it was written.
func TestRefusedHidesPartsOfSecrets(t *testing.T) {
	const secret = `kX9'vTq2\mZ7-wRb4Lp`
	for _, message := range []string{
		"You have an error in your SQL syntax near 'ALTR USER x IDENTIFIED BY 'kX9''vTq2\\\\mZ7-wR' at line 1",
		`syntax error at or near "'kX9''vTq2\mZ7-wRb4Lp'"`,
		"near 'wRb4Lp'' at line 1", secret, secret + secret,
	} {
		text := Refused(message, "1064", "", secret).Error()
		for i := range len(secret) - maxShared {
			if strings.Contains(text, secret[i:i+maxShared+1]) {
				t.Errorf("%q is told as %q", message, text)
			}
		}
	}
	if text := Refused("table t doesn't exist", "42P01", secret).Error(); !strings.Contains(text, "table t doesn't exist") {
		t.Errorf("a message without secrets is %q", text)
	}
	if text := Refused("near 'q9'", "1064", "q9").Error(); strings.Contains(text, "q9") {
		t.Errorf("a short secret is told: %q", text)
	}
}
