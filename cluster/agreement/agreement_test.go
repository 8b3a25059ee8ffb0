package agreement

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"conclave"
	"conclave/fsm"
)

// patience bounds every wait of a test.
const patience = 20 * time.Second

// lab is nodes in one process that apply the same entries.
type lab struct {
	t      *testing.T
	nodes  []*labNode
	mu     sync.Mutex // guards what follows
	index  uint64
	log    []*raft.Log
	silent map[string]bool // nodes that can't be called
}

type labNode struct {
	*Checker
	id       string
	dir      string
	state    *fsm.FSM
	handlers map[string]Handler
	told     atomic.Pointer[error]
	behind   uint64 // entries that it hasn't applied
	stop     func()
}

func newLab(t *testing.T, n int) *lab {
	l := &lab{t: t, silent: map[string]bool{}}
	for i := range n {
		l.add(fmt.Sprint("n", i), t.TempDir())
	}
	l.put(1, "one")
	return l
}

// add starts a node.
func (l *lab) add(id, dir string) *labNode {
	l.t.Helper()
	n := &labNode{id: id, dir: dir, handlers: map[string]Handler{}}
	var err error
	if n.state, err = fsm.Open(fsm.Options{Dir: dir}); err != nil {
		l.t.Fatal(err)
	}
	n.Checker, err = New(Options{Dir: dir, NodeID: id, State: n.state, Call: l.call, Members: l.ids, Voters: l.ids,
		Leader:  func() string { return "n0" },
		Handle:  func(method string, h Handler) { n.handlers[method] = h },
		Differs: func(err error) { n.told.Store(&err) },
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.nodes = append(l.nodes, n)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if open := n.state.Stats().OpenViews; open > 1 { // the state keeps one
			l.t.Errorf("%s: %d views are open", id, open)
		}
		if err := n.state.Close(); err != nil {
			l.t.Error(err)
		}
	})
	l.t.Cleanup(n.stop)
	return n
}

func (l *lab) ids() (ids []string) {
	for _, n := range l.nodes {
		ids = append(ids, n.id)
	}
	return ids
}

func (l *lab) call(ctx context.Context, id, method string, body []byte) ([]byte, error) {
	l.mu.Lock()
	silent := l.silent[id]
	l.mu.Unlock()
	for _, n := range l.nodes {
		if n.id == id && !silent {
			return n.handlers[method](ctx, body)
		}
	}
	return nil, conclave.Errorf(conclave.Unavailable, "%s can't be reached", id)
}

// put has an entry applied everywhere; alter may change it on a node.
func (l *lab) put(child byte, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	for _, n := range l.nodes {
		n.state.ApplyBatch([]*raft.Log{entry(l.index, child, value)})
	}
}

func entry(index uint64, child byte, value string) *raft.Log {
	key := append([]byte{fsm.ClassRecord}, make([]byte, 40)...)
	key[8], key[40] = 7, child
	tx := &fsm.Transaction{ID: fsm.ProposalID{1}, Snapshot: index - 1, NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny,
		Reads:  []fsm.Read{{Key: fsm.Key(key)}},
		Writes: []fsm.Write{{Op: fsm.Create, Key: fsm.Key(key), Version: index, Value: []byte(value)}}}
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: fsm.EncodeBatch(nil, 1, 1, fsm.ProposalID{}, []*fsm.Transaction{tx})}
}

// await waits until ok, or fails.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(patience), time.NewTicker(2*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// compare has all compare, and waits until each that runs has a result.
func (l *lab) compare() uint64 {
	l.t.Helper()
	index, err := l.nodes[1%len(l.nodes)].Compare(context.Background())
	if err != nil {
		l.t.Fatalf("Compare: %v", err)
	}
	for _, n := range l.nodes {
		await(l.t, n.id+" to compare", func() bool {
			s := n.Status()
			return s.Index == index && slices.Contains([]string{Agrees, Differs, Undecided}, s.Result)
		})
	}
	return index
}

