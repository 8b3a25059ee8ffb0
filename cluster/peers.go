package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"conclave/cluster/wire"
)

// Metadata of every call.
const (
	headerCluster = "conclave-cluster"
	headerNode    = "conclave-node"
)

// maxMessage limits one gRPC message: a batch with one transaction of the largest size, and what surrounds it.
const maxMessage = maxTransaction + 1<<20

// introduceMethod is open to strangers.
const introduceMethod = wire.Cluster_Introduce_FullMethodName

// channel is what gRPC knows of a connection that transport has made: whose it is.
type channel struct{ conn *peerConn }

// AuthType names how the peer was authenticated.
func (channel) AuthType() string { return "conclave" }

// handshaken are gRPC credentials for connections on which transport has shaken hands already.
type handshaken struct{}

var _ credentials.TransportCredentials = handshaken{}

func (handshaken) shaken(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := conn.(*peerConn)
	if !ok {
		return nil, nil, errors.New("connection without a handshake")
	}
	return c, channel{c}, nil
}

// ClientHandshake passes the connection on.
func (h handshaken) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.shaken(conn)
}

// ServerHandshake passes the connection on.
func (h handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.shaken(conn)
}

// Info says what the transport is.
func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", SecurityVersion: "1.3"}
}

// Clone returns the same: there is no state.
func (h handshaken) Clone() credentials.TransportCredentials { return h }

// OverrideServerName does nothing: names aren't used.
func (handshaken) OverrideServerName(string) error { return nil }

// peers are gRPC connections to other members, one each, opened at first use.
type peers struct {
	t       *transport
	address func(nodeID string) (string, bool)

	mu     sync.Mutex // guards what follows
	conns  map[string]*grpc.ClientConn
	closed bool
}

func newPeers(t *transport, address func(nodeID string) (string, bool)) *peers {
	p := &peers{t: t, address: address, conns: make(map[string]*grpc.ClientConn)}
	t.roster.watch(p.keep)
	return p
}

// client returns a client for a member. The connection is made when it is used.
func (p *peers) client(nodeID string) (wire.ClusterClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	conn := p.conns[nodeID]
	if conn == nil {
		var err error
		conn, err = grpc.NewClient("passthrough:///"+nodeID, grpc.WithTransportCredentials(handshaken{}),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				address, ok := p.address(nodeID)
				if !ok {
					return nil, errors.New("no address of that node is known")
				}
				return p.t.connect(ctx, nodeID, address, protocolGRPC)
			}),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: dialTimeout, Backoff: backoff.Config{
				BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
			grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithIdleTimeout(0))
		if err != nil {
			return nil, err
		}
		p.conns[nodeID] = conn
	}
	return wire.NewClusterClient(conn), nil
}

// keep drops the connections to those whom a new list no longer has.
func (p *peers) keep(now *trust) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, conn := range p.conns {
		if now.list.Find(id) == nil {
			conn.Close()
			delete(p.conns, id)
		}
	}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for id, conn := range p.conns {
		conn.Close()
		delete(p.conns, id)
	}
}

// outgoing adds the headers of this node.
func (n *Node) outgoing(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, headerCluster, n.clusterID(), headerNode, n.id.nodeID)
}

// caller finds out who calls, and refuses whoever may not: strangers beyond Introduce, members of another cluster, and
// node ids that aren't the certificate's.
func (n *Node) caller(ctx context.Context, method string) (*peerConn, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	ch, ok := p.AuthInfo.(channel)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	if method == introduceMethod {
		return ch.conn, nil
	}
	if _, listed := n.roster.member(ch.conn.spki); !listed || ch.conn.nodeID == "" {
		return nil, status.Error(codes.PermissionDenied, "not a member of this cluster")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	cluster, node := md.Get(headerCluster), md.Get(headerNode)
	switch id := n.clusterID(); {
	case len(cluster) != 1 || len(node) != 1:
		return nil, status.Error(codes.PermissionDenied, "cluster and node id are needed")
	case id == "" || cluster[0] != id:
		return nil, status.Error(codes.PermissionDenied, "the caller is of another cluster")
	case node[0] != ch.conn.nodeID:
		return nil, status.Error(codes.PermissionDenied, "the node id isn't the certificate's")
	}
	return ch.conn, nil
}

// newServer is the gRPC server of this node.
func (n *Node) newServer() *grpc.Server {
	s := grpc.NewServer(grpc.Creds(handshaken{}), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if _, err := n.caller(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handler(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if _, err := n.caller(ss.Context(), info.FullMethod); err != nil {
				return err
			}
			return handler(srv, ss)
		}))
	wire.RegisterClusterServer(s, &service{n: n})
	return s
}

// maxStreams limits the calls that one peer has open at once.
const maxStreams = 256
