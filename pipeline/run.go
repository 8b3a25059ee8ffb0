package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"

	"conclave"
	"conclave/audit"
	"conclave/identity"
	"conclave/policy"
	"conclave/quota"
	"conclave/store"
	"conclave/token"
)

// run is one request on its way to a verdict; it may take several attempts.
type run struct {
	pipeline     *Pipeline
	original     *conclave.Request // as it came
	request      *conclave.Request // as it is in its own namespace
	attempt      int
	fresh        bool // this attempt's state is one that the cluster reached after the request began
	exhausted    bool // no attempt is left: what is recorded now is that the request gave up
	recorded     bool // the log has what is answered
	gathered     any  // what Prepare works from, or worked from
	prepared     any
	failed       error            // why Prepare failed: the outcome for those who may do what they ask for
	isReady      bool             // Prepare has run, or there is none
	ids          *identity.Minted // of the entity that a login makes
	minted       *token.Minted    // the randomness of the token that a login makes
	wrapping     *token.Minted    // the randomness of the token that wraps the answer
	leaseLetters string           // the randomness of the lease's id, if the answer has one
	guess        *guess           // at an account's secret, if the request is one
	intent       *intent          // what Prepare does outside, as it was written down before; nil if nothing was
	call         *call

	loginAsked   bool  // whether a role's rate limit allows the login
	loginRefused error // what was answered
}

// call is a request that has found its route.
type call struct {
	target
	input  any
	caller *conclave.Caller
	token  *token.Record
	home   *level // where the token lives
	grant  *policy.Grant
	denial *audit.Denial // why the grant isn't enough
}

// maxPreparations bounds how often one attempt prepares because what it worked from has changed.
const maxPreparations = 3

var errTooManyConflicts = conclave.Errorf(conclave.Unavailable,
	"other requests kept changing what this one reads: it was not done, try again")

// once executes the request on the newest state and commits it with its record. An *store.ErrConflict means again.
func (r *run) once(ctx context.Context) (*conclave.Response, error) {
	tx, err := r.pipeline.store.Begin()
	if err != nil {
		return nil, err
	}
	defer func() { tx.Close() }()
	resp, failure := r.execute(ctx, tx)
	for round := 0; failure == nil && !r.isReady; round++ {
		if round == maxPreparations {
			r.exhausted, failure = true, errTooManyConflicts
			break
		}
		if err := r.makeReady(ctx, tx); err != nil {
			return nil, err
		}
		again, err := r.pipeline.store.Begin()
		if err != nil {
			return nil, err
		}
		tx = again
		resp, failure = r.execute(ctx, tx)
	}
	return r.commit(ctx, tx, resp, failure)
}

// makeReady does what has to be done before the request is executed, and closes tx, which has found that the caller may do
// it. What fails of it is the request's outcome; the error is that of the attempt.
func (r *run) makeReady(ctx context.Context, tx *store.Tx) (err error) {
	r.failed = r.reserve(ctx)
	if r.failed == nil {
		r.failed, err = r.intend(ctx, tx)
	}
	tx.Close()
	if err != nil {
		return err
	}
	if r.failed == nil {
		r.prepared, r.failed = r.prepare(ctx)
	}
	r.isReady = true
	if r.intent == nil {
		return nil
	}
	return r.pipeline.store.WaitApplied(ctx, r.intent.index)
}

// execute runs everything that reads and writes through tx. A panic becomes an error of this request alone.
func (r *run) execute(ctx context.Context, tx *store.Tx) (resp *conclave.Response, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			r.pipeline.counters.Panics.Add(1)
			r.pipeline.log.Error("a handler panicked", "request_id", r.request.ID, "panic", fmt.Sprintf("%T", reason), "stack", string(debug.Stack()))
			resp, err = nil, conclave.Errorf(conclave.Internal, "internal error")
		}
	}()
	r.call = &call{}
	if r.exhausted {
		return nil, errTooManyConflicts
	}
	if err := r.authenticate(tx); err != nil {
		return nil, unwrapError(r.request, err)
	}
	if err := r.pipeline.authorize(tx, r.request, r.call); err != nil {
		return nil, err
	}
	if r.request.Help {
		r.isReady = true // help needs no preparation
		return helpFor(r.call), nil
	}
	r.guessAt()
	if err := r.checkGuess(); err != nil {
		return nil, err
	}
	if err := r.checkWrap(); err != nil {
		return nil, err
	}
	if ready, err := r.gather(); err != nil || !ready {
		return nil, err
	}
	if r.failed != nil {
		return nil, r.failed
	}
	ctx = r.withIntent(ctx)
	if r.prepared != nil {
		ctx = conclave.WithPrepared(ctx, r.prepared)
	}
	if r.call.grant != nil {
		ctx = policy.WithGrant(ctx, r.call.grant)
	}
	resp, err = r.call.route.Handle(ctx, r.call.view, r.call.input)
	if err == nil && resp != nil && resp.Login != nil {
		if err = r.admitLogin(ctx, resp.Login); err == nil {
			resp, err = r.login(tx, resp)
		}
	}
	if err == nil {
		err = r.countToken(tx, resp)
	}
	if err == nil {
		err = r.keepLease(tx, resp)
	}
	if err == nil {
		err = r.resolve(nil)
	}
	if err != nil {
		return nil, err
	}
	if err := marshalData(resp); err != nil || r.request.WrapTTL == 0 {
		return resp, err
	}
	return r.wrap(tx, resp)
}

