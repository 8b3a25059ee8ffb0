package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"conclave"
	"conclave/server/config"
)

const (
	metricsPath = "sys/metrics"
	mfaHeader   = "X-Vault-Mfa" // as net/http spells it
	maxLogged   = 512           // bytes of a path in a log line
)

var (
	errPanicked    = errors.New("handler panicked")
	errWrapTTL     = conclave.Errorf(conclave.Invalid, "X-Vault-Wrap-TTL must be a duration that is not negative")
	errWrapFormat  = conclave.Errorf(conclave.Invalid, "X-Vault-Wrap-Format is not supported: wrapping tokens are opaque")
	errMetricsKind = conclave.Errorf(conclave.Invalid, "metrics have the format prometheus only")
	errDenied      = conclave.Errorf(conclave.Denied, "permission denied")
)

// endpoint is the API as one listener serves it.
type endpoint struct {
	*Server
	settings config.Listener
	maxBody  int64
	duration time.Duration // of execution
	read     time.Duration // of a body's arrival
}

var _ http.Handler = (*endpoint)(nil)

// Endpoint returns the API for use without a listener of our own, as settings say.
func (s *Server) Endpoint(settings config.Listener) http.Handler { return s.endpoint(settings) }

func (s *Server) endpoint(settings config.Listener) *endpoint {
	e := &endpoint{Server: s, settings: settings, maxBody: MaxBody, duration: s.limits.Duration, read: s.limits.Read}
	if settings.MaxRequestSize > 0 {
		e.maxBody = min(e.maxBody, settings.MaxRequestSize)
	}
	if settings.MaxRequestDuration > 0 {
		e.duration = settings.MaxRequestDuration
	}
	if settings.ReadTimeout > 0 {
		e.read = settings.ReadTimeout
	}
	return e
}

// ServeHTTP answers one request.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := e.newID()
	if !e.log.IsDebug() {
		e.contained(w, r, id)
		return
	}
	start := e.now()
	status := e.contained(w, r, id)
	path := r.URL.EscapedPath()
	e.log.Debug("request", "request_id", id, "method", r.Method, "path", path[:min(len(path), maxLogged)],
		"status", status, "took", e.now().Sub(start))
}

// contained keeps a panic to the request that caused it. The log gets the stack; what was panicked with only if it is
// the runtime's own words, for other values may hold what the client sent.
func (e *endpoint) contained(w http.ResponseWriter, r *http.Request, id string) (status int) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		e.logPanic(id, p)
		status = e.fail(w, id, errPanicked)
	}()
	return e.serve(w, r, id)
}

func (e *endpoint) logPanic(id string, p any) {
	what := fmt.Sprintf("%T", p)
	if words, ok := p.(runtime.Error); ok {
		what = words.Error()
	}
	e.log.Error("request panicked", "request_id", id, "panic", what, "stack", string(debug.Stack()))
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request, id string) int {
	header := w.Header()
	header["Cache-Control"], header["Content-Type"], header["X-Request-Id"] = noStore, jsonType, []string{id}
	if r.Method == http.MethodOptions {
		// No origin is allowed: a browser sends no request from another site.
		header.Set("Allow", "GET, HEAD, LIST, SCAN, POST, PUT, PATCH, DELETE, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
		return http.StatusNoContent
	}
	req := &conclave.Request{ID: id}
	query, err := e.parseHead(r, req)
	if err != nil {
		return e.refuse(w, id, err)
	}
	if req.Namespace != "" {
		header["X-Vault-Namespace"] = []string{req.Namespace}
	}
	holds := holding{from: &e.bytes}
	defer holds.release()
	if isStatusPath(req.Path) {
		if err := e.readFields(w, r, req, query, min(e.maxBody, maxStatusBody), &holds); err != nil {
			return e.refuse(w, id, err)
		}
		return e.serveStatus(w, r, req)
	}
	status, stream := e.pass(w, r, req, query, &holds)
	if stream != nil {
		holds.release()
		return e.stream(w, r, stream)
	}
	return status
}

// pass has a request executed. What it returns beside the status is to go on, and the request is answered by that.
func (e *endpoint) pass(w http.ResponseWriter, r *http.Request, req *conclave.Request, query url.Values, holds *holding) (int, conclave.Stream) {
	header := w.Header()
	if e.admit != nil {
		if err := e.admit(r.Context(), req, header.Set); err != nil {
			return e.fail(w, req.ID, err), nil
		}
	}
	if !e.inFlight.take(1) {
		return e.refuse(w, req.ID, errBusy), nil
	}
	defer e.inFlight.give(1)
	if err := e.readFields(w, r, req, query, e.maxBody, holds); err != nil {
		return e.refuse(w, req.ID, err), nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), e.duration)
	defer cancel()
	if req.Path == metricsPath && req.Operation == conclave.Read && !req.Help && e.metrics != nil {
		return e.serveMetrics(ctx, w, r, req), nil
	}
	return e.execute(ctx, w, req, wantsStream(r))
}

