package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// discard is a client that reads nothing.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// rewindable is a request that can be sent again.
type rewindable struct {
	*http.Request
	body *strings.Reader
}

func benchRequest(tb testing.TB, method, body string) *rewindable {
	tb.Helper()
	r := httptest.NewRequest(method, "/v1/secret/data/team/app", nil)
	r.Header.Set("X-Vault-Token", "hvs.CAESIJ-benchmark")
	r.Header.Set("X-Vault-Request", "true")
	return &rewindable{r, strings.NewReader(body)}
}

func (r *rewindable) rewind(body string) {
	if body == "" {
		return
	}
	r.body.Reset(body)
	r.Body, r.ContentLength = io.NopCloser(r.body), int64(len(body))
}
