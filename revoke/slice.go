package revoke

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/lease"
	"conclave/store"
)

// attempt is one lease that is being ended.
type attempt struct {
	record   *lease.Record
	gathered any
	engine   conclave.Leaser
	tried    bool
	err      error
}

// startSlices starts work on mounts of a namespace that have leases to be ended, are not worked on and do not rest.
func (r *Reaper) startSlices(ctx context.Context, group *errgroup.Group, path string) error {
	var mounts []string
	err := r.Store.Look(path, func(system conclave.Tx) (err error) {
		mounts, err = lease.Waiting(system)
		return err
	})
	for _, mount := range mounts {
		at := place{path, mount}
		if !r.take(at) {
			continue
		}
		started := group.TryGo(func() error {
			ok, tried := r.slices(ctx, at)
			r.giveBack(at, ok, tried)
			return nil
		})
		if !started {
			r.giveBack(at, true, false)
			break
		}
	}
	return err
}

func (r *Reaper) take(at place) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.rests[at]
	if s == nil {
		s = &resting{}
		r.rests[at] = s
	}
	if s.busy || time.Now().Before(s.until) {
		return false
	}
	s.busy = true
	return true
}

// giveBack has a mount rest, longer each time, if all that was tried has failed.
func (r *Reaper) giveBack(at place, ok, tried bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.rests[at]
	s.busy = false
	switch {
	case !tried && s.pause > 0 && time.Since(s.until) < maxRest: // nothing was due: what is known of it holds on for a while
	case ok:
		delete(r.rests, at)
	default:
		s.pause = min(max(2*s.pause, firstRest), maxRest)
		s.until = time.Now().Add(s.pause)
	}
}

// slices ends leases of a mount until none is due, or all attempts of a slice failed.
func (r *Reaper) slices(ctx context.Context, at place) (ok, tried bool) {
	for range stepsInTurn {
		records, err := r.next(ctx, at)
		if err != nil || len(records) == 0 || ctx.Err() != nil {
			return err == nil, tried
		}
		tried = true
		failed, _, err := r.end(ctx, at.namespace, records)
		if err != nil || failed > 0 && failed >= min(len(records), failuresOff) {
			return false, true
		}
	}
	return true, tried
}

// next finds leases of a mount to be ended. Those that can't be read are set aside.
func (r *Reaper) next(ctx context.Context, at place) (records []*lease.Record, err error) {
	var damaged lease.Due
	find := func(limit int) error {
		return r.Store.Look(at.namespace, func(system conclave.Tx) (err error) {
			records, damaged, err = lease.NextOf(system, at.mount, limit)
			return err
		})
	}
	var why error = errUnreadable
	if err = find(sliceBatch); conclave.Damaged(err) {
		if err = find(1); conclave.Damaged(err) { // the first can't be opened at all
			why = err
			err = r.Store.Look(at.namespace, func(system conclave.Tx) (err error) {
				damaged, err = lease.FindDueOf(system, at.mount, 1)
				return err
			})
		}
	}
	if err != nil || len(damaged) == 0 {
		return records, err
	}
	r.Logger.Error("leases that are over can't be read and are set aside: see sys/leases/damaged", "namespace", at.namespace, "count", len(damaged))
	return records, r.Store.Change(ctx, at.namespace, func(_ *store.Tx, system conclave.System) error {
		return lease.SetEndingAside(system, damaged, why)
	})
}

var errUnreadable = conclave.Errorf(conclave.Internal, "the stored record of a lease is damaged")

// EndNow tries once to end leases that are over.
func (r *Reaper) EndNow(ctx context.Context, at conclave.Namespace, keys []string) (failed int, why string, err error) {
	for len(keys) > 0 {
		n := min(len(keys), sliceBatch)
		var records []*lease.Record
		err := r.Store.Look(at.Path, func(system conclave.Tx) error {
			for _, key := range keys[:n] {
				record, err := lease.FindEnding(system, key)
				if err != nil {
					return err
				}
				if record != nil {
					records = append(records, record)
				}
			}
			return nil
		})
		if err != nil {
			return failed, why, err
		}
		f, w, err := r.end(ctx, at.Path, records)
		if failed += f; w != "" {
			why = w
		}
		if err != nil {
			return failed, why, err
		}
		if keys = keys[n:]; f >= failuresOff {
			return failed + len(keys), why, nil // the rest would fail alike
		}
	}
	return failed, why, nil
}

