package cluster

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"google.golang.org/grpc"

	"conclave/cluster/agreement"
	"conclave/cluster/clock"
	"conclave/cluster/disk"
	"conclave/cluster/gossip"
	"conclave/cluster/health"
	"conclave/cluster/ordering"
	"conclave/cluster/port"
	"conclave/cluster/roster"
	"conclave/cluster/wire"
	"conclave/fsm"
)

// Raft's timings and limits. A dead leader is noticed within heartbeatTimeout to twice that, and replaced within about
// electionTimeout more.
const (
	heartbeatTimeout = 400 * time.Millisecond
	electionTimeout  = 400 * time.Millisecond
	leaseTimeout     = 300 * time.Millisecond
	raftIOTimeout    = 3 * time.Second
	raftPool         = 3
	raftInFlight     = 3  // append requests per follower
	maxAppendEntries = 16 // per append request: 8 MiB of full entries
	notifyBuffer     = 64
)

// Node is this node's part in the cluster. Its methods are safe for concurrent use.
type Node struct {
	config   Config
	logger   hclog.Logger
	id       *disk.Identity
	fsm      *fsm.FSM
	raft     *raft.Raft
	logs     *disk.Log
	guard    *disk.Guard
	stable   *raftboltdb.BoltStore
	roster   *roster.Roster
	book     *roster.Book
	port     *port.Port
	network  *raft.NetworkTransport
	gossip   *gossip.Gossip
	peers    *port.Peers
	server   *grpc.Server
	order    *ordering.Order
	sender   *ordering.Sender
	clock    *clock.Clock
	checker  *agreement.Checker
	stalls   atomic.Uint64
	health   *health.Health
	quorum   *health.Quorum
	joinKey  []byte
	started  time.Time
	origin   atomic.Pointer[disk.Origin]
	ready    atomic.Bool
	refusal  atomic.Pointer[error] // why this node doesn't serve any more
	signer   atomic.Pointer[signer]
	seed     atomic.Pointer[func() int64] // cluster time by the clocks of those present when the cluster was founded
	notify   chan bool                    // from Raft: leadership gained or lost
	kick     chan struct{}
	handling chan struct{}
	joining  chan struct{}   // held by the one introduction that changes the list
	ctx      context.Context // ends with Shutdown; the parent of every goroutine's
	cancel   context.CancelFunc
	tasks    sync.WaitGroup // every goroutine of the node
	shutdown sync.Once

	mu       sync.Mutex // guards what follows
	handlers map[string]Handler
	chores   []chore
	term     *termWork // while leading
	news     chan struct{}
}

// Start runs the node until Shutdown. ctx bounds the start only. The state machine must be open, and stays open: its
// owner closes it after Shutdown.
func Start(ctx context.Context, config Config, state *fsm.FSM) (_ *Node, err error) {
	if err := config.settle(); err != nil {
		return nil, fmt.Errorf("start cluster node: %w", err)
	}
	n := &Node{config: config, logger: config.Logger, fsm: state, started: time.Now(),
		notify: make(chan bool, notifyBuffer), kick: make(chan struct{}, 1), handling: make(chan struct{}, maxHandling),
		joining: make(chan struct{}, 1), handlers: make(map[string]Handler), news: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.clock = clock.New(n.mono)
	n.health = health.New(n.mono)
	n.quorum = health.NewQuorum()
	defer func() {
		if err != nil {
			err = fmt.Errorf("start cluster node: %w", errors.Join(err, n.Shutdown()))
		}
	}()
	if n.joinKey, err = hkdf.Key(sha256.New, config.Secret, nil, "conclave join v1", 32); err != nil {
		return nil, err
	}
	if err := n.openDisk(); err != nil {
		return nil, err
	}
	if err := n.openNetwork(); err != nil {
		return nil, err
	}
	if err := n.openRaft(); err != nil {
		return nil, err
	}
	n.openOrder()
	n.registerHandlers()
	if err := n.openChecker(); err != nil {
		return nil, err
	}
	n.run()
	n.logger.Info("this node", "node_id", n.id.NodeID, "tls_public", base64.StdEncoding.EncodeToString(n.id.SPKI[:]))
	return n, ctx.Err()
}

// openDisk locks the data directory and opens what is in it.
func (n *Node) openDisk() (err error) {
	if n.id, err = disk.Open(&disk.Options{Dir: n.config.DataDir, NodeID: n.config.NodeID,
		CertificateFile: n.config.CertificateFile, KeyFile: n.config.KeyFile, CAFile: n.config.CAFile}); err != nil {
		return err
	}
	o, err := disk.LoadOrigin(n.config.DataDir)
	if err != nil {
		return err
	}
	n.origin.Store(&o)
	if n.roster, err = roster.Open(n.config.DataDir); err != nil {
		return err
	}
	if n.book, err = roster.OpenBook(n.config.DataDir); err != nil {
		n.logger.Warn("where the members were last is not known", "error", err)
	}
	dir := n.id.RaftDir
	if n.logs, err = disk.OpenLog(dir, n.config.LogStore, n.logger.Named("log"), n.config.Fatal); err != nil {
		return err
	}
	n.guard = disk.NewGuard(n.config.DataDir, n.config.Reserve, n.config.Free, n.mono)
	n.logs.KeepRoom(n.guard.Room)
	n.stable, err = raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "stable.db")})
	if err != nil {
		return fmt.Errorf("open raft stable store: %w", err)
	}
	return n.renameForgetful()
}

