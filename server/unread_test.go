package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"conclave"
	"conclave/server/config"
)

// What nobody has looked into, and the ceremonies, are told of, so that they can be counted; nothing else is.
func TestUnreadRequestsAndCeremoniesAreToldOf(t *testing.T) {
	unread, ceremonies := []conclave.Kind(nil), 0
	vault := servingVault()
	vault.unseal = func(UnsealRequest) (SealStatus, error) { return SealStatus{}, nil }
	s, _ := newTestServer(t, &recorder{resp: &conclave.Response{}}, vault, func(c *Config) {
		c.Unread = func(err error) { unread = append(unread, conclave.KindOf(err)) }
		c.Ceremony = func() { ceremonies++ }
	})
	api := s.Endpoint(config.Listener{})
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/a/../b", "", http.StatusBadRequest},
		{"POST", "/v1/secret/a", "{", http.StatusBadRequest},
		{"POST", "/v1/sys/unseal", `{"key":"00"}`, http.StatusOK},
		{"GET", "/v1/sys/health", "", http.StatusOK},
		{"GET", "/v1/sys/seal-status", "", http.StatusOK},
		{"POST", "/v1/secret/a", `{"a":"b"}`, http.StatusNoContent},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(tc.method, "http://vault"+tc.path, strings.NewReader(tc.body))
		api.ServeHTTP(w, r)
		if w.Code != tc.status {
			t.Errorf("%s %s: status %d, want %d: %s", tc.method, tc.path, w.Code, tc.status, w.Body)
		}
	}
	if len(unread) != 2 || unread[0] != conclave.Invalid || unread[1] != conclave.Invalid || ceremonies != 1 {
		t.Errorf("told of %v and %d ceremonies, want two malformed requests and one", unread, ceremonies)
	}
}
