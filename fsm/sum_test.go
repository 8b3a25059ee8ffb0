package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// stateClasses are the classes that a state hash covers, in order.
var stateClasses = [...]byte{ClassCell, ClassPlain, ClassRecord, ClassStamp}

// StateHash returns the applied index and one hash of all replicated items as of it, which golden files hold.
func (f *FSM) StateHash() (index uint64, hash [32]byte, err error) {
	v := f.View()
	defer v.Release()
	h := sha256.New()
	for _, class := range stateClasses {
		part, err := v.Hash(Key(class), Key(class+1))
		if err != nil {
			return 0, hash, err
		}
		h.Write(part[:])
	}
	return v.Index(), [32]byte(h.Sum(nil)), nil
}

// Hash returns the hash of the items from the key from on, before the key to: SHA-256 over key length (2) ‖ key ‖ item
// length (4) ‖ item, for each in order.
func (v *View) Hash(from, to Key) (hash [32]byte, err error) {
	h := sha256.New()
	var head []byte
	err = v.scan([]byte(from), []byte(to), func(key, item []byte) bool {
		if key[0] == classMeta {
			return true
		}
		head = append(binary.BigEndian.AppendUint16(head[:0], uint16(len(key))), key...)
		h.Write(binary.BigEndian.AppendUint32(head, uint32(len(item))))
		h.Write(item)
		return true
	})
	return [32]byte(h.Sum(nil)), err
}

func noPace(int) error { return nil }

// sumOf is the sum of a view, which it releases.
func sumOf(tb testing.TB, v *View) []Range {
	tb.Helper()
	if v == nil {
		tb.Fatal("the cut was missed")
	}
	defer v.Release()
	ranges, err := v.Sum(noPace)
	if err != nil {
		tb.Fatal(err)
	}
	return ranges
}

// gapped are a world's entries with every other index left out, as if it were of one of Raft's own entries.
func gapped(w *world) []*raft.Log {
	var logs []*raft.Log
	for _, l := range w.logs {
		c := *l
		c.Index *= 2
		logs = append(logs, &c)
	}
	return logs
}

func TestReplicasHaveEqualSumsAtACut(t *testing.T) {
	for seed := range uint64(12) {
		w := newWorld(seed)
		w.grow(60)
		logs := gapped(w)
		index := 1 + w.rng.Uint64N(logs[len(logs)-1].Index-1)
		until := open(t, smallOptions(vfs.NewMem()))
		apply(until, logs[:index/2], w.rng)
		want := sumOf(t, until.View())
		closing(t, until)
		for _, o := range []Options{smallOptions(vfs.NewMem()), {Dir: "other", FS: vfs.NewMem(), AuditSegment: 300 << 10}} {
			f := open(t, o)
			cut := f.CutAt(index)
			apply(f, logs, w.rng)
			if got := sumOf(t, <-cut.View()); !slices.Equal(got, want) {
				t.Fatalf("seed %d: the sum at index %d is %v, want %v", seed, index, got, want)
			}
			if got := sumOf(t, f.View()); slices.Equal(got, want) {
				t.Fatalf("seed %d: %d entries more have the same sum", seed, len(logs)-int(index/2))
			}
			closing(t, f)
		}
	}
}

func TestACutIsExactOrMissedWhateverIsBeingApplied(t *testing.T) {
	w := newWorld(5)
	w.grow(400)
	sums := make([][]Range, len(w.logs)+1)
	f := open(t, smallOptions(vfs.NewMem()))
	for i := range w.logs {
		f.ApplyBatch(w.logs[i : i+1])
		sums[i+1] = sumOf(t, f.View())
	}
	closing(t, f)
	f = open(t, smallOptions(vfs.NewMem()))
	made := 0
	var asking sync.WaitGroup
	asking.Go(func() {
		for index := uint64(1); index <= uint64(len(w.logs)); index = max(index, f.Applied()) + 3 {
			cut := f.CutAt(min(index, uint64(len(w.logs))))
			v := <-cut.View()
			if v == nil {
				continue
			}
			made++
			if at := v.Index(); !slices.Equal(sumOf(t, v), sums[at]) {
				t.Errorf("the cut at %d isn't the state at %d", index, at)
			}
		}
	})
	apply(f, w.logs, w.rng)
	asking.Wait()
	if made == 0 {
		t.Error("no cut was made")
	}
	closing(t, f)
}

