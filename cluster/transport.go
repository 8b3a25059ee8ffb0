package cluster

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Limits of the cluster port.
const (
	dialTimeout       = 3 * time.Second
	handshakeTimeout  = 5 * time.Second
	maxHandshakes     = 64  // at once; more wait to be accepted
	maxStrangers      = 16  // open connections of nodes that aren't members
	maxConnections    = 512 // open connections in all
	maxPreambleBytes  = 1 + 32 + 1 + 64
	protocolRaft      = "conclave-raft"
	protocolGRPC      = "h2"
	acceptRetryPause  = 20 * time.Millisecond
	acceptBacklogSize = 16
)

// transport is the one TLS 1.3 port of a node. Raft and gRPC share it by ALPN. Both ends present a certificate; whose
// it is, the roster says. A node that is in no list gets a gRPC connection on which it may only introduce itself.
//
// A Raft connection starts with a preamble of its client, so that an id that isn't the certificate's is refused:
//
//	length (1) ‖ cluster id ‖ length (1) ‖ node id
type transport struct {
	id        *identity
	roster    *roster
	clusterID func() string // "" while there is none
	dial      func(ctx context.Context, address string) (net.Conn, error)
	listener  net.Listener
	advertise string
	logger    hclog.Logger
	raft      *queueListener
	grpc      *queueListener
	ctx       context.Context
	cancel    context.CancelFunc
	tasks     sync.WaitGroup // the accept loop and handshakes; ended by close

	mu    sync.Mutex // guards conns
	conns map[*peerConn]struct{}
}

// peerConn is a connection whose other end is known by its certificate.
type peerConn struct {
	*tls.Conn
	owner    *transport
	spki     [sha256.Size]byte
	nodeID   string // "" for a stranger
	outgoing bool
}

// Close ends the connection and forgets it.
func (c *peerConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.conns, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

var errClosed = errors.New("the node is shutting down")

func newTransport(id *identity, c *Config, r *roster, clusterID func() string) (*transport, error) {
	listener, err := net.Listen("tcp", c.ClusterAddress)
	if err != nil {
		return nil, fmt.Errorf("listen on cluster address: %w", err)
	}
	t := &transport{id: id, roster: r, clusterID: clusterID, dial: c.Dial, listener: listener, advertise: c.AdvertiseAddress,
		logger: c.Logger.Named("transport"), conns: make(map[*peerConn]struct{})}
	if t.advertise == "" {
		t.advertise = listener.Addr().String()
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	addr := advertised(t.advertise)
	t.raft, t.grpc = newQueueListener(addr), newQueueListener(addr)
	r.watch(t.cutOff)
	t.tasks.Add(1)
	go t.accept()
	return t, nil
}

// close ends the port, all its connections, and its goroutines.
func (t *transport) close() {
	t.cancel()
	t.listener.Close()
	t.raft.Close()
	t.grpc.Close()
	for _, c := range t.open() {
		c.Close()
	}
	t.tasks.Wait()
}

func (t *transport) open() []*peerConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	open := make([]*peerConn, 0, len(t.conns))
	for c := range t.conns {
		open = append(open, c)
	}
	return open
}

// cutOff closes the connections of those whom a new list no longer has.
func (t *transport) cutOff(now *trust) {
	for _, c := range t.open() {
		if _, listed := now.byKey[c.spki]; !listed && c.nodeID != "" {
			t.logger.Warn("removed node cut off", "node", c.nodeID)
			c.NetConn().Close() // first, so that Close doesn't wait to say goodbye
			c.Close()
		}
	}
}

func (t *transport) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{t.id.cert},
		NextProtos:   protocols,
		// Hybrids only: a recorded session stays closed to a later quantum computer.
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // the key is matched in VerifyConnection; names and dates mean nothing
		SessionTicketsDisabled: true,
	}
}

