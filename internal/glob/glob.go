// Package glob matches names against patterns in which a star stands for any text, the empty one and slashes included.
// No other character is special. It is what Vault means by a glob in the roles of its auth methods.
package glob

import "strings"

// Match reports whether text matches pattern. It takes time in proportion to len(text) for each star.
func Match(pattern, text string) bool {
	first, rest, starred := strings.Cut(pattern, "*")
	if !starred {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(text, part)
		}
		_, text, ok = strings.Cut(text, part)
		if !ok {
			return false
		}
		rest = after
	}
}

// MatchAny reports whether text matches one of patterns.
func MatchAny(patterns []string, text string) bool {
	for _, pattern := range patterns {
		if Match(pattern, text) {
			return true
		}
	}
	return false
}
