package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

func mustParse(t testing.TB, name, source string) *Policy {
	t.Helper()
	p, err := Parse(name, source)
	if err != nil {
		t.Fatalf("Parse(%q) = %v", source, err)
	}
	return p
}

// rules makes an ACL of lines such as `secret/* read list`.
func rules(t testing.TB, lines ...string) *ACL {
	t.Helper()
	return Compile(mustParse(t, "test", source(lines...)))
}

func source(lines ...string) string {
	var text strings.Builder
	for _, line := range lines {
		words := strings.Fields(line)
		fmt.Fprintf(&text, "path %q { capabilities = [", words[0])
		for _, word := range words[1:] {
			fmt.Fprintf(&text, "%q,", word)
		}
		text.WriteString("] }\n")
	}
	return text.String()
}

func TestPriorityIsAsDocumented(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
		path  string
		want  string // the pattern that decides
	}{
		{"exact beats prefix", []string{"secret/* read", "secret/foo read"}, "secret/foo", "secret/foo"},
		{"exact beats plus", []string{"secret/+ read", "secret/foo read"}, "secret/foo", "secret/foo"},
		{"longest prefix", []string{"secret/* read", "secret/team/* read", "* read"}, "secret/team/a", "secret/team/*"},
		{"earlier wildcard loses", []string{"secret/+/team read", "secret/a/* read"}, "secret/a/team", "secret/a/*"},
		{"glob loses at the same place", []string{"secret/* read", "secret/+/team read"}, "secret/a/team", "secret/+/team"},
		{"more pluses lose", []string{"secret/+/+/x read", "secret/+/b/x read"}, "secret/a/b/x", "secret/+/b/x"},
		{"shorter loses", []string{"secret/+/t* read", "secret/+/te* read"}, "secret/a/team", "secret/+/te*"},
		{"lexicographically smaller loses", []string{"secret/+/b/+ read", "secret/+/+/c read"}, "secret/a/b/c", "secret/+/b/+"},
		{"plus is one segment", []string{"secret/+ read"}, "secret/a/b", ""},
		{"plus matches within", []string{"secret/+/b read"}, "secret/a/c", ""},
		{"plus with glob", []string{"secret/+/b* read"}, "secret/a/bc/d", "secret/+/b*"},
		{"plus inside a segment is literal", []string{"secret/a+ read"}, "secret/ab", ""},
		{"star inside is literal", []string{"secret/*/b read"}, "secret/a/b", ""},
		{"prefix ends anywhere", []string{"secret/te* read"}, "secret/team", "secret/te*"},
		{"prefix needs its slash", []string{"secret/foo/* read"}, "secret/foo", ""},
		{"leading slash is dropped", []string{"/secret/foo read"}, "secret/foo", "secret/foo"},
		{"case matters", []string{"secret/foo read"}, "Secret/foo", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := rules(t, test.lines...).Allows(Check{Path: test.path, Operation: conclave.Read})
			if d.Pattern != test.want || d.Allowed != (test.want != "") {
				t.Errorf("%q is decided by %q (allowed %v), want %q", test.path, d.Pattern, d.Allowed, test.want)
			}
		})
	}
}

