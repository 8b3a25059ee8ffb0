package pipeline

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"conclave"
	"conclave/fsm"
	"conclave/lease"
	"conclave/namespace"
	"conclave/store"
	"conclave/token"
)

// withdrawTime is how long a request may take, whatever is left of its time, to record that it failed and to end what it
// intended.
const withdrawTime = 10 * time.Second

// intent is what a request has written down of what its Prepare does outside of the vault.
type intent struct {
	given *conclave.Intent   // nil: the route intended nothing
	lease string             // the id of the lease that ends it, "" if there is none
	at    conclave.Namespace // where the lease is
	index uint64             // at which it was committed
}

var (
	errNoLeaser = conclave.Errorf(conclave.Internal, "an engine that ends no leases gave one")
	// Vault's words.
	errLastUse = conclave.Errorf(conclave.Invalid, "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.")
)

// intend has the route write down what its Prepare is about to do, and commits that: failure is the request's outcome, err
// that of an attempt. tx has found that the caller may do it. What an earlier preparation of the request intended is ended.
// Like the vault's other own transactions this has no record; the request's own one follows, also if its client goes away.
func (r *run) intend(ctx context.Context, tx *store.Tx) (failure, err error) {
	if r.call.route.Intend == nil {
		return nil, nil
	}
	tx.Discard() // a token's use is taken with the answer
	made, failure := r.writeIntent(ctx, tx)
	if failure == nil {
		failure = tx.Failed()
	}
	if failure != nil {
		return failure, nil
	}
	if tx.Writing() {
		committed, err := tx.Commit(ctx, fsm.AuditRecord{})
		if err != nil && committed.Index != 0 {
			return err, nil // a counter refused it
		}
		if err != nil {
			return nil, err // if it was done, nobody confirms it
		}
		made.index = committed.Index
	}
	r.intent = made
	return nil, nil
}

func (r *run) writeIntent(ctx context.Context, tx *store.Tx) (made *intent, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			r.pipeline.counters.Panics.Add(1)
			r.pipeline.log.Error("a route's intent panicked", "request_id", r.request.ID, "stack", string(debug.Stack()))
			made, err = nil, conclave.Errorf(conclave.Internal, "internal error")
		}
	}()
	c := r.call
	left := -1
	if c.token != nil && c.token.NumUses > 0 {
		if left, err = token.UsesLeft(c.home.system, c.token); err != nil {
			return nil, err
		}
		if left == 0 {
			return nil, errDenied
		}
	}
	if err := r.withdraw(tx); err != nil {
		return nil, err
	}
	if r.gathered != nil {
		ctx = conclave.WithGathered(ctx, r.gathered)
	}
	given, err := c.route.Intend(ctx, c.view, c.input)
	if err != nil {
		return nil, err
	}
	made = &intent{given: given, at: c.here().Namespace}
	if given == nil || given.Lease == nil {
		return made, nil
	}
	if left == 1 {
		return nil, errLastUse
	}
	letters, err := lease.Mint(r.pipeline.random)
	if err != nil {
		return nil, err
	}
	grant, err := r.grantOf(given.Lease, letters)
	if err != nil {
		return nil, err
	}
	kept, err := r.take(tx, grant, lease.Intend)
	if err != nil {
		return nil, err
	}
	made.lease = kept.ID
	return made, nil
}

func (r *run) withIntent(ctx context.Context) context.Context {
	if r.intent == nil || r.intent.given == nil {
		return ctx
	}
	return conclave.WithIntended(ctx, r.intent.given)
}

// withdraw ends, in tx, what was intended and isn't confirmed.
func (r *run) withdraw(tx *store.Tx) error {
	if r.intent == nil || r.intent.lease == "" {
		return nil
	}
	system, err := namespace.At(tx.System(), r.intent.at.Path)
	if err != nil || system == nil {
		return err
	}
	return lease.Withdraw(system, r.intent.lease)
}

// abort records the failure of a request that could not do so itself, as when its client has gone, and ends what it
// intended, confirmed or not: an outcome that this node doesn't know may be a success, and nobody gets the answer. If abort
// doesn't succeed, an intent is over in time.
func (r *run) abort(ctx context.Context, failure error) {
	if r.intent == nil || r.intent.lease == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTime)
	defer cancel()
	r.attempt++ // the log may have a record of the last one
	for ctx.Err() == nil {
		err := r.abortOnce(ctx, failure)
		conflict, again := errors.AsType[*store.ErrConflict](err)
		if !again || r.pipeline.store.WaitApplied(ctx, conflict.Index) != nil {
			return
		}
	}
}

func (r *run) abortOnce(ctx context.Context, failure error) error {
	if err := r.pipeline.store.WaitApplied(ctx, r.intent.index); err != nil {
		return err
	}
	tx, err := r.pipeline.store.Begin()
	if err != nil {
		return err
	}
	defer tx.Close()
	system, err := namespace.At(tx.System(), r.intent.at.Path)
	if err != nil || system == nil {
		return err
	}
	if err := lease.Disown(system, r.intent.lease); err != nil {
		return err
	}
	record, err := r.pipeline.recorder.Record(tx, r, nil, failure)
	if err != nil {
		return err
	}
	if _, err := tx.Commit(ctx, record); err != nil {
		return err
	}
	r.intent, r.recorded = nil, true
	return nil
}
