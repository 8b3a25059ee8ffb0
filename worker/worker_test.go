package worker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/schedule"
	"conclave/store"
)

// solo is a cluster of one: it judges each transaction at once, as an entry of its own.
type solo struct {
	mu    sync.Mutex // guards all below
	state *fsm.FSM
	index uint64
	now   time.Time
	fail  bool // there is no quorum
}

func (s *solo) apply(data []byte) *fsm.BatchResult {
	s.index++
	result, _ := s.state.ApplyBatch([]*raft.Log{{Index: s.index, Term: 1, Type: raft.LogCommand, Data: data}})[0].(*fsm.BatchResult)
	return result
}

func (s *solo) Commit(_ context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return fsm.Outcome{}, conclave.Errorf(conclave.Unavailable, "there is no quorum")
	}
	binary.BigEndian.PutUint64(tx.ID[8:], s.index+1)
	txs := []*fsm.Transaction{tx}
	defer s.state.Expect(tx.ID, txs)()
	return s.apply(fsm.EncodeBatch(nil, 1, s.now.UnixNano(), tx.ID, txs)).Outcomes[0], nil
}

func (s *solo) CommitUrgent(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	return s.Commit(ctx, tx)
}

func (s *solo) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *solo) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *solo) lose(quorum bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = quorum
}

type clearRoot struct{ aead *crypto.AEAD }

func (r clearRoot) Use(use func(*crypto.AEAD) error) error { return use(r.aead) }

const barn = "3b0d3c0e-0000-4000-8000-000000000001"

// world is an open vault in one state, with a runner that nobody runs, and one engine.
type world struct {
	*Runner
	solo  *solo
	space conclave.Space

	begun, done atomic.Int64
	finishErr   error // of FinishWork
}

