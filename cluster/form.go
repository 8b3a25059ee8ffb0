package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"conclave/cluster/clock"
	"conclave/cluster/disk"
	"conclave/cluster/gossip"
	"conclave/cluster/port"
	"conclave/cluster/roster"
	"conclave/cluster/wire"
)

// Timings of forming.
const (
	formPause      = 250 * time.Millisecond
	lostPause      = time.Second     // while the node is in the configuration, but hears no leader
	formedPause    = 5 * time.Second // once the node is in the configuration, to notice when it isn't any more
	joinPause      = 2 * time.Second // between attempts to find others by gossip
	introduceLimit = 5 * time.Second
	maxRedirects   = 2
)

// form finds or founds the cluster, and keeps this node in it: in the list, in Raft's configuration, and at its present
// address in the contacts.
func (n *Node) form(ctx context.Context) {
	var joined time.Time
	for {
		if time.Since(joined) > joinPause && len(n.gossip.Peers()) < max(n.config.BootstrapExpect-1, 1) {
			joined = time.Now()
			n.gossip.Join(n.gossipSeeds())
		}
		pause := formPause
		err := n.formOnce(ctx)
		switch {
		case err != nil:
			n.logger.Debug("not in the cluster", "reason", err)
			if n.settled() {
				pause = lostPause
			}
		case n.settled():
			pause = formedPause
		}
		select {
		case <-ctx.Done():
			return
		case <-n.kick:
		case <-time.After(pause):
		}
	}
}

// kickForm has form look again at once: the gossip has news.
func (n *Node) kickForm() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// settled reports that, as far as this node has heard, Raft's configuration has it, and all know where it is.
func (n *Node) settled() bool {
	return n.book.Contacts().Nodes[n.id.NodeID] == n.contact() && slices.ContainsFunc(n.servers(), func(s raft.Server) bool {
		return s.ID == raft.ServerID(n.id.ServerID())
	})
}

// votes reports that this node is a voter, as far as it knows.
func (n *Node) votes() bool {
	return slices.ContainsFunc(n.servers(), func(s raft.Server) bool {
		return s.ID == raft.ServerID(n.id.ServerID()) && s.Suffrage == raft.Voter
	})
}

// errRemoved is for good: what this node's disk holds was given up, and only an empty one is admitted again.
var errRemoved = errors.New("this node was removed from the cluster")

func (n *Node) formOnce(ctx context.Context) error {
	if o := n.origin.Load(); o.Founding {
		return n.found(o.ClusterID)
	}
	if n.Removed() && n.raft.LastIndex() > 0 {
		return errRemoved
	}
	if n.settled() && n.InQuorum() {
		return nil
	}
	if n.clusterID() == "" && !n.mayFound() {
		return n.introduce(ctx)
	}
	if n.clusterID() == "" {
		return n.bootstrap(ctx)
	}
	return n.introduce(ctx)
}

// mayFound reports whether this node is the one to found the cluster: enough nodes are there, none knows of a cluster,
// and this one has the lowest id.
func (n *Node) mayFound() bool {
	peers := n.gossip.Peers()
	if len(peers)+1 < n.config.BootstrapExpect || len(n.config.Join) > 0 && n.config.BootstrapExpect == 1 && len(peers) == 0 {
		return false
	}
	for id, m := range peers {
		if m.Cluster != "" || id <= n.id.NodeID {
			return false
		}
	}
	return true
}

// bootstrap asks every node that gossips whether it knows of a cluster, for the gossip may be late, and founds one if all
// that are needed say no. Cluster time starts at the median of their clocks.
func (n *Node) bootstrap(ctx context.Context) error {
	walls := []int64{n.config.Wall().UnixNano()}
	for id, m := range n.gossip.Peers() {
		w, _, err := n.ask(ctx, m.Address, &wire.Introduction{Probe: true})
		if err != nil {
			n.logger.Debug("a node doesn't answer before the cluster is founded", "node", id, "error", err)
			continue
		}
		if w.GetReception() != wire.Reception_NO_CLUSTER {
			return errors.New("another node knows of a cluster")
		}
		walls = append(walls, w.GetWall())
	}
	if len(walls) < n.config.BootstrapExpect {
		return errors.New("too few nodes answer to found the cluster")
	}
	start, at := clock.Median(walls), n.mono()
	seed := func() int64 { return start + int64(n.mono()-at) }
	n.seed.Store(&seed)
	o := disk.Origin{ClusterID: disk.NewClusterID(), Founding: true}
	if err := o.Save(n.config.DataDir); err != nil {
		return err
	}
	n.origin.Store(&o)
	return n.found(o.ClusterID)
}

