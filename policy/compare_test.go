package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"conclave"
)

func TestCompareNamesWhatChanges(t *testing.T) {
	tests := []struct {
		name          string
		before, after []string
		want          []string // path gained lost
	}{
		{"nothing", []string{"secret/* read"}, []string{"secret/* read"}, nil},
		{"order", []string{"a read", "b read"}, []string{"b read", "a read"}, nil},
		{"a capability", []string{"secret/* read"}, []string{"secret/* read list"}, []string{"secret/ +list -"}},
		{"a rule", nil, []string{"secret/+/db read"}, []string{"secret/x-example/db +read -"}},
		{"a rule that another one covers", []string{"secret/* read"}, []string{"secret/* read", "secret/a/* read"}, nil},
		{"a narrower rule takes", []string{"secret/* read list"}, []string{"secret/* read list", "secret/a/* read"}, []string{"secret/a/ + -list"}},
		{"a denial", []string{"secret/* read"}, []string{"secret/* read", "secret/a deny"}, []string{"secret/a + -read denied", "secret/a/ + - denied"}},
		{"an exact rule", []string{"sys/seal update"}, []string{"sys/seal update sudo"}, []string{"sys/seal +sudo -"}},
		{"where two overlap", []string{"+/x read", "a/* list"}, []string{"+/x read", "b/* list"}, []string{"a/ + -list", "a/x +read -", "a/x/ + -list", "b/ +list -", "b/x + -read", "b/x/ +list -"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changes, complete := Compare(rules(t, test.before...), rules(t, test.after...))
			var got []string
			for _, c := range changes {
				line := c.Path + " +" + strings.Join(c.Gained, ",") + " -" + strings.Join(c.Lost, ",")
				if c.Denied {
					line += " denied"
				}
				got = append(got, line)
			}
			if !complete || !slices.Equal(got, test.want) {
				t.Errorf("changes = %q (complete %v), want %q", got, complete, test.want)
			}
		})
	}
}

func TestCompareSeesLimits(t *testing.T) {
	before := Compile(mustParse(t, "p", `path "a" { capabilities = ["update"] allowed_parameters = { "x" = ["1"] } }`))
	after := Compile(mustParse(t, "p", "\n"+`path "a" { capabilities = ["update"] allowed_parameters = { "x" = ["1", "2"] } }`))
	changes, _ := Compare(before, after)
	if len(changes) != 1 || !changes[0].Limits || changes[0].Path != "a" || !slices.Equal(changes[0].Rules, []string{"p:2"}) {
		t.Errorf("changes = %+v, want other limits on a", changes)
	}
}

// TestCompareMissesNothing holds Compare against a look at every path of few segments.
func TestCompareMissesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	var all []string
	level := []string{""}
	for range 4 {
		var next []string
		for _, path := range level {
			for _, segment := range []string{"a", "b", "ab", "az", "z"} {
				next = append(next, path+segment+"/")
				all = append(all, path+segment, path+segment+"/")
			}
		}
		level = next
	}
	some := func() *ACL {
		var lines []string
		for range 1 + random.IntN(3) {
			parts := make([]string, 1+random.IntN(3))
			for i := range parts {
				parts[i] = pick("a", "b", "ab", "+", "+")
			}
			if text := strings.Join(parts, "/") + pick("", "", "/", "*", "/*"); !strings.Contains(text, "+*") {
				lines = append(lines, text+" "+pick("read", "list", "deny", "read list", "read sudo"))
			}
		}
		return rules(t, lines...)
	}
	seen := 0
	for range 600 {
		before, after := some(), some()
		changes, complete := Compare(before, after)
		told := map[string]bool{}
		for _, c := range changes {
			told[fmt.Sprint(c.Gained, c.Lost)] = true
			d, _ := compareAt(before, after, c.Path)
			if !slices.Equal(d.Gained, c.Gained) || !slices.Equal(d.Lost, c.Lost) {
				t.Fatalf("%+v is not so", c)
			}
		}
		for _, path := range all {
			c, differs := compareAt(before, after, path)
			if !differs {
				continue
			}
			seen++
			if key := fmt.Sprint(c.Gained, c.Lost); !complete || !told[key] {
				t.Fatalf("%v\n%v\n%s on %q is not among %+v", before.Summaries(), after.Summaries(), key, path, changes)
			}
		}
	}
	if seen < 1000 {
		t.Errorf("only %d differences: the test shows nothing", seen)
	}
}

func TestCompareShowsThePlainestExample(t *testing.T) {
	changes, _ := Compare(rules(t, "team/* read"), rules(t, "team/* read list update", "+/b deny"))
	var paths []string
	for _, c := range changes {
		paths = append(paths, c.Path)
	}
	if !slices.Contains(paths, "team/x-example") || slices.Contains(paths, "team/b") {
		t.Errorf("examples = %q, want team/x-example and not team/b", paths)
	}
}

func TestAnswersSayWhy(t *testing.T) {
	acl := Compile(mustParse(t, "team", `
path "secret/*" { capabilities = ["read"] }
path "secret/closed" { capabilities = ["deny"] }
path "sys/seal" { capabilities = ["update"] }`))
	tests := []struct {
		check Check
		want  string
	}{
		{Check{Path: "secret/a", Operation: conclave.Read}, `the rule for "secret/*" (team:2) allows it`},
		{Check{Path: "secret/a", Operation: conclave.Delete}, `the rule for "secret/*" (team:2) decides, and doesn't give delete`},
		{Check{Path: "secret/closed", Operation: conclave.Read}, `the rule for "secret/closed" (team:3) denies it`},
		{Check{Path: "sys/seal", Operation: conclave.Update, Sudo: true}, `the rule for "sys/seal" (team:4) decides, and doesn't give sudo and update`},
		{Check{Path: "other", Operation: conclave.Read}, `no rule of the token's policies matches the path`},
	}
	for _, test := range tests {
		if got := acl.Answer(test.check); got.Because != test.want || got.Allowed != strings.HasSuffix(test.want, "allows it") {
			t.Errorf("%+v: %+v, want %q", test.check, got, test.want)
		}
	}
	for reason := NoRule; reason <= PageLimit; reason++ {
		if got, ok := ReasonOf(reason.Code()); !ok || got != reason {
			t.Errorf("ReasonOf(%q) = %v, %v, want %v", reason.Code(), got, ok, reason)
		}
	}
}
