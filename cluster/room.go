package cluster

import (
	"errors"

	"github.com/hashicorp/raft"

	"conclave/cluster/disk"
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
