// Package gossip finds the nodes of a cluster. What it says is not trusted: it only tells where to ask.
package gossip

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"

	"conclave/cluster/disk"
	"conclave/cluster/roster"
)

// Limits of gossip.
const (
	gossipLeaveTimeout  = time.Second
	gossipUpdateTimeout = time.Nanosecond
	resolveTimeout      = 5 * time.Second
	reclaimTime         = time.Second // after which a node that failed may come back at another address
	maxGossiped         = 4 * roster.MaxMembers
)

// Meta is what a node tells about itself, as JSON. Nothing in it is trusted: it says where to ask.
type Meta struct {
	Cluster string `json:"c,omitempty"` // cluster id, "" while it has none
	Address string `json:"a"`
	API     string `json:"p,omitempty"`
	Ready   bool   `json:"r,omitempty"`
	Version string `json:"v,omitempty"`
}

// Options say who gossips, where.
type Options struct {
	NodeID  string
	Address string // to listen on, host:port, the host an address or a name; empty: gossip is off
	Secret  []byte // the cluster secret
	Logger  hclog.Logger
	OnNews  func() // called when a node comes, goes or changes; it must not block
}

// Gossip finds the other nodes. Its packets are encrypted with a key that comes from the cluster secret.
type Gossip struct {
	list   *memberlist.Memberlist
	nodeID string
	listen string // where it listens, "" if it is off
	onNews func() // called when a node comes, goes or changes
	logger hclog.Logger

	mu   sync.Mutex // guards what follows
	self Meta
	seen map[string]Meta // node id → what it says
}

var (
	_ memberlist.Delegate      = (*Gossip)(nil)
	_ memberlist.EventDelegate = (*Gossip)(nil)
)

// Start listens.
func Start(o Options, self Meta) (*Gossip, error) {
	g := &Gossip{nodeID: o.NodeID, self: self, seen: make(map[string]Meta), onNews: o.OnNews, logger: o.Logger.Named("gossip")}
	if o.Address == "" {
		return g, nil
	}
	key, err := hkdf.Key(sha256.New, o.Secret, nil, "conclave gossip v1", 32)
	if err != nil {
		return nil, err
	}
	host, portText, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	bind, advertise, err := addresses(host, self.Address)
	if err != nil {
		return nil, err
	}
	config := memberlist.DefaultLANConfig()
	config.Name, config.BindAddr, config.BindPort, config.AdvertisePort = o.NodeID, bind, int(port), int(port)
	config.AdvertiseAddr, config.DeadNodeReclaimTime = advertise, reclaimTime
	config.SecretKey, config.Label = key, "conclave"
	config.GossipVerifyIncoming, config.GossipVerifyOutgoing = true, true
	config.Delegate, config.Events = g, g
	config.Logger = log.New(g.logger.StandardWriter(&hclog.StandardLoggerOptions{InferLevels: true}), "", 0)
	if !o.Logger.IsError() {
		config.Logger = log.New(io.Discard, "", 0)
	}
	g.list, err = memberlist.Create(config)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.listen = g.list.LocalNode().Address() // it stays, and memberlist writes it anew with each update
	return g, nil
}

// addresses are the IP address to listen on, and the one that others are told, for memberlist knows no names. Where it
// listens on every address, others are told that of the cluster address; if that has none, which is no address that
// others could dial either, the choice is left to memberlist.
func addresses(host, clusterAddress string) (bind, advertise string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ip, err := resolve(ctx, host)
	if err != nil {
		return "", "", fmt.Errorf("gossip address: %w", err)
	}
	if !ip.IsUnspecified() {
		return ip.String(), "", nil
	}
	name, _, err := net.SplitHostPort(clusterAddress)
	if err != nil {
		return ip.String(), "", nil
	}
	if announced, err := resolve(ctx, name); err == nil && !announced.IsUnspecified() {
		advertise = announced.String()
	}
	return ip.String(), advertise, nil
}

// resolve is an address of host, one of IPv4 if there is one; an empty host means every address of this machine.
func resolve(ctx context.Context, host string) (netip.Addr, error) {
	if host == "" {
		return netip.IPv4Unspecified(), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, ip := range found {
		if ip.Unmap().Is4() {
			return ip.Unmap(), nil
		}
	}
	return found[0].Unmap(), nil
}

// Join contacts the given addresses and returns how many answered.
func (g *Gossip) Join(addresses []string) int {
	if g.list == nil || len(addresses) == 0 {
		return 0
	}
	n, err := g.list.Join(addresses)
	if err != nil {
		g.logger.Debug("join", "answered", n, "error", err)
	}
	return n
}

// Address is where this node's gossip listens, "" if it is off.
func (g *Gossip) Address() string { return g.listen }

// Update changes what this node says about itself.
func (g *Gossip) Update(change func(*Meta)) {
	g.mu.Lock()
	before := g.self
	change(&g.self)
	changed := before != g.self
	g.mu.Unlock()
	if changed && g.list != nil {
		// It waits for the next round, which nobody needs to; the error says that it did not.
		_ = g.list.UpdateNode(gossipUpdateTimeout)
	}
}

// Peers returns what the other nodes say, by node id.
func (g *Gossip) Peers() map[string]Meta {
	g.mu.Lock()
	defer g.mu.Unlock()
	peers := make(map[string]Meta, len(g.seen))
	for id, m := range g.seen {
		peers[id] = m
	}
	return peers
}

// Peer is what one other node says.
func (g *Gossip) Peer(nodeID string) (Meta, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.seen[nodeID]
	return m, ok
}

// Close leaves, so that peers don't have to find out, and stops.
func (g *Gossip) Close() {
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
func (g *Gossip) NodeMeta(limit int) []byte {
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
func decodeMeta(b []byte) (Meta, error) {
	var m Meta
	if len(b) > memberlist.MetaMaxSize {
		return m, fmt.Errorf("longer than %d bytes", memberlist.MetaMaxSize)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return Meta{}, err
	}
	if m.Address == "" || m.Cluster != "" && !disk.ValidClusterID(m.Cluster) {
		return Meta{}, fmt.Errorf("no address or a bad cluster id")
	}
	return m, nil
}

// NotifyJoin notes a node that came.
func (g *Gossip) NotifyJoin(n *memberlist.Node) { g.note(n) }

// NotifyUpdate notes a node that says something else now.
func (g *Gossip) NotifyUpdate(n *memberlist.Node) { g.note(n) }

func (g *Gossip) note(n *memberlist.Node) {
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
func (g *Gossip) NotifyLeave(n *memberlist.Node) {
	g.mu.Lock()
	delete(g.seen, n.Name)
	g.mu.Unlock()
	g.onNews()
}

// NotifyMsg ignores user messages: there are none.
func (*Gossip) NotifyMsg([]byte) {}

// GetBroadcasts has nothing to send.
func (*Gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has nothing to exchange.
func (*Gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what is exchanged.
func (*Gossip) MergeRemoteState([]byte, bool) {}
