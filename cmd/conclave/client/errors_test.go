package client

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	answer := func(code int, said ...string) error {
		return &api.ResponseError{HTTPMethod: http.MethodGet, URL: "https://127.0.0.1:8200/v1/x", StatusCode: code, Errors: said}
	}
	get := func(err error) error { return &url.Error{Op: "Get", URL: "https://127.0.0.1:8200", Err: err} }
	for _, tc := range []struct {
		name string
		err  error
		says string
		code int
	}{
		{"sealed", answer(503, "Vault is sealed"), "operator unseal", ExitRemote},
		{"locked namespace", answer(503, "API access to this namespace has been locked by an administrator"), "namespace unlock", ExitRemote},
		{"no quorum", answer(503, "no contact with a quorum"), "operator raft list-peers", ExitRemote},
		{"uninitialised", answer(400, "Vault is not initialized"), "operator init", ExitRemote},
		{"bad token", answer(403, "permission denied", "bad token"), "conclave login", ExitRemote},
		{"TLS", answer(400, "Client sent an HTTP request to an HTTPS server."), "Use https://", ExitRemote},
		{"used wrapping token", answer(400, "wrapping token is not valid or does not exist"), "known to others", ExitRemote},
		{"denied", answer(403, "permission denied"), "token capabilities", ExitRemote},
		{"not mounted", answer(404, "no handler for route"), "secrets list", ExitRemote},
		{"refused", get(syscall.ECONNREFUSED), "conclave server", ExitRemote},
		{"unknown CA", get(x509.UnknownAuthorityError{}), "-ca-cert", ExitRemote},
		{"plain HTTP", get(errors.New("http: server gave HTTP response to HTTPS client")), "http://", ExitRemote},
		{"usage", Usagef("wrong"), "wrong", ExitLocal},
		{"not there", Remotef("nothing"), "nothing", ExitRemote},
		{"wrapped", fmt.Errorf("node 2: %w", answer(503, "Vault is sealed")), "operator unseal", ExitRemote},
		{"other", errors.New("something"), "something", ExitLocal},
		{"silent", &ExitError{Code: 2}, "", 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &Session{address: "https://127.0.0.1:8200", requestID: "4711"}
			text := s.Explain(tc.err)
			if !strings.Contains(text, tc.says) || ExitCode(tc.err) != tc.code {
				t.Errorf("%q with exit code %d, want %q in it and %d", text, ExitCode(tc.err), tc.says, tc.code)
			}
			if _, ok := errors.AsType[*api.ResponseError](tc.err); ok && !strings.Contains(text, "4711") {
				t.Errorf("%q doesn't name the request", text)
			}
		})
	}
}

func TestDeniedLoginIsNoMissingToken(t *testing.T) {
	s := &Session{tokenless: true}
	for route, want := range map[string]string{"auth/userpass/login/ann": "account may be locked", "sys/mfa/validate": "A passcode is good once"} {
		denied := &api.ResponseError{StatusCode: http.StatusForbidden, URL: "https://127.0.0.1:8200/v1/" + route, Errors: []string{"permission denied"}}
		if text := s.Explain(denied); !strings.Contains(text, want) || strings.Contains(text, "No token was sent") {
			t.Errorf("a login that is denied: %q, want %q in it", text, want)
		}
	}
}

func TestMissingTokenIsSaid(t *testing.T) {
	denied := &api.ResponseError{StatusCode: http.StatusForbidden, Errors: []string{"permission denied"}}
	for tokenless, want := range map[bool]string{true: "No token was sent", false: "token capabilities"} {
		s := &Session{tokenless: tokenless}
		if text := s.Explain(denied); !strings.Contains(text, want) {
			t.Errorf("denied, without a token %t: %q, want %q in it", tokenless, text, want)
		}
	}
}