func TestACutThatCanNotBeMadeSaysSo(t *testing.T) {
	w := newWorld(6)
	w.grow(20)
	f := open(t, smallOptions(vfs.NewMem()))
	apply(f, w.logs[:10], w.rng)
	missed := func(what string, c *Cut) {
		t.Helper()
		select {
		case v := <-c.View():
			if v != nil {
				t.Errorf("%s: the cut was made at %d, want it missed", what, v.Index())
				v.Release()
			}
		default:
			t.Errorf("%s: the cut is still waited for", what)
		}
	}
	missed("an index that has passed", f.CutAt(9))
	first := f.CutAt(12)
	second := f.CutAt(14)
	missed("a cut that another took the place of", first)
	second.Forget()
	apply(f, w.logs[10:15], w.rng)
	select {
	case <-second.View():
		t.Error("a cut was made that was forgotten")
	default:
	}
	now := f.CutAt(15)
	now.Forget() // gives the view back that is there
	now.Forget()
	stream, _ := stream(t, f, persist(t, f))
	closing(t, f)

	f = open(t, smallOptions(vfs.NewMem()))
	behind, apart := f.CutAt(14), open(t, smallOptions(vfs.NewMem()))
	exact := apart.CutAt(15)
	for _, g := range []*FSM{f, apart} {
		if err := g.Restore(readCloser{bytes.NewReader(bytes.Clone(stream))}); err != nil {
			t.Fatal(err)
		}
	}
	missed("a snapshot from beyond", behind)
	if got, want := sumOf(t, <-exact.View()), sumOf(t, f.View()); !slices.Equal(got, want) {
		t.Errorf("the cut at the index of a restored snapshot is %v, want %v", got, want)
	}
	closed := f.CutAt(99)
	closing(t, f)
	missed("a state that was closed", closed)
	closing(t, apart)
	if n := f.stats.openViews.Load() + apart.stats.openViews.Load(); n != 0 {
		t.Errorf("%d views are open, want none", n)
	}
}

// differing are the names of the ranges in which two sums differ.
func differing(a, b []Range) (names []string) {
	for _, sums := range [2][2][]Range{{a, b}, {b, a}} {
		for _, r := range sums[0] {
			if !slices.Contains(sums[1], r) && !slices.Contains(names, r.Name) {
				names = append(names, r.Name)
			}
		}
	}
	return names
}

func TestAValueThatWasAlteredByHandIsFoundInItsRange(t *testing.T) {
	w := newWorld(3)
	w.grow(150)
	f := open(t, smallOptions(vfs.NewMem()))
	apply(f, w.logs, w.rng)
	want := sumOf(t, f.View())
	for _, class := range stateClasses {
		var key, value []byte
		v := f.View()
		if err := v.scan([]byte{class}, []byte{class + 1}, func(k, item []byte) bool {
			key, value = bytes.Clone(k), bytes.Clone(item)
			return false
		}); err != nil || key == nil {
			t.Fatalf("class %c has no item, %v", class, err)
		}
		v.Release()
		name := classNames[class]
		if class != ClassPlain {
			name += fmt.Sprint("/", spaceOf(Key(key)))
		}
		for what, alter := range map[string]func(*pebble.Batch) error{
			"changed": func(b *pebble.Batch) error {
				return b.Set(key, append(value[:len(value)-1:len(value)-1], value[len(value)-1]^1), nil)
			},
			"removed": func(b *pebble.Batch) error { return b.Delete(key, nil) },
			"added":   func(b *pebble.Batch) error { return b.Set(append(key[:len(key):len(key)], 'x'), value, nil) },
		} {
			b := f.epoch.db.NewIndexedBatch()
			if err := errors.Join(alter(b), b.Commit(pebble.NoSync)); err != nil {
				t.Fatal(err)
			}
			altered := &View{epoch: f.epoch, snapshot: f.epoch.db.NewSnapshot(), at: f.shown, closed: func() {}}
			altered.epoch.refs.Add(1)
			altered.refs.Store(1)
			if names := differing(sumOf(t, altered), want); !slices.Equal(names, []string{name}) {
				t.Errorf("an item of class %c %s: ranges %v differ, want %s", class, what, names, name)
			}
			undo := errors.Join(f.epoch.db.Set(key, value, pebble.NoSync), f.epoch.db.Delete(append(key[:len(key):len(key)], 'x'), pebble.NoSync))
			if undo != nil {
				t.Fatal(undo)
			}
		}
	}
	if got := sumOf(t, f.View()); !slices.Equal(got, want) {
		t.Error("what was undone has another sum")
	}
	f.shown.audit.Head[0] ^= 1
	f.view.Release()
	f.view = nil
	if names := differing(sumOf(t, f.View()), want); !slices.Equal(names, []string{"audit"}) {
		t.Errorf("another audit head: ranges %v differ, want audit", names)
	}
	closing(t, f)
}

