package fsm

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// FuzzCheckEntry: what decodes has one encoding, and Apply takes what CheckEntry lets pass.
func FuzzCheckEntry(f *testing.F) {
	for _, data := range examples() {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if CheckEntry(data) != nil {
			return
		}
		if b, err := DecodeBatch(data); err == nil {
			if again := EncodeBatch(nil, b.Term, b.Stamp, b.ID, b.Transactions); !bytes.Equal(again, data) {
				t.Fatalf("%x is encoded again as %x", data, again)
			}
		}
		s := open(t, smallOptions(vfs.NewMem()))
		defer closing(t, s)
		var d decoder
		if c, err := d.command(data); err != nil || c.kind == kindFormat {
			return // which may rightly stop Apply
		}
		s.ApplyBatch([]*raft.Log{{Index: 1, Term: 3, Data: data}, {Index: 2, Term: 3, Data: data}})
	})
}

// FuzzDecodeTransactions: what decodes has one encoding.
func FuzzDecodeTransactions(f *testing.F) {
	f.Add(examples()["forward"])
	f.Fuzz(func(t *testing.T, data []byte) {
		txs, err := DecodeTransactions(data)
		if err != nil {
			return
		}
		if again := EncodeTransactions(nil, txs); !bytes.Equal(again, data) {
			t.Fatalf("%x is encoded again as %x", data, again)
		}
	})
}

// FuzzFSM: a random log comes to what the model says, on a replica with other batches, and over crashes and snapshots; its
// replicas have equal hashes at any one index.
func FuzzFSM(f *testing.F) {
	f.Add(uint64(1), uint8(50))
	f.Fuzz(func(t *testing.T, seed uint64, length uint8) {
		w := newWorld(seed)
		w.grow(int(length))
		a := open(t, smallOptions(vfs.NewMem()))
		defer closing(t, a)
		index := w.rng.Uint64N(uint64(len(w.logs)) + 1)
		cut := a.CutAt(index)
		w.checkModel(t, a, apply(a, w.logs, w.rng))
		want, wantSum := endOf(t, a), sumOf(t, <-cut.View())

		h := open(t, smallOptions(vfs.NewMem()))
		checkHot(t, w, h)
		closing(t, h)

		disk := vfs.NewCrashableMem()
		b := open(t, smallOptions(disk))
		half := w.rng.IntN(len(w.logs) + 1)
		apply(b, w.logs[:half], w.rng)
		if half > 0 && w.rng.IntN(2) == 0 {
			persist(t, b)
		}
		clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: w.rng})
		closing(t, b)
		b = open(t, smallOptions(clone))
		missed := b.Applied() > index
		cut = b.CutAt(index)
		apply(b, w.logs, w.rng)
		if v := <-cut.View(); missed != (v == nil) {
			t.Fatalf("the cut at %d was missed: %v, want %v", index, v == nil, missed)
		} else if v != nil && !slices.Equal(sumOf(t, v), wantSum) {
			t.Fatalf("the sum at %d is another one after a crash", index)
		}
		wantEnd(t, "after a crash", b, want)
		if length > 0 {
			stream, _ := stream(t, b, persist(t, b))
			c := open(t, smallOptions(vfs.NewMem()))
			defer closing(t, c)
			if err := c.Restore(readCloser{bytes.NewReader(stream)}); err != nil {
				t.Fatal(err)
			}
			wantEnd(t, "restored", c, want)
			verified(t, c, true)
		}
		closing(t, b)
	})
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// FuzzReceive: no stream makes a node keep anything but a snapshot whose files its manifest names.
func FuzzReceive(f *testing.F) {
	w := newWorld(6)
	w.grow(5)
	s := open(f, smallOptions(vfs.NewMem()))
	apply(s, w.logs, w.rng)
	b, _ := stream(f, s, persist(f, s))
	closing(f, s)
	f.Add(b)
	f.Add([]byte("manifest.json"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := smallOptions(vfs.NewMem())
		if err := o.complete(); err != nil {
			t.Fatal(err)
		}
		store, err := openSnapshots(&o)
		if err != nil {
			t.Fatal(err)
		}
		g := &FSM{options: o, store: store} // without Pebble, which would take most of the time
		if _, err := receive(g, data, 5, 1, rand.New(rand.NewPCG(1, 2))); err != nil {
			if g.store.newest() != nil {
				t.Fatal("kept what was refused")
			}
			return
		}
		if err := g.store.newest().manifest.check(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDecodeManifest: what decodes passes its own check.
func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(`{"layout":1,"format":1,"index":812,"time":17,"records":7,"head":"","files":[{"name":"state/000007.sst","size":4096}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := decodeManifest(data); err == nil && m.check() != nil {
			t.Fatal("a bad manifest was taken")
		}
	})
}

// FuzzDecodePosition: what decodes has one encoding.
func FuzzDecodePosition(f *testing.F) {
	p := position{format: 1, applied: 7, time: -1, opened: 2}
	f.Add(p.append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := decodePosition(data); err == nil && !bytes.Equal(p.append(nil), data) {
			t.Fatalf("%x is encoded again as %x", data, p.append(nil))
		}
	})
}
