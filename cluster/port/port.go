// Package port is a node's one TLS port, which Raft and gRPC share, and its connections to the other nodes.
package port

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave/cluster/disk"
	"conclave/cluster/roster"
)

// Limits of the cluster port.
const (
	dialTimeout       = 3 * time.Second
	keepAlive         = 15 * time.Second
	handshakeTimeout  = 5 * time.Second
	maxHandshakes     = 64  // at once; more wait to be accepted
	maxStrangers      = 16  // open connections of nodes that aren't members
	maxConnections    = 512 // open connections in all
	maxClusterID      = 32  // bytes, in a preamble
	maxNodeID         = 64  // bytes, in a preamble
	maxServerID       = 128 // bytes, in a preamble
	protocolRaft      = "conclave-raft"
	protocolGRPC      = "h2"
	acceptRetryPause  = 20 * time.Millisecond
	acceptBacklogSize = 16
)

// Port is the one TLS 1.3 port of a node. Raft and gRPC share it by ALPN. Both ends present a certificate; whose
// it is, the roster says. A node that is in no list gets a gRPC connection on which it may only introduce itself.
//
// A Raft connection starts with a preamble of its client, so that an id that isn't the certificate's is refused, and so
// that a node whose disk was lost isn't taken for the server that it was: what that one acknowledged it may deny.
//
//	length (1) ‖ cluster id ‖ length (1) ‖ client's node id ‖ length (1) ‖ Raft server id that is meant
type Port struct {
	id        *disk.Identity
	roster    *roster.Roster
	clusterID func() string // "" while there is none
	dial      func(ctx context.Context, address string) (net.Conn, error)
	listener  net.Listener
	advertise string
	logger    hclog.Logger
	raft      *queueListener
	grpc      *queueListener
	ctx       context.Context
	cancel    context.CancelFunc
	tasks     sync.WaitGroup // the accept loop and handshakes; ended by Close

	mu    sync.Mutex // guards conns
	conns map[*Conn]struct{}
}

// Conn is a connection whose other end is known by its certificate.
type Conn struct {
	*tls.Conn
	SPKI     [sha256.Size]byte // of the other end's certificate
	NodeID   string            // of the other end, "" for a stranger
	owner    *Port
	outgoing bool
}

// Close ends the connection and forgets it.
func (c *Conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.conns, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// ErrClosed is what a closed port gives.
var ErrClosed = errors.New("the node is shutting down")

// Options say where the port is.
type Options struct {
	Address   string                                                      // to listen on, host:port
	Advertise string                                                      // what peers dial; default: the address listened on
	Dial      func(ctx context.Context, address string) (net.Conn, error) // default: TCP
	ClusterID func() string                                               // "" while there is none
	Logger    hclog.Logger
}

// Listen opens the port. It serves until Close.
func Listen(id *disk.Identity, r *roster.Roster, o Options) (*Port, error) {
	if o.Dial == nil {
		dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on cluster address: %w", err)
	}
	t := &Port{id: id, roster: r, clusterID: o.ClusterID, dial: o.Dial, listener: listener, advertise: o.Advertise,
		logger: o.Logger.Named("transport"), conns: make(map[*Conn]struct{})}
	if t.advertise == "" {
		t.advertise = listener.Addr().String()
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	addr := advertised(t.advertise)
	t.raft, t.grpc = newQueueListener(addr), newQueueListener(addr)
	r.Watch(t.cutOff)
	t.tasks.Add(1)
	go t.accept()
	return t, nil
}

// Advertised is what peers dial.
func (t *Port) Advertised() string { return t.advertise }

// GRPC listens for gRPC connections, whose other end may be a stranger.
func (t *Port) GRPC() net.Listener { return t.grpc }

// Raft is the stream layer for Raft, between members only.
func (t *Port) Raft() raft.StreamLayer { return &streamLayer{t.raft, t} }

// Close ends the port, all its connections, and its goroutines.
func (t *Port) Close() {
	t.cancel()
	t.listener.Close()
	t.raft.Close()
	t.grpc.Close()
	for _, c := range t.open() {
		c.Close()
	}
	t.tasks.Wait()
}

func (t *Port) open() []*Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	open := make([]*Conn, 0, len(t.conns))
	for c := range t.conns {
		open = append(open, c)
	}
	return open
}

// cutOff closes the connections of those whom a new list no longer has.
func (t *Port) cutOff(now *roster.Trust) {
	for _, c := range t.open() {
		if c.NodeID != "" && !now.Has(c.SPKI) {
			t.logger.Warn("removed node cut off", "node", c.NodeID)
			c.NetConn().Close() // first, so that Close doesn't wait to say goodbye
			c.Close()
		}
	}
}

func (t *Port) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{t.id.Cert},
		NextProtos:   protocols,
		// Hybrids only: a recorded session stays closed to a later quantum computer.
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // the key is matched in VerifyConnection; names and dates mean nothing
		SessionTicketsDisabled: true,
	}
}

// verify finds out who the other end is. Strangers pass with an empty node id.
func (t *Port) verify(s tls.ConnectionState) (spki [sha256.Size]byte, nodeID string, err error) {
	if len(s.PeerCertificates) == 0 {
		return spki, "", errors.New("no certificate")
	}
	leaf := s.PeerCertificates[0]
	spki = sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	if t.id.Roots != nil {
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: t.id.Roots, Intermediates: between,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			return spki, "", errors.New("certificate isn't of the configured authority")
		}
	}
	m, _ := t.roster.Member(spki)
	return spki, m.NodeID, nil
}

