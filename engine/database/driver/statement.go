package driver

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"conclave"
)

// Dialect is how the statements of a kind of database quote.
type Dialect struct {
	Dollars     bool // $tag$ … $tag$ quotes, E'…' has backslashes, and comments nest: PostgreSQL
	Backslashes bool // strings have backslashes, "…" is one, `…` quotes names, and # begins a comment: MySQL
}

// Values are what a statement's placeholders stand for: name → value.
type Values map[string]string

// ours are the values that nobody outside chooses: they stand anywhere.
const expirationKey = "expiration"

// Values of a login, by the placeholders that Vault's statements have.
func (l *Login) Values() Values {
	v := Values{"name": l.Name, "username": l.Name, "password": l.Password, expirationKey: "infinity"}
	if !l.Until.IsZero() {
		v[expirationKey] = l.Until.UTC().Format("2006-01-02 15:04:05-0700")
	}
	return v
}

// Expand takes statements apart that hold several: each may be text, a JSON array of texts, or either of them in base64.
// Statements in one text stay together: databases take them so.
func Expand(statements []string) []string {
	var all []string
	for _, text := range statements {
		text = strings.TrimSpace(text)
		if decoded, err := base64.StdEncoding.DecodeString(text); err == nil && len(decoded) > 0 && utf8.Valid(decoded) {
			text = strings.TrimSpace(string(decoded)) // no statement is base64 by chance: they have blanks
		}
		var list []string
		if strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &list) == nil {
			all = append(all, list...)
			continue
		}
		if text != "" {
			all = append(all, text)
		}
	}
	return all
}

// Join renders statements and makes one text of them, separated by semicolons.
func (d Dialect) Join(statements []string, values Values) (string, error) {
	var b strings.Builder
	for _, statement := range Expand(statements) {
		rendered, err := d.Render(statement, values)
		if err != nil {
			return "", err
		}
		rendered = strings.TrimRight(strings.TrimSpace(rendered), "; \t\r\n")
		if rendered == "" {
			continue
		}
		b.WriteString(rendered)
		b.WriteString("\n;\n") // on a line of its own: a comment may end the statement
	}
	if b.Len() > maxStatement {
		return "", conclave.Errorf(conclave.Invalid, "statements have at most %d bytes", maxStatement)
	}
	return b.String(), nil
}

// Render puts values in the place of a statement's placeholders, {{name}}. No value changes what the statement does:
//
//   - a string or quoted name that consists of a placeholder, '{{password}}' or "{{name}}", takes any text, escaped;
//   - other quoted text, which may itself be a statement, takes text of letters, digits and _ . @ : - only;
//   - unquoted, a placeholder takes letters, digits and _ only.
//
// A value that doesn't fit is an error, and so is a quote that has no end. Control characters fit nowhere.
func (d Dialect) Render(statement string, values Values) (string, error) {
	if len(statement) > maxStatement {
		return "", conclave.Errorf(conclave.Invalid, "a statement has at most %d bytes", maxStatement)
	}
	for name, value := range values {
		if !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", conclave.Errorf(conclave.Invalid, "{{%s}} has control characters", name)
		}
	}
	r := renderer{Dialect: d, values: values}
	if err := r.text(statement); err != nil {
		return "", err
	}
	return r.out.String(), nil
}

type renderer struct {
	Dialect
	values   Values
	out      strings.Builder
	inDollar bool
}

var errOpen = conclave.Errorf(conclave.Invalid, "a quote or comment in a statement has no end")

