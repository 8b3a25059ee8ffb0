package cluster

import (
	"context"
	"time"

	"conclave"
	"conclave/cluster/disk"
	"conclave/cluster/overview"
)

// MembersSigned reports whether the list of members bears the cluster key's signature.
func (n *Node) MembersSigned() bool {
	l := n.roster.List()
	return l != nil && l.Signed()
}

// ListNumber is the number of the list of members, 0 while there is none; each change has a higher one.
func (n *Node) ListNumber() uint64 {
	if l := n.roster.List(); l != nil {
		return l.Number
	}
	return 0
}

// Removed reports whether this node belonged to the cluster and is off the list now.
func (n *Node) Removed() bool {
	l := n.roster.List()
	return l != nil && l.Signed() && l.Find(n.id.NodeID) == nil
}

// Routes are the operations under sys/ that are about the cluster.
func (n *Node) Routes() []conclave.Route {
	stepDown := conclave.WriteRoute(conclave.Update, "step-down", "Hand leadership over to another node.",
		func(context.Context, conclave.Tx, *conclave.None) (*conclave.None, error) { return nil, nil }).With(conclave.Sudo, conclave.Urgent)
	stepDown.Finish = func(ctx context.Context, _ *conclave.Request, _ any) (*conclave.Response, error) {
		return &conclave.Response{}, n.TransferLeadership(ctx)
	}
	remove := conclave.WriteRoute(conclave.Update, "storage/raft/remove-peer",
		"Take a node off the list of members for good.\n\nIt is cut off at once. To come back it needs an empty data directory and a new admission.",
		func(_ context.Context, _ conclave.Tx, in *removeInput) (*conclave.None, error) {
			if in.ServerID == "" {
				return nil, conclave.Errorf(conclave.Invalid, "server_id must be given: see `conclave operator members`")
			}
			return nil, nil
		}).With(conclave.Sudo)
	remove.Finish = func(ctx context.Context, _ *conclave.Request, in any) (*conclave.Response, error) {
		input, _ := in.(*removeInput)
		err := n.RemovePeer(ctx, n.nodeNamed(input.ServerID))
		if conclave.Is(err, conclave.NotFound) {
			err = nil // removing what isn't there succeeds, as clients expect
		}
		return &conclave.Response{}, err
	}
	admit := conclave.WriteRoute(conclave.Update, "admit",
		"Make a token with which one more node may join, once, within an hour.",
		func(context.Context, conclave.Tx, *conclave.None) (*admitOutput, error) { return nil, nil }).With(conclave.Sudo)
	admit.Finish = func(ctx context.Context, _ *conclave.Request, _ any) (*conclave.Response, error) {
		token, err := n.Admit(ctx)
		if err != nil {
			return nil, err
		}
		return &conclave.Response{Data: admitOutput{Token: token, TTL: int64(admitLife / time.Second)}}, nil
	}
	routes := append(overview.Routes(n, n.fsm.Applied), n.checker.Routes()...)
	return append(routes, stepDown, remove, admit)
}

type removeInput struct {
	ServerID string `json:"server_id" doc:"The node's id, as in sys/members, or its Raft server id."`
}

type admitOutput struct {
	Token string `json:"token" doc:"For the new node's configuration; it works once."`
	TTL   int64  `json:"ttl" doc:"Seconds that it is good for."`
}

// nodeNamed accepts a node id or a Raft server id.
func (n *Node) nodeNamed(id string) string {
	if l := n.roster.List(); l != nil && l.Find(id) == nil && l.Find(disk.NodeOf(id)) != nil {
		return disk.NodeOf(id)
	}
	return id
}
