package token

import (
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

func (b *bench) role(name string, fields map[string]any) {
	b.t.Helper()
	b.must(b.root, conclave.Update, "roles/"+name, fields)
}

func TestRoleIsAnsweredAsVaultDoes(t *testing.T) {
	b := newBench(t)
	b.role("ci", map[string]any{"allowed_policies": "Dev,ops", "period": "1h", "allowed_entity_aliases": list("Web-*")})
	want := map[string]any{"name": "ci", "allowed_policies": list("dev", "ops"), "allowed_policies_glob": []any{}, "disallowed_policies": []any{},
		"disallowed_policies_glob": []any{}, "orphan": false, "renewable": true, "path_suffix": "", "allowed_entity_aliases": list("web-*"),
		"token_explicit_max_ttl": 0.0, "explicit_max_ttl": 0.0, "token_no_default_policy": false, "token_period": 3600.0, "period": 3600.0,
		"token_type": "default-service"}
	if got := members(t, b.must(b.root, conclave.Read, "roles/ci", nil)); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	b.role("ci", map[string]any{"token_period": "2h", "token_bound_cidrs": "10.0.0.0/8", "token_num_uses": json.Number("3"), "orphan": true})
	maps.Copy(want, map[string]any{"token_period": 7200.0, "period": 0.0, "token_bound_cidrs": list("10.0.0.0/8"), "token_num_uses": 3.0, "orphan": true})
	if got := members(t, b.must(b.root, conclave.Read, "roles/ci", nil)); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := members(t, b.must(b.root, conclave.List, "roles/", nil)); !reflect.DeepEqual(got["keys"], list("ci")) {
		t.Errorf("%v", got)
	}
	b.must(b.root, conclave.Delete, "roles/ci", nil)
	if _, err := b.as(b.root, conclave.Read, "roles/ci", nil); !conclave.Is(err, conclave.NotFound) {
		t.Errorf("after its deletion: %v", err)
	}
	if _, err := b.as(b.root, conclave.Update, "create/ci", nil); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("a token by a role that is gone: %v", err)
	}
}

