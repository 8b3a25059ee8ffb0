package access

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/policy"
)

// maker makes random policies and paths in which patterns meet.
type maker struct{ *rand.Rand }

func (m maker) pick(from ...string) string { return from[m.IntN(len(from))] }

func (m maker) path(segments ...string) string {
	var parts []string
	for range 1 + m.IntN(3) {
		parts = append(parts, m.pick(segments...))
	}
	return strings.Join(parts, "/")
}

// rule is one line of a policy, as the naive model knows it.
type rule struct {
	pattern string
	caps    []string
}

func (m maker) rules() []rule {
	var rules []rule
	for range 1 + m.IntN(5) {
		pattern := m.path("a", "b", "ab", "+", "+") + m.pick("", "", "/", "*", "/*")
		if strings.HasSuffix(pattern, "+*") {
			continue
		}
		var caps []string
		for range m.IntN(4) {
			caps = append(caps, m.pick("create", "read", "update", "delete", "list", "scan", "patch", "sudo"))
		}
		if m.IntN(8) == 0 {
			caps = append(caps, "deny")
		}
		rules = append(rules, rule{pattern, caps})
	}
	return rules
}

func text(rules []rule) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, "path %q { capabilities = [", r.pattern)
		for _, c := range r.caps {
			fmt.Fprintf(&b, "%q,", c)
		}
		b.WriteString("] }\n")
	}
	return b.String()
}

// covers reports whether a pattern matches a path, segment by segment.
func covers(pattern, path string) bool {
	bare, glob := strings.CutSuffix(pattern, "*")
	want, have := strings.Split(bare, "/"), strings.Split(path, "/")
	if len(want) > len(have) || !glob && len(want) != len(have) {
		return false
	}
	for i, w := range want {
		switch {
		case glob && i == len(want)-1:
			return strings.HasPrefix(have[i], w)
		case w != "+" && w != have[i]:
			return false
		}
	}
	return true
}

// rank orders patterns as Vault documents it: the higher one decides. It is text that compares by bytes.
func rank(pattern string) string {
	first := len(pattern)
	segments := strings.Split(pattern, "/")
	pluses := 0
	for i, segment := range segments {
		if segment == "+" {
			pluses++
			if at := len(strings.Join(segments[:i], "/")); pluses == 1 {
				first = at + min(i, 1)
			}
		}
	}
	glob := strings.HasSuffix(pattern, "*")
	if glob && pluses == 0 {
		first--
	}
	if !glob && pluses == 0 {
		first = 9999
	}
	return fmt.Sprintf("%04d %v %04d %04d %s", first, map[bool]int{true: 0, false: 1}[glob], 9999-pluses, len(pattern), pattern)
}

// naive finds what the rules of highest rank that cover a path say together: nil if there are none.
func naive(rules []rule, path string) (caps []string, best string) {
	for _, r := range rules {
		if covers(r.pattern, path) && (best == "" || rank(r.pattern) > rank(best)) {
			best = r.pattern
		}
	}
	for _, r := range rules {
		if r.pattern == best {
			caps = append(caps, r.caps...)
		}
	}
	return caps, best
}

func grants(caps []string, op string) bool {
	return slices.Contains(caps, op) && !slices.Contains(caps, "deny")
}

// naiveList is naive for LIST and SCAN, which are asked of a directory in two spellings.
func naiveList(rules []rule, path, op string) bool {
	bare := strings.TrimSuffix(path, "/")
	for _, spelling := range []string{bare + "/", bare} {
		if caps, best := naive(rules, spelling); best == spelling {
			return grants(caps, op)
		}
	}
	inner, innerBest := naive(rules, bare+"/")
	outer, outerBest := naive(rules, bare)
	switch {
	case slices.Contains(inner, "deny") || slices.Contains(outer, "deny"):
		return false
	case outerBest == "" || innerBest != "" && rank(innerBest) > rank(outerBest):
		return grants(inner, op)
	}
	return grants(outer, op)
}