// text renders text that is not quoted, or the inside of dollar quotes, which quotes nothing itself.
func (r *renderer) text(s string) error {
	for i := 0; i < len(s); {
		n, err := r.step(s, i)
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// step renders what begins at i, and returns how long that was.
func (r *renderer) step(s string, i int) (int, error) {
	rest := s[i:]
	switch {
	case r.isComment(rest):
		n := strings.IndexByte(rest, '\n')
		if n < 0 {
			n = len(rest)
		}
		return n, r.loose(rest[:n])
	case strings.HasPrefix(rest, "/*"):
		n := commentEnd(rest, r.Dollars)
		if n < 0 {
			return 0, errOpen
		}
		return n, r.loose(rest[:n])
	case rest[0] == '\'' || rest[0] == '"' || rest[0] == '`' && r.Backslashes:
		escapes := r.Backslashes && rest[0] != '`' || r.Dollars && rest[0] == '\'' && isEscapeString(s, i)
		n := quoteEnd(rest, escapes)
		if n < 0 {
			return 0, errOpen
		}
		return n, r.quoted(rest[1:n-1], rest[0], escapes)
	case rest[0] == '$' && r.Dollars && (i == 0 || !isWord(s[i-1])):
		return r.dollar(rest)
	case strings.HasPrefix(rest, "{{"):
		if name, n := r.placeholder(rest); n > 0 {
			return n, r.put(name, isWordText, "it stands outside of quotes")
		}
	}
	r.out.WriteByte(rest[0])
	return 1, nil
}

// isComment reports whether s begins a comment that goes to the end of the line. MySQL wants a blank after its dashes.
func (r *renderer) isComment(s string) bool {
	if r.Backslashes {
		return s[0] == '#' || s == "--" || strings.HasPrefix(s, "--") && s[2] <= ' '
	}
	return strings.HasPrefix(s, "--")
}

// dollar renders text in dollar quotes. A dollar that begins none is a parameter's, or nothing.
func (r *renderer) dollar(rest string) (int, error) {
	end := 1
	for end < len(rest) && isWord(rest[end]) {
		end++
	}
	if end == len(rest) || rest[end] != '$' || end > 1 && rest[1] >= '0' && rest[1] <= '9' {
		r.out.WriteByte('$')
		return 1, nil
	}
	tag := rest[:end+1]
	length := strings.Index(rest[len(tag):], tag)
	if length < 0 {
		return 0, errOpen
	}
	was := r.inDollar
	r.inDollar = true
	r.out.WriteString(tag)
	err := r.text(rest[len(tag) : len(tag)+length])
	r.out.WriteString(tag)
	r.inDollar = was
	return length + 2*len(tag), err
}

// quoted renders the inside of quotes.
func (r *renderer) quoted(body string, quote byte, escapes bool) error {
	r.out.WriteByte(quote)
	defer r.out.WriteByte(quote)
	if name, n := r.placeholder(body); n > 0 && n == len(body) && !(r.inDollar && strings.Contains(r.values[name], "$")) {
		value := r.values[name]
		if escapes {
			value = strings.ReplaceAll(value, `\`, `\\`)
		}
		r.out.WriteString(strings.ReplaceAll(value, string(quote), string(quote)+string(quote)))
		return nil
	}
	return r.loose(body)
}

// loose renders text that may itself be a statement, or a comment: values must be harmless wherever they stand.
func (r *renderer) loose(body string) error {
	for i := 0; i < len(body); {
		name, n := r.placeholder(body[i:])
		if n == 0 {
			r.out.WriteByte(body[i])
			i++
			continue
		}
		enclosed := i > 0 && i+n < len(body) && isQuote(body[i-1]) && isQuote(body[i+n])
		fits := func(value string) bool {
			return isPlainText(value) && (enclosed || !strings.Contains(value, "--"))
		}
		if err := r.put(name, fits, "it stands in quotes with other text"); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// placeholder is the name of the placeholder that s begins with, and its length; 0 if there is none that we know.
func (r *renderer) placeholder(s string) (name string, length int) {
	if !strings.HasPrefix(s, "{{") {
		return "", 0
	}
	end := strings.Index(s, "}}")
	if end < 0 || end > 64 {
		return "", 0
	}
	name = strings.TrimSpace(s[2:end])
	if _, known := r.values[name]; !known {
		return "", 0
	}
	return name, end + 2
}

func (r *renderer) put(name string, fits func(string) bool, where string) error {
	value := r.values[name]
	if name != expirationKey && !fits(value) {
		return conclave.Errorf(conclave.Invalid, "{{%s}} has characters that can't be where %s: give it quotes of its own", name, where)
	}
	r.out.WriteString(value)
	return nil
}

// quoteEnd is the length of quoted text with its quotes, -1 if it has no end.
func quoteEnd(s string, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && escapes:
			i++
		case s[i] == s[0] && i+1 < len(s) && s[i+1] == s[0]:
			i++
		case s[i] == s[0]:
			return i + 1
		}
	}
	return -1
}

// commentEnd is the length of a comment, -1 if it has no end.
func commentEnd(s string, nests bool) int {
	depth := 1
	for i := 2; i+1 < len(s); i++ {
		switch {
		case s[i] == '*' && s[i+1] == '/':
			i++
			if depth--; depth == 0 {
				return i + 1
			}
		case nests && s[i] == '/' && s[i+1] == '*':
			depth++
			i++
		}
	}
	return -1
}

// isEscapeString reports whether the quote at i is that of E'…'.
func isEscapeString(s string, i int) bool {
	return i > 0 && (s[i-1] == 'E' || s[i-1] == 'e') && (i == 1 || !isWord(s[i-2]))
}

func isQuote(b byte) bool { return b == '\'' || b == '"' || b == '`' }

func isWord(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= utf8.RuneSelf
}

func isWordText(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf || !isWord(byte(r)) })
}

func isPlainText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf || !isWord(byte(r)) && !strings.ContainsRune(".@:-", r) })
}
