package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/server/config"
)

func TestPathsThatAreNotCanonicalAreRefused(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	for _, tc := range []struct {
		target string
		status int
		path   string // what the pipeline sees
	}{
		{"/v1/secret/a", 204, "secret/a"},
		{"/v1/secret/a/", 204, "secret/a"},
		{"/v1/secret/a%20b", 204, "secret/a b"},
		{"/v1/secret/%C3%A9", 204, "secret/é"},
		{"/v1/secret/a%252Fb", 204, "secret/a%2Fb"},
		{"/v1/secret/...", 204, "secret/..."},
		{"/v1/secret/.a", 204, "secret/.a"},
		{"/v1/secret/a%3Fb", 204, "secret/a?b"},
		{"/v1/secret//a", 400, ""},
		{"/v1//secret/a", 400, ""},
		{"/v1/secret/a//", 400, ""},
		{"/v1/secret/../sys/policies", 400, ""},
		{"/v1/secret/./a", 400, ""},
		{"/v1/secret/..", 400, ""},
		{"/v1/secret/../", 400, ""},
		{"/v1/secret/%2e%2e/a", 400, ""},
		{"/v1/secret/%2E/a", 400, ""},
		{"/v1/secret/a%2Fb", 400, ""},
		{"/v1/secret/a%2fb", 400, ""},
		{"/v1/secret/%41%2f", 400, ""},
		{"/v1/secret/a%00", 400, ""},
		{"/v1/secret/a%0Ab", 400, ""},
		{"/v1/secret/a%7F", 400, ""},
		{"/v1/secret/%C2%85", 400, ""}, // a C1 control
		{"/v1/secret/%ff", 400, ""},
		{"/v1/secret/%C0%AF", 400, ""}, // an overlong slash
		{"/v1/" + strings.Repeat("a", MaxPath+1), 400, ""},
		{"/v1//", 400, ""},
		{"/v1/", 404, ""},
		{"/v1", 404, ""},
		{"/v2/secret/a", 404, ""},
		{"/", 404, ""},
		{"//v1/secret/a", 404, ""},
	} {
		rec.seen = nil
		w := do(t, plain(s), "GET", tc.target, "")
		if w.Code != tc.status || w.Header().Get("Location") != "" {
			t.Errorf("GET %s = %d (Location %q), want %d", tc.target, w.Code, w.Header().Get("Location"), tc.status)
		}
		if got := rec.seen; tc.path == "" && got != nil {
			t.Errorf("GET %s reached the pipeline as %q", tc.target, got.Path)
		} else if tc.path != "" && (got == nil || got.Path != tc.path) {
			t.Errorf("GET %s reached the pipeline as %+v, want path %q", tc.target, got, tc.path)
		}
	}
}

// An OCSP request has slashes in its base64, which clients encode or not (RFC 6960, A.1).
func TestOCSPRequestsInPathsHaveOneSpelling(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	text := strings.Repeat("MEow", 12) + "SD+/AB=="
	for target, want := range map[string]string{
		"/v1/pki/ocsp/" + strings.ReplaceAll(text, "/", "%2F"):                                 "pki/ocsp/" + strings.Repeat("MEow", 12) + "SD-_AB",
		"/v1/pki/ocsp/" + strings.ReplaceAll(strings.ReplaceAll(text, "/", "%2f"), "+", "%2B"): "pki/ocsp/" + strings.Repeat("MEow", 12) + "SD-_AB",
		"/v1/pki/ocsp//" + text:                                 "pki/ocsp/_" + strings.Repeat("MEow", 12) + "SD-_AB",
		"/v1/pki/ocsp/short%2Fa":                                "",
		"/v1/pki/ocsp/" + strings.Repeat("MEow", 20) + "%2F..":  "",
		"/v1/pki/ocsp/" + strings.Repeat("MEow", 20) + "%2F%00": "",
		"/v1/kv//ocsp/" + strings.Repeat("MEow", 20):            "",
		"/v1/kv/../ocsp/" + strings.Repeat("MEow", 20):          "",
		"/v1/kv/data/a%2F" + strings.Repeat("MEow", 20):         "",
	} {
		rec.seen = nil
		w := do(t, plain(s), "GET", target, "")
		switch {
		case want == "" && (w.Code != 400 || rec.seen != nil):
			t.Errorf("GET %s = %d, reached the pipeline as %+v", target, w.Code, rec.seen)
		case want != "" && (rec.seen == nil || rec.seen.Path != want):
			t.Errorf("GET %s = %d, reached the pipeline as %+v, want %s", target, w.Code, rec.seen, want)
		}
	}
}

