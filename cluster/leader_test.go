package cluster

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"conclave"
	"conclave/fsm"
)

// TestOneWrongWallClockMovesNothing forms a cluster in which the founder's clock is an hour ahead, lets each node lead,
// and restarts all of them.
func TestOneWrongWallClockMovesNothing(t *testing.T) {
	l := newLab(t, 3)
	ahead := func(c *Config) { c.Wall = func() time.Time { return time.Now().Add(time.Hour) } }
	start := func() {
		l.start("a", ahead)
		l.start("b")
		l.start("c")
		l.awaitVoters(3)
	}
	check := func(when string) {
		t.Helper()
		for _, n := range l.running() {
			await(t, "the time on "+n.id, func() bool { return !n.Now().IsZero() })
			mustCommit(t, n, func() *fsm.Transaction { return reading(n, 1) })
			for what, now := range map[string]time.Time{"now": n.Now(), "stamp": time.Unix(0, n.state.Time())} {
				if off := time.Until(now); off.Abs() > 2*time.Second {
					t.Errorf("%s %s on %s is %v off", when, what, n.id, off)
				}
			}
		}
	}
	start()
	check("formed")
	await(t, "a to have led", func() bool {
		leader := l.leader()
		if leader.id != "a" {
			a := l.running()["a"]
			for _, s := range leader.servers() {
				if string(s.ID) == a.Progress().ServerID {
					leader.raft.LeadershipTransferToServer(s.ID, s.Address).Error()
				}
			}
			return false
		}
		return true
	})
	check("with the wrong clock leading")
	for id := range l.running() {
		l.stop(id)
	}
	start()
	check("after all were down")
}

func TestSealedLeaderHandsOverToAReadyVoter(t *testing.T) {
	l, _ := three(t)
	old, ready := l.leader(), l.follower()
	if old.InQuorum() != true {
		t.Error("the leader isn't in the quorum")
	}
	ready.SetReady(true)
	await(t, "the ready node to lead", func() bool { return ready.IsLeader() })
	mustCommit(t, old, func() *fsm.Transaction { return writing(old, 1, "by the sealed node") })
	if m, ok := old.Leader(); !ok || m.NodeID != ready.id || !m.Voter {
		t.Errorf("old leader takes %+v, %v for the leader", m, ok)
	}
}

func TestTransferLeadershipFromAnyNode(t *testing.T) {
	l, _ := three(t)
	old, asks := l.leader(), l.follower()
	await(t, "a successor", func() bool { _, ok := old.successor(false); return ok })
	if err := asks.TransferLeadership(context.Background()); err != nil {
		t.Fatal(err)
	}
	await(t, "another leader", func() bool { return l.leader() != old })
}

func TestVoterThatKeepsUpUnderLoadIsASuccessor(t *testing.T) {
	l, _ := three(t)
	leader, other := l.leader(), l.follower()
	await(t, "a successor", func() bool { _, ok := leader.successor(false); return ok })
	for range 2 * caughtUp { // more than a voter may lack, sooner than its next beat
		mustCommit(t, leader, func() *fsm.Transaction { return writing(leader, 1, "x") })
	}
	if err := leader.TransferLeadership(context.Background()); err != nil {
		t.Errorf("step-down between two beats of %s, under load: %v", other.id, err)
	}
}

func TestTasksRunOnTheLeaderAlone(t *testing.T) {
	l, nodes := three(t)
	var running atomic.Int64
	led := make(chan string, 16)
	for _, n := range nodes {
		var failed bool
		n.WhileLeader("test", func(ctx context.Context) error {
			if running.Add(1) > 1 {
				t.Error("the task runs twice")
			}
			defer running.Add(-1)
			if !failed {
				failed = true
				return errors.New("fails once")
			}
			led <- n.id
			<-ctx.Done()
			return nil
		})
	}
	first := l.leader()
	if got := <-led; got != first.id {
		t.Errorf("the task runs on %s, %s leads", got, first.id)
	}
	l.stop(first.id)
	if got := <-led; got == first.id {
		t.Errorf("the task runs on %s again, which has stopped", got)
	}
}