// end has engines end leases, and records what came of it. Those that weren't tried, because too many others failed, stay
// as they are; they count as failed.
func (r *Reaper) end(ctx context.Context, path string, records []*lease.Record) (failed int, why string, err error) {
	all := make([]*attempt, len(records))
	for i, record := range records {
		all[i] = &attempt{record: record}
		if err := r.Store.Look(path, func(system conclave.Tx) error { all[i].gather(r.Engines, system); return nil }); err != nil {
			return 0, "", err
		}
	}
	var calls errgroup.Group
	calls.SetLimit(perMount)
	var inARow atomic.Int64
	for _, a := range all {
		calls.Go(func() error {
			if inARow.Load() >= failuresOff || ctx.Err() != nil {
				return nil
			}
			if a.call(ctx); a.err != nil {
				inARow.Add(1)
			} else {
				inARow.Store(0)
			}
			return nil
		})
	}
	if err := calls.Wait(); err != nil {
		return 0, "", err
	}
	for _, a := range all {
		if a.err != nil {
			why = conclave.Reason(a.err)
		}
		if a.err != nil || !a.tried {
			failed++
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	if r.record(ctx, path, all...) == nil {
		return failed, why, nil
	}
	for _, a := range all { // one by one, so that a lease that its engine can't forget holds up no other
		problem := r.record(ctx, path, a)
		if problem == nil {
			continue
		}
		if a.err == nil {
			failed++
		}
		a.tried, a.err, why = true, problem, conclave.Reason(problem)
		err = errors.Join(err, r.record(ctx, path, a))
	}
	return failed, why, err
}

// record stores what came of attempts.
func (r *Reaper) record(ctx context.Context, path string, all ...*attempt) error {
	return r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) error {
		for _, a := range all {
			if err := a.finish(system, r.Engines, r.owners); err != nil {
				return err
			}
		}
		return nil
	})
}

// gather reads what the engine works from. An engine that can't be opened is a failed attempt.
func (a *attempt) gather(engines lease.Mounts, system conclave.Tx) {
	engine, view, err := engines.Engine(system, a.record.MountUUID)
	if err != nil {
		a.tried, a.err = true, err
		return
	}
	leaser, ok := engine.(conclave.Leaser)
	if !ok {
		a.tried, a.err = true, conclave.Errorf(conclave.Internal, "the engine ends no leases")
		return
	}
	a.engine = leaser
	err = guarded(func() (err error) {
		a.gathered, err = leaser.GatherRevoke(view, a.record.Granted())
		return err
	})
	if err != nil {
		a.tried, a.err = true, err
	}
}

func (a *attempt) call(ctx context.Context) {
	if a.tried {
		return
	}
	a.tried = true
	ctx, cancel := context.WithTimeout(ctx, CallTime)
	defer cancel()
	a.err = guarded(func() error { return a.engine.Revoke(ctx, a.record.Granted(), a.gathered) })
}

// guarded makes a panic the failure of one attempt.
func guarded(work func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = conclave.Errorf(conclave.Internal, "the engine panicked")
		}
	}()
	return work()
}

func (a *attempt) finish(system conclave.Tx, engines lease.Mounts, owners Owners) error {
	if !a.tried {
		return nil
	}
	key := a.record.Key()
	if a.err != nil {
		given, err := lease.Failed(system, key, conclave.Reason(a.err))
		if err == nil && given != nil {
			err = owners.Release(system, given)
		}
		return err
	}
	ended, err := lease.Ended(system, key)
	if err != nil || ended == nil {
		return err
	}
	_, inner, err := engines.Engine(system, ended.MountUUID)
	if err != nil {
		return err
	}
	if err := guarded(func() error { return a.engine.ForgetLease(inner, ended.Granted()) }); err != nil {
		return err
	}
	return owners.Release(system, ended)
}
