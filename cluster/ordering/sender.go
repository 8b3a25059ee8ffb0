package ordering

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"conclave"
	"conclave/cluster/wire"
	"conclave/fsm"
)

// Limits of a commit.
const (
	maxCommitTime = 60 * time.Second // for a context without a deadline, and at most on its way
	maxUnsent     = 10 * time.Second // that a transaction waits for a leader, if one is known
	maxUnsure     = 10 * time.Second // that one waits to hear whether it was applied
	retryPause    = 5 * time.Millisecond
	busyRetry     = time.Second // told to clients that were refused over a budget
	fullRetry     = 30 * time.Second
)

// SenderOptions are what a sender needs.
type SenderOptions struct {
	NodeID   string // of this node
	FSM      *fsm.FSM
	Order    *Order
	Leader   func() string          // node id, "" if none is known
	News     func() <-chan struct{} // closed when another leader is known
	Lost     func() <-chan struct{} // closed while there has been no quorum for some time; nil: never
	Full     func() bool            // whether this node's disk has no room; nil: never
	Stream   func(ctx context.Context, leader string) (wire.Cluster_CommitClient, error)
	Observer Observer // default: none
}

// Sender is the part of Commit that every node has. Its statistics are kept with the order's.
type Sender struct {
	options   SenderOptions
	stats     *counters
	lanes     [lanes]*lane
	instance  fsm.ProposalID // first half random
	proposals atomic.Uint64
	stopped   chan struct{}
	tasks     sync.WaitGroup // lanes and readers of streams
}

// NewSender makes a sender. It sends while Run runs.
func NewSender(o SenderOptions) *Sender {
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Lost == nil {
		o.Lost = func() <-chan struct{} { return nil }
	}
	if o.Full == nil {
		o.Full = func() bool { return false }
	}
	s := &Sender{options: o, stats: o.Order.stats, stopped: make(chan struct{})}
	rand.Read(s.instance[:8])
	for kind := range s.lanes {
		s.lanes[kind] = newLane(s, priority(kind))
	}
	return s
}

// Run sends until ctx ends. What is out then is unknown.
func (s *Sender) Run(ctx context.Context) {
	for _, l := range s.lanes {
		s.tasks.Add(1)
		go func() { // ends with ctx
			defer s.tasks.Done()
			l.run(ctx)
		}()
	}
	<-ctx.Done()
	close(s.stopped)
	s.tasks.Wait()
}

// LeaderChanged gives up streams to another node than the new leader.
func (s *Sender) LeaderChanged(leader string) {
	for _, l := range s.lanes {
		l.leaderChanged(leader)
	}
}

// Stats are counts since the node started.
func (s *Sender) Stats() Stats { return s.stats.snapshot() }

// Commit has a transaction judged, in the usual lane or the urgent one; see cluster.Node.Commit for the contract.
func (s *Sender) Commit(ctx context.Context, tx *fsm.Transaction, urgently bool) (fsm.Outcome, error) {
	l := s.lanes[usual]
	if urgently {
		l = s.lanes[urgent]
	}
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
		outcome, again, err := s.send(ctx, p, l)
		if !again {
			s.stats.answered(outcome.Verdict, err, time.Since(began))
			s.options.Observer.Committed(outcome.Verdict, err, time.Since(began))
			return outcome, err
		}
		s.stats.resent()
		select {
		case <-ctx.Done():
			return fsm.Outcome{}, unavailable("the cluster did not take the transaction in time", 0)
		case <-time.After(retryPause):
		}
	}
}

// send sends a proposal once and finds out what became of it. again says that it is certainly dead.
func (s *Sender) send(ctx context.Context, p *proposal, l *lane) (_ fsm.Outcome, again bool, _ error) {
	lost := s.options.Lost()
	select {
	case <-lost:
		return fsm.Outcome{}, false, s.noQuorum()
	default:
	}
	if !l.push(p) {
		return fsm.Outcome{}, false, unavailable("too much is waiting to be committed", busyRetry)
	}
	r, err := s.awaitResult(ctx, p, l, lost)
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
		return fsm.Outcome{}, false, unavailable("the leader's disk or audit log has no room: make some, then try again", fullRetry)
	case wire.Status_STUCK:
		const why = "too many nodes' disks or audit logs have no room"
		if !p.tx.Writing() {
			return fsm.Outcome{}, false, unavailable(why+": make some, then try again", fullRetry)
		}
		return fsm.Outcome{}, false, conclave.Errorf(conclave.Unknown, why+": it is done when they have some again, or never")
	case wire.Status_LATE:
		return fsm.Outcome{}, false, unavailable("the transaction came to the leader too late", 0)
	case wire.Status_INVALID:
		return fsm.Outcome{}, false, conclave.Errorf(conclave.Invalid, "the transaction can't be applied")
	}
	return s.resolve(ctx, p, r.way, lost)
}

