package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"conclave"
	"conclave/cluster/disk"
	"conclave/cluster/roster"
)

// Timings of membership.
const (
	healthPatience = 2 * time.Second // for a new leader to hear from its voters
	watchPause     = 20 * time.Millisecond
)

// tendMembers makes the first list, removes servers that aren't listed, and promotes those that have caught up.
func (n *Node) tendMembers(ctx context.Context) error {
	return every(ctx, tendInterval, func() error {
		list, err := n.storedList()
		if err != nil {
			return err
		}
		if list == nil {
			_, err := n.changeList(ctx, nil, nil, func(l *List) error {
				if l.Number > 1 {
					return nil // made meanwhile
				}
				l.Put(n.ownEntry())
				return nil
			})
			return err
		}
		n.health.Keep(list)
		if err := n.recordContact(ctx, n.id.NodeID, n.contact()); err != nil { // a leader that has moved
			return err
		}
		for _, s := range n.servers() {
			if err := n.tendServer(list, s); err != nil {
				return err
			}
		}
		return nil
	})
}

func (n *Node) tendServer(list *List, s raft.Server) error {
	nodeID := disk.NodeOf(string(s.ID))
	if list.Find(nodeID) == nil && nodeID != n.id.NodeID {
		n.logger.Info("node removed", "node", nodeID)
		return n.raft.RemoveServer(s.ID, 0, changeTimeout).Error()
	}
	r, fresh := n.health.Of(nodeID)
	if s.Suffrage == raft.Voter || !fresh || r.Behind > caughtUp || r.Term != n.raft.CurrentTerm() {
		return nil
	}
	n.logger.Info("node has caught up and votes", "node", nodeID)
	return n.raft.AddVoter(s.ID, s.Address, 0, changeTimeout).Error()
}

func (n *Node) ownEntry() Member {
	return Member{NodeID: n.id.NodeID, TLSPublic: n.id.SPKI[:], HPKEPublic: n.config.HPKEPublic, AuditPublic: n.config.AuditPublic,
		ServerID: n.id.ServerID(), Address: n.port.Advertised()}
}

// storedList is the list in the replicated state, nil if there is none.
func (n *Node) storedList() (*List, error) {
	v := n.fsm.View()
	defer v.Release()
	version, value, err := v.Get(membersKey)
	if err != nil || version == 0 {
		return nil, err
	}
	return roster.Decode(value)
}

// watchMembers adopts the list and the contacts as this node applies them.
func (n *Node) watchMembers(ctx context.Context) {
	var list, contacts uint64
	for ctx.Err() == nil {
		index := n.fsm.Applied() // before the look: what is applied after it is waited for
		list, contacts = n.adoptStored(list), n.adoptContacts(contacts)
		if n.fsm.WaitApplied(ctx, index+1) != nil {
			return
		}
		select { // at most so often, however much is applied
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// adoptStored adopts the stored list if its version isn't seen, and returns its version.
func (n *Node) adoptStored(seen uint64) uint64 {
	v := n.fsm.View()
	defer v.Release()
	version, value, err := v.Get(membersKey)
	if err != nil || version == 0 || version == seen {
		return seen
	}
	l, err := roster.Decode(value)
	if err == nil {
		err = n.roster.Adopt(l)
	}
	if err != nil && !errors.Is(err, roster.ErrStale) {
		n.logger.Error("the stored list of members isn't accepted", "error", err)
	}
	return version
}

// RemovePeer takes a node off the list, which cuts it off, and out of Raft's configuration. It is Precondition if the
// rest would have no quorum of healthy voters, Sealed if the list is signed and the leader is sealed.
func (n *Node) RemovePeer(ctx context.Context, nodeID string) error {
	if n.IsLeader() && nodeID == n.id.NodeID {
		if err := n.TransferLeadership(ctx); err != nil {
			return err
		}
		if err := n.awaitOtherLeader(ctx); err != nil {
			return err
		}
	}
	if !n.IsLeader() {
		_, err := n.callLeader(ctx, callRemove, []byte(nodeID))
		return err
	}
	patience, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	err := n.sparePeer(nodeID)
	for err != nil && patience.Err() == nil { // a new leader has yet to hear from everybody
		select {
		case <-patience.Done():
		case <-time.After(tendInterval):
		}
		err = n.sparePeer(nodeID)
	}
	if err != nil {
		return err
	}
	_, err = n.changeList(ctx, nil, nil, func(l *List) error {
		if l.Find(nodeID) == nil {
			return conclave.Errorf(conclave.NotFound, "no such node")
		}
		l.Drop(nodeID)
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range n.servers() {
		if disk.NodeOf(string(s.ID)) == nodeID {
			if err := n.raft.RemoveServer(s.ID, 0, changeTimeout).Error(); err != nil {
				n.logger.Warn("remove node from raft; it will be tried again", "node", nodeID, "error", err)
			}
		}
	}
	return nil
}

// sparePeer checks that the cluster goes on without the node.
func (n *Node) sparePeer(nodeID string) error {
	voters, healthy := 0, 0
	for _, s := range n.servers() {
		id := disk.NodeOf(string(s.ID))
		if s.Suffrage != raft.Voter || id == nodeID {
			continue
		}
		voters++
		if _, fresh := n.health.Of(id); fresh || id == n.id.NodeID {
			healthy++
		}
	}
	if voters == 0 || healthy <= voters/2 {
		return conclave.Errorf(conclave.Precondition, "without that node, %d of %d voters would be healthy: no quorum", healthy, voters)
	}
	return nil
}

func (n *Node) awaitOtherLeader(ctx context.Context) error {
	for {
		news := n.leaderNews()
		if leader := n.leaderID(); leader != "" && leader != n.id.NodeID {
			return nil
		}
		select {
		case <-ctx.Done():
			return unavailable("no other leader was elected in time", busyRetry)
		case <-news:
		case <-time.After(routePause):
		}
	}
}

// Leave hands leadership over and takes this node off the list. It runs on, cut off, until Shutdown.
func (n *Node) Leave(ctx context.Context) error {
	err := n.RemovePeer(ctx, n.id.NodeID)
	if !conclave.Is(err, conclave.Unavailable) {
		return err
	}
	// The answer may have been cut off with this node: ask whether it is still on the list.
	if asked := n.introduce(ctx); asked != nil {
		n.logger.Debug("asked after leaving", "answer", asked)
	}
	if l := n.roster.List(); l != nil && l.Find(n.id.NodeID) == nil {
		return nil
	}
	return err
}

// Members are the nodes of the list, with what is known of them besides.
func (n *Node) Members() []Member {
	l := n.roster.List()
	if l == nil {
		return nil
	}
	members := slices.Clone(l.Members)
	servers := n.servers()
	for i := range members {
		m := &members[i]
		for _, s := range servers {
			if disk.NodeOf(string(s.ID)) == m.NodeID {
				m.ServerID, m.Voter = string(s.ID), s.Suffrage == raft.Voter
			}
		}
		m.Address, _ = n.addressOf(m.NodeID)
		if g, ok := n.gossip.Peer(m.NodeID); ok {
			m.APIAddress, m.Ready = g.API, g.Ready
		}
		if m.NodeID == n.id.NodeID {
			m.APIAddress, m.Ready = n.config.APIAddress, n.ready.Load()
		}
	}
	return members
}
