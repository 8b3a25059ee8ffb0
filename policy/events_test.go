package policy

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEventsAreSeenByReadersAndSubscribers(t *testing.T) {
	acl := Compile(mustParse(t, "a", `
path "secret/data/read" { capabilities = ["read"] }
path "secret/data/wrapped" { capabilities = ["read"] min_wrapping_ttl = "1m" }
path "secret/data/events" { capabilities = ["list", "subscribe"] subscribe_event_types = ["kv-v2/data-*"] }
path "secret/data/untyped" { capabilities = ["subscribe"] }
path "secret/data/typed" { subscribe_event_types = ["*"] }
path "secret/data/typed" { capabilities = ["list"] }
path "secret/+/denied" { capabilities = ["subscribe"] subscribe_event_types = ["*"] }
`), mustParse(t, "b", `
path "secret/data/denied" { capabilities = ["deny"] }
path "secret/data/typed" { capabilities = ["subscribe"] subscribe_event_types = ["database/*"] }
`))
	for _, c := range []struct {
		path, event string
		want        bool
	}{
		{"secret/data/read", "anything/at-all", true},
		{"secret/data/wrapped", "kv-v2/data-write", false},
		{"secret/data/events", "kv-v2/data-write", true},
		{"secret/data/events", "kv-v2/metadata-write", false},
		{"secret/data/untyped", "kv-v2/data-write", false},
		{"secret/data/typed", "database/rotate", true},
		{"secret/data/typed", "kv-v2/data-write", false},
		{"secret/data/denied", "kv-v2/data-write", false},
		{"secret/metadata/denied", "kv-v2/metadata-write", true},
		{"other", "kv-v2/data-write", false},
	} {
		if got := acl.Sees(c.path, c.event); got != c.want {
			t.Errorf("Sees(%q, %q) = %v, want %v", c.path, c.event, got, c.want)
		}
	}
	if got, want := acl.Capabilities("secret/data/events"), []string{"list", "subscribe"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Capabilities = %q, want %q", got, want)
	}
	if !Compile(&Policy{Name: Root}).Sees("any", "a/b") {
		t.Error("root doesn't see an event")
	}
}

func TestComparisonShowsWhoMaySubscribe(t *testing.T) {
	before := Compile(mustParse(t, "a", `path "secret/*" { capabilities = ["subscribe"] subscribe_event_types = ["kv*"] }`))
	none := Compile(mustParse(t, "a", `path "secret/*" { capabilities = ["list"] }`))
	other := Compile(mustParse(t, "a", `path "secret/*" { capabilities = ["subscribe"] subscribe_event_types = ["*"] }`))
	changes, _ := Compare(before, none)
	lost := func(c Change) bool { return slices.Contains(c.Lost, "subscribe") }
	if !slices.ContainsFunc(changes, lost) {
		t.Errorf("without subscribe the changes are %+v", changes)
	}
	if changes, _ = Compare(before, other); len(changes) != 1 || !changes[0].Limits {
		t.Errorf("with other types the changes are %+v", changes)
	}
}

func TestTypesOfEventsAreBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 200), "a*b*c*d*e*"} {
		if _, err := Parse("a", `path "a" { subscribe_event_types = ["`+text+`"] }`); err == nil {
			t.Errorf("a rule for events of type %q is accepted", text)
		}
	}
}
