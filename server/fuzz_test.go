package server

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"conclave"
)

// FuzzEdge sends what may come over a wire: whatever net/http lets through is answered with JSON or nothing, without a
// 500, and what reaches the pipeline is canonical.
func FuzzEdge(f *testing.F) {
	for _, seed := range []string{
		"GET /v1/secret/data/a HTTP/1.1\r\nHost: v\r\nX-Vault-Token: t\r\n\r\n",
		"LIST /v1/secret/metadata HTTP/1.1\r\nHost: v\r\nX-Vault-Namespace: a/b\r\n\r\n",
		"GET /v1/secret/../sys/raw?list=true&help=1 HTTP/1.1\r\nHost: v\r\n\r\n",
		"POST /v1/secret/a HTTP/1.1\r\nHost: v\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
		"PATCH /v1/secret/a%2fb HTTP/1.1\r\nHost: v\r\nContent-Type: application/merge-patch+json\r\nContent-Length: 2\r\n\r\n{}",
		"PUT /v1/a HTTP/1.1\r\nHost: v\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\na=b&c=%",
		"PUT /v1/sys/unseal HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"GET /v1/sys/health?standbyok=x&activecode=1e2 HTTP/1.1\r\nHost: v\r\nX-Vault-Index: djE6YTox\r\n\r\n",
		"GET http://h/v1/%c2%85 HTTP/1.1\r\nHost: v\r\nX-Vault-Wrap-TTL: 9999999999999999999s\r\n\r\n",
		"DELETE * HTTP/1.1\r\nHost: v\r\n\r\n",
		"PUT /v1/sys/init HTTP/1.1\r\nHost: v\r\nContent-Length: 30\r\n\r\n{\"secret_shares\":1e99,\"a\":[{}]",
	} {
		f.Add(seed)
	}
	var seen *conclave.Request
	handler := handlerFunc(func(_ context.Context, req *conclave.Request) (*conclave.Response, error) {
		seen = req
		return &conclave.Response{Data: req.Fields, Warnings: []string{req.Path}, TopLevel: true}, nil
	})
	vault := servingVault()
	vault.init = func(InitRequest) (*InitResult, error) { return &InitResult{}, nil }
	vault.unseal = func(UnsealRequest) (SealStatus, error) { return SealStatus{}, nil }
	s, _ := newTestServer(f, handler, vault, func(c *Config) { c.Logger = nil })
	e := plain(s)
	f.Fuzz(func(t *testing.T, wire string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire)))
		if err != nil {
			return
		}
		r.RemoteAddr = "127.0.0.1:1"
		seen = nil
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if w.Code == 500 {
			t.Fatalf("500 %s", w.Body)
		}
		if w.Code >= 300 && w.Code < 400 && r.URL.Path != "/v1/sys/health" {
			t.Fatalf("a redirect: %d", w.Code)
		}
		if w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("not JSON: %s", w.Body)
		}
		if seen != nil {
			checkCanonical(t, seen)
		}
		if n, held := s.inFlight.used.Load(), s.bytes.used.Load(); n != 0 || held != 0 {
			t.Fatalf("%d requests and %d bytes are still counted", n, held)
		}
	})
}

func checkCanonical(t *testing.T, req *conclave.Request) {
	t.Helper()
	path := req.Path
	if req.Operation == conclave.List || req.Operation == conclave.Scan {
		trimmed, ok := strings.CutSuffix(path, "/")
		if !ok {
			t.Fatalf("a listing of %q", path)
		}
		path = trimmed
	}
	paths := []string{path}
	if req.Namespace != "" {
		paths = append(paths, strings.TrimSuffix(req.Namespace, "/"))
	}
	for _, path := range paths {
		for segment := range strings.SplitSeq(path, "/") {
			if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
				t.Fatalf("%q is not canonical", path)
			}
		}
		if strings.ToValidUTF8(path, "") != path {
			t.Fatalf("%q is not UTF-8", path)
		}
	}
}
