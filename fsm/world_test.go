package fsm

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"conclave/audit"
)

// world makes random command logs, and keeps a plain map beside them that says what the state must come to: the rules
// of judgement written a second time, without batches, caches or disks.
type world struct {
	rng      *rand.Rand
	term     uint64
	stamp    int64
	time     int64
	items    map[Key]item   // as of the last entry
	past     []map[Key]item // by index, the latest few
	pastFrom uint64         // index of past[0]
	logs     []*raft.Log    // from index 1
	want     []*BatchResult // what Apply must answer to each, nil for entries without outcomes
	ids      uint64
}

type item struct {
	version uint64
	value   string
}

func newWorld(seed uint64) *world {
	return &world{rng: rand.New(rand.NewPCG(seed, 1)), term: 1, items: map[Key]item{}, past: []map[Key]item{{}}}
}

// grow appends n random entries.
func (w *world) grow(n int) {
	for range n {
		w.entry()
		w.past = append(w.past, maps.Clone(w.items))
		if len(w.past) > 4 {
			w.past = w.past[1:]
			w.pastFrom++
		}
	}
}

func (w *world) index() uint64 { return uint64(len(w.logs)) }

func (w *world) add(kind raft.LogType, data []byte, want *BatchResult) {
	index := w.index() + 1
	if want != nil {
		want.Index = index
	}
	w.logs = append(w.logs, &raft.Log{Index: index, Term: w.term, Type: kind, Data: data})
	w.want = append(w.want, want)
}

func (w *world) entry() {
	w.stamp += int64(w.rng.IntN(20)) - 3 // now and then it goes back
	switch p := w.rng.IntN(100); {
	case p < 3:
		w.term++
		w.time = max(w.time, w.stamp)
		w.add(raft.LogCommand, EncodeTermOpen(w.term, w.stamp), &BatchResult{})
	case p < 5:
		w.add(raft.LogConfiguration, []byte("whatever"), nil)
	case p < 7:
		w.add(raft.LogCommand, EncodeFormat(1), &BatchResult{})
	case p < 9:
		w.time = max(w.time, w.stamp)
		w.add(raft.LogCommand, EncodeRotate(w.term, w.stamp, "a test"), &BatchResult{Outcomes: []Outcome{{Verdict: Committed}}})
	default:
		w.batch(p < 12)
	}
}

// batch appends a batch; a stray one names another term.
func (w *world) batch(stray bool) {
	want := &BatchResult{Outcomes: []Outcome{}}
	index := w.index() + 1
	if !stray {
		w.time = max(w.time, w.stamp)
	}
	var txs []*Transaction
	for range 1 + w.rng.IntN(5) {
		t := w.transaction()
		txs = append(txs, t)
		o := Outcome{Verdict: Dead, Index: index}
		if !stray {
			o.Verdict, o.Write = w.judge(t, index)
		}
		want.Outcomes = append(want.Outcomes, o)
	}
	term := w.term
	if stray {
		term++
	}
	w.add(raft.LogCommand, EncodeBatch(nil, term, w.stamp, w.newID(), txs), want)
}

func (w *world) newID() (id ProposalID) {
	w.ids++
	binary.BigEndian.PutUint64(id[8:], w.ids)
	return id
}

func testKey(class byte, space, dir, child int) Key {
	b := binary.BigEndian.AppendUint64([]byte{class}, uint64(space))
	b = append(b, fmt.Sprintf("%016d", dir)...)
	if class != ClassStamp {
		b = append(b, fmt.Sprintf("%016d", child)...)
	}
	return Key(b)
}

func (w *world) key(class byte) Key {
	if class == ClassPlain {
		return Key(fmt.Sprintf("pname%d", w.rng.IntN(3)))
	}
	return testKey(class, w.rng.IntN(3), w.rng.IntN(2), w.rng.IntN(4))
}

