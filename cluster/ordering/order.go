// Package ordering brings transactions into the log, once each: senders on every node batch what is in flight and find
// out what became of it, the leader's Order merges the batches into Raft entries and answers.
package ordering

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"conclave/cluster/wire"
	"conclave/fsm"
)

// Limits of ordering. Bytes are those of encoded transactions and are held until they are applied.
const (
	maxTransaction = 8 << 20
	maxBatch       = 512 << 10 // one entry or batch, unless a single transaction is longer
	maxBatchCount  = 4096      // transactions of one entry or batch
	MaxPipeline    = 8
	maxOrderBytes  = 64 << 20 // held by the leader for all nodes
	maxUrgentBytes = 16 << 20 // beyond it, for the urgent lane
	enqueueTimeout = 5 * time.Second
	maxLinger      = 5 * time.Millisecond
	crowded        = 4 // transactions of the last entries, on average, from which on more are waited for
)

// MaxMessage limits a message of a stream: a batch with one transaction of the largest size, and what surrounds it.
const MaxMessage = maxTransaction + 1<<20

// priority says which lane a transaction takes.
type priority int

const (
	usual priority = iota
	urgent
	lanes
)

// parcel is a batch of one sender on its way into an entry.
type parcel struct {
	txs      []*fsm.Transaction
	bytes    int
	term     uint64 // that its sender believes in: it is proposed in no other
	deadline time.Time
	fence    bool // no transactions: answered when all before it are
	// answer is called once. outcomes is nil unless the status is DONE.
	answer func(status wire.Status, index uint64, outcomes []fsm.Outcome)
}

// entry is what is under way in Raft: a fence, if it has no future.
type entry struct {
	future  raft.ApplyFuture
	forget  func()
	parcels []*parcel // that nobody has answered; guarded by the order's mutex once it is sent
	term    uint64
	began   time.Time
	count   int // of transactions
}

// Order is the leader's part of Commit: it merges the parcels of all nodes into Raft entries, keeps a few of those under
// way, and answers in the order of the log. It works while a term is open, else it answers NOT_LEADER.
type Order struct {
	options  OrderOptions
	stats    *counters
	instance fsm.ProposalID // first half random
	slots    chan struct{}  // one per entry under way
	wake     chan struct{}
	flying   chan *entry
	batches  uint64 // made; used by Run alone

	mu      sync.Mutex // guards what follows
	term    uint64     // 0: not open
	opened  chan struct{}
	queues  [lanes][]*parcel
	bytes   [lanes]int
	streams map[string]uint64 // sender and lane → number of its newest stream
	doubt   uint64            // newest term in which the fate of an entry stayed unknown
	oldest  time.Time         // when the entry that is to be answered next was proposed; zero if there is none
	aloft   []*entry          // under way, oldest first
	took    time.Duration     // what an entry took lately, from its proposal to its answer
	crowd   float64           // transactions that an entry had lately
}

// OrderOptions are what the leader's part needs.
type OrderOptions struct {
	Raft interface {
		Apply(data []byte, timeout time.Duration) raft.ApplyFuture
	}
	FSM      *fsm.FSM
	Stamp    func() int64 // cluster time for the next entry
	Guard    func() error // refuses proposals while it returns an error
	Pipeline int          // entries under way at once, 1 to MaxPipeline
}

// NewOrder makes an order without an open term. Run and Finish must run for it to work.
func NewOrder(o OrderOptions) *Order {
	order := &Order{options: o, stats: new(counters), slots: make(chan struct{}, o.Pipeline), wake: make(chan struct{}, 1),
		flying: make(chan *entry, MaxPipeline), opened: make(chan struct{}), streams: make(map[string]uint64)}
	rand.Read(order.instance[:8])
	return order
}

// Open starts a term.
func (o *Order) Open(term uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.term = term
	close(o.opened)
}

// Shut ends the term; what waits is answered by Run.
func (o *Order) Shut() {
	o.mu.Lock()
	if o.term != 0 {
		o.term = 0
		o.opened = make(chan struct{})
	}
	o.mu.Unlock()
	o.rouse()
}

// OpenTerm is the term that is open, 0 if none is; opened is closed when one opens.
func (o *Order) OpenTerm() (term uint64, opened <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.term, o.opened
}

func (o *Order) rouse() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// begin numbers a new stream of a sender and shuts the door to its older ones.
func (o *Order) begin(sender string) (stream uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streams[sender]++ // senders are members and lanes: bounded
	return o.streams[sender]
}

// take queues a parcel that names the open term, or answers at once that it will not. A parcel of a sender's older
// stream is never taken: its sender may be fencing.
func (o *Order) take(p *parcel, lane priority, sender string, stream uint64) {
	limit := maxOrderBytes
	if lane == urgent {
		limit = maxUrgentBytes
	}
	o.mu.Lock()
	status := wire.Status_DONE
	switch {
	case o.term == 0 || o.term != p.term:
		status = wire.Status_NOT_LEADER
	case sender != "" && o.streams[sender] != stream:
		status = wire.Status_NOT_LEADER
	case o.bytes[lane]+p.bytes > limit && o.bytes[lane] > 0:
		status = wire.Status_BUSY
	default:
		o.bytes[lane] += p.bytes
		o.queues[lane] = append(o.queues[lane], p)
	}
	o.mu.Unlock()
	if status != wire.Status_DONE {
		p.answer(status, 0, nil)
		return
	}
	o.rouse()
}

