package cluster

import (
	"context"
	"time"
)

// quorumPatience is how long there may be no leader until commits are refused at once. It is longer than any election of
// nodes that are up takes, from when the loss of the last leader is noticed.
const quorumPatience = 3500 * time.Millisecond

// watchQuorum notes when there has been no leader for quorumPatience, and when there is one. This node counts as one only
// once it has opened its term.
func (n *Node) watchQuorum(ctx context.Context) {
	timer := time.NewTimer(quorumPatience)
	defer timer.Stop()
	led := false
	for {
		news := n.leaderNews()
		term, opened := n.order.OpenTerm()
		leader := n.leaderID()
		leads := leader != "" && (leader != n.id.NodeID || term != 0)
		switch {
		case leads:
			n.quorum.Set(false)
			timer.Stop()
		case led:
			timer.Reset(quorumPatience)
		}
		if led = leads; term != 0 { // it is open already
			opened = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-opened:
		case <-timer.C:
			n.quorum.Set(true)
			if n.clusterID() != "" {
				n.logger.Warn("there is no quorum: requests are refused until there is a leader")
			}
		}
	}
}