// gather reads what the route's Prepare works from, and reports whether what was prepared, if anything has to be, was
// made of the same.
func (r *run) gather() (ready bool, err error) {
	route := r.call.route
	if route.Gather != nil {
		gathered, err := route.Gather(r.call.view, r.call.input)
		if err != nil {
			return false, err
		}
		if r.isReady && !reflect.DeepEqual(gathered, r.gathered) {
			r.isReady = false
		}
		r.gathered = gathered
		if _, needless := gathered.(conclave.NoPreparation); needless {
			r.isReady, r.prepared, r.failed = true, nil, nil // what was prepared for another state is void
		}
	}
	r.isReady = r.isReady || route.Prepare == nil && route.Intend == nil
	return r.isReady, nil
}

func (r *run) prepare(ctx context.Context) (prepared any, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			r.pipeline.counters.Panics.Add(1)
			r.pipeline.log.Error("a route's preparation panicked", "request_id", r.request.ID, "stack", string(debug.Stack()))
			err = conclave.Errorf(conclave.Internal, "internal error")
		}
	}()
	if r.gathered != nil {
		ctx = conclave.WithGathered(ctx, r.gathered)
	}
	if r.call.route.Prepare == nil {
		return nil, nil
	}
	return r.call.route.Prepare(r.withIntent(ctx), r.request, r.call.input)
}

// marshalData makes the data's JSON once: the record and the client get the same bytes.
func marshalData(resp *conclave.Response) error {
	if resp == nil || resp.Data == nil {
		return nil
	}
	if _, done := resp.Data.(json.RawMessage); done {
		return nil
	}
	data, err := json.Marshal(resp.Data)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	resp.Data = json.RawMessage(data)
	return nil
}

// commit judges the transaction with its record. What failed writes nothing but the record, and the use of a token that
// has a limited number of them.
func (r *run) commit(ctx context.Context, tx *store.Tx, resp *conclave.Response, failure error) (*conclave.Response, error) {
	if failure == nil {
		failure = tx.Failed() // whatever the handler made of it
	}
	if failure != nil {
		r.count(failure)
		tx.Discard()
		if err := r.undo(tx, failure); err != nil {
			return nil, err
		}
		if r.call.token != nil {
			if err := token.Spend(r.call.home.system, r.call.token); err != nil {
				return nil, err
			}
		}
	}
	if failure == nil && r.call.route.Urgent {
		tx.SetUrgent() // who may not do it waits like everybody else
	}
	record, err := r.pipeline.recorder.Record(tx, r, resp, failure)
	if err != nil {
		return nil, err
	}
	var committed store.Committed
	if !tx.Writing() && (r.fresh || r.exhausted) {
		committed, err = tx.CommitRecord(ctx, record)
	} else {
		committed, err = tx.Commit(ctx, record)
	}
	if r.recorded = err == nil; r.recorded {
		r.intent = nil // confirmed or ended
	}
	switch {
	case err == nil && failure != nil:
		return nil, failure
	case err == nil:
		if resp == nil {
			resp = &conclave.Response{}
		}
		resp.Index = committed.Index
		if r.call.mount != nil {
			resp.MountType = r.call.mount.Kind
		}
		return resp, nil
	case committed.Index != 0:
		return nil, r.commitRefusal(ctx, tx, err)
	case failure == nil && (conclave.Is(err, conclave.TooLarge) || conclave.Is(err, conclave.Invalid)):
		return r.commit(ctx, tx, nil, err) // nothing of it was proposed
	case r.exhausted:
		return nil, errTooManyConflicts
	}
	return nil, err
}

// commitRefusal records a request whose counter refused it when it was judged.
func (r *run) commitRefusal(ctx context.Context, tx *store.Tx, refusal error) error {
	r.count(refusal)
	tx.Discard()
	if err := r.undo(tx, refusal); err != nil { // a right guess that came to nothing isn't left pending
		return err
	}
	record, err := r.pipeline.recorder.Record(tx, r, nil, refusal)
	if err != nil {
		return err
	}
	commit := tx.CommitRecord
	if tx.Writing() {
		commit = tx.Commit
	}
	if _, err := commit(ctx, record); err != nil {
		return err
	}
	r.recorded, r.intent = true, nil
	return refusal
}

// undo notes, in the transaction that records a failure, what came of what the request did before.
func (r *run) undo(tx *store.Tx, failure error) error {
	if err := r.resolve(failure); err != nil {
		return err
	}
	return r.withdraw(tx)
}

func (r *run) count(failure error) {
	if conclave.Is(failure, conclave.Denied) {
		r.pipeline.counters.Denied.Add(1)
		return
	}
	r.pipeline.counters.Failed.Add(1)
	if errors.Is(failure, quota.ErrLeases) {
		r.pipeline.counters.Unleased.Add(1)
	}
	var known *conclave.Error
	if !errors.As(failure, &known) || known.Kind == conclave.Internal {
		r.pipeline.log.Error("a request failed", "request_id", r.request.ID, "error", failure)
	}
}
