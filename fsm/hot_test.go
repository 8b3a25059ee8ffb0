package fsm

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// wantSame compares Get with what Pebble says for every key that a world uses, each three times, so that it gets hot.
func wantSame(tb testing.TB, w *world, v *View, rng *rand.Rand) {
	tb.Helper()
	for range 6 {
		key := w.keyFrom(rng)
		for range 3 {
			version, value, err := v.Get(key)
			wantVersion, want, wantErr := v.stored(key)
			if version != wantVersion || !bytes.Equal(value, want) || (value == nil) != (want == nil) || err != nil || wantErr != nil {
				tb.Errorf("Get(%q) at index %d = %d, %q, %v, want %d, %q, %v", key, v.Index(), version, value, err, wantVersion, want, wantErr)
			}
		}
	}
}

// keyFrom is a random key of any class.
func (w *world) keyFrom(rng *rand.Rand) Key {
	class := []byte{ClassRecord, ClassCell, ClassStamp, ClassPlain}[rng.IntN(4)]
	other := world{rng: rng}
	return other.key(class)
}

// checkHot applies logs and compares Get with Pebble for the newest and older Views after each batch. It restores a
// snapshot in the middle.
func checkHot(t *testing.T, w *world, f *FSM) {
	var views []*View
	defer func() {
		for _, v := range views {
			v.Release()
		}
	}()
	half := len(w.logs) / 2
	for at := 0; at < len(w.logs); {
		n := min(1+w.rng.IntN(4), len(w.logs)-at)
		f.ApplyBatch(w.logs[at : at+n])
		at += n
		if views = append(views, f.View()); len(views) > 4 {
			i := w.rng.IntN(len(views))
			views[i].Release()
			views = append(views[:i], views[i+1:]...)
		}
		for _, v := range views {
			wantSame(t, w, v, w.rng)
		}
		if at >= half && half > 0 {
			half = 0
			b, _ := stream(t, f, persist(t, f))
			f.ApplyBatch(w.logs[at:min(at+3, len(w.logs))])
			if err := f.Restore(readCloser{bytes.NewReader(b)}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestHotItemsAreWhatPebbleHolds(t *testing.T) {
	for seed := range uint64(4) {
		w := newWorld(seed)
		w.grow(80)
		o := smallOptions(vfs.NewMem())
		if seed%2 == 0 {
			o.HotBytes = 1 << 10 // items come and go
		}
		f := open(t, o)
		checkHot(t, w, f)
		if h := f.epoch.hot; h.Hits() == 0 || h.Size() > f.options.HotBytes {
			t.Errorf("seed %d: %d hits, %d bytes held, want some and at most %d", seed, h.Hits(), h.Size(), f.options.HotBytes)
		}
		closing(t, f)
	}
}

func TestHotItemsAreExactBesideApply(t *testing.T) {
	w := newWorld(99)
	w.grow(300)
	f := open(t, smallOptions(vfs.NewMem()))
	var readers sync.WaitGroup
	done := make(chan struct{})
	for n := range uint64(3) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(n, 3))
			for {
				v := f.View()
				wantSame(t, w, v, rng)
				v.Release()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	apply(f, w.logs, w.rng)
	close(done)
	readers.Wait()
	closing(t, f)
}

func TestReadingManyKeysOnceKeepsNone(t *testing.T) {
	f := open(t, smallOptions(vfs.NewMem()))
	f.ApplyBatch([]*raft.Log{{Index: 1, Term: 1, Type: raft.LogCommand, Data: EncodeTermOpen(1, 1)}})
	v := f.View()
	for i := range 1000 {
		if _, _, err := v.Get(testKey(ClassRecord, 1, 1, i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.epoch.hot.Size(); n > 0 {
		t.Errorf("%d bytes of items that were read once are held", n)
	}
	v.Release()
	closing(t, f)
}
