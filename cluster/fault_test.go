package cluster

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave"
	"conclave/cluster/wire"
	"conclave/fsm"
)

// cell returns what a counter is on a node.
func cell(t *testing.T, n *labNode) int64 {
	t.Helper()
	v := n.state.View()
	defer v.Release()
	version, _, err := v.Get(recordKey('c', 1))
	if err != nil {
		t.Fatal(err)
	}
	return int64(version)
}

func anyTime(n *labNode, writes ...fsm.Write) *fsm.Transaction {
	return &fsm.Transaction{Snapshot: n.state.Applied(), NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny, Writes: writes,
		Record: auditRecord(64)}
}

// tally counts what callers were told.
type tally struct{ done, unknown, unavailable atomic.Int64 }

// counting has callers on every node that runs add one to a cell, until stop is called, and returns what they were told.
func counting(t *testing.T, l *lab, callers int) (result *tally, stop func()) {
	t.Helper()
	first := l.leader()
	mustCommit(t, first, func() *fsm.Transaction {
		return anyTime(first, fsm.Write{Op: fsm.SetCell, Key: recordKey('c', 1), Delta: 0})
	})
	result = new(tally)
	ctx, cancel := context.WithCancel(context.Background())
	var callersDone sync.WaitGroup
	for _, n := range l.running() {
		for range callers {
			callersDone.Go(func() {
				for ctx.Err() == nil && l.running()[n.id] == n {
					one, done := context.WithTimeout(context.Background(), 5*time.Second)
					o, err := n.Commit(one, anyTime(n, fsm.Write{Op: fsm.AddCell, Key: recordKey('c', 1), Delta: 1}))
					done()
					switch {
					case err == nil && o.Verdict == fsm.Committed:
						result.done.Add(1)
					case err == nil:
						t.Errorf("adding to a cell was judged %d", o.Verdict)
					case conclave.Is(err, conclave.Unknown):
						result.unknown.Add(1)
					case conclave.Is(err, conclave.Unavailable):
						result.unavailable.Add(1)
					default:
						t.Errorf("commit: %v", err)
					}
				}
			})
		}
	}
	return result, func() { cancel(); callersDone.Wait() }
}

// checkCount compares the cell with what callers were told: every acknowledged addition is in once, and nothing else but
// what they were told may be in.
func checkCount(t *testing.T, l *lab, r *tally) {
	t.Helper()
	n := l.leader()
	mustCommit(t, n, func() *fsm.Transaction { return reading(n, 99) })
	got, done, unknown := cell(t, n), r.done.Load(), r.unknown.Load()
	t.Logf("cell %d, acknowledged %d, unknown %d, unavailable %d, stats %+v", got, done, unknown, r.unavailable.Load(), n.Stats().Unsure)
	if done == 0 || got < done || got > done+unknown {
		t.Errorf("the cell is %d; %d additions were acknowledged, and %d more unknown", got, done, unknown)
	}
	for _, other := range l.running() {
		if err := other.state.WaitApplied(context.Background(), n.state.Applied()); err != nil {
			t.Fatal(err)
		}
		if c := cell(t, other); c != got {
			t.Errorf("the cell is %d on %s, %d on %s", c, other.id, got, n.id)
		}
	}
}

func progressed(t *testing.T, r *tally, more int64) {
	t.Helper()
	from := r.done.Load()
	await(t, "commits to go on", func() bool { return r.done.Load() >= from+more })
}

func TestNothingIsLostOrDoneTwiceWhenLeadersStop(t *testing.T) {
	l, _ := three(t)
	r, stop := counting(t, l, 4)
	progressed(t, r, 50)
	old := l.leader()
	id := old.id
	l.stop(id) // its own callers are told Unavailable or Unknown
	await(t, "another leader", func() bool { return l.leader() != old })
	progressed(t, r, 50)
	stop()
	l.start(id)
	l.awaitVoters(3)
	checkCount(t, l, r)
}

func TestNothingIsLostOrDoneTwiceWhenTheLeaderIsCutOff(t *testing.T) {
	l, _ := three(t)
	r, stop := counting(t, l, 4)
	progressed(t, r, 50)
	for range 2 {
		old := l.leader()
		l.isolate(old.id, true)
		await(t, "the old leader to step down", func() bool { return !old.IsLeader() })
		if old.InQuorum() {
			t.Errorf("%s counts itself in the quorum while cut off", old.id)
		}
		progressed(t, r, 50)
		l.isolate(old.id, false)
		await(t, "the old leader to be back", old.InQuorum)
		progressed(t, r, 50)
	}
	stop()
	checkCount(t, l, r)
	if r.unknown.Load() > 0 {
		t.Errorf("%d commits stayed unknown although the cut was short", r.unknown.Load())
	}
}

