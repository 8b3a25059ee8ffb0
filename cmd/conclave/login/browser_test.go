package login

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"conclave/cmd/conclave/client"
)

// freePort is a port that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// fetch is a page, which must have a status and say something.
func fetch(ctx context.Context, method, address, body string, status int, says string) error {
	request, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status || !strings.Contains(string(page), says) {
		return fmt.Errorf("%s %s: status %d, %s, %v, want %d with %q", method, address, response.StatusCode, page, err, status, says)
	}
	return nil
}

func TestBrowserComesBack(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		v, out, err := visitAs(t, func(string, map[string]any) map[string]any { return token }, func(back *url.URL, state string) error {
			for _, wrong := range []string{"", "?state=other&code=c", "?code=c"} { // somebody else's page: the login goes on
				if err := fetch(t.Context(), http.MethodGet, back.String()+wrong, "", http.StatusNotFound, "not the login"); err != nil {
					return err
				}
			}
			brought := url.Values{"state": {state}, "code": {"c&="}, "id_token": {"i"}}
			if method == http.MethodPost {
				return fetch(t.Context(), method, back.String(), brought.Encode(), http.StatusOK, "You are logged in")
			}
			return fetch(t.Context(), method, back.String()+"?"+brought.Encode(), "", http.StatusOK, "You are logged in")
		}, "port="+freePort(t))
		if err != nil || out != "hvs.t" {
			t.Errorf("%s: %q is printed, %v", method, out, err)
		}
		begun, ended, posted := v.got["PUT auth/oidc/oidc/auth_url"], v.got["GET auth/oidc/oidc/callback"], v.got["PUT auth/oidc/oidc/callback"]
		if begun["role"] != "dev" || begun["wrapped for"] != "" || begun["namespace"] != "team" || begun["skip_browser"] != nil || begun["client_nonce"] == "" {
			t.Errorf("%s: begun with %v", method, begun)
		}
		if ended["state"] != "st ate,ns=x" || ended["code"] != "c&=" || ended["client_nonce"] != begun["client_nonce"] || ended["wrapped for"] != "1m" || ended["namespace"] != "team" || ended["id_token"] != nil {
			t.Errorf("%s: ended with %v", method, ended)
		}
		if method == http.MethodPost && (posted["id_token"] != "i" || posted["state"] != "st ate,ns=x" || posted["wrapped for"] != "") || method == http.MethodGet && posted != nil {
			t.Errorf("%s: %v was passed on", method, posted)
		}
	}
}

func TestBrowserComesBackWithARefusal(t *testing.T) {
	v, out, err := visitAs(t, func(string, map[string]any) map[string]any { return nil }, func(back *url.URL, state string) error {
		return fetch(t.Context(), http.MethodGet, back.String()+"?"+url.Values{"state": {state}, "error": {"<b>"}}.Encode(), "", http.StatusBadRequest, "The login failed")
	}, "port="+freePort(t))
	if client.ExitCode(err) != client.ExitRemote || out != "" || v.got["GET auth/oidc/oidc/callback"]["error"] != "<b>" {
		t.Errorf("%q is printed, %v, and %v was sent", out, err, v.got)
	}
}

func TestBrowserThatMayNotComeBack(t *testing.T) {
	s, _ := start(t, "", io.Discard, io.Discard, func(string, map[string]any) map[string]any {
		return map[string]any{"data": map[string]any{"auth_url": ""}}
	})
	err := run(t.Context(), s, Command(s), "--method=oidc", "callbackhost=example.org", "callbackport=443", "callbackmethod=https", "port="+freePort(t))
	if err == nil || !strings.Contains(err.Error(), "https://example.org:443/oidc/callback") {
		t.Errorf("%v, want the address that isn't allowed", err)
	}
}
