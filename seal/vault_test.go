package seal

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave"
	"conclave/cluster"
	"conclave/fsm"
	"conclave/mount"
	"conclave/store"
)

// solo is a cluster of one node: it judges each transaction at once, as an entry of its own.
type solo struct {
	mu      sync.Mutex // guards all below
	state   *fsm.FSM
	index   uint64
	now     time.Time
	refuse  error  // what the next commits are answered with, if not nil
	records int    // transactions that were only recorded
	before  func() // runs before each commit that writes, if not nil
}

func (s *solo) apply(data []byte) *fsm.BatchResult {
	s.index++
	result, _ := s.state.ApplyBatch([]*raft.Log{{Index: s.index, Term: 1, Type: raft.LogCommand, Data: data}})[0].(*fsm.BatchResult)
	return result
}

// Commit judges one transaction.
func (s *solo) Commit(_ context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	if s.before != nil && tx.Writing() {
		s.before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return fsm.Outcome{}, s.refuse
	}
	if !tx.Writing() {
		s.records++
	}
	binary.BigEndian.PutUint64(tx.ID[8:], s.index+1)
	txs := []*fsm.Transaction{tx}
	defer s.state.Expect(tx.ID, txs)()
	return s.apply(fsm.EncodeBatch(nil, 1, s.now.UnixNano(), tx.ID, txs)).Outcomes[0], nil
}

// CommitUrgent is Commit.
func (s *solo) CommitUrgent(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	return s.Commit(ctx, tx)
}

func (s *solo) Self() cluster.Member      { return cluster.Member{NodeID: "n1"} }
func (s *solo) Members() []cluster.Member { return []cluster.Member{s.Self()} }
func (s *solo) Handle(string, func(context.Context, cluster.Member, []byte) ([]byte, error)) {
}
func (s *solo) Call(context.Context, string, string, []byte) ([]byte, error) { return nil, nil }
func (s *solo) SetReady(bool)                                                {}

// Now is a clock that tests move.
func (s *solo) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// answer makes all commits fail with err, until it is nil.
func (s *solo) answer(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

// openGate lets all requests in.
type openGate struct{}

func (openGate) Drain(context.Context) error { return nil }
func (openGate) Resume()                     {}

// newVault is a node that isn't initialised.
func newVault(t testing.TB) (*Vault, *solo) {
	t.Helper()
	state, err := fsm.Open(fsm.Options{Dir: filepath.Join(t.TempDir(), "data"), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	node := &solo{state: state, now: time.Unix(1_800_000_000, 0)}
	node.apply(fsm.EncodeTermOpen(1, node.now.UnixNano()))
	v, err := New(Config{Store: store.New(state, node, node.Now), State: state, Node: node, Gate: openGate{},
		ClusterID: func() [16]byte { return [16]byte{1} }, Closed: func() {}, Logger: hclog.NewNullLogger(),
		Found: func(tx conclave.System) error {
			if err := mount.Initial(tx, rand.Reader); err != nil {
				return err
			}
			return mount.Add(tx, "secret/", "kv", nil, "", rand.Reader)
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v, node
}

func initVault(t testing.TB, v *Vault, shares, threshold int) [][]byte {
	t.Helper()
	made, err := v.Init(t.Context(), InitRequest{Shares: shares, Threshold: threshold})
	if err != nil {
		t.Fatal(err)
	}
	if want := len(v.Node.Members()); len(made.Members) != want || made.Members[0].NodeID != v.Node.Self().NodeID {
		t.Errorf("init names %d members, want the %d that there are", len(made.Members), want)
	}
	var raw [][]byte
	for _, key := range made.Keys {
		share, err := hex.DecodeString(key)
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, share)
	}
	return raw
}

// openedVault is a node with an open vault of one share.
func openedVault(t testing.TB) (*Vault, *solo) {
	t.Helper()
	v, node := newVault(t)
	if _, err := v.Submit(t.Context(), initVault(t, v, 1, 1)[0]); err != nil {
		t.Fatal(err)
	}
	if v.Sealed() {
		t.Fatal("the vault isn't open")
	}
	return v, node
}

// update runs work in a transaction, which must be committed.
func update(t testing.TB, v *Vault, work func(*store.Tx) error) {
	t.Helper()
	tx, err := v.Store.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if err := work(tx); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
}

func rotateOnce(t testing.TB, v *Vault) {
	t.Helper()
	update(t, v, func(tx *store.Tx) error {
		_, err := v.rotate(t.Context(), tx.System(), nil)
		return err
	})
}