func TestListCantPassADenial(t *testing.T) {
	tests := []struct {
		lines []string
		path  string
		want  bool
	}{
		{[]string{"secret/* list"}, "secret/foo/", true},
		{[]string{"secret/* list", "secret/foo deny"}, "secret/foo/", false},
		{[]string{"secret/* list", "secret/foo/ deny"}, "secret/foo/", false},
		{[]string{"secret/* list", "secret/foo/* deny"}, "secret/foo/", false},
		{[]string{"secret/* list", "secret/foo* deny"}, "secret/foo/", false},
		{[]string{"secret/* list", "secret/+/config deny"}, "secret/a/config/", false},
		{[]string{"secret/* list", "secret/+ deny"}, "secret/a/", false},
		{[]string{"secret/* list", "secret/+/ deny"}, "secret/a/", false},
		{[]string{"secret/foo list"}, "secret/foo/", true},
		{[]string{"secret/foo/ list"}, "secret/foo/", true},
		{[]string{"secret/foo/ list"}, "secret/foo", true},
		{[]string{"secret/foo list"}, "secret/foo/bar/", false},
		{[]string{"secret/* read", "secret/foo/* list"}, "secret/foo/", true},
		{[]string{"secret/foo/* deny", "secret/* list"}, "secret/", true},
		{[]string{"secret/+/config list"}, "secret/a/config/", true},
	}
	for _, test := range tests {
		for _, op := range []conclave.Operation{conclave.List, conclave.Scan} {
			lines := slices.Clone(test.lines)
			for i := range lines {
				lines[i] = strings.ReplaceAll(lines[i], " list", " "+op.String())
			}
			acl := rules(t, lines...)
			if d := acl.Allows(Check{Path: test.path, Operation: op}); d.Allowed != test.want {
				t.Errorf("%v: %v %q = %v by %q, want %v", lines, op, test.path, d.Allowed, d.Pattern, test.want)
			}
		}
	}
}

func TestSamePatternInSeveralPoliciesIsMerged(t *testing.T) {
	a := mustParse(t, "a", `path "x/*" { capabilities = ["read"] allowed_parameters = {"k" = ["1"], "any" = []} min_wrapping_ttl = "5m" }`)
	b := mustParse(t, "b", `path "x/*" { capabilities = ["update"] allowed_parameters = {"k" = ["2"], "any" = ["z"]} min_wrapping_ttl = "1m" required_parameters = ["k"] }`)
	d := mustParse(t, "d", `path "x/*" { capabilities = ["deny", "read"] }`)
	acl := Compile(a, nil, b)
	if got := acl.Capabilities("x/1"); !slices.Equal(got, []string{"read", "update"}) {
		t.Errorf("capabilities = %v", got)
	}
	ask := func(acl *ACL, fields map[string]any) Decision {
		return acl.Allows(Check{Path: "x/1", Operation: conclave.Update, Fields: fields, WrapTTL: time.Minute})
	}
	for _, k := range []string{"1", "2"} {
		if got := ask(acl, map[string]any{"k": k, "any": "thing"}); !got.Allowed {
			t.Errorf("k=%s: %v %s", k, got.Reason, got.Field)
		}
	}
	if got := ask(acl, map[string]any{"k": "3"}); got.Allowed || got.Reason != Field || got.Field != "k" {
		t.Errorf("k=3: %+v", got)
	}
	if got := ask(acl, nil); got.Allowed {
		t.Error("a missing required field passed")
	}
	for _, set := range [][]*Policy{{a, b, d}, {d, a, b}, {a, d, b}} {
		acl := Compile(set...)
		if got := ask(acl, map[string]any{"k": "1"}); got.Allowed || got.Reason != Denies || !slices.Equal(got.Sources, []Source{{"d", 1}}) {
			t.Errorf("deny did not win: %+v", got)
		}
		if got := acl.Capabilities("x/1"); !slices.Equal(got, []string{"deny"}) {
			t.Errorf("capabilities = %v", got)
		}
	}
	if len(a.Rules[0].Limits.Allowed["k"]) != 1 {
		t.Error("compiling changed a policy")
	}
}