func TestCallsReachMembersAndKeepTheirErrors(t *testing.T) {
	_, nodes := three(t)
	a, b := nodes[0], nodes[1]
	b.Handle("test.echo", func(_ context.Context, from Member, body []byte) ([]byte, error) {
		if from.NodeID != a.id {
			t.Errorf("called by %q, want a", from.NodeID)
		}
		return bytes.ToUpper(body), nil
	})
	b.Handle("test.fail", func(context.Context, Member, []byte) ([]byte, error) {
		e := conclave.Errorf(conclave.Limited, "not now")
		e.RetryAfter = time.Minute
		return nil, e
	})
	b.Handle("test.leak", func(context.Context, Member, []byte) ([]byte, error) { return nil, errors.New("a secret") })
	ctx := context.Background()
	if got, err := a.Call(ctx, b.id, "test.echo", []byte("x")); err != nil || string(got) != "X" {
		t.Errorf("echo: %q, %v", got, err)
	}
	_, err := a.Call(ctx, b.id, "test.fail", nil)
	if e, ok := errors.AsType[*conclave.Error](err); !ok || e.Kind != conclave.Limited || e.Message != "not now" || e.RetryAfter != time.Minute {
		t.Errorf("failing handler: %#v", err)
	}
	if _, err := a.Call(ctx, b.id, "test.leak", nil); err == nil || err.Error() != "the call failed" {
		t.Errorf("handler with an inner error: %v", err)
	}
	if _, err := a.Call(ctx, b.id, "test.none", nil); !conclave.Is(err, conclave.Unsupported) {
		t.Errorf("method that nobody handles: %v", err)
	}
	if _, err := a.Call(ctx, b.id, "test.echo", make([]byte, maxCallBody+1)); !conclave.Is(err, conclave.TooLarge) {
		t.Errorf("body over the limit: %v", err)
	}
}

// TestServersStayHealthyUnderLoad: more is committed between two beats than a healthy server may lack at one.
func TestServersStayHealthyUnderLoad(t *testing.T) {
	l, _ := three(t)
	leader := l.leader()
	await(t, "a healthy cluster", func() bool { return leader.survey().Healthy })
	term := leader.raft.CurrentTerm()
	var futures []raft.ApplyFuture
	for range 2 * healthyLag {
		futures = append(futures, leader.raft.Apply(fsm.EncodeTermOpen(term, leader.clock.Next()), patience))
	}
	for _, f := range futures {
		if err := f.Error(); err != nil {
			t.Fatal(err)
		}
	}
	if s := leader.survey(); s.Term == term && s.Tolerance == 0 { // one may really lag: it isn't needed for the commits
		t.Errorf("after a burst of commits the state is %+v", s)
	}
}

func TestStateShowsEveryServer(t *testing.T) {
	l, _ := three(t)
	asks := l.follower()
	await(t, "a healthy cluster", func() bool {
		s, err := asks.State(context.Background())
		return err == nil && s.Healthy && len(s.Servers) == 3 && s.Tolerance == 1 && s.Leader == l.leader().id
	})
	var down *labNode
	for _, n := range l.running() {
		if n != asks && n != l.leader() {
			down = n
		}
	}
	l.stop(down.id)
	await(t, "the stopped node to be found out", func() bool {
		s, err := asks.State(context.Background())
		return err == nil && !s.Healthy && s.Tolerance == 0 && len(s.Servers) == 3 // dead servers stay
	})
}

