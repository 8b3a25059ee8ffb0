package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"conclave"
)

// ask makes a request with an id of its own and returns that.
func (v *vault) ask(id string, token conclave.Secret, op conclave.Operation, path string, fields map[string]any) error {
	_, err := v.pipeline.Handle(v.t.Context(), &conclave.Request{ID: id, Operation: op, Path: path, Fields: fields, Token: token})
	return err
}

func TestWhyNamesTheRuleThatDenied(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/policies/acl/team", map[string]any{"policy": `# the team
path "secret/data/team/*" { capabilities = ["read"] }
path "secret/data/team/closed/*" { capabilities = ["deny"] }
path "secret/data/narrow" {
  capabilities = ["create", "update"]
  allowed_parameters = { "data" = [] }
  denied_parameters = { "options" = [] }
}
path "sys/rotate" { capabilities = ["update"] }
path "auth/token/create" { capabilities = ["update"] }
`})
	member := v.token(map[string]any{"policies": []any{"team"}, "no_default_policy": true, "display_name": "ann"})
	rows := []struct {
		name   string
		token  conclave.Secret
		op     conclave.Operation
		path   string
		fields map[string]any
		reason string
		rules  []string
		needed []string
		words  string
	}{
		{"no rule", member, conclave.Read, "secret/data/other", nil, "no_rule", nil, []string{"read"}, "no rule"},
		{"nothing mounted", member, conclave.Read, "nowhere/x", nil, "no_rule", nil, []string{"read"}, "no rule"},
		{"lacks the capability", member, conclave.Update, "secret/data/team/a", map[string]any{"data": map[string]any{}}, "capability", []string{"team:2"}, []string{"create"}, `"secret/data/team/*" (team:2) decides`},
		{"denies", member, conclave.Read, "secret/data/team/closed/a", nil, "denied", []string{"team:3"}, []string{"read"}, "denies it"},
		{"denied field", member, conclave.Update, "secret/data/narrow", map[string]any{"data": map[string]any{}, "options": map[string]any{}}, "field", []string{"team:4"}, []string{"create"}, `"options"`},
		{"unlisted field", member, conclave.Update, "secret/data/narrow", map[string]any{"data": map[string]any{}, "canary": "x"}, "unlisted_field", []string{"team:4"}, []string{"create"}, "a field"},
		{"lacks sudo", member, conclave.Update, "sys/rotate", nil, "capability", []string{"team:9"}, []string{"sudo", "update"}, "sudo"},
		{"no token", conclave.Secret{}, conclave.Read, "secret/data/a", nil, "no_token", nil, nil, "no token"},
		{"bad token", conclave.NewSecret("hvs.nothing"), conclave.Read, "secret/data/a", nil, "bad_token", nil, nil, "expired"},
		{"the handler", member, conclave.Update, "auth/token/create", map[string]any{"policies": []any{"root"}}, "refused", nil, nil, "operation itself"},
	}
	for i, row := range rows {
		id := "why-" + string(rune('a'+i))
		if err := v.ask(id, row.token, row.op, row.path, row.fields); row.reason != "refused" && !conclave.Is(err, conclave.Denied) {
			t.Fatalf("%s: %v, want denied", row.name, err)
		} else if err != nil && row.reason != "refused" && strings.Contains(err.Error(), "team") {
			t.Errorf("%s: the denial itself names the policy: %v", row.name, err)
		} else if row.reason == "refused" && conclave.Is(err, conclave.Invalid) {
			row.reason, row.words = "not_denied", "not denied"
		}
		got := v.must(conclave.Update, "sys/access/explain", map[string]any{"request_id": id})
		needed, _ := got["needed"].(map[string]any)
		if got["reason"] != row.reason || !slices.Equal(texts(got["rules"]), row.rules) || !slices.Equal(texts(needed["capabilities"]), row.needed) ||
			!strings.Contains(got["because"].(string), row.words) || got["path"] != row.path {
			t.Errorf("%s: %v", row.name, got)
		}
		if text, _ := json.Marshal(got); strings.Contains(string(text), "canary") {
			t.Errorf("%s: the answer names what the client sent: %s", row.name, text)
		}
	}
}

func texts(list any) []string {
	var all []string
	elements, _ := list.([]any)
	for _, e := range elements {
		all = append(all, e.(string))
	}
	return all
}

func TestWhyTakesACapability(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/policies/acl/helpdesk", map[string]any{"policy": `path "sys/access/explain" { capabilities = ["update"] }`})
	helper, other := v.token(map[string]any{"policies": []any{"helpdesk"}}), v.token(map[string]any{"policies": []any{"default"}})
	if err := v.ask("denied-1", other, conclave.Read, "secret/data/x", nil); !conclave.Is(err, conclave.Denied) {
		t.Fatalf("read: %v, want denied", err)
	}
	fields := map[string]any{"request_id": "denied-1"}
	if _, err := v.do(other, conclave.Update, "sys/access/explain", fields); !conclave.Is(err, conclave.Denied) {
		t.Errorf("without the capability: %v, want denied", err)
	}
	if _, err := v.do(helper, conclave.Update, "sys/access/explain", fields); err != nil {
		t.Errorf("with it: %v", err)
	}
	if _, err := v.do(helper, conclave.Update, "sys/access/explain", map[string]any{"request_id": "denied-2"}); !conclave.Is(err, conclave.NotFound) {
		t.Errorf("a request that nobody made: %v, want not found", err)
	}
}

// A namespace learns of requests made in it, and of the rules that are its own.
func TestWhyStaysInItsNamespace(t *testing.T) {
	v := openVault(t)
	for _, name := range []string{"a", "b"} {
		v.must(conclave.Update, "sys/namespaces/"+name, nil)
	}
	v.must(conclave.Update, "sys/policies/acl/outer", map[string]any{"policy": `path "a/sys/policies/acl/x" { capabilities = ["list"] }`})
	outer := v.token(map[string]any{"policies": []any{"outer"}})
	resp, err := v.do(v.root, conclave.Update, "a/auth/token/create", map[string]any{"policies": []any{"default"}})
	if err != nil {
		t.Fatal(err)
	}
	inner := resp.Auth.ClientToken
	for id, token := range map[string]conclave.Secret{"by-outer": outer, "by-inner": inner} {
		if err := v.ask(id, token, conclave.Read, "a/sys/policies/acl/x", nil); !conclave.Is(err, conclave.Denied) {
			t.Fatalf("%s: %v, want denied", id, err)
		}
	}
	explain := func(in, id string) map[string]any {
		return v.must(conclave.Update, in+"sys/access/explain", map[string]any{"request_id": id})
	}
	if got := explain("", "by-outer"); got["reason"] != "capability" || !slices.Equal(texts(got["rules"]), []string{"outer:1"}) {
		t.Errorf("asked in the root namespace: %v", got)
	}
	if got := explain("a/", "by-inner"); got["reason"] != "no_rule" || !slices.Equal(texts(got["policies"]), []string{"default"}) {
		t.Errorf("asked in its own: %v", got)
	}
	if got := explain("a/", "by-outer"); got["reason"] != "hidden" || len(texts(got["rules"])) > 0 || len(texts(got["policies"])) > 0 {
		t.Errorf("policies of the namespace above are told below: %v", got)
	}
	for _, id := range []string{"by-inner", "by-outer"} {
		if _, err := v.do(v.root, conclave.Update, "b/sys/access/explain", map[string]any{"request_id": id}); !conclave.Is(err, conclave.NotFound) {
			t.Errorf("asked in another namespace: %v, want not found", err)
		}
	}
}