// parseHead reads all of a request but its body.
func (e *endpoint) parseHead(r *http.Request, req *conclave.Request) (query url.Values, err error) {
	if req.Path, err = requestPath(r.URL); err != nil {
		return nil, err
	}
	if query, err = requestQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if req.Operation, req.Help, err = operation(r.Method, query); err != nil {
		return nil, err
	}
	// A listing is of a directory; everything else has one name, with or without a slash at its end.
	req.Path = strings.TrimSuffix(req.Path, "/")
	if req.Operation == conclave.List || req.Operation == conclave.Scan {
		req.Path += "/"
	}
	if req.Namespace, err = requestNamespace(r.Header); err != nil {
		return nil, err
	}
	if req.Token, err = requestToken(r.Header); err != nil {
		return nil, err
	}
	if req.Remote, err = clientAddr(r, &e.settings.ForwardedFor); err != nil {
		return nil, err
	}
	if text := r.Header.Get("X-Vault-Wrap-TTL"); text != "" {
		if req.WrapTTL, err = conclave.ParseDuration(text); err != nil || req.WrapTTL < 0 {
			return nil, errWrapTTL
		}
		if r.Header.Get("X-Vault-Wrap-Format") != "" {
			return nil, errWrapFormat
		}
	}
	if len(r.Header[indexHeader]) > 0 {
		if req.MinIndex, err = requestIndex(r.Header, e.vault.ClusterID()); err != nil {
			return nil, err
		}
	}
	for _, value := range r.Header[mfaHeader] {
		req.MFA = append(req.MFA, conclave.NewSecret(value))
	}
	if r.TLS != nil {
		req.PeerCertificates, req.PresentedCertificates = verifiedChain(r.TLS), presented(r.TLS)
	}
	e.keepHeaders(r, req)
	return query, nil
}

func (e *endpoint) keepHeaders(r *http.Request, req *conclave.Request) {
	if e.headers == nil {
		return
	}
	for _, name := range e.headers() {
		values := r.Header[name]
		if len(values) == 0 || name == "X-Vault-Token" || name == "Authorization" || name == mfaHeader {
			continue
		}
		if req.Header == nil {
			req.Header = map[string][]string{}
		}
		req.Header[name] = values
	}
}

// readFields reads the body within the time that a client has for it. The limit is set here and lifted again because
// net/http's own runs on while the request is executed, and cancels it. It stays on a body that nobody reads.
func (e *endpoint) readFields(w http.ResponseWriter, r *http.Request, req *conclave.Request, query url.Values, limit int64, holds *holding) error {
	if r.Body == nil || r.Body == http.NoBody {
		return fieldsOf(r, req, query, limit, holds)
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(e.read))
	if err := fieldsOf(r, req, query, limit, holds); err != nil {
		return err
	}
	if req.Operation == conclave.Update || req.Operation == conclave.Patch {
		_ = control.SetReadDeadline(time.Time{})
	}
	return nil
}