func TestNodeThatLagsGetsASnapshot(t *testing.T) {
	l, _ := three(t)
	leader, n := l.leader(), l.follower()
	l.stop(n.id)
	reload := leader.raft.ReloadableConfig()
	reload.TrailingLogs = 1
	if err := leader.raft.ReloadConfig(reload); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		mustCommit(t, leader, func() *fsm.Transaction { return writing(leader, uint64(i), "before the snapshot") })
	}
	if err := leader.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		t.Fatal(err)
	}
	if first, err := leader.logs.FirstIndex(); err != nil || first < 10 {
		t.Fatalf("the log still starts at %d, %v", first, err)
	}
	o := mustCommit(t, leader, func() *fsm.Transaction { return writing(leader, 100, "after it") })
	n = l.start(n.id)
	if err := n.state.WaitApplied(context.Background(), o.Index); err != nil {
		t.Fatal(err)
	}
	for child, value := range map[uint64]string{0: "before the snapshot", 29: "before the snapshot", 100: "after it"} {
		if _, got, err := get(n, child); err != nil || string(got) != value {
			t.Errorf("record %d is %q, %v; want %q", child, got, err, value)
		}
	}
	mustCommit(t, n, func() *fsm.Transaction { return writing(n, 7, "again") })
}

func TestSignedListNeedsItsKey(t *testing.T) {
	l, _ := three(t)
	leader := l.leader()
	l.signList()
	for _, n := range l.running() {
		n.SetSigner(nil, nil) // sealed
	}
	if err := leader.RemovePeer(context.Background(), l.follower().id); !conclave.Is(err, conclave.Sealed) {
		t.Errorf("removing a node while sealed: %v, want Sealed", err)
	}
	tx, _, err := leader.listTransaction(nil, nil, func(*List) error { return nil })
	if tx != nil || !conclave.Is(err, conclave.Sealed) {
		t.Errorf("a list was made while sealed: %v", err)
	}
	// What a leader without the key could write isn't believed.
	number := leader.roster.List().Number
	forged := &List{Number: number + 1, ClusterID: leader.ClusterID(), Members: leader.roster.List().Members[:1]}
	value, err := forged.Encode()
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, leader, func() *fsm.Transaction {
		v := leader.state.View()
		defer v.Release()
		version, _, _ := v.Get(membersKey)
		return &fsm.Transaction{Snapshot: v.Index(), NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny,
			Reads:  []fsm.Read{{Key: membersKey, Version: version}},
			Writes: []fsm.Write{{Op: fsm.Replace, Key: membersKey, Version: v.Index() + 1, Value: value}}}
	})
	for _, n := range l.running() {
		mustCommit(t, n, func() *fsm.Transaction { return reading(n, 1) })
		n.adoptStored(0)
		if got := n.roster.List(); got.Number != number || !got.Signed() {
			t.Errorf("%s believes a forged list: %d, signed %v", n.id, got.Number, got.Signed())
		}
	}
}

func TestSingleNodeFormsAlone(t *testing.T) {
	l := newLab(t, 1)
	n := l.start("a", func(c *Config) { c.GossipAddress = "" })
	l.awaitVoters(1)
	mustCommit(t, n, func() *fsm.Transaction { return writing(n, 1, "alone") })
	l.stop("a")
	n = l.start("a", func(c *Config) { c.GossipAddress = "" })
	l.awaitVoters(1)
	if _, value, err := get(n, 1); err != nil || string(value) != "alone" {
		t.Errorf("after a restart %q, %v", value, err)
	}
}

func TestConfigurationThatCannotBeIsRefused(t *testing.T) {
	sound := Config{NodeID: "a", DataDir: "x", ClusterAddress: ":0", GossipAddress: ":0", Secret: labSecret}
	if err := sound.settle(); err != nil {
		t.Fatalf("a sound configuration: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"node id": func(c *Config) { c.NodeID = "A" }, "data directory": func(c *Config) { c.DataDir = "" },
		"secret": func(c *Config) { c.Secret = []byte("short") }, "address": func(c *Config) { c.ClusterAddress = "" },
		"gossip": func(c *Config) { c.GossipAddress, c.BootstrapExpect = "", 3 }, "log": func(c *Config) { c.LogStore = "x" },
		"pipeline": func(c *Config) { c.Pipeline = 99 }, "timeout": func(c *Config) { c.CommitTimeout = 1 },
		"files": func(c *Config) { c.CAFile = "x" }, "expect": func(c *Config) { c.BootstrapExpect = -1 },
	} {
		c := sound
		change(&c)
		if err := c.settle(); err == nil {
			t.Errorf("a wrong %s was taken", name)
		}
	}
}