func TestASumIsBoundedAndPaced(t *testing.T) {
	f := open(t, Options{Dir: "data", FS: vfs.NewMem()})
	tx := &Transaction{Snapshot: 0, NotAfter: NotAfterAny, NotBefore: NotBeforeAny}
	for i := range MaxRanges + 100 {
		k := testKey(ClassRecord, i, 0, 0)
		tx.Reads = append(tx.Reads, Read{k, 0})
		tx.Writes = append(tx.Writes, Write{Op: Create, Key: k, Version: 1, Value: make([]byte, 1024)})
	}
	f.ApplyBatch([]*raft.Log{{Index: 1, Term: 1, Type: raft.LogCommand, Data: EncodeBatch(nil, 1, 1, ProposalID{}, []*Transaction{tx})}})
	v := f.View()
	read, calls := 0, 0
	ranges, err := v.Sum(func(n int) error {
		read += n
		calls++
		return nil
	})
	if err != nil || len(ranges) != MaxRanges || ranges[len(ranges)-1].Name != "rest" {
		t.Fatalf("%d ranges, %v, want %d, the last one the rest", len(ranges), err, MaxRanges)
	}
	items := uint64(0)
	for _, r := range ranges[2:] {
		items += r.Items
	}
	if want := uint64(2 * len(tx.Writes)); items != want { // with their stamps
		t.Errorf("%d items are in the ranges, want %d", items, want)
	}
	if read < (MaxRanges+100)*1024 || calls < read/(sumChunk+4096) {
		t.Errorf("pace was called %d times for %d bytes, want once for each %d", calls, read, sumChunk)
	}
	enough := errors.New("enough")
	if _, err := v.Sum(func(int) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Sum = %v, want what pace said", err)
	}
	v.Release()
	closing(t, f)
}

// Nodes of different versions compare sums, so they stay what they are.
func TestGoldenSumOfFormat1(t *testing.T) {
	w := newWorld(20)
	w.grow(300)
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	apply(f, w.logs, w.rng)
	var text strings.Builder
	for _, r := range sumOf(t, f.View()) {
		fmt.Fprintf(&text, "%s %d %s\n", r.Name, r.Items, r.Hash)
	}
	path := filepath.Join("testdata", "format1-sum.txt")
	if *update {
		golden(t, path, []byte(text.String()))
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("the sum is\n%swant\n%s", text.String(), want)
	}
}

// It is paced by its callers: at 8 MiB a second it should take a few hundredths of a core.
func BenchmarkSum(b *testing.B) {
	f := open(b, Options{Dir: b.TempDir()})
	const items, size = 2000, 1000
	for i := range items / 100 {
		tx := &Transaction{Snapshot: uint64(i), NotAfter: NotAfterAny, NotBefore: NotBeforeAny}
		for j := range 100 {
			k := testKey(ClassRecord, 1, i, j)
			tx.Reads = append(tx.Reads, Read{k, 0})
			tx.Writes = append(tx.Writes, Write{Op: Create, Key: k, Version: tx.Snapshot + 1, Value: make([]byte, size)})
		}
		f.ApplyBatch([]*raft.Log{{Index: uint64(i + 1), Term: 1, Type: raft.LogCommand, Data: EncodeBatch(nil, 1, 1, ProposalID{}, []*Transaction{tx})}})
	}
	v := f.View()
	b.SetBytes(items * size)
	for b.Loop() {
		if _, err := v.Sum(noPace); err != nil {
			b.Fatal(err)
		}
	}
	v.Release()
	closing(b, f)
}
