package cluster

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"conclave/cluster/wire"
	"conclave/fsm"
)

// headerLane names the lane of a Commit stream.
const headerLane = "conclave-lane"

var laneNames = [lanes]string{usual: "usual", urgent: "urgent"}

func laneHeader(ctx context.Context, kind priority) context.Context {
	return metadata.AppendToOutgoingContext(ctx, headerLane, laneNames[kind])
}

// maxAnswers is how many answers may wait for a slow sender before its stream is cut.
const maxAnswers = 64

var errSlow = status.Error(codes.ResourceExhausted, "the sender doesn't read its answers")

// service is what peers call.
type service struct {
	wire.UnimplementedClusterServer
	n *Node
}

// Commit takes batches of one sender and one lane while this node leads one term.
func (s *service) Commit(stream wire.Cluster_CommitServer) error {
	n := s.n
	conn, err := n.caller(stream.Context(), wire.Cluster_Commit_FullMethodName)
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	kind := usual
	if lane := md.Get(headerLane); len(lane) == 1 && lane[0] == laneNames[urgent] {
		kind = urgent
	}
	term := n.awaitTerm(stream.Context())
	if term == 0 {
		return stream.Send(&wire.Answer{Status: wire.Status_NOT_LEADER})
	}
	sender := conn.nodeID + "/" + laneNames[kind]
	number := n.order.begin(sender)
	if err := stream.Send(&wire.Answer{Status: wire.Status_HELLO, Term: term}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	answers := make(chan *wire.Answer, maxAnswers)
	written := make(chan struct{})
	defer func() { cancel(nil); <-written }()
	go func() { // ends with ctx, that is with this call, which waits for it
		defer close(written)
		for {
			select {
			case a := <-answers:
				if err := stream.Send(a); err != nil {
					cancel(err)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		b, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		answer := func(st wire.Status, index uint64, outcomes []fsm.Outcome) {
			select {
			case answers <- answerOf(b.GetNumber(), st, index, outcomes):
			default:
				cancel(errSlow)
			}
		}
		p, err := parcelOf(b)
		if err != nil {
			answer(wire.Status_INVALID, 0, nil)
			continue
		}
		p.answer = answer
		n.order.take(p, kind, term, sender, number)
	}
}

func parcelOf(b *wire.Batch) (*parcel, error) {
	p := &parcel{fence: b.GetFence(), bytes: len(b.GetTransactions())}
	if p.fence {
		return p, nil
	}
	p.deadline = time.Now().Add(min(time.Duration(b.GetTimeoutMs())*time.Millisecond, maxCommitTime))
	txs, err := fsm.DecodeTransactions(b.GetTransactions())
	if err != nil {
		return nil, err
	}
	if len(txs) == 0 || len(txs) > maxBatchCount {
		return nil, errors.New("a batch of no transactions, or of too many")
	}
	p.txs = txs
	return p, nil
}

// awaitTerm waits a moment for this node to open a term, if it is about to.
func (n *Node) awaitTerm(ctx context.Context) uint64 {
	term, opened := n.order.openTerm()
	if term != 0 || n.leaderID() != n.id.nodeID {
		return term
	}
	timer := time.NewTimer(helloTimeout / 2)
	defer timer.Stop()
	select {
	case <-opened:
	case <-timer.C:
	case <-ctx.Done():
	}
	term, _ = n.order.openTerm()
	return term
}

// Pulse tells the caller the time, and notes how the caller is if this node leads.
func (s *service) Pulse(ctx context.Context, b *wire.Beat) (*wire.Echo, error) {
	conn, err := s.n.caller(ctx, wire.Cluster_Pulse_FullMethodName)
	if err != nil {
		return nil, err
	}
	return s.n.pulsed(conn.nodeID, b), nil
}

// Call runs a registered handler.
func (s *service) Call(ctx context.Context, r *wire.Request) (*wire.Reply, error) {
	conn, err := s.n.caller(ctx, wire.Cluster_Call_FullMethodName)
	if err != nil {
		return nil, err
	}
	from, _ := s.n.roster.member(conn.spki)
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
