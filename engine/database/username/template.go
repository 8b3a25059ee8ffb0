// Package username makes the names of database logins from a template: Go's template language without loops, definitions
// and anything else whose cost isn't bounded by the template's length, with the functions that Vault's templates have.
//
// Names are made of letters, digits and _ . @ : - only, whatever the template is given: they go into statements, and
// nobody who chooses a display name or a role's name chooses a statement.
package username

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"
	"time"
	"unicode/utf8"

	"conclave"
)

// Limits of templates.
const (
	maxTemplate = 4096 // bytes
	maxValue    = 1024 // bytes of what a function gives
	maxRandom   = 128  // characters
	maxNodes    = 200
	trials      = 64 // names that must differ before a template is taken
)

// Fields are what a template knows of who asks.
type Fields struct{ DisplayName, RoleName string }

// Template makes names. It is safe for concurrent use.
type Template struct {
	makers sync.Pool // of *maker
	limit  int       // characters of a name
}

// maker is a parsed template with what its functions work from at the moment.
type maker struct {
	parsed *template.Template
	now    time.Time
	random io.Reader
}

func newMaker(text string) (*maker, error) {
	m := &maker{}
	var err error
	m.parsed, err = template.New("username").Option("missingkey=error").Funcs(m.functions()).Parse(text)
	return m, err
}

// Parse reads a template for names of at most limit characters. A template must make a new name each time.
func Parse(text string, limit int) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, invalid("has at most %d bytes", maxTemplate)
	}
	m, err := newMaker(text)
	if err != nil {
		return nil, invalid("can't be read")
	}
	if len(m.parsed.Templates()) > 1 || m.parsed.Tree == nil {
		return nil, invalid("defines templates")
	}
	nodes, known := 0, m.functions()
	if err := check(m.parsed.Root, known, &nodes); err != nil {
		return nil, err
	}
	t := &Template{limit: limit}
	t.makers.New = func() any {
		again, _ := newMaker(text) // it was read before
		return again
	}
	t.makers.Put(m)
	return t, nil
}

// Differ reports whether the template makes a new name each time: names that are drawn at the same time for the same
// caller differ.
func (t *Template) Differ(random io.Reader) error {
	seen := make(map[string]bool, trials)
	for range trials {
		name, err := t.Make(Fields{"display", "role"}, time.Unix(1, 0), random)
		if err != nil {
			return err
		}
		if seen[name] {
			return invalid("makes the same name again: it needs {{random 20}} or {{uuid}}, which truncate leaves")
		}
		seen[name] = true
	}
	return nil
}

// Make makes a name. random must be a cryptographic source.
func (t *Template) Make(fields Fields, now time.Time, random io.Reader) (string, error) {
	fields = Fields{Plain(fields.DisplayName), Plain(fields.RoleName)}
	m := t.makers.Get().(*maker)
	defer t.makers.Put(m)
	m.now, m.random = now, random
	var out bounded
	if err := m.parsed.Execute(&out, fields); err != nil {
		return "", invalid("fails, or makes too long a name")
	}
	name := out.String()
	if name == "" || utf8.RuneCountInString(name) > t.limit || name != Plain(name) {
		return "", invalid("must make names of 1 to %d letters, digits and _ . @ : -", t.limit)
	}
	return name, nil
}

// Plain replaces what may not be in a name by _.
func Plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.@:-", r)) {
			return r
		}
		return '_'
	}, text)
}

func invalid(format string, args ...any) error {
	return conclave.Errorf(conclave.Invalid, "invalid username_template: it %s", fmt.Sprintf(format, args...))
}

// check refuses what could run for long.
func check(node parse.Node, known template.FuncMap, nodes *int) error {
	if *nodes++; *nodes > maxNodes {
		return invalid("has too many parts")
	}
	children := []parse.Node{}
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil {
			children = append(children, n.Nodes...)
		}
	case *parse.ActionNode:
		children = append(children, n.Pipe)
	case *parse.PipeNode:
		for _, command := range n.Cmds {
			children = append(children, command)
		}
	case *parse.CommandNode:
		children = append(children, n.Args...)
	case *parse.IfNode:
		children = append(children, n.Pipe, n.List)
		if n.ElseList != nil {
			children = append(children, n.ElseList)
		}
	case *parse.IdentifierNode:
		if _, ours := known[n.Ident]; !ours && !harmless[n.Ident] {
			return invalid("calls %s, which templates of names don't have", n.Ident)
		}
	case *parse.TextNode, *parse.FieldNode, *parse.StringNode, *parse.NumberNode, *parse.BoolNode, *parse.DotNode, *parse.VariableNode, *parse.CommentNode, *parse.NilNode:
	default:
		return invalid("has loops, definitions or templates in it")
	}
	for _, child := range children {
		if err := check(child, known, nodes); err != nil {
			return err
		}
	}
	return nil
}

