package outbound

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"conclave"
)

func authority(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func TestGet(t *testing.T) {
	blocked := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("document")) })
	mux.HandleFunc("/full", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxBody)) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxBody+1)) })
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("a", 2*maxHeader))
	})
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/absent", http.NotFound)
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-blocked:
		case <-r.Context().Done():
		}
	})
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	defer close(blocked)
	client, err := New(authority(server))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := client.Get(t.Context(), server.URL+"/good"); err != nil || string(body) != "document" {
		t.Fatalf("Get = %q, %v", body, err)
	}
	if body, err := client.Get(t.Context(), server.URL+"/full"); err != nil || len(body) != maxBody {
		t.Errorf("an answer at the limit: %d bytes, %v", len(body), err)
	}
	for path, want := range map[string]string{"/large": "too large", "/header": "can't be reached", "/elsewhere": "redirects", "/absent": "status 404"} {
		_, err := client.Get(t.Context(), server.URL+path)
		fails(t, path, err, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = client.Get(ctx, server.URL+"/slow")
	fails(t, "slow", err, "in time")

	stranger, err := New("")
	if err != nil {
		t.Fatal(err)
	}
	_, err = stranger.Get(t.Context(), server.URL+"/good")
	fails(t, "a certificate of somebody else", err, "not trusted")
	_, err = client.Get(t.Context(), strings.Replace(server.URL, "https", "http", 1)+"/good")
	fails(t, "without TLS", err, "status 400")
	server.Close()
	_, err = client.Get(t.Context(), server.URL+"/good")
	fails(t, "closed", err, "can't be reached")
}

func fails(t *testing.T, what string, err error, want string) {
	t.Helper()
	if !conclave.Is(err, conclave.Unavailable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("%s: %v, want Unavailable with %q and no address", what, err, want)
	}
}

func TestCheckURL(t *testing.T) {
	for address, good := range map[string]bool{"https://issuer.example": true, "https://issuer.example:8443/path?a=b": true,
		"http://localhost:80/x": true, "http://127.0.0.1": true, "http://[::1]:1/": true, "http://issuer.example": false, "issuer.example": false, "": false,
		"https://": false, "https://user@issuer.example": false, "https://issuer.example#part": false, "ftp://issuer.example": false, "file:///etc/passwd": false,
		"http://localhost.example": false, "http://127.0.0.1.example": false, "https:issuer.example": false, "https://[::1": false} {
		if err := CheckURL(address); (err == nil) != good {
			t.Errorf("CheckURL(%q) = %v", address, err)
		}
	}
	if _, err := New("no certificate"); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("New without certificates in its text: %v", err)
	}
}

func TestPool(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	var pool Pool
	first, err := pool.Get(authority(server))
	if err != nil {
		t.Fatal(err)
	}
	if second, err := pool.Get(authority(server)); second != first || err != nil {
		t.Errorf("the same authorities give %p, then %p, %v", first, second, err)
	}
	if other, err := pool.Get(""); other == first || err != nil {
		t.Errorf("other authorities give the same client, %v", err)
	}
	for i := range 2 * maxPooled {
		if _, err := pool.Get(authority(server) + strings.Repeat("\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(pool.kept) > maxPooled {
		t.Errorf("%d clients are kept", len(pool.kept))
	}
	if _, err := pool.Get("nothing"); err == nil {
		t.Error("text without certificates gives a client")
	}
}
