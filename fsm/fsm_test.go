package fsm

import (
	"context"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"conclave/audit"
)

func TestReplicasAgreeWithEachOtherAndTheModel(t *testing.T) {
	for seed := range uint64(30) {
		w := newWorld(seed)
		w.grow(150)
		f := open(t, smallOptions(vfs.NewMem()))
		results := apply(f, w.logs, w.rng)
		w.checkModel(t, f, results)
		g := open(t, Options{Dir: "other", FS: vfs.NewMem(), AuditSegment: 300 << 10}) // no flush ever
		g.applier.versions.limit = generationEntries
		if again := apply(g, w.logs, w.rng); !reflect.DeepEqual(results, again) {
			t.Fatalf("seed %d: replicas answer differently", seed)
		}
		wantEnd(t, "the other replica", g, endOf(t, f))
		verified(t, f, false)
		closing(t, f)
		closing(t, g)
	}
}

// verified checks the audit log.
func verified(tb testing.TB, f *FSM, empty bool) {
	tb.Helper()
	r, err := f.Audit().Verify(context.Background(), 0, nil)
	if err != nil || r.Fault != nil {
		tb.Fatalf("Verify: %v, %v", r.Fault, err)
	}
	if r.Records == 0 && !empty {
		tb.Fatal("Verify saw no records")
	}
}

func TestCrashAtAnyPointReplaysToTheSameState(t *testing.T) {
	for seed := range uint64(40) {
		w := newWorld(seed)
		w.grow(120)
		want := end{}
		{
			f := open(t, smallOptions(vfs.NewMem()))
			apply(f, w.logs, w.rng)
			want = endOf(t, f)
			closing(t, f)
		}
		disk := vfs.NewCrashableMem()
		f := open(t, smallOptions(disk))
		for done := 0; done < len(w.logs); {
			n := min(len(w.logs)-done, 1+w.rng.IntN(60))
			apply(f, w.logs[done:done+n], w.rng)
			done += n
			if w.rng.IntN(4) == 0 {
				persist(t, f)
			}
			if w.rng.IntN(4) == 0 {
				f.Settle(1)
			}
			unsynced := []int{0, 50, 100}[w.rng.IntN(3)]
			clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: w.rng})
			closing(t, f)
			disk = clone
			f = open(t, smallOptions(disk))
			if f.Applied() > uint64(done) {
				t.Fatalf("seed %d: after the crash %d is applied, of %d", seed, f.Applied(), done)
			}
			apply(f, w.logs[:done], w.rng) // from the start: what is there is skipped
		}
		wantEnd(t, "after crashes", f, want)
		verified(t, f, false)
		closing(t, f)
	}
}

func TestCloseWithoutFlushReplays(t *testing.T) {
	w := newWorld(7)
	w.grow(100)
	dir := t.TempDir()
	o := Options{Dir: dir}
	f := open(t, o)
	apply(f, w.logs[:60], w.rng)
	if err := f.epoch.release(); err != nil { // Close without its flush
		t.Fatal(err)
	}
	f = open(t, o)
	if f.Applied() != 0 {
		t.Fatalf("%d is applied, but nothing was flushed", f.Applied())
	}
	apply(f, w.logs, w.rng)
	want := endOf(t, f)
	closing(t, f)
	f = open(t, o)
	wantEnd(t, "after Close", f, want)
	closing(t, f)
}

// persist takes a snapshot and keeps it, and returns its id.
func persist(tb testing.TB, f *FSM) string {
	tb.Helper()
	s, err := f.Snapshot()
	if err != nil {
		tb.Fatalf("Snapshot: %v", err)
	}
	defer s.Release()
	sink, err := f.Snapshots().Create(1, f.Applied(), 1, raft.Configuration{}, 0, nil)
	if err != nil {
		tb.Fatalf("Create: %v", err)
	}
	if err := s.Persist(sink); err != nil {
		tb.Fatalf("Persist: %v", err)
	}
	if err := sink.Close(); err != nil {
		tb.Fatalf("Close: %v", err)
	}
	return sink.ID()
}

func TestUnknownFormatsStopTheProcess(t *testing.T) {
	rows := []struct {
		name, want string
		data       []byte
	}{
		{"raised too far", "needs format 2", EncodeFormat(2)},
		{"newer command", "needs format 7", append([]byte{0, 7}, EncodeFormat(1)[2:]...)},
		{"unknown command", "malformed", append([]byte{0, 1, 99}, EncodeFormat(1)[3:]...)},
	}
	for _, row := range rows {
		f := open(t, smallOptions(vfs.NewMem()))
		if f.Apply(&raft.Log{Index: 1, Term: 1, Data: EncodeFormat(1)}); f.Format() != 1 {
			t.Fatalf("Format() = %d", f.Format())
		}
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, row.want) {
					t.Errorf("%s: panic %q, want %q in it", row.name, got, row.want)
				}
			}()
			f.Apply(&raft.Log{Index: 2, Term: 1, Data: row.data})
		}()
		if err := CheckEntry(row.data); row.name != "raised too far" && err == nil {
			t.Errorf("%s: CheckEntry lets it pass", row.name)
		}
	}
}

