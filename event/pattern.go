package event

import (
	"strings"

	"conclave"
	"conclave/internal/glob"
)

// Limits of what a subscription asks for.
const (
	maxStars      = 8 // in one pattern
	maxNamespaces = 16
	maxNamespace  = 256  // bytes of a pattern of namespaces
	maxPathGlob   = 1024 // bytes
)

// Selection is which events a subscription or webhook is about.
type Selection struct {
	Types      string   // pattern of types; "*" stands for any text
	Namespace  string   // path of the namespace where it was made
	Namespaces []string // patterns of further namespaces below it, relative to it
	Paths      string   // pattern of what events are about, relative to their namespace; empty: anything
	Filter     *Filter  // nil: none
}

// Check reports what is wrong with a selection.
func (s *Selection) Check() error {
	if err := checkTypes(s.Types); err != nil {
		return err
	}
	if len(s.Namespaces) > maxNamespaces {
		return conclave.Errorf(conclave.Invalid, "more than %d patterns of namespaces", maxNamespaces)
	}
	for i, pattern := range s.Namespaces {
		pattern = strings.Trim(pattern, "/")
		if pattern == "" || len(pattern) > maxNamespace || strings.Count(pattern, "*") > maxStars {
			return conclave.Errorf(conclave.Invalid, "a pattern of namespaces has 1 to %d bytes and at most %d stars", maxNamespace, maxStars)
		}
		s.Namespaces[i] = pattern
	}
	if len(s.Paths) > maxPathGlob || strings.Count(s.Paths, "*") > maxStars {
		return conclave.Errorf(conclave.Invalid, "a pattern of paths has at most %d bytes and %d stars", maxPathGlob, maxStars)
	}
	return nil
}

// checkTypes refuses a pattern that no type can match.
func checkTypes(pattern string) error {
	bare := strings.ReplaceAll(pattern, "*", "x")
	if len(pattern) > conclave.MaxEventType || strings.Count(pattern, "*") > maxStars ||
		!strings.Contains(pattern, "*") && !conclave.IsEventType(pattern) || !conclave.IsEventType("x/"+bare) {
		return conclave.Errorf(conclave.Invalid, "a type of events is like kv-v2/data-write, with at most %d stars that stand for any text", maxStars)
	}
	return nil
}

// Matches reports whether an event is one of those.
func (s *Selection) Matches(o *conclave.Occurrence) bool {
	return glob.Match(s.Types, o.Type) && s.within(o.Namespace.Path) &&
		(s.Paths == "" || glob.Match(s.Paths, o.FullPath())) && (s.Filter == nil || s.Filter.Matches(o))
}

func (s *Selection) within(path string) bool {
	below, inside := strings.CutPrefix(path, s.Namespace)
	if !inside {
		return false
	}
	return below == "" || glob.MatchAny(s.Namespaces, strings.TrimSuffix(below, "/"))
}