// TestCapabilitiesAreWhatIsEnforced holds, over random policies, paths and operations, what is answered about
// capabilities against the decision that requests get, and that against a naive model.
func TestCapabilitiesAreWhatIsEnforced(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(9, 26))}
	sets, cache := 10_000, policy.NewCache()
	if testing.Short() {
		sets = 1000
	}
	view := enginetest.NewMemory(t)
	allowed := 0
	for set := range sets {
		var all []rule
		var names []string
		for n := range 1 + m.IntN(3) {
			name, rules := fmt.Sprintf("p%d-%d", set, n), m.rules()
			p, err := policy.Parse(name, text(rules))
			if err != nil {
				t.Fatal(err)
			}
			if err := policy.Store(view, p); err != nil {
				t.Fatal(err)
			}
			all, names = append(all, rules...), append(names, name)
		}
		prefix := m.pick("", "", "a/", "b/ab/")
		acl, err := cache.ACL(view, names)
		if err != nil {
			t.Fatal(err)
		}
		grant := &policy.Grant{ACL: acl, Prefix: prefix}
		shown := rebuilt(t, view, grant)
		for range 4 {
			path := m.path("a", "b", "ab")
			listed := answered(t, grant, path)
			if got := shown.Capabilities(prefix + path); !slices.Equal(got, listed) {
				t.Fatalf("%s\nresultant-acl means %v on %q, capabilities %v", text(all), got, prefix+path, listed)
			}
			if touched := grant.Touches(path + "/"); !touched && !slices.Equal(answered(t, grant, path+"/x"), []string{"deny"}) {
				t.Fatalf("%s\nthere is nothing below %q, but x", text(all), path)
			}
			sudo := false
			for op := conclave.Read; op <= conclave.Scan; op++ {
				d := grant.Allows(policy.Check{Path: path, Operation: op})
				want := false
				if op == conclave.List || op == conclave.Scan {
					want = naiveList(all, prefix+path, op.String())
				} else {
					caps, _ := naive(all, prefix+path)
					want = grants(caps, op.String())
				}
				if d.Allowed != want || slices.Contains(listed, op.String()) != want {
					t.Fatalf("%s\n%v %q: enforced %v by %q, capabilities %v, want %v", text(all), op, prefix+path, d.Allowed, d.Pattern, listed, want)
				}
				if with := grant.Allows(policy.Check{Path: path, Operation: op, Sudo: true}); with.Allowed != (d.Allowed && d.Sudo) {
					t.Fatalf("%s\n%v %q with sudo: %+v", text(all), op, prefix+path, with)
				}
				sudo = sudo || d.Sudo && d.Reason != policy.Denies
				if d.Allowed {
					allowed++
				}
			}
			if slices.Contains(listed, "sudo") != sudo {
				t.Fatalf("%s\nsudo on %q: capabilities %v, enforced %v", text(all), prefix+path, listed, sudo)
			}
		}
		view.Rollback()
	}
	if allowed < sets {
		t.Errorf("only %d checks were allowed: the test shows nothing", allowed)
	}
}

// answered is what sys/capabilities-self answers for a path.
func answered(t *testing.T, grant *policy.Grant, path string) []string {
	t.Helper()
	q := &Question{Paths: []string{path}}
	resp, err := q.answer(grant)
	if err != nil {
		t.Fatal(err)
	}
	list, _ := resp.Data.(map[string]any)[path].([]string)
	return list
}

// rebuilt is an ACL of what resultant-acl answers.
func rebuilt(t *testing.T, view conclave.View, grant *policy.Grant) *policy.ACL {
	t.Helper()
	out, err := resultant(policy.WithGrant(t.Context(), grant), view, nil)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	var answer Resultant
	if err := json.Unmarshal(encoded, &answer); err != nil {
		t.Fatal(err)
	}
	var rules []rule
	for path, r := range answer.Exact {
		rules = append(rules, rule{path, r.Capabilities})
	}
	for path, r := range answer.Glob {
		if !slices.Contains(strings.Split(strings.TrimSuffix(path, "*"), "/"), "+") {
			path += "*"
		}
		rules = append(rules, rule{path, r.Capabilities})
	}
	p, err := policy.Parse("rebuilt", text(rules))
	if err != nil {
		t.Fatal(err)
	}
	return policy.Compile(p)
}

func TestResultantOfRootAndLimits(t *testing.T) {
	root := &policy.Policy{Name: policy.Root}
	view := enginetest.NewMemory(t)
	ask := func(acl *policy.ACL) string {
		out, err := resultant(policy.WithGrant(context.Background(), &policy.Grant{ACL: acl}), view, nil)
		if err != nil {
			t.Fatal(err)
		}
		encoded, _ := json.Marshal(out)
		return string(encoded)
	}
	if got := ask(policy.Compile(root)); got != `{"root":true}` {
		t.Errorf("root: %s", got)
	}
	p, err := policy.Parse("p", `
path "a" { capabilities = ["update"] required_parameters = ["x"] allowed_parameters = { "x" = ["1"] } max_wrapping_ttl = "1m" }
path "+/b*" { capabilities = ["list"] pagination_limit = 10 }
path "none" { capabilities = [] }`)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"root":false,"exact_paths":{"a":{"capabilities":["update"],"required_parameters":["x"],"allowed_parameters":{"x":["1"]},"max_wrapping_ttl":60},` +
		`"none":{"capabilities":[]}},"glob_paths":{"+/b*":{"capabilities":["list"],"pagination_limit":10}}}`
	if got := ask(policy.Compile(p)); got != want {
		t.Errorf("limits: %s, want %s", got, want)
	}
}
