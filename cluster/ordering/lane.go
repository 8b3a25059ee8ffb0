package ordering

import (
	"context"
	"sync"
	"time"

	"conclave/cluster/wire"
	"conclave/fsm"
)

// Limits of sending.
const (
	maxBatchesInFlight = 1                      // per lane; while so many are out, transactions gather for the next one
	maxLaneBytes       = 32 << 20               // of transactions of this node, queued and sent, per lane
	helloTimeout       = time.Second            // for a stream to the leader to be answered
	routePause         = 20 * time.Millisecond  // between attempts to reach a leader
	maxRoutePause      = 200 * time.Millisecond // after many attempts
)

// proposal is one sending of one transaction.
type proposal struct {
	tx       *fsm.Transaction
	bytes    int
	deadline time.Time
	waiter   *fsm.Waiter // set when it is sent
	sent     bool        // guarded by the lane's mutex
	done     chan result // of capacity 1
}

// result is what became of a sending.
type result struct {
	status  wire.Status
	outcome fsm.Outcome
	way     *way // for UNSURE: how it was sent
}

// way is how transactions get to the leader of a term: into its own order, or through a stream.
type way struct {
	leader string
	term   uint64
	stream wire.Cluster_CommitClient // nil: this node leads
	cancel context.CancelFunc
	fenced chan struct{} // closed when bound is known, after the stream broke

	mu      sync.Mutex // guards what follows
	broken  bool
	bound   uint64 // nothing sent this way is applied after this index
	flights map[uint64]*flight
	fences  map[uint64]func(wire.Status, uint64)
}

// flight is one batch under way.
type flight struct {
	proposals []*proposal
}

// lane gathers the transactions of this node into batches and brings them to the leader.
type lane struct {
	s    *Sender
	kind priority
	wake chan struct{}

	mu       sync.Mutex // guards what follows
	queue    []*proposal
	bytes    int
	inFlight int
	number   uint64
	way      *way
	lost     []*way // broken, and not fenced: a later term may resolve them first
	newest   uint64 // highest term of any way
}

func newLane(s *Sender, kind priority) *lane {
	return &lane{s: s, kind: kind, wake: make(chan struct{}, 1)}
}

func (l *lane) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// push queues a proposal. It reports whether there was room.
func (l *lane) push(p *proposal) bool {
	l.mu.Lock()
	if l.bytes > 0 && l.bytes+p.bytes > maxLaneBytes {
		l.mu.Unlock()
		return false
	}
	l.bytes += p.bytes
	l.queue = append(l.queue, p)
	l.mu.Unlock()
	l.rouse()
	return true
}

// withdraw takes a proposal back. It reports whether it hadn't been sent.
func (l *lane) withdraw(p *proposal) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.sent {
		return false
	}
	for i, q := range l.queue {
		if q == p {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			l.bytes -= p.bytes
			return true
		}
	}
	return true
}

// run sends until ctx ends.
func (l *lane) run(ctx context.Context) {
	pause := routePause
	for {
		select {
		case <-ctx.Done():
			l.leave()
			return
		case <-l.wake:
		}
		for l.due() {
			w := l.route(ctx)
			if w == nil {
				_, opened := l.s.options.Order.OpenTerm()
				select {
				case <-ctx.Done():
				case <-l.s.options.News():
				case <-opened:
				case <-time.After(pause):
				}
				pause = min(2*pause, maxRoutePause)
				if ctx.Err() != nil {
					l.leave()
					return
				}
				continue
			}
			pause = routePause
			l.dispatch(w)
		}
	}
}

// leave gives up the stream; what is out on it stays unknown.
func (l *lane) leave() {
	l.mu.Lock()
	w := l.way
	l.mu.Unlock()
	if w != nil {
		l.lose(w)
	}
}

// due reports whether there is something to send and room to send it, or a broken stream to fence.
func (l *lane) due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0 && l.inFlight < maxBatchesInFlight || len(l.lost) > 0
}

