package policy

import (
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	"conclave"
)

// Change is what differs between two ACLs on the paths that an example stands for.
type Change struct {
	Path   string   `json:"path"`   // an example
	Before string   `json:"before"` // the pattern that decided, empty for none
	After  string   `json:"after"`  // the pattern that decides now, empty for none
	Rules  []string `json:"rules"`  // where that is written, as policy:line; of the one before if there is none now
	Gained []string `json:"gained"` // capabilities
	Lost   []string `json:"lost"`
	// Denied says that a rule denies now, whatever other policies grant by the same pattern; Undenied that none does any more.
	Denied   bool `json:"denied"`
	Undenied bool `json:"undenied"`
	// Limits says that what both grant is under other limits: parameters, wrapping, pages.
	Limits bool `json:"limits"`
}

// Limits of a comparison.
const (
	maxComparedPairs = 1 << 18 // of patterns that may overlap
	maxExampleDepth  = 3       // segments that stand for "*"
)

// Compare finds what changes from one ACL to another, each with an example: whatever paths there are, one with the same
// change is among the examples. complete is false if there are too many patterns to look at all that overlap. Neither may
// be root's.
func Compare(before, after *ACL) (changes []Change, complete bool) {
	x := newExamples(before, after)
	found, plain := map[string]Change{}, map[string]bool{}
	for path, own := range x.paths() {
		c, differs := compareAt(before, after, path)
		if !differs {
			continue
		}
		// The simplest example is one of a pattern alone, then a short one.
		key := strings.Join(slices.Concat([]string{c.Before, c.After}, c.Gained, []string{"|"}, c.Lost), "\x00")
		old, known := found[key]
		shorter := len(path) < len(old.Path) || len(path) == len(old.Path) && path < old.Path
		if !known || own && !plain[key] || own == plain[key] && shorter {
			found[key], plain[key] = c, own
		}
	}
	changes = slices.SortedFunc(maps.Values(found), func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return changes, x.complete
}

// operationsOn are those that a request can ask for on a path: of a directory, its listings.
func operationsOn(path string) []conclave.Operation {
	if strings.HasSuffix(path, "/") {
		return []conclave.Operation{conclave.List, conclave.Scan}
	}
	return []conclave.Operation{conclave.Read, conclave.Create, conclave.Update, conclave.Patch, conclave.Delete}
}

// compareAt compares on one path.
func compareAt(before, after *ACL, path string) (c Change, differs bool) {
	c = Change{Path: path, Gained: []string{}, Lost: []string{}, Rules: []string{}}
	var old, now Capability
	var was, is *rule // of the first operation that differs
	for _, op := range operationsOn(path) {
		x, y := before.rule(path, op), after.rule(path, op)
		had, has := x.grants(op), y.grants(op)
		old, now = old|had, now|has
		denied, denies := x != nil && x.denies(), y != nil && y.denies()
		c.Denied, c.Undenied = c.Denied || denies && !denied, c.Undenied || denied && !denies
		limits := had&has != 0 && !sameLimits(&x.limits, &y.limits)
		c.Limits = c.Limits || limits
		if had != has || denied != denies || limits {
			if was == nil && is == nil {
				was, is = x, y
			}
			differs = true
		}
	}
	c.Gained, c.Lost = append(c.Gained, (now&^old).Names()...), append(c.Lost, (old&^now).Names()...)
	decides := is
	if was != nil {
		c.Before = was.text
	}
	if is != nil {
		c.After = is.text
	} else {
		decides = was
	}
	if decides != nil {
		for _, source := range decides.sources[:min(len(decides.sources), maxAnswerRules)] {
			c.Rules = append(c.Rules, source.String())
		}
	}
	return c, differs
}

// grants is what a rule, which may be nil, gives for an operation: its capability, and sudo with that. Events are known
// where something can be read.
func (r *rule) grants(op conclave.Operation) Capability {
	if r == nil || r.denies() {
		return 0
	}
	var bits Capability
	if op == conclave.Read {
		bits = r.capabilities & CanSubscribe
	}
	if r.capabilities&operationBits[op] != 0 {
		bits |= r.capabilities & (operationBits[op] | CanSudo)
	}
	return bits
}

func sameLimits(a, b *Limits) bool {
	same := func(x, y map[string][]string) bool {
		return maps.EqualFunc(x, y, func(v, w []string) bool { return slices.Equal(v, w) })
	}
	return slices.Equal(a.Required, b.Required) && same(a.Allowed, b.Allowed) && same(a.Denied, b.Denied) &&
		a.MinWrap == b.MinWrap && a.MaxWrap == b.MaxWrap && a.PageLimit == b.PageLimit &&
		slices.Equal(a.Events, b.Events)
}

// examples makes paths on which two ACLs must differ if they differ anywhere. Where one pattern decides before and
// another after, both match; the path that both match and that has nothing else in common with any pattern is matched by
// those alone that match all that both do, so the same two decide there.
type examples struct {
	word     string // stands for what wildcards match
	patterns []pattern
	changed  []bool // the pattern's rule isn't the same in both
	complete bool
}

func newExamples(before, after *ACL) *examples {
	x := &examples{complete: true}
	old, now := before.byText(), after.byText()
	texts := maps.Clone(old)
	maps.Copy(texts, now)
	for _, text := range slices.Sorted(maps.Keys(texts)) {
		x.patterns = append(x.patterns, compilePattern(text))
		a, b := old[text], now[text]
		x.changed = append(x.changed, a == nil || b == nil || a.capabilities != b.capabilities || !reflect.DeepEqual(a.limits, b.limits))
	}
	x.word, x.complete = freshWord(x.patterns)
	return x
}

// freshWord is what no pattern matches but by a wildcard, alone or after any text: it begins with a character that none
// has.
func freshWord(patterns []pattern) (word string, ok bool) {
	for _, c := range "exyzqkjwvEXYZQKJWV0123456789~^%$" {
		if !slices.ContainsFunc(patterns, func(p pattern) bool { return strings.ContainsRune(p.text, c) }) {
			return strings.TrimPrefix(string(c)+"-example", "e-"), true
		}
	}
	return "~example", false
}

func (a *ACL) byText() map[string]*rule {
	all := make(map[string]*rule, len(a.exact)+len(a.prefixes)+len(a.segments))
	for _, table := range []map[string]*rule{a.exact, a.prefixes} {
		for _, r := range table {
			all[r.text] = r
		}
	}
	for _, r := range a.segments {
		all[r.text] = r
	}
	return all
}

// paths yields the examples of each changed pattern with every other, and whether they are of the pattern alone; some more
// than once.
func (x *examples) paths() iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		pairs := 0
		for i := range x.patterns {
			if !x.changed[i] {
				continue
			}
			for j := range x.patterns {
				if pairs++; pairs > maxComparedPairs {
					x.complete = false
					return
				}
				for _, path := range x.spellings(&x.patterns[i], &x.patterns[j]) {
					if !yield(path, i == j) {
						return
					}
				}
			}
		}
	}
}

