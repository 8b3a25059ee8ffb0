package policy

import (
	"cmp"
	"strings"
)

// pattern is a compiled pattern with wildcards.
type pattern struct {
	text     string   // as it was written
	literal  string   // what comes before the first wildcard
	segments []string // of a pattern with "+", nil otherwise; the last one without its "*"
	pluses   int
	glob     bool // ends in "*"
}

func checkPattern(text string) error {
	switch {
	case len(text) > MaxPattern:
		return valueError("too long")
	case text == "":
		return valueError("is empty")
	case strings.Contains(text, "+*"):
		return valueError("+* is not a pattern")
	}
	return checkTemplate(text)
}

func compilePattern(text string) pattern {
	p := pattern{text: text}
	bare, glob := strings.CutSuffix(text, "*")
	p.glob, p.literal = glob, bare
	offset := 0
	for segment := range strings.SplitSeq(bare, "/") {
		if segment == "+" {
			if p.pluses == 0 {
				p.literal = bare[:offset]
			}
			p.pluses++
		}
		offset += len(segment) + 1
	}
	if p.pluses > 0 {
		p.segments = strings.Split(bare, "/")
	}
	return p
}

func (p *pattern) exact() bool { return !p.glob && p.pluses == 0 }

// compare orders two patterns by priority, the lower one first.
func (p *pattern) compare(q *pattern) int {
	return cmp.Or(
		cmp.Compare(len(p.literal), len(q.literal)),
		cmp.Compare(rank(q.glob), rank(p.glob)),
		cmp.Compare(q.pluses, p.pluses),
		cmp.Compare(len(p.text), len(q.text)),
		strings.Compare(p.text, q.text))
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// matches reports whether a pattern with "+" matches path.
func (p *pattern) matches(path string) bool {
	if !strings.HasPrefix(path, p.literal) {
		return false
	}
	for i, segment := range p.segments {
		last := i == len(p.segments)-1
		if last && p.glob {
			return strings.HasPrefix(path, segment)
		}
		end := strings.IndexByte(path, '/')
		if last != (end < 0) {
			return false
		}
		have := path
		if !last {
			have, path = path[:end], path[end+1:]
		}
		if segment != "+" && segment != have {
			return false
		}
	}
	return true
}

// reaches reports whether the pattern can match a path strictly inside the directory dir, which ends in "/".
func (p *pattern) reaches(dir string) bool {
	if p.pluses == 0 {
		return len(p.literal) > len(dir) && strings.HasPrefix(p.literal, dir) ||
			p.glob && strings.HasPrefix(dir, p.literal)
	}
	for i, segment := range p.segments {
		have, rest, found := strings.Cut(dir, "/")
		if !found { // the whole of dir is matched, and there is more of the pattern
			return true
		}
		if segment != "+" && segment != have {
			return p.glob && i == len(p.segments)-1 && strings.HasPrefix(have, segment)
		}
		dir = rest
	}
	return p.glob
}