func newWorld(t testing.TB) *world {
	t.Helper()
	state, err := fsm.Open(fsm.Options{Dir: filepath.Join(t.TempDir(), "data"), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	s := &solo{state: state, now: time.Unix(1_800_000_000, 0)}
	s.apply(fsm.EncodeTermOpen(1, s.now.UnixNano()))
	key := make([]byte, crypto.KeySize)
	_, _ = rand.Read(key)
	aead, err := crypto.NewAEAD(key)
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := crypto.NewKeyring(rand.Reader, s.now.Unix())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{solo: s}
	w.Runner = New(Config{Store: store.New(state, s, s.clock), Engines: w, Logger: hclog.NewNullLogger()})
	tx, err := w.Store.Initialize(clearRoot{aead}, [16]byte{1}, keyring)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if w.space, err = tx.System().CreateSpace(); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Store.Unlock(clearRoot{aead}, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) Engine(system conclave.Tx, uuid string) (conclave.Engine, conclave.Tx, error) {
	view, ok := system.(*store.View)
	if !ok || uuid != barn {
		return nil, nil, conclave.Errorf(conclave.Invalid, "the mount is gone")
	}
	inner, err := view.Mounted(w.space, "", &conclave.Mount{UUID: barn, Path: "barn/", Kind: "barn"})
	return w, inner, err
}

func (w *world) Kind() string             { return "barn" }
func (w *world) Routes() []conclave.Route { return nil }

// BeginWork writes down that it was begun.
func (w *world) BeginWork(_ context.Context, tx conclave.Tx, name string) (any, error) {
	w.begun.Add(1)
	return name, tx.Put("begun/"+name, []byte{1})
}

func (w *world) Work(context.Context, string, any) (any, error) {
	w.done.Add(1)
	return nil, nil
}

// FinishWork has it done again in an hour.
func (w *world) FinishWork(_ context.Context, tx conclave.Tx, name string, _, _ any, failure error) error {
	return errors.Join(failure, w.finishErr, tx.Delete("begun/"+name), tx.Wake(name, tx.Now().Add(time.Hour)))
}

// wake sets n appointments from now on, a second apart.
func (w *world) wake(t testing.TB, n int) {
	t.Helper()
	const batch = 500
	for from := 0; from < n; from += batch {
		err := w.Store.Change(t.Context(), "", func(_ *store.Tx, system conclave.System) error {
			for i := from; i < min(n, from+batch); i++ {
				if err := schedule.Wake(system, barn, fmt.Sprintf("work/%d", i), system.Now().Add(time.Duration(i)*time.Second)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// look has all that is due done, as far as one look goes.
func (w *world) look(t testing.TB) {
	t.Helper()
	group := &errgroup.Group{}
	group.SetLimit(perNode)
	if err := w.pass(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	_ = group.Wait()
}

func TestWorkIsDoneOnceAndAgainInTime(t *testing.T) {
	w := newWorld(t)
	w.wake(t, 1)
	w.look(t)
	w.look(t)
	if w.begun.Load() != 1 || w.done.Load() != 1 {
		t.Errorf("begun %d times, done %d times, want once", w.begun.Load(), w.done.Load())
	}
	w.solo.advance(time.Hour)
	w.look(t)
	if w.done.Load() != 2 {
		t.Errorf("done %d times after an hour, want twice", w.done.Load())
	}
}

// Work whose node died before it was finished is begun again when its claim is over, and not before.
func TestLostWorkIsBegunAgain(t *testing.T) {
	w := newWorld(t)
	w.wake(t, 1)
	if _, begun, err := w.begin(t.Context(), place{"", barn}, "work/0"); err != nil || begun == nil {
		t.Fatalf("%v, %v", begun, err)
	}
	w.solo.advance(claimTime - time.Second)
	w.look(t)
	if w.begun.Load() != 1 {
		t.Fatal("work that somebody does was begun again")
	}
	w.solo.advance(time.Second)
	w.look(t)
	if w.begun.Load() != 2 || w.done.Load() != 1 {
		t.Errorf("begun %d times and done %d times, want twice and once", w.begun.Load(), w.done.Load())
	}
}

// What can't be finished is done again after a pause; without a quorum, when the claim is over.
func TestUnfinishedWorkIsDoneAgain(t *testing.T) {
	w := newWorld(t)
	w.wake(t, 1)
	w.finishErr = errors.New("a secret")
	w.look(t)
	w.finishErr = nil
	w.look(t)
	if w.done.Load() != 1 {
		t.Fatalf("done %d times before the pause is over", w.done.Load())
	}
	var why string
	if err := w.Store.Look("", func(system conclave.Tx) error {
		a, err := schedule.Find(system, barn, "work/0")
		if err == nil && a != nil {
			why = a.Error
		}
		return err
	}); err != nil || why != "the engine failed with an error of type *errors.joinError" {
		t.Errorf("why it failed is told as %q, %v", why, err)
	}
	w.solo.advance(5 * time.Second)
	w.look(t)
	if w.done.Load() != 2 {
		t.Errorf("done %d times after the pause, want twice", w.done.Load())
	}
	w.solo.advance(time.Hour)
	engine, begun, err := w.begin(t.Context(), place{"", barn}, "work/0")
	if err != nil || begun == nil {
		t.Fatalf("%v, %v", begun, err)
	}
	w.solo.lose(true)
	if err := w.finish(t.Context(), place{"", barn}, "work/0", begun, nil, nil); err == nil || engine == nil {
		t.Fatal("finished without a quorum")
	}
	w.solo.lose(false)
	w.solo.advance(claimTime)
	w.look(t)
	if w.done.Load() != 3 {
		t.Errorf("done %d times after the quorum was back, want three times", w.done.Load())
	}
}

// An appointment costs the same however many there are, and so does a look when nothing is due.
func BenchmarkWork(b *testing.B) {
	for _, size := range []int{1_000, 100_000} {
		w := newWorld(b)
		w.wake(b, size)
		b.Run(fmt.Sprintf("wake/%d", size), func(b *testing.B) {
			for i := range b.N {
				err := w.Store.Change(b.Context(), "", func(_ *store.Tx, system conclave.System) error {
					return schedule.Wake(system, barn, "work/1", system.Now().Add(time.Duration(i+10)*time.Second))
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("look/%d", size), func(b *testing.B) {
			for range b.N {
				err := w.Store.Look("", func(system conclave.Tx) error {
					_, err := schedule.Due(system, barn, perMount)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