// verify finds out who the other end is. Strangers pass with an empty node id.
func (t *transport) verify(s tls.ConnectionState) (spki [sha256.Size]byte, nodeID string, err error) {
	if len(s.PeerCertificates) == 0 {
		return spki, "", errors.New("no certificate")
	}
	leaf := s.PeerCertificates[0]
	spki = sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	if t.id.roots != nil {
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: t.id.roots, Intermediates: between,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			return spki, "", errors.New("certificate isn't of the configured authority")
		}
	}
	m, _ := t.roster.member(spki)
	return spki, m.NodeID, nil
}

func (t *transport) accept() {
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
func (t *transport) receive(conn net.Conn) error {
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
	peer := &peerConn{Conn: secure, owner: t, spki: spki, nodeID: nodeID}
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
func (t *transport) admit(c *peerConn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	strangers := 0
	for other := range t.conns {
		if other.nodeID == "" && !other.outgoing {
			strangers++
		}
	}
	switch {
	case t.ctx.Err() != nil:
		return errClosed
	case len(t.conns) >= maxConnections, c.nodeID == "" && !c.outgoing && strangers >= maxStrangers:
		return errors.New("too many connections")
	}
	t.conns[c] = struct{}{}
	if c.nodeID == "" {
		return nil
	}
	if _, listed := t.roster.member(c.spki); !listed {
		delete(t.conns, c)
		return errors.New("not a member any more")
	}
	return nil
}

func (t *transport) readPreamble(c *peerConn) error {
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	var parts [2]string
	for i, limit := range []int{32, 64} {
		var n [1]byte
		if _, err := io.ReadFull(c, n[:]); err != nil {
			return err
		}
		if int(n[0]) > limit {
			return errors.New("preamble is too long")
		}
		b := make([]byte, n[0])
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		parts[i] = string(b)
	}
	if id := t.clusterID(); id == "" || parts[0] != id {
		return errors.New("the peer is of another cluster")
	}
	if parts[1] != c.nodeID {
		return errors.New("the peer's node id isn't its certificate's")
	}
	return c.SetDeadline(time.Time{})
}

// connect opens a connection to the node with that id; with an empty id, to whoever is there, who may be a stranger.
func (t *transport) connect(ctx context.Context, nodeID, address, protocol string) (*peerConn, error) {
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
	peer := &peerConn{Conn: secure, owner: t, spki: spki, nodeID: is, outgoing: true}
	if err == nil {
		err = t.admit(peer)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return peer, nil
}

// streamLayer is the Raft side of the port. Its addresses are "node id/host:port": the address provider makes them so,
// and a connection to another node than the one meant is refused.
type streamLayer struct {
	*queueListener
	t *transport
}

var _ raft.StreamLayer = (*streamLayer)(nil)

// Dial opens a Raft connection.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.t.ctx, timeout)
	defer cancel()
	nodeID, at, ok := strings.Cut(string(address), "/")
	if !ok {
		return nil, errors.New("the node to dial has no known address")
	}
	conn, err := s.t.connect(ctx, nodeID, at, protocolRaft)
	if err != nil {
		return nil, err
	}
	cluster, self := s.t.clusterID(), s.t.id.nodeID
	preamble := make([]byte, 0, maxPreambleBytes)
	preamble = append(append(preamble, byte(len(cluster))), cluster...)
	preamble = append(append(preamble, byte(len(self))), self...)
	if _, err := conn.Write(preamble); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// queueListener is a net.Listener fed with connections that were accepted elsewhere.
type queueListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// advertised is an address as peers are told it.
type advertised string

// Network is always tcp.
func (advertised) Network() string { return "tcp" }

// String is host:port.
func (a advertised) String() string { return string(a) }

func newQueueListener(addr net.Addr) *queueListener {
	return &queueListener{addr: addr, conns: make(chan net.Conn, acceptBacklogSize), closed: make(chan struct{})}
}

func (l *queueListener) put(c net.Conn) error {
	select {
	case l.conns <- c:
		return nil
	case <-l.closed:
		return errClosed
	}
}

// Accept returns the next connection.
func (l *queueListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept return.
func (l *queueListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is what peers dial.
func (l *queueListener) Addr() net.Addr { return l.addr }
