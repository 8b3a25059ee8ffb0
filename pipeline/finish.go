package pipeline

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"conclave"
	"conclave/store"
)

// Limits of the record of how a request was finished.
const (
	// finishTime is how long that record may take, whatever is left of the request's time.
	finishTime = 10 * time.Second
	// catchUpTime is how long finishing waits for this node to have applied what was committed. It goes on without then: a node
	// that lags must be sealed all the same.
	catchUpTime = 10 * time.Second
	// finishAttempts bounds how often it is proposed again because a snapshot replaced the state.
	finishAttempts = 4
)

// finish lets the route act on what was committed. The record that is committed says that the request was let through
// and did what its handler does; if the answer says more than that, or that acting failed, this is one more attempt of the
// request, with a record of its own before the answer leaves.
func (r *run) finish(ctx context.Context, done *conclave.Response) (*conclave.Response, error) {
	r.catchUp(ctx, done.Index)
	resp, failure := r.act(ctx)
	switch {
	case failure != nil:
		resp = nil
		r.count(failure)
	case resp == nil:
		return done, nil
	default:
		resp.Index, resp.MountType = done.Index, done.MountType
		if resp.Data == nil && resp.Auth == nil && resp.Lease == nil && resp.Wrap == nil && resp.Raw == nil && len(resp.Warnings) == 0 {
			return resp, nil
		}
		if failure = marshalData(resp); failure != nil {
			resp = nil
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	index, err := r.recordFinish(ctx, resp, failure)
	if r.recorded = err == nil; r.recorded {
		if resp != nil {
			resp.Index = index
		}
		return resp, failure
	}
	r.pipeline.log.Warn("how a request was finished could not be recorded", "request_id", r.request.ID, "error", err)
	if kind := conclave.KindOf(failure); kind == conclave.Sealed || kind == conclave.Unavailable || kind == conclave.Unknown {
		return nil, failure // which tells nothing but "not now"
	}
	return nil, conclave.Errorf(conclave.Unknown, "what came of it could not be recorded")
}

// catchUp has the state show what was committed: a follower learns of that late.
func (r *run) catchUp(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, catchUpTime)
	defer cancel()
	if err := r.pipeline.store.WaitApplied(ctx, index); err != nil {
		r.pipeline.log.Warn("a request is finished on a state that may not show it yet", "request_id", r.request.ID)
	}
}

// act runs the route's Finish. A panic becomes an error of this request alone.
func (r *run) act(ctx context.Context) (resp *conclave.Response, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			r.pipeline.counters.Panics.Add(1)
			r.pipeline.log.Error("finishing a request panicked", "request_id", r.request.ID, "stack", string(debug.Stack()))
			resp, err = nil, conclave.Errorf(conclave.Internal, "internal error")
		}
	}()
	return r.call.route.Finish(ctx, r.request, r.call.input)
}

// recordFinish commits the record of the next attempt and returns its index. The vault mustn't be closing meanwhile.
func (r *run) recordFinish(ctx context.Context, resp *conclave.Response, failure error) (index uint64, err error) {
	if err := r.pipeline.gate.enter(); err != nil {
		return 0, err
	}
	defer r.pipeline.gate.leave()
	r.attempt++
	for range finishAttempts {
		index, err = r.recordOnce(ctx, resp, failure)
		if _, again := errors.AsType[*store.ErrConflict](err); !again {
			return index, err
		}
	}
	return 0, err
}

func (r *run) recordOnce(ctx context.Context, resp *conclave.Response, failure error) (index uint64, err error) {
	tx, err := r.pipeline.store.Begin()
	if err != nil {
		return 0, err
	}
	defer tx.Close()
	if r.call.route.Urgent {
		tx.SetUrgent()
	}
	record, err := r.pipeline.recorder.Record(tx, r, resp, failure)
	if err != nil {
		return 0, err
	}
	committed, err := tx.CommitRecord(ctx, record)
	return committed.Index, err
}
