package jwt

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func TestLoginWithABrowser(t *testing.T) {
	w := newWeb(t, nil)
	w.role(map[string]any{"claim_mappings": map[string]string{"email": "mail"}, "bound_claims": map[string]any{"email": "test-user2@*"}, "bound_claims_type": "glob", "max_age": "1h"})
	address := w.begin(nil)
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"client_id": "vault", "redirect_uri": callback, "response_type": "code", "scope": "openid email profile", "code_challenge_method": "S256", "max_age": "3600"} {
		if got := parsed.Query().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	brought := back(w.issuer.browse(address))
	other := &web{w.Reopen(newEngine("oidc")), t, w.issuer} // as on another node
	other.Fails(conclave.Read, "oidc/callback", map[string]any{"state": brought["state"], "code": brought["code"]}, conclave.Invalid, "invalid client_nonce")
	response, err := other.Do(conclave.Read, "oidc/callback", brought)
	if err != nil {
		t.Fatal(err)
	}
	who := response.Login
	if who == nil || who.Alias.Name != "id2" || who.Metadata["mail"] != "test-user2@zitadel.ch" || who.Role != "web" || len(response.Warnings) > 0 {
		t.Errorf("login is %+v, warnings %q", who, response.Warnings)
	}
	w.Fails(conclave.Read, "oidc/callback", brought, conclave.Invalid, "Expired or missing OAuth state")
	for path := range w.Stored() {
		if strings.HasPrefix(path, attemptsDir) {
			t.Errorf("%s is left", path)
		}
	}
}

func TestBrowserComesBackWrong(t *testing.T) {
	w := newWeb(t, nil)
	first, second := back(w.issuer.browse(w.begin(nil))), back(w.issuer.browse(w.begin(nil)))
	const noState = "Vault login failed. Expired or missing OAuth state."
	change := func(name string, value any) map[string]any {
		changed := map[string]any{}
		for n, v := range first {
			changed[n] = v
		}
		changed[name] = value
		return changed
	}
	state := first["state"].(string)
	for _, c := range []struct {
		fields map[string]any
		text   string
	}{
		{map[string]any{}, noState},
		{change("state", ""), noState},
		{change("state", "st_x"), noState},
		{change("state", state[:len(state)-1]), noState},
		{change("state", state[:len(state)-1]+"!"), noState},
		{change("state", "st_0000000000_"+strings.Repeat("A", randomText)), noState},
		{change("state", "st_../../role_"+strings.Repeat("A", randomText)), noState},
		{change("client_nonce", "other"), "invalid client_nonce"},
		{change("client_nonce", ""), "invalid client_nonce"},
		{change("code", ""), "No code or id_token received"},
		{change("code", noCode), "No code or id_token received"},
		{change("code", "x"), "Error exchanging oidc code: "},
		{change("code", strings.Repeat("x", 10_000)), "too long"},
		{change("error", "access_denied"), "Vault login failed. access_denied"},
		{change("error", "<script>"), "Vault login failed. the issuer gave no ID token"},
		{change("code", second["code"]), "Error exchanging oidc code: invalid_grant"}, // PKCE: somebody else's code
	} {
		w.Fails(conclave.Read, "oidc/callback", c.fields, conclave.Invalid, c.text)
	}
	if _, err := w.Do(conclave.Read, "oidc/callback", first); err != nil {
		t.Errorf("the right one, after all that: %v", err)
	}
}

