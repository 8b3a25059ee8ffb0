package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/mount"
	"conclave/policy"
	"conclave/store"
	"conclave/token"
)

// duo is a leader, which judges, and a follower, which the pipeline under test executes on and which may lag.
type duo struct {
	t        testing.TB
	leader   *fsm.FSM
	follower *fsm.FSM

	mu     sync.Mutex // guards all below
	log    []*raft.Log
	lagged bool // the follower gets nothing until a conflict

	fail atomic.Bool // there is no quorum
}

func newDuo(t testing.TB) *duo {
	t.Helper()
	d := &duo{t: t}
	for _, state := range []**fsm.FSM{&d.leader, &d.follower} {
		opened, err := fsm.Open(fsm.Options{Dir: filepath.Join(t.TempDir(), "data"), Logger: hclog.NewNullLogger()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { opened.Close() })
		*state = opened
	}
	d.apply(fsm.EncodeTermOpen(1, 1))
	return d
}

// apply needs mu, once the test is under way.
func (d *duo) apply(data []byte) *fsm.BatchResult {
	entry := &raft.Log{Index: uint64(len(d.log) + 1), Term: 1, Type: raft.LogCommand, Data: data}
	d.log = append(d.log, entry)
	result, _ := d.leader.ApplyBatch([]*raft.Log{entry})[0].(*fsm.BatchResult)
	if !d.lagged {
		d.follower.ApplyBatch(d.log)
	}
	return result
}

func (d *duo) lag(lagged bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lagged = lagged
}

// Commit has the leader judge; a conflict lets the follower catch up.
func (d *duo) Commit(_ context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	if d.fail.Load() {
		return fsm.Outcome{}, conclave.Errorf(conclave.Unavailable, "there is no quorum")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	binary.BigEndian.PutUint64(tx.ID[8:], uint64(len(d.log)+1))
	txs := []*fsm.Transaction{tx}
	defer d.leader.Expect(tx.ID, txs)()
	outcome := d.apply(fsm.EncodeBatch(nil, 1, time.Now().UnixNano(), tx.ID, txs)).Outcomes[0]
	if outcome.Verdict == fsm.Conflict {
		d.follower.ApplyBatch(d.log)
	}
	return outcome, nil
}

// CommitUrgent is Commit.
func (d *duo) CommitUrgent(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	return d.Commit(ctx, tx)
}

// replace makes the follower's state anew, as it is, from a snapshot of itself.
func (d *duo) replace() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	snapshot, err := d.follower.Snapshot()
	if err != nil {
		d.t.Fatal(err)
	}
	sink, err := d.follower.Snapshots().Create(1, d.follower.Applied(), 1, raft.Configuration{}, 0, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := errors.Join(snapshot.Persist(sink), sink.Close()); err != nil {
		d.t.Fatal(err)
	}
	snapshot.Release()
	_, source, err := d.follower.Snapshots().Open(sink.ID())
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.follower.Restore(source); err != nil {
		d.t.Fatal(err)
	}
}

type clearRoot struct{ aead *crypto.AEAD }

// Use lends the cipher.
func (r clearRoot) Use(use func(*crypto.AEAD) error) error { return use(r.aead) }

// found makes an open vault and returns its root token.
func (d *duo) found(s *store.Store) conclave.Secret {
	d.t.Helper()
	key := make([]byte, crypto.KeySize)
	_, _ = rand.Read(key)
	aead, err := crypto.NewAEAD(key)
	if err != nil {
		d.t.Fatal(err)
	}
	keyring, err := crypto.NewKeyring(rand.Reader, 1)
	if err != nil {
		d.t.Fatal(err)
	}
	tx, err := s.Initialize(clearRoot{aead}, [16]byte{1}, keyring)
	if err != nil {
		d.t.Fatal(err)
	}
	defer tx.Close()
	minted, err := token.Mint(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	_, rootErr := token.CreateRoot(tx.System(), minted)
	if err := errors.Join(rootErr, mount.Initial(tx.System(), rand.Reader)); err != nil {
		d.t.Fatal(err)
	}
	if _, err := tx.Commit(d.t.Context(), fsm.AuditRecord{}); err != nil {
		d.t.Fatal(err)
	}
	if err := s.Unlock(clearRoot{aead}, [16]byte{1}); err != nil {
		d.t.Fatal(err)
	}
	return minted.Secret
}

func (d *duo) put(s *store.Store, value string) {
	d.t.Helper()
	tx, err := s.Begin()
	if err != nil {
		d.t.Fatal(err)
	}
	defer tx.Close()
	if err := tx.System().Put("probe/x", []byte(value)); err != nil {
		d.t.Fatal(err)
	}
	if _, err := tx.Commit(d.t.Context(), fsm.AuditRecord{}); err != nil {
		d.t.Fatal(err)
	}
}

// A read whose snapshot was replaced under it runs again, and must still be judged: nobody has told yet that the new
// snapshot has what was acknowledged before the request began.
func TestReadOverAReplacedStateIsJudged(t *testing.T) {
	d := newDuo(t)
	s := store.New(d.follower, d, time.Now)
	calls := 0
	probe := conclave.ReadRoute(conclave.Read, "probe", "Reads.",
		func(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
			value, err := view.Get("probe/x")
			if calls++; calls == 1 {
				d.replace()
			}
			return &conclave.Response{Data: map[string]any{"value": string(value)}}, err
		})
	p := New(Config{Store: s, Recorder: NewRecorder("n1"), Gate: &Gate{}, Policies: policy.NewCache(),
		System: []conclave.Route{probe}, Logger: hclog.NewNullLogger()})
	root := d.found(s)
	d.put(s, "old")
	d.lag(true)
	d.put(s, "new") // acknowledged by the leader, and not here yet
	resp, err := p.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Read, Path: "sys/probe", Token: root})
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := resp.Data.(json.RawMessage); string(data) != `{"value":"new"}` {
		t.Errorf("after %d executions the answer is %s, which was overwritten before the request began", calls, data)
	}
}

// A preparation that fails is the request's outcome, also when it has to run again.
func TestFailedPreparationIsTheOutcome(t *testing.T) {
	d := newDuo(t)
	s := store.New(d.follower, d, time.Now)
	handled, prepared := 0, 0
	route := conclave.WriteRoute(conclave.Update, "probe", "Writes.",
		func(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.None, error) {
			handled++
			return nil, tx.Put("probe/x", []byte("done"))
		})
	route.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		prepared++
		d.lag(true)
		d.put(s, "between") // what was begun after this conflicts once
		d.lag(false)
		return nil, conclave.Errorf(conclave.Denied, "the directory refuses")
	}
	route.Exists = func(view conclave.View, _ any) (bool, error) {
		value, err := view.Get("probe/x")
		return value != nil, err
	}
	p := New(Config{Store: s, Recorder: NewRecorder("n1"), Gate: &Gate{}, Policies: policy.NewCache(),
		System: []conclave.Route{route}, Logger: hclog.NewNullLogger()})
	root := d.found(s)
	d.put(s, "before")
	_, err := p.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Update, Path: "sys/probe", Token: root})
	if !conclave.Is(err, conclave.Denied) || prepared != 1 || handled != 0 {
		t.Errorf("%v after %d preparations and %d executions of the handler, want denied after 1 and 0", err, prepared, handled)
	}
	tx, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if value, err := tx.System().Get("probe/x"); err != nil || string(value) != "between" {
		t.Errorf("probe/x is %q, %v", value, err)
	}
}