// route returns a way to the leader, nil if there is none now.
func (l *lane) route(ctx context.Context) *way {
	l.mu.Lock()
	current := l.way
	l.mu.Unlock()
	term, _ := l.s.options.Order.OpenTerm()
	leader := l.s.options.Leader()
	if current != nil && !current.isBroken() {
		if current.stream == nil && current.term == term || current.stream != nil && current.leader == leader && term == 0 {
			l.settle(current)
			return current
		}
		l.lose(current)
	}
	var w *way
	switch {
	case term != 0:
		w = &way{leader: l.s.options.NodeID, term: term, fenced: make(chan struct{}), flights: make(map[uint64]*flight)}
	case leader == "" || leader == l.s.options.NodeID:
		return nil
	default:
		if w = l.connect(ctx, leader); w == nil {
			return nil
		}
	}
	l.mu.Lock()
	stale := w.term < l.newest
	if !stale {
		l.way, l.newest = w, w.term
	}
	l.mu.Unlock()
	if stale { // a leader that doesn't know yet that it is deposed
		l.lose(w)
		return nil
	}
	l.settle(w)
	return w
}

// leaderChanged gives up a stream to another node than the new leader, even if a send on it is stuck.
func (l *lane) leaderChanged(leader string) {
	l.mu.Lock()
	w := l.way
	l.mu.Unlock()
	if w != nil && w.stream != nil && leader != "" && w.leader != leader {
		l.lose(w)
	}
	l.rouse()
}

// settle sees to the broken streams once there is a new one: those of the same term are fenced, those of an older one
// are resolved by the opening of the new term when this node applies it.
func (l *lane) settle(w *way) {
	l.mu.Lock()
	lost := l.lost
	l.lost = nil
	l.mu.Unlock()
	var same []*way
	for _, old := range lost {
		if old.term == w.term && w.stream != nil {
			same = append(same, old)
		}
	}
	if len(same) == 0 {
		return
	}
	done := func(status wire.Status, index uint64) {
		if status != wire.Status_FENCED {
			time.AfterFunc(routePause, func() {
				l.mu.Lock()
				l.lost = append(l.lost, same...)
				l.mu.Unlock()
				l.rouse()
			})
			return
		}
		for _, old := range same {
			old.mu.Lock()
			old.bound = index
			old.mu.Unlock()
			close(old.fenced)
		}
	}
	l.mu.Lock()
	l.number++
	number := l.number
	l.mu.Unlock()
	if !w.expectFence(number, done) {
		done(wire.Status_UNSURE, 0)
		return
	}
	if w.stream.Send(&wire.Batch{Number: number, Fence: true}) != nil {
		l.lose(w)
	}
}

// connect opens a stream to the leader and waits for it to name its term.
func (l *lane) connect(ctx context.Context, leader string) *way {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(helloTimeout, cancel)
	stream, err := l.s.options.Stream(laneHeader(ctx, l.kind), leader)
	var hello *wire.Answer
	if err == nil {
		hello, err = stream.Recv()
	}
	if !timer.Stop() || err != nil || hello.GetStatus() != wire.Status_HELLO {
		cancel()
		return nil
	}
	w := &way{leader: leader, term: hello.GetTerm(), stream: stream, cancel: cancel, fenced: make(chan struct{}),
		flights: make(map[uint64]*flight), fences: make(map[uint64]func(wire.Status, uint64))}
	l.s.tasks.Add(1)
	go func() { // ends when the stream breaks, at the latest when ctx ends
		defer l.s.tasks.Done()
		l.receive(w)
	}()
	return w
}

func (l *lane) receive(w *way) {
	defer l.lose(w)
	for {
		a, err := w.stream.Recv()
		if err != nil {
			return
		}
		w.mu.Lock()
		f, fence := w.flights[a.GetNumber()], w.fences[a.GetNumber()]
		delete(w.flights, a.GetNumber())
		delete(w.fences, a.GetNumber())
		w.mu.Unlock()
		switch {
		case fence != nil:
			fence(a.GetStatus(), a.GetIndex())
		case f != nil:
			outcomes, ok := outcomesOf(a, len(f.proposals))
			status := a.GetStatus()
			if status == wire.Status_DONE && !ok {
				status = wire.Status_UNSURE
			}
			l.land(w, f, status, outcomes)
		}
		if a.GetStatus() == wire.Status_NOT_LEADER {
			return
		}
	}
}