func TestBinaryBodiesBecomeAField(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	post := func(body string) int {
		rec.seen = nil
		r := httptest.NewRequest("POST", "/v1/pki/ocsp", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/ocsp-request")
		w := httptest.NewRecorder()
		plain(s).ServeHTTP(w, r)
		return w.Code
	}
	if code := post("0\x03\x02\x01\x05"); code != 204 || rec.seen == nil || rec.seen.Fields["body"] != "MAMCAQU=" || rec.seen.Body != nil {
		t.Errorf("answered %d, seen as %+v", code, rec.seen)
	}
	if code := post("0" + strings.Repeat("x", 4<<10)); code != 413 || rec.seen != nil {
		t.Errorf("a large one is answered %d, seen as %+v", code, rec.seen)
	}
}

func TestMethodsBecomeOperations(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	for _, tc := range []struct {
		method, query string
		status        int
		op            conclave.Operation
		path          string
	}{
		{"GET", "", 204, conclave.Read, "kv/a"},
		{"HEAD", "", 204, conclave.Read, "kv/a"},
		{"GET", "?list=true", 204, conclave.List, "kv/a/"},
		{"GET", "?list=1", 204, conclave.List, "kv/a/"},
		{"GET", "?list=false", 204, conclave.Read, "kv/a"},
		{"GET", "?list=maybe", 400, 0, ""},
		{"GET", "?list=true&list=true", 400, 0, ""},
		{"GET", "?scan=true", 204, conclave.Scan, "kv/a/"},
		{"GET", "?scan=nope", 400, 0, ""},
		{"GET", "?list=true&scan=true", 400, 0, ""},
		{"GET", "?a=%zz", 400, 0, ""},
		{"GET", "?a=%ff", 400, 0, ""},
		{"GET", "?a=1;b=2", 400, 0, ""},
		{"LIST", "", 204, conclave.List, "kv/a/"},
		{"SCAN", "", 204, conclave.Scan, "kv/a/"},
		{"POST", "", 204, conclave.Update, "kv/a"},
		{"PUT", "", 204, conclave.Update, "kv/a"},
		{"DELETE", "", 204, conclave.Delete, "kv/a"},
		{"TRACE", "", 405, 0, ""},
		{"list", "", 405, 0, ""},
	} {
		rec.seen = nil
		w := do(t, plain(s), tc.method, "http://vault/v1/kv/a"+tc.query, "")
		if w.Code != tc.status {
			t.Errorf("%s %s = %d, want %d", tc.method, tc.query, w.Code, tc.status)
		}
		if tc.op != 0 && (rec.seen == nil || rec.seen.Operation != tc.op || rec.seen.Path != tc.path) {
			t.Errorf("%s %s reached the pipeline as %+v, want %s %s", tc.method, tc.query, rec.seen, tc.op, tc.path)
		}
	}
}

func TestHeadersBecomeTheRequest(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), func(c *Config) {
		c.Headers = func() []string { return []string{"X-Correlation-Id", "X-Vault-Token", "X-Vault-Mfa"} }
	})
	w := do(t, plain(s), "GET", "/v1/kv/a?help=1&version=2&x=1&x=2", "", "X-Vault-MFA: phone:123456", "x-vault-mfa: key", "X-Vault-Token: hvs.one", "Authorization: Bearer hvs.two",
		"X-Vault-Namespace: /team/a/", "X-Vault-Wrap-TTL: 1m", "X-Correlation-ID: c-1", "X-Vault-Request: true", "X-Vault-No-Request-Forwarding: true")
	got := rec.seen
	if w.Code != 204 || got == nil {
		t.Fatalf("status = %d, want 204", w.Code)
	}
	if got.Token.Reveal() != "hvs.one" || got.Namespace != "team/a/" || got.WrapTTL != time.Minute || !got.Help || got.ID == "" {
		t.Errorf("request = %+v", got)
	}
	if len(got.MFA) != 2 || got.MFA[0].Reveal() != "phone:123456" || got.MFA[1].Reveal() != "key" {
		t.Errorf("%d passcodes", len(got.MFA))
	}
	if want := map[string]any{"version": "2", "x": []any{"1", "2"}}; !reflect.DeepEqual(got.Fields, want) {
		t.Errorf("fields = %v, want %v", got.Fields, want)
	}
	if want := map[string][]string{"X-Correlation-Id": {"c-1"}}; !reflect.DeepEqual(got.Header, want) {
		t.Errorf("header = %v, want %v", got.Header, want)
	}
	if want := netip.MustParseAddrPort("192.0.2.1:1234"); got.Remote != want {
		t.Errorf("remote = %v, want %v", got.Remote, want)
	}
	if w.Header().Get("X-Vault-Namespace") != "team/a/" {
		t.Errorf("echoed namespace = %q, want team/a/", w.Header().Get("X-Vault-Namespace"))
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", w.Header().Get("Cache-Control"))
	}
}

