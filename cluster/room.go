package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"conclave/cluster/disk"
	"conclave/cluster/roster"
)

// errNoQuorumHasRoom is why a leader that has room itself refuses proposals.
var errNoQuorumHasRoom = errors.New("too many voters have no room left on their disks: free or add space there")

// room returns an error if this leader's disk is below the reserve, or if the disks of so many voters are that a proposal
// would be committed by nobody.
func (n *Node) room() error {
	if err := n.guard.Check(); err != nil {
		return err
	}
	voters, able, full := 0, 0, 0
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		id := disk.NodeOf(string(s.ID))
		switch r, fresh := n.health.Of(id); {
		case id == n.id.NodeID || fresh && !r.Full:
			able++
		case fresh:
			full++
		}
	}
	if full > 0 && able <= voters/2 {
		return errNoQuorumHasRoom
	}
	return nil
}

// watchRoom answers what was proposed before this leader knew that too few voters have room for it.
func (n *Node) watchRoom(ctx context.Context) error {
	return every(ctx, stallInterval, func() error {
		if n.room() != nil {
			n.order.GiveUp(time.Now().Add(-stuckLimit))
		}
		return nil
	})
}

// callRoom asks a node whether its disk is above the reserve; if not, it answers with an error.
const callRoom = "cluster.room"

// othersHaveRoom asks all other voters, and reports whether that one has room now, and enough others for a majority.
func (n *Node) othersHaveRoom(ctx context.Context, one raft.ServerID) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	voters, asked := 0, 0
	answers := make(chan raft.ServerID, roster.MaxMembers)
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		nodeID := disk.NodeOf(string(s.ID))
		if nodeID == n.id.NodeID || asked == cap(answers) {
			continue
		}
		asked++
		go func() { // ends with ctx, and has room to answer
			if _, err := n.Call(ctx, nodeID, callRoom, nil); err != nil {
				answers <- ""
				return
			}
			answers <- s.ID
		}()
	}
	able, has := 0, false
	for range asked {
		if id := <-answers; id != "" {
			able++
			has = has || id == one
		}
	}
	return has && able > voters/2
}
