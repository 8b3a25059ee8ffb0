// Package overview shows the cluster: its servers, their health, and the list of members, as sys/ routes.
//
// It changes nothing, and knows no more than the node tells any member.
package overview

import (
	"context"
	"time"

	"conclave"
	"conclave/cluster/roster"
)

// Node is what the overview is made from.
type Node interface {
	State(ctx context.Context) (State, error)
	Members() []roster.Member
	Leader() (roster.Member, bool)
	ListNumber() uint64
	MembersSigned() bool
	Now() time.Time
}

// State is the cluster as its leader sees it.
type State struct {
	ClusterID string   `json:"cluster_id"`
	Leader    string   `json:"leader"` // node id
	Term      uint64   `json:"term"`
	Healthy   bool     `json:"healthy"`   // every server is
	Tolerance int      `json:"tolerance"` // how many healthy voters may fail before the quorum is lost
	Servers   []Server `json:"servers"`
}

// Server is one server of Raft's configuration.
type Server struct {
	NodeID      string        `json:"node_id"`
	ServerID    string        `json:"server_id"`
	Address     string        `json:"address"`
	Voter       bool          `json:"voter"`
	Leader      bool          `json:"leader"`
	Healthy     bool          `json:"healthy"`
	Ready       bool          `json:"ready"`        // unsealed
	LastContact time.Duration `json:"last_contact"` // since its last beat; negative if there was none
	LastTerm    uint64        `json:"last_term"`
	LastIndex   uint64        `json:"last_index"`
	Version     string        `json:"version"`
}

// overview answers for one node.
type overview struct {
	n       Node
	applied func() uint64 // the index that this node has applied
}

// Routes are the operations under sys/ that show the cluster as n sees it.
func Routes(n Node, applied func() uint64) []conclave.Route {
	o := overview{n, applied}
	return []conclave.Route{
		found(conclave.ReadRoute(conclave.Read, "storage/raft/configuration", "The servers of Raft's configuration.", prepared[configurationOutput]), o.configuration),
		found(conclave.ReadRoute(conclave.Read, "storage/raft/autopilot/state", "The health of the cluster as its leader sees it.", prepared[autopilotOutput]), o.autopilot),
		found(conclave.ReadRoute(conclave.Read, "ha-status", "The nodes of the cluster.", prepared[conclave.Response]), o.haStatus),
		found(conclave.ReadRoute(conclave.Read, "members", "The list of members and what is known of each.", prepared[membersOutput]), o.members),
	}
}

// found makes a route answer what find learns from outside the transaction.
func found[T any](r conclave.Route, find func(context.Context) (*T, error)) conclave.Route {
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

func (o overview) configuration(context.Context) (*configurationOutput, error) {
	out := &configurationOutput{configuration{Servers: []configuredServer{}, Index: o.applied()}}
	leader, _ := o.n.Leader()
	for _, m := range o.n.Members() {
		if m.ServerID == "" {
			continue
		}
		out.Config.Servers = append(out.Config.Servers, configuredServer{NodeID: m.NodeID, Address: m.Address,
			Leader: m.NodeID == leader.NodeID, ProtocolVersion: "3", Voter: m.Voter})
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

func (o overview) autopilot(ctx context.Context) (*autopilotOutput, error) {
	state, err := o.n.State(ctx)
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

func (o overview) haStatus(ctx context.Context) (*conclave.Response, error) {
	state, err := o.n.State(ctx)
	if err != nil {
		return nil, err
	}
	nodes, now := []haNode{}, o.n.Now()
	for _, s := range state.Servers {
		node := haNode{Hostname: s.NodeID, ClusterAddress: "https://" + s.Address, ActiveNode: s.Leader, Version: s.Version}
		for _, m := range o.n.Members() {
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
	roster.Member
	APIAddress string `json:"api_address" doc:"Where clients reach it."`
	Voter      bool   `json:"voter" doc:"It counts in the quorum."`
	Unsealed   bool   `json:"unsealed" doc:"It serves requests."`
	Leader     bool   `json:"leader" doc:"It orders transactions."`
}

func (o overview) members(context.Context) (*membersOutput, error) {
	out := &membersOutput{Members: []memberOutput{}}
	out.Number, out.Signed = o.n.ListNumber(), o.n.MembersSigned()
	leader, _ := o.n.Leader()
	for _, m := range o.n.Members() {
		out.Members = append(out.Members, memberOutput{Member: m, APIAddress: m.APIAddress, Voter: m.Voter, Unsealed: m.Ready, Leader: m.NodeID == leader.NodeID})
	}
	return out, nil
}