func TestHeadersThatAreRefused(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	for _, tc := range []struct {
		lines  []string
		status int
	}{
		{[]string{"X-Vault-Wrap-TTL: 60"}, 204},
		{[]string{"X-Vault-Wrap-TTL: -1s"}, 400},
		{[]string{"X-Vault-Wrap-TTL: soon"}, 400},
		{[]string{"X-Vault-Wrap-TTL: 60", "X-Vault-Wrap-Format: jwt"}, 400},
		{[]string{"X-Vault-Namespace: root"}, 204},
		{[]string{"X-Vault-Namespace: /"}, 204},
		{[]string{"X-Vault-Namespace: a/../b"}, 400},
		{[]string{"X-Vault-Namespace: a//b"}, 400},
		{[]string{"X-Vault-Namespace: a", "X-Vault-Namespace: b"}, 400},
		{[]string{"X-Vault-Token: a", "X-Vault-Token: b"}, 400},
		{[]string{"X-Vault-Index: nonsense"}, 400},
		{[]string{"Authorization: Basic dXNlcjpwdw=="}, 204},
	} {
		if w := do(t, plain(s), "GET", "/v1/kv/a", "", tc.lines...); w.Code != tc.status {
			t.Errorf("%v = %d, want %d", tc.lines, w.Code, tc.status)
		}
	}
	if !rec.seen.Token.Empty() {
		t.Error("basic authorisation was taken for a token")
	}
	if w := do(t, plain(s), "GET", "/v1/kv/a", "", "Authorization: bearer hvs.b"); w.Code != 204 || rec.seen.Token.Reveal() != "hvs.b" {
		t.Errorf("bearer token was not taken: %d", w.Code)
	}
}

func TestBodies(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	const form = "Content-Type: application/x-www-form-urlencoded"
	for _, tc := range []struct {
		method, body string
		header       []string
		status       int
		fields       map[string]any
	}{
		{"POST", `{"a": 1, "b": {"c": [true, null, "x"]}}`, nil, 204, map[string]any{"a": json.Number("1"), "b": map[string]any{"c": []any{true, nil, "x"}}}},
		{"POST", `{"a":1}`, []string{"Content-Type: text/plain"}, 204, map[string]any{"a": json.Number("1")}},
		{"POST", `{"a":1}`, []string{form}, 204, map[string]any{"a": json.Number("1")}},
		{"PUT", `a=1&b=x&b=y`, []string{form + "; charset=utf-8"}, 204, map[string]any{"a": "1", "b": []any{"x", "y"}}},
		{"PUT", `a=%zz`, []string{form}, 400, nil},
		{"PUT", "a=\xff", []string{form}, 400, nil},
		{"PUT", `a=1`, nil, 400, nil},
		{"POST", "", nil, 204, nil},
		{"POST", "null", nil, 204, nil},
		{"POST", "[1]", nil, 400, nil},
		{"POST", `"a"`, nil, 400, nil},
		{"POST", `{"a":1}{"a":2}`, nil, 400, nil},
		{"POST", `{"a":1,"a":2}`, nil, 400, nil},
		{"POST", `{"a":1}`, []string{"Content-Encoding: gzip"}, 415, nil},
		{"PATCH", `{"a":1}`, []string{"Content-Type: application/merge-patch+json"}, 204, map[string]any{"a": json.Number("1")}},
		{"PATCH", `{"a":1}`, []string{"Content-Type: application/json"}, 415, nil},
		{"PATCH", `{"a":1}`, nil, 400, nil},
		{"GET", `{"a":1}`, nil, 204, nil},
		{"DELETE", `{"a":1}`, nil, 204, nil},
	} {
		rec.seen = nil
		w := do(t, plain(s), tc.method, "/v1/kv/a", tc.body, tc.header...)
		if w.Code != tc.status {
			t.Errorf("%s %q %v = %d %s, want %d", tc.method, tc.body, tc.header, w.Code, w.Body, tc.status)
		}
		if tc.status == 204 && (rec.seen == nil || !reflect.DeepEqual(rec.seen.Fields, tc.fields)) {
			t.Errorf("%s %q gave fields %v, want %v", tc.method, tc.body, rec.seen, tc.fields)
		}
	}
	do(t, plain(s), "POST", "/v1/sys/seal?node=n1", "")
	if want := map[string]any{"node": "n1"}; !reflect.DeepEqual(rec.seen.Fields, want) {
		t.Errorf("a write without a body took fields %v, want those of the query %v", rec.seen.Fields, want)
	}
}

