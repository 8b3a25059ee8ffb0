package jwt

import (
	"fmt"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

func TestWritingARoleKeepsWhatIsNotGiven(t *testing.T) {
	h := enginetest.New(t, newEngine("oidc"))
	h.Data(conclave.Update, "role/Web", map[string]any{"user_claim": "sub", "allowed_redirect_uris": "https://a.example/cb,http://localhost:8250/oidc/callback",
		"bound_audiences": "x", "policies": "a", "ttl": "30m", "claim_mappings": map[string]string{"a": "b"}, "bound_claims": map[string]any{"n": 1}})
	h.Data(conclave.Update, "role/web", map[string]any{"token_max_ttl": 3600, "oidc_scopes": "email"})
	got := h.Data(conclave.Read, "role/WEB", nil)
	want := map[string]string{"role_type": `"oidc"`, "user_claim": `"sub"`, "allowed_redirect_uris": `["https://a.example/cb","http://localhost:8250/oidc/callback"]`,
		"bound_audiences": `["x"]`, "token_policies": `["a"]`, "token_ttl": "1800", "token_max_ttl": "3600", "oidc_scopes": `["email"]`, "token_bound_cidrs": "[]",
		"claim_mappings": `{"a":"b"}`, "bound_claims": `{"n":1}`, "bound_claims_type": `"string"`, "token_type": `"default"`, "expiration_leeway": "0",
		"verbose_oidc_logging": "false", "max_age": "0", "user_claim_json_pointer": "false", "groups_claim": `""`, "bound_subject": `""`}
	for name, text := range want {
		if encoded := encode(t, got[name]); encoded != text {
			t.Errorf("%s is %s, want %s", name, encoded, text)
		}
	}
	if keys := h.Data(conclave.List, "role", nil)["keys"]; encode(t, keys) != `["web"]` {
		t.Errorf("roles are %v", keys)
	}
	h.Data(conclave.Delete, "role/web", nil)
	h.Fails(conclave.Read, "role/web", nil, conclave.NotFound, "")
	h.Fails(conclave.List, "role", nil, conclave.NotFound, "")
}

func TestRolesAreChecked(t *testing.T) {
	h := enginetest.New(t, newEngine("oidc"))
	good := map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_subject": "a"}
	h.Data(conclave.Update, "role/good", good)
	for _, c := range []struct {
		change map[string]any
		text   string
	}{
		{map[string]any{"user_claim": ""}, "a user claim must be defined"},
		{map[string]any{"role_type": "saml"}, "invalid 'role_type'"},
		{map[string]any{"role_type": "oidc"}, "'allowed_redirect_uris' must be set"},
		{map[string]any{"bound_subject": ""}, "at least one bound constraint"},
		{map[string]any{"bound_claims_type": "regexp"}, "invalid 'bound_claims_type'"},
		{map[string]any{"bound_claims": map[string]any{"a": map[string]any{}}}, "is not a string, bool, int or list"},
		{map[string]any{"bound_claims": map[string]any{"a": nil}}, "is not a string, bool, int or list"},
		{map[string]any{"bound_claims": map[string]any{"a": []any{[]any{[]any{}}, map[string]any{}}}}, "is not a string, bool, int or list"},
		{map[string]any{"bound_claims_type": "glob", "bound_claims": map[string]any{"a": 1}}, "is not a string or a list of strings"},
		{map[string]any{"claim_mappings": map[string]string{"a": "role"}}, "reserved"},
		{map[string]any{"claim_mappings": map[string]string{"a": "x", "b": "x"}}, "multiple keys"},
		{map[string]any{"claim_mappings": map[string]string{"a": ""}}, "a metadata key has"},
		{map[string]any{"claim_mappings": many(maxMappings + 1)}, "at most"},
		{map[string]any{"token_policies": "root"}, "root"},
		{map[string]any{"token_ttl": "2h", "token_max_ttl": "1h"}, "token_ttl"},
		{map[string]any{"token_bound_cidrs": "everywhere"}, "neither an address"},
		{map[string]any{"clock_skew_leeway": -2}, "leeways"},
		{map[string]any{"max_age": -1}, "leeways"},
		{map[string]any{"bound_audiences": strings.Repeat("a", maxRole)}, "too large"},
	} {
		fields := map[string]any{}
		for name, value := range good {
			fields[name] = value
		}
		for name, value := range c.change {
			fields[name] = value
		}
		h.Fails(conclave.Update, "role/bad", fields, conclave.Invalid, c.text)
	}
	for _, name := range []string{".", "-a", "a-", "a b", "a\x00", "é", strings.Repeat("a", 300)} {
		h.Fails(conclave.Update, "role/"+name, good, conclave.Invalid, "invalid role name")
	}
	response, err := h.Do(conclave.Update, "role/good", map[string]any{"verbose_oidc_logging": true})
	if err != nil || len(response.Warnings) != 1 {
		t.Errorf("verbose logging: %v, %v; want a warning", response, err)
	}
}

// many are that many mappings.
func many(n int) map[string]string {
	all := map[string]string{}
	for i := range n {
		all[fmt.Sprint("claim", i)] = fmt.Sprint("key", i)
	}
	return all
}

func TestRoleExists(t *testing.T) {
	var asked []conclave.Operation
	h := enginetest.New(t, newEngine("jwt"), enginetest.Authorize(func(op conclave.Operation, _ string) bool {
		asked = append(asked, op)
		return true
	}), enginetest.Fast())
	for range 2 {
		h.Data(conclave.Update, "role/a", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_subject": "a"})
	}
	if len(asked) != 2 || asked[0] != conclave.Create || asked[1] != conclave.Update {
		t.Errorf("writing a role twice asks for %v", asked)
	}
}
