package ordering

import (
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"conclave/cluster/wire"
	"conclave/fsm"
)

// patience bounds every wait of a test.
const patience = 20 * time.Second

// log is a Raft of one node: what is applied is committed at once, unless it is held.
type log struct {
	mu    sync.Mutex
	state *fsm.FSM
	index uint64
	term  uint64
	held  chan struct{} // entries wait for it to be closed
	fail  error
	sizes []int // transactions per entry
}

type future struct {
	done  chan struct{}
	err   error
	value any
	index uint64
}

func (f *future) Error() error  { <-f.done; return f.err }
func (f *future) Response() any { return f.value }
func (f *future) Index() uint64 { return f.index }

func (l *log) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	f := &future{done: make(chan struct{})}
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	go func() {
		defer close(f.done)
		if held != nil {
			<-held
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.fail != nil {
			f.err = l.fail
			return
		}
		l.index++
		if b, err := fsm.DecodeBatch(data); err == nil {
			l.sizes = append(l.sizes, len(b.Transactions))
		}
		f.index = l.index
		f.value = l.state.Apply(&raft.Log{Index: l.index, Term: l.term, Type: raft.LogCommand, Data: data})
	}()
	return f
}

func (l *log) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func newOrder(t *testing.T) (*Order, *log, *error) {
	t.Helper()
	state, err := fsm.Open(fsm.Options{Dir: filepath.Join(t.TempDir(), "fsm")})
	if err != nil {
		t.Fatal(err)
	}
	l := &log{state: state, term: 1}
	if err := l.Apply(fsm.EncodeTermOpen(1, 1), 0).Error(); err != nil {
		t.Fatal(err)
	}
	guard := new(error)
	var guardMu sync.Mutex
	o := NewOrder(OrderOptions{Raft: l, FSM: state, Pipeline: 1, Stamp: func() int64 { return 1 },
		Guard: func() error { guardMu.Lock(); defer guardMu.Unlock(); return *guard }})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { o.Run(ctx) })
	running.Go(o.Finish)
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	})
	o.Open(1)
	return o, l, guard
}

type answer struct {
	status   wire.Status
	index    uint64
	outcomes []fsm.Outcome
}

func cellKey() fsm.Key {
	b := make([]byte, 41)
	b[0] = 'c'
	return fsm.Key(b)
}

var ids uint64

// add makes a parcel of n transactions that set a cell.
func add(term uint64, n int) (*parcel, <-chan answer) {
	p := &parcel{term: term, deadline: time.Now().Add(time.Hour)}
	for range n {
		ids++
		tx := &fsm.Transaction{NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny,
			Writes: []fsm.Write{{Op: fsm.SetCell, Key: cellKey(), Delta: int64(ids)}}}
		binary.BigEndian.PutUint64(tx.ID[8:], ids)
		p.txs = append(p.txs, tx)
		p.bytes += sizeOf(tx)
	}
	answers := make(chan answer, 2)
	p.answer = func(s wire.Status, index uint64, o []fsm.Outcome) { answers <- answer{s, index, o} }
	return p, answers
}

func want(t *testing.T, what string, from <-chan answer, status wire.Status) answer {
	t.Helper()
	select {
	case a := <-from:
		if a.status != status {
			t.Errorf("%s: answered %v, want %v", what, a.status, status)
		}
		return a
	case <-time.After(patience):
		t.Fatalf("%s: no answer", what)
	}
	return answer{}
}

// underWay waits until so many entries are.
func underWay(o *Order, n int) {
	for {
		o.mu.Lock()
		now := len(o.aloft)
		o.mu.Unlock()
		if now == n {
			return
		}
		runtime.Gosched()
	}
}