func TestBodiesOverTheirLimitAre413(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	e := s.Endpoint(config.Listener{MaxRequestSize: 1000})
	fits := `{"a":"` + strings.Repeat("x", 1000-8) + `"}`
	if w := do(t, e, "POST", "/v1/kv/a", fits); w.Code != 204 {
		t.Errorf("a body of %d bytes = %d, want 204", len(fits), w.Code)
	}
	if w := do(t, e, "POST", "/v1/kv/a", fits+" "); w.Code != 413 {
		t.Errorf("a body of %d bytes = %d, want 413", len(fits)+1, w.Code)
	}
	if w := do(t, plain(s), "POST", "/v1/kv/a", strings.Repeat(" ", MaxBody+1)); w.Code != 413 {
		t.Errorf("a body of more than 32 MiB = %d, want 413", w.Code)
	}
	if w := do(t, plain(s), "POST", "/v1/sys/unseal", strings.Repeat(" ", maxStatusBody+1)); w.Code != 413 {
		t.Errorf("an unseal body of more than 1 MiB = %d, want 413", w.Code)
	}
	if used := s.bytes.used.Load(); used != 0 {
		t.Errorf("%d bytes are still held after all requests", used)
	}
}

func TestErrorsBecomeStatusCodes(t *testing.T) {
	const internal = `{"errors":["internal error, request 11111111-2222-4333-8444-555555555555"]}`
	for _, tc := range []struct {
		err    error
		status int
		body   string
		retry  string
	}{
		{conclave.Errorf(conclave.Invalid, "bad name"), 400, `{"errors":["bad name"]}`, ""},
		{conclave.Errorf(conclave.Denied, "permission denied"), 403, `{"errors":["permission denied"]}`, ""},
		{&conclave.Error{Kind: conclave.NotFound}, 404, `{"errors":[]}`, ""},
		{conclave.Errorf(conclave.NotFound, "no handler"), 404, `{"errors":["no handler"]}`, ""},
		{conclave.Errorf(conclave.Unsupported, "unsupported operation"), 405, `{"errors":["unsupported operation"]}`, ""},
		{conclave.Errorf(conclave.Precondition, "index"), 412, `{"errors":["index"]}`, ""},
		{conclave.Errorf(conclave.TooLarge, "too large"), 413, `{"errors":["too large"]}`, ""},
		{conclave.Errorf(conclave.MediaType, "type"), 415, `{"errors":["type"]}`, ""},
		{&conclave.Error{Kind: conclave.Limited, Message: "quota", RetryAfter: 1500 * time.Millisecond}, 429, `{"errors":["quota"]}`, "2"},
		{&conclave.Error{Kind: conclave.Sealed}, 503, `{"errors":["Vault is sealed"]}`, ""},
		{&conclave.Error{Kind: conclave.Unavailable}, 503, `{"errors":["unavailable"]}`, "1"},
		{&conclave.Error{Kind: conclave.Unknown}, 500, `{"errors":["` + unknownMessage + `"]}`, ""},
		{context.DeadlineExceeded, 500, `{"errors":["` + unknownMessage + `"]}`, ""},
		{conclave.Errorf(conclave.Internal, "disk of 10.0.0.1"), 500, internal, ""},
		{errors.New("disk of 10.0.0.1"), 500, internal, ""},
		{&conclave.Error{Kind: 200, Message: "from the future"}, 500, internal, ""},
		{fmt.Errorf("token hvs.secret: %w", conclave.Errorf(conclave.Denied, "no")), 403, `{"errors":["no"]}`, ""},
		{&conclave.Error{Kind: conclave.Invalid, Message: "part", Data: map[string]int{"n": 1}}, 400, `{"errors":["part"],"data":{"n":1}}`, ""},
	} {
		s, log := newTestServer(t, &recorder{err: tc.err}, servingVault(), nil)
		w := do(t, plain(s), "GET", "/v1/kv/a", "")
		if got := strings.TrimSpace(w.Body.String()); w.Code != tc.status || got != tc.body || w.Header().Get("Retry-After") != tc.retry {
			t.Errorf("%v = %d %s (Retry-After %q), want %d %s (%q)", tc.err, w.Code, got, w.Header().Get("Retry-After"), tc.status, tc.body, tc.retry)
		}
		if w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%v: Content-Type = %q, want exactly application/json", tc.err, w.Header().Get("Content-Type"))
		}
		if strings.Contains(tc.body, "internal error") != strings.Contains(log.String(), "request failed") {
			t.Errorf("%v: the log holds %s", tc.err, log)
		}
	}
}