func TestParametersLimitARequest(t *testing.T) {
	acl := Compile(mustParse(t, "p", `
path "allow" { capabilities = ["update"] allowed_parameters = { "zip" = ["10*", "*99"], "n" = [5] } }
path "allow-others" { capabilities = ["update"] allowed_parameters = { "zip" = ["1"], "*" = [] } }
path "deny" { capabilities = ["update"] denied_parameters = { "policies" = ["root"], "force" = [] } }
path "deny-all" { capabilities = ["update", "delete"] denied_parameters = { "*" = [] } }
path "both" { capabilities = ["update"] allowed_parameters = { "*" = [] } denied_parameters = { "x" = [] } }`))
	tests := []struct {
		path   string
		fields map[string]any
		want   bool
	}{
		{"allow", map[string]any{"zip": "1000"}, true},
		{"allow", map[string]any{"ZIP": "1000"}, true},
		{"allow", map[string]any{"zip": "4599", "n": json.Number("5")}, true},
		{"allow", map[string]any{"n": json.Number("5.0")}, true},
		{"allow", map[string]any{"zip": "45"}, false},
		{"allow", map[string]any{"other": "1"}, false},
		{"allow", map[string]any{"zip": []any{"101", "102"}}, true},
		{"allow", map[string]any{"zip": []any{"101", "2"}}, false},
		{"allow", map[string]any{"zip": []any{}}, false},
		{"allow", nil, true},
		{"allow-others", map[string]any{"other": true, "zip": "1"}, true},
		{"allow-others", map[string]any{"zip": "2"}, false},
		{"deny", map[string]any{"policies": "default"}, true},
		{"deny", map[string]any{"policies": "root"}, false},
		{"deny", map[string]any{"Policies": "root"}, false},
		{"deny", map[string]any{"policies": []any{"default", "root"}}, false},
		{"deny", map[string]any{"policies": "default, root"}, false},
		{"deny", map[string]any{"force": nil}, false},
		{"deny-all", map[string]any{"a": "b"}, false},
		{"deny-all", nil, true},
		{"both", map[string]any{"y": "1"}, true},
		{"both", map[string]any{"y": "1", "x": "1"}, false},
	}
	for _, test := range tests {
		d := acl.Allows(Check{Path: test.path, Operation: conclave.Update, Fields: test.fields})
		if d.Allowed != test.want {
			t.Errorf("%s with %v = %v, want %v", test.path, test.fields, d.Allowed, test.want)
		}
	}
	if !acl.Allows(Check{Path: "deny-all", Operation: conclave.Delete, Fields: map[string]any{"a": "b"}}).Allowed {
		t.Error("parameters limited a delete")
	}
}

func TestWrappingAndPagesAreBounded(t *testing.T) {
	acl := Compile(mustParse(t, "p", `
path "w" { capabilities = ["read"] min_wrapping_ttl = 60 max_wrapping_ttl = "1h" }
path "l" { capabilities = ["list"] pagination_limit = 100 }
path "r" { capabilities = ["list"] pagination_limit = 100 required_parameters = ["limit"] }`))
	for ttl, want := range map[time.Duration]bool{0: false, time.Second: false, time.Minute: true, time.Hour: true, 2 * time.Hour: false} {
		if d := acl.Allows(Check{Path: "w", Operation: conclave.Read, WrapTTL: ttl}); d.Allowed != want {
			t.Errorf("wrapped for %v: %v, want %v", ttl, d.Allowed, want)
		}
	}
	limit := func(n string) map[string]any { return map[string]any{"limit": json.Number(n)} }
	for _, test := range []struct {
		path   string
		fields map[string]any
		want   bool
	}{{"l/", nil, true}, {"l/", limit("100"), true}, {"l/", limit("101"), false}, {"l/", limit("0"), false},
		{"l/", limit("-1"), false}, {"l/", map[string]any{"limit": "x"}, false}, {"r/", nil, false}, {"r/", limit("1"), true}} {
		d := acl.Allows(Check{Path: test.path, Operation: conclave.List, Fields: test.fields})
		if d.Allowed != test.want || d.PageLimit != 100 {
			t.Errorf("%s %v: %+v, want %v", test.path, test.fields, d, test.want)
		}
	}
}

func TestSudoIsAskedForSeparately(t *testing.T) {
	acl := rules(t, "sys/a update", "sys/b update sudo")
	for path, want := range map[string]bool{"sys/a": false, "sys/b": true} {
		d := acl.Allows(Check{Path: path, Operation: conclave.Update, Sudo: true})
		if d.Allowed != want {
			t.Errorf("%s = %+v, want %v", path, d, want)
		}
	}
}