// results are what nodes came to.
func (l *lab) results() (results []string) {
	for _, n := range l.nodes {
		results = append(results, n.Status().Result)
	}
	return results
}

func (l *lab) want(results ...string) {
	l.t.Helper()
	if got := l.results(); !slices.Equal(got, results) {
		l.t.Errorf("nodes came to %q, want %q", got, results)
	}
	for i, n := range l.nodes {
		if told := n.told.Load() != nil; told != (results[i] == Differs) {
			l.t.Errorf("%s was told that it differs: %v, but it came to %s", n.id, told, results[i])
		}
	}
}

func TestEqualStatesAgree(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5} {
		l := newLab(t, n)
		if index := l.compare(); index != 1 {
			t.Errorf("%d nodes compared at index %d, want 1", n, index)
		}
		l.want(slices.Repeat([]string{Agrees}, n)...)
	}
}

func TestTheNodeThatDiffersFromAMajorityIsFoundAndStaysFound(t *testing.T) {
	l := newLab(t, 3)
	odd := l.nodes[2]
	l.index++
	for _, n := range l.nodes {
		value := "two"
		if n == odd {
			value = "another two"
		}
		n.state.ApplyBatch([]*raft.Log{entry(2, 2, value)})
	}
	l.compare()
	l.want(Agrees, Agrees, Differs)
	await(t, "the odd one to be seen by all", func() bool {
		for _, n := range l.nodes {
			s := n.Status()
			if s.Nodes["n2"] != Differs || s.Nodes["n0"] != Agrees || !slices.Equal(s.Ranges, []string{"record/7"}) {
				return false
			}
		}
		return true
	})
	why := odd.Status().Differs
	for _, part := range []string{"index 2", "record/7", "empty its data directory"} {
		if !bytes.Contains([]byte(why), []byte(part)) {
			t.Errorf("the reason is %q, want it to name %q", why, part)
		}
	}
	l.compare() // again, with the same outcome
	l.want(Agrees, Agrees, Differs)

	odd.stop()
	l.nodes = l.nodes[:2]
	if again := l.add("n2", odd.dir); again.told.Load() == nil || again.Status().Differs != why {
		t.Errorf("started again, the node says %q, want %q", again.Status().Differs, why)
	}
}

func TestADamagedMarkStillCounts(t *testing.T) {
	l := newLab(t, 1)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, markFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := l.add("marked", dir); n.told.Load() == nil {
		t.Error("a node with a damaged mark serves")
	}
}

func TestWithoutAMajorityNobodyStops(t *testing.T) {
	l := newLab(t, 2)
	l.index++
	for i, n := range l.nodes {
		n.state.ApplyBatch([]*raft.Log{entry(2, 2, fmt.Sprint("value ", i))})
	}
	l.compare()
	l.want(Undecided, Undecided)
	if s := l.nodes[0].Status(); !slices.Equal(s.Ranges, []string{"record/7"}) {
		t.Errorf("nodes differ in %q, want record/7", s.Ranges)
	}
}

func TestTwoOfThreeAreEnough(t *testing.T) {
	l := newLab(t, 3)
	l.silent["n2"] = true
	if _, err := l.nodes[0].Compare(context.Background()); err != nil {
		t.Fatal(err)
	}
	await(t, "two to agree", func() bool {
		return l.nodes[0].Status().Result == Agrees && l.nodes[1].Status().Result == Agrees
	})
	if s := l.nodes[0].Status(); s.Nodes["n2"] != Unheard {
		t.Errorf("the silent node is %q, want %q", s.Nodes["n2"], Unheard)
	}
	l.mu.Lock()
	l.silent["n1"] = true
	l.mu.Unlock()
	await(t, "one alone to be refused", func() bool {
		_, err := l.nodes[0].Compare(context.Background())
		return conclave.Is(err, conclave.Unavailable)
	})
}

