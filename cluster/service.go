package cluster

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"conclave/cluster/ordering"
	"conclave/cluster/port"
	"conclave/cluster/wire"
)

// Metadata of every call.
const (
	headerCluster = "conclave-cluster"
	headerNode    = "conclave-node"
)

// introduceMethod is open to strangers.
const introduceMethod = wire.Cluster_Introduce_FullMethodName

// service is what peers call.
type service struct {
	wire.UnimplementedClusterServer
	n *Node
}

// Commit takes batches of one sender and one lane while this node leads one term.
func (s *service) Commit(stream wire.Cluster_CommitServer) error {
	conn, err := s.n.caller(stream.Context(), wire.Cluster_Commit_FullMethodName)
	if err != nil {
		return err
	}
	return s.n.order.Serve(stream, conn.NodeID, s.n.awaitTerm(stream.Context()))
}

// awaitTerm waits a moment for this node to open a term, if it is about to.
func (n *Node) awaitTerm(ctx context.Context) uint64 {
	term, opened := n.order.OpenTerm()
	if term != 0 || n.leaderID() != n.id.NodeID {
		return term
	}
	timer := time.NewTimer(termPatience)
	defer timer.Stop()
	select {
	case <-opened:
	case <-timer.C:
	case <-ctx.Done():
	}
	term, _ = n.order.OpenTerm()
	return term
}

// termPatience is how long a sender that comes early waits for the term to open: less than it waits for an answer.
const termPatience = 500 * time.Millisecond

// Pulse tells the caller the time, and notes how the caller is if this node leads.
func (s *service) Pulse(ctx context.Context, b *wire.Beat) (*wire.Echo, error) {
	conn, err := s.n.caller(ctx, wire.Cluster_Pulse_FullMethodName)
	if err != nil {
		return nil, err
	}
	return s.n.pulsed(conn.NodeID, b), nil
}

// Call runs a registered handler.
func (s *service) Call(ctx context.Context, r *wire.Request) (*wire.Reply, error) {
	conn, err := s.n.caller(ctx, wire.Cluster_Call_FullMethodName)
	if err != nil {
		return nil, err
	}
	from, _ := s.n.roster.Member(conn.SPKI)
	return s.n.called(ctx, from, r), nil
}

// Introduce answers a node that wants to find or join the cluster.
func (s *service) Introduce(ctx context.Context, i *wire.Introduction) (*wire.Welcome, error) {
	conn, err := s.n.caller(ctx, introduceMethod)
	if err != nil {
		return nil, err
	}
	return s.n.introduced(ctx, conn, i)
}

// outgoing adds the headers of this node.
func (n *Node) outgoing(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, headerCluster, n.clusterID(), headerNode, n.id.NodeID)
}

// caller finds out who calls, and refuses whoever may not: strangers beyond Introduce, members of another cluster, and
// node ids that aren't the certificate's.
func (n *Node) caller(ctx context.Context, method string) (*port.Conn, error) {
	conn, ok := port.From(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	if method == introduceMethod {
		return conn, nil
	}
	if _, listed := n.roster.Member(conn.SPKI); !listed {
		return nil, status.Error(codes.PermissionDenied, "not a member of this cluster")
	}
	if conn.NodeID == "" { // it was made before this node had the list with the caller: the next one is a member's
		conn.Close()
		return nil, status.Error(codes.Unavailable, "this node has only now learned that the caller is a member")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	cluster, node := md.Get(headerCluster), md.Get(headerNode)
	switch id := n.clusterID(); {
	case len(cluster) != 1 || len(node) != 1:
		return nil, status.Error(codes.PermissionDenied, "cluster and node id are needed")
	case id == "" || cluster[0] != id:
		return nil, status.Error(codes.PermissionDenied, "the caller is of another cluster")
	case node[0] != conn.NodeID:
		return nil, status.Error(codes.PermissionDenied, "the node id isn't the certificate's")
	}
	return conn, nil
}

// newServer is the gRPC server of this node.
func (n *Node) newServer() *grpc.Server {
	s := grpc.NewServer(append(port.ServerOptions(ordering.MaxMessage), grpc.MaxConcurrentStreams(maxStreams),
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
		}))...)
	wire.RegisterClusterServer(s, &service{n: n})
	return s
}

// maxStreams limits the calls that one peer has open at once.
const maxStreams = 256
