package event

import (
	"strconv"
	"strings"

	"conclave"
)

// Filter decides about one event. It is a part of Vault's filter expressions, without regular expressions:
//
//	expression = term { "or" term }        term = factor { "and" factor }
//	factor     = "not" factor | "(" expression ")" | selector test
//	test       = ("==" | "!=" | "contains" | "not" "contains") value | "is" ["not"] "empty"
//	selector   = "event_type" | "operation" | "data_path" | "namespace" | "source_plugin_mount" | "metadata." name
//	value      = a text in double quotes or backquotes, or a word of letters, digits and "/", "_", "-", "."
type Filter struct {
	source  string
	matches func(o *conclave.Occurrence) bool
}

// Limits of a filter.
const (
	maxFilter      = 1024 // bytes
	maxFilterTests = 32
	maxFilterDepth = 16 // of parentheses and of "not"
)

// ParseFilter reads a filter; the empty text is none.
func ParseFilter(source string) (*Filter, error) {
	if strings.TrimSpace(source) == "" {
		return nil, nil
	}
	if len(source) > maxFilter {
		return nil, conclave.Errorf(conclave.Invalid, "a filter has at most %d bytes", maxFilter)
	}
	words, err := splitFilter(source)
	if err != nil {
		return nil, err
	}
	p := &filterParser{words: words}
	matches, err := p.expression(0)
	if err == nil && len(p.words) > 0 {
		err = errFilter("something follows the expression")
	}
	if err != nil {
		return nil, err
	}
	return &Filter{source, matches}, nil
}

// Matches reports whether the filter lets an event through.
func (f *Filter) Matches(o *conclave.Occurrence) bool { return f.matches(o) }

// String is the text that the filter was read from.
func (f *Filter) String() string { return f.source }

func errFilter(reason string) error { return conclave.Errorf(conclave.Invalid, "filter: %s", reason) }

// filterWord is a word of a filter. A quoted one is a value, whatever it says.
type filterWord struct {
	text   string
	quoted bool
}

func splitFilter(rest string) (words []filterWord, err error) {
	for {
		rest = strings.TrimLeft(rest, " \t\r\n")
		if rest == "" {
			return words, nil
		}
		n := 0
		for n < len(rest) && isWordByte(rest[n]) {
			n++
		}
		switch c := rest[0]; {
		case n > 0:
			words = append(words, filterWord{rest[:n], false})
		case c == '(' || c == ')':
			words, n = append(words, filterWord{rest[:1], false}), 1
		case strings.HasPrefix(rest, "==") || strings.HasPrefix(rest, "!="):
			words, n = append(words, filterWord{rest[:2], false}), 2
		case c == '"' || c == '`':
			quoted, failed := strconv.QuotedPrefix(rest)
			if failed != nil {
				return nil, errFilter("a text isn't closed")
			}
			text, failed := strconv.Unquote(quoted)
			if failed != nil {
				return nil, errFilter("malformed text")
			}
			words, n = append(words, filterWord{text, true}), len(quoted)
		default:
			return nil, errFilter("unexpected character at " + strconv.Quote(rest[:min(len(rest), 8)]))
		}
		rest = rest[n:]
	}
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/_-.", c) >= 0
}

type predicate = func(o *conclave.Occurrence) bool

type filterParser struct {
	words []filterWord // that are left
	tests int
}

// take removes the next word if it is this one.
func (p *filterParser) take(word string) bool {
	if len(p.words) == 0 || p.words[0].quoted || p.words[0].text != word {
		return false
	}
	p.words = p.words[1:]
	return true
}

func (p *filterParser) expression(depth int) (predicate, error) {
	return p.chain("or", func() (predicate, error) {
		return p.chain("and", func() (predicate, error) { return p.factor(depth) }, func(a, b predicate) predicate {
			return func(o *conclave.Occurrence) bool { return a(o) && b(o) }
		})
	}, func(a, b predicate) predicate {
		return func(o *conclave.Occurrence) bool { return a(o) || b(o) }
	})
}

// chain reads parts that are joined by a word.
func (p *filterParser) chain(word string, part func() (predicate, error), join func(a, b predicate) predicate) (predicate, error) {
	all, err := part()
	for err == nil && p.take(word) {
		var next predicate
		if next, err = part(); err == nil {
			all = join(all, next)
		}
	}
	return all, err
}

func (p *filterParser) factor(depth int) (predicate, error) {
	if depth == maxFilterDepth {
		return nil, errFilter("nested too deeply")
	}
	switch {
	case p.take("not"):
		inner, err := p.factor(depth + 1)
		return func(o *conclave.Occurrence) bool { return !inner(o) }, err
	case p.take("("):
		inner, err := p.expression(depth + 1)
		if err == nil && !p.take(")") {
			err = errFilter("a parenthesis isn't closed")
		}
		return inner, err
	}
	return p.test()
}

func (p *filterParser) test() (predicate, error) {
	if p.tests++; p.tests > maxFilterTests {
		return nil, errFilter("more than " + strconv.Itoa(maxFilterTests) + " tests")
	}
	if len(p.words) == 0 || p.words[0].quoted {
		return nil, errFilter("a selector is missing")
	}
	value := selectors(p.words[0].text)
	if value == nil {
		return nil, errFilter("unknown selector " + strconv.Quote(p.words[0].text))
	}
	p.words = p.words[1:]
	if p.take("is") {
		empty := !p.take("not")
		if !p.take("empty") {
			return nil, errFilter("is is followed by empty or not empty")
		}
		return func(o *conclave.Occurrence) bool { return (value(o) == "") == empty }, nil
	}
	compare, want := strings.Contains, true
	switch negated := p.take("not"); {
	case p.take("contains"):
		want = !negated
	case negated:
		return nil, errFilter("not is followed by contains here")
	case p.take("=="):
		compare = func(a, b string) bool { return a == b }
	case p.take("!="):
		compare = func(a, b string) bool { return a != b }
	default:
		return nil, errFilter("a selector is followed by ==, !=, contains, not contains, is empty or is not empty")
	}
	if len(p.words) == 0 {
		return nil, errFilter("a value is missing")
	}
	with := p.words[0]
	if !with.quoted && strings.ContainsAny(with.text, "()=!") {
		return nil, errFilter("a value is missing")
	}
	p.words = p.words[1:]
	return func(o *conclave.Occurrence) bool { return compare(value(o), with.text) == want }, nil
}

// selectors returns what a selector selects, nil if there is none of that name.
func selectors(name string) func(o *conclave.Occurrence) string {
	switch name {
	case "event_type":
		return func(o *conclave.Occurrence) string { return o.Type }
	case "operation":
		return operationOf
	case "data_path":
		return (*conclave.Occurrence).FullPath
	case "namespace":
		return func(o *conclave.Occurrence) string { return o.Namespace.Path }
	case "source_plugin_mount":
		return func(o *conclave.Occurrence) string {
			if o.Mount == nil {
				return ""
			}
			return o.Mount.Path
		}
	}
	key, ok := strings.CutPrefix(name, "metadata.")
	if !ok || key == "" {
		return nil
	}
	return func(o *conclave.Occurrence) string { return o.Metadata[key] }
}