func TestBrokenStreamsToALeaderThatStaysAreResolved(t *testing.T) {
	l, _ := three(t)
	r, stop := counting(t, l, 4)
	term := l.leader().raft.CurrentTerm()
	unsure := func() (sum uint64) {
		for _, n := range l.running() {
			sum += n.Stats().Unsure
		}
		return sum
	}
	await(t, "unsure sendings", func() bool {
		l.mu.Lock()
		var doomed []*labConn
		for c := range l.conns {
			doomed = append(doomed, c)
		}
		l.mu.Unlock()
		for _, c := range doomed {
			c.Close()
		}
		progressed(t, r, 5)
		return unsure() > 20
	})
	stop()
	if now := l.leader().raft.CurrentTerm(); now != term {
		t.Logf("the term has changed from %d to %d: not only fences were at work", term, now)
	}
	checkCount(t, l, r)
	if got, want := cell(t, l.leader()), r.done.Load(); got != want || r.unknown.Load() != 0 {
		t.Errorf("the cell is %d, %d were acknowledged, %d unknown; all should be known", got, want, r.unknown.Load())
	}
}

func TestWithoutQuorumCommitsFailClosed(t *testing.T) {
	l, nodes := three(t)
	leader := l.leader()
	for _, n := range nodes {
		if n != leader {
			l.stop(n.id)
		}
	}
	await(t, "the leader to step down", func() bool { return !leader.InQuorum() })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := leader.Commit(ctx, anyTime(leader, fsm.Write{Op: fsm.SetCell, Key: recordKey('c', 1)}))
	if !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("commit without a quorum: %v, want Unavailable", err)
	}
}

// TestWithoutQuorumNobodyWaitsForLong: what is under way when the quorum is lost is answered, what comes later is refused at
// once, and a quorum ends that.
func TestWithoutQuorumNobodyWaitsForLong(t *testing.T) {
	l, _ := three(t)
	for _, choose := range []func() *labNode{l.leader, l.follower} {
		survivor := choose()
		ctx, cancel := context.WithTimeout(context.Background(), patience) // less than the longest commit
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for err := error(nil); err == nil; {
					if _, err = survivor.Commit(ctx, anyTime(survivor, fsm.Write{Op: fsm.AddCell, Key: recordKey('c', 1), Delta: 1})); ctx.Err() != nil {
						t.Errorf("a commit on %s, which lost its quorum, is not answered", survivor.id)
					}
				}
			})
		}
		var gone []string
		for id := range l.running() {
			if id != survivor.id {
				l.stop(id)
				gone = append(gone, id)
			}
		}
		asking.Wait()
		await(t, survivor.id+" to notice that there is no quorum", func() bool {
			_, err := survivor.Commit(ctx, reading(survivor, 1))
			return conclave.Is(err, conclave.Unavailable) && strings.Contains(err.Error(), "no quorum")
		})
		cancel()
		for _, id := range gone {
			l.start(id)
		}
		mustCommitSoon(t, survivor)
		l.awaitVoters(3)
	}
}

func TestNodesComeBackWithWhatTheyHad(t *testing.T) {
	l, nodes := three(t)
	o := mustCommit(t, nodes[0], func() *fsm.Transaction { return writing(nodes[0], 5, "kept") })
	id := nodes[0].ClusterID()
	for _, n := range nodes {
		l.stop(n.id)
	}
	for _, n := range nodes { // at other addresses: the ports are chosen anew
		l.start(n.id)
	}
	l.awaitVoters(3)
	for _, n := range l.running() {
		if n.ClusterID() != id {
			t.Errorf("%s is of cluster %s, was of %s", n.id, n.ClusterID(), id)
		}
		if err := n.state.WaitApplied(context.Background(), o.Index); err != nil {
			t.Fatal(err)
		}
		if _, value, err := get(n, 5); err != nil || string(value) != "kept" {
			t.Errorf("%s has %q, %v; want what was kept", n.id, value, err)
		}
		mustCommit(t, n, func() *fsm.Transaction { return writing(n, 6, n.id) })
	}
	await(t, "the new addresses in Raft's configuration", func() bool {
		for _, n := range l.running() {
			if !n.settled() {
				return false
			}
		}
		return true
	})
}

func get(n *labNode, child uint64) (uint64, []byte, error) {
	v := n.state.View()
	defer v.Release()
	return v.Get(recordKey('r', child))
}

