package jwt

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
	"conclave/engine/enginetest"
)

// odd is an issuer that gives whatever ID token it is told to.
type odd struct {
	*httptest.Server
	*enginetest.Harness
	t        *testing.T
	key      *signer
	nonce    string
	answer   map[string]any // of the token endpoint
	status   int
	userInfo map[string]any
	got      http.Header // of the request for a token
	form     url.Values
	document map[string]any // what it publishes of itself, beside the usual
}

func newOdd(t *testing.T) *odd {
	t.Helper()
	mux := http.NewServeMux()
	o := &odd{t: t, key: newSigner(t, "a"), status: http.StatusOK, document: map[string]any{}}
	o.Server = httptest.NewTLSServer(mux)
	t.Cleanup(o.Close)
	answer := func(w http.ResponseWriter, status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		document := map[string]any{"issuer": o.URL, "jwks_uri": o.URL + "/keys", "authorization_endpoint": o.URL + "/authorize?a=b",
			"token_endpoint": o.URL + "/token", "userinfo_endpoint": o.URL + "/userinfo"}
		maps.Copy(document, o.document)
		answer(w, http.StatusOK, document)
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{o.key.public()}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		o.got, o.form = r.Header, r.PostForm
		answer(w, o.status, o.answer)
	})
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		if o.userInfo == nil || r.Header.Get("Authorization") != "Bearer access" {
			answer(w, http.StatusForbidden, nil)
			return
		}
		answer(w, http.StatusOK, o.userInfo)
	})
	o.configure(nil)
	o.role(nil)
	return o
}

func (o *odd) configure(changed map[string]any) {
	o.t.Helper()
	o.Harness = enginetest.New(o.t, newEngine("oidc"))
	all := map[string]any{"oidc_discovery_url": o.URL, "oidc_discovery_ca_pem": authority(o.Server), "oidc_client_id": "vault", "oidc_client_secret": "a secret", "jwt_supported_algs": "ES256"}
	maps.Copy(all, changed)
	o.Data(conclave.Update, "config", all)
}

func (o *odd) role(changed map[string]any) {
	o.t.Helper()
	all := map[string]any{"user_claim": "sub", "allowed_redirect_uris": callback}
	maps.Copy(all, changed)
	o.Data(conclave.Update, "role/web", all)
}

// login begins and ends a login; the issuer gives an ID token with some claims replaced.
func (o *odd) login(changed map[string]any) (*conclave.Response, error) {
	o.t.Helper()
	begun, err := o.Do(conclave.Update, "oidc/auth_url", map[string]any{"role": "web", "redirect_uri": callback})
	if err != nil {
		return nil, err
	}
	address, err := url.Parse(begun.Data.(*beginOut).AuthURL)
	if err != nil || address.Query().Get("a") != "b" {
		o.t.Fatalf("auth_url is %v, %v", address, err)
	}
	claims := map[string]any{"iss": o.URL, "sub": "alice", "aud": "vault", "nonce": address.Query().Get("nonce"), "iat": o.Now().Unix(), "exp": o.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, changed)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	o.answer = map[string]any{"id_token": o.key.sign(claims), "access_token": "access"}
	return o.Do(conclave.Read, "oidc/callback", map[string]any{"state": address.Query().Get("state"), "code": "code"})
}

func TestIDTokensAreJudged(t *testing.T) {
	o := newOdd(t)
	later := func(d time.Duration) int64 { return o.Now().Add(d).Unix() }
	if _, err := o.login(nil); err != nil {
		t.Fatal(err)
	}
	for name, claims := range map[string]map[string]any{
		"another issuer":            {"iss": "https://other.example"},
		"issuer with a slash":       {"iss": o.URL + "/"},
		"no issuer":                 {"iss": nil},
		"another audience":          {"aud": "other"},
		"no audience":               {"aud": nil},
		"two audiences":             {"aud": []string{"vault", "other"}},
		"another party":             {"azp": "other"},
		"party of another type":     {"azp": []string{"vault"}},
		"another nonce":             {"nonce": "other"},
		"no nonce":                  {"nonce": nil},
		"empty nonce":               {"nonce": ""},
		"expired":                   {"exp": later(-time.Minute)},
		"without end":               {"exp": nil},
		"without end, but its text": {"exp": "never"},
		"from the future":           {"iat": later(2 * time.Minute)},
		"not yet":                   {"nbf": later(2 * time.Minute)},
		"nobody":                    {"sub": nil},
		"empty subject":             {"sub": ""},
	} {
		if _, err := o.login(claims); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "Token verification failed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := o.login(map[string]any{"aud": []string{"vault", "other"}, "azp": "vault"}); err != nil {
		t.Errorf("two audiences, one party: %v", err)
	}
	o.role(map[string]any{"bound_audiences": "special"})
	if _, err := o.login(nil); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("an audience that the role doesn't bind: %v", err)
	}
	if _, err := o.login(map[string]any{"aud": "special"}); err != nil {
		t.Errorf("the audience that the role binds: %v", err)
	}
}