// Run proposes until ctx ends. Finish must run beside it.
func (o *Order) Run(ctx context.Context) {
	defer close(o.flying)
	for {
		select {
		case <-ctx.Done():
			o.Shut()
			o.refuse()
			return
		case <-o.wake:
		}
		for {
			if term, _ := o.OpenTerm(); term == 0 {
				o.refuse()
				break
			}
			if !o.waiting() {
				break
			}
			select {
			case o.slots <- struct{}{}:
			case <-ctx.Done():
				o.Shut()
				o.refuse()
				return
			}
			o.linger(ctx)
			parcels, lane, term := o.next()
			parcels = o.ofTerm(parcels, lane, term)
			if !o.propose(parcels, lane, term) {
				<-o.slots
			}
		}
	}
}

// linger lets transactions come together while there are many, for as long as an entry takes: what an entry costs on all
// nodes, an append, an fsync and a message each, is then shared by twice as many, and those that wait wait half as long again
// as for the entry itself. Who is alone doesn't wait.
func (o *Order) linger(ctx context.Context) {
	o.mu.Lock()
	wait := min(o.took, maxLinger)
	if len(o.queues[urgent]) > 0 || o.crowd < crowded || o.bytes[usual] >= maxBatch {
		wait = 0
	}
	o.mu.Unlock()
	if wait <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

func (o *Order) waiting() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queues[usual])+len(o.queues[urgent]) > 0
}

// refuse answers everything that waits: there is no open term.
func (o *Order) refuse() {
	o.mu.Lock()
	var refused []*parcel
	for lane := range o.queues {
		for _, p := range o.queues[lane] {
			o.bytes[lane] -= p.bytes
		}
		refused = append(refused, o.queues[lane]...)
		o.queues[lane] = nil
	}
	o.mu.Unlock()
	for _, p := range refused {
		p.answer(wire.Status_NOT_LEADER, 0, nil)
	}
}

// next takes the parcels of one entry from the first lane that has any. A fence is taken alone.
func (o *Order) next() (parcels []*parcel, lane priority, term uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lane = urgent
	if len(o.queues[urgent]) == 0 {
		lane = usual
	}
	queue := o.queues[lane]
	bytes, count, taken := 0, 0, 0
	for _, p := range queue {
		if taken > 0 && (p.fence || bytes+p.bytes > maxBatch || count+len(p.txs) > maxBatchCount) {
			break
		}
		taken++
		bytes += p.bytes
		count += len(p.txs)
		if p.fence {
			break
		}
	}
	parcels = append(parcels, queue[:taken]...)
	if taken == len(queue) {
		o.queues[lane] = nil
	} else {
		o.queues[lane] = queue[taken:]
	}
	return parcels, lane, o.term
}

// ofTerm refuses the parcels of an earlier term: their senders may take them for dead already.
func (o *Order) ofTerm(parcels []*parcel, lane priority, term uint64) []*parcel {
	live := parcels[:0]
	for _, p := range parcels {
		if p.term != term {
			o.drop(lane, wire.Status_NOT_LEADER, p)
			continue
		}
		live = append(live, p)
	}
	return live
}

// release gives bytes back to a lane's budget.
func (o *Order) release(lane priority, parcels ...*parcel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range parcels {
		o.bytes[lane] -= p.bytes
	}
}

// drop answers parcels that will not be proposed.
func (o *Order) drop(lane priority, status wire.Status, parcels ...*parcel) {
	o.release(lane, parcels...)
	for _, p := range parcels {
		p.answer(status, 0, nil)
	}
}

// propose makes an entry of the parcels and hands it to Raft. It reports whether an entry is under way.
func (o *Order) propose(parcels []*parcel, lane priority, term uint64) bool {
	if len(parcels) == 0 {
		return false
	}
	if term == 0 {
		o.drop(lane, wire.Status_NOT_LEADER, parcels...)
		return false
	}
	if parcels[0].fence {
		o.send(&entry{parcels: parcels, term: term, began: time.Now()})
		return true
	}
	if lane != urgent { // what makes room must get through
		if err := o.options.Guard(); err != nil {
			o.drop(lane, wire.Status_FULL, parcels...)
			return false
		}
	}
	now := time.Now()
	live := parcels[:0]
	for _, p := range parcels {
		if now.After(p.deadline) {
			o.drop(lane, wire.Status_LATE, p)
			continue
		}
		live = append(live, p)
	}
	if len(live) == 0 {
		return false
	}
	batch, data, live := o.encode(live, lane, term)
	if len(live) == 0 {
		return false
	}
	txs := transactions(live)
	e := &entry{parcels: live, forget: o.options.FSM.Expect(batch, txs), term: term, began: now, count: len(txs)}
	for _, p := range live { // the budget is given back when the entry is answered
		answer := p.answer
		p.answer = func(status wire.Status, index uint64, outcomes []fsm.Outcome) {
			o.release(lane, p)
			answer(status, index, outcomes)
		}
	}
	e.future = o.options.Raft.Apply(data, enqueueTimeout)
	o.stats.proposed(len(txs), len(data))
	o.send(e)
	return true
}

