package port

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"conclave/cluster/roster"
	"conclave/cluster/wire"
)

// Windows of flow control in bytes: a whole batch goes without a pause.
const (
	streamWindow = 4 << 20
	connWindow   = 16 << 20
)

// ServerOptions are those of a gRPC server on the port, for messages of up to limit bytes.
func ServerOptions(limit int) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.Creds(Handshaken{}), grpc.MaxRecvMsgSize(limit), grpc.MaxSendMsgSize(limit),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow), grpc.ConnectionTimeout(handshakeTimeout)}
}

// From returns the connection that a call came by.
func From(ctx context.Context) (*Conn, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	c, ok := p.AuthInfo.(channel)
	return c.conn, ok
}

// channel is what gRPC knows of a connection that the port has made: whose it is.
type channel struct{ conn *Conn }

// AuthType names how the peer was authenticated.
func (channel) AuthType() string { return "conclave" }

// Handshaken are gRPC credentials for connections on which the port has shaken hands already.
type Handshaken struct{}

var _ credentials.TransportCredentials = Handshaken{}

func (Handshaken) shaken(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := conn.(*Conn)
	if !ok {
		return nil, nil, errors.New("connection without a handshake")
	}
	return c, channel{c}, nil
}

// ClientHandshake passes the connection on.
func (h Handshaken) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.shaken(conn)
}

// ServerHandshake passes the connection on.
func (h Handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.shaken(conn)
}

// Info says what the transport is.
func (Handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", SecurityVersion: "1.3"}
}

// Clone returns the same: there is no state.
func (h Handshaken) Clone() credentials.TransportCredentials { return h }

// OverrideServerName does nothing: names aren't used.
func (Handshaken) OverrideServerName(string) error { return nil }

// Peers are gRPC connections to other members, one each, opened at first use.
type Peers struct {
	t       *Port
	limit   int
	address func(nodeID string) (string, bool)

	mu     sync.Mutex // guards what follows
	conns  map[string]*grpc.ClientConn
	closed bool
}

// NewPeers makes connections through t, to the addresses that address knows, for messages of up to limit bytes.
func NewPeers(t *Port, limit int, address func(nodeID string) (string, bool)) *Peers {
	p := &Peers{t: t, limit: limit, address: address, conns: make(map[string]*grpc.ClientConn)}
	t.roster.Watch(p.keep)
	return p
}

// Client returns a client for a member. The connection is made when it is used.
func (p *Peers) Client(nodeID string) (wire.ClusterClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	conn := p.conns[nodeID]
	if conn == nil {
		var err error
		conn, err = grpc.NewClient("passthrough:///"+nodeID, grpc.WithTransportCredentials(Handshaken{}),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				address, ok := p.address(nodeID)
				if !ok {
					return nil, errors.New("no address of that node is known")
				}
				return p.t.connect(ctx, nodeID, address, protocolGRPC)
			}),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: dialTimeout, Backoff: backoff.Config{
				BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(p.limit), grpc.MaxCallSendMsgSize(p.limit)),
			grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
			grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithIdleTimeout(0))
		if err != nil {
			return nil, err
		}
		p.conns[nodeID] = conn
	}
	return wire.NewClusterClient(conn), nil
}

// keep drops the connections to those whom a new list no longer has.
func (p *Peers) keep(now *roster.Trust) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, conn := range p.conns {
		if now.List.Find(id) == nil {
			conn.Close()
			delete(p.conns, id)
		}
	}
}

// Close closes them all.
func (p *Peers) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for id, conn := range p.conns {
		conn.Close()
		delete(p.conns, id)
	}
}
