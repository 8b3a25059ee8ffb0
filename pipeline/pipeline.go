package pipeline

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/flood"
	"conclave/gap"
	"conclave/policy"
	"conclave/store"
	"conclave/token"
)

// Limits of one request.
const (
	// RequestTimeout bounds a request whose client set no tighter deadline.
	RequestTimeout = 90 * time.Second
	// maxAttempts bounds how often a request runs again because of conflicts.
	maxAttempts = 32
	// crowdedAttempts is after how many conflicts a request queues with its rivals for the same path on this node.
	crowdedAttempts = 2
)

// Config is what a pipeline works with.
type Config struct {
	Store    *store.Store
	Recorder *Recorder
	// Gate is closed while the vault seals itself.
	Gate *Gate
	// Policies are compiled once for all who ask.
	Policies *policy.Cache
	// Plugins are the kinds of engines and auth methods that can be mounted.
	Plugins []conclave.Plugin
	// System are the routes of sys/, Identity those of identity/.
	System, Identity []conclave.Route
	// Token makes the routes of auth/token/, given the auth methods that have a say in renewals.
	Token func(token.Logins) []conclave.Route
	// DefaultTTL and MaxTTL are the server's lifetimes for what a mount doesn't say otherwise.
	DefaultTTL, MaxTTL time.Duration
	// Logins holds logins against the rate limits of roles. Nil: there are none.
	Logins LoginLimiter
	// Gaps counts the answers that leave without a record. Default: a count of its own.
	Gaps *gap.Count
	// Envelope makes the JSON that a client would get: what is wrapped.
	Envelope func(*conclave.Response) ([]byte, error)
	// Random must be a cryptographic source: tokens are made of it.
	Random io.Reader
	Logger hclog.Logger
}

// Pipeline executes requests. It is safe for concurrent use.
type Pipeline struct {
	store    *store.Store
	recorder *Recorder
	routing  *routing
	policies *policy.Cache
	gate     *Gate
	envelope func(*conclave.Response) ([]byte, error)
	random   io.Reader
	logins   LoginLimiter
	gaps     *gap.Count
	flood    *flood.Gate
	turns    turns
	log      hclog.Logger
	counters Counters
}

// Counters count what happened to requests, for metrics.
type Counters struct {
	Requests, Conflicts, Denied, Failed, Panics atomic.Uint64

	Unleased atomic.Uint64 // refused by a lease count; among Failed
}

// New makes a pipeline.
func New(config Config) *Pipeline {
	if config.Gaps == nil {
		config.Gaps = gap.New(time.Now)
	}
	return &Pipeline{
		store:    config.Store,
		recorder: config.Recorder,
		routing:  newRouting(config),
		policies: config.Policies,
		gate:     config.Gate,
		envelope: config.Envelope,
		random:   config.Random,
		logins:   config.Logins,
		gaps:     config.Gaps,
		flood:    flood.New(time.Now),
		log:      config.Logger,
	}
}

// Counters returns the live counters.
func (p *Pipeline) Counters() *Counters { return &p.counters }

// Handle executes one request. The error, if any, is what the client is to be told. What is answered without a record is
// counted.
func (p *Pipeline) Handle(ctx context.Context, req *conclave.Request) (*conclave.Response, error) {
	p.counters.Requests.Add(1)
	if err := p.flood.Refuse(req); err != nil {
		p.gaps.Note(gap.Flooded)
		return nil, err
	}
	run := &run{pipeline: p, original: req, request: req}
	resp, err := run.handle(ctx)
	if err != nil && !run.recorded {
		p.gaps.Note(gap.ClassOf(err))
	}
	if run.recorded {
		p.flood.Judge(req, run.call != nil && run.call.caller != nil, err != nil || run.isCeremony())
	}
	return resp, err
}

// isCeremony reports whether the request is for holders of shares, who need no token. Anybody may begin what they do, so that
// even those that succeed are counted against who makes them.
func (r *run) isCeremony() bool {
	return r.call != nil && r.call.route != nil && r.call.route.Public && r.call.route.Cluster
}

func (r *run) handle(ctx context.Context) (*conclave.Response, error) {
	if err := r.pipeline.gate.enter(); err != nil {
		return nil, err
	}
	entered := true
	leave := func() {
		if entered {
			entered = false
			r.pipeline.gate.leave()
		}
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()

	resp, err := r.untilJudged(ctx)
	if err != nil {
		r.abort(ctx, err)
	}
	if err != nil || r.request.Help || r.call == nil || r.call.route.Finish == nil {
		return resp, err
	}
	leave() // what finishes a request may wait for all others: sealing does
	return r.finish(ctx, resp)
}

// untilJudged runs attempts until one is judged valid.
func (r *run) untilJudged(ctx context.Context) (*conclave.Response, error) {
	for r.attempt = 1; ; r.attempt++ {
		resp, err := r.once(ctx)
		conflict, again := errors.AsType[*store.ErrConflict](err)
		if !again {
			return resp, err
		}
		r.pipeline.counters.Conflicts.Add(1)
		if err := r.pipeline.store.WaitApplied(ctx, conflict.Index); err != nil {
			return nil, conclave.Errorf(conclave.Unavailable, "this node did not catch up in time: the request was not done")
		}
		// A verdict fell at its index after the request began, so a state from there on is right by itself. Without one (a
		// restored snapshot replaced the state) the next attempt is judged like the first.
		r.fresh = conflict.Index > 0
		if r.attempt == maxAttempts {
			r.exhausted = true
		}
		if r.attempt == crowdedAttempts {
			done, err := r.pipeline.turns.take(ctx, r.request.Path)
			if err != nil {
				return nil, conclave.Errorf(conclave.Unavailable, "too many requests change this path at once: the request was not done")
			}
			defer done()
		}
	}
}
