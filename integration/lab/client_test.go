package lab

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// TestRequestsAreSentOnce breaks the connection of a request that it has read: a client that repeated it by itself
// would make a history wrong.
func TestRequestsAreSentOnce(t *testing.T) {
	var got atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Add(1)
		if r.URL.Path != "/v1/good" {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				err = conn.Close()
			}
			if err != nil {
				t.Error(err)
			}
		}
	}))
	client := &Client{base: server.URL + "/v1/", http: server.Client()}
	for _, method := range []string{"GET", "POST", "DELETE"} {
		if answer, err := client.Do(t.Context(), method, "good", nil); err != nil || answer.Status != 200 {
			t.Fatalf("%s good: %v, %v", method, answer, err) // and its connection is kept, to be used again
		}
		before := got.Load()
		_, err := client.Do(t.Context(), method, "breaks", nil)
		if err == nil || errors.Is(err, ErrNotSent) {
			t.Errorf("%s: a connection that broke: %v, want an error that leaves open what was done", method, err)
		}
		if n := got.Load() - before; n != 1 {
			t.Errorf("%s was sent %d times, want once", method, n)
		}
	}
	server.Close()
	if _, err := client.Do(t.Context(), "GET", "good", nil); !errors.Is(err, ErrNotSent) {
		t.Errorf("nobody listens: %v, want %v", err, ErrNotSent)
	}
}