// dispatch sends one batch of what is queued.
func (l *lane) dispatch(w *way) {
	f, bytes, number := l.take()
	if f == nil {
		return
	}
	now := time.Now()
	deadline := now
	txs := make([]*fsm.Transaction, len(f.proposals))
	for i, p := range f.proposals {
		// A copy: the same transaction may be under way under an older id, and its owner may have left.
		tx := *p.tx
		tx.ID = l.s.nextID()
		txs[i] = &tx
		p.waiter = l.s.options.FSM.Await(tx.ID, w.term)
		if p.deadline.After(deadline) {
			deadline = p.deadline
		}
	}
	l.s.stats.sent(len(txs), w.stream != nil)
	if w.stream == nil {
		l.s.options.Order.take(&parcel{txs: txs, bytes: bytes, term: w.term, deadline: deadline, answer: func(status wire.Status, _ uint64, outcomes []fsm.Outcome) {
			l.land(w, f, status, outcomes)
		}}, l.kind, "", 0)
		return
	}
	b := &wire.Batch{Number: number, TimeoutMs: uint32(min(deadline.Sub(now), maxCommitTime) / time.Millisecond), Transactions: fsm.EncodeTransactions(nil, txs)}
	if !w.expectFlight(number, f) {
		l.land(w, f, wire.Status_AGAIN, nil)
		return
	}
	if w.stream.Send(b) != nil {
		l.lose(w)
	}
}

// take makes a batch of the queue: up to 512 KiB, or a single longer transaction.
func (l *lane) take() (*flight, int, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 || l.inFlight >= maxBatchesInFlight {
		return nil, 0, 0
	}
	bytes, count := 0, 0
	for _, p := range l.queue {
		if count > 0 && (bytes+p.bytes > maxBatch || count == maxBatchCount) {
			break
		}
		bytes += p.bytes
		count++
		p.sent = true
	}
	f := &flight{proposals: append([]*proposal(nil), l.queue[:count]...)}
	rest := copy(l.queue, l.queue[count:])
	clear(l.queue[rest:])
	l.queue = l.queue[:rest]
	l.inFlight++
	l.number++
	return f, bytes, l.number
}

// land delivers what became of a batch.
func (l *lane) land(w *way, f *flight, status wire.Status, outcomes []fsm.Outcome) {
	bytes := 0
	for i, p := range f.proposals {
		bytes += p.bytes
		r := result{status: status, way: w}
		if status == wire.Status_DONE {
			r.outcome = outcomes[i]
		}
		p.done <- r
	}
	l.mu.Lock()
	l.inFlight--
	l.bytes -= bytes
	l.mu.Unlock()
	l.rouse()
}

// lose breaks a way; what is out on it is unsure. It may be called more than once.
func (l *lane) lose(w *way) {
	w.mu.Lock()
	if w.broken {
		w.mu.Unlock()
		return
	}
	w.broken = true
	flights, fences := w.flights, w.fences
	w.flights, w.fences = nil, nil
	w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
	}
	l.mu.Lock()
	if l.way == w {
		l.way = nil
	}
	if len(flights) > 0 {
		l.lost = append(l.lost, w)
	}
	l.mu.Unlock()
	for _, f := range flights {
		l.land(w, f, wire.Status_UNSURE, nil)
	}
	for _, done := range fences {
		done(wire.Status_UNSURE, 0)
	}
	l.rouse()
}

func (w *way) isBroken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

func (w *way) expectFlight(number uint64, f *flight) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken {
		return false
	}
	w.flights[number] = f
	return true
}

func (w *way) expectFence(number uint64, done func(wire.Status, uint64)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken {
		return false
	}
	w.fences[number] = done
	return true
}
