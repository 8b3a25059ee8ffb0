package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
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
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(e.streaming, cancel)()
	ctx = conn.CloseRead(ctx) // a client has nothing to say
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ping(ctx, conn) })
	group.Go(func() error {
		err := stream(ctx, func(ctx context.Context, message []byte) error {
			brief, cancel := context.WithTimeout(ctx, streamWrite)
			defer cancel()
			return conn.Write(brief, websocket.MessageText, message)
		})
		if err == nil {
			err = errStreamEnded
		}
		return err
	})
	err = group.Wait()
	if known, ok := errors.AsType[*conclave.Error](err); ok || e.streaming.Err() != nil {
		code, reason := websocket.StatusGoingAway, "the server stops"
		if ok {
			code, reason = closeCode(known.Kind), known.Error()
		}
		_ = conn.Close(code, strings.ToValidUTF8(reason[:min(len(reason), maxReason)], ""))
		return http.StatusSwitchingProtocols
	}
	if errors.Is(err, errStreamEnded) {
		_ = conn.Close(websocket.StatusNormalClosure, "")
		return http.StatusSwitchingProtocols
	}
	_ = conn.CloseNow()
	return http.StatusSwitchingProtocols
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

// errStreamEnded ends the pings of a stream that has said all.
var errStreamEnded = errors.New("the stream has ended")

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
