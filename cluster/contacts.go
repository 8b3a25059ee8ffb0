package cluster

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/hashicorp/raft"

	"conclave/cluster/disk"
	"conclave/cluster/roster"
	"conclave/fsm"
)

// contactsKey is where the contacts of the members are in the replicated state.
const contactsKey = fsm.Key("pcontacts")

// maxGossipTries limits how many of the contacts the gossip is offered at once: those who don't answer are waited for.
const maxGossipTries = 3

// contact is where this node is reached.
func (n *Node) contact() roster.Contact {
	return roster.Contact{Cluster: n.port.Advertised(), Gossip: n.gossip.Address()}
}

// recordContact keeps, for all nodes, where a member is now. Raft's configuration can't: it isn't changed while the member
// stays. See docs/decisions/0006-addresses-outside-rafts-configuration.md.
func (n *Node) recordContact(ctx context.Context, nodeID string, at roster.Contact) error {
	for range maxListTries {
		tx, next, err := n.contactTransaction(nodeID, at)
		if err != nil || tx == nil {
			return err
		}
		o, err := n.CommitUrgent(ctx, tx)
		if err != nil {
			return err
		}
		if o.Verdict == fsm.Committed {
			return n.book.Adopt(next)
		}
		if err := n.fsm.WaitApplied(ctx, o.Index); err != nil {
			return unavailable("this node lags", busyRetry)
		}
	}
	return unavailable("too many changes at once", busyRetry)
}

// contactTransaction is nil if the contact is kept already. Those who aren't members any more are dropped.
func (n *Node) contactTransaction(nodeID string, at roster.Contact) (*fsm.Transaction, *roster.Contacts, error) {
	v := n.fsm.View()
	defer v.Release()
	version, value, err := v.Get(contactsKey)
	if err != nil {
		return nil, nil, err
	}
	known, op := &roster.Contacts{}, fsm.Create
	if version != 0 {
		op = fsm.Replace
		if known, err = roster.DecodeContacts(value); err != nil {
			return nil, nil, err
		}
	}
	if known.Nodes[nodeID] == at {
		return nil, nil, n.book.Adopt(known)
	}
	list, next := n.roster.List(), known.Successor()
	next.Number = max(next.Number, n.book.Contacts().Number+1) // the state may have been put back
	maps.DeleteFunc(next.Nodes, func(id string, _ roster.Contact) bool { return list != nil && list.Find(id) == nil })
	next.Nodes[nodeID] = at
	if value, err = next.Encode(); err != nil {
		return nil, nil, err
	}
	return &fsm.Transaction{Snapshot: v.Index(), NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny,
		Reads:  []fsm.Read{{Key: contactsKey, Version: version}},
		Writes: []fsm.Write{{Op: op, Key: contactsKey, Version: v.Index() + 1, Value: value}}}, next, nil
}

// adoptContacts keeps the stored contacts if their version isn't seen, and returns their version.
func (n *Node) adoptContacts(seen uint64) uint64 {
	v := n.fsm.View()
	defer v.Release()
	version, value, err := v.Get(contactsKey)
	if err != nil || version == 0 || version == seen {
		return seen
	}
	c, err := roster.DecodeContacts(value)
	if err == nil {
		err = n.book.Adopt(c)
	}
	if err != nil {
		n.logger.Error("the stored contacts can't be kept", "error", err)
	}
	return version
}

// addressOf finds a member's cluster address: what it gossips, else what it told the leader last, else what the list has
// from its admission. That the right node answers there, its certificate shows.
func (n *Node) addressOf(nodeID string) (string, bool) {
	if nodeID == n.id.NodeID {
		return n.port.Advertised(), true
	}
	if m, ok := n.gossip.Peer(nodeID); ok {
		return m.Address, true
	}
	if at, ok := n.book.Contacts().Nodes[nodeID]; ok {
		return at.Cluster, true
	}
	if l := n.roster.List(); l != nil {
		if m := l.Find(nodeID); m != nil && m.Address != "" {
			return m.Address, true
		}
	}
	return "", false
}

// gossipSeeds are where the gossip looks for others: the addresses to join, and some of where members were last.
func (n *Node) gossipSeeds() []string {
	seeds := slices.Clone(n.config.Join)
	var kept []string
	for id, at := range n.book.Contacts().Nodes {
		if at.Gossip != "" && id != n.id.NodeID && !slices.Contains(seeds, at.Gossip) {
			kept = append(kept, at.Gossip)
		}
	}
	rand.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
	return append(seeds, kept[:min(len(kept), maxGossipTries)]...)
}

// raftAddress stands for a server's address in Raft's configuration. It is never dialled and never changes; two servers
// may not have the same.
func raftAddress(id raft.ServerID) raft.ServerAddress { return raft.ServerAddress(id) }

// ServerAddr makes the addresses that Raft dials: server id/host:port.
func (n *Node) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	address, ok := n.addressOf(disk.NodeOf(string(id)))
	if !ok {
		return "", fmt.Errorf("no address of server %s is known", id)
	}
	return raft.ServerAddress(string(id) + "/" + address), nil
}
