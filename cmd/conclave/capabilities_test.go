package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"conclave"
)

// TestCapabilitiesAreWhatRequestsGet asks what a token with an entity may do, in each way that there is, and then does it.
// The decisions themselves are held against a model in package access.
func TestCapabilitiesAreWhatRequestsGet(t *testing.T) {
	v := openVault(t)
	random := rand.New(rand.NewPCG(3, 10))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	v.must(conclave.Update, "sys/mounts/t", map[string]any{"type": "kv"})
	v.must(conclave.Update, "sys/auth/people", map[string]any{"type": "userpass"})
	v.must(conclave.Update, "auth/people/users/ann", map[string]any{"password": "opens", "token_policies": "own"})
	resp, err := v.do(conclave.Secret{}, conclave.Update, "auth/people/login/ann", map[string]any{"password": "opens"})
	if err != nil {
		t.Fatal(err)
	}
	ann, accessor, entity := resp.Auth.ClientToken, resp.Auth.Accessor, resp.Auth.EntityID
	v.must(conclave.Update, "identity/entity/id/"+entity, map[string]any{"policies": []any{"behind"}, "metadata": map[string]any{"team": "b"}})
	write := func(name string) {
		var text strings.Builder
		for range 1 + random.IntN(4) {
			fmt.Fprintf(&text, "path \"t/%s%s\" { capabilities = [\"%s\", \"%s\"] }\n", pick("a", "b", "+", "a/b", "{{identity.entity.metadata.team}}"), pick("", "/*", "/", "/x"),
				pick("read", "list", "deny", "create"), pick("update", "delete", "list", "read"))
		}
		v.must(conclave.Update, "sys/policies/acl/"+name, map[string]any{"policy": text.String()})
	}
	counts := map[bool]int{}
	for range 25 {
		write("own")
		write("behind")
		path := "t/" + pick("a", "b", "a/b", "a/x", "b/x")
		var answers [][]string
		for asked, fields := range map[string]map[string]any{
			"sys/capabilities": {"token": ann.Reveal()}, "sys/capabilities-accessor": {"accessor": accessor}} {
			fields["paths"] = []any{path}
			answers = append(answers, texts(v.must(conclave.Update, asked, fields)["capabilities"]))
		}
		own, err := v.do(ann, conclave.Update, "sys/capabilities-self", map[string]any{"paths": []any{path}})
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, texts(dataOf(t, own)["capabilities"]))
		if !slices.Equal(answers[0], answers[1]) || !slices.Equal(answers[0], answers[2]) {
			t.Fatalf("capabilities on %s differ: %v", path, answers)
		}
		for op, name := range map[conclave.Operation]string{conclave.Read: "read", conclave.Delete: "delete", conclave.List: "list", conclave.Create: "create"} {
			do, fields := op, map[string]any(nil)
			if op == conclave.Create { // a client's update of what isn't there
				v.must(conclave.Delete, path, nil)
				do, fields = conclave.Update, map[string]any{"k": "v"}
			}
			_, err := v.do(ann, do, path, fields)
			allowed := !conclave.Is(err, conclave.Denied)
			simulated := v.must(conclave.Update, "sys/access/simulate", map[string]any{"accessor": accessor, "checks": []any{map[string]any{"path": path, "operation": name}}})
			result, _ := simulated["results"].([]any)[0].(map[string]any)
			if allowed != slices.Contains(answers[0], name) || result["allowed"] != allowed {
				t.Fatalf("%s %s: %v, capabilities %v, simulated %v", name, path, err, answers[0], result)
			}
			counts[err == nil || !conclave.Is(err, conclave.Denied)]++
		}
	}
	if counts[true] < 10 || counts[false] < 10 {
		t.Errorf("%d allowed, %d denied: the test shows nothing", counts[true], counts[false])
	}
	v.must(conclave.Update, "identity/entity/id/"+entity, map[string]any{"disabled": true})
	if got := texts(v.must(conclave.Update, "sys/capabilities-accessor", map[string]any{"accessor": accessor, "paths": []any{"t/a"}})["capabilities"]); !slices.Equal(got, []string{"deny"}) {
		t.Errorf("capabilities of a disabled entity = %v, want deny", got)
	}
}

func TestSimulationTakesWhatIsNotStored(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/policies/acl/team", map[string]any{"policy": `path "secret/*" { capabilities = ["read"] }`})
	member := v.token(map[string]any{"policies": []any{"team"}})
	decide := func(fields map[string]any) (allowed bool, rules []string) {
		t.Helper()
		fields["checks"] = []any{map[string]any{"path": "v1/secret/a", "operation": "delete"}}
		result, _ := v.must(conclave.Update, "sys/access/simulate", fields)["results"].([]any)[0].(map[string]any)
		allowed, _ = result["allowed"].(bool)
		return allowed, texts(result["rules"])
	}
	candidate := map[string]any{"Team ": "\n" + `path "secret/*" { capabilities = ["delete"] }`}
	for name, row := range map[string]struct {
		fields map[string]any
		want   bool
		rules  []string
	}{
		"stored":     {map[string]any{"policies": []any{"team"}}, false, []string{"team:1"}},
		"candidate":  {map[string]any{"policies": []any{"team"}, "candidates": candidate}, true, []string{"team:2"}},
		"of a token": {map[string]any{"token": member.Reveal(), "candidates": candidate}, true, []string{"team:2"}},
		"another":    {map[string]any{"policies": []any{"team"}, "candidates": map[string]any{"more": `path "secret/a" { capabilities = ["deny"] }`}}, false, []string{"more:1"}},
		"root":       {map[string]any{"policies": []any{"root"}}, true, nil},
		"nothing":    {map[string]any{"policies": []any{"absent"}}, false, nil},
	} {
		if allowed, rules := decide(row.fields); allowed != row.want || !slices.Equal(rules, row.rules) {
			t.Errorf("%s: %v by %v, want %v by %v", name, allowed, rules, row.want, row.rules)
		}
	}
	if _, err := v.do(member, conclave.Update, "sys/access/simulate", map[string]any{"policies": []any{"team"}, "checks": []any{map[string]any{"path": "a"}}}); !conclave.Is(err, conclave.Denied) {
		t.Errorf("without the capability: %v, want denied", err)
	}
	for name, fields := range map[string]map[string]any{
		"no checks":      {"policies": []any{"team"}},
		"bad operation":  {"checks": []any{map[string]any{"path": "a", "operation": "eat"}}},
		"no path":        {"checks": []any{map[string]any{"operation": "read"}}},
		"bad token":      {"token": "hvs.nothing", "checks": []any{map[string]any{"path": "a"}}},
		"bad accessor":   {"accessor": "nothing", "checks": []any{map[string]any{"path": "a"}}},
		"no such entity": {"entity_id": "nobody", "checks": []any{map[string]any{"path": "a"}}},
		"bad candidate":  {"candidates": map[string]any{"x": "path {"}, "checks": []any{map[string]any{"path": "a"}}},
	} {
		if _, err := v.do(v.root, conclave.Update, "sys/access/simulate", fields); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}