// found makes Raft's first configuration, of this node alone.
func (n *Node) found(clusterID string) error {
	own := raft.ServerID(n.id.ServerID())
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: own, Address: raftAddress(own)}}}).Error()
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) { // which says that it was done before a crash
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	o := disk.Origin{ClusterID: clusterID}
	if err := o.Save(n.config.DataDir); err != nil {
		return err
	}
	n.origin.Store(&o)
	n.logger.Info("founded cluster", "cluster", clusterID)
	n.gossip.Update(func(m *gossip.Meta) { m.Cluster = clusterID })
	return nil
}

// introduce asks to be in the list and in Raft's configuration, at whoever may know the leader.
func (n *Node) introduce(ctx context.Context) error {
	addresses := n.knownAddresses()
	if len(addresses) == 0 {
		return errors.New("no node of a cluster is known")
	}
	var errs []error
	for _, address := range addresses {
		done, err := n.introduceAt(ctx, address)
		if done {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// knownAddresses are those of the leader, if one is known, of nodes that gossip a cluster, and of the list's members.
func (n *Node) knownAddresses() []string {
	var found []string
	add := func(a string) {
		if a != "" && a != n.port.Advertised() && !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	if leader := n.leaderID(); leader != "" {
		a, _ := n.addressOf(leader)
		add(a)
	}
	own := n.clusterID()
	for _, m := range n.gossip.Peers() {
		if m.Cluster != "" && (own == "" || m.Cluster == own) {
			add(m.Address)
		}
	}
	if l := n.roster.List(); l != nil {
		for _, m := range l.Members {
			a, _ := n.addressOf(m.NodeID)
			add(a)
			add(n.book.Contacts().Nodes[m.NodeID].Cluster) // should the gossip be late
		}
	}
	return found
}

// introduceAt asks one node, and the leader that it names. done says that asking others won't help. A token is for
// nodes that come empty: it doesn't bring back what was removed with its disk.
func (n *Node) introduceAt(ctx context.Context, address string) (done bool, err error) {
	for range maxRedirects + 1 {
		i := &wire.Introduction{}
		if n.raft.LastIndex() == 0 {
			i.Token = n.config.AdmitToken
		}
		w, by, err := n.ask(ctx, address, i)
		if err != nil {
			return false, err
		}
		if err := n.learn(w, by); err != nil {
			return false, err
		}
		switch w.GetReception() {
		case wire.Reception_LISTED:
			continue // the same node, which now knows this one
		case wire.Reception_ADDED:
			return true, nil
		case wire.Reception_REFUSED:
			return true, fmt.Errorf("refused: %.200q", w.GetReason())
		case wire.Reception_ELSEWHERE:
			if w.GetLeaderAddress() == "" || w.GetLeaderAddress() == address || w.GetLeaderAddress() == n.port.Advertised() {
				return false, errors.New("the leader isn't known there")
			}
			address = w.GetLeaderAddress()
		default:
			return false, errors.New("no cluster there")
		}
	}
	return false, errors.New("sent from one node to the next")
}

// learn takes the cluster's id and list from an answer whose proof has been checked, by the node with that certificate key.
// The proof shows the cluster secret, which doesn't make anybody a member: a node that has a list without a signature
// changes it for what Raft or a member of that list says, nobody else, for shares go to who is listed.
func (n *Node) learn(w *wire.Welcome, by [sha256.Size]byte) error {
	if len(w.GetList()) == 0 {
		return nil
	}
	if own := n.roster.List(); own != nil && !own.Signed() {
		if _, listed := n.roster.Member(by); !listed {
			return nil
		}
	}
	l, err := roster.Decode(w.GetList())
	if err != nil {
		return err
	}
	own := n.clusterID()
	switch {
	case l.ClusterID != w.GetClusterId() || own != "" && own != l.ClusterID:
		return errors.New("the answer is of another cluster")
	case own == "" && l.Find(n.id.NodeID) == nil:
		return nil // not one of them yet, and free to found another
	}
	if own == "" {
		o := disk.Origin{ClusterID: l.ClusterID}
		if err := o.Save(n.config.DataDir); err != nil {
			return err
		}
		n.origin.Store(&o)
		n.logger.Info("joining cluster", "cluster", l.ClusterID)
	}
	if err := n.roster.Adopt(l); err != nil && !errors.Is(err, roster.ErrStale) {
		return err
	}
	if own == "" {
		n.gossip.Update(func(m *gossip.Meta) { m.Cluster = l.ClusterID })
	}
	return nil
}

// ask sends an introduction over a connection of its own, proves that this node knows the cluster secret, and has the
// other side prove it. by is the other side's certificate key.
func (n *Node) ask(ctx context.Context, address string, i *wire.Introduction) (w *wire.Welcome, by [sha256.Size]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, introduceLimit)
	defer cancel()
	conn, err := n.port.Introduce(ctx, address)
	if err != nil {
		return nil, by, err
	}
	defer conn.Close()
	once := make(chan net.Conn, 1)
	once <- conn
	client, err := grpc.NewClient("passthrough:///introduce", grpc.WithTransportCredentials(port.Handshaken{}), grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxIntroduction)),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection is used up")
			}
		}))
	if err != nil {
		return nil, by, err
	}
	defer client.Close()
	i.NodeId, i.ServerId, i.Address, i.ClusterId = n.id.NodeID, n.id.ServerID(), n.port.Advertised(), n.clusterID()
	i.Gossip, i.HpkePublic, i.AuditPublic = n.gossip.Address(), n.config.HPKEPublic, n.config.AuditPublic
	if l := n.roster.List(); l != nil {
		i.ListNumber = l.Number
	}
	if i.Proof, err = n.proof(conn, "asks", n.id.SPKI, conn.SPKI, i.NodeId, i.ServerId, i.Address); err != nil {
		return nil, by, err
	}
	w, err = wire.NewClusterClient(client).Introduce(ctx, i)
	if err != nil {
		return nil, by, err
	}
	want, err := n.proof(conn, "answers", n.id.SPKI, conn.SPKI, w.GetClusterId(), string(w.GetList()), w.GetLeaderAddress())
	if err != nil || !hmac.Equal(want, w.GetProof()) {
		return nil, by, errors.New("the node that answers doesn't know the cluster secret")
	}
	return w, conn.SPKI, nil
}

// maxIntroduction limits an introduction and its answer in bytes.
const maxIntroduction = roster.MaxBytes + 64<<10

// proof shows knowledge of the cluster secret, on one TLS channel, between two certificates, for what is said:
//
//	HMAC-SHA256(HKDF(secret, "conclave join v1"), SHA-256(role) ‖ SHA-256(exporter) ‖ SHA-256(asker's SPKI) ‖
//	SHA-256(answerer's SPKI) ‖ { SHA-256(part) } …)
func (n *Node) proof(conn *port.Conn, role string, asker, answerer [sha256.Size]byte, parts ...string) ([]byte, error) {
	state := conn.ConnectionState()
	exported, err := state.ExportKeyingMaterial("EXPORTER-conclave-join", nil, 32) // RFC 8446, 7.5
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, n.joinKey)
	for _, part := range append([]string{role, string(exported), string(asker[:]), string(answerer[:])}, parts...) {
		sum := sha256.Sum256([]byte(part))
		mac.Write(sum[:])
	}
	return mac.Sum(nil), nil
}