func TestWipedNodeNeedsATokenAndVotesOnlyWhenItHasCaughtUp(t *testing.T) {
	l, _ := three(t)
	leader, n := l.leader(), l.follower()
	old := n.Progress().ServerID
	l.stop(n.id)
	if err := os.RemoveAll(l.path(n.id)); err != nil {
		t.Fatal(err)
	}
	n = l.start(n.id)
	await(t, "the wiped node to be refused", func() bool { return n.formOnce(n.ctx) != nil })
	if n.ClusterID() != "" {
		t.Errorf("the wiped node got into cluster %s without a token", n.ClusterID())
	}
	l.stop(n.id)
	token, err := leader.Admit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	n = l.start(n.id, func(c *Config) { c.AdmitToken = token })
	await(t, "the new disk to vote", n.votes)
	if id := n.Progress().ServerID; id == old {
		t.Errorf("the wiped node is server %s again", id)
	}
	for _, s := range leader.servers() {
		if string(s.ID) == old {
			t.Errorf("the old server %s is still in the configuration", old)
		}
	}
	mustCommit(t, n, func() *fsm.Transaction { return writing(n, 1, "from the new disk") })

	l.start("d", func(c *Config) { c.AdmitToken = token })
	if err := l.running()["d"].formOnce(l.running()["d"].ctx); err == nil {
		t.Error("a used token let another node in")
	}
}

// TestWipedNodeNeedsATokenThoughItsCertificateIsKept is about certificates that don't live in the data directory.
func TestWipedNodeNeedsATokenThoughItsCertificateIsKept(t *testing.T) {
	l, _ := three(t)
	leader, n := l.leader(), l.follower()
	l.stop(n.id)
	certificate, err := os.ReadFile(l.path(n.id) + "/node.pem")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(l.path(n.id)), os.MkdirAll(l.path(n.id), 0o700),
		os.WriteFile(l.path(n.id)+"/node.pem", certificate, 0o600)); err != nil {
		t.Fatal(err)
	}
	key := []byte("made with the new data directory")
	token, err := leader.Admit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	n = l.start(n.id, func(c *Config) { c.HPKEPublic = key })
	await(t, "the wiped node to be refused", func() bool {
		_, err := n.introduceAt(n.ctx, leader.Address())
		return err != nil && strings.Contains(err.Error(), "refused")
	})
	l.stop(n.id)
	n = l.start(n.id, func(c *Config) { c.HPKEPublic, c.AdmitToken = key, token })
	await(t, "the admitted node to vote", n.votes)
	if m := leader.roster.List().Find(n.id); m == nil || !bytes.Equal(m.HPKEPublic, key) {
		t.Errorf("listed: %+v, want the new key", m)
	}
}

// takeSnapshot has a node take a snapshot, after something that follows the newest configuration.
func takeSnapshot(t *testing.T, n *labNode) {
	t.Helper()
	o := mustCommit(t, n, func() *fsm.Transaction { return writing(n, 1, "in the snapshot") })
	if err := n.state.WaitApplied(t.Context(), o.Index); err != nil {
		t.Fatal(err)
	}
	await(t, "a snapshot", func() bool { return n.raft.Snapshot().Error() == nil })
}

func TestForgottenLogComesBackAsAnotherServer(t *testing.T) {
	l, _ := three(t)
	n := l.follower()
	for _, snapshot := range []bool{false, true} { // which says what the node had acknowledged up to then, and no more
		if snapshot {
			takeSnapshot(t, n)
		}
		old := n.Progress().ServerID
		l.stop(n.id)
		if err := os.RemoveAll(l.path(n.id) + "/raft/wal"); err != nil {
			t.Fatal(err)
		}
		n = l.start(n.id) // its certificate is listed: it needs no token
		await(t, "the new disk to vote", n.votes)
		if id := n.Progress().ServerID; id == old {
			t.Errorf("the node that lost its log is server %s again, snapshot: %v", id, snapshot)
		}
		mustCommit(t, n, func() *fsm.Transaction { return writing(n, 1, "x") })
	}
}

// TestLogThatASnapshotReplacedIsKept: raft-wal's log is empty once a snapshot is installed.
func TestLogThatASnapshotReplacedIsKept(t *testing.T) {
	l, _ := three(t)
	n := l.follower()
	takeSnapshot(t, n)
	last := n.raft.LastIndex()
	old := n.Progress().ServerID
	leader := l.leader()
	for _, other := range l.running() { // so that nothing is appended in the meantime
		if other != n && other != leader {
			l.stop(other.id)
		}
	}
	l.stop(leader.id)
	if err := n.logs.DeleteRange(1, last+1000); err != nil {
		t.Fatal(err)
	}
	l.stop(n.id)
	n = l.start(n.id)
	if id := n.Progress().ServerID; id != old {
		t.Errorf("server %s whose entries are all in a snapshot is %s now", old, id)
	}
}