func TestRootAllowsEverything(t *testing.T) {
	acl := Compile(mustParse(t, "a", source("* deny")), &Policy{Name: Root})
	d := acl.Allows(Check{Path: "sys/seal", Operation: conclave.Update, Sudo: true})
	if !d.Allowed || !d.Root || !d.Sudo || !slices.Equal(acl.Capabilities("x"), []string{"root"}) || !acl.Touches("x/") {
		t.Errorf("root: %+v", d)
	}
}

func TestNoPolicyAllowsNothing(t *testing.T) {
	d := Compile().Allows(Check{Path: "a", Operation: conclave.Read})
	if d.Allowed || d.Reason != NoRule || d.Needed != CanRead {
		t.Errorf("%+v", d)
	}
	if Compile(mustParse(t, "e", "")).Allows(Check{Path: "a"}).Allowed {
		t.Error("an empty policy and the zero operation were allowed")
	}
}

func TestTouches(t *testing.T) {
	tests := []struct {
		lines []string
		want  bool
	}{
		{[]string{"secret/foo read"}, true}, {[]string{"secret/* read"}, true}, {[]string{"* read"}, true},
		{[]string{"sec* read"}, true}, {[]string{"+/foo read"}, true}, {[]string{"secret read"}, true},
		{[]string{"secret/ list"}, true}, {[]string{"secret/+/x/y* read"}, true},
		{[]string{"secre read"}, false}, {[]string{"secret2/* read"}, false}, {[]string{"secret/* deny"}, false},
		{[]string{"secret/* deny", "* read"}, false}, {[]string{"other/+/x read"}, false}, {nil, false},
		{[]string{"sec* read", "secret/+"}, true}, {[]string{"secret/* deny", "secret/foo read"}, true}, {[]string{"secret/* deny", "+/foo read"}, false},
	}
	for _, test := range tests {
		if got := rules(t, test.lines...).Touches("secret/"); got != test.want {
			t.Errorf("%v touches secret/ = %v, want %v", test.lines, got, test.want)
		}
	}
}

type identity map[string]string

func (i identity) Resolve(name string) (string, bool) { v, ok := i[name]; return v, ok }

func TestTemplatesTakePlainValuesOnly(t *testing.T) {
	grant := mustParse(t, "g", source("secret/{{identity.entity.name}}/* read"))
	read := func(acl *ACL, path string) bool {
		return acl.Allows(Check{Path: path, Operation: conclave.Read}).Allowed
	}
	if !read(CompileFor(identity{"identity.entity.name": "ann"}, grant), "secret/ann/x") {
		t.Fatal("a plain value was not substituted")
	}
	if read(Compile(grant), "secret/{{identity.entity.name}}/x") || read(Compile(grant), "secret/ann/x") {
		t.Error("a template matched without identity")
	}
	for _, evil := range []string{"", "a/b", "*", "+", "a*", "..", "{{identity.entity.id}}"} {
		acl := CompileFor(identity{"identity.entity.name": evil}, grant)
		for _, path := range []string{"secret/" + evil + "/x", "secret/bob/x", "secret/a/b/x"} {
			if read(acl, path) {
				t.Errorf("the name %q opened %q", evil, path)
			}
		}
	}
}

func TestUnresolvedDenialDeniesAll(t *testing.T) {
	p := mustParse(t, "p", source("secret/* read", "secret/{{identity.entity.name}}/keys deny", "secret/x/{{identity.entity.id}}* deny"))
	for name, acl := range map[string]*ACL{"no identity": Compile(p), "crafted name": CompileFor(identity{"identity.entity.name": "a/b", "identity.entity.id": "*"}, p)} {
		for path, want := range map[string]bool{"secret/ann/keys": false, "secret/ann/other": true, "secret/x/1": false} {
			if got := acl.Allows(Check{Path: path, Operation: conclave.Read}).Allowed; got != want {
				t.Errorf("%s: read %s = %v, want %v", name, path, got, want)
			}
		}
	}
}

