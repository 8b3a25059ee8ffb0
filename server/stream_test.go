package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/go-hclog"

	"conclave"
)

// streaming is a handler whose answers go on with stream.
func streaming(stream conclave.Stream) handlerFunc {
	return func(context.Context, *conclave.Request) (*conclave.Response, error) {
		return &conclave.Response{Data: json.RawMessage(`{"cursor":"c"}`), Stream: stream}, nil
	}
}

func dialStream(t *testing.T, url string, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, response, err := websocket.Dial(ctx, strings.Replace(url, "http", "ws", 1)+"/v1/sys/events/subscribe/*", &websocket.DialOptions{HTTPHeader: header})
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, response, err
}

func readStream(t *testing.T, conn *websocket.Conn) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, message, err := conn.Read(ctx)
	return string(message), err
}

func wantClosed(t *testing.T, what string, err error, code websocket.StatusCode, reason string) {
	t.Helper()
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != code || !strings.Contains(closed.Reason, reason) {
		t.Errorf("%s: %v, want code %d with %q", what, err, code, reason)
	}
}

func TestAnswersGoOnOverWebSockets(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		code   websocket.StatusCode
		reason string
	}{
		"at its end":      {nil, websocket.StatusNormalClosure, ""},
		"denied":          {conclave.Errorf(conclave.Denied, "permission denied; since=c"), websocket.StatusPolicyViolation, "since=c"},
		"no quorum":       {conclave.Errorf(conclave.Unavailable, "no quorum"), websocket.StatusTryAgainLater, "no quorum"},
		"a defect":        {conclave.Errorf(conclave.Internal, "internal error"), websocket.StatusInternalError, "internal error"},
		"with many words": {conclave.Errorf(conclave.Denied, "%s", strings.Repeat("é", 200)), websocket.StatusPolicyViolation, "éé"},
	} {
		s, _ := newTestServer(t, streaming(func(ctx context.Context, send func(context.Context, []byte) error) error {
			for _, message := range []string{"one", "two"} {
				if err := send(ctx, []byte(message)); err != nil {
					return err
				}
			}
			return c.err
		}), servingVault(), nil)
		server := httptest.NewServer(plain(s))
		conn, response, err := dialStream(t, server.URL, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if response.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: the answer has no request id", name)
		}
		for _, want := range []string{"one", "two"} {
			if got, err := readStream(t, conn); got != want {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
			}
		}
		_, err = readStream(t, conn)
		wantClosed(t, name, err, c.code, c.reason)
		server.Close()
		if s.inFlight.used.Load() != 0 {
			t.Errorf("%s: requests are still counted as being executed", name)
		}
	}
}

func TestWithoutAWebSocketTheAnswerIsAnAnswer(t *testing.T) {
	s, _ := newTestServer(t, streaming(nil), servingVault(), nil)
	never := streaming(func(context.Context, func(context.Context, []byte) error) error {
		t.Error("a stream begins that nobody asked for")
		return nil
	})
	s.handler = never
	if w := do(t, plain(s), "GET", "/v1/sys/events/subscribe/*", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"cursor":"c"`) {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
	// What doesn't go on is answered although a WebSocket was asked for, and so is what is refused.
	refusing, _ := newTestServer(t, handlerFunc(func(context.Context, *conclave.Request) (*conclave.Response, error) {
		return nil, conclave.Errorf(conclave.Denied, "permission denied")
	}), servingVault(), nil)
	for name, s := range map[string]*Server{"refused": refusing} {
		server := httptest.NewServer(plain(s))
		_, response, err := dialStream(t, server.URL, nil)
		if err == nil || response == nil || response.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %v, %v", name, response, err)
		}
		server.Close()
	}
}

// A page of another site can't open a stream with what a browser would send by itself.
func TestStreamsOfOtherOriginsAreRefused(t *testing.T) {
	s, _ := newTestServer(t, streaming(func(context.Context, func(context.Context, []byte) error) error {
		t.Error("a stream begins for another origin")
		return nil
	}), servingVault(), nil)
	server := httptest.NewServer(plain(s))
	defer server.Close()
	_, response, err := dialStream(t, server.URL, http.Header{"Origin": {"https://evil.example"}})
	if err == nil || response == nil || response.StatusCode != http.StatusForbidden {
		t.Errorf("another origin: %v, %v, want 403", response, err)
	}
}

func TestStreamsEndWithTheirClients(t *testing.T) {
	ended := make(chan error, 1)
	s, _ := newTestServer(t, streaming(func(ctx context.Context, send func(context.Context, []byte) error) error {
		_ = send(ctx, []byte("x"))
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}), servingVault(), nil)
	server := httptest.NewServer(plain(s))
	defer server.Close()
	for name, leave := range map[string]func(*websocket.Conn){
		"one that vanishes": func(c *websocket.Conn) { _ = c.CloseNow() },
		"one that closes":   func(c *websocket.Conn) { _ = c.Close(websocket.StatusNormalClosure, "") },
		"one that talks": func(c *websocket.Conn) {
			_ = c.Write(t.Context(), websocket.MessageText, []byte("hello"))
			_, err := readStream(t, c)
			wantClosed(t, "a client that talks", err, websocket.StatusPolicyViolation, "")
		},
	} {
		conn, _, err := dialStream(t, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readStream(t, conn); err != nil {
			t.Fatal(err)
		}
		leave(conn)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("the stream goes on without its client, %s", name)
		}
	}
}

// A stream that panics ends alone.
func TestStreamsThatPanicEndAlone(t *testing.T) {
	log := &bytes.Buffer{}
	s, _ := newTestServer(t, streaming(func(context.Context, func(context.Context, []byte) error) error { panic("canary") }), servingVault(), func(c *Config) {
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Error})
	})
	server := httptest.NewServer(plain(s))
	defer server.Close()
	for range 2 {
		conn, _, err := dialStream(t, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readStream(t, conn); err == nil {
			t.Error("a stream that panicked goes on")
		}
	}
	s.stopStreams() // they have ended, and their log lines are written
	if text := log.String(); strings.Count(text, "request panicked") != 2 || strings.Contains(text, "canary") {
		t.Errorf("the log says %s", text)
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	s, _ := newTestServer(t, streaming(func(ctx context.Context, send func(context.Context, []byte) error) error {
		_ = send(ctx, []byte("x"))
		<-ctx.Done()
		return ctx.Err()
	}), servingVault(), nil)
	server := httptest.NewServer(plain(s))
	defer server.Close()
	conn, _, err := dialStream(t, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readStream(t, conn); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		s.stopStreams()
		close(stopped)
	}()
	_, err = readStream(t, conn)
	wantClosed(t, "when the server stops", err, websocket.StatusGoingAway, "stops")
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("the server waits for streams that have ended")
	}
	if _, response, err := dialStream(t, server.URL, nil); err == nil || response == nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after that: %v, %v, want 503", response, err)
	}
}
