package cluster

import (
	"context"
	"time"

	"conclave"
	"conclave/cluster/disk"
)

// MembersSigned reports whether the list of members bears the cluster key's signature.
func (n *Node) MembersSigned() bool {
	l := n.roster.List()
	return l != nil && l.Signed()
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
	return append(n.epochRoutes(), stepDown, remove, admit,
		prepare(conclave.ReadRoute(conclave.Read, "storage/raft/configuration", "The servers of Raft's configuration.", prepared[configurationOutput]), n.configuration),
		prepare(conclave.ReadRoute(conclave.Read, "storage/raft/autopilot/state", "The health of the cluster as its leader sees it.", prepared[autopilotOutput]), n.autopilot),
		prepare(conclave.ReadRoute(conclave.Read, "ha-status", "The nodes of the cluster.", prepared[conclave.Response]), n.haStatus),
		prepare(conclave.ReadRoute(conclave.Read, "members", "The list of members and what is known of each.", prepared[membersOutput]), n.listMembers),
	)
}

// prepare makes a route answer what find learns from outside the transaction.
func prepare[T any](r conclave.Route, find func(context.Context) (*T, error)) conclave.Route {
	r.Prepare = func(ctx context.Context, _ *conclave.Request, _ any) (any, error) { return find(ctx) }
	return r
}

func prepared[T any](ctx context.Context, _ conclave.View, _ *conclave.None) (*T, error) {
	found, ok := conclave.Prepared[*T](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the cluster was not asked")
	}
	return found, nil
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

type configurationOutput struct {
	Config configuration `json:"config" doc:"Raft's configuration."`
}

type configuration struct {
	Servers []configuredServer `json:"servers" doc:"One a node."`
	Index   uint64             `json:"index" doc:"Of the log, when it was read."`
}

type configuredServer struct {
	NodeID          string `json:"node_id" doc:"The node."`
	Address         string `json:"address" doc:"Its cluster address."`
	Leader          bool   `json:"leader" doc:"It orders transactions."`
	ProtocolVersion string `json:"protocol_version" doc:"Of Raft."`
	Voter           bool   `json:"voter" doc:"It counts in the quorum."`
}

func (n *Node) configuration(context.Context) (*configurationOutput, error) {
	out := &configurationOutput{configuration{Servers: []configuredServer{}, Index: n.fsm.Applied()}}
	leader := n.leaderID()
	for _, m := range n.Members() {
		if m.ServerID == "" {
			continue
		}
		out.Config.Servers = append(out.Config.Servers, configuredServer{NodeID: m.NodeID, Address: m.Address,
			Leader: m.NodeID == leader, ProtocolVersion: "3", Voter: m.Voter})
	}
	return out, nil
}

type autopilotOutput struct {
	Healthy   bool                       `json:"healthy" doc:"Every server is."`
	Tolerance int                        `json:"failure_tolerance" doc:"Healthy voters that may fail before the quorum is lost."`
	Leader    string                     `json:"leader" doc:"The node that orders transactions."`
	Voters    []string                   `json:"voters" doc:"Nodes that count in the quorum."`
	Servers   map[string]autopilotServer `json:"servers" doc:"Health by node."`
}

type autopilotServer struct {
	ID          string `json:"id" doc:"The node."`
	Name        string `json:"name" doc:"The node."`
	Address     string `json:"address" doc:"Its cluster address."`
	NodeStatus  string `json:"node_status" doc:"alive, or left when it isn't heard."`
	Status      string `json:"status" doc:"leader, voter or non-voter."`
	NodeType    string `json:"node_type" doc:"voter or non-voter."`
	Version     string `json:"version" doc:"What it runs."`
	LastContact string `json:"last_contact" doc:"How long ago it was heard."`
	LastTerm    uint64 `json:"last_term" doc:"Of its log."`
	LastIndex   uint64 `json:"last_index" doc:"Of its log."`
	Healthy     bool   `json:"healthy" doc:"It is heard and keeps up."`
	Unsealed    bool   `json:"unsealed" doc:"It serves requests."`
}

func (n *Node) autopilot(ctx context.Context) (*autopilotOutput, error) {
	state, err := n.State(ctx)
	if err != nil {
		return nil, err
	}
	out := &autopilotOutput{Healthy: state.Healthy, Tolerance: state.Tolerance, Leader: state.Leader, Voters: []string{},
		Servers: map[string]autopilotServer{}}
	for _, s := range state.Servers {
		x := autopilotServer{ID: s.NodeID, Name: s.NodeID, Address: s.Address, NodeStatus: "left", Status: "non-voter",
			NodeType: "non-voter", Version: s.Version, LastContact: s.LastContact.String(), LastTerm: s.LastTerm,
			LastIndex: s.LastIndex, Healthy: s.Healthy, Unsealed: s.Ready}
		if s.Healthy {
			x.NodeStatus = "alive"
		}
		if s.Voter {
			x.Status, x.NodeType = "voter", "voter"
			out.Voters = append(out.Voters, s.NodeID)
		}
		if s.Leader {
			x.Status = "leader"
		}
		out.Servers[s.NodeID] = x
	}
	return out, nil
}

// haNode is one node in the answer of sys/ha-status.
type haNode struct {
	Hostname       string `json:"hostname"`
	APIAddress     string `json:"api_address"`
	ClusterAddress string `json:"cluster_address"`
	ActiveNode     bool   `json:"active_node"`
	LastEcho       any    `json:"last_echo"`
	Version        string `json:"version"`
	UpgradeVersion string `json:"upgrade_version,omitempty"`
}

func (n *Node) haStatus(ctx context.Context) (*conclave.Response, error) {
	state, err := n.State(ctx)
	if err != nil {
		return nil, err
	}
	nodes, now := []haNode{}, n.Now()
	for _, s := range state.Servers {
		node := haNode{Hostname: s.NodeID, ClusterAddress: "https://" + s.Address, ActiveNode: s.Leader, Version: s.Version}
		for _, m := range n.Members() {
			if m.NodeID == s.NodeID {
				node.APIAddress = m.APIAddress
			}
		}
		if !s.Leader && s.LastContact >= 0 {
			node.LastEcho = now.Add(-s.LastContact).UTC().Format(time.RFC3339Nano)
		}
		nodes = append(nodes, node)
	}
	return &conclave.Response{Data: map[string]any{"nodes": nodes}, TopLevel: true}, nil
}

type membersOutput struct {
	Number  uint64         `json:"number" doc:"Of the list; each change has a higher one."`
	Signed  bool           `json:"signed" doc:"The list bears the cluster key's signature."`
	Members []memberOutput `json:"members" doc:"The nodes that belong to the cluster."`
}

type memberOutput struct {
	Member
	APIAddress string `json:"api_address" doc:"Where clients reach it."`
	Voter      bool   `json:"voter" doc:"It counts in the quorum."`
	Unsealed   bool   `json:"unsealed" doc:"It serves requests."`
	Leader     bool   `json:"leader" doc:"It orders transactions."`
}

func (n *Node) listMembers(context.Context) (*membersOutput, error) {
	out := &membersOutput{Members: []memberOutput{}}
	if l := n.roster.List(); l != nil {
		out.Number, out.Signed = l.Number, l.Signed()
	}
	leader := n.leaderID()
	for _, m := range n.Members() {
		out.Members = append(out.Members, memberOutput{Member: m, APIAddress: m.APIAddress, Voter: m.Voter, Unsealed: m.Ready, Leader: m.NodeID == leader})
	}
	return out, nil
}
