package cluster

import (
	"context"
	"strings"
	"sync"
	"testing"

	"conclave"
	"conclave/fsm"
)

// disks says how much is free on each node's disk, in bytes.
type disks struct {
	mu   sync.Mutex
	free map[string]uint64 // data directory → bytes; plenty if it isn't there
}

func (d *disks) measure(dir string) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if free, ok := d.free[dir]; ok {
		return free, nil
	}
	return 1 << 40, nil
}

func (d *disks) set(n *labNode, free uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free[n.config.DataDir] = free
}

// Free space in bytes: below the reserve, and below half of it.
const (
	lowSpace  = 50 << 20
	noSpace   = 1 << 20
	muchSpace = 1 << 30
)

func threeOnSmallDisks(t *testing.T) (*lab, *disks) {
	d := &disks{free: make(map[string]uint64)}
	l, nodes := three(t, func(c *Config) { c.Free = d.measure })
	for _, n := range nodes {
		n.SetReady(true)
	}
	return l, d
}

// wantRefused waits until a commit is refused for want of room.
func wantRefused(t *testing.T, n *labNode) {
	t.Helper()
	await(t, "a commit on "+n.id+" to be refused", func() bool {
		_, err := n.Commit(context.Background(), anyTime(n, fsm.Write{Op: fsm.SetCell, Key: recordKey('c', 2)}))
		return conclave.Is(err, conclave.Unavailable) && strings.Contains(err.Error(), "has no room")
	})
}

func TestLeaderWithoutRoomHandsOverToAVoterThatHasSome(t *testing.T) {
	l, d := threeOnSmallDisks(t)
	first := l.leader()
	mustCommit(t, first, func() *fsm.Transaction { return writing(first, 1, first.id) })
	d.set(first, lowSpace)
	await(t, "a leader with room", func() bool { return l.leader() != first })
	for _, n := range l.running() {
		mustCommitSoon(t, n)
	}
	second := l.leader()
	for _, n := range l.running() {
		d.set(n, noSpace)
	}
	for _, n := range l.running() {
		wantRefused(t, n)
		if s, err := n.State(t.Context()); err != nil || s.Healthy || s.Tolerance != 0 {
			t.Errorf("with all disks full the state is %+v, %v", s, err)
		}
	}
	l.stop(second.id)
	for _, n := range l.running() { // another has opened its term
		wantRefused(t, n)
	}
	for _, n := range l.running() {
		d.set(n, muchSpace)
	}
	for _, n := range l.running() {
		mustCommitSoon(t, n)
	}
}

// mustCommitSoon commits on a node once that isn't refused any more.
func mustCommitSoon(t *testing.T, n *labNode) {
	t.Helper()
	await(t, "a commit on "+n.id, func() bool {
		o, err := n.Commit(context.Background(), anyTime(n, fsm.Write{Op: fsm.SetCell, Key: recordKey('c', 2)}))
		return err == nil && o.Verdict == fsm.Committed
	})
}

func TestLeaderRefusesWhileNoQuorumHasRoom(t *testing.T) {
	l, d := threeOnSmallDisks(t)
	leader := l.leader()
	for _, n := range l.running() {
		if n != leader {
			d.set(n, lowSpace)
		}
	}
	wantRefused(t, leader)
	if !leader.IsLeader() {
		t.Error("the one that has room doesn't lead any more")
	}
	d.set(l.follower(), muchSpace)
	mustCommitSoon(t, leader)
}

// TestWhatIsProposedBeforeTheLeaderKnowsThatOthersAreFullIsAnswered: the leader hears of it with their next beats. What it
// has logged by then is committed when there is room, once.
func TestWhatIsProposedBeforeTheLeaderKnowsThatOthersAreFullIsAnswered(t *testing.T) {
	l, d := threeOnSmallDisks(t)
	leader := l.leader()
	mustCommitSoon(t, leader)
	for _, n := range l.running() {
		if n != leader {
			d.set(n, noSpace)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	term := leader.raft.CurrentTerm()
	_, err := leader.Commit(ctx, writing(leader, 3, "nobody has room for this"))
	stays := leader.raft.CurrentTerm() == term && leader.IsLeader()
	if ctx.Err() != nil || !conclave.Is(err, conclave.Unknown) && !conclave.Is(err, conclave.Unavailable) || stays && !strings.Contains(err.Error(), "no room") {
		t.Fatalf("a commit that followers have no room for: %v; want an error that says so", err)
	}
	unknown := conclave.Is(err, conclave.Unknown)
	if _, err := leader.Commit(ctx, reading(leader, 3)); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("a read that followers have no room for: %v; want Unavailable", err)
	}
	d.set(l.follower(), muchSpace)
	mustCommitSoon(t, leader)
	if version, value, err := get(leader, 3); err != nil || stays && unknown && string(value) != "nobody has room for this" || !unknown && version != 0 {
		t.Errorf("after that the record is %q, version %d, %v; its commit was unknown: %v", value, version, err, unknown)
	}
}

func TestFollowerWithoutRoomWaitsAndCatchesUp(t *testing.T) {
	l, d := threeOnSmallDisks(t)
	n := l.follower()
	server := n.Progress().ServerID
	d.set(n, noSpace)
	leader := l.leader()
	last := n.raft.LastIndex()
	for range 20 {
		mustCommit(t, leader, func() *fsm.Transaction { return writing(leader, 1, "without it") })
	}
	if now := n.raft.LastIndex(); now > last+1 { // one may have been on its way
		t.Errorf("the log of the full follower has grown from %d to %d", last, now)
	}
	d.set(n, muchSpace)
	o := mustCommit(t, leader, func() *fsm.Transaction { return writing(leader, 1, "with it again") })
	await(t, "the follower to catch up", func() bool { return n.state.Applied() >= o.Index })
	if id := n.Progress().ServerID; id != server {
		t.Errorf("server %s has come back as %s", server, id)
	}
}