// execute has the pipeline execute the request, on a state that has what the client has seen. An answer that is to go on
// isn't sent if the client wants that.
func (e *endpoint) execute(ctx context.Context, w http.ResponseWriter, req *conclave.Request, goesOn bool) (int, conclave.Stream) {
	if err := awaitIndex(ctx, e.vault, req.MinIndex, e.limits.IndexWait); err != nil {
		return e.refuse(w, req.ID, err), nil
	}
	resp, err := e.handler.Handle(ctx, req)
	if err != nil {
		return e.fail(w, req.ID, err), nil
	}
	if resp == nil {
		resp = &conclave.Response{}
	}
	if goesOn && resp.Stream != nil {
		return 0, resp.Stream
	}
	answer := e.replies.take()
	defer answer.free()
	status, err := answer.success(resp, req.ID)
	if err != nil {
		return e.fail(w, req.ID, fmt.Errorf("encode the answer: %w", err)), nil
	}
	if resp.Raw != nil {
		setRawHeader(w.Header(), resp.Raw)
	}
	if resp.Index > 0 {
		if value := e.stamp.header(e.vault.ClusterID(), resp.Index); value != nil {
			w.Header()[indexHeader] = value
		}
	}
	answer.send(w, status)
	return status, nil
}

// serveStatus answers an operation that works on a sealed vault, without the envelope.
func (e *endpoint) serveStatus(w http.ResponseWriter, r *http.Request, req *conclave.Request) int {
	ctx, cancel := context.WithTimeout(conclave.WithRequestID(r.Context(), req.ID), e.duration)
	defer cancel()
	resp, err := e.answerStatus(ctx, req)
	if req.Operation == conclave.Update {
		e.ceremony()
	}
	if err != nil {
		return e.fail(w, req.ID, err)
	}
	answer := e.replies.take()
	defer answer.free()
	if err := answer.data(resp); err != nil {
		return e.fail(w, req.ID, fmt.Errorf("encode the answer: %w", err))
	}
	status := resp.Status
	if status == 0 {
		status = http.StatusOK
	}
	answer.send(w, status)
	return status
}

func (e *endpoint) answerStatus(ctx context.Context, req *conclave.Request) (*conclave.Response, error) {
	route, params, err := e.status.Find(req.Operation, req.Path)
	if err != nil {
		return nil, err
	}
	in, err := route.Bind(params, req.Fields)
	if err != nil {
		return nil, err
	}
	return route.Handle(ctx, nil, in)
}

func (e *endpoint) serveMetrics(ctx context.Context, w http.ResponseWriter, r *http.Request, req *conclave.Request) int {
	if format, given := req.Fields["format"]; given && format != "prometheus" && format != "" {
		return e.fail(w, req.ID, errMetricsKind)
	}
	if !e.settings.UnauthenticatedMetrics {
		err := error(errDenied)
		if e.authorizeMetrics != nil {
			err = e.authorizeMetrics(ctx, req)
		}
		if err != nil {
			return e.fail(w, req.ID, err)
		}
	}
	e.metrics.ServeHTTP(w, r)
	return http.StatusOK
}

// refuse is fail for a request that nobody has looked into.
func (e *endpoint) refuse(w http.ResponseWriter, id string, err error) int {
	e.unread(err)
	return e.fail(w, id, err)
}

// fail answers with an error, and logs it if the client isn't told what it was.
func (e *endpoint) fail(w http.ResponseWriter, id string, err error) int {
	f := failureOf(err, id)
	if f.internal && !errors.Is(err, errPanicked) {
		e.log.Error("request failed", "request_id", id, "error", err)
	}
	answer := e.replies.take()
	defer answer.free()
	if err := answer.failed(f, id); err != nil {
		e.log.Error("request failed with what can't be encoded", "request_id", id, "error", err)
		answer.buf.Reset()
		answer.raw("{\"errors\":[]}\n")
	}
	header := w.Header()
	header["Content-Type"] = jsonType
	if f.retryAfter > 0 {
		header["Retry-After"] = []string{retrySeconds(f.retryAfter)}
	}
	answer.send(w, f.status)
	return f.status
}

// verifiedChain is the client's chain that TLS has verified, DER, leaf first; nil if there is none.
func verifiedChain(state *tls.ConnectionState) [][]byte {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	chain := make([][]byte, len(state.VerifiedChains[0]))
	for i, cert := range state.VerifiedChains[0] {
		chain[i] = cert.Raw
	}
	return chain
}

// presented are the certificates that the client sent, DER, leaf first; nil if it sent none.
func presented(state *tls.ConnectionState) [][]byte {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	certs := make([][]byte, len(state.PeerCertificates))
	for i, cert := range state.PeerCertificates {
		certs[i] = cert.Raw
	}
	return certs
}
