package fsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave/internal/archive"
)

// stream reads a snapshot as a follower would get it.
func stream(tb testing.TB, f *FSM, id string) ([]byte, *raft.SnapshotMeta) {
	tb.Helper()
	meta, rc, err := f.Snapshots().Open(id)
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	b, err := io.ReadAll(rc)
	if err = errors.Join(err, rc.Close()); err != nil {
		tb.Fatalf("read the snapshot: %v", err)
	}
	if int64(len(b)) != meta.Size {
		tb.Fatalf("the snapshot has %d bytes, its metadata says %d", len(b), meta.Size)
	}
	return b, meta
}

// receive puts a stream into another node's store.
func receive(f *FSM, b []byte, index, term uint64, rng *rand.Rand) (string, error) {
	b = bytes.Clone(b) // under the race detector MemFS scribbles on what it is given
	sink, err := f.Snapshots().Create(1, index, term, raft.Configuration{}, 0, nil)
	if err != nil {
		return "", err
	}
	for len(b) > 0 {
		n := min(len(b), 1+rng.IntN(5000))
		if _, err := sink.Write(b[:n]); err != nil {
			return "", errors.Join(err, sink.Cancel())
		}
		b = b[n:]
	}
	return sink.ID(), sink.Close()
}

func TestRestoreEqualsReplay(t *testing.T) {
	for seed := range uint64(15) {
		w := newWorld(seed)
		w.grow(120)
		f := open(t, smallOptions(vfs.NewMem()))
		apply(f, w.logs[:70], w.rng)
		id := persist(t, f)
		apply(f, w.logs, w.rng)
		want := endOf(t, f)
		b, _ := stream(t, f, id)

		g := open(t, smallOptions(vfs.NewMem()))
		apply(g, w.logs[:w.rng.IntN(40)], w.rng)
		old := g.View()
		before, err := old.Hash("a", "z")
		if err != nil {
			t.Fatal(err)
		}
		id, err = receive(g, b, 70, w.term, w.rng)
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		_, rc, err := g.Snapshots().Open(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Restore(rc); err != nil {
			t.Fatalf("Restore: %v", err)
		}
		if err := rc.Close(); err != nil {
			t.Fatal(err)
		}
		if after, err := old.Hash("a", "z"); err != nil || after != before || !old.Stale() {
			t.Fatalf("view of the old state: changed %v, stale %v, %v", after != before, old.Stale(), err)
		}
		old.Release()
		if g.Applied() != 70 {
			t.Fatalf("restored to %d", g.Applied())
		}
		apply(g, w.logs, w.rng)
		wantEnd(t, "restored and replayed", g, want)
		verified(t, g, false)
		closing(t, g)
		closing(t, f)
	}
}

func TestRestoreTakesIndexAndTermFromRaft(t *testing.T) {
	w := newWorld(1)
	w.term = 50
	w.add(raft.LogCommand, EncodeTermOpen(50, 0), nil)
	w.grow(20)
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	apply(f, w.logs, w.rng)
	b, _ := stream(t, f, persist(t, f))
	disk := vfs.NewCrashableMem()
	g := open(t, smallOptions(disk))
	id, err := receive(g, b, 1000, 3, w.rng)
	if err != nil {
		t.Fatal(err)
	}
	_, rc, err := g.Snapshots().Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rc.Close() }()
	if err := g.Restore(wrapped{rc}); err != nil {
		t.Fatal(err)
	}
	check := func(g *FSM) {
		t.Helper()
		if g.Applied() != 1000 || g.OpenedTerm() != 3 {
			t.Fatalf("index %d, opened term %d, want 1000, 3", g.Applied(), g.OpenedTerm())
		}
	}
	check(g)
	g2 := open(t, smallOptions(disk.CrashClone(vfs.CrashCloneCfg{})))
	check(g2)
	closing(t, g2)
	closing(t, g)
}

// wrapped is how raft hands a snapshot to Restore.
type wrapped struct{ io.ReadCloser }

func (w wrapped) WrappedReadCloser() io.ReadCloser { return w.ReadCloser }

func TestPlainStreamRestores(t *testing.T) {
	w := newWorld(2)
	w.grow(30)
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	apply(f, w.logs, w.rng)
	b, _ := stream(t, f, persist(t, f))
	g := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, g)
	if err := g.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, "restored", g, endOf(t, f))
}

