package jwt

import (
	"crypto/sha256"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"conclave"
	"conclave/engine/enginetest"
)

// issuer is an OpenID provider with a page to log in on, over TLS.
type issuer struct {
	*httptest.Server
	t *testing.T
}

const (
	callback = "http://localhost:8250/oidc/callback"
	webpage  = "https://vault.example/ui/vault/auth/oidc/oidc/callback"
)

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	mux := http.NewServeMux()
	i := &issuer{httptest.NewTLSServer(mux), t}
	t.Cleanup(i.Close)
	users := storage.NewUserStore(i.URL)
	store := storage.NewStorageWithClients(users, map[string]*storage.Client{"vault": storage.WebClient("vault", "s3cr&t=", callback, webpage, strings.Replace(webpage, "/ui/vault", "/v1", 1))})
	provider, err := op.NewProvider(&op.Config{CryptoKey: sha256.Sum256([]byte("test")), CodeMethodS256: true}, store, op.StaticIssuer(i.URL),
		op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	mux.Handle("/", provider)
	mux.HandleFunc("GET /login/username", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<form method="post"><input name="id" value="%s"></form>`, html.EscapeString(r.FormValue("authRequestID")))
	})
	back := op.AuthCallbackURL(provider)
	mux.Handle("POST /login/username", op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := store.CheckUsernamePassword(r.FormValue("username"), r.FormValue("password"), r.FormValue("id")); err != nil {
			http.Error(w, "wrong", http.StatusForbidden)
			return
		}
		http.Redirect(w, r, back(r.Context(), r.FormValue("id")), http.StatusFound)
	}))
	return i
}

var input = regexp.MustCompile(`<input[^>]*name="([^"]*)"[^>]*value="([^"]*)"`)

// fields are those of the form on a page.
func fields(page []byte) url.Values {
	found := url.Values{}
	for _, m := range input.FindAllSubmatch(page, -1) {
		found.Set(string(m[1]), html.UnescapeString(string(m[2])))
	}
	return found
}

// browse goes with a browser from the URL that the vault gives, by way of the login page, to where the issuer sends it:
// the parameters there, of the URL or of the form that is posted to it.
func (i *issuer) browse(address string) url.Values {
	i.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		i.t.Fatal(err)
	}
	browser := i.Client()
	browser.Jar = jar
	browser.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(req.URL.String(), i.URL) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	response, err := browser.Get(address)
	if err != nil {
		i.t.Fatal(err)
	}
	page, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || response.Request.URL.Path != "/login/username" {
		i.t.Fatalf("the issuer shows no login page, but %s: %s, %v", response.Request.URL.Path, page, err)
	}
	form := fields(page)
	form.Set("username", "test-user2")
	form.Set("password", "verysecure")
	response, err = browser.PostForm(response.Request.URL.String(), form)
	if err != nil {
		i.t.Fatal(err)
	}
	defer response.Body.Close()
	if location := response.Header.Get("Location"); location != "" {
		parsed, err := url.Parse(location)
		if err != nil {
			i.t.Fatal(err)
		}
		return parsed.Query()
	}
	page, err = io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		i.t.Fatalf("after the login: status %d, %s, %v", response.StatusCode, page, err)
	}
	return fields(page)
}

// web is a mount for logins with a browser, with the role "web".
type web struct {
	*enginetest.Harness
	t      *testing.T
	issuer *issuer
}

func newWeb(t *testing.T, changed map[string]any) *web {
	t.Helper()
	w := &web{enginetest.New(t, newEngine("oidc"), enginetest.Mount(func(m *conclave.Mount) { m.Path = "auth/oidc/" })), t, newIssuer(t)}
	w.Advance(time.Until(w.Now())*-1 + time.Second) // the issuer's clock is that of this machine
	config := map[string]any{"oidc_discovery_url": w.issuer.URL, "oidc_discovery_ca_pem": authority(w.issuer.Server), "oidc_client_id": "vault", "oidc_client_secret": "s3cr&t=", "default_role": "web"}
	for name, value := range changed {
		config[name] = value
	}
	w.Data(conclave.Update, "config", config)
	w.role(nil)
	return w
}

func (w *web) role(changed map[string]any) {
	w.t.Helper()
	all := map[string]any{"user_claim": "sub", "allowed_redirect_uris": callback + "," + webpage, "oidc_scopes": "email,profile"}
	for name, value := range changed {
		all[name] = value
	}
	w.Data(conclave.Update, "role/web", all)
}

// begin gets the URL for the browser.
func (w *web) begin(changed map[string]any) string {
	w.t.Helper()
	all := map[string]any{"role": "web", "redirect_uri": callback, "client_nonce": "n0nce"}
	for name, value := range changed {
		all[name] = value
	}
	address, _ := w.Data(conclave.Update, "oidc/auth_url", all)["auth_url"].(string)
	if address == "" {
		w.t.Fatal("there is no auth_url")
	}
	return address
}

// back is what the browser brings back, as fields of the callback.
func back(from url.Values) map[string]any {
	all := map[string]any{"client_nonce": "n0nce"}
	for name := range from {
		all[name] = from.Get(name)
	}
	return all
}