// renameForgetful gives the disk a new id if Raft has voted here but its log is gone: under its old id this node could
// deny what it has acknowledged. A log may be empty and whole if a snapshot has taken its place.
func (n *Node) renameForgetful() error {
	used, err := n.logs.Used()
	if err != nil {
		return err
	}
	last, err := n.logs.LastIndex()
	if err != nil {
		return err
	}
	snapshots, err := n.fsm.Snapshots().List()
	if err != nil {
		return err
	}
	term, err := n.stable.GetUint64([]byte("CurrentTerm"))
	if voted := err == nil && term > 0; voted && last == 0 && (!used || len(snapshots) == 0) {
		n.logger.Warn("the raft log is empty although this node has voted; it comes back as a new server")
		if err := n.id.RenameDisk(); err != nil {
			return err
		}
	}
	if used {
		return nil
	}
	return n.logs.Use()
}

func (n *Node) openNetwork() (err error) {
	n.port, err = port.Listen(n.id, n.roster, port.Options{Address: n.config.ClusterAddress, Advertise: n.config.AdvertiseAddress,
		Dial: n.config.Dial, ClusterID: n.clusterID, Logger: n.logger})
	if err != nil {
		return err
	}
	n.peers = port.NewPeers(n.port, ordering.MaxMessage, n.addressOf)
	self := gossip.Meta{Cluster: n.clusterID(), Address: n.port.Advertised(), API: n.config.APIAddress, Version: n.config.Version}
	n.gossip, err = gossip.Start(gossip.Options{NodeID: n.id.NodeID, Address: n.config.GossipAddress, Secret: n.config.Secret,
		Logger: n.logger, OnNews: n.kickForm}, self)
	if err != nil {
		return err
	}
	n.server = n.newServer()
	return nil
}

func (n *Node) openRaft() (err error) {
	logger := n.logger.Named("raft")
	n.network = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: n, Logger: logger, Stream: n.port.Raft(), MaxPool: raftPool,
		MaxRPCsInFlight: raftInFlight, Timeout: raftIOTimeout, MsgpackUseNewTimeFormat: true})
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id.ServerID())
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = heartbeatTimeout, electionTimeout, leaseTimeout
	c.CommitTimeout = n.config.CommitTimeout
	c.MaxAppendEntries = maxAppendEntries
	c.ShutdownOnRemove = false
	c.SnapshotThreshold, c.SnapshotInterval = 1<<40, 24*time.Hour // by bytes instead: see keepLogShort
	c.NoSnapshotRestoreOnStart, c.NoLegacyTelemetry = true, true
	c.NotifyCh, c.Logger = n.notify, logger
	network := port.NewTransport(n.network, n.ctx.Done(), func(id raft.ServerID) <-chan struct{} { return n.health.NoRoom(disk.NodeOf(string(id))) })
	n.raft, err = raft.NewRaft(c, n.fsm, n.logs, n.stable, n.fsm.Snapshots(), network)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	return nil
}

// refusalReport is the least time between two messages that proposals are refused.
const refusalReport = 10 * time.Second