func TestAPanicFailsItsRequestAlone(t *testing.T) {
	rec := &recorder{resp: &conclave.Response{}}
	calls := 0
	s, log := newTestServer(t, handlerFunc(func(ctx context.Context, req *conclave.Request) (*conclave.Response, error) {
		if calls++; calls == 1 {
			panic("canary-value of the request")
		}
		return rec.Handle(ctx, req)
	}), servingVault(), nil)
	if w := do(t, plain(s), "POST", "/v1/kv/a", `{"password":"canary-value"}`, "X-Vault-Token: canary-value"); w.Code != 500 || strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("a panic answered %d %s, want 500 without a stack", w.Code, w.Body)
	}
	if strings.Contains(log.String(), "canary-value") || !strings.Contains(log.String(), "TestAPanicFailsItsRequestAlone") {
		t.Errorf("the log should hold the stack and no request data: %s", log)
	}
	if w := do(t, plain(s), "GET", "/v1/kv/a", ""); w.Code != 204 {
		t.Errorf("the request after a panic = %d, want 204", w.Code)
	}
	if n, held := s.inFlight.used.Load(), s.bytes.used.Load(); n != 0 || held != 0 {
		t.Errorf("%d requests and %d bytes are still counted after a panic", n, held)
	}
}

func TestTheLogHoldsNoSecrets(t *testing.T) {
	s, log := newTestServer(t, &recorder{err: errors.New("broken")}, servingVault(), nil)
	do(t, plain(s), "POST", "/v1/kv/a?x=canary-value", `{"password":"canary-value"}`, "X-Vault-Token: canary-value", "Authorization: Bearer canary-value")
	if out := log.String(); strings.Contains(out, "canary-value") || !strings.Contains(out, `"path":"/v1/kv/a"`) || !strings.Contains(out, "11111111-2222") {
		t.Errorf("log = %s", out)
	}
}

func TestRequestsBeyondTheLimitsAreRefusedForNow(t *testing.T) {
	var inner, status int
	var s *Server
	s, _ = newTestServer(t, handlerFunc(func(context.Context, *conclave.Request) (*conclave.Response, error) {
		w := do(t, plain(s), "GET", "/v1/kv/b", "")
		inner = w.Code
		if w.Header().Get("Retry-After") == "" {
			t.Error("a refusal for load has no Retry-After")
		}
		status = do(t, plain(s), "GET", "/v1/sys/seal-status", "").Code
		return &conclave.Response{}, nil
	}), servingVault(), func(c *Config) { c.Limits.InFlight = 1 })
	if w := do(t, plain(s), "GET", "/v1/kv/a", ""); w.Code != 204 || inner != 503 || status != 200 {
		t.Errorf("first, second and status request = %d, %d, %d, want 204, 503, 200", w.Code, inner, status)
	}
	s, _ = newTestServer(t, &recorder{resp: &conclave.Response{}}, servingVault(), func(c *Config) { c.Limits.Bytes = 10_000 })
	if w := do(t, plain(s), "POST", "/v1/kv/a", `{"a":"`+strings.Repeat("x", 2000)+`"}`); w.Code != 204 {
		t.Errorf("a body within the budget = %d, want 204", w.Code)
	}
	if w := do(t, plain(s), "POST", "/v1/kv/a", `{"a":"`+strings.Repeat("x", 9000)+`"}`); w.Code != 503 {
		t.Errorf("a body beyond the budget = %d, want 503", w.Code)
	}
	if used := s.bytes.used.Load(); used != 0 {
		t.Errorf("%d bytes are still held", used)
	}
}