func TestWhatGathersBecomesOneEntry(t *testing.T) {
	o, l, _ := newOrder(t)
	held := make(chan struct{})
	l.set(func() { l.held = held })
	first, answered := add(1, 1)
	o.take(first, usual, "", 0)
	var all []<-chan answer
	underWay(o, 1)
	for range 5 {
		p, a := add(1, 3)
		o.take(p, usual, "", 0)
		all = append(all, a)
	}
	close(held)
	a := want(t, "first", answered, wire.Status_DONE)
	for _, from := range all {
		b := want(t, "gathered", from, wire.Status_DONE)
		if b.index != a.index+1 || len(b.outcomes) != 3 || b.outcomes[0].Verdict != fsm.Committed {
			t.Errorf("gathered parcel answered %+v, want index %d and 3 outcomes", b, a.index+1)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sizes) != 2 || l.sizes[1] != 15 {
		t.Errorf("entries of %v transactions, want 1 and 15", l.sizes)
	}
}

func TestParcelOfAnEarlierTermIsNeverProposed(t *testing.T) {
	o, l, _ := newOrder(t)
	held := make(chan struct{})
	l.set(func() { l.held = held })
	first, _ := add(1, 1)
	o.take(first, usual, "", 0)
	underWay(o, 1)
	waiting, answered := add(1, 1)
	o.take(waiting, usual, "", 0)
	o.mu.Lock() // leadership is lost and won again before Run looks
	o.term = 2
	o.mu.Unlock()
	close(held)
	want(t, "waiting parcel of term 1", answered, wire.Status_NOT_LEADER)
	late, answered := add(1, 1)
	o.take(late, usual, "", 0)
	want(t, "parcel of term 1 in term 2", answered, wire.Status_NOT_LEADER)
	l.set(func() { l.term = 2; l.held = nil })
	if err := l.Apply(fsm.EncodeTermOpen(2, 1), 0).Error(); err != nil {
		t.Fatal(err)
	}
	now, answered := add(2, 1)
	o.take(now, usual, "", 0)
	want(t, "parcel of term 2", answered, wire.Status_DONE)
}

func TestOlderStreamIsShutOutBeforeItsFence(t *testing.T) {
	o, _, _ := newOrder(t)
	older := o.begin("b/usual")
	p, answered := add(1, 1)
	o.take(p, usual, "b/usual", older)
	done := want(t, "parcel of the first stream", answered, wire.Status_DONE)
	newer := o.begin("b/usual")
	p, answered = add(1, 1)
	o.take(p, usual, "b/usual", older)
	want(t, "parcel of the older stream", answered, wire.Status_NOT_LEADER)
	fence := &parcel{term: 1, fence: true}
	fenced := make(chan answer, 1)
	fence.answer = func(s wire.Status, index uint64, _ []fsm.Outcome) { fenced <- answer{s, index, nil} }
	o.take(fence, usual, "b/usual", newer)
	if a := want(t, "fence", fenced, wire.Status_FENCED); a.index < done.index {
		t.Errorf("fenced at %d, before %d", a.index, done.index)
	}
}

func TestFenceIsRefusedWhileAFateIsUnknown(t *testing.T) {
	o, l, _ := newOrder(t)
	l.set(func() { l.fail = raft.ErrLeadershipLost })
	p, answered := add(1, 1)
	o.take(p, usual, "", 0)
	want(t, "parcel of a lost leader", answered, wire.Status_UNSURE)
	fence := &parcel{term: 1, fence: true}
	fenced := make(chan answer, 1)
	fence.answer = func(s wire.Status, index uint64, _ []fsm.Outcome) { fenced <- answer{s, index, nil} }
	o.take(fence, usual, "", 0)
	want(t, "fence after it", fenced, wire.Status_NOT_LEADER)
}

func TestOnlyErrorsThatProveItAreCertain(t *testing.T) {
	for err, status := range map[error]wire.Status{
		raft.ErrNotLeader: wire.Status_AGAIN, raft.ErrEnqueueTimeout: wire.Status_AGAIN, raft.ErrLeadershipTransferInProgress: wire.Status_AGAIN,
		raft.ErrLeadershipLost: wire.Status_UNSURE, raft.ErrRaftShutdown: wire.Status_UNSURE, raft.ErrAbortedByRestore: wire.Status_UNSURE,
		errors.New("anything else"): wire.Status_UNSURE,
	} {
		o, l, _ := newOrder(t)
		l.set(func() { l.fail = err })
		p, answered := add(1, 1)
		o.take(p, usual, "", 0)
		want(t, err.Error(), answered, status)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	o, l, guard := newOrder(t)
	late, answered := add(1, 1)
	late.deadline = time.Now().Add(-time.Second)
	o.take(late, usual, "", 0)
	want(t, "past its deadline", answered, wire.Status_LATE)

	bad, answered := add(1, 1)
	bad.txs[0].Writes[0].Key = "mine"
	o.take(bad, usual, "", 0)
	want(t, "undecodable", answered, wire.Status_INVALID)

	held := make(chan struct{})
	l.set(func() { l.held = held })
	big, bigAnswered := add(1, 1)
	big.bytes = maxOrderBytes
	o.take(big, usual, "", 0)
	over, answered := add(1, 1)
	o.take(over, usual, "", 0)
	want(t, "over the budget", answered, wire.Status_BUSY)
	pressing, pressingAnswered := add(1, 1)
	o.take(pressing, urgent, "", 0)
	close(held)
	want(t, "urgent beside a full lane", pressingAnswered, wire.Status_DONE)
	want(t, "at the budget", bigAnswered, wire.Status_DONE)
	over, answered = add(1, 1)
	o.take(over, usual, "", 0)
	want(t, "after the budget was given back", answered, wire.Status_DONE)

	*guard = errors.New("full")
	full, answered := add(1, 1)
	o.take(full, usual, "", 0)
	want(t, "below the disk reserve", answered, wire.Status_FULL)
	o.Shut()
	shut, answered := add(1, 1)
	o.take(shut, usual, "", 0)
	want(t, "without a term", answered, wire.Status_NOT_LEADER)
}

func TestWhatNobodyHasRoomForIsGivenUpAndStillApplied(t *testing.T) {
	o, l, _ := newOrder(t)
	held := make(chan struct{})
	l.set(func() { l.held = held })
	stuck, stuckAnswered := add(1, 2)
	o.take(stuck, usual, "", 0)
	underWay(o, 1)
	behind, behindAnswered := add(1, 1)
	o.take(behind, usual, "", 0)
	pressing, pressingAnswered := add(1, 1)
	o.take(pressing, urgent, "", 0)
	stream := o.begin("b/usual")
	fenced := make(chan answer, 1)
	o.take(&parcel{term: 1, fence: true, answer: func(s wire.Status, index uint64, _ []fsm.Outcome) { fenced <- answer{s, index, nil} }},
		usual, "b/usual", stream)

	o.GiveUp(time.Now().Add(-time.Hour))
	if len(stuckAnswered)+len(behindAnswered) != 0 {
		t.Error("an entry was given up before its time")
	}
	o.GiveUp(time.Now())
	want(t, "what is under way", stuckAnswered, wire.Status_STUCK)
	want(t, "what waits behind it", behindAnswered, wire.Status_FULL)
	want(t, "what is urgent behind it", pressingAnswered, wire.Status_FULL)
	o.GiveUp(time.Now())

	close(held)
	if a := want(t, "the fence", fenced, wire.Status_FENCED); a.index != 2 {
		t.Errorf("fenced at %d, want 2, where what was given up is applied", a.index)
	}
	for lane, bytes := range o.bytes {
		if bytes != 0 {
			t.Errorf("lane %d holds %d bytes", lane, bytes)
		}
	}
	next, answered := add(1, 1)
	o.take(next, usual, "", 0)
	want(t, "what comes after it", answered, wire.Status_DONE)
	if len(stuckAnswered)+len(behindAnswered) != 0 {
		t.Error("a parcel was answered twice")
	}
}

func FuzzOutcomes(f *testing.F) {
	f.Add([]byte{1, 2}, uint64(3), uint32(1), 2)
	f.Fuzz(func(t *testing.T, verdicts []byte, seq uint64, write uint32, count int) {
		count = max(0, min(count, 64))
		a := &wire.Answer{Index: 9, Verdicts: verdicts, Sequences: make([]uint64, len(verdicts)), Writes: make([]uint32, len(verdicts))}
		for i := range verdicts {
			a.Sequences[i], a.Writes[i] = seq, write
		}
		outcomes, ok := outcomesOf(a, count)
		if ok != (len(verdicts) == count) {
			t.Fatalf("%d verdicts for %d transactions: %v", len(verdicts), count, ok)
		}
		if ok && count > 0 {
			back, ok := outcomesOf(answerOf(1, wire.Status_DONE, 9, outcomes), count)
			if !ok || back[0] != outcomes[0] {
				t.Errorf("came back as %+v, %v; want %+v", back, ok, outcomes[0])
			}
		}
	})
}