func (t *Port) accept() {
	defer t.tasks.Done()
	slots := make(chan struct{}, maxHandshakes)
	for {
		select {
		case slots <- struct{}{}:
		case <-t.ctx.Done():
			return
		}
		conn, err := t.listener.Accept()
		if err != nil {
			<-slots
			if t.ctx.Err() != nil {
				return
			}
			t.logger.Warn("accept failed", "error", err)
			select {
			case <-time.After(acceptRetryPause):
			case <-t.ctx.Done():
			}
			continue
		}
		t.tasks.Add(1)
		go func() {
			defer t.tasks.Done()
			defer func() { <-slots }()
			if err := t.receive(conn); err != nil {
				conn.Close()
				t.logger.Debug("connection refused", "error", err)
			}
		}()
	}
}

// receive shakes hands and hands the connection to whom it is for.
func (t *Port) receive(conn net.Conn) error {
	ctx, cancel := context.WithTimeout(t.ctx, handshakeTimeout)
	defer cancel()
	config := t.tlsConfig(protocolRaft, protocolGRPC)
	config.VerifyConnection = func(s tls.ConnectionState) error {
		_, nodeID, err := t.verify(s)
		if err == nil && nodeID == "" && s.NegotiatedProtocol != protocolGRPC {
			err = errors.New("not a member")
		}
		return err
	}
	secure := tls.Server(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	state := secure.ConnectionState()
	spki, nodeID, err := t.verify(state)
	if err != nil {
		return err
	}
	peer := &Conn{Conn: secure, owner: t, SPKI: spki, NodeID: nodeID}
	if err := t.admit(peer); err != nil {
		return err
	}
	to := t.grpc
	if state.NegotiatedProtocol == protocolRaft {
		to = t.raft
		err = t.readPreamble(peer)
	} else if state.NegotiatedProtocol != protocolGRPC {
		err = errors.New("no common protocol")
	}
	if err == nil {
		err = to.put(peer)
	}
	if err != nil {
		peer.Close()
	}
	return err
}

// admit counts a new connection, and checks once more that it is listed, for the list may have changed meanwhile.
func (t *Port) admit(c *Conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	strangers := 0
	for other := range t.conns {
		if other.NodeID == "" && !other.outgoing {
			strangers++
		}
	}
	switch {
	case t.ctx.Err() != nil:
		return ErrClosed
	case len(t.conns) >= maxConnections, c.NodeID == "" && !c.outgoing && strangers >= maxStrangers:
		return errors.New("too many connections")
	}
	t.conns[c] = struct{}{}
	if c.NodeID == "" {
		return nil
	}
	if _, listed := t.roster.Member(c.SPKI); !listed {
		delete(t.conns, c)
		return errors.New("not a member any more")
	}
	return nil
}

func (t *Port) readPreamble(c *Conn) error {
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	cluster, node, server, err := parsePreamble(c)
	if err != nil {
		return err
	}
	if id := t.clusterID(); id == "" || cluster != id {
		return errors.New("the peer is of another cluster")
	}
	if node != c.NodeID {
		return errors.New("the peer's node id isn't its certificate's")
	}
	if server != t.id.ServerID() {
		return errors.New("the peer means the server that this node was before it lost its disk")
	}
	return c.SetDeadline(time.Time{})
}

// preamble is what a Raft connection starts with; see Port.
func preamble(cluster, node, server string) []byte {
	b := make([]byte, 0, 3+len(cluster)+len(node)+len(server))
	for _, part := range [...]string{cluster, node, server} {
		b = append(append(b, byte(len(part))), part...)
	}
	return b
}

func parsePreamble(r io.Reader) (cluster, node, server string, err error) {
	var parts [3]string
	for i, limit := range [...]int{maxClusterID, maxNodeID, maxServerID} {
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return "", "", "", err
		}
		if int(n[0]) > limit {
			return "", "", "", errors.New("preamble is too long")
		}
		b := make([]byte, n[0])
		if _, err := io.ReadFull(r, b); err != nil {
			return "", "", "", err
		}
		parts[i] = string(b)
	}
	return parts[0], parts[1], parts[2], nil
}

// Introduce opens a gRPC connection to whoever is there, who may be a stranger.
func (t *Port) Introduce(ctx context.Context, address string) (*Conn, error) {
	return t.connect(ctx, "", address, protocolGRPC)
}

// connect opens a connection to the node with that id; with an empty id, to whoever is there, who may be a stranger.
func (t *Port) connect(ctx context.Context, nodeID, address, protocol string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := t.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	config := t.tlsConfig(protocol)
	config.VerifyConnection = func(s tls.ConnectionState) error {
		_, is, err := t.verify(s)
		if err == nil && nodeID != "" && is != nodeID {
			err = fmt.Errorf("another node than %s answers there, or it isn't listed", nodeID)
		}
		return err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	spki, is, err := t.verify(secure.ConnectionState())
	peer := &Conn{Conn: secure, owner: t, SPKI: spki, NodeID: is, outgoing: true}
	if err == nil {
		err = t.admit(peer)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return peer, nil
}
