package jwt

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
	"conclave/engine/enginetest"
)

func TestLoginGivesWhatTheRoleSays(t *testing.T) {
	w := newWorld(t)
	w.role(map[string]any{"groups_claim": "/realm/groups", "claim_mappings": map[string]any{"/realm/name": "realm", "absent": "other"}})
	token := w.issuer.sign(w.claims(map[string]any{"realm": map[string]any{"name": "main", "groups": []string{"dev", "", "ops"}}}))
	got := w.login(token)
	metadata := map[string]string{"role": "app", "realm": "main"}
	if got.Alias.Name != "alice" || got.DisplayName != "alice" || got.Role != "app" || !got.Renewable ||
		!reflect.DeepEqual(got.Groups, []string{"dev", "ops"}) || !reflect.DeepEqual(got.Metadata, metadata) || !reflect.DeepEqual(got.Alias.Metadata, metadata) {
		t.Errorf("login is %+v", got)
	}
	if !reflect.DeepEqual(got.Terms.Policies, []string{"a", "b"}) || got.Terms.TTL != 3600 {
		t.Errorf("terms are %+v", got.Terms)
	}
	response, err := w.Do(conclave.Update, "login", map[string]any{"jwt": token}) // the default role
	if err != nil || response.Login.Role != "app" {
		t.Errorf("login without a role: %v", err)
	}
}

func TestLoginRefuses(t *testing.T) {
	w := newWorld(t)
	good := w.issuer.sign(w.claims(nil))
	w.login(good)
	for _, c := range []struct {
		fields map[string]any
		text   string
	}{
		{map[string]any{"role": "app"}, "missing token"},
		{map[string]any{"role": "nobody", "jwt": good}, `role "nobody" could not be found`},
		{map[string]any{"role": "../config", "jwt": good}, "invalid role name"},
		{map[string]any{"role": "app", "jwt": "x"}, "malformed token"},
		{map[string]any{"role": "app", "jwt": good + "A"}, "error validating token"},
	} {
		w.Fails(conclave.Update, "login", c.fields, conclave.Invalid, c.text)
	}
	for _, c := range []struct {
		claims map[string]any
		text   string
	}{
		{map[string]any{"iss": "other"}, "invalid issuer"},
		{map[string]any{"iss": nil}, "invalid issuer"},
		{map[string]any{"iss": []string{"issuer"}}, "invalid issuer"},
		{map[string]any{"aud": "other"}, "audience"},
		{map[string]any{"aud": nil}, "audience"},
		{map[string]any{"aud": []any{}}, "audience"},
		{map[string]any{"aud": []any{"vault", 7}}, "aud"},
		{map[string]any{"aud": map[string]any{"vault": true}}, "aud"},
		{map[string]any{"aud": "Vault"}, "audience"},
		{map[string]any{"sub": nil}, `claim "sub" not found`},
		{map[string]any{"sub": ""}, "not a name"},
		{map[string]any{"sub": 7}, "could not be converted"},
		{map[string]any{"sub": []string{"alice"}}, "could not be converted"},
		{map[string]any{"sub": "al\nice"}, "not a name"},
		{map[string]any{"sub": "al\u202eice"}, "not a name"},
		{map[string]any{"sub": strings.Repeat("a", 1000)}, "not a name"},
		{map[string]any{"exp": w.Now().Add(-2 * time.Minute).Unix()}, "expired"},
		{map[string]any{"nbf": w.Now().Add(2 * time.Minute).Unix()}, "not valid yet"},
		{map[string]any{"iat": w.Now().Add(2 * time.Minute).Unix()}, "not valid yet"},
		{map[string]any{"exp": nil, "iat": nil}, "no issued at"},
		{map[string]any{"exp": "tomorrow"}, "not a time"},
	} {
		w.refuses(w.issuer.sign(w.claims(c.claims)), c.text)
	}
	for _, aud := range []any{"vault", []string{"vault"}, []string{"other", "vault"}} {
		w.login(w.issuer.sign(w.claims(map[string]any{"aud": aud})))
	}
	w.role(map[string]any{"bound_subject": "alice", "bound_audiences": []string{}})
	w.refuses(good, "audience claim found in JWT but no audiences bound to the role")
	w.login(w.issuer.sign(w.claims(map[string]any{"aud": nil})))
	w.refuses(w.issuer.sign(w.claims(map[string]any{"aud": nil, "sub": "bob"})), "invalid subject")
	w.Data(conclave.Update, "role/web", map[string]any{"user_claim": "sub", "allowed_redirect_uris": "https://app.example/cb"})
	w.Fails(conclave.Update, "login", map[string]any{"role": "web", "jwt": good}, conclave.Invalid, "role with oidc role_type is not allowed")
}