// harmless are the language's own functions that cost little and give little.
var harmless = map[string]bool{"and": true, "or": true, "not": true, "len": true, "eq": true, "ne": true, "lt": true, "le": true, "gt": true, "ge": true}

// functions are those of a template.
func (m *maker) functions() template.FuncMap {
	return template.FuncMap{
		"random":           func(n int) (string, error) { return letters(n, m.random) },
		"uuid":             func() (string, error) { return uuid(m.random) },
		"unix_time":        func() string { return strconv.FormatInt(m.now.Unix(), 10) },
		"unix_time_millis": func() string { return strconv.FormatInt(m.now.UnixMilli(), 10) },
		"timestamp":        func(layout string) (string, error) { return limited(m.now.UTC().Format(layout)) },
		"truncate":         truncate,
		"truncate_sha256":  truncateSHA256,
		"uppercase":        strings.ToUpper,
		"lowercase":        strings.ToLower,
		"replace": func(find, by, text string) (string, error) {
			if len(text)*(len(by)+1) > maxValue*maxValue {
				return "", errLong
			}
			return limited(strings.ReplaceAll(text, find, by))
		},
		"sha256": func(text string) string {
			sum := sha256.Sum256([]byte(text))
			return hex.EncodeToString(sum[:])
		},
		"base64": func(text string) (string, error) { return limited(base64.StdEncoding.EncodeToString([]byte(text))) },
		"printf": printf,
		"print":  func(args ...any) (string, error) { return limited(fmt.Sprint(args...)) },
	}
}

var errLong = fmt.Errorf("a value of more than %d bytes", maxValue)

func limited(text string) (string, error) {
	if len(text) > maxValue {
		return "", errLong
	}
	return text, nil
}

// printf has the verbs %s, %d, %v and %%, without widths: those would make long texts of short ones.
func printf(format string, args ...any) (string, error) {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		if i++; i == len(format) || !strings.ContainsRune("sdv%", rune(format[i])) {
			return "", fmt.Errorf("printf has %%s, %%d, %%v and %%%% only")
		}
	}
	return limited(fmt.Sprintf(format, args...))
}

func truncate(n int, text string) (string, error) {
	if n <= 0 {
		return "", fmt.Errorf("truncate to %d characters", n)
	}
	runes := []rune(text)
	return string(runes[:min(n, len(runes))]), nil
}

// truncateSHA256 puts 8 digits of a hash in the place of what is cut off.
func truncateSHA256(n int, text string) (string, error) {
	const digits = 8
	if n <= digits {
		return "", fmt.Errorf("truncate_sha256 to %d characters", n)
	}
	runes := []rune(text)
	if len(runes) <= n {
		return text, nil
	}
	sum := sha256.Sum256([]byte(string(runes[n-digits:])))
	return string(runes[:n-digits]) + hex.EncodeToString(sum[:])[:digits], nil
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// letters draws n letters and digits.
func letters(n int, random io.Reader) (string, error) {
	if n <= 0 || n > maxRandom {
		return "", fmt.Errorf("random gives 1 to %d characters", maxRandom)
	}
	out := make([]byte, 0, n)
	var raw [64]byte
	for len(out) < n {
		if _, err := io.ReadFull(random, raw[:]); err != nil {
			return "", err
		}
		for _, b := range raw {
			if b < 4*62 && len(out) < n { // above, the first letters would be likelier
				out = append(out, alphabet[b%62])
			}
		}
	}
	return string(out), nil
}

// uuid is a random one (RFC 9562, version 4).
func uuid(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// bounded holds as much as a name may have, and fails beyond.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxValue {
		return 0, errLong
	}
	return b.Builder.Write(p)
}