// awaitResult waits until the proposal comes back. A proposal that nobody takes for a while is taken back.
func (s *Sender) awaitResult(ctx context.Context, p *proposal, l *lane, lost <-chan struct{}) (result, error) {
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
		case <-s.stopped:
			if l.withdraw(p) {
				return result{}, unavailable("the node is shutting down", 0)
			}
			// What is out comes back from the lane, which ends too.
			select {
			case r := <-p.done:
				return r, nil
			case <-ctx.Done():
				return result{}, unknown(p.tx)
			}
		case <-lost:
			if l.withdraw(p) {
				return result{}, s.noQuorum()
			}
			return s.abandon(p)
		case <-ctx.Done():
			if l.withdraw(p) {
				return result{}, unavailable("no leader took the transaction in time", 0)
			}
			return s.abandon(p)
		}
	}
}

// abandon waits no longer for a proposal that is out.
func (s *Sender) abandon(p *proposal) (result, error) {
	select {
	case r := <-p.done:
		return r, nil
	default:
	}
	// Its waiter may have heard before the sender did.
	go func() { // ends when the lane lands the batch, which Shutdown makes it do
		<-p.done
		p.waiter.Forget()
	}()
	return result{}, unknown(p.tx)
}

// resolve finds the fate of a proposal that may be applied later or never: this node applies it; or a later term opens;
// or the leader of the same term has told an index after which nothing of the broken stream can come.
func (s *Sender) resolve(ctx context.Context, p *proposal, w *way, lost <-chan struct{}) (_ fsm.Outcome, again bool, _ error) {
	defer p.waiter.Forget()
	s.stats.unsure()
	ctx, cancel := context.WithTimeout(ctx, maxUnsure)
	defer cancel()
	seen := func(o fsm.Outcome, ok bool) (fsm.Outcome, bool, error) {
		if !ok || o.Verdict == 0 {
			return fsm.Outcome{}, false, unknown(p.tx)
		}
		return o, o.Verdict == fsm.Dead, nil
	}
	select {
	case o, ok := <-p.waiter.Done():
		return seen(o, ok)
	case <-ctx.Done():
		return fsm.Outcome{}, false, unknown(p.tx)
	case <-lost:
		return fsm.Outcome{}, false, unknown(p.tx)
	case <-s.stopped:
		return fsm.Outcome{}, false, unknown(p.tx)
	case <-w.fenced:
	}
	w.mu.Lock()
	bound := w.bound
	w.mu.Unlock()
	if err := s.options.FSM.WaitApplied(ctx, bound); err != nil {
		return fsm.Outcome{}, false, unknown(p.tx)
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

// noQuorum refuses what has not been sent. A new leader may be unable to open its term because the disks are full.
func (s *Sender) noQuorum() error {
	if s.options.Full() {
		return unavailable("the cluster has no quorum, and this node's disk has no room: make some, then try again", fullRetry)
	}
	return unavailable("the cluster has no quorum: too few of its nodes are up and reach each other", busyRetry)
}

// unknown is the error for a transaction that may have been committed, or may yet be. One that only reads has no effect then
// but its record, and can be sent again.
func unknown(tx *fsm.Transaction) error {
	if !tx.Writing() {
		return unavailable("the cluster did not answer in time: it may have lost its quorum", busyRetry)
	}
	return conclave.Errorf(conclave.Unknown, "whether the transaction was committed isn't known: it may have been")
}

// nextID is a fresh proposal id: the instance of this process, and a counter.
func (s *Sender) nextID() fsm.ProposalID {
	id := fsm.ProposalID(s.instance)
	binary.BigEndian.PutUint64(id[8:], s.proposals.Add(1))
	return id
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