func TestAnIndexIsFoundUnderLoad(t *testing.T) {
	l := newLab(t, 3)
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	load.Go(func() {
		for child := byte(2); ctx.Err() == nil; child++ {
			l.put(child, "value")
		}
	})
	index, err := l.nodes[0].Compare(context.Background())
	cancel()
	load.Wait()
	if err != nil || index < 1 {
		t.Fatalf("Compare = %d, %v", index, err)
	}
	await(t, "all to agree", func() bool { return slices.Equal(l.results(), []string{Agrees, Agrees, Agrees}) })
	for _, n := range l.nodes {
		if s := n.Status(); s.Index != index {
			t.Errorf("%s compared as of %d, want %d", n.id, s.Index, index)
		}
	}
}

func TestTheLeaderComparesWhenItIsTime(t *testing.T) {
	l := newLab(t, 3)
	for _, n := range l.nodes {
		n.due = 0
	}
	ctx, cancel := context.WithCancel(context.Background())
	var leading sync.WaitGroup
	leading.Go(func() {
		if err := l.nodes[0].WhileLeader(ctx); err != nil {
			t.Error(err)
		}
	})
	await(t, "all to agree", func() bool { return slices.Equal(l.results(), []string{Agrees, Agrees, Agrees}) })
	cancel()
	leading.Wait()
	for _, n := range l.nodes {
		if left := n.due - time.Since(n.began); left < defaultInterval/2 {
			t.Errorf("%s: the next comparison is due in %v, want about %v", n.id, left, defaultInterval)
		}
	}
}

func TestMalformedCallsAreRefused(t *testing.T) {
	l := newLab(t, 1)
	for _, method := range []string{callCut, callSum} {
		if _, err := l.call(context.Background(), "n0", method, []byte("short")); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want it invalid", method, err)
		}
	}
	if _, err := l.call(context.Background(), "n0", callSum, make([]byte, 8)); !conclave.Is(err, conclave.NotFound) {
		t.Errorf("a sum that nobody asked for: %v, want it not found", err)
	}
	if _, err := l.call(context.Background(), "n0", callCut, binary.BigEndian.AppendUint64(nil, 0)); !conclave.Is(err, conclave.Precondition) {
		t.Errorf("a cut in the past: %v, want it failed", err)
	}
}

func TestGoldenRanges(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "ranges.json"))
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := decodeRanges(b)
	if err != nil || len(ranges) != 3 || ranges[2] != (fsm.Range{Name: "record/7", Items: 2, Hash: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}) {
		t.Errorf("decoded %v, %v", ranges, err)
	}
}

func TestMalformedRangesAreRefused(t *testing.T) {
	for _, text := range []string{"", "null", "[]", "{}", `[{"name":"audit","items":1,"hash":"00"}]`, `[{"name":"","hash":"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}]`} {
		if ranges, err := decodeRanges([]byte(text)); err == nil {
			t.Errorf("%q was taken for %v", text, ranges)
		}
	}
}

// FuzzDecodeRanges: whatever a node says, comparing it with anything ends in a verdict, and a sum equals itself alone.
func FuzzDecodeRanges(f *testing.F) {
	b, err := os.ReadFile(filepath.Join("testdata", "ranges.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, b)
	f.Add(b, bytes.Replace(b, []byte("record/7"), []byte("record/8"), 1))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, errX := decodeRanges(a)
		y, errY := decodeRanges(b)
		if errX != nil || errY != nil {
			return
		}
		v := judge([]string{"a", "b", "c"}, map[string][]fsm.Range{"a": x, "b": y, "c": x})
		if v.nodes["a"] != Agrees || v.nodes["c"] != Agrees || (v.nodes["b"] == Agrees) != slices.Equal(x, y) {
			t.Fatalf("%v against %v: %v", x, y, v.nodes)
		}
	})
}