// TestCapabilitiesAgreeWithAllows over random policies, and both with a slow reading of the documentation.
func TestCapabilitiesAgreeWithAllows(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	segments := []string{"a", "b", "ab", "+", "+"}
	caps := []string{"create", "read", "update", "delete", "list", "scan", "patch", "sudo", "deny"}
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	allowed := 0
	for range 3000 {
		var policies []*Policy
		for n := range 1 + random.IntN(3) {
			var lines []string
			for range 1 + random.IntN(5) {
				var parts []string
				for range 1 + random.IntN(3) {
					parts = append(parts, pick(segments))
				}
				text := strings.Join(parts, "/") + pick([]string{"", "", "/", "*", "/*"})
				if strings.Contains(text, "+*") {
					continue
				}
				line := text
				for range random.IntN(4) {
					line += " " + pick(caps[:8+random.IntN(2)])
				}
				lines = append(lines, line)
			}
			policies = append(policies, mustParse(t, fmt.Sprint("p", n), source(lines...)))
		}
		acl := Compile(policies...)
		for range 10 {
			var parts []string
			for range 1 + random.IntN(3) {
				parts = append(parts, pick(segments[:3]))
			}
			path := strings.Join(parts, "/")
			listed := acl.Capabilities(path)
			for op := conclave.Read; op <= conclave.Scan; op++ {
				d := acl.Allows(Check{Path: path, Operation: op})
				if d.Allowed != slices.Contains(listed, op.String()) {
					t.Fatalf("%v %q = %v, capabilities %v", op, path, d.Allowed, listed)
				}
				if op != conclave.List && op != conclave.Scan {
					if want := slowly(policies, path, op); d.Allowed != want {
						t.Fatalf("%v %q = %v by %q, want %v", op, path, d.Allowed, d.Pattern, want)
					}
				}
				allowed += rank(d.Allowed)
			}
		}
	}
	if allowed < 1000 {
		t.Errorf("only %d checks were allowed: the test shows nothing", allowed)
	}
}

// slowly decides as the documentation words it, without any index.
func slowly(policies []*Policy, path string, op conclave.Operation) bool {
	var best *pattern
	var bits Capability
	for _, p := range policies {
		for _, r := range p.Rules {
			c := compilePattern(r.Pattern)
			if !matchSlowly(r.Pattern, path) {
				continue
			}
			better := best == nil || best.text != c.text && !best.exact() && (c.exact() || c.compare(best) > 0)
			if better {
				best, bits = &c, 0
			}
			if best.text == c.text {
				bits |= r.Capabilities
			}
		}
	}
	return bits&Deny == 0 && bits&operationBits[op] != 0
}

func matchSlowly(text, path string) bool {
	bare, glob := strings.CutSuffix(text, "*")
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

func BenchmarkAllows(b *testing.B) {
	var lines []string
	for i := range 500 {
		lines = append(lines, fmt.Sprintf("secret/data/team%d/* read list", i), fmt.Sprintf("secret/data/exact%d read", i))
	}
	for i := range 20 {
		lines = append(lines, fmt.Sprintf("secret/+/shared%d/* read", i))
	}
	acl := rules(b, lines...)
	for name, path := range map[string]string{"exact": "secret/data/exact250", "prefix": "secret/data/team250/db/password",
		"plus": "secret/data/shared19/x", "none": "other/thing"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				acl.Allows(Check{Path: path, Operation: conclave.Read})
			}
		})
	}
}

func TestDecisionsDontAllocate(t *testing.T) {
	acl := rules(t, "secret/* read list", "secret/+/x read", "secret/a read")
	for _, path := range []string{"secret/a", "secret/b/c", "secret/b/x", "secret/dir/"} {
		op := conclave.Read
		if strings.HasSuffix(path, "/") {
			op = conclave.List
		}
		if n := testing.AllocsPerRun(100, func() { acl.Allows(Check{Path: path, Operation: op}) }); n != 0 {
			t.Errorf("%v %s allocates %v times", op, path, n)
		}
	}
}
