package cluster

import (
	"context"

	"conclave/cluster/agreement"
)

// Agreement is the newest comparison of the nodes' states.
type Agreement = agreement.Status

// Agreement tells of the newest comparison of the nodes' states.
func (n *Node) Agreement() Agreement { return n.checker.Status() }

// openChecker compares this node's state with the others'. One that differs serves no more.
func (n *Node) openChecker() (err error) {
	ids := func(which func(*Member) bool) (ids []string) {
		for _, m := range n.Members() {
			if which(&m) {
				ids = append(ids, m.NodeID)
			}
		}
		return ids
	}
	n.checker, err = agreement.New(agreement.Options{Dir: n.config.DataDir, NodeID: n.id.NodeID, State: n.fsm, Call: n.Call,
		Handle: func(method string, handler agreement.Handler) {
			n.Handle(method, func(ctx context.Context, _ Member, body []byte) ([]byte, error) { return handler(ctx, body) })
		},
		Members: func() []string { return ids(func(*Member) bool { return true }) },
		Voters:  func() []string { return ids(func(m *Member) bool { return m.Voter }) },
		Leader:  n.leaderID, Differs: n.refuse, Logger: n.logger.Named("agreement")})
	return err
}

// refuse has this node neither serve nor order any more, with the error as the reason; err is made for clients. It still
// replicates and votes. As leader it refuses what is proposed until it has handed over.
func (n *Node) refuse(err error) {
	n.refusal.CompareAndSwap(nil, &err)
	n.SetReady(false)
}

// Refused is why this node doesn't serve any more, nil if it does.
func (n *Node) Refused() error {
	if err := n.refusal.Load(); err != nil {
		return *err
	}
	return nil
}