func TestSnapshotThatWasReceivedIsRestoredOnOpen(t *testing.T) {
	w := newWorld(4)
	w.grow(60)
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	apply(f, w.logs, w.rng)
	b, _ := stream(t, f, persist(t, f))
	disk := vfs.NewCrashableMem()
	g := open(t, smallOptions(disk))
	apply(g, w.logs[:10], w.rng)
	if _, err := receive(g, b, 60, w.term, w.rng); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing left to do
		disk = disk.CrashClone(vfs.CrashCloneCfg{})
		again := open(t, smallOptions(disk))
		wantEnd(t, "after the crash", again, endOf(t, f))
		closing(t, again)
	}
	closing(t, g)
}

func TestOwnSnapshotIsNotRestoredOverANewerState(t *testing.T) {
	w := newWorld(5)
	w.grow(60)
	disk := vfs.NewMem()
	f := open(t, smallOptions(disk))
	apply(f, w.logs[:30], w.rng)
	persist(t, f)
	apply(f, w.logs, w.rng)
	want := endOf(t, f)
	closing(t, f)
	f = open(t, smallOptions(disk))
	wantEnd(t, "opened again", f, want)
	if f.Stats().Restores != 0 {
		t.Error("it was restored")
	}
	closing(t, f)
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	w := newWorld(6)
	w.grow(40)
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	apply(f, w.logs, w.rng)
	b, _ := stream(t, f, persist(t, f))
	g := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, g)
	if _, err := receive(g, b, 40, 1, w.rng); err != nil {
		t.Fatalf("the whole one: %v", err)
	}
	for range 300 {
		bad := bytes.Clone(b)
		at := w.rng.IntN(len(bad))
		bad[at] ^= 1 << w.rng.IntN(8)
		if _, err := receive(g, bad, 40, 1, w.rng); err == nil {
			t.Fatalf("byte %d of %d was changed, and nobody noticed", at, len(b))
		}
		if _, err := receive(g, b[:at], 40, 1, w.rng); !errors.Is(err, archive.ErrArchive) {
			t.Fatalf("cut to %d of %d: %v", at, len(b), err)
		}
	}
	if _, err := receive(g, append(bytes.Clone(b), 0), 40, 1, w.rng); err == nil {
		t.Fatal("bytes after the end were taken")
	}
	names, err := f.options.FS.List(g.options.path(snapshotsDir))
	if metas, _ := g.Snapshots().List(); err != nil || len(metas) != 1 || len(names) > 1 {
		t.Fatalf("left over: %v, %v", names, err)
	}
}

func TestSnapshotBeingReadOutlivesANewerOne(t *testing.T) {
	w := newWorld(8)
	w.grow(60)
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	apply(f, w.logs[:30], w.rng)
	id := persist(t, f)
	_, rc, err := f.Snapshots().Open(id)
	if err != nil {
		t.Fatal(err)
	}
	apply(f, w.logs, w.rng)
	persist(t, f)
	b, err := io.ReadAll(rc)
	if err = errors.Join(err, rc.Close(), rc.Close()); err != nil {
		t.Fatal(err)
	}
	g := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, g)
	if err := g.Restore(io.NopCloser(bytes.NewReader(b))); err != nil || g.Applied() != 30 {
		t.Fatalf("Restore: %v, applied %d", err, g.Applied())
	}
	names, err := f.options.FS.List(f.options.path(snapshotsDir))
	if err != nil || len(names) != 1 {
		t.Fatalf("kept %v, %v", names, err)
	}
	if _, _, err := f.Snapshots().Open(id); err == nil {
		t.Fatal("the old one can still be opened")
	}
}

func TestManifestsThatLeadElsewhereAreRefused(t *testing.T) {
	good := func() manifest {
		return manifest{Layout: 1, Format: 1, Files: []archive.File{{Name: "state/000001.sst", Size: 1}, {Name: "audit/seg-0000000000000000.log", Size: 1}}}
	}
	m := good()
	if err := m.check(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "state", "state/", "state/..", "state/../x", "../state/x", "/state/x", "other/x", "state/a/b", "audit/x",
		"audit/seg-0.log", "state/x\x00", "state/\\x", "state/000001.sst", "state/.x"} {
		m := good()
		m.Files = append([]archive.File{{Name: name}}, m.Files...)
		if m.check() == nil {
			t.Errorf("name %q was taken", name)
		}
	}
	m = good()
	m.Files[0].Size = -1
	if m.check() == nil {
		t.Error("a negative size was taken")
	}
}