func TestMaxAge(t *testing.T) {
	o := newOdd(t)
	o.role(map[string]any{"max_age": "10m"})
	for name, c := range map[string]struct {
		claims map[string]any
		good   bool
	}{
		"recent":     {map[string]any{"auth_time": o.Now().Add(-10 * time.Minute).Unix()}, true},
		"long ago":   {map[string]any{"auth_time": o.Now().Add(-11 * time.Minute).Unix()}, false},
		"unknown":    {nil, false},
		"not a time": {map[string]any{"auth_time": "now"}, false},
		"in future":  {map[string]any{"auth_time": o.Now().Add(2 * time.Minute).Unix()}, false},
	} {
		if _, err := o.login(c.claims); (err == nil) != c.good || !c.good && !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAlgorithmsOfIDTokens(t *testing.T) {
	o := newOdd(t)
	o.configure(map[string]any{"jwt_supported_algs": []string{}}) // RS256
	o.role(nil)
	if _, err := o.login(nil); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "an algorithm that isn't allowed") {
		t.Errorf("ES256 by default: %v", err)
	}
	o.configure(nil)
	o.role(nil)
	o.key.id = "unknown"
	if _, err := o.login(nil); err != nil { // published under that name as well
		t.Errorf("a new name: %v", err)
	}
	o.key = newSigner(t, "a") // published, but kept are the old ones
	if _, err := o.login(nil); err == nil || !strings.Contains(err.Error(), "no known key fits") {
		t.Errorf("a new key within the pause: %v", err)
	}
}

func TestUserInformationAddsOnly(t *testing.T) {
	o := newOdd(t)
	o.role(map[string]any{"claim_mappings": map[string]string{"email": "mail", "iss": "issuer"}})
	o.userInfo = map[string]any{"sub": "alice", "email": "a@b.example", "iss": "evil", "aud": "evil", "exp": 1}
	response, err := o.login(nil)
	if err != nil || response.Login.Metadata["mail"] != "a@b.example" || response.Login.Metadata["issuer"] != o.URL {
		t.Errorf("login is %+v, %v", response, err)
	}
	for name, info := range map[string]map[string]any{"somebody else": {"sub": "bob", "email": "b@b.example"}, "nobody": {"email": "b@b.example"}, "refused": nil} {
		o.userInfo = info
		response, err := o.login(nil)
		if err != nil || response.Login.Metadata["mail"] != "" || len(response.Warnings) != 1 {
			t.Errorf("%s: %+v, %v; want a login without mail and a warning", name, response, err)
		}
	}
}

func TestTokenEndpoint(t *testing.T) {
	o := newOdd(t)
	if _, err := o.login(nil); err != nil {
		t.Fatal(err)
	}
	if o.got.Get("Authorization") != "Basic dmF1bHQ6YStzZWNyZXQ=" || len(o.form.Get("code_verifier")) != 43 || o.form.Get("client_secret") != "" {
		t.Errorf("the request was %v with %v", o.form, o.got)
	}
	o.status = http.StatusBadRequest
	if _, err := o.login(nil); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "Error exchanging oidc code") {
		t.Errorf("the issuer refuses: %v", err)
	}
	o.status = http.StatusOK
	o.document["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
	o.configure(nil)
	o.role(nil)
	if _, err := o.login(nil); err != nil || o.got.Get("Authorization") != "" || o.form.Get("client_secret") != "a secret" {
		t.Errorf("by post: %v; the request was %v with %v", err, o.form, o.got)
	}
	o.document["token_endpoint"] = "http://issuer.example/token"
	o.Fails(conclave.Update, "config", map[string]any{"oidc_discovery_url": o.URL, "oidc_discovery_ca_pem": authority(o.Server)}, conclave.Invalid, "endpoints without https")
}