func TestOptionsAnswersWithoutAllowingAnyOrigin(t *testing.T) {
	s, _ := newTestServer(t, &recorder{}, servingVault(), nil)
	w := do(t, plain(s), "OPTIONS", "/v1/kv/a", "", "Origin: https://evil.example", "Access-Control-Request-Method: GET")
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("OPTIONS = %d, allowed origin %q", w.Code, w.Header().Get("Access-Control-Allow-Origin"))
	}
}

func TestForwardedFor(t *testing.T) {
	trust := config.ForwardedFor{Authorized: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, RejectNotPresent: true, RejectNotAuthorized: true}
	lax, skip, foreign := trust, trust, trust
	lax.RejectNotPresent = false
	skip.HopSkips = 1
	foreign.Authorized = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	foreignLax := foreign
	foreignLax.RejectNotAuthorized = false
	for _, tc := range []struct {
		name   string
		trust  config.ForwardedFor
		header []string
		status int
		remote string
	}{
		{"nobody is trusted", config.ForwardedFor{}, []string{"X-Forwarded-For: 1.2.3.4"}, 204, "192.0.2.1"},
		{"the last hop", trust, []string{"X-Forwarded-For: 9.9.9.9, 1.2.3.4"}, 204, "1.2.3.4"},
		{"several headers", trust, []string{"X-Forwarded-For: 9.9.9.9", "X-Forwarded-For: 1.2.3.4"}, 204, "1.2.3.4"},
		{"one hop skipped", skip, []string{"X-Forwarded-For: 1.2.3.4, 9.9.9.9"}, 204, "1.2.3.4"},
		{"too few hops", skip, []string{"X-Forwarded-For: 1.2.3.4"}, 400, ""},
		{"IPv6", trust, []string{"X-Forwarded-For: 2001:db8::1"}, 204, "2001:db8::1"},
		{"nonsense", trust, []string{"X-Forwarded-For: unknown"}, 400, ""},
		{"absent", trust, nil, 400, ""},
		{"absent, lax", lax, nil, 204, "192.0.2.1"},
		{"not a proxy", foreign, []string{"X-Forwarded-For: 1.2.3.4"}, 400, ""},
		{"not a proxy, lax", foreignLax, []string{"X-Forwarded-For: 1.2.3.4"}, 204, "192.0.2.1"},
	} {
		rec := &recorder{resp: &conclave.Response{}}
		s, _ := newTestServer(t, rec, servingVault(), nil)
		w := do(t, s.Endpoint(config.Listener{ForwardedFor: tc.trust}), "GET", "/v1/kv/a", "", tc.header...)
		if w.Code != tc.status {
			t.Errorf("%s: status = %d, want %d", tc.name, w.Code, tc.status)
		}
		if tc.remote != "" && rec.seen.Remote.Addr().String() != tc.remote {
			t.Errorf("%s: remote = %v, want %s", tc.name, rec.seen.Remote, tc.remote)
		}
	}
}

func TestMetricsNeedAToken(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("up 1\n")) })
	s, _ := newTestServer(t, &recorder{}, servingVault(), func(c *Config) {
		c.Metrics = metrics
		c.AuthorizeMetrics = func(_ context.Context, req *conclave.Request) error {
			if req.Token.Reveal() != "good" {
				return conclave.Errorf(conclave.Denied, "permission denied")
			}
			return nil
		}
	})
	none, _ := newTestServer(t, &recorder{}, servingVault(), func(c *Config) { c.Metrics = metrics })
	for _, tc := range []struct {
		s      *Server
		open   bool
		target string
		header string
		status int
	}{
		{s, false, "/v1/sys/metrics?format=prometheus", "X-Vault-Token: good", 200},
		{s, false, "/v1/sys/metrics", "X-Vault-Token: good", 200},
		{s, false, "/v1/sys/metrics?format=xml", "X-Vault-Token: good", 400},
		{s, false, "/v1/sys/metrics", "X-Vault-Token: bad", 403},
		{s, true, "/v1/sys/metrics", "X-Other: 1", 200},
		{none, false, "/v1/sys/metrics", "X-Vault-Token: good", 403},
	} {
		w := do(t, tc.s.Endpoint(config.Listener{UnauthenticatedMetrics: tc.open}), "GET", tc.target, "", tc.header)
		if w.Code != tc.status {
			t.Errorf("%s, open %v, %s = %d, want %d", tc.target, tc.open, tc.header, w.Code, tc.status)
		}
	}
}
