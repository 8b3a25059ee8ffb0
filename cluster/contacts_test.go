package cluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"conclave/fsm"
)

// freeAddress is one on which nothing listens, outside the range from which Linux takes those of callers.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

func at(clusterAddress, gossipAddress string) func(*Config) {
	return func(c *Config) { c.ClusterAddress, c.GossipAddress = clusterAddress, gossipAddress }
}

// TestAllNodesMoveAndFindEachOtherAgain moves the nodes one after the other, and then starts all at once with nothing but
// what their disks say: no address to join, and a state that is older than the log, as after a crash.
func TestAllNodesMoveAndFindEachOtherAgain(t *testing.T) {
	l, nodes := three(t)
	mustCommit(t, nodes[0], func() *fsm.Transaction { return writing(nodes[0], 5, "kept") })
	configured := nodes[0].servers()
	alone := func(c *Config) { c.Join = nil }
	moved := make(map[string]func(*Config))
	for _, id := range []string{"a", "b", "c"} {
		l.stop(id)
		moved[id] = at(freeAddress(t), freeAddress(t))
		n := l.start(id, moved[id])
		await(t, id+" to have told where it is", n.settled)
	}
	l.awaitVoters(3)
	await(t, "all to know where all are", func() bool {
		for _, n := range l.running() {
			for _, other := range l.running() {
				if n.book.Contacts().Nodes[other.id] != other.contact() {
					return false
				}
			}
		}
		return true
	})
	for _, n := range l.running() {
		if now := n.servers(); !slices.EqualFunc(now, configured, func(a, b raft.Server) bool { return a.Address == b.Address }) {
			t.Errorf("Raft's configuration on %s was %v, is %v; an address in it never changes", n.id, configured, now)
		}
	}
	for _, id := range []string{"a", "b", "c"} {
		l.stop(id)
		if err := os.RemoveAll(filepath.Join(l.path(id), "fsm")); err != nil {
			t.Fatal(err)
		}
	}
	for id, where := range moved {
		l.start(id, where, alone)
	}
	l.awaitVoters(3)
	for _, n := range l.running() {
		await(t, "the others in the gossip of "+n.id, func() bool { return len(n.gossip.Peers()) == 2 })
		mustCommit(t, n, func() *fsm.Transaction { return reading(n, 5) }) // which conflicts until it is replayed here
		if _, value, err := get(n, 5); err != nil || string(value) != "kept" {
			t.Errorf("%s has %q, %v; want what was kept", n.id, value, err)
		}
	}
}

// TestAddressThatAnotherNodeHadIsTaken lets a new node in where a member was before it moved.
func TestAddressThatAnotherNodeHadIsTaken(t *testing.T) {
	l := newLab(t, 1)
	cluster, gossip := freeAddress(t), freeAddress(t)
	l.start("a", at(cluster, gossip))
	l.awaitVoters(1)
	l.stop("a")
	a := l.start("a")
	await(t, "a to lead where it is now", func() bool { return a.IsLeader() && a.settled() })
	token, err := a.Admit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := l.start("b", at(cluster, gossip), func(c *Config) { c.AdmitToken = token })
	await(t, "b to vote", b.votes)
	await(t, "b to be known where a was", func() bool { return a.book.Contacts().Nodes["b"] == b.contact() })
}
