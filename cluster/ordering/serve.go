package ordering

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

// Serve takes batches of one node in one lane, in the open term that is given; 0 if there is none.
func (o *Order) Serve(stream wire.Cluster_CommitServer, nodeID string, term uint64) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	kind := usual
	if lane := md.Get(headerLane); len(lane) == 1 && lane[0] == laneNames[urgent] {
		kind = urgent
	}
	if term == 0 {
		return stream.Send(&wire.Answer{Status: wire.Status_NOT_LEADER})
	}
	sender := nodeID + "/" + laneNames[kind]
	number := o.begin(sender)
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
		p.term = term
		o.take(p, kind, sender, number)
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

// answerOf is the wire form of outcomes.
func answerOf(number uint64, status wire.Status, index uint64, outcomes []fsm.Outcome) *wire.Answer {
	a := &wire.Answer{Number: number, Status: status, Index: index}
	if len(outcomes) == 0 {
		return a
	}
	a.Verdicts = make([]byte, len(outcomes))
	a.Sequences = make([]uint64, len(outcomes))
	for i, o := range outcomes {
		a.Verdicts[i] = byte(o.Verdict)
		a.Sequences[i] = o.Seq
		if o.Write != 0 {
			if a.Writes == nil {
				a.Writes = make([]uint32, len(outcomes))
			}
			a.Writes[i] = uint32(o.Write)
		}
	}
	return a
}

// outcomesOf reads them back. It reports whether they are those of count transactions.
func outcomesOf(a *wire.Answer, count int) ([]fsm.Outcome, bool) {
	v, s, w := a.GetVerdicts(), a.GetSequences(), a.GetWrites()
	if len(v) != count || len(s) != count || len(w) != 0 && len(w) != count {
		return nil, false
	}
	outcomes := make([]fsm.Outcome, count)
	for i := range outcomes {
		outcomes[i] = fsm.Outcome{Verdict: fsm.Verdict(v[i]), Index: a.GetIndex(), Seq: s[i]}
		if w != nil {
			outcomes[i].Write = int(w[i])
		}
	}
	return outcomes, true
}