// spellings are the examples of two patterns, of which LIST may find one by a path and the other by the path with a slash.
func (x *examples) spellings(p, q *pattern) []string {
	paths := slices.Concat(x.common(p, q), x.common(slashed(p), q), x.common(p, slashed(q)))
	for _, path := range paths {
		if bare, ended := strings.CutSuffix(path, "/"); ended {
			paths = append(paths, bare)
		} else {
			paths = append(paths, path+"/")
		}
	}
	return paths
}

// slashed is the pattern of the same path as a directory.
func slashed(p *pattern) *pattern {
	if p.glob || strings.HasSuffix(p.text, "/") {
		return p
	}
	dir := compilePattern(p.text + "/")
	return &dir
}

// common makes paths that two patterns match, as different from all others as can be: none if nothing matches both.
func (x *examples) common(p, q *pattern) []string {
	ps, qs := segmentsOf(p), segmentsOf(q)
	n := max(len(ps), len(qs))
	if !p.glob && len(ps) != n || !q.glob && len(qs) != n {
		return nil
	}
	parts := make([]string, n)
	for i := range parts {
		text, ok := x.meet(partOf(p, ps, i), partOf(q, qs, i))
		if !ok {
			return nil
		}
		parts[i] = text
	}
	path := strings.Join(parts, "/")
	paths := []string{path}
	if p.glob && q.glob {
		for range maxExampleDepth - 1 {
			path += "/" + x.word
			paths = append(paths, path)
		}
	}
	if dir, ended := strings.CutSuffix(paths[0], "/"+x.word); ended {
		paths = append(paths, dir+"/") // the directory itself, to be listed
	}
	return paths
}

func segmentsOf(p *pattern) []string { return strings.Split(strings.TrimSuffix(p.text, "*"), "/") }

// part is what a pattern says about one segment: it is text, or begins with it.
type part struct {
	text   string
	begins bool
}

func partOf(p *pattern, segments []string, i int) part {
	switch {
	case i >= len(segments):
		return part{"", true}
	case p.glob && i == len(segments)-1:
		return part{segments[i], true}
	case segments[i] == "+":
		return part{"", true}
	}
	return part{segments[i], false}
}

// meet makes a segment of which two parts are true.
func (x *examples) meet(a, b part) (string, bool) {
	if len(a.text) < len(b.text) {
		a, b = b, a
	}
	switch { // a is the longer
	case !b.begins && (a.begins || a.text != b.text):
		return b.text, b.text == a.text
	case !strings.HasPrefix(a.text, b.text):
		return "", false
	case a.begins:
		return a.text + x.word, true
	}
	return a.text, true
}
