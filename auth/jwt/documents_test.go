package jwt

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
	"conclave/engine/enginetest"
)

// keyServer publishes keys over TLS.
type keyServer struct {
	*httptest.Server
	asked atomic.Int64
	mu    sync.Mutex
	keys  []jose.JSONWebKey
	down  bool
}

func newKeyServer(t *testing.T, keys ...jose.JSONWebKey) *keyServer {
	s := &keyServer{keys: keys}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.down {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: s.keys})
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) set(down bool, keys ...jose.JSONWebKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.keys = down, keys
}

func authority(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func TestKeysAreFetchedKeptAndFetchedAgain(t *testing.T) {
	first, second := newSigner(t, "first"), newSigner(t, "second")
	server := newKeyServer(t, first.public())
	engine := newEngine("jwt")
	clock := time.Unix(1_700_000_000, 0)
	engine.keys.now = func() time.Time { return clock }
	w := &world{t: t, engine: engine, issuer: first, Harness: enginetest.New(t, engine)}
	w.Data(conclave.Update, "config", map[string]any{"jwks_url": server.URL, "jwks_ca_pem": authority(server.Server), "default_role": "app"})
	w.role(nil)
	old, fresh := first.sign(w.claims(nil)), second.sign(w.claims(nil))
	asked := server.asked.Load()
	expect := func(when string, more int64) {
		t.Helper()
		if got := server.asked.Load() - asked; got != more {
			t.Errorf("%s: the issuer was asked %d times, want %d", when, got, more)
		}
		asked = server.asked.Load()
	}
	w.login(old)
	w.login(old)
	expect("two logins", 1)
	w.refuses(fresh, "no known key fits")
	expect("an unknown key, at once", 0)
	clock = clock.Add(pause)
	w.refuses(fresh, "no known key fits")
	w.refuses(fresh, "no known key fits")
	w.refuses(newSigner(t, "third").sign(w.claims(nil)), "no known key fits")
	expect("unknown keys after a pause", 1)
	server.set(false, second.public())
	clock = clock.Add(pause)
	w.login(fresh)
	expect("a new key after a pause", 1)
	w.refuses(old, "no known key fits")
	expect("a withdrawn key", 0)
	clock = clock.Add(freshFor)
	w.login(fresh)
	expect("keys that are no longer fresh", 1)
	server.set(true)
	clock = clock.Add(freshFor)
	w.login(fresh)
	expect("the issuer is down", 1)
	clock = clock.Add(staleFor)
	w.Fails(conclave.Update, "login", map[string]any{"jwt": fresh}, conclave.Unavailable, "status 502")
	expect("the issuer has been down for long", 1)
	w.Fails(conclave.Update, "login", map[string]any{"jwt": fresh}, conclave.Unavailable, "status 502")
	expect("the issuer is down, at once", 0)
	w.refuses(w.issuer.sign(w.claims(nil))+"!", "malformed")
	server.set(false, second.public())
	clock = clock.Add(pauseFailed)
	w.login(fresh)
}

func TestUnusedKeysOfOthersAreNotTrusted(t *testing.T) {
	mine, other := newSigner(t, "a"), newSigner(t, "a")
	server := newKeyServer(t, mine.public())
	w := &world{t: t, issuer: mine, Harness: enginetest.New(t, newEngine("jwt"))}
	config := map[string]any{"jwks_url": server.URL, "default_role": "app"}
	w.Fails(conclave.Update, "config", config, conclave.Invalid, "certificate is not trusted")
	config["jwks_ca_pem"] = authority(server.Server)
	w.Data(conclave.Update, "config", config)
	w.role(nil)
	w.login(mine.sign(w.claims(nil)))
	w.refuses(other.sign(w.claims(nil)), "no known key fits")
}

func TestSeveralSources(t *testing.T) {
	first, second := newSigner(t, "a"), newSigner(t, "a")
	one, two := newKeyServer(t, first.public()), newKeyServer(t, second.public())
	w := &world{t: t, issuer: first, Harness: enginetest.New(t, newEngine("jwt"))}
	w.Data(conclave.Update, "config", map[string]any{"default_role": "app", "jwks_pairs": []any{
		map[string]any{"jwks_url": one.URL, "jwks_ca_pem": authority(one.Server)}, map[string]any{"jwks_url": two.URL, "jwks_ca_pem": authority(two.Server)}}})
	w.role(nil)
	w.login(first.sign(w.claims(nil)))
	w.login(second.sign(w.claims(nil)))
	w.refuses(newSigner(t, "a").sign(w.claims(nil)), "no known key fits")
	if pairs := w.Data(conclave.Read, "config", nil)["jwks_pairs"].([]any); len(pairs) != 2 || pairs[1].(map[string]any)["jwks_url"] != two.URL {
		t.Errorf("jwks_pairs are %v", pairs)
	}
}

func TestDiscoveryWithoutBrowser(t *testing.T) {
	issuer := newSigner(t, "a")
	keys := newKeyServer(t, issuer.public())
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	calls := server.URL
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": calls, "jwks_uri": keys.URL})
	})
	w := &world{t: t, issuer: issuer, Harness: enginetest.New(t, newEngine("jwt"))}
	config := map[string]any{"oidc_discovery_url": server.URL, "oidc_discovery_ca_pem": authority(server) + authority(keys.Server), "default_role": "app"}
	w.Data(conclave.Update, "config", config)
	w.role(nil)
	w.login(issuer.sign(w.claims(nil)))
	calls = "https://other.example"
	w.Fails(conclave.Update, "config", config, conclave.Invalid, "calls itself by another URL")
}

// TestRequestsShareAReading has many want one document at a time.
func TestRequestsShareAReading(t *testing.T) {
	documents := newDocuments[string]()
	var read atomic.Int64
	begun, goOn := make(chan struct{}), make(chan struct{})
	get := func(ctx context.Context) (string, error) {
		text, _, err := documents.get(ctx, source{url: "a"}, time.Time{}, func(context.Context, source) (string, error) {
			if read.Add(1) == 1 {
				close(begun)
			}
			<-goOn
			return "text", nil
		})
		return text, err
	}
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if text, err := get(t.Context()); text != "text" || err != nil {
				t.Errorf("get = %q, %v", text, err)
			}
		})
	}
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := get(ctx); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("a request that was given up: %v", err)
	}
	close(goOn)
	wait.Wait()
	if got := read.Load(); got > 2 { // who comes just after a reading has ended, before it is kept, begins another
		t.Errorf("%d readings", got)
	}
}

func TestDocumentsAreBounded(t *testing.T) {
	documents := newDocuments[string]()
	for i := range 3 * maxDocuments {
		_, _, _ = documents.get(t.Context(), source{url: strings.Repeat("a", i)}, time.Time{}, func(context.Context, source) (string, error) {
			return "", errors.New("down")
		})
	}
	if n := len(documents.kept); n > maxDocuments {
		t.Errorf("%d are kept", n)
	}
}
