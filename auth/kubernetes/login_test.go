package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

const (
	uid        = "3f1c0d9e-0000-4000-8000-000000000001"
	reviewPath = "POST /apis/authentication.k8s.io/v1/tokenreviews "
)

func TestLoginThroughReview(t *testing.T) {
	w := newWorld(t)
	token := w.cluster.token(nil)
	got := w.login(token)
	about := map[string]string{"service_account_uid": uid, "service_account_name": "web", "service_account_namespace": "app", "service_account_secret_name": ""}
	if got.Alias.Name != uid || got.DisplayName != "app-web" || got.Role != "app" || !got.Renewable || !reflect.DeepEqual(got.Alias.Metadata, about) {
		t.Errorf("login is %+v", got)
	}
	about["role"] = "app"
	if !reflect.DeepEqual(got.Metadata, about) || !reflect.DeepEqual(got.Terms.Policies, []string{"a"}) || got.Terms.TTL != 3600 {
		t.Errorf("login is %+v", got)
	}
	if asked := w.requests(); !slices.Equal(asked, []string{reviewPath + "Bearer " + reviewer}) {
		t.Errorf("the API server was asked %q", asked)
	}
	w.role(map[string]any{"alias_name_source": "serviceaccount_name"})
	if got := w.login(token).Alias.Name; got != "app/web" {
		t.Errorf("alias is %q", got)
	}
}

func TestReviewDecides(t *testing.T) {
	w := newWorld(t)
	token := w.cluster.token(nil)
	user := func(name, id string) func(map[string]any) {
		return func(status map[string]any) {
			status["user"] = map[string]any{"username": name, "uid": id}
		}
	}
	for name, c := range map[string]struct {
		change func(map[string]any)
		text   string
	}{
		"not authenticated":  {func(s map[string]any) { s["authenticated"] = false }, "not valid"},
		"says nothing":       {func(s map[string]any) { clear(s) }, "not valid"},
		"error":              {func(s map[string]any) { s["error"] = "token has been invalidated" }, "not valid"},
		"no audience":        {func(s map[string]any) { delete(s, "audiences") }, "not valid for the audience"},
		"another audience":   {func(s map[string]any) { s["audiences"] = []string{"third"} }, "not valid for the audience"},
		"another name":       {user("system:serviceaccount:app:root", uid), "somebody else's"},
		"another namespace":  {user("system:serviceaccount:kube-system:web", uid), "somebody else's"},
		"another uid":        {user("system:serviceaccount:app:web", "3f1c0d9e-0000-4000-8000-000000000002"), "somebody else's"},
		"no uid":             {user("system:serviceaccount:app:web", ""), "somebody else's"},
		"a person":           {user("alice", uid), "not a service account"},
		"a node":             {user("system:node:app:web", uid), "not a service account"},
		"a person like that": {user("system:serviceaccount:app:web:x", uid), "not a service account"},
	} {
		w.cluster.change = c.change
		_, err := w.Do(conclave.Update, "login", map[string]any{"role": "app", "jwt": token})
		if !conclave.Is(err, conclave.Denied) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want Denied with %q", name, err, c.text)
		}
	}
	w.cluster.change = nil
	w.login(token)
	for status, kind := range map[int]conclave.Kind{401: conclave.Denied, 403: conclave.Denied, 404: conclave.Unavailable, 500: conclave.Unavailable} {
		w.cluster.refuse = status
		w.refuses(token, kind, "the API server")
	}
	w.cluster.refuse = 200 // a Status object that isn't a review
	w.refuses(token, conclave.Unavailable, "can't be decoded")
	w.cluster.Close()
	w.refuses(token, conclave.Unavailable, "can't be reached")
}

