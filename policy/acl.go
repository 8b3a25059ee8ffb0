package policy

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"conclave"
	"conclave/internal/glob"
)

// ACL is what a set of policies allows. It is immutable and safe for concurrent use.
type ACL struct {
	root bool
	// exact maps path → its rule; prefixes maps the part before "*" → its rule.
	exact, prefixes map[string]*rule
	// lengths of the keys of prefixes, longest first, each once.
	lengths []int
	// segments are the rules with "+", highest priority first.
	segments []*rule
}

// rule is the merged rule of one pattern.
type rule struct {
	pattern
	capabilities Capability
	limits       Limits
	sources      []Source
}

// Source is where a rule was written.
type Source struct {
	Policy string
	Line   int // in the policy's text
}

// String is the source as "policy:line".
func (s Source) String() string { return s.Policy + ":" + strconv.Itoa(s.Line) }

func (r *rule) denies() bool { return r.capabilities&Deny != 0 }

// Compile merges policies into one ACL. Rules with identity templates are resolved as for a caller without identity:
// those that grant match nothing, those that deny do so for every value. Nil policies are passed over.
func Compile(policies ...*Policy) *ACL { return CompileFor(nil, policies...) }

// CompileFor is Compile with the identity of a caller; resolver may be nil.
func CompileFor(resolver Resolver, policies ...*Policy) *ACL {
	a := &ACL{exact: map[string]*rule{}, prefixes: map[string]*rule{}}
	segments := map[string]*rule{}
	for _, p := range policies {
		if p == nil {
			continue
		}
		if p.Name == Root {
			return &ACL{root: true}
		}
		for i := range p.Rules {
			from := &p.Rules[i]
			text, ok := resolve(from.Pattern, from.Capabilities&Deny != 0, resolver)
			if !ok {
				continue
			}
			compiled := compilePattern(text)
			table, key := segments, text
			switch {
			case compiled.exact():
				table = a.exact
			case compiled.pluses == 0:
				table, key = a.prefixes, compiled.literal
			}
			into := table[key]
			if into == nil {
				into = &rule{pattern: compiled}
				table[key] = into
			}
			into.merge(p.Name, from)
		}
	}
	for prefix := range a.prefixes {
		a.lengths = append(a.lengths, len(prefix))
	}
	slices.Sort(a.lengths)
	a.lengths = slices.Compact(a.lengths)
	slices.Reverse(a.lengths)
	for _, r := range segments {
		a.segments = append(a.segments, r)
	}
	slices.SortFunc(a.segments, func(x, y *rule) int { return y.compare(&x.pattern) })
	return a
}

// merge adds what one policy says: capabilities add up, deny wins, of lifetimes and page limits the lowest given
// holds, of parameters the values add up and "any value" wins.
func (r *rule) merge(policy string, from *Rule) {
	denies := from.Capabilities&Deny != 0
	switch {
	case r.denies() && !denies:
		return
	case denies && !r.denies():
		r.capabilities, r.limits, r.sources = Deny, Limits{}, nil
	}
	r.sources = append(r.sources, Source{policy, from.Line})
	if denies {
		return
	}
	r.capabilities |= from.Capabilities
	l := &r.limits
	for _, name := range from.Limits.Required {
		if !slices.Contains(l.Required, name) {
			l.Required = append(l.Required, name)
		}
	}
	l.Allowed = mergeParameters(l.Allowed, from.Limits.Allowed)
	l.Denied = mergeParameters(l.Denied, from.Limits.Denied)
	l.MinWrap = lowest(l.MinWrap, from.Limits.MinWrap)
	l.MaxWrap = lowest(l.MaxWrap, from.Limits.MaxWrap)
	l.PageLimit = lowest(l.PageLimit, from.Limits.PageLimit)
	if from.Capabilities&CanSubscribe != 0 { // types that one policy names don't widen what another one grants
		for _, text := range from.Limits.Events {
			if !slices.Contains(l.Events, text) {
				l.Events = append(l.Events, text)
			}
		}
	}
}

func lowest[N int | time.Duration](have, given N) N {
	if have == 0 || given > 0 && given < have {
		return given
	}
	return have
}

func mergeParameters(have, given map[string][]string) map[string][]string {
	if len(given) == 0 {
		return have
	}
	if have == nil {
		have = make(map[string][]string, len(given))
	}
	for field, values := range given {
		old, known := have[field]
		if len(values) == 0 || known && len(old) == 0 {
			have[field] = []string{}
			continue
		}
		have[field] = append(slices.Clip(old), values...)
	}
	return have
}