func TestWrongRolesAreRefused(t *testing.T) {
	b := newBench(t)
	orphan := map[string]any{"token_type": "batch", "orphan": true, "renewable": false}
	b.role("good", orphan)
	with := func(name string, value any) map[string]any {
		fields := maps.Clone(orphan)
		fields[name] = value
		return fields
	}
	for _, fields := range []map[string]any{with("orphan", false), with("renewable", true), with("token_period", "1h"), with("token_explicit_max_ttl", "1h"),
		with("token_num_uses", json.Number("1")), {"token_type": "odd"}, {"path_suffix": "a/b"}, {"path_suffix": "a..b"}, {"token_bound_cidrs": "x"},
		{"token_period": "-1h"}, {"token_num_uses": json.Number("-1")}, {"allowed_policies": list(strings.Repeat("x", maxPolicyLen+1))}} {
		if _, err := b.as(b.root, conclave.Update, "roles/bad", fields); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%v: %v", fields, err)
		}
	}
	for _, name := range []string{"-a", "a.", "a b", "a*", strings.Repeat("a", maxRoleName+1)} {
		if _, err := b.as(b.root, conclave.Update, "roles/"+name, nil); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestRoleDecidesAboutPolicies(t *testing.T) {
	b := newBench(t)
	caller := b.create(b.root, map[string]any{"policies": list("mine")}).ClientToken
	tests := []struct {
		role, asked map[string]any
		want        []string // nil is refused
	}{
		{map[string]any{"allowed_policies": list("a", "b")}, nil, []string{"a", "b", "default"}},
		{map[string]any{"allowed_policies": list("a", "b")}, map[string]any{"policies": list("A")}, []string{"a", "default"}},
		{map[string]any{"allowed_policies": list("a", "b")}, map[string]any{"policies": list("a"), "no_default_policy": true}, []string{"a"}},
		{map[string]any{"allowed_policies": list("a", "b")}, map[string]any{"policies": list("mine")}, nil},
		{map[string]any{"allowed_policies": list("a"), "token_no_default_policy": true}, nil, []string{"a"}},
		{map[string]any{"allowed_policies": list("root")}, nil, nil},
		{map[string]any{"allowed_policies_glob": list("*")}, map[string]any{"policies": list(" ROOT ")}, nil},
		{map[string]any{"allowed_policies_glob": list("team-*-ro")}, map[string]any{"policies": list("team-x-ro")}, []string{"default", "team-x-ro"}},
		{map[string]any{"allowed_policies_glob": list("team-*-ro")}, map[string]any{"policies": list("team-x-rw")}, nil},
		{map[string]any{"allowed_policies_glob": list("team-*")}, nil, []string{"default"}},
		{map[string]any{"disallowed_policies": list("x")}, nil, []string{"default", "mine"}},
		{map[string]any{"disallowed_policies": list("x")}, map[string]any{"policies": list("other")}, []string{"default", "other"}},
		{map[string]any{"disallowed_policies": list("x")}, map[string]any{"policies": list("X")}, nil},
		{map[string]any{"disallowed_policies_glob": list("adm*")}, map[string]any{"policies": list("admin")}, nil},
		{map[string]any{"disallowed_policies": list("default")}, map[string]any{"policies": list("other")}, []string{"other"}},
		{map[string]any{"allowed_policies": list("response-wrapping")}, nil, nil},
		{map[string]any{}, nil, []string{"default", "mine"}},
		{map[string]any{}, map[string]any{"policies": list("other")}, nil},
	}
	for _, test := range tests {
		b.as(b.root, conclave.Delete, "roles/r", nil)
		b.role("r", test.role)
		response, err := b.as(caller, conclave.Update, "create/r", test.asked)
		if test.want == nil {
			if !conclave.Is(err, conclave.Invalid) {
				t.Errorf("%v, %v: %v, want a refusal", test.role, test.asked, err)
			}
			continue
		}
		if err != nil || !slices.Equal(response.Auth.Policies, test.want) {
			t.Errorf("%v, %v: %+v, %v, want %v", test.role, test.asked, response, err, test.want)
		}
	}
}

func TestRoleDecidesAboutTheRest(t *testing.T) {
	b := newBench(t)
	caller := b.create(b.root, map[string]any{"policies": list("mine"), "ttl": "9h"}).ClientToken
	b.role("r", map[string]any{"allowed_policies": "a", "orphan": true, "renewable": false, "path_suffix": "v1", "token_explicit_max_ttl": "3h",
		"token_num_uses": json.Number("5"), "token_bound_cidrs": "10.0.0.0/8", "allowed_entity_aliases": "web-*"})
	response := b.must(caller, conclave.Update, "create/r", map[string]any{"num_uses": json.Number("9"), "explicit_max_ttl": "4h", "entity_alias": "Web-1"})
	auth := response.Auth
	if auth.Renewable || !auth.Orphan || auth.NumUses != 5 || auth.TTL != 3*time.Hour || len(response.Warnings) == 0 || auth.EntityID != "entity-of-Web-1" ||
		!slices.Equal(auth.TokenPolicies, []string{"a", "default"}) || !slices.Equal(auth.Policies, []string{"a", "default", "of-entity-of-web-1"}) {
		t.Errorf("%+v, %q", auth, response.Warnings)
	}
	got := members(t, b.must(b.root, conclave.Update, "lookup-accessor", map[string]any{"accessor": auth.Accessor}))
	if got["role"] != "r" || got["path"] != "auth/token/create/r/v1" || !reflect.DeepEqual(got["bound_cidrs"], list("10.0.0.0/8")) ||
		!reflect.DeepEqual(got["identity_policies"], list("of-entity-of-Web-1")) || got["external_namespace_policies"] == nil {
		t.Errorf("%v", got)
	}
	b.must(b.root, conclave.Update, "revoke", map[string]any{"token": caller.Reveal()})
	b.SetRequest(&conclave.Request{Remote: netip.MustParseAddrPort("10.1.1.1:5")})
	if !lives(b.Memory, auth.ClientToken) {
		t.Error("an orphan ended with its maker")
	}
	if _, err := b.as(b.root, conclave.Update, "create/r", map[string]any{"entity_alias": "db-1"}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("another alias: %v", err)
	}
	b.role("p", map[string]any{"allowed_policies": "a", "token_period": "2h"})
	if got := b.must(b.root, conclave.Update, "create/p", map[string]any{"ttl": "1h"}).Auth; got.TTL != 2*time.Hour || got.Orphan {
		t.Errorf("periodic: %+v", got)
	}
	for kind, prefix := range map[string]string{"batch": "hvb.", "default-batch": "hvb.", "default-service": "hvs."} {
		b.role("t", map[string]any{"allowed_policies": "a", "token_type": kind, "orphan": true, "renewable": false})
		if got := b.must(b.root, conclave.Update, "create/t", nil).Auth; !strings.HasPrefix(got.ClientToken.Reveal(), prefix) {
			t.Errorf("%s gives %s", kind, got.TokenType)
		}
	}
	b.role("t", map[string]any{"token_type": "default-batch"})
	if got := b.must(b.root, conclave.Update, "create/t", map[string]any{"type": "service"}).Auth; got.TokenType != "service" {
		t.Errorf("asked for service: %s", got.TokenType)
	}
}

func TestPatternsHoldAnyText(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"a*", "a", true}, {"*", "", true}, {"*a", "ba", true}, {"*a", "ab", false},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"a*b*c", "axbyc", true}, {"a*b*c", "acb", false}, {"*b*", "abc", true}, {"", "", true}, {"", "a", false},
	} {
		if got := matches(test.pattern, test.name); got != test.want {
			t.Errorf("matches(%q, %q) = %v", test.pattern, test.name, got)
		}
	}
}

