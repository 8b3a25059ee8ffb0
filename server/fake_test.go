package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/server/config"
)

// handlerFunc is a pipeline made of one function.
type handlerFunc func(ctx context.Context, req *conclave.Request) (*conclave.Response, error)

func (f handlerFunc) Handle(ctx context.Context, req *conclave.Request) (*conclave.Response, error) {
	return f(ctx, req)
}

// recorder is a pipeline that keeps the last request and gives a fixed answer.
type recorder struct {
	seen *conclave.Request
	resp *conclave.Response
	err  error
}

func (r *recorder) Handle(_ context.Context, req *conclave.Request) (*conclave.Response, error) {
	r.seen = req
	return r.resp, r.err
}

// fakeVault is a vault whose state is what its members say.
type fakeVault struct {
	health  Health
	seal    SealStatus
	leader  LeaderStatus
	applied uint64
	init    func(InitRequest) (*InitResult, error)
	unseal  func(UnsealRequest) (SealStatus, error)
}

const testCluster = "0a5e9cf3-6c43-4c53-8c2b-5b1d6f7a9d10"

func (v *fakeVault) Health(context.Context) Health         { return v.health }
func (v *fakeVault) SealStatus(context.Context) SealStatus { return v.seal }
func (v *fakeVault) Leader() LeaderStatus                  { return v.leader }
func (v *fakeVault) Initialized(context.Context) (bool, error) {
	return v.health.Initialized, nil
}
func (v *fakeVault) Init(_ context.Context, req InitRequest) (*InitResult, error) {
	return v.init(req)
}
func (v *fakeVault) Unseal(_ context.Context, req UnsealRequest) (SealStatus, error) {
	return v.unseal(req)
}
func (v *fakeVault) AppliedIndex() uint64 { return v.applied }
func (v *fakeVault) WaitIndex(ctx context.Context, _ uint64) error {
	<-ctx.Done()
	return ctx.Err()
}
func (v *fakeVault) ClusterID() string { return testCluster }

func servingVault() *fakeVault {
	return &fakeVault{health: Health{Initialized: true, Reachable: true, ClusterID: testCluster}}
}

// newTestServer makes a server with small waits, and the log it writes.
func newTestServer(t testing.TB, handler Handler, vault Vault, change func(*Config)) (*Server, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	c := Config{Handler: handler, Vault: vault,
		Build:  Build{Reported: "1.20.0", Version: "0.1.0", BuildDate: "2026-01-02T03:04:05Z", CommitDate: "2026-01-02T03:00:00Z"},
		Logger: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Debug, JSONFormat: true}),
		Limits: Limits{IndexWait: time.Millisecond},
		NewID:  func() string { return "11111111-2222-4333-8444-555555555555" }}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatalf("New = %v", err)
	}
	return s, log
}

// do sends one request to a handler, its header given in lines.
func do(t testing.TB, h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func plain(s *Server) http.Handler { return s.Endpoint(config.Listener{}) }

func asMap(t testing.TB, body []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("answer %q is not a JSON object: %v", body, err)
	}
	return m
}
