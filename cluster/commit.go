package cluster

import (
	"context"
	"time"

	"conclave"
	"conclave/cluster/wire"
	"conclave/fsm"
)

// Limits of a commit.
const (
	maxCommitTime = 60 * time.Second // for a context without a deadline, and at most on its way
	maxUnsent     = 10 * time.Second // that a transaction waits for a leader
	retryPause    = 5 * time.Millisecond
	busyRetry     = time.Second // told to clients that were refused over a budget
	fullRetry     = 30 * time.Second
)

// Commit has the transaction ordered and judged by the cluster, and returns the verdict: Committed, Conflict, Refused,
// or, for one that doesn't write, Recorded. Its ID is set anew for each sending; the rest must not be changed until
// Commit returns, nor after an error until the process ends.
//
// A proposal that is certainly dead is sent again until ctx ends. Errors are *conclave.Error: Unavailable if the
// transaction was certainly not applied, Unknown if it may have been, TooLarge above 8 MiB, Invalid if it can't be applied.
func (n *Node) Commit(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	return n.commit(ctx, tx, n.lanes[usual])
}

// CommitUrgent is Commit in a lane of its own, for what must get through under load: seal, revoke, step-down.
func (n *Node) CommitUrgent(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	return n.commit(ctx, tx, n.lanes[urgent])
}

func (n *Node) commit(ctx context.Context, tx *fsm.Transaction, l *lane) (fsm.Outcome, error) {
	bytes := sizeOf(tx)
	if bytes > maxTransaction {
		return fsm.Outcome{}, conclave.Errorf(conclave.TooLarge, "the transaction is longer than %d MiB", maxTransaction>>20)
	}
	if err := tx.Check(); err != nil {
		return fsm.Outcome{}, conclave.Errorf(conclave.Invalid, "the transaction can't be applied: %w", err)
	}
	began := time.Now()
	deadline, ok := ctx.Deadline()
	if !ok || deadline.After(began.Add(maxCommitTime)) {
		deadline = began.Add(maxCommitTime)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	for {
		p := &proposal{tx: tx, bytes: bytes, deadline: deadline, done: make(chan result, 1)}
		outcome, again, err := n.send(ctx, p, l)
		if !again {
			n.stats.answered(outcome.Verdict, err, time.Since(began))
			n.config.Observer.Committed(outcome.Verdict, err, time.Since(began))
			return outcome, err
		}
		n.stats.resent()
		select {
		case <-ctx.Done():
			return fsm.Outcome{}, unavailable("the cluster did not take the transaction in time", 0)
		case <-time.After(retryPause):
		}
	}
}

// send sends a proposal once and finds out what became of it. again says that it is certainly dead.
func (n *Node) send(ctx context.Context, p *proposal, l *lane) (_ fsm.Outcome, again bool, _ error) {
	if !l.push(p) {
		return fsm.Outcome{}, false, unavailable("too much is waiting to be committed", busyRetry)
	}
	r, err := n.awaitResult(ctx, p, l)
	if err != nil {
		return fsm.Outcome{}, false, err
	}
	if r.status != wire.Status_UNSURE {
		p.waiter.Forget()
	}
	switch r.status {
	case wire.Status_DONE:
		return r.outcome, r.outcome.Verdict == fsm.Dead, nil
	case wire.Status_NOT_LEADER, wire.Status_AGAIN:
		return fsm.Outcome{}, true, nil
	case wire.Status_BUSY:
		return fsm.Outcome{}, false, unavailable("the leader has too much waiting to be committed", busyRetry)
	case wire.Status_FULL:
		return fsm.Outcome{}, false, unavailable("the leader's disk has reached its reserve", fullRetry)
	case wire.Status_LATE:
		return fsm.Outcome{}, false, unavailable("the transaction came to the leader too late", 0)
	case wire.Status_INVALID:
		return fsm.Outcome{}, false, conclave.Errorf(conclave.Invalid, "the transaction can't be applied")
	}
	return n.resolve(ctx, p, r.way)
}

// awaitResult waits until the proposal comes back. A proposal that nobody takes for a while is taken back.
func (n *Node) awaitResult(ctx context.Context, p *proposal, l *lane) (result, error) {
	timer := time.NewTimer(maxUnsent)
	defer timer.Stop()
	for {
		select {
		case r := <-p.done:
			return r, nil
		case <-timer.C:
			if l.withdraw(p) {
				return result{}, unavailable("no leader takes transactions", busyRetry)
			}
		case <-n.stopped:
			if l.withdraw(p) {
				return result{}, unavailable("the node is shutting down", 0)
			}
			// What is out comes back from the lane, which ends too.
			select {
			case r := <-p.done:
				return r, nil
			case <-ctx.Done():
				return result{}, unknown()
			}
		case <-ctx.Done():
			if l.withdraw(p) {
				return result{}, unavailable("no leader took the transaction in time", 0)
			}
			select {
			case r := <-p.done:
				return r, nil
			default:
			}
			// It is out, and its waiter may have heard before the sender did.
			go func() { // ends when the lane lands the batch, which Shutdown makes it do
				<-p.done
				p.waiter.Forget()
			}()
			return result{}, unknown()
		}
	}
}

// resolve finds the fate of a proposal that may be applied later or never: this node applies it; or a later term opens;
// or the leader of the same term has told an index after which nothing of the broken stream can come.
func (n *Node) resolve(ctx context.Context, p *proposal, w *way) (_ fsm.Outcome, again bool, _ error) {
	defer p.waiter.Forget()
	n.stats.unsure()
	seen := func(o fsm.Outcome, ok bool) (fsm.Outcome, bool, error) {
		if !ok || o.Verdict == 0 {
			return fsm.Outcome{}, false, unknown()
		}
		return o, o.Verdict == fsm.Dead, nil
	}
	select {
	case o, ok := <-p.waiter.Done():
		return seen(o, ok)
	case <-ctx.Done():
		return fsm.Outcome{}, false, unknown()
	case <-n.stopped:
		return fsm.Outcome{}, false, unknown()
	case <-w.fenced:
	}
	w.mu.Lock()
	bound := w.bound
	w.mu.Unlock()
	if err := n.fsm.WaitApplied(ctx, bound); err != nil {
		return fsm.Outcome{}, false, unknown()
	}
	select {
	case o, ok := <-p.waiter.Done():
		return seen(o, ok)
	default:
		return fsm.Outcome{}, true, nil
	}
}

func unavailable(message string, retryAfter time.Duration) error {
	err := conclave.Errorf(conclave.Unavailable, "%s", message)
	err.RetryAfter = retryAfter
	return err
}

func unknown() error {
	return conclave.Errorf(conclave.Unknown, "whether the transaction was committed isn't known: it may have been")
}

// sizeOf is about what a transaction takes in an entry.
func sizeOf(tx *fsm.Transaction) int {
	n := 128 + len(tx.Record.Box)
	for i := range tx.Reads {
		n += 12 + len(tx.Reads[i].Key)
	}
	for i := range tx.Writes {
		n += 32 + len(tx.Writes[i].Key) + len(tx.Writes[i].Value)
	}
	return n
}