func (n *Node) openOrder() {
	var said time.Duration // when it was last said that proposals are refused; the order's goroutine alone asks
	n.order = ordering.NewOrder(ordering.OrderOptions{Raft: n.raft, FSM: n.fsm, Stamp: n.clock.Next, Pipeline: n.config.Pipeline,
		Guard: func() error {
			if err := n.Refused(); err != nil {
				return err
			}
			if n.fsm.AuditFull() {
				return errAuditFull
			}
			err := n.room()
			if now := n.mono(); err != nil && (said == 0 || now-said >= refusalReport) {
				said = now
				n.logger.Error("proposals are refused", "error", err)
			}
			return err
		}})
	n.sender = ordering.NewSender(ordering.SenderOptions{NodeID: n.id.NodeID, FSM: n.fsm, Order: n.order, Leader: n.leaderID,
		News: n.leaderNews, Lost: n.quorum.Lost, Full: func() bool { return n.guard.Check() != nil }, Observer: n.config.Observer,
		Stream: func(ctx context.Context, leader string) (wire.Cluster_CommitClient, error) {
			client, err := n.peers.Client(leader)
			if err != nil {
				return nil, err
			}
			return client.Commit(n.outgoing(ctx))
		}})
}

// run starts the node's goroutines. All end with ctx.
func (n *Node) run() {
	observed := make(chan raft.Observation, notifyBuffer)
	n.raft.RegisterObserver(raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	n.spawn(func() { n.server.Serve(n.port.GRPC()) }) // ends with server.Stop
	n.spawn(func() { n.order.Run(n.ctx) })
	n.spawn(n.order.Finish) // ends with order.Run
	n.spawn(func() { n.sender.Run(n.ctx) })
	n.spawn(func() { n.watchLeadership(n.ctx) })
	n.spawn(func() { n.watchLeader(n.ctx, observed) })
	n.spawn(func() { n.watchQuorum(n.ctx) })
	n.spawn(func() { n.watchMembers(n.ctx) })
	n.spawn(func() { n.beat(n.ctx) })
	n.spawn(func() { n.form(n.ctx) })
	n.spawn(func() { n.keepLogShort(n.ctx) })
	n.spawn(func() { n.settleWhenQuiet(n.ctx) })
	n.spawn(func() { n.checker.Run(n.ctx) })
}

func (n *Node) spawn(f func()) {
	n.tasks.Add(1)
	go func() {
		defer n.tasks.Done()
		f()
	}()
}

// Shutdown stops the node and waits for all it has started. What is under way ends with Unknown. It may be called more
// than once.
func (n *Node) Shutdown() error {
	var errs []error
	n.shutdown.Do(func() {
		n.cancel()
		if n.gossip != nil {
			n.gossip.Close()
		}
		if n.raft != nil {
			errs = append(errs, n.raft.Shutdown().Error())
		}
		if n.server != nil {
			n.server.Stop()
		}
		if n.peers != nil {
			n.peers.Close()
		}
		if n.network != nil {
			errs = append(errs, n.network.Close())
			n.network.CloseStreams()
		}
		if n.port != nil {
			n.port.Close()
		}
		n.tasks.Wait()
		for _, c := range []io.Closer{closer(n.logs), closer(n.stable)} {
			if c != nil {
				errs = append(errs, c.Close())
			}
		}
		if n.id != nil {
			n.id.Close()
		}
	})
	return errors.Join(errs...)
}

// closer is nil for a nil pointer.
func closer[T any, P interface {
	*T
	io.Closer
}](p P) io.Closer {
	if p == nil {
		return nil
	}
	return p
}

// mono is a clock that no administrator sets: the time since this node started.
func (n *Node) mono() time.Duration { return time.Since(n.started) }

func (n *Node) clusterID() string { return n.origin.Load().ClusterID }

// ClusterID is the id of the cluster that this node belongs to, "" while there is none.
func (n *Node) ClusterID() string { return n.clusterID() }

// Address is where peers reach this node.
func (n *Node) Address() string { return n.port.Advertised() }

// GossipAddress is where this node's gossip listens, "" if it is off.
func (n *Node) GossipAddress() string { return n.gossip.Address() }

// leaderID is the node id of the leader, "" if none is known.
func (n *Node) leaderID() string {
	_, id := n.raft.LeaderWithID()
	return disk.NodeOf(string(id))
}

// leaderNews is closed when another leader is known, or none.
func (n *Node) leaderNews() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.news
}

func (n *Node) watchLeader(ctx context.Context, observed <-chan raft.Observation) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-observed:
		}
		n.mu.Lock()
		close(n.news)
		n.news = make(chan struct{})
		n.mu.Unlock()
		n.sender.LeaderChanged(n.leaderID())
	}
}

// servers is Raft's newest configuration.
func (n *Node) servers() []raft.Server {
	if n.raft == nil {
		return nil
	}
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}