func TestBrowserComesBackTooLate(t *testing.T) {
	w := newWeb(t, nil)
	brought := back(w.issuer.browse(w.begin(nil)))
	w.Advance(attemptTime)
	w.Fails(conclave.Read, "oidc/callback", brought, conclave.Invalid, "Expired or missing OAuth state")
	w.Advance(time.Minute)
	w.begin(nil) // removes what has expired
	count := 0
	for path := range w.Stored() {
		if strings.HasPrefix(path, attemptsDir) {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d attempts are stored, want the new one only", count)
	}
}

func TestRoleAndAddressAreLookedAtAtTheEnd(t *testing.T) {
	w := newWeb(t, nil)
	brought := back(w.issuer.browse(w.begin(nil)))
	w.role(map[string]any{"token_bound_cidrs": "192.0.2.0/24"})
	w.Fails(conclave.Read, "oidc/callback", brought, conclave.Denied, "permission denied")
	w.role(map[string]any{"token_bound_cidrs": "192.0.2.0/24", "bound_subject": "somebody"})
	near := w.With(enginetest.Remote(netip.MustParseAddr("192.0.2.1")))
	near.Fails(conclave.Read, "oidc/callback", brought, conclave.Invalid, "sub claim does not match bound subject")
	w.Data(conclave.Delete, "role/web", nil)
	near.Fails(conclave.Read, "oidc/callback", brought, conclave.Invalid, "could not be found")
}

func TestBeginningIsChecked(t *testing.T) {
	w := newWeb(t, nil)
	w.begin(nil)
	w.begin(map[string]any{"redirect_uri": "http://localhost:9999/oidc/callback"}) // the port doesn't matter
	w.Fails(conclave.Update, "oidc/auth_url", map[string]any{"role": "web"}, conclave.Invalid, "missing redirect_uri")
	w.Fails(conclave.Update, "oidc/auth_url", map[string]any{"role": "nobody", "redirect_uri": callback}, conclave.Invalid, "could not be found")
	w.Fails(conclave.Update, "oidc/auth_url", map[string]any{"redirect_uri": callback + strings.Repeat("a", 3000)}, conclave.Invalid, "too long")
	for _, uri := range []string{"https://evil.example", "https://localhost:8250/oidc/callback", "http://localhost:8250/oidc/callback/", "http://localhost:8250/oidc/callback?a=b",
		"http://127.0.0.1:8250/oidc/callback", "http://localhost.example:8250/oidc/callback", "http://user@localhost:8250/oidc/callback", "http://localhost:8250@evil.example/oidc/callback",
		webpage + "#a", strings.ToUpper(webpage), "http://[::1", "javascript:alert(1)", " " + callback} {
		response, err := w.Do(conclave.Update, "oidc/auth_url", map[string]any{"role": "web", "redirect_uri": uri})
		if err != nil || response.Data.(*beginOut).AuthURL != "" || len(response.Warnings) != 1 {
			t.Errorf("redirect_uri %q: %+v, %v; want an empty URL and a warning", uri, response, err)
		}
	}
}

func TestNamespaceIsCarriedInTheState(t *testing.T) {
	w := newWeb(t, nil)
	brought := w.issuer.browse(w.begin(map[string]any{"redirect_uri": callback + "?namespace=team%2Fa"}))
	if !strings.HasSuffix(brought.Get("state"), ",ns=team/a") {
		t.Errorf("state is %q", brought.Get("state"))
	}
	if _, err := w.Do(conclave.Read, "oidc/callback", back(brought)); err != nil {
		t.Error(err)
	}
}

func TestIssuerPostsACode(t *testing.T) {
	w := newWeb(t, map[string]any{"oidc_response_mode": "form_post"})
	posted := w.issuer.browse(w.begin(map[string]any{"redirect_uri": webpage}))
	form := map[string]any{"state": posted.Get("state"), "code": posted.Get("code")}
	response, err := w.Do(conclave.Update, "oidc/callback", form)
	if err != nil || response.Raw == nil || !strings.Contains(string(response.Raw.Body), "/ui/vault/auth/oidc/oidc/callback?code=no_code&amp;state=st_") {
		t.Fatalf("post: %+v, %v", response, err)
	}
	form["code"] = "another"
	w.Fails(conclave.Update, "oidc/callback", form, conclave.Invalid, "Expired or missing OAuth state")
	finish := map[string]any{"state": posted.Get("state"), "code": noCode, "client_nonce": "n0nce"}
	if response, err = w.Do(conclave.Read, "oidc/callback", finish); err != nil || response.Login.Alias.Name != "id2" {
		t.Fatalf("finish: %+v, %v", response, err)
	}
	w.Fails(conclave.Read, "oidc/callback", finish, conclave.Invalid, "Expired or missing OAuth state")
	for _, c := range []struct {
		fields map[string]any
		text   string
	}{{map[string]any{"state": "st_x", "code": "a"}, "Expired or missing"}, {map[string]any{"state": form["state"], "code": "a"}, "Expired or missing"}} {
		w.Fails(conclave.Update, "oidc/callback", c.fields, conclave.Invalid, c.text)
	}
	fresh := w.issuer.browse(w.begin(nil)).Get("state")
	w.Fails(conclave.Update, "oidc/callback", map[string]any{"state": fresh}, conclave.Invalid, "No code or id_token received")
	w.Fails(conclave.Update, "oidc/callback", map[string]any{"state": fresh, "error": "access_denied"}, conclave.Invalid, "access_denied")
	w.Fails(conclave.Update, "oidc/callback", map[string]any{"state": fresh, "code": strings.Repeat("a", 10_000)}, conclave.Invalid, "too long")
}

func TestIssuerPostsAnIDToken(t *testing.T) {
	w := newWeb(t, map[string]any{"oidc_response_mode": "form_post", "oidc_response_types": "id_token"})
	w.role(map[string]any{"oidc_scopes": []string{}})
	posted := w.issuer.browse(w.begin(nil))
	if posted.Get("id_token") == "" {
		t.Fatalf("posted is %v", posted)
	}
	w.Fails(conclave.Read, "oidc/callback", back(url.Values{"state": {posted.Get("state")}}), conclave.Invalid, "No code or id_token received")
	if _, err := w.Do(conclave.Update, "oidc/callback", map[string]any{"state": posted.Get("state"), "id_token": posted.Get("id_token")}); err != nil {
		t.Fatal(err)
	}
	response, err := w.Do(conclave.Read, "oidc/callback", back(url.Values{"state": {posted.Get("state")}}))
	if err != nil || response.Login.Alias.Name != "id2" {
		t.Fatalf("finish: %+v, %v", response, err)
	}
	// An ID token of one attempt doesn't end another: its nonce is another's.
	other := w.issuer.browse(w.begin(nil)).Get("state")
	if _, err := w.Do(conclave.Update, "oidc/callback", map[string]any{"state": other, "id_token": posted.Get("id_token")}); err != nil {
		t.Fatal(err)
	}
	w.Fails(conclave.Read, "oidc/callback", back(url.Values{"state": {other}}), conclave.Invalid, "invalid ID token nonce")
}