// Check is a question to an ACL.
type Check struct {
	// Path is canonical, without the namespace. For List and Scan a trailing slash may be missing.
	Path      string
	Operation conclave.Operation
	// Sudo asks for the capability sudo as well.
	Sudo    bool
	Fields  map[string]any
	WrapTTL time.Duration
}

// Needs are the capabilities that pass the check, where a rule has no other limits.
func (c *Check) Needs() Capability {
	var bits Capability
	if int(c.Operation) < len(operationBits) {
		bits = operationBits[c.Operation]
	}
	if c.Sudo {
		bits |= CanSudo
	}
	return bits
}

// Reason says why a check failed.
type Reason uint8

// The reasons; the zero Reason is that nothing is wrong.
const (
	Granted      Reason = iota
	NoRule              // no rule matches the path
	Denies              // the rule that decides says deny
	NoCapability        // the rule that decides lacks the capability
	Field               // a field that the rule names is missing, denied, or has a value that isn't allowed
	Unlisted            // a field is not among those that are allowed
	WrapTTL             // the answer must be wrapped, for a time within bounds
	PageLimit           // the page that is asked for is too large
)

var reasonNames = [...]string{"granted", "no rule matches the path", "a rule denies it", "the rule lacks the capability",
	"a field is missing, or its value not allowed", "a field is not among those allowed", "the wrapping TTL is missing or out of bounds", "the limit exceeds the pagination limit"}

// reasonCodes are the reasons as records and answers spell them.
var reasonCodes = [...]string{"", "no_rule", "denied", "capability", "field", "unlisted_field", "wrap_ttl", "page_limit"}

// String says it in words.
func (r Reason) String() string { return reasonNames[r] }

// Code is the reason in one word, for machines; empty if nothing is wrong.
func (r Reason) Code() string { return reasonCodes[r] }

// ReasonOf is the reason with a code; ok says whether there is one.
func ReasonOf(code string) (r Reason, ok bool) {
	i := slices.Index(reasonCodes[:], code)
	return Reason(max(i, 0)), i > 0
}

// Decision is the answer to a check.
type Decision struct {
	Allowed bool
	Root    bool // by the policy root
	Sudo    bool // the rule that decides has sudo
	// Needed is the capability that the operation needs.
	Needed Capability
	Reason Reason
	// Pattern and Sources name the rule that decided, and where in which policies it was written; empty if there is none.
	// They must not be changed.
	Pattern string
	Sources []Source
	// Field is the field that failed: as the rule names it, or as the request does if it isn't listed.
	Field string
	// PageLimit, if positive, is the largest page of a LIST or SCAN: a request without a limit gets this one.
	PageLimit int
}

// Allows decides.
func (a *ACL) Allows(check Check) Decision {
	d := Decision{}
	if int(check.Operation) < len(operationBits) {
		d.Needed = operationBits[check.Operation]
	}
	if a.root {
		d.Allowed, d.Root, d.Sudo = true, true, true
		return d
	}
	r := a.rule(check.Path, check.Operation)
	if r == nil {
		d.Reason = NoRule
		return d
	}
	d.Pattern, d.Sources, d.Sudo = r.text, r.sources, r.capabilities&CanSudo != 0
	switch {
	case r.denies():
		d.Reason = Denies
		return d
	case d.Needed == 0 || r.capabilities&d.Needed == 0:
		d.Reason = NoCapability
		return d
	case check.Sudo && !d.Sudo:
		d.Needed, d.Reason = CanSudo, NoCapability
		return d
	}
	d.Reason, d.Field = r.limits.check(&check)
	d.Allowed = d.Reason == Granted
	if d.Needed&(CanList|CanScan) != 0 {
		d.PageLimit = r.limits.PageLimit
	}
	return d
}

// Capabilities lists what may be done on a path, alphabetically: ["root"] for root, ["deny"] for nothing.
func (a *ACL) Capabilities(path string) []string {
	if a.root {
		return []string{Root}
	}
	var bits Capability
	for op := conclave.Read; op <= conclave.Scan; op++ {
		if r := a.rule(path, op); r != nil && !r.denies() {
			bits |= r.capabilities & (operationBits[op] | CanSudo)
		}
	}
	if r := a.rule(path, conclave.Read); r != nil && !r.denies() {
		bits |= r.capabilities & CanSubscribe
	}
	if bits == 0 {
		bits = Deny
	}
	return bits.Names()
}

