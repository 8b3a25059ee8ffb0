package cluster

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

// Limits of gossip.
const (
	gossipLeaveTimeout  = time.Second
	gossipUpdateTimeout = 2 * time.Second
	maxGossiped         = 4 * maxNodes
)

// meta is what a node tells about itself, as JSON. Nothing in it is trusted: it says where to ask.
type meta struct {
	Cluster string `json:"c,omitempty"` // cluster id, "" while it has none
	Address string `json:"a"`
	API     string `json:"p,omitempty"`
	Ready   bool   `json:"r,omitempty"`
	Version string `json:"v,omitempty"`
}

// gossip finds the other nodes. Its packets are encrypted with a key that comes from the cluster secret.
type gossip struct {
	list   *memberlist.Memberlist
	nodeID string
	onNews func() // called when a node comes, goes or changes
	logger hclog.Logger

	mu   sync.Mutex // guards what follows
	self meta
	seen map[string]meta // node id → what it says
}

var (
	_ memberlist.Delegate      = (*gossip)(nil)
	_ memberlist.EventDelegate = (*gossip)(nil)
)

// startGossip listens and joins. It returns nil if gossip is switched off.
func startGossip(c *Config, nodeID string, self meta, onNews func()) (*gossip, error) {
	g := &gossip{nodeID: nodeID, self: self, seen: make(map[string]meta), onNews: onNews, logger: c.Logger.Named("gossip")}
	if c.GossipAddress == "" {
		return g, nil
	}
	key, err := hkdf.Key(sha256.New, c.Secret, nil, "conclave gossip v1", 32)
	if err != nil {
		return nil, err
	}
	host, portText, err := net.SplitHostPort(c.GossipAddress)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	config := memberlist.DefaultLANConfig()
	config.Name, config.BindAddr, config.BindPort, config.AdvertisePort = nodeID, host, int(port), int(port)
	config.SecretKey, config.Label = key, "conclave"
	config.GossipVerifyIncoming, config.GossipVerifyOutgoing = true, true
	config.Delegate, config.Events = g, g
	config.Logger = log.New(g.logger.StandardWriter(&hclog.StandardLoggerOptions{InferLevels: true}), "", 0)
	if !c.Logger.IsError() {
		config.Logger = log.New(io.Discard, "", 0)
	}
	g.list, err = memberlist.Create(config)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	return g, nil
}

// join contacts the given addresses and returns how many answered.
func (g *gossip) join(addresses []string) int {
	if g.list == nil || len(addresses) == 0 {
		return 0
	}
	n, err := g.list.Join(addresses)
	if err != nil {
		g.logger.Debug("join", "answered", n, "error", err)
	}
	return n
}

// address is where this node's gossip listens, "" if it is off.
func (g *gossip) address() string {
	if g.list == nil {
		return ""
	}
	return g.list.LocalNode().Address()
}

// update changes what this node says about itself.
func (g *gossip) update(change func(*meta)) {
	g.mu.Lock()
	before := g.self
	change(&g.self)
	changed := before != g.self
	g.mu.Unlock()
	if changed && g.list != nil {
		if err := g.list.UpdateNode(gossipUpdateTimeout); err != nil {
			g.logger.Debug("tell peers", "error", err)
		}
	}
}

// peers returns what the other nodes say, by node id.
func (g *gossip) peers() map[string]meta {
	g.mu.Lock()
	defer g.mu.Unlock()
	peers := make(map[string]meta, len(g.seen))
	for id, m := range g.seen {
		peers[id] = m
	}
	return peers
}

func (g *gossip) peer(nodeID string) (meta, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.seen[nodeID]
	return m, ok
}

// close leaves, so that peers don't have to find out, and stops.
func (g *gossip) close() {
	if g.list == nil {
		return
	}
	if err := g.list.Leave(gossipLeaveTimeout); err != nil {
		g.logger.Debug("leave", "error", err)
	}
	if err := g.list.Shutdown(); err != nil {
		g.logger.Debug("shut down", "error", err)
	}
}

// NodeMeta is what memberlist spreads.
func (g *gossip) NodeMeta(limit int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, err := json.Marshal(g.self)
	if err != nil || len(b) > limit {
		g.logger.Error("what this node says about itself is too long to gossip", "bytes", len(b), "limit", limit)
		return nil
	}
	return b
}

// decodeMeta reads what another node says.
func decodeMeta(b []byte) (meta, error) {
	var m meta
	if len(b) > memberlist.MetaMaxSize {
		return m, fmt.Errorf("longer than %d bytes", memberlist.MetaMaxSize)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return meta{}, err
	}
	if m.Address == "" || m.Cluster != "" && !validClusterID(m.Cluster) {
		return meta{}, fmt.Errorf("no address or a bad cluster id")
	}
	return m, nil
}

// NotifyJoin notes a node that came.
func (g *gossip) NotifyJoin(n *memberlist.Node) { g.note(n) }

// NotifyUpdate notes a node that says something else now.
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.note(n) }

func (g *gossip) note(n *memberlist.Node) {
	if n.Name == g.nodeID {
		return
	}
	m, err := decodeMeta(n.Meta)
	if err != nil {
		g.logger.Warn("ignored what a node says", "node", n.Name, "error", err)
		return
	}
	g.mu.Lock()
	if _, known := g.seen[n.Name]; known || len(g.seen) < maxGossiped {
		g.seen[n.Name] = m
	}
	g.mu.Unlock()
	g.onNews()
}

// NotifyLeave forgets a node that went.
func (g *gossip) NotifyLeave(n *memberlist.Node) {
	g.mu.Lock()
	delete(g.seen, n.Name)
	g.mu.Unlock()
	g.onNews()
}

// NotifyMsg ignores user messages: there are none.
func (*gossip) NotifyMsg([]byte) {}

// GetBroadcasts has nothing to send.
func (*gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has nothing to exchange.
func (*gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what is exchanged.
func (*gossip) MergeRemoteState([]byte, bool) {}
