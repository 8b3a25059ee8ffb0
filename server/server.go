// Package server is the HTTP edge: Vault's API as its clients know it. It parses a request once into the canonical
// [conclave.Request] that everybody behind it sees, refuses what isn't canonical or exceeds a limit, and turns what
// the pipeline answers into status, headers and envelope. Kinds of error become status codes here and nowhere else.
//
// It decides nothing: authorisation, routing and audit belong to the [Handler]. It serves by itself only what must
// work while the vault is sealed, and the metrics. It never redirects, and never shows a client more of an internal
// error than the request's id.
package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/server/config"
	"conclave/server/listen"
)

// Handler executes requests, all but those for the status of a node. Its errors are conclave errors; any other is an
// internal one.
type Handler interface {
	Handle(ctx context.Context, req *conclave.Request) (*conclave.Response, error)
}

// Build says what runs.
type Build struct {
	Reported              string // the version of Vault's API that clients see, as in "1.20.0"
	Version               string // our own
	BuildDate, CommitDate string // RFC 3339
}

// Config is what a server needs.
type Config struct {
	Handler Handler
	Vault   Vault
	Build   Build
	Logger  hclog.Logger // default: none
	Limits  Limits
	// HealthLeaderOnly makes sys/health answer 429 on nodes that don't lead, as Vault does.
	HealthLeaderOnly bool
	// Metrics writes them in Prometheus' text format. Nil: the pipeline answers sys/metrics.
	Metrics http.Handler
	// AuthorizeMetrics decides who may read them on listeners that don't leave them open. Nil: nobody.
	AuthorizeMetrics func(ctx context.Context, req *conclave.Request) error
	// Admit decides, before the body is read, whether a request goes on; what it says instead is the answer. It may set
	// headers of that, and of the answer to what goes on. Status paths aren't asked about, and Unread isn't told what is
	// refused. Nil: all go on.
	Admit func(ctx context.Context, req *conclave.Request, setHeader func(name, value string)) error
	// Unread is told why a request was refused before Handler or an operation of the server's own has seen it. Nil: nobody.
	Unread func(err error)
	// Ceremony is told of each init and each share of the unseal key that was answered, whatever came of it. Nil: nobody.
	Ceremony func()
	// Headers lists request headers, by canonical name, that are handed to the pipeline. Nil: none.
	Headers func() []string
	// Now and NewID default to the clock and random UUIDs (RFC 9562, version 4).
	Now   func() time.Time
	NewID func() string
}

// Listener is an open address to serve the API on.
type Listener = listen.Listener

// Listen opens an address. Closing the listener, or serving it to the end, closes it.
func Listen(settings config.Listener) (*Listener, error) { return listen.Open(settings) }

// Server serves the API on any number of listeners.
type Server struct {
	handler          Handler
	vault            Vault
	build            Build
	log              hclog.Logger
	limits           Limits
	healthLeaderOnly bool
	metrics          http.Handler
	authorizeMetrics func(context.Context, *conclave.Request) error
	admit            func(context.Context, *conclave.Request, func(name, value string)) error
	unread           func(error)
	ceremony         func()
	headers          func() []string
	now              func() time.Time
	newID            func() string

	routes   []conclave.Route
	status   *conclave.Router
	inFlight budget // requests
	bytes    budget // of bodies
	stamp    indexStamp
	replies  replies

	streaming  context.Context // ends with the streams
	endStreams context.CancelFunc
	streams    sync.WaitGroup

	mu        sync.Mutex  // guards listeners, and the counting of streams
	listeners []*Listener // being served
}

// New makes a server that serves nothing yet.
func New(c Config) (*Server, error) {
	if c.Handler == nil || c.Vault == nil {
		return nil, errors.New("a server needs a handler and a vault")
	}
	s := &Server{handler: c.Handler, vault: c.Vault, build: c.Build, log: c.Logger, limits: c.Limits.withDefaults(),
		healthLeaderOnly: c.HealthLeaderOnly, metrics: c.Metrics, authorizeMetrics: c.AuthorizeMetrics, headers: c.Headers,
		admit: c.Admit, unread: c.Unread, ceremony: c.Ceremony, now: c.Now, newID: c.NewID}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if s.unread == nil {
		s.unread = func(error) {}
	}
	if s.ceremony == nil {
		s.ceremony = func() {}
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.newID == nil {
		s.newID = newUUID
	}
	s.streaming, s.endStreams = context.WithCancel(context.Background())
	s.inFlight.limit, s.bytes.limit = int64(s.limits.InFlight), s.limits.Bytes
	s.routes = s.statusRoutes()
	s.status = conclave.NewRouter(s.routes)
	return s, nil
}

// Routes are the operations that the server answers by itself, for the API's description.
func (s *Server) Routes() []conclave.Route { return s.routes }

// Serve serves the listeners until ctx ends or one of them fails. Then it accepts nothing more, gives running requests
// Limits.Shutdown to end, and returns; nil if ctx was the reason.
func (s *Server) Serve(ctx context.Context, listeners ...*Listener) error {
	s.mu.Lock()
	s.listeners = listeners
	s.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	servers := make([]*http.Server, len(listeners))
	for i, l := range listeners {
		servers[i] = s.httpServer(l)
		group.Go(func() error {
			if err := servers[i].Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Settings.Address, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		s.shutdown(servers)
		return nil
	})
	return group.Wait()
}

// shutdown stops all servers at once, those that take too long by closing their connections.
func (s *Server) shutdown(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.Shutdown)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error {
		s.stopStreams()
		return nil
	})
	for _, server := range servers {
		group.Go(func() error {
			if err := server.Shutdown(ctx); err != nil {
				return server.Close()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		s.log.Warn("connections did not close", "error", err)
	}
}

// Reload reads the listeners' certificates again. A listener whose files are bad keeps what it has.
func (s *Server) Reload() error {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	var failed error
	for _, l := range listeners {
		failed = errors.Join(failed, l.Reload())
	}
	return failed
}

// httpServer makes the server of one listener.
func (s *Server) httpServer(l *Listener) *http.Server {
	e := s.endpoint(l.Settings)
	var open atomic.Int64
	or := func(own, otherwise time.Duration) time.Duration {
		if own > 0 {
			return own
		}
		return otherwise
	}
	return &http.Server{
		Handler:           e,
		ReadHeaderTimeout: or(l.Settings.ReadHeaderTimeout, s.limits.ReadHeader),
		// Counted from the end of the headers, so it holds the request's whole life.
		WriteTimeout:   or(l.Settings.WriteTimeout, e.read+e.duration+s.limits.Write),
		IdleTimeout:    or(l.Settings.IdleTimeout, s.limits.Idle),
		MaxHeaderBytes: MaxHeader,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: s.limits.Read, WriteByteTimeout: s.limits.Write},
		ErrorLog:       s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		ConnState: func(conn net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				if open.Add(1) > int64(s.limits.Connections) {
					_ = conn.Close()
				}
			case http.StateClosed, http.StateHijacked:
				open.Add(-1)
			}
		},
	}
}

// newUUID makes a random UUID.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: the runtime ends the process instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	var text [36]byte
	hex.Encode(text[0:8], b[0:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:36], b[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
