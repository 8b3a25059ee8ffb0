package fsm

import (
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Waiter waits for the outcome of one proposal of this node.
type Waiter struct {
	fsm  *FSM
	id   ProposalID
	term uint64
	done chan Outcome
}

// indexWaiter waits for an index to be applied.
type indexWaiter struct {
	index uint64
	done  chan struct{}
}

// Await returns a Waiter for a proposal that is about to be sent to the leader of a term. It must be called before the
// proposal is sent, or what comes of it may be missed.
func (f *FSM) Await(id ProposalID, term uint64) *Waiter {
	w := &Waiter{fsm: f, id: id, term: term, done: make(chan Outcome, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shown.opened > term {
		w.done <- Outcome{Verdict: Dead, Index: f.shown.applied}
		return w
	}
	f.waiters[id] = w
	return w
}

// Done gets the outcome when this node applies the proposal: the verdict on one that writes; for one that doesn't,
// Recorded, or Committed or Conflict if this node judged it. It gets Dead when the proposal can't be applied any more,
// and the zero Verdict when that isn't known because a snapshot replaced the state.
func (w *Waiter) Done() <-chan Outcome { return w.done }

// Forget stops waiting. It may be called more than once, and after the outcome came.
func (w *Waiter) Forget() {
	w.fsm.mu.Lock()
	defer w.fsm.mu.Unlock()
	if w.fsm.waiters[w.id] == w {
		delete(w.fsm.waiters, w.id)
	}
}

// Expect gives a leader's FSM the transactions, in full, of a batch that is about to be proposed, so that it judges
// those that only read when it applies them. Call forget when the batch's outcome is known or isn't waited for.
func (f *FSM) Expect(batch ProposalID, txs []*Transaction) (forget func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected[batch] = txs
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.expected, batch)
	}
}

// expectation returns the transactions of a batch of n, if they are expected.
func (f *FSM) expectation(batch ProposalID, n int) []*Transaction {
	f.mu.Lock()
	defer f.mu.Unlock()
	if txs := f.expected[batch]; len(txs) == n {
		return txs
	}
	return nil
}

// WaitApplied returns when Applied has reached index, or with ctx's error.
func (f *FSM) WaitApplied(ctx context.Context, index uint64) error {
	if f.Applied() >= index {
		return nil
	}
	f.mu.Lock()
	if f.shown.applied >= index {
		f.mu.Unlock()
		return nil
	}
	w := indexWaiter{index, make(chan struct{})}
	f.indexes = append(f.indexes, w)
	f.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.indexes = slices.DeleteFunc(f.indexes, func(o indexWaiter) bool { return o.done == w.done })
	return ctx.Err()
}

// publish commits the pending batch and shows it.
func (f *FSM) publish(a *applier) {
	f.mu.Lock()
	a.must(a.batch.Commit(pebble.NoSync), "commit state")
	old := f.view
	opened := a.next.opened > f.shown.opened
	f.view, f.shown = nil, a.next
	a.epoch.hot.End(a.next.applied)
	f.applied.Store(a.next.applied)
	if len(f.waiters) > 0 {
		f.deliverLocked(a.settled, opened)
	}
	f.wakeLocked()
	f.settleCutLocked(a.next.applied + 1)
	f.mu.Unlock()
	a.must(a.batch.Close(), "commit state")
	if old != nil {
		old.Release()
	}
}

// deliverLocked gives outcomes to those who wait for them, and Dead to those whose term has passed.
func (f *FSM) deliverLocked(settled []settlement, opened bool) {
	for i := range settled {
		if w := f.waiters[settled[i].id]; w != nil {
			w.done <- settled[i].outcome
			delete(f.waiters, settled[i].id)
		}
	}
	if !opened {
		return
	}
	for id, w := range f.waiters {
		if w.term < f.shown.opened {
			w.done <- Outcome{Verdict: Dead, Index: f.shown.applied}
			delete(f.waiters, id)
		}
	}
}

// wakeLocked wakes those who wait for an index that is applied.
func (f *FSM) wakeLocked() {
	if len(f.indexes) == 0 {
		return
	}
	f.indexes = slices.DeleteFunc(f.indexes, func(w indexWaiter) bool {
		if w.index > f.shown.applied {
			return false
		}
		close(w.done)
		return true
	})
}