// TestForgedTokensAreRefused has the tricks of package jws again, on the way that strangers take.
func TestForgedTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	claims := w.claims(nil)
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	w.login(w.issuer.signText(string(payload), nil))
	stranger := newSigner(t, "")
	encode := base64.RawURLEncoding.EncodeToString
	hmacSigned := func(secret string) string {
		signed := encode([]byte(`{"alg":"HS256"}`)) + "." + encode(payload)
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(signed))
		return signed + "." + encode(mac.Sum(nil))
	}
	twice := strings.Replace(string(payload), `"sub":"alice"`, `"sub":"alice","sub":"admin"`, 1)
	for name, token := range map[string]string{
		"unsigned":                encode([]byte(`{"alg":"none"}`)) + "." + encode(payload) + ".",
		"HMAC with the PEM":       hmacSigned(publicPEM(t, w.issuer.key.Public())),
		"another key":             stranger.sign(claims),
		"another key, embedded":   stranger.signText(string(payload), map[string]any{"jwk": jose.JSONWebKey{Key: stranger.key.Public()}}),
		"another key, linked":     stranger.signText(string(payload), map[string]any{"jku": "https://127.0.0.1:1/"}),
		"critical":                w.issuer.signText(string(payload), map[string]any{"crit": []string{"x"}, "x": 1}),
		"claim twice":             w.issuer.signText(twice, nil),
		"a set of signatures":     `{"payload":"` + encode(payload) + `","signatures":[]}`,
		"signature of other text": encode([]byte(`{"alg":"ES256"}`)) + "." + encode(payload) + "." + strings.Split(w.issuer.sign(map[string]any{}), ".")[2],
	} {
		_, err := w.Do(conclave.Update, "login", map[string]any{"role": "app", "jwt": token})
		if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "error validating token") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.Data(conclave.Update, "config", map[string]any{"jwt_validation_pubkeys": publicPEM(t, w.issuer.key.Public()), "jwt_supported_algs": "RS256,PS256"})
	w.refuses(w.issuer.sign(claims), "an algorithm that isn't allowed")
}

func TestClusterTimeDecides(t *testing.T) {
	w := newWorld(t)
	token := w.issuer.sign(w.claims(nil)) // an hour
	w.Advance(time.Hour + 59*time.Second)
	w.login(token)
	w.Advance(time.Second)
	w.refuses(token, "expired")
	w.role(map[string]any{"clock_skew_leeway": "10m"})
	w.login(token)
	w.role(map[string]any{"clock_skew_leeway": -1})
	w.refuses(token, "expired")
}

func TestBoundClaims(t *testing.T) {
	w := newWorld(t)
	claims := map[string]any{"team": "blue", "admin": true, "level": 3, "roles": []any{"a", "b", map[string]any{}, nil}, "deep": map[string]any{"list": []string{"x/y"}}}
	token := w.issuer.sign(w.claims(claims))
	for _, c := range []struct {
		kind  string
		bound map[string]any
		fails string
	}{
		{"string", map[string]any{"team": "blue"}, ""},
		{"string", map[string]any{"team": []string{"red", "blue"}}, ""},
		{"string", map[string]any{"team": "red"}, "does not match"},
		{"string", map[string]any{"team": "blu*"}, "does not match"},
		{"string", map[string]any{"team": "Blue"}, "does not match"},
		{"string", map[string]any{"team": []string{}}, "does not match"},
		{"string", map[string]any{"absent": "x"}, "missing"},
		{"string", map[string]any{"team": "blue", "absent": "x"}, "missing"},
		{"string", map[string]any{"admin": true}, ""},
		{"string", map[string]any{"admin": "true"}, "does not match"},
		{"string", map[string]any{"level": 3}, ""},
		{"string", map[string]any{"level": 3.0}, ""},
		{"string", map[string]any{"level": 3.5}, "does not match"},
		{"string", map[string]any{"level": "3"}, "does not match"},
		{"string", map[string]any{"roles": "b"}, ""},
		{"string", map[string]any{"roles": []string{"c", "d"}}, "does not match"},
		{"string", map[string]any{"/deep/list/0": "x/y"}, ""},
		{"string", map[string]any{"/deep/list": "x/y"}, ""},
		{"string", map[string]any{"/deep/list/1": "x/y"}, "missing"},
		{"string", map[string]any{"/deep": "x/y"}, "is not a string"},
		{"string", map[string]any{"deep/list": "x/y"}, "missing"},
		{"glob", map[string]any{"team": "b*e"}, ""},
		{"glob", map[string]any{"team": []string{"r*", "*ue"}}, ""},
		{"glob", map[string]any{"team": "r*"}, "does not match"},
		{"glob", map[string]any{"roles": "*"}, ""},
		{"glob", map[string]any{"admin": "*"}, "does not match"},
		{"glob", map[string]any{"/deep/list": "x*"}, ""},
	} {
		w.role(map[string]any{"bound_claims_type": c.kind, "bound_claims": c.bound})
		if c.fails == "" {
			w.login(token)
			continue
		}
		w.refuses(token, c.fails)
	}
}