func TestRemovedNodeIsCutOff(t *testing.T) {
	l, _ := three(t)
	l.signList()
	leader, n := l.leader(), l.follower()
	asked := leader
	for _, other := range l.running() {
		if other != leader && other != n {
			asked = other // which has to ask the leader
		}
	}
	if err := asked.RemovePeer(context.Background(), n.id); err != nil {
		t.Fatal(err)
	}
	await(t, "two voters", func() bool { return len(leader.servers()) == 2 })
	await(t, "the removed node to lose touch", func() bool { return !n.InQuorum() })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := n.Commit(ctx, anyTime(n, fsm.Write{Op: fsm.SetCell, Key: recordKey('c', 1)})); err == nil {
		t.Error("a removed node committed")
	}
	if _, err := n.Call(ctx, leader.id, callState, nil); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("a removed node's call: %v, want Unavailable", err)
	}
	mustCommit(t, leader, func() *fsm.Transaction { return writing(leader, 1, "without it") })
	if _, err := leader.Call(context.Background(), leader.id, callState, nil); err != nil {
		t.Errorf("a member's call: %v", err)
	}
	await(t, "the removed node to know it", n.Removed)
	if _, err := n.Commit(context.Background(), anyTime(n)); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("commit on a node that knows that it was removed: %v, want Unavailable", err)
	}
	token, err := leader.Admit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	l.stop(n.id)
	n = l.start(n.id, func(c *Config) { c.AdmitToken = token })
	if err := n.formOnce(n.ctx); !errors.Is(err, errRemoved) {
		t.Errorf("forming with a token and the disk of a removed node: %v, want %v", err, errRemoved)
	}
	_, _ = n.introduceAt(n.ctx, leader.Address()) // even if it didn't know, its token would stay unused
	if leader.roster.List().Find(n.id) != nil {
		t.Error("a token let a removed node in with its old disk")
	}
}

func TestNodeThatLeavesIsOffTheList(t *testing.T) {
	l, _ := three(t)
	l.signList()
	n := l.leader() // which hands over first
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	await(t, "a successor that has caught up", func() bool { _, ok := n.successor(false); return ok })
	if err := n.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, "two voters", func() bool {
		leader := l.leader()
		return leader != n && len(leader.servers()) == 2 && leader.roster.List().Find(n.id) == nil
	})
	leader := l.leader()
	mustCommit(t, leader, func() *fsm.Transaction { return writing(leader, 1, "without it") })
}

func TestWrongSecretIsRefused(t *testing.T) {
	l, _ := three(t)
	wrong := func(c *Config) { c.Secret = []byte("another secret, also quite long enough") }
	n := l.start("d", wrong)
	if n.gossip.Join(n.config.Join) != 0 {
		t.Error("a node with another secret could gossip")
	}
	if err := n.formOnce(n.ctx); err == nil || n.ClusterID() != "" {
		t.Errorf("a node with another secret: cluster %q, %v", n.ClusterID(), err)
	}
	if _, err := n.introduceAt(n.ctx, l.leader().Address()); err == nil {
		t.Error("a node with another secret was answered")
	}
}

// TestStrangersListIsNotBelieved: who knows the cluster secret can answer an introduction, and be believed by a node that
// has no list yet. Before the first signature a list must not be changed for what such an answer says.
func TestStrangersListIsNotBelieved(t *testing.T) {
	l, nodes := three(t)
	n := l.follower()
	stranger := [32]byte{1}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, sign := range map[string]bool{"unsigned": false, "signed": true} {
		forged := n.roster.List().Successor()
		forged.Number += 100
		forged.Put(Member{NodeID: "stranger", TLSPublic: stranger[:], HPKEPublic: []byte("key")})
		if sign {
			if err := forged.Sign(public, func(m []byte) []byte { return ed25519.Sign(private, m) }); err != nil {
				t.Fatal(err)
			}
		}
		value, err := forged.Encode()
		if err != nil {
			t.Fatal(err)
		}
		w := &wire.Welcome{Reception: wire.Reception_KNOWN, ClusterId: n.ClusterID(), List: value}
		if err := n.learn(w, stranger); err != nil || n.roster.List().Find("stranger") != nil {
			t.Errorf("a stranger's %s list was believed: %v", name, err)
		}
	}
	next := n.roster.List().Successor()
	value, err := next.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range nodes {
		if member != n {
			w := &wire.Welcome{Reception: wire.Reception_KNOWN, ClusterId: n.ClusterID(), List: value}
			if err := n.learn(w, member.Node.id.SPKI); err != nil || n.roster.List().Number != next.Number {
				t.Errorf("a member's list wasn't taken: %v", err)
			}
		}
	}
}
