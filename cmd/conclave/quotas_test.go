package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/server/config"
)

func TestLeaseCountHoldsForTokens(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/quotas/lease-count/few", map[string]any{"max_leases": "3", "path": "auth/token"})
	parent := v.token(map[string]any{"ttl": "1h"})
	create := func(by conclave.Secret, fields map[string]any) (*conclave.Response, error) {
		return v.do(by, conclave.Update, "auth/token/create", fields)
	}
	for range 2 {
		if _, err := create(parent, map[string]any{"ttl": "1h"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"service", "batch"} {
		if _, err := create(v.root, map[string]any{"ttl": "1h", "type": kind, "policies": "default"}); !conclave.Is(err, conclave.Limited) {
			t.Errorf("a fourth token, %s: %v, want Limited", kind, err)
		}
	}
	if _, err := v.do(parent, conclave.Update, "auth/token/renew-self", nil); err != nil {
		t.Errorf("renewing one takes a place: %v", err)
	}
	counter := func(want string) {
		t.Helper()
		if got := fmt.Sprint(v.must(conclave.Read, "sys/quotas/lease-count/few", nil)["counter"]); got != want {
			t.Errorf("%s leases are counted, want %s", got, want)
		}
	}
	counter("3")
	if _, err := v.do(parent, conclave.Update, "auth/token/revoke-self", nil); err != nil {
		t.Fatal(err)
	}
	// The children end with their parent, and are cleared in steps.
	if err := v.inNamespace(t.Context(), conclave.Namespace{ID: conclave.RootNamespace}, clearTokens); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second has nothing to do
		if err := v.quotas.returnAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	counter("0")
	last := v.token(map[string]any{"ttl": "1h"})
	counter("1")
	v.must(conclave.Update, "sys/quotas/lease-count/few", map[string]any{"max_leases": "1", "path": "auth/token"})
	if _, err := create(v.root, map[string]any{"ttl": "1h"}); !conclave.Is(err, conclave.Limited) {
		t.Errorf("a token beyond the lowered limit: %v, want Limited", err)
	}
	v.must(conclave.Delete, "sys/quotas/lease-count/few", nil)
	if _, err := v.do(last, conclave.Update, "auth/token/revoke-self", nil); err != nil {
		t.Errorf("a token whose count is gone: %v", err)
	}
	if err := v.quotas.returnAll(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPlacesGoBackWithTheirNamespace(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/quotas/lease-count/few", map[string]any{"max_leases": "3"})
	v.must(conclave.Update, "sys/namespaces/team", nil)
	create := func() (*conclave.Response, error) {
		return v.do(v.root, conclave.Update, "team/auth/token/create", map[string]any{"ttl": "1h", "policies": "default"})
	}
	var last conclave.Secret
	for range 3 {
		resp, err := create()
		if err != nil {
			t.Fatal(err)
		}
		last = resp.Auth.ClientToken
	}
	if _, err := create(); !conclave.Is(err, conclave.Limited) {
		t.Errorf("a fourth token: %v, want Limited", err)
	}
	if _, err := v.do(last, conclave.Update, "team/auth/token/revoke-self", nil); err != nil {
		t.Fatal(err)
	}
	if err := v.quotas.returnAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(v.must(conclave.Read, "sys/quotas/lease-count/few", nil)["counter"]); got != "2" {
		t.Errorf("%s leases are counted after one was revoked, want 2", got)
	}
	v.must(conclave.Delete, "sys/namespaces/team", nil)
	if got := fmt.Sprint(v.must(conclave.Read, "sys/quotas/lease-count/few", nil)["counter"]); got != "0" {
		t.Errorf("%s leases are counted when their namespace is gone, want 0", got)
	}
}

func TestParallelTokensNeverExceedALeaseCount(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/quotas/lease-count/few", map[string]any{"max_leases": "7"})
	outcomes := make([]error, 40)
	var group errgroup.Group
	for i := range outcomes {
		group.Go(func() error {
			_, outcomes[i] = v.do(v.root, conclave.Update, "auth/token/create", map[string]any{"ttl": "1h"})
			return nil
		})
	}
	_ = group.Wait()
	made := 0
	for _, err := range outcomes {
		switch {
		case err == nil:
			made++
		case !conclave.Is(err, conclave.Limited):
			t.Error(err)
		}
	}
	if made != 7 {
		t.Errorf("%d tokens were made, want 7", made)
	}
}

// limit has the vault keep rate limits.
func (v *vault) limit() {
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	group.Go(func() error { return v.quotas.limiter.Run(ctx) })
	v.t.Cleanup(func() {
		cancel()
		_ = group.Wait()
	})
	v.daemon.cluster.WhileLeader("rate limits", v.quotas.ledger.Lead)
}

// follow has the limiter go by the quotas as they are.
func (v *vault) follow() {
	v.t.Helper()
	s, err := v.quotas.snapshot()
	if err != nil {
		v.t.Fatal(err)
	}
	v.quotas.limiter.Set(s)
}

func TestLoginsOfARoleAreLimited(t *testing.T) {
	v := openVault(t)
	v.limit()
	v.must(conclave.Update, "sys/auth/approle", map[string]any{"type": "approle"})
	v.must(conclave.Update, "sys/quotas/rate-limit/web", map[string]any{"path": "auth/approle", "rate": "2", "interval": "1h", "role": "web"})
	v.follow()
	for role, want := range map[string]int{"web": 2, "batch": 4} {
		v.must(conclave.Update, "auth/approle/role/"+role, map[string]any{"bind_secret_id": "false", "token_bound_cidrs": "127.0.0.0/8", "secret_id_bound_cidrs": "127.0.0.0/8"})
		id := v.must(conclave.Read, "auth/approle/role/"+role+"/role-id", nil)["role_id"]
		in := 0
		for range 4 {
			req := &conclave.Request{ID: "test-" + hex.EncodeToString(v.nextID()), Operation: conclave.Update, Path: "auth/approle/login",
				Fields: map[string]any{"role_id": id}, Remote: netip.MustParseAddrPort("127.0.0.1:1")}
			_, err := v.pipeline.Handle(t.Context(), req)
			if err == nil {
				in++
			} else if !conclave.Is(err, conclave.Limited) {
				t.Errorf("a login: %v", err)
			}
		}
		if in != want {
			t.Errorf("%d of 4 logins with the role %s succeeded, want %d", in, role, want)
		}
	}
}

// TestRateLimitIsHeldBeforeTheBody drives the edge of a node: a request that is refused is neither read nor recorded.
func TestRateLimitIsHeldBeforeTheBody(t *testing.T) {
	v := openVault(t)
	v.limit()
	v.must(conclave.Update, "sys/namespaces/team", nil)
	v.must(conclave.Update, "sys/quotas/rate-limit/kv", map[string]any{"path": "secret/data/a*", "rate": "2", "interval": "1h"})
	v.must(conclave.Update, "sys/quotas/rate-limit/all", map[string]any{"rate": "1", "interval": "1h", "inheritable": false})
	v.follow()
	endpoint := v.server.Endpoint(config.Listener{})
	request := func(method, path, body string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, "/v1/"+path, strings.NewReader(body))
		req.Header.Set("X-Vault-Token", v.root.Reveal())
		w := httptest.NewRecorder()
		endpoint.ServeHTTP(w, req)
		return w
	}
	for i, want := range []int{200, 200, 429, 429} {
		w := request("POST", "secret/data/abc", `{"data":{"a":1}}`)
		if w.Code != want || (want == 429) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("write %d: %d %s, want %d", i, w.Code, w.Body, want)
		}
	}
	before := len(v.records(0))
	if w := request("POST", "secret/data/abc", "not JSON"); w.Code != 429 || !bytes.Contains(w.Body.Bytes(), []byte("rate limit quota exceeded")) {
		t.Errorf("a body that can't be read: %d %s, want 429", w.Code, w.Body)
	}
	if after := len(v.records(0)); after != before {
		t.Errorf("%d records of a refused request, want none", after-before)
	}
	v.must(conclave.Update, "sys/quotas/config", map[string]any{"enable_rate_limit_audit_logging": true})
	v.follow()
	before = len(v.records(0))
	request("POST", "secret/data/abc", "not JSON")
	if records := v.records(0); len(records) != before+1 || !bytes.Contains(records[before].Error, []byte("rate limit quota exceeded")) {
		t.Errorf("%d records of a refused request, want one that says why", len(records)-before)
	}
	for _, c := range []struct {
		path string
		want int
	}{
		{"secret/data/b", http.StatusNotFound}, {"secret/data/b", 429}, {"sys/mounts", 429}, // the whole vault's
		{"team/sys/mounts", 200}, {"team/sys/mounts", 200}, // not below it
		{"sys/health", 200}, {"sys/health", 200},
	} {
		if w := request("GET", c.path, ""); w.Code != c.want {
			t.Errorf("GET %s: %d %s, want %d", c.path, w.Code, w.Body, c.want)
		}
	}
}

func TestQuotasAreDefinedAsInVault(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/namespaces/team", nil)
	v.must(conclave.Update, "sys/auth/approle", map[string]any{"type": "approle"})
	tests := []struct {
		kind   string
		fields map[string]any
		want   string // "" if the definition is refused
	}{
		{"rate-limit", map[string]any{"path": "/secret/*", "rate": "100", "interval": "600", "block_interval": "600"},
			`map[block_interval:600 interval:600 name:x path:secret/* rate:100 role: type:rate-limit]`},
		{"rate-limit", map[string]any{"rate": "1.5", "interval": "2m"},
			`map[block_interval:0 inheritable:true interval:120 name:x path: rate:1.5 role: type:rate-limit]`},
		{"rate-limit", map[string]any{"path": "team", "rate": "1", "group_by": "none"},
			`map[block_interval:0 group_by:none inheritable:false interval:1 name:x path:team/ rate:1 role: type:rate-limit]`},
		{"rate-limit", map[string]any{"path": "auth/approle", "rate": "1", "role": "web"},
			`map[block_interval:0 interval:1 name:x path:auth/approle/ rate:1 role:web type:rate-limit]`},
		{"lease-count", map[string]any{"path": "team/sys", "max_leases": "5"},
			`map[counter:0 max_leases:5 name:x path:team/sys/ role: type:lease-count]`},
		{"rate-limit", map[string]any{"path": "/not-exist", "rate": "1"}, ""},
		{"rate-limit", map[string]any{"path": "secret", "rate": "0"}, ""},
		{"rate-limit", map[string]any{"path": "secret", "rate": "-1"}, ""},
		{"rate-limit", map[string]any{"path": "secret", "rate": "1", "role": "web"}, ""},
		{"rate-limit", map[string]any{"path": "secret", "rate": "1", "inheritable": true}, ""},
		{"rate-limit", map[string]any{"path": "auth/approle/login", "rate": "1", "role": "web"}, ""},
		{"rate-limit", map[string]any{"path": "secret/a*b", "rate": "1"}, ""},
		{"rate-limit", map[string]any{"path": "secret", "rate": "1", "group_by": "entity_then_ip"}, ""},
		{"lease-count", map[string]any{"max_leases": "0"}, ""},
	}
	for _, test := range tests {
		path := "sys/quotas/" + test.kind + "/x"
		_, err := v.do(v.root, conclave.Update, path, test.fields)
		if test.want == "" {
			if !conclave.Is(err, conclave.Invalid) {
				t.Errorf("%v: %v, want Invalid", test.fields, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", test.fields, err)
			continue
		}
		if got := fmt.Sprint(v.must(conclave.Read, path, nil)); got != test.want {
			t.Errorf("%v is read as %s, want %s", test.fields, got, test.want)
		}
		if _, err := v.do(v.root, conclave.Update, "sys/quotas/"+test.kind+"/y", test.fields); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), `"x"`) {
			t.Errorf("a second of the same: %v, want Invalid that names the first", err)
		}
		if got := fmt.Sprint(v.must(conclave.List, "sys/quotas/"+test.kind+"/", nil)["keys"]); got != "[x]" {
			t.Errorf("quotas are listed as %s", got)
		}
		v.must(conclave.Delete, path, nil)
		if _, err := v.do(v.root, conclave.Read, path, nil); !conclave.Is(err, conclave.NotFound) {
			t.Errorf("a deleted quota: %v, want NotFound", err)
		}
	}
	config := func(want string) {
		t.Helper()
		if got := fmt.Sprint(v.must(conclave.Read, "sys/quotas/config", nil)); got != want {
			t.Errorf("the configuration is %s, want %s", got, want)
		}
	}
	config("map[absolute_rate_limit_exempt_paths:[] enable_rate_limit_audit_logging:false enable_rate_limit_response_headers:false " +
		"rate_limit_exempt_paths:[sys/generate-recovery-token/attempt sys/generate-recovery-token/update sys/generate-root/attempt sys/generate-root/update sys/health sys/seal-status sys/unseal]]")
	v.must(conclave.Update, "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true})
	config("map[absolute_rate_limit_exempt_paths:[] enable_rate_limit_audit_logging:false enable_rate_limit_response_headers:true rate_limit_exempt_paths:[]]")
}