// transaction makes one that saw a recent state, or claims things that never were.
func (w *world) transaction() *Transaction {
	back := w.rng.IntN(len(w.past))
	seen := w.past[len(w.past)-1-back]
	t := &Transaction{ID: w.newID(), Snapshot: w.pastFrom + uint64(len(w.past)-1-back), NotBefore: NotBeforeAny, NotAfter: NotAfterAny}
	if w.rng.IntN(20) == 0 {
		t.Snapshot += uint64(w.rng.IntN(10)) // perhaps from the future
	}
	if w.rng.IntN(10) == 0 {
		t.NotBefore = w.time - 5 + int64(w.rng.IntN(10))
	}
	if w.rng.IntN(10) == 0 {
		t.NotAfter = w.time - 5 + int64(w.rng.IntN(20))
	}
	for range w.rng.IntN(4) {
		k := w.key([]byte{ClassRecord, ClassCell, ClassStamp, ClassPlain}[w.rng.IntN(4)])
		w.read(t, seen, k)
		if w.rng.IntN(40) == 0 {
			t.Reads[len(t.Reads)-1].Version++
		}
	}
	for range w.rng.IntN(4) {
		w.write(t, seen)
	}
	if w.rng.IntN(10) > 0 {
		t.Record.Box = []byte(fmt.Sprintf("box %d %d", w.ids, w.rng.Uint64()))
		t.Record.Digest[0] = byte(w.ids)
	}
	return t
}

func (w *world) read(t *Transaction, seen map[Key]item, k Key) uint64 {
	for _, r := range t.Reads {
		if r.Key == k {
			return r.Version
		}
	}
	version := absent(k[0])
	if i, ok := seen[k]; ok {
		version = i.version
	}
	t.Reads = append(t.Reads, Read{k, version})
	return version
}

func (w *world) write(t *Transaction, seen map[Key]item) {
	var wr Write
	switch w.rng.IntN(12) {
	case 0:
		wr = Write{Op: DropSpace, Key: testKey(ClassRecord, w.rng.IntN(3), 0, 0)[:9]}
	case 1:
		wr = Write{Op: SetCell, Key: w.key(ClassCell), Delta: int64(w.rng.IntN(5))}
	case 2:
		wr = Write{Op: DropCell, Key: w.key(ClassCell)}
	case 3, 4, 5:
		wr = Write{Op: AddCell, Key: w.key(ClassCell), Delta: int64(w.rng.IntN(5)) - 2}
	case 6:
		wr = Write{Op: DropStamp, Key: w.key(ClassStamp)}
		if w.read(t, seen, wr.Key) == 0 {
			return
		}
	default:
		wr = Write{Key: w.key([]byte{ClassRecord, ClassPlain}[w.rng.IntN(2)]), Op: Create, Version: t.Snapshot + 1}
		if w.read(t, seen, wr.Key) != 0 {
			wr.Op = []Op{Replace, Delete}[w.rng.IntN(2)]
		}
		if wr.Op == Delete {
			wr.Version = 0
		} else {
			wr.Value = []byte(fmt.Sprint(w.rng.Uint64()))
		}
	}
	if !slices.ContainsFunc(t.Writes, func(o Write) bool { return o.Key == wr.Key }) {
		t.Writes = append(t.Writes, wr)
	}
}

// loss is where the model keeps when children that begin like a record's were last deleted.
func loss(record Key) Key { return "s" + record[1:9] + record[25:27] }

func (w *world) version(k Key) uint64 {
	if i, ok := w.items[k]; ok {
		return i.version
	}
	return absent(k[0])
}

