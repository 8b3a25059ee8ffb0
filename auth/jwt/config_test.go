package jwt

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

func encode(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func newPEM(t testing.TB) string {
	t.Helper()
	key, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return publicPEM(t, key)
}

func TestConfigIsReplaced(t *testing.T) {
	h := enginetest.New(t, newEngine("jwt"))
	h.Fails(conclave.Read, "config", nil, conclave.NotFound, "")
	first, second := newPEM(t), newPEM(t)
	h.Data(conclave.Update, "config", map[string]any{"jwt_validation_pubkeys": first + "," + second, "bound_issuer": "a", "namespace_in_state": false, "default_role": "Role"})
	got := h.Data(conclave.Read, "config", nil)
	for name, want := range map[string]string{"bound_issuer": `"a"`, "namespace_in_state": "false", "default_role": `"role"`, "jwks_pairs": "[]", "oidc_response_types": "[]",
		"jwt_supported_algs": "[]", "provider_config": "{}", "oidc_client_id": `""`} {
		if encode(t, got[name]) != want {
			t.Errorf("%s is %v, want %s", name, got[name], want)
		}
	}
	if keys := got["jwt_validation_pubkeys"].([]any); len(keys) != 2 || keys[1] != strings.TrimSpace(second) {
		t.Errorf("keys are %q", keys)
	}
	h.Data(conclave.Update, "config", map[string]any{"jwt_validation_pubkeys": first, "jwt_supported_algs": "EdDSA"})
	got = h.Data(conclave.Read, "config", nil)
	if got["bound_issuer"] != "" || got["namespace_in_state"] != false {
		t.Errorf("after another write the configuration is %v", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	h := enginetest.New(t, newEngine("jwt"))
	const issuer = "http://127.0.0.1:1/" // where nobody listens
	for _, c := range []struct {
		fields map[string]any
		text   string
	}{
		{map[string]any{}, "exactly one of"},
		{map[string]any{"jwt_validation_pubkeys": newPEM(t), "jwks_url": issuer}, "exactly one of"},
		{map[string]any{"jwks_pairs": []any{map[string]any{"jwks_url": issuer}}, "jwks_url": issuer}, "exactly one of"},
		{map[string]any{"jwt_validation_pubkeys": "key"}, "error parsing public key"},
		{map[string]any{"oidc_discovery_url": issuer, "oidc_client_id": "a"}, "both 'oidc_client_id'"},
		{map[string]any{"oidc_discovery_url": issuer, "oidc_client_secret": "a"}, "both 'oidc_client_id'"},
		{map[string]any{"jwks_url": issuer, "oidc_client_id": "a", "oidc_client_secret": "b"}, "'oidc_discovery_url' must be set"},
		{map[string]any{"oidc_discovery_url": issuer + ".well-known/openid-configuration"}, "contains '.well-known'"},
		{map[string]any{"oidc_discovery_url": "http://issuer.example"}, "must begin with https://"},
		{map[string]any{"jwks_url": "file:///etc/passwd"}, "not an absolute URL"},
		{map[string]any{"jwks_pairs": []any{map[string]any{"jwks_url": "keys"}}}, "not an absolute URL"},
		{map[string]any{"jwks_url": issuer, "jwks_ca_pem": "x"}, "error checking jwks_ca_pem"},
		{map[string]any{"jwks_url": issuer}, "error checking jwks URL: the server can't be reached"},
		{map[string]any{"oidc_discovery_url": issuer}, "error checking oidc discovery URL: the server can't be reached"},
		{map[string]any{"jwt_validation_pubkeys": newPEM(t), "jwt_supported_algs": "HS256"}, "unsupported algorithm"},
		{map[string]any{"jwt_validation_pubkeys": newPEM(t), "jwt_supported_algs": "none"}, "unsupported algorithm"},
		{map[string]any{"jwt_validation_pubkeys": newPEM(t), "oidc_response_types": "token"}, "invalid response_types"},
		{map[string]any{"jwt_validation_pubkeys": newPEM(t), "oidc_response_types": "id_token"}, "query response_mode"},
		{map[string]any{"jwt_validation_pubkeys": newPEM(t), "oidc_response_mode": "fragment"}, "invalid response_mode"},
		{map[string]any{"jwt_validation_pubkeys": newPEM(t), "provider_config": map[string]any{"provider": "azure"}}, "provider_config is not supported"},
		{map[string]any{"jwks_pairs": slices.Repeat([]any{map[string]any{"jwks_url": issuer}}, maxSources+1)}, "at most"},
	} {
		h.Fails(conclave.Update, "config", c.fields, conclave.Invalid, c.text)
	}
	if len(h.Stored()) > 0 {
		t.Errorf("what was refused has stored %v", h.Stored())
	}
	response, err := h.Do(conclave.Update, "config", map[string]any{"jwks_url": issuer, "skip_jwks_validation": true})
	if err != nil || len(response.Warnings) != 1 {
		t.Errorf("unchecked: %v, %v; want a warning", response, err)
	}
	h.Data(conclave.Update, "role/a", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_subject": "a"})
	h.Fails(conclave.Update, "login", map[string]any{"role": "a", "jwt": newSigner(t, "").sign(map[string]any{})}, conclave.Unavailable, "can't be reached")
}

func TestClientSecretIsNotShown(t *testing.T) {
	h := enginetest.New(t, newEngine("oidc"))
	response, err := h.Do(conclave.Update, "config", map[string]any{"oidc_discovery_url": "http://127.0.0.1:1", "oidc_client_id": "a", "oidc_client_secret": "canary", "skip_jwks_validation": true})
	if err != nil {
		t.Fatal(err)
	}
	read := h.Data(conclave.Read, "config", nil)
	if _, shown := read["oidc_client_secret"]; shown || strings.Contains(encode(t, read)+encode(t, response), "canary") {
		t.Errorf("the secret is shown: %v", read)
	}
	if !strings.Contains(string(h.Stored()[configPath]), "canary") {
		t.Error("the secret is not stored")
	}
}

func TestWithoutConfig(t *testing.T) {
	h := enginetest.New(t, newEngine("jwt"))
	h.Fails(conclave.Update, "login", map[string]any{"role": "a", "jwt": "b"}, conclave.Invalid, "could not load configuration")
	h.Fails(conclave.Update, "oidc/auth_url", map[string]any{"role": "a"}, conclave.Invalid, "could not load configuration")
	h.Fails(conclave.Update, "oidc/callback", nil, conclave.Invalid, "Could not load configuration")
	h.Data(conclave.Update, "config", map[string]any{"jwt_validation_pubkeys": newPEM(t)})
	h.Fails(conclave.Update, "login", map[string]any{"jwt": "b"}, conclave.Invalid, "missing role")
	h.Data(conclave.Update, "role/a", map[string]any{"user_claim": "sub", "allowed_redirect_uris": "https://a.example"})
	h.Fails(conclave.Update, "oidc/auth_url", map[string]any{"role": "a", "redirect_uri": "https://a.example"}, conclave.Invalid, "OIDC login is not configured")
	h.Fails(conclave.Update, "oidc/callback", map[string]any{"state": "x", "code": "y"}, conclave.Unsupported, "")
}
