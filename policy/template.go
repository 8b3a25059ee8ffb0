package policy

import "strings"

// Resolver gives the values of identity templates for one caller.
type Resolver interface {
	// Resolve returns the value of a template such as "identity.entity.name", and whether there is one.
	Resolve(template string) (string, bool)
}

const (
	templateOpen  = "{{"
	templateClose = "}}"
)

// checkTemplate refuses templates that nothing could ever resolve.
func checkTemplate(text string) error {
	for {
		_, rest, found := strings.Cut(text, templateOpen)
		if !found {
			return nil
		}
		name, after, closed := strings.Cut(rest, templateClose)
		if !closed {
			return valueError("a template is not closed")
		}
		if !strings.HasPrefix(strings.TrimSpace(name), "identity.") {
			return valueError("a template must begin with identity.")
		}
		text = after
	}
}

// resolve puts values for the templates of a pattern. A value must be one plain segment: if it is absent, empty or holds
// a slash or a wildcard, a rule that grants matches nothing (ok is false), and a rule that denies does so for every
// value of the segment, so that no crafted name can undo a denial.
func resolve(text string, deny bool, resolver Resolver) (resolved string, ok bool) {
	if !strings.Contains(text, templateOpen) {
		return text, true
	}
	var out strings.Builder
	for i, segment := range strings.Split(hideSlashes(text), "/") {
		if i > 0 {
			out.WriteByte('/')
		}
		value, ok := resolveSegment(segment, resolver)
		if !ok && !deny {
			return "", false
		}
		if !ok {
			// A trailing "*" goes on after the segment; it can't follow "+" directly, but "prefix*" covers it.
			if strings.HasSuffix(segment, "*") {
				out.WriteByte('*')
				return out.String(), true
			}
			value = "+"
		}
		out.WriteString(value)
	}
	return out.String(), true
}

// hideSlashes takes slashes inside templates away: no template name has one, so such a template has no value.
func hideSlashes(text string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, templateOpen)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, after, _ := strings.Cut(rest, templateClose)
		out.WriteString(templateOpen + strings.ReplaceAll(name, "/", "\x00") + templateClose)
		text = after
	}
}

func resolveSegment(segment string, resolver Resolver) (string, bool) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(segment, templateOpen)
		out.WriteString(before)
		if !found {
			return out.String(), true
		}
		name, after, _ := strings.Cut(rest, templateClose)
		if resolver == nil {
			return "", false
		}
		value, ok := resolver.Resolve(strings.TrimSpace(name))
		if !ok || value == "" || value == "." || value == ".." || strings.ContainsAny(value, "/*+{}\x00") {
			return "", false
		}
		out.WriteString(value)
		segment = after
	}
}
