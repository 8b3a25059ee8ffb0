package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave/cluster/ordering"
	"conclave/cluster/roster"
)

// Config is what a node is started with. Zero values take the defaults that the fields state.
type Config struct {
	// NodeID names the node for good: 1 to 64 of a-z, 0-9, '.', '_' and '-'. Default: chosen at random once and kept.
	NodeID string
	// DataDir holds the log, the node's identity and its pinned list of members. It belongs to one process.
	DataDir string
	// ClusterAddress is where the node listens for its peers, host:port.
	ClusterAddress string
	// AdvertiseAddress is what peers dial. Default: the address listened on.
	AdvertiseAddress string
	// GossipAddress is where membership gossip listens (TCP and UDP), host:port. Empty switches gossip off, which only
	// a cluster of one can be formed without.
	GossipAddress string
	// APIAddress is what peers tell clients about this node; the cluster itself doesn't use it.
	APIAddress string
	// Join are gossip addresses of other nodes.
	Join []string
	// Secret is the cluster secret, 16 bytes or more, equal on all nodes.
	Secret []byte
	// BootstrapExpect is how many nodes form the cluster. Default 1.
	BootstrapExpect int
	// AdmitToken is the single-use token of a node that joins a formed cluster.
	AdmitToken string
	// Version is this build's version, told to peers.
	Version string
	// LogStore is "wal" (default) or "bolt".
	LogStore string
	// HPKEPublic and AuditPublic are this node's public keys for its entry in the list of members.
	HPKEPublic, AuditPublic []byte
	// CertificateFile, KeyFile and CAFile, given together, make nodes present certificates of an authority; these must
	// then hold beside the list. Default: a self-signed certificate made at the first start.
	CertificateFile, KeyFile, CAFile string
	// Reserve is the free space in bytes on DataDir's file system below which this node proposes nothing and won't be the
	// leader if another can; below half of it the node takes no entries from others either. Default: 64 MiB.
	Reserve uint64
	// CommitTimeout bounds how late followers learn of a commit. Default 5 ms, at least 1 ms.
	CommitTimeout time.Duration
	// Pipeline is how many Raft entries the leader has under way at once, 1 to 8. Default 1: what
	// comes meanwhile shares the next one.
	Pipeline int
	// Logger gets what operators should know. Default: discarded.
	Logger hclog.Logger
	// Wall is this machine's wall clock. Default time.Now.
	Wall func() time.Time
	// Dial opens a connection to a peer. Default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Free is how many bytes are free where DataDir is. Default: what the file system says.
	Free func(dir string) (uint64, error)
	// Observer is told of commits for metrics. Default: none.
	Observer Observer
	// Fatal is called once when the node can't go on without risking what it acknowledged, such as after a failed fsync.
	// Default: panic, which ends the process.
	Fatal func(error)
}

// Limits of configuration.
const (
	minSecretBytes = 16
	maxJoin        = 64 // addresses to join
)

// settle fills the defaults and reports what can't be right.
func (c *Config) settle() error {
	if c.BootstrapExpect == 0 {
		c.BootstrapExpect = 1
	}
	if c.LogStore == "" {
		c.LogStore = "wal"
	}
	if c.CommitTimeout == 0 {
		c.CommitTimeout = 5 * time.Millisecond
	}
	if c.Pipeline == 0 {
		c.Pipeline = 1
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Wall == nil {
		c.Wall = time.Now
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(fmt.Sprintf("cluster: %v", err)) }
	}
	files := 0
	for _, f := range []string{c.CertificateFile, c.KeyFile, c.CAFile} {
		if f != "" {
			files++
		}
	}
	switch {
	case c.DataDir == "":
		return errors.New("a data directory is needed")
	case c.NodeID != "" && !roster.ValidNodeID(c.NodeID):
		return errors.New("a node id is 1 to 64 of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit")
	case c.ClusterAddress == "":
		return errors.New("a cluster address is needed")
	case len(c.Secret) < minSecretBytes:
		return fmt.Errorf("the cluster secret needs at least %d bytes", minSecretBytes)
	case c.BootstrapExpect < 1 || c.BootstrapExpect > roster.MaxMembers:
		return fmt.Errorf("bootstrap_expect is 1 to %d", roster.MaxMembers)
	case c.GossipAddress == "" && (c.BootstrapExpect > 1 || len(c.Join) > 0):
		return errors.New("forming or joining a cluster of several nodes needs a gossip address")
	case len(c.Join) > maxJoin:
		return fmt.Errorf("at most %d addresses to join", maxJoin)
	case c.LogStore != "wal" && c.LogStore != "bolt":
		return fmt.Errorf("log store %q is neither wal nor bolt", c.LogStore)
	case c.CommitTimeout < time.Millisecond || c.CommitTimeout > time.Second:
		return errors.New("the commit timeout is 1 ms to 1 s")
	case c.Pipeline < 1 || c.Pipeline > ordering.MaxPipeline:
		return fmt.Errorf("the pipeline is 1 to %d entries", ordering.MaxPipeline)
	case files != 0 && files != 3:
		return errors.New("certificate, key and CA file go together")
	}
	return nil
}