func TestNewerStateDoesNotOpen(t *testing.T) {
	p := position{format: FormatVersion + 1}
	if _, err := decodePosition(p.append(nil)); err == nil || !strings.Contains(err.Error(), "needs format 2") {
		t.Fatalf("decodePosition: %v", err)
	}
}

func TestViewsAreConsistentAndShared(t *testing.T) {
	w := newWorld(3)
	w.grow(50)
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	apply(f, w.logs[:40], w.rng)
	v, again := f.View(), f.View()
	if v != again || v.Index() != 40 {
		t.Fatalf("views %p and %p at index %d", v, again, v.Index())
	}
	again.Release()
	before, err := v.Hash("a", "z")
	if err != nil {
		t.Fatal(err)
	}
	apply(f, w.logs, w.rng)
	if after, err := v.Hash("a", "z"); err != nil || after != before {
		t.Fatalf("an old view has changed: %v", err)
	}
	later := f.View()
	if later.Index() != 50 || later.Time() != w.time {
		t.Fatalf("new view at index %d, time %d, want 50, %d", later.Index(), later.Time(), w.time)
	}
	later.Release()
	v.Release()
	if s := f.Stats(); s.OpenViews != 1 { // the FSM's own, until the next apply
		t.Fatalf("%d views are open", s.OpenViews)
	}
}

func TestAbsenceAndZeroCountersDiffer(t *testing.T) {
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	cell := testKey(ClassCell, 1, 1, 1)
	get := func() (uint64, []byte) {
		v := f.View()
		defer v.Release()
		version, value, err := v.Get(cell)
		if err != nil {
			t.Fatal(err)
		}
		return version, value
	}
	if version, value := get(); version != NoCell || value != nil {
		t.Fatalf("absent cell: %d, %v", version, value)
	}
	tx := &Transaction{NotAfter: NotAfterAny, Writes: []Write{{Op: SetCell, Key: cell}}}
	stale := &Transaction{NotAfter: NotAfterAny, Reads: []Read{{cell, NoCell}}, Writes: []Write{{Op: DropCell, Key: cell}}}
	r := f.Apply(&raft.Log{Index: 1, Term: 1, Data: EncodeBatch(nil, 1, 0, ProposalID{}, []*Transaction{tx, stale})}).(*BatchResult)
	if r.Outcomes[0].Verdict != Committed || r.Outcomes[1].Verdict != Conflict {
		t.Fatalf("outcomes %+v", r.Outcomes)
	}
	if version, value := get(); version != 0 || value == nil {
		t.Fatalf("cell of 0: %d, %v", version, value)
	}
}

func TestReadOnlyTransactionsAreJudgedByWhoExpectsThem(t *testing.T) {
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	k := testKey(ClassRecord, 1, 1, 1)
	create := &Transaction{ID: ProposalID{1}, NotAfter: NotAfterAny, Reads: []Read{{k, 0}}, Writes: []Write{{Op: Create, Key: k, Version: 1}}}
	saw := func(id byte, snapshot, version uint64) *Transaction {
		return &Transaction{ID: ProposalID{id}, Snapshot: snapshot, NotBefore: NotBeforeAny, NotAfter: NotAfterAny, Reads: []Read{{k, version}}, Record: AuditRecord{Box: []byte("b")}}
	}
	batch := []*Transaction{saw(2, 0, 0), create, saw(3, 0, 0)}
	forget := f.Expect(ProposalID{9}, batch)
	r := f.Apply(&raft.Log{Index: 1, Term: 1, Data: EncodeBatch(nil, 1, 5, ProposalID{9}, batch)}).(*BatchResult)
	forget()
	for i, want := range []Verdict{Committed, Committed, Conflict} {
		if r.Outcomes[i].Verdict != want {
			t.Errorf("outcome %d is %+v, want verdict %d", i, r.Outcomes[i], want)
		}
	}
	r = f.Apply(&raft.Log{Index: 2, Term: 1, Data: EncodeBatch(nil, 1, 5, ProposalID{9}, []*Transaction{saw(4, 1, 1)})}).(*BatchResult)
	if r.Outcomes[0].Verdict != Recorded || r.Outcomes[0].Seq != 2 {
		t.Errorf("nobody expected it: %+v", r.Outcomes[0])
	}
	late := saw(5, 1, 1)
	late.NotAfter = 6
	defer f.Expect(ProposalID{8}, []*Transaction{late, saw(6, 1, 1), saw(7, 3, 1)})()
	r = f.Apply(&raft.Log{Index: 3, Term: 1, Data: EncodeBatch(nil, 1, 6, ProposalID{8}, []*Transaction{late, saw(6, 1, 1), saw(7, 3, 1)})}).(*BatchResult)
	for i, want := range []Verdict{Conflict, Committed, Conflict} {
		if r.Outcomes[i].Verdict != want {
			t.Errorf("third entry, outcome %d is %+v, want verdict %d", i, r.Outcomes[i], want)
		}
	}
}