// goldenRole is a role as the first version wrote it.
const goldenRole = `{"allowed_policies":["a"],"allowed_policies_glob":["b*"],"disallowed_policies":["c"],"disallowed_policies_glob":["d*"],"orphan":true,` +
	`"renewable":true,"path_suffix":"v1","allowed_entity_aliases":["e"],"token_bound_cidrs":["10.0.0.0/8"],"token_explicit_max_ttl":60,` +
	`"token_no_default_policy":true,"token_num_uses":3,"token_period":30,"token_type":"service","period":30,"explicit_max_ttl":60,"bound_cidrs":["10.0.0.0/8"]}`

func TestStoredFormOfRolesStays(t *testing.T) {
	decoded, err := decodeRole([]byte(goldenRole))
	if err != nil {
		t.Fatal(err)
	}
	role := decoded.(*Role)
	if again, err := json.Marshal(role); err != nil || string(again) != goldenRole || len(role.networks) != 1 {
		t.Errorf("%s, %v", again, err)
	}
	for _, damaged := range []string{"", "[]", `{"token_bound_cidrs":["x"]}`} {
		if _, err := decodeRole([]byte(damaged)); !conclave.Is(err, conclave.Internal) {
			t.Errorf("%q: %v", damaged, err)
		}
	}
}

func FuzzRole(f *testing.F) {
	f.Add([]byte(goldenRole), "team-*", "team-x")
	f.Fuzz(func(t *testing.T, value []byte, pattern, name string) {
		if decoded, err := decodeRole(value); err == nil && len(decoded.(*Role).networks) != len(decoded.(*Role).BoundCIDRs) {
			t.Error("networks are missing")
		}
		if matches(pattern, name) && !strings.Contains(pattern, "*") && pattern != name {
			t.Error("matched another name")
		}
	})
}

func TestRenewalFollowsTheRole(t *testing.T) {
	b := newBench(t)
	b.role("r", map[string]any{"allowed_policies": "a", "token_period": "2h"})
	self := b.must(b.root, conclave.Update, "create/r", nil).Auth.ClientToken
	b.role("r", map[string]any{"token_period": "3h"})
	if got := b.must(self, conclave.Update, "renew-self", nil).Auth; got.TTL != 3*time.Hour {
		t.Errorf("by the new period: %v", got.TTL)
	}
	b.role("r", map[string]any{"token_period": "0s", "token_explicit_max_ttl": "4h"})
	b.Advance(2 * time.Hour)
	if got := b.must(self, conclave.Update, "renew-self", map[string]any{"increment": "9h"}).Auth; got.TTL != 2*time.Hour {
		t.Errorf("within the new maximum: %v", got.TTL)
	}
	b.must(b.root, conclave.Delete, "roles/r", nil)
	if _, err := b.as(self, conclave.Update, "renew-self", nil); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "not renewing") {
		t.Errorf("without its role: %v", err)
	}
	if !lives(b.Memory, self) {
		t.Error("the token died with its role")
	}
}