// What a preparation worked from is part of what the request read: if it changes, the work is done again.
func TestPreparationIsDoneAgainWhenItsGroundsChange(t *testing.T) {
	d := newDuo(t)
	s := store.New(d.follower, d, time.Now)
	var prepared []string
	route := conclave.WriteRoute(conclave.Update, "probe", "Writes.",
		func(ctx context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.Response, error) {
			value, _ := conclave.Prepared[string](ctx)
			return &conclave.Response{Data: map[string]any{"made_of": value}}, nil
		})
	route.Gather = func(view conclave.View, _ any) (any, error) {
		value, err := view.Get("probe/x")
		return string(value), err
	}
	route.Prepare = func(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
		value, _ := conclave.Gathered[string](ctx)
		if prepared = append(prepared, value); len(prepared) == 1 {
			d.put(s, "new") // while the slow work is done with the old value
		}
		return value, nil
	}
	p := New(Config{Store: s, Recorder: NewRecorder("n1"), Gate: &Gate{}, Policies: policy.NewCache(),
		System: []conclave.Route{route}, Logger: hclog.NewNullLogger()})
	root := d.found(s)
	d.put(s, "old")
	resp, err := p.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: conclave.Update, Path: "sys/probe", Token: root})
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := resp.Data.(json.RawMessage); string(data) != `{"made_of":"new"}` || len(prepared) != 2 {
		t.Errorf("prepared of %q, the answer is %s", prepared, data)
	}
}