func TestWaitersLearnTheirOutcome(t *testing.T) {
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	k := Key("pname")
	tx := &Transaction{ID: ProposalID{1}, NotAfter: NotAfterAny, Reads: []Read{{k, 0}}, Writes: []Write{{Op: Create, Key: k, Version: 1}}}
	won, lost, gone := f.Await(ProposalID{1}, 1), f.Await(ProposalID{2}, 1), f.Await(ProposalID{3}, 2)
	forgotten := f.Await(ProposalID{4}, 1)
	forgotten.Forget()
	f.Apply(&raft.Log{Index: 1, Term: 1, Data: EncodeBatch(nil, 1, 5, ProposalID{9}, []*Transaction{tx})})
	if o := <-won.Done(); o.Verdict != Committed || o.Index != 1 {
		t.Errorf("applied: %+v", o)
	}
	f.Apply(&raft.Log{Index: 2, Term: 2, Data: EncodeTermOpen(2, 0)})
	if o := <-lost.Done(); o.Verdict != Dead {
		t.Errorf("after its term: %+v", o)
	}
	if o := <-f.Await(ProposalID{5}, 1).Done(); o.Verdict != Dead {
		t.Errorf("sent for a term that has passed: %+v", o)
	}
	select {
	case o := <-gone.Done():
		t.Errorf("its term goes on, but it got %+v", o)
	case o := <-forgotten.Done():
		t.Errorf("forgotten, but it got %+v", o)
	default:
	}
	id := persist(t, f)
	_, rc, err := f.Snapshots().Open(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Restore(rc); err != nil {
		t.Fatal(err)
	}
	if err := rc.Close(); err != nil {
		t.Fatal(err)
	}
	if o := <-gone.Done(); o != (Outcome{}) {
		t.Errorf("the state was replaced, but it got %+v", o)
	}
}

func TestWaitAppliedWakesAndGivesUp(t *testing.T) {
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	woken, gaveUp := make(chan error, 1), make(chan error, 1)
	go func() { woken <- f.WaitApplied(context.Background(), 1) }()
	go func() { gaveUp <- f.WaitApplied(ctx, 2) }()
	f.Apply(&raft.Log{Index: 1, Term: 1, Data: EncodeTermOpen(1, 0)})
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-gaveUp; err != context.Canceled {
		t.Fatal(err)
	}
}

func TestPruneDropsOnlyWhatWasConfirmed(t *testing.T) {
	disk := vfs.NewCrashableMem()
	f := open(t, smallOptions(disk))
	var logs []*raft.Log
	do := func(data []byte) *BatchResult {
		logs = append(logs, &raft.Log{Index: uint64(len(logs) + 1), Term: 1, Data: data})
		return f.Apply(logs[len(logs)-1]).(*BatchResult)
	}
	record := func() {
		do(EncodeBatch(nil, 1, 0, ProposalID{}, []*Transaction{{Record: AuditRecord{Box: []byte("record")}}}))
	}
	record()
	do(EncodeRotate(1, 0, "the first epoch"))
	record()
	head := f.Head().Head
	do(EncodeRotate(1, 0, "the second epoch"))
	record()
	for _, row := range []struct {
		epoch uint64
		head  [32]byte
		want  Verdict
	}{{2, f.Head().Head, Refused}, {1, [32]byte{1}, Refused}, {0, head, Refused}, {1, head, Committed}, {1, head, Refused}} {
		if got := do(EncodePrune(1, 0, row.epoch, row.head)).Outcomes[0].Verdict; got != row.want {
			t.Errorf("prune epoch %d: verdict %d, want %d", row.epoch, got, row.want)
		}
	}
	if err := f.Audit().Read(context.Background(), 0, func(audit.Frame) bool { return true }); err != audit.ErrPruned {
		t.Errorf("Read of what was pruned: %v", err)
	}
	verified(t, f, false)
	want := endOf(t, f)
	g := open(t, smallOptions(disk.CrashClone(vfs.CrashCloneCfg{})))
	apply(g, logs, rand.New(rand.NewPCG(1, 1)))
	wantEnd(t, "after a crash", g, want)
	verified(t, g, false)
	closing(t, f)
	closing(t, g)
}