func TestGroupsAndMappingsOfWrongTypes(t *testing.T) {
	w := newWorld(t)
	many := make([]string, maxGroups+1)
	for name, groups := range map[string]any{"absent": nil, "object": map[string]any{"a": "b"}, "number in it": []any{"a", 7}, "list in it": []any{[]any{}},
		"too many": many, "control character": "a\x00"} {
		w.role(map[string]any{"groups_claim": "groups"})
		_, err := w.Do(conclave.Update, "login", map[string]any{"jwt": w.issuer.sign(w.claims(map[string]any{"groups": groups}))})
		if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "group") {
			t.Errorf("groups %s: %v", name, err)
		}
	}
	if got := w.login(w.issuer.sign(w.claims(map[string]any{"groups": "one"}))).Groups; !reflect.DeepEqual(got, []string{"one"}) {
		t.Errorf("groups are %v", got)
	}
	w.role(map[string]any{"groups_claim": "", "claim_mappings": "level=level"})
	w.refuses(w.issuer.sign(w.claims(map[string]any{"level": 7})), "error converting claim 'level'")
	w.refuses(w.issuer.sign(w.claims(map[string]any{"level": strings.Repeat("x", 600)})), "claim 'level' is too long")
	w.role(map[string]any{"claim_mappings": map[string]string{}, "user_claim": "/a/b"})
	token := w.issuer.sign(w.claims(map[string]any{"a": map[string]any{"b": "carol"}}))
	w.refuses(token, `claim "/a/b" not found`)
	w.role(map[string]any{"user_claim": "/a/b", "user_claim_json_pointer": true})
	if got := w.login(token).Alias.Name; got != "carol" {
		t.Errorf("alias is %q", got)
	}
}

func TestAddressesAreBound(t *testing.T) {
	w := newWorld(t)
	w.role(map[string]any{"token_bound_cidrs": "192.0.2.0/24"})
	fields := map[string]any{"role": "app", "jwt": w.issuer.sign(w.claims(nil))}
	if _, err := w.With(enginetest.Remote(netip.MustParseAddr("192.0.2.7"))).Do(conclave.Update, "login", fields); err != nil {
		t.Errorf("from within: %v", err)
	}
	w.With(enginetest.Remote(netip.MustParseAddr("192.0.3.7"))).Fails(conclave.Update, "login", fields, conclave.Denied, "permission denied")
	w.Fails(conclave.Update, "login", fields, conclave.Denied, "permission denied") // from nowhere known
}

func TestRenewalLooksAtTheRoleAgain(t *testing.T) {
	w := newWorld(t)
	login := w.login(w.issuer.sign(w.claims(nil)))
	w.role(map[string]any{"token_ttl": "2h"})
	terms, err := w.RenewLogin(login)
	if err != nil || terms.TTL != 7200 {
		t.Errorf("terms are %+v, %v", terms, err)
	}
	w.Data(conclave.Delete, "role/app", nil)
	if _, err := w.RenewLogin(login); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("renewal without the role: %v, want Invalid", err)
	}
	if _, err := w.RenewLogin(&conclave.Login{}); err == nil {
		t.Error("a login of nobody is renewed")
	}
}

func BenchmarkLogin(b *testing.B) {
	issuer := newSigner(b, "")
	h := enginetest.New(b, newEngine("jwt"), enginetest.Fast())
	h.Data(conclave.Update, "config", map[string]any{"jwt_validation_pubkeys": publicPEM(b, issuer.key.Public())})
	h.Data(conclave.Update, "role/app", map[string]any{"role_type": "jwt", "bound_audiences": "vault", "user_claim": "sub"})
	token := issuer.sign(map[string]any{"sub": "alice", "aud": "vault", "iat": h.Now().Unix(), "exp": h.Now().Add(time.Hour).Unix()})
	for b.Loop() {
		if _, err := h.Do(conclave.Update, "login", map[string]any{"role": "app", "jwt": token}); err != nil {
			b.Fatal(err)
		}
	}
}
