package cluster

import (
	"context"
	"encoding/json"
	"time"

	"github.com/hashicorp/raft"

	"conclave"
	"conclave/cluster/disk"
	"conclave/cluster/gossip"
	"conclave/cluster/ordering"
	"conclave/cluster/overview"
)

// Methods that nodes call on the leader.
const (
	callTransfer = "cluster.transfer"
	callRemove   = "cluster.remove"
	callState    = "cluster.state"
)

// quorumContact is how long ago a follower may have heard from its leader to count itself in the quorum.
const quorumContact = time.Second

// State is the cluster as its leader sees it; Server is one server of Raft's configuration.
type (
	State  = overview.State
	Server = overview.Server
)

// Progress is how far this node is.
type Progress struct {
	ServerID                     string
	Term, Commit, Applied, Last  uint64
	LastContact                  time.Time // of a follower with its leader
	FirstLogged                  uint64
	BytesSinceSnapshot           int64
	EntriesSinceSnapshot         int64
	Voter, Leader, Ready, Listed bool
}

// healthyLag is how many committed entries a healthy server's log may lack, at its beat.
const healthyLag = 1024

// State asks the leader how the cluster is.
func (n *Node) State(ctx context.Context) (State, error) {
	if n.IsLeader() {
		return n.survey(), nil
	}
	b, err := n.callLeader(ctx, callState, nil)
	if err != nil {
		return State{}, err
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, unavailable("the leader's answer can't be read", 0)
	}
	return s, nil
}

// survey is State on the leader.
func (n *Node) survey() State {
	s := State{ClusterID: n.clusterID(), Leader: n.id.NodeID, Term: n.raft.CurrentTerm(), Healthy: true}
	voters, healthy := 0, 0
	for _, server := range n.servers() {
		id := disk.NodeOf(string(server.ID))
		x := Server{NodeID: id, ServerID: string(server.ID), Voter: server.Suffrage == raft.Voter}
		x.Address, _ = n.addressOf(id)
		if id == n.id.NodeID {
			x.Leader, x.Healthy, x.Ready, x.LastTerm, x.LastIndex, x.Version = true, n.guard.Check() == nil, n.ready.Load(), s.Term, n.raft.LastIndex(), n.config.Version
		} else {
			r, fresh := n.health.Of(id)
			x.LastContact, x.LastTerm, x.LastIndex, x.Version, x.Ready = -1, r.Term, r.LastIndex, r.Version, fresh && r.Ready
			if r.Heard != 0 {
				x.LastContact = n.mono() - r.Heard
			}
			x.Healthy = fresh && !r.Full && r.Term == s.Term && r.Lag <= healthyLag
		}
		s.Healthy = s.Healthy && x.Healthy
		if x.Voter {
			voters++
			if x.Healthy {
				healthy++
			}
		}
		s.Servers = append(s.Servers, x)
	}
	s.Tolerance = max(healthy-(voters/2+1), 0)
	return s
}

// Progress tells how far this node is.
func (n *Node) Progress() Progress {
	first, _ := n.logs.FirstIndex()
	bytes, entries := n.logs.Counted()
	p := Progress{ServerID: n.id.ServerID(), Term: n.raft.CurrentTerm(), Commit: n.raft.CommitIndex(), Applied: n.fsm.Applied(),
		Last: n.raft.LastIndex(), LastContact: n.raft.LastContact(), FirstLogged: first, BytesSinceSnapshot: bytes,
		EntriesSinceSnapshot: entries, Voter: n.votes(), Leader: n.IsLeader(), Ready: n.ready.Load()}
	if l := n.roster.List(); l != nil {
		p.Listed = l.Find(n.id.NodeID) != nil
	}
	return p
}

// Stats are counts since the node started.
type Stats struct {
	ordering.Stats
	Stalls uint64 // times that this node stepped down because its state machine had stalled
}

// Stats are counts since the node started.
func (n *Node) Stats() Stats { return Stats{n.sender.Stats(), n.stalls.Load()} }

// Now is cluster time, the zero Time while this node doesn't know it. It runs by this node's monotonic clock from what
// the leader said last, and is not bound to any entry: decide by the times of views, and show this.
func (n *Node) Now() time.Time {
	now, known := n.clock.Now()
	if !known {
		return time.Time{}
	}
	return time.Unix(0, now)
}

// IsLeader reports whether this node orders: it leads, and has opened its term.
func (n *Node) IsLeader() bool {
	term, _ := n.order.OpenTerm()
	return term != 0
}

// Leader is the member that leads, as far as this node knows.
func (n *Node) Leader() (Member, bool) {
	id := n.leaderID()
	for _, m := range n.Members() {
		if m.NodeID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Self is this node.
func (n *Node) Self() Member {
	for _, m := range n.Members() {
		if m.NodeID == n.id.NodeID {
			return m
		}
	}
	m := n.ownEntry()
	m.APIAddress, m.Ready = n.config.APIAddress, n.ready.Load()
	return m
}

// InQuorum reports whether this node leads, or has heard from a leader within a second.
func (n *Node) InQuorum() bool {
	if n.IsLeader() {
		return true
	}
	return n.leaderID() != "" && n.leaderID() != n.id.NodeID && time.Since(n.raft.LastContact()) < quorumContact
}

// SetReady says whether this node is unsealed. Leadership prefers nodes that are.
func (n *Node) SetReady(ready bool) {
	ready = ready && n.Refused() == nil
	n.ready.Store(ready)
	n.gossip.Update(func(m *gossip.Meta) { m.Ready = ready })
}

// callLeader calls a method of whoever leads.
func (n *Node) callLeader(ctx context.Context, method string, body []byte) ([]byte, error) {
	leader := n.leaderID()
	if leader == "" {
		return nil, unavailable("there is no leader", busyRetry)
	}
	return n.Call(ctx, leader, method, body)
}

// registerHandlers serves what callLeader calls. A node that doesn't lead any more refuses, so that no call goes round.
func (n *Node) registerHandlers() {
	leads := func(h Handler) Handler {
		return func(ctx context.Context, from Member, body []byte) ([]byte, error) {
			if n.awaitTerm(ctx) == 0 {
				return nil, unavailable("this node doesn't lead", busyRetry)
			}
			return h(ctx, from, body)
		}
	}
	n.registerEpochs(leads)
	n.Handle(callRoom, func(context.Context, Member, []byte) ([]byte, error) {
		if n.guard.Check() != nil {
			return nil, unavailable("this node's disk has no room", busyRetry)
		}
		return nil, nil
	})
	n.Handle(callTransfer, leads(func(ctx context.Context, _ Member, _ []byte) ([]byte, error) {
		return nil, n.TransferLeadership(ctx)
	}))
	n.Handle(callRemove, leads(func(ctx context.Context, _ Member, body []byte) ([]byte, error) {
		if string(body) == n.id.NodeID {
			return nil, conclave.Errorf(conclave.Precondition, "the leader hands over first: ask again")
		}
		return nil, n.RemovePeer(ctx, string(body))
	}))
	n.Handle(callState, leads(func(context.Context, Member, []byte) ([]byte, error) {
		return json.Marshal(n.survey())
	}))
}
