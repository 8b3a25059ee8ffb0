package revoke

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/lease"
	"conclave/store"
)

// solo is a cluster of one: it judges each transaction at once, as an entry of its own.
type solo struct {
	mu    sync.Mutex // guards all below
	state *fsm.FSM
	index uint64
	now   time.Time
}

func (s *solo) apply(data []byte) *fsm.BatchResult {
	s.index++
	result, _ := s.state.ApplyBatch([]*raft.Log{{Index: s.index, Term: 1, Type: raft.LogCommand, Data: data}})[0].(*fsm.BatchResult)
	return result
}

func (s *solo) Commit(_ context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

type clearRoot struct{ aead *crypto.AEAD }

func (r clearRoot) Use(use func(*crypto.AEAD) error) error { return use(r.aead) }

var rooms = &conclave.Mount{UUID: "3b0d3c0e-0000-4000-8000-000000000001", Path: "rooms/", DefaultTTL: time.Hour, MaxTTL: 48 * time.Hour}

// world is an open vault in one state, with a reaper that nobody runs.
type world struct {
	*Reaper
	solo *solo
	root clearRoot
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
	w := &world{New(Config{Store: store.New(state, s, s.clock), Logger: hclog.NewNullLogger()}), s, clearRoot{aead}}
	tx, err := w.Store.Initialize(w.root, [16]byte{1}, keyring)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Store.Unlock(w.root, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	return w
}

// grant gives n leases in one transaction, of one role.
func (w *world) grant(t testing.TB, n int, ttl time.Duration) {
	t.Helper()
	letters := make([]string, n)
	for i := range letters {
		made, err := lease.Mint(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		letters[i] = made
	}
	err := w.Store.Change(t.Context(), "", func(_ *store.Tx, system conclave.System) error {
		for _, l := range letters {
			_, err := lease.New(system, lease.Grant{Mount: rooms, Path: "creds/app", Letters: l,
				Lease: &conclave.Lease{TTL: ttl, Renewable: true, Data: json.RawMessage(`{"name":"v-token-app-0123456789abcdefghij-1767323045"}`)}})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fill gives n leases, over an hour.
func (w *world) fill(t testing.TB, n int) {
	t.Helper()
	const batch = 500
	for done := 0; done < n; done += batch {
		w.grant(t, min(batch, n-done), 12*time.Hour)
		w.solo.advance(time.Hour * batch / time.Duration(max(n, batch)))
	}
}

var sizes = []int{1_000, 100_000, 1_000_000}

// A new lease costs the same however many there are.
func BenchmarkGrant(b *testing.B) {
	for _, size := range sizes {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			w := newWorld(b)
			w.fill(b, size)
			b.ResetTimer()
			for range b.N {
				w.grant(b, 1, time.Hour)
			}
		})
	}
}

// So do opening the vault, looking for what is due when nothing is, and a step with stepBatch leases of one slot.
func BenchmarkReap(b *testing.B) {
	for _, size := range sizes {
		w := newWorld(b)
		w.fill(b, size)
		b.Run("unseal/"+strconv.Itoa(size), func(b *testing.B) {
			for range b.N {
				w.Store.Lock()
				if err := w.Store.Unlock(w.root, [16]byte{1}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("look/"+strconv.Itoa(size), func(b *testing.B) {
			for range b.N {
				if err := w.queueDue(b.Context(), ""); err != nil {
					b.Fatal(err)
				}
			}
			var after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapInuse)/(1<<20), "MiB-heap")
		})
		b.Run("step/"+strconv.Itoa(size), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				w.grant(b, stepBatch, time.Second)
				w.solo.advance(10 * time.Second)
				b.StartTimer()
				if err := w.queueDue(b.Context(), ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Leases that fall due together are queued in bounded steps, and all of them.
func TestMassExpiryIsQueuedInSteps(t *testing.T) {
	w := newWorld(t)
	const n = 3*stepBatch + 1
	w.grant(t, n, time.Minute)
	if err := w.queueDue(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	w.solo.advance(2 * time.Minute)
	if err := w.queueDue(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	err := w.Store.Look("", func(system conclave.Tx) error {
		due, _, err := lease.NextOf(system, rooms.UUID, lease.MaxStep)
		if len(due) != n {
			t.Errorf("%d leases wait to be ended, want %d", len(due), n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
