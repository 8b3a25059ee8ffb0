package integration

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"conclave/integration/lab"
)

const clientSecret = "s3cr&t="

// startIssuer starts an OpenID provider over TLS, with one client, vault. Whoever comes to its login page is logged in.
func startIssuer(t *testing.T, redirects ...string) (issuer *httptest.Server, authority string) {
	t.Helper()
	mux := http.NewServeMux()
	issuer = httptest.NewTLSServer(mux)
	t.Cleanup(issuer.Close)
	store := storage.NewStorageWithClients(storage.NewUserStore(issuer.URL), map[string]*storage.Client{"vault": storage.WebClient("vault", clientSecret, redirects...)})
	provider, err := op.NewProvider(&op.Config{CryptoKey: sha256.Sum256([]byte("test")), CodeMethodS256: true}, store, op.StaticIssuer(issuer.URL),
		op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/", provider)
	back := op.AuthCallbackURL(provider)
	mux.Handle("GET /login/username", op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("authRequestID")
		if err := store.CheckUsernamePassword("test-user2", "verysecure", id); err != nil {
			http.Error(w, "wrong", http.StatusForbidden)
			return
		}
		http.Redirect(w, r, back(r.Context(), id), http.StatusFound)
	}))
	return issuer, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Certificate().Raw}))
}

// browse goes with a browser to address and on to where the issuer sends it, which is outside the issuer.
func browse(ctx context.Context, issuer *httptest.Server, address string) (*url.URL, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{Transport: issuer.Client().Transport, Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(r.URL.String(), issuer.URL) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := browser.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return response.Location()
}

// idToken is one that the issuer gives to its client vault.
func idToken(t *testing.T, ctx context.Context, issuer *httptest.Server, redirect string) string {
	t.Helper()
	at, err := browse(ctx, issuer, issuer.URL+"/authorize?"+url.Values{"client_id": {"vault"}, "redirect_uri": {redirect}, "response_type": {"code"}, "scope": {"openid"}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {at.Query().Get("code")}, "redirect_uri": {redirect}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, issuer.URL+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("vault", url.QueryEscape(clientSecret))
	response, err := issuer.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var got struct {
		IDToken string `json:"id_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil || got.IDToken == "" {
		t.Fatalf("the issuer gives no token: status %d, %v", response.StatusCode, err)
	}
	return got.IDToken
}

// TestSignedTokensOnEachNode has whoever shows a real issuer's token log in everywhere.
func TestSignedTokensOnEachNode(t *testing.T) {
	const redirect = "https://app.example/callback"
	issuer, authority := startIssuer(t, redirect)
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "jwt")
	mustWrite(t, ctx, root, "auth/jwt/config", map[string]any{"oidc_discovery_url": issuer.URL, "oidc_discovery_ca_pem": authority, "bound_issuer": issuer.URL})
	mustWrite(t, ctx, sdk(t, l, 2), "auth/jwt/role/ci", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": "ci", "token_ttl": "10m"})
	token := idToken(t, ctx, issuer, redirect)
	eachNode(t, ctx, l, nodesOf(t, l), loginFields{"auth/jwt/login", map[string]any{"role": "ci", "jwt": token}}, "ci", "default")
	forged := token[:len(token)-8] + "AAAAAAAA"
	for n := 1; n <= 3; n++ {
		_, err := anonymous(t, l, n).Auth().Login(ctx, loginFields{"auth/jwt/login", map[string]any{"role": "ci", "jwt": forged}})
		wantRefusal(t, err, http.StatusBadRequest, "")
	}
}

// walk is a login with a browser that begins on one node and ends on another.
type walk struct {
	issuer   *httptest.Server
	begin    *api.Client
	redirect string
}

// Login is what an auth method of Vault's client does.
func (w walk) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	begun, err := w.begin.Logical().WriteWithContext(ctx, "auth/oidc/oidc/auth_url", map[string]any{"role": "dev", "redirect_uri": w.redirect, "client_nonce": "n"})
	if err != nil {
		return nil, err
	}
	at, err := browse(ctx, w.issuer, begun.Data["auth_url"].(string))
	if err != nil {
		return nil, err
	}
	query := at.Query()
	query.Set("client_nonce", "n")
	return client.Logical().ReadWithDataWithContext(ctx, "auth/oidc/oidc/callback", query)
}

// TestBrowserLoginsOnEachNode has a person log in to a real issuer by way of every node, and of the command line.
func TestBrowserLoginsOnEachNode(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	redirect := "http://localhost:" + port + "/oidc/callback"
	issuer, authority := startIssuer(t, redirect)
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "oidc")
	mustWrite(t, ctx, root, "auth/oidc/config", map[string]any{"oidc_discovery_url": issuer.URL, "oidc_discovery_ca_pem": authority, "oidc_client_id": "vault", "oidc_client_secret": clientSecret})
	mustWrite(t, ctx, root, "auth/oidc/role/dev", map[string]any{"user_claim": "sub", "allowed_redirect_uris": redirect, "token_policies": "dev", "token_ttl": "10m"})
	eachNode(t, ctx, l, nodesOf(t, l), walk{issuer, anonymous(t, l, 2), redirect}, "default", "dev")
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	loginByCommand(t, ctx, l, issuer, port)
}

var shownAddress = regexp.MustCompile(`(https://\S+/authorize\S*)\n`)

// loginByCommand runs the command line's login and is the browser that it asks for.
func loginByCommand(t *testing.T, ctx context.Context, l *lab.Lab, issuer *httptest.Server, port string) {
	t.Helper()
	home := t.TempDir()
	command := exec.CommandContext(ctx, os.Getenv(binaryVariable), "login", "-method=oidc", "role=dev", "skip_browser=true", "port="+port, "-format=json")
	command.Env = append(os.Environ(), "HOME="+home, "CONCLAVE_ADDR="+l.Addrs[2], "CONCLAVE_CACERT="+l.CA, "CONCLAVE_TOKEN=", "VAULT_TOKEN=")
	var out strings.Builder
	command.Stdout = &out
	shown, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for buffer := make([]byte, 4096); !shownAddress.Match(text); {
		n, err := shown.Read(buffer)
		if text = append(text, buffer[:n]...); err != nil {
			t.Fatalf("no address is shown: %s, %v", text, err)
		}
	}
	at, err := browse(ctx, issuer, string(shownAddress.FindSubmatch(text)[1]))
	if err != nil {
		t.Fatal(err)
	}
	page, err := http.Get(at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer page.Body.Close()
	body, err := io.ReadAll(page.Body)
	if err != nil || page.StatusCode != http.StatusOK || !strings.Contains(string(body), "You are logged in") {
		t.Errorf("the browser is shown %s, %v", body, err)
	}
	rest, _ := io.ReadAll(shown)
	if err := command.Wait(); err != nil {
		t.Fatalf("login: %v\n%s%s", err, text, rest)
	}
	var answer api.Secret
	kept, err := os.ReadFile(filepath.Join(home, ".conclave-token"))
	if err != nil || json.Unmarshal([]byte(out.String()), &answer) != nil || answer.Auth == nil || answer.Auth.ClientToken != string(kept) {
		t.Fatalf("logged in as %s, %v", out.String(), err)
	}
	client := anonymous(t, l, 1)
	client.SetToken(string(kept))
	if found, err := client.Auth().Token().LookupSelfWithContext(ctx); err != nil || found.Data["display_name"] != "oidc-id2" {
		t.Errorf("looked up as %+v, %v", found, err)
	}
}