func (o *Order) send(e *entry) {
	o.mu.Lock()
	if o.oldest.IsZero() {
		o.oldest = e.began
	}
	o.aloft = append(o.aloft, e)
	o.mu.Unlock()
	o.flying <- e
}

// encode makes the entry's bytes and makes sure that Apply will read them. If it would not, the parcels to blame are
// dropped: no entry that can't be applied is ever committed.
func (o *Order) encode(parcels []*parcel, lane priority, term uint64) (fsm.ProposalID, []byte, []*parcel) {
	for {
		o.batches++
		batch := o.instance
		binary.BigEndian.PutUint64(batch[8:], o.batches)
		data := fsm.EncodeBatch(nil, term, o.options.Stamp(), batch, transactions(parcels))
		if fsm.CheckEntry(data) == nil {
			return batch, data, parcels
		}
		if len(parcels) == 1 {
			o.drop(lane, wire.Status_INVALID, parcels[0])
			return batch, nil, nil
		}
		sound := parcels[:0]
		for _, p := range parcels {
			if fsm.CheckEntry(fsm.EncodeBatch(nil, term, 0, batch, p.txs)) == nil {
				sound = append(sound, p)
				continue
			}
			o.drop(lane, wire.Status_INVALID, p)
		}
		if len(sound) == len(parcels) { // each for itself is sound, together they are not: a limit of the whole
			o.drop(lane, wire.Status_AGAIN, sound[1:]...)
			sound = sound[:1]
		}
		if parcels = sound; len(parcels) == 0 {
			return batch, nil, nil
		}
	}
}

func transactions(parcels []*parcel) []*fsm.Transaction {
	if len(parcels) == 1 {
		return parcels[0].txs
	}
	count := 0
	for _, p := range parcels {
		count += len(p.txs)
	}
	txs := make([]*fsm.Transaction, 0, count)
	for _, p := range parcels {
		txs = append(txs, p.txs...)
	}
	return txs
}

// Finish answers entries as Raft finishes them, in order, until Run has ended.
func (o *Order) Finish() {
	for e := range o.flying {
		if e.future == nil {
			o.answerFence(e)
		} else {
			o.answer(e)
		}
		<-o.slots
		o.mu.Lock()
		o.aloft = o.aloft[1:]
		if e.count > 0 {
			o.took += (time.Since(e.began) - o.took) / 4
			o.crowd += (float64(e.count) - o.crowd) / 4
		}
		o.oldest = time.Time{}
		if len(o.flying) > 0 {
			o.oldest = time.Now() // a lower bound of its age is enough for the stall watch
		}
		o.mu.Unlock()
	}
}

// answerFence tells a bound of what came before, unless some of that may still be applied in a later term.
func (o *Order) answerFence(e *entry) {
	o.mu.Lock()
	doubt := o.doubt >= e.term
	o.mu.Unlock()
	if doubt {
		e.parcels[0].answer(wire.Status_NOT_LEADER, 0, nil)
		return
	}
	e.parcels[0].answer(wire.Status_FENCED, o.options.FSM.Applied(), nil)
}

// unsure answers what may be applied later, or never.
func (o *Order) unsure(term uint64, parcels []*parcel) {
	o.mu.Lock()
	o.doubt = max(o.doubt, term)
	o.mu.Unlock()
	for _, p := range parcels {
		p.answer(wire.Status_UNSURE, 0, nil)
	}
}

// claim takes the parcels of an entry, so that they are answered once. There are none if it was given up.
func (o *Order) claim(e *entry) []*parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	parcels := e.parcels
	e.parcels = nil
	return parcels
}

func (o *Order) answer(e *entry) {
	err := e.future.Error()
	e.forget()
	parcels := o.claim(e)
	// These alone prove that the entry never reached the log.
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) || errors.Is(err, raft.ErrEnqueueTimeout) {
		for _, p := range parcels {
			p.answer(wire.Status_AGAIN, 0, nil)
		}
		return
	}
	if err != nil {
		o.unsure(e.term, parcels)
		return
	}
	if len(parcels) == 0 {
		return
	}
	result, ok := e.future.Response().(*fsm.BatchResult)
	if !ok || len(result.Outcomes) != len(transactions(parcels)) {
		o.unsure(e.term, parcels)
		return
	}
	outcomes := result.Outcomes
	for _, p := range parcels {
		p.answer(wire.Status_DONE, result.Index, outcomes[:len(p.txs):len(p.txs)])
		outcomes = outcomes[len(p.txs):]
	}
	o.stats.committed(time.Since(e.began))
}

// StalledFor is how long the oldest entry has been under way, 0 if there is none.
func (o *Order) StalledFor(now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.oldest.IsZero() {
		return 0
	}
	return now.Sub(o.oldest)
}