// node is a member of an in-memory cluster.
type node struct {
	fsm   *FSM
	raft  *raft.Raft
	trans *raft.InmemTransport
}

func startNode(t *testing.T, id string) *node {
	t.Helper()
	n := &node{fsm: open(t, smallOptions(vfs.NewMem()))}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.NoSnapshotRestoreOnStart = raft.ServerID(id), hclog.NewNullLogger(), true
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout, c.CommitTimeout = 100*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond, 5*time.Millisecond
	c.TrailingLogs = 5
	_, n.trans = raft.NewInmemTransport(raft.ServerAddress(id))
	var err error
	store := raft.NewInmemStore()
	if n.raft, err = raft.NewRaft(c, n.fsm, store, store, n.fsm.Snapshots(), n.trans); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFollowerCatchesUpBySnapshotInARealCluster(t *testing.T) {
	nodes := make([]*node, 3)
	for i := range nodes {
		nodes[i] = startNode(t, fmt.Sprint("node", i))
	}
	defer func() {
		for _, n := range nodes {
			if err := n.raft.Shutdown().Error(); err != nil {
				t.Error(err)
			}
			closing(t, n.fsm)
		}
	}()
	for _, a := range nodes {
		for _, b := range nodes {
			a.trans.Connect(b.trans.LocalAddr(), b.trans)
		}
	}
	servers := []raft.Server{{ID: "node0", Address: "node0"}, {ID: "node1", Address: "node1"}}
	leader := nodes[0]
	leading := leader.raft.LeaderCh()
	if err := leader.raft.BootstrapCluster(raft.Configuration{Servers: servers[:1]}).Error(); err != nil {
		t.Fatal(err)
	}
	<-leading
	if err := leader.raft.AddVoter("node1", "node1", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	put := func(i int) {
		t.Helper()
		k := Key(fmt.Sprintf("pname%d", i))
		tx := &Transaction{ID: ProposalID{1, byte(i)}, NotAfter: NotAfterAny, Reads: []Read{{k, 0}}, Record: AuditRecord{Box: []byte("box")},
			Writes: []Write{{Op: Create, Key: k, Version: 1, Value: []byte(fmt.Sprint("value", i))}}}
		future := leader.raft.Apply(EncodeBatch(nil, leader.raft.CurrentTerm(), int64(i), ProposalID{9}, []*Transaction{tx}), 5*time.Second)
		if err := future.Error(); err != nil {
			t.Fatal(err)
		}
		if r := future.Response().(*BatchResult); r.Outcomes[0].Verdict != Committed {
			t.Fatalf("outcome %+v", r.Outcomes[0])
		}
	}
	for i := range 40 {
		put(i)
	}
	if err := leader.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		put(40 + i)
	}
	if err := leader.raft.AddVoter("node2", "node2", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	put(50)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i, n := range nodes {
		if err := n.fsm.WaitApplied(ctx, leader.fsm.Applied()); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
		wantEnd(t, fmt.Sprint("node", i), n.fsm, endOf(t, leader.fsm))
		verified(t, n.fsm, false)
	}
	if s := nodes[2].fsm.Stats(); s.Restores != 1 {
		t.Errorf("the late node was restored %d times", s.Restores)
	}
	restoreByUser(t, leader)
}

// restoreByUser puts a cluster back to a snapshot that a user kept.
func restoreByUser(t *testing.T, leader *node) {
	t.Helper()
	future := leader.raft.Snapshot()
	if err := future.Error(); err != nil {
		t.Fatal(err)
	}
	meta, rc, err := future.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rc.Close() }()
	_, hash, err := leader.fsm.StateHash()
	if err != nil {
		t.Fatal(err)
	}
	drop := &Transaction{ID: ProposalID{2}, NotAfter: NotAfterAny, Snapshot: leader.fsm.Applied(), Reads: []Read{{"pname1", 1}}, Writes: []Write{{Op: Delete, Key: "pname1"}}}
	if err := leader.raft.Apply(EncodeBatch(nil, leader.raft.CurrentTerm(), 0, ProposalID{9}, []*Transaction{drop}), 5*time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	if _, now, _ := leader.fsm.StateHash(); now == hash {
		t.Fatal("the delete did nothing")
	}
	if err := leader.raft.Restore(meta, rc, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, now, err := leader.fsm.StateHash(); err != nil || now != hash || leader.fsm.Applied() <= meta.Index {
		t.Fatalf("after the restore: same state %v, index %d, %v", now == hash, leader.fsm.Applied(), err)
	}
}
