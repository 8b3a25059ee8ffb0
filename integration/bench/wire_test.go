package main

import (
	"bufio"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve answers every request by its path, as Go's own server frames it.
func serve(t *testing.T) *conn {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/short":
			_, _ = w.Write([]byte(`{"data":1}`))
		case "/v1/chunks":
			for range 5 {
				_, _ = w.Write([]byte(strings.Repeat("x", 10_000)))
				w.(http.Flusher).Flush()
			}
		case "/v1/empty":
			w.WriteHeader(http.StatusNoContent)
		default:
			http.Error(w, "no such thing", http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	c, err := dial(server.URL, server.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	if err := c.deadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnswersAreReadToTheirEnd(t *testing.T) {
	c := serve(t)
	for range 3 { // on one connection: what is left of an answer would spoil the next
		for _, path := range []string{"short", "chunks", "empty"} {
			if err := c.exchange(appendRequest(nil, "GET", path, "token", nil)); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		err := c.exchange(appendRequest(nil, "POST", "missing", "token", []byte(`{"a":1}`)))
		if refused, ok := errors.AsType[*statusError](err); !ok || refused.status != 404 || !strings.Contains(refused.body, "no such thing") {
			t.Fatalf("missing: %v, want a 404 with its text", err)
		}
	}
}

func TestMalformedAnswersAreErrors(t *testing.T) {
	for _, text := range []string{
		"", "HTTP/1.1\r\n", "SSH-2.0-x y z w\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
	} {
		c := &conn{read: bufio.NewReader(strings.NewReader(text))}
		if err := c.answer(); err == nil {
			t.Errorf("%q was taken for an answer", text)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
	f.Add("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := &conn{read: bufio.NewReader(strings.NewReader(text))}
		_ = c.answer() // an error or not, but it returns
	})
}

func TestRatiosSpread(t *testing.T) {
	var r report
	rows := func(ops ...float64) []row {
		var all []row
		for _, o := range ops {
			all = append(all, row{OpsPerSec: o, CPU: 1000 / o, P50: 1})
		}
		return all
	}
	r.add(rows(20, 10, 30), rows(10, 10, 10))
	got := r.lines[0].Ratio.OpsPerSec
	if want := (spread{Median: 2, Low: 1, High: 3}); got != want {
		t.Errorf("ratio = %v, want %v", got, want)
	}
	if ours := r.lines[0].Ours.OpsPerSec; ours != 20 {
		t.Errorf("the median round has %v ops/s, want 20", ours)
	}
}

func BenchmarkExchange(b *testing.B) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat("x", 400)))
	}))
	defer server.Close()
	c, err := dial(server.URL, server.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		b.Fatal(err)
	}
	defer c.close()
	request := appendRequest(nil, "GET", "short", "token", nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.exchange(request); err != nil {
			b.Fatal(err)
		}
	}
}