// Sees reports whether events of a type about a path may be known: whoever may read what is there may know that it
// changed, and so may whoever has the capability subscribe there for the type.
func (a *ACL) Sees(path, eventType string) bool {
	if a.Allows(Check{Path: path, Operation: conclave.Read}).Allowed {
		return true
	}
	r := a.rule(path, conclave.Read)
	return r != nil && !r.denies() && r.capabilities&CanSubscribe != 0 && glob.MatchAny(r.limits.Events, eventType)
}

// Touches reports whether anything is granted on a mount's path or below it; mount ends in "/".
func (a *ACL) Touches(mount string) bool {
	if a.root {
		return true
	}
	grants := func(r *rule) bool { return r != nil && !r.denies() && r.capabilities != 0 }
	if grants(a.best(mount)) || grants(a.covering(mount)) {
		return true
	}
	for path, r := range a.exact {
		if grants(r) && (strings.HasPrefix(path, mount) || path+"/" == mount) {
			return true
		}
	}
	for prefix, r := range a.prefixes {
		if grants(r) && len(prefix) > len(mount) && strings.HasPrefix(prefix, mount) {
			return true
		}
	}
	return slices.ContainsFunc(a.segments, func(r *rule) bool {
		return grants(r) && r.reaches(mount) && !a.overruled(r, mount)
	})
}

// overruled reports whether a denial of everything under mount comes before a rule with "+".
func (a *ACL) overruled(r *rule, mount string) bool {
	best := a.covering(mount)
	return best != nil && best.denies() && best.compare(&r.pattern) > 0
}

// covering finds the rule that decides what is below a directory where no other rule does: of those that match all that
// is there, the one of highest priority.
func (a *ACL) covering(dir string) *rule {
	found := a.prefix(dir)
	for _, r := range a.segments {
		if r.glob && r.matches(dir) && (found == nil || found.compare(&r.pattern) < 0) {
			return r
		}
	}
	return found
}

// rule finds the one rule that decides an operation on a path.
func (a *ACL) rule(path string, op conclave.Operation) *rule {
	if op != conclave.List && op != conclave.Scan {
		if r := a.exact[path]; r != nil {
			return r
		}
		return a.best(path)
	}
	bare, slashed := strings.CutSuffix(path, "/")
	dir := path
	if !slashed {
		dir = path + "/"
	}
	if r := a.exact[dir]; r != nil {
		return r
	}
	if r := a.exact[bare]; r != nil {
		return r
	}
	inner, outer := a.best(dir), a.best(bare)
	switch {
	case inner == nil || outer != nil && outer.denies():
		return outer
	case outer == nil || inner.denies() || inner.compare(&outer.pattern) > 0:
		return inner
	}
	return outer
}

// prefix finds the longest rule without "+" that ends in "*" and matches path.
func (a *ACL) prefix(path string) *rule {
	for _, n := range a.lengths {
		if n <= len(path) {
			if r := a.prefixes[path[:n]]; r != nil {
				return r
			}
		}
	}
	return nil
}

// best finds the rule with wildcards of highest priority.
func (a *ACL) best(path string) *rule {
	found := a.prefix(path)
	for _, r := range a.segments {
		if found != nil && found.compare(&r.pattern) > 0 {
			break
		}
		if r.matches(path) {
			return r
		}
	}
	return found
}

// Summary is what an ACL says about one pattern.
type Summary struct {
	Pattern      string // templates in it are resolved
	Capabilities Capability
	Limits       *Limits // must not be changed
	Sources      []Source
}

// Root reports whether the ACL allows everything.
func (a *ACL) Root() bool { return a.root }

// Summaries lists the merged rules, by pattern.
func (a *ACL) Summaries() []Summary {
	all := make([]Summary, 0, len(a.exact)+len(a.prefixes)+len(a.segments))
	add := func(r *rule) { all = append(all, Summary{r.text, r.capabilities, &r.limits, r.sources}) }
	for _, table := range []map[string]*rule{a.exact, a.prefixes} {
		for _, r := range table {
			add(r)
		}
	}
	for _, r := range a.segments {
		add(r)
	}
	slices.SortFunc(all, func(x, y Summary) int { return strings.Compare(x.Pattern, y.Pattern) })
	return all
}