// TestStrangersDontReachTheAPIServer has what is refused before anybody is asked.
func TestStrangersDontReachTheAPIServer(t *testing.T) {
	w := newWorld(t)
	w.configure(map[string]any{"pem_keys": publicPEM(t, w.cluster.key.Public()), "disable_iss_validation": false, "issuer": "https://kubernetes.default.svc"})
	w.role(map[string]any{"audience": "vault"})
	good := w.cluster.token(nil)
	w.login(good)
	w.requests()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	payload := strings.Split(good, ".")[1]
	object := func(namespace, name, id any) map[string]any {
		return map[string]any{"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]any{"name": name, "uid": id}}}
	}
	for _, c := range []struct {
		token, text string
	}{
		{"x", "malformed token"},
		{encode([]byte(`{"alg":"none"}`)) + "." + payload + ".", "an algorithm that isn't allowed"},
		{encode([]byte(`{"alg":"HS256"}`)) + "." + payload + "." + encode([]byte("mac")), "an algorithm that isn't allowed"},
		{encode([]byte(`{"alg":"PS256"}`)) + "." + payload + "." + encode([]byte("mac")), "an algorithm that isn't allowed"},
		{w.cluster.signed(stranger, nil), "no known key fits"},
		{w.cluster.token(map[string]any{"iss": "other"}), "invalid issuer"},
		{w.cluster.token(map[string]any{"iss": nil}), "invalid issuer"},
		{w.cluster.token(map[string]any{"aud": []string{"other"}}), "invalid audience"},
		{w.cluster.token(map[string]any{"aud": nil}), "invalid audience"},
		{w.cluster.token(map[string]any{"aud": 7}), "invalid audience"},
		{w.cluster.token(map[string]any{"kubernetes.io": nil}), "not that of a service account"},
		{w.cluster.token(map[string]any{"kubernetes.io": "text"}), "not that of a service account"},
		{w.cluster.token(object("app", "web", "")), "not that of a service account"},
		{w.cluster.token(object("app", "web", 7)), "not that of a service account"},
		{w.cluster.token(object("app/../x", "web", uid)), "not that of a service account"},
		{w.cluster.token(object("app", "web:x", uid)), "not that of a service account"},
		{w.cluster.token(object("App", "web", uid)), "not that of a service account"},
		{w.cluster.token(object("app", "root", uid)), "service account name not authorized"},
		{w.cluster.token(object("kube-system", "web", uid)), "namespace not authorized"},
	} {
		w.refuses(c.token, conclave.Denied, c.text)
	}
	if asked := w.requests(); len(asked) > 0 {
		t.Errorf("the API server was asked %q", asked)
	}
}

func TestTimesAreJudgedByClusterTime(t *testing.T) {
	w := newWorld(t)
	token := w.cluster.token(map[string]any{"iat": w.in(0), "nbf": w.in(0), "exp": w.in(time.Hour)})
	w.Advance(time.Hour + 59*time.Second)
	w.login(token)
	w.Advance(time.Second)
	w.refuses(token, conclave.Denied, "expired")
	w.refuses(w.cluster.token(map[string]any{"nbf": w.in(2 * time.Minute)}), conclave.Denied, "not valid yet")
	w.refuses(w.cluster.token(map[string]any{"exp": "never"}), conclave.Denied, "not a time")
}

// TestAudienceIsTheTokensOwn: without an audience of the role's the API server is asked about those of the token, and has
// to agree.
func TestAudienceIsTheTokensOwn(t *testing.T) {
	w := newWorld(t)
	var confirmed any
	w.cluster.change = func(status map[string]any) { confirmed = status["audiences"] }
	w.login(w.cluster.token(nil))
	if !reflect.DeepEqual(confirmed, []string{"vault", "other"}) {
		t.Errorf("confirmed were %v", confirmed)
	}
	w.role(map[string]any{"audience": "vault"})
	w.login(w.cluster.token(nil))
	if !reflect.DeepEqual(confirmed, []string{"vault"}) {
		t.Errorf("confirmed were %v", confirmed)
	}
}

func TestNamesAndNamespacesHaveStars(t *testing.T) {
	w := newWorld(t)
	token := w.cluster.token(nil)
	for _, c := range []struct {
		names, namespaces string
		text              string
	}{
		{"*", "*", ""}, {"w*", "a*p", ""}, {"x,*eb", "x,app", ""}, {"*b*", "*", ""},
		{"w", "*", "name not authorized"}, {"web-*", "*", "name not authorized"}, {"*", "ap", "namespace not authorized"}, {"*", "app-*,x", "namespace not authorized"},
	} {
		w.role(map[string]any{"bound_service_account_names": c.names, "bound_service_account_namespaces": c.namespaces})
		if c.text == "" {
			w.login(token)
			continue
		}
		w.refuses(token, conclave.Denied, c.text)
	}
}

func TestNamespaceSelector(t *testing.T) {
	w := newWorld(t)
	token := w.cluster.token(nil)
	w.role(map[string]any{"bound_service_account_namespaces": "other", "bound_service_account_namespace_selector": `{"matchLabels":{"team":"web","env":""}}`})
	for _, c := range []struct {
		labels map[string]string
		good   bool
	}{{map[string]string{"team": "web", "env": "", "more": "x"}, true}, {map[string]string{"team": "web"}, false}, {map[string]string{"team": "db", "env": ""}, false}, {nil, false}} {
		w.cluster.labels["app"] = c.labels
		if c.good {
			w.login(token)
			continue
		}
		w.refuses(token, conclave.Denied, "namespace not authorized")
	}
	w.role(map[string]any{"bound_service_account_namespaces": "other", "bound_service_account_namespace_selector": "matchLabels:\n  team: web\n"})
	w.cluster.labels["app"] = map[string]string{"team": "web"}
	w.requests()
	w.login(token)
	if asked := w.requests(); !slices.Equal(asked, []string{reviewPath + "Bearer " + reviewer, "GET /api/v1/namespaces/app Bearer " + reviewer}) {
		t.Errorf("the API server was asked %q", asked)
	}
	w.configure(map[string]any{"token_reviewer_jwt": ""})
	w.refuses(token, conclave.Denied, "a token_reviewer_jwt is needed")
	w.role(map[string]any{"bound_service_account_namespaces": "app"})
	w.login(token) // listed: nobody asks for labels
}

// TestWhoAsks: the configured token, else that of the pod, else the one that is reviewed.
func TestWhoAsks(t *testing.T) {
	w := newWorld(t)
	token := w.cluster.token(nil)
	asks := func(config map[string]any, want string) {
		t.Helper()
		w.configure(config)
		w.requests()
		w.login(token)
		if asked := w.requests(); len(asked) != 1 || asked[0] != reviewPath+"Bearer "+want {
			t.Errorf("the API server was asked %q, want it from %q", asked, want)
		}
	}
	none := map[string]any{"token_reviewer_jwt": "", "kubernetes_ca_cert": ""}
	w.configure(none)
	w.refuses(token, conclave.Unavailable, "not trusted") // there is no ca.crt yet
	for name, text := range map[string]string{"token": "pod-token\n", "ca.crt": authority(w.cluster.Server)} {
		if err := os.WriteFile(filepath.Join(w.engine.local, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	asks(none, "pod-token")
	asks(nil, reviewer)
	asks(map[string]any{"token_reviewer_jwt": "", "disable_local_ca_jwt": true}, token)
	w.configure(map[string]any{"token_reviewer_jwt": "a\r\nX-Evil: b"})
	w.refuses(token, conclave.Unavailable, "malformed")
}

func TestOldTokens(t *testing.T) {
	w := newWorld(t)
	const old = "kubernetes.io/serviceaccount/"
	w.cluster.change = func(status map[string]any) {
		maps := map[string]any{"authenticated": true, "user": map[string]any{"username": "system:serviceaccount:app:web", "uid": uid}}
		for name, value := range maps {
			status[name] = value
		}
	}
	// The stand-in reads today's object, and so is given both; what counts for the vault is today's.
	both := w.cluster.token(map[string]any{"aud": nil, old + "namespace": "kube-system", old + "service-account.name": "root", old + "service-account.uid": "0", old + "secret.name": "web-token-1"})
	if got := w.login(both); got.Alias.Name != uid || got.Metadata["service_account_secret_name"] != "web-token-1" {
		t.Errorf("login is %+v", got)
	}
	who, err := accountOf(map[string]any{old + "namespace": "app", old + "service-account.name": "web", old + "service-account.uid": uid, old + "secret.name": "web-token-1"})
	if err != nil || *who != (account{"app", "web", uid, "web-token-1"}) {
		t.Errorf("account is %+v, %v", who, err)
	}
}

func TestLoginWithoutWhatItNeeds(t *testing.T) {
	w := newWorld(t)
	token := w.cluster.token(nil)
	w.Fails(conclave.Update, "login", map[string]any{"jwt": token}, conclave.Invalid, "missing role")
	w.Fails(conclave.Update, "login", map[string]any{"role": "app"}, conclave.Invalid, "missing jwt")
	w.Fails(conclave.Update, "login", map[string]any{"role": "nobody", "jwt": token}, conclave.Invalid, `invalid role name "nobody"`)
	w.role(map[string]any{"token_bound_cidrs": "192.0.2.0/24"})
	w.refuses(token, conclave.Denied, "permission denied")
	near := w.With(enginetest.Remote(netip.MustParseAddr("192.0.2.1")))
	if _, err := near.Do(conclave.Update, "login", map[string]any{"role": "app", "jwt": token}); err != nil {
		t.Errorf("from within: %v", err)
	}
	empty := enginetest.New(t, w.engine)
	empty.Data(conclave.Update, "role/app", map[string]any{"bound_service_account_names": "*", "bound_service_account_namespaces": "*"})
	empty.Fails(conclave.Update, "login", map[string]any{"role": "app", "jwt": token}, conclave.Invalid, "could not load backend configuration")
}

func TestRenewalLooksAtTheRoleAgain(t *testing.T) {
	w := newWorld(t)
	login := w.login(w.cluster.token(nil))
	w.role(map[string]any{"token_ttl": "2h"})
	if terms, err := w.RenewLogin(login); err != nil || terms.TTL != 7200 {
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