// judge is the model's judgement, which also carries a committed transaction out.
func (w *world) judge(t *Transaction, index uint64) (Verdict, int) {
	if !t.Writing() {
		return Recorded, 0
	}
	if t.Snapshot >= index || w.time < t.NotBefore || w.time >= t.NotAfter {
		return Conflict, 0
	}
	for _, r := range t.Reads {
		if w.version(r.Key) != r.Version {
			return Conflict, 0
		}
	}
	for _, wr := range t.Writes {
		if wr.Op == Create && wr.Key[0] == ClassRecord && w.version(loss(wr.Key)) > t.Snapshot {
			return Conflict, 0
		}
	}
	for i, wr := range t.Writes {
		if wr.Op == AddCell && (w.version(wr.Key) == NoCell || int64(w.version(wr.Key))+wr.Delta < wr.Floor) {
			return Refused, i
		}
	}
	dropped := map[string]bool{}
	for _, wr := range t.Writes {
		stamp := "s" + wr.Key[1:min(25, len(wr.Key))]
		switch wr.Op {
		case DropSpace:
			dropped[string(wr.Key[1:9])] = true
			maps.DeleteFunc(w.items, func(k Key, _ item) bool { return k[0] != ClassPlain && k[1:9] == wr.Key[1:9] })
		case SetCell:
			w.items[wr.Key] = item{uint64(wr.Delta), ""}
		case AddCell:
			if w.version(wr.Key) != NoCell { // a DropSpace of this very transaction
				w.items[wr.Key] = item{uint64(int64(w.version(wr.Key)) + wr.Delta), ""}
			}
		case DropCell, DropStamp:
			delete(w.items, wr.Key)
		case Delete:
			delete(w.items, wr.Key)
			if wr.Key[0] == ClassRecord {
				w.items[loss(wr.Key)] = item{index, ""}
			}
		case Create, Replace:
			w.items[wr.Key] = item{wr.Version, string(wr.Value)}
		}
		again := wr.Op == Replace && wr.Key[0] == ClassRecord && dropped[string(wr.Key[1:9])]
		if wr.Key[0] == ClassRecord && (wr.Op == Create || wr.Op == Delete || again) {
			w.items[stamp] = item{index, ""}
		}
	}
	return Committed, 0
}

// small are options under which a short log flushes, rolls segments and drops generations of versions often.
func smallOptions(fs vfs.FS) Options {
	return Options{Dir: "data", FS: fs, FlushBytes: 4 << 10, MemTableSize: 64 << 10, CacheSize: 64 << 10, AuditSegment: 300 << 10}
}

func open(tb testing.TB, o Options) *FSM {
	tb.Helper()
	f, err := Open(o)
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	f.applier.versions.limit = 16
	return f
}

// apply applies logs in batches of random size.
func apply(f *FSM, logs []*raft.Log, rng *rand.Rand) []any {
	var results []any
	for len(logs) > 0 {
		n := min(len(logs), 1+rng.IntN(8))
		results = append(results, f.ApplyBatch(logs[:n])...)
		logs = logs[n:]
	}
	return results
}

// end is what must be equal on replicas.
type end struct {
	Index, Opened uint64
	Time          int64
	Hash          [32]byte
	Head          audit.State
}

func endOf(tb testing.TB, f *FSM) end {
	tb.Helper()
	index, hash, err := f.StateHash()
	if err != nil {
		tb.Fatalf("StateHash: %v", err)
	}
	return end{index, f.OpenedTerm(), f.Time(), hash, f.Head()}
}

func wantEnd(tb testing.TB, what string, f *FSM, want end) {
	tb.Helper()
	if got := endOf(tb, f); !reflect.DeepEqual(got, want) {
		tb.Fatalf("%s: state is %+v, want %+v", what, got, want)
	}
}

func closing(tb testing.TB, f *FSM) {
	tb.Helper()
	if err := f.Close(); err != nil {
		tb.Fatalf("Close: %v", err)
	}
}

// checkModel compares a state with the model, and answers with what was wanted.
func (w *world) checkModel(tb testing.TB, f *FSM, results []any) {
	tb.Helper()
	for i, want := range w.want {
		got, _ := results[i].(*BatchResult)
		if want == nil || got == nil {
			if want != nil || results[i] != nil && got != nil {
				tb.Fatalf("entry %d: result %v, want %v", i+1, results[i], want)
			}
			continue
		}
		for j := range got.Outcomes {
			o := got.Outcomes[j]
			if o.Verdict != want.Outcomes[j].Verdict || o.Write != want.Outcomes[j].Write || o.Index != want.Index {
				tb.Fatalf("entry %d, transaction %d: outcome %+v, want %+v", i+1, j, o, want.Outcomes[j])
			}
		}
	}
	v := f.View()
	defer v.Release()
	found := map[Key]item{}
	for _, class := range stateClasses {
		err := v.Scan(Key(class), "", func(k Key, version uint64, value []byte) bool {
			found[k] = item{version, string(value)}
			return true
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	if !maps.Equal(found, w.items) {
		tb.Fatalf("state holds %v, want %v", found, w.items)
	}
}
