package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"conclave"
)

// Limits of a WebSocket.
const (
	streamWrite = 10 * time.Second // for a client to take one message
	streamPing  = 20 * time.Second // between pings; a client that doesn't answer one within as long is gone
	maxReason   = 123              // bytes of why a connection is closed (RFC 6455, 5.5)
)

// wantsStream reports whether the client asks for a WebSocket.
func wantsStream(r *http.Request) bool {
	asks := false
	for _, line := range r.Header.Values("Connection") {
		for option := range strings.SplitSeq(line, ",") {
			asks = asks || strings.EqualFold(strings.TrimSpace(option), "upgrade")
		}
	}
	return asks && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// stream goes on with an answer over a WebSocket, until it or the client ends, or the server does. Origins other than the
// server's own are refused: a browser sends no token by itself, but it need not even get so far.
func (e *endpoint) stream(w http.ResponseWriter, r *http.Request, stream conclave.Stream) int {
	if !e.beginStream() {
		return e.fail(w, w.Header().Get("X-Request-Id"), errStopping)
	}
	defer e.streams.Done()
	w.Header().Del("Content-Type")
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return http.StatusBadRequest // it has been answered
	}
	// Reading goes on until the connection ends: a context that ended before would break it without a word.
	connected := context.WithoutCancel(r.Context())
	ctx, cancel := context.WithCancel(connected)
	defer cancel()
	defer context.AfterFunc(e.streaming, cancel)()
	var reader errgroup.Group
	defer func() { _ = reader.Wait() }()
	var talks atomic.Bool // the client has said something
	reader.Go(func() error {
		defer cancel()
		_, _, err := conn.Reader(connected)
		talks.Store(err == nil)
		return err
	})
	defer func() {
		if p := recover(); p != nil {
			e.logPanic(w.Header().Get("X-Request-Id"), p)
		}
		_ = conn.CloseNow() // or the reader would be waited for in vain
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ping(ctx, conn) })
	err = stream(ctx, func(_ context.Context, message []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		brief, cancel := context.WithTimeout(connected, streamWrite) // a message isn't broken off because the stream ends
		defer cancel()
		return conn.Write(brief, websocket.MessageText, message)
	})
	cancel()
	_ = group.Wait() // if the client answers no ping, the stream has ended for that
	e.closeStream(conn, err, &talks)
	return http.StatusSwitchingProtocols
}

// closeStream tells the client why no more comes, unless it is gone.
func (e *endpoint) closeStream(conn *websocket.Conn, err error, talks *atomic.Bool) {
	known, ok := errors.AsType[*conclave.Error](err)
	switch {
	case ok:
		reason := known.Error()
		_ = conn.Close(closeCode(known.Kind), strings.ToValidUTF8(reason[:min(len(reason), maxReason)], ""))
	case err == nil:
		_ = conn.Close(websocket.StatusNormalClosure, "")
	case e.streaming.Err() != nil:
		_ = conn.Close(websocket.StatusGoingAway, "the server stops")
	case talks.Load():
		_ = conn.Close(websocket.StatusPolicyViolation, "a client has nothing to say")
	default:
		_ = conn.CloseNow()
	}
}

var errStopping = conclave.Errorf(conclave.Unavailable, "the server stops")

// beginStream counts a stream, for shutdown to wait for, unless that has begun.
func (s *Server) beginStream() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streaming.Err() != nil {
		return false
	}
	s.streams.Add(1)
	return true
}

// stopStreams ends all streams, of whose connections net/http no longer knows, and returns when their clients were told.
func (s *Server) stopStreams() {
	s.mu.Lock()
	s.endStreams()
	s.mu.Unlock()
	s.streams.Wait()
}

// ping finds out whether the client is still there.
func ping(ctx context.Context, conn *websocket.Conn) error {
	ticker := time.NewTicker(streamPing)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		brief, cancel := context.WithTimeout(ctx, streamPing)
		err := conn.Ping(brief)
		cancel()
		if err != nil {
			return err
		}
	}
}

// closeCode is what a client is told by a number (RFC 6455, 7.4.1).
func closeCode(kind conclave.Kind) websocket.StatusCode {
	switch kind {
	case conclave.Denied, conclave.Invalid, conclave.NotFound:
		return websocket.StatusPolicyViolation
	case conclave.Unavailable, conclave.Sealed, conclave.Limited:
		return websocket.StatusTryAgainLater
	}
	return websocket.StatusInternalError
}
