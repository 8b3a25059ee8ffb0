package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"conclave"
	"conclave/audit"
	"conclave/fsm"
)

// Methods that nodes call on the leader.
const (
	callRotateAudit = "cluster.audit.rotate"
	callPruneAudit  = "cluster.audit.prune"
)

// commandTimeout is how long a command of the cluster's own may wait to be applied.
const commandTimeout = 10 * time.Second

var errAuditFull = errors.New("the audit log has reached its capacity: export it, then drop closed epochs with `conclave audit prune`")

// RotateAudit closes the epoch of the audit log and begins the next, whose first record names the reason.
func (n *Node) RotateAudit(ctx context.Context, reason string) error {
	if err := audit.CheckReason(reason); err != nil {
		return conclave.Errorf(conclave.Invalid, "that can't be a reason: %w", err)
	}
	if !n.IsLeader() {
		_, err := n.callLeader(ctx, callRotateAudit, []byte(reason))
		return err
	}
	_, err := n.command(func(term uint64, stamp int64) []byte { return fsm.EncodeRotate(term, stamp, reason) })
	return err
}

// PruneAudit drops the audit log up to the end of a closed epoch, on every node. head is how that epoch ended, which only
// somebody who has its export can know.
func (n *Node) PruneAudit(ctx context.Context, epoch uint64, head [32]byte) error {
	if !n.IsLeader() {
		body := binary.BigEndian.AppendUint64(nil, epoch)
		_, err := n.callLeader(ctx, callPruneAudit, append(body, head[:]...))
		return err
	}
	outcome, err := n.command(func(term uint64, stamp int64) []byte { return fsm.EncodePrune(term, stamp, epoch, head) })
	if err == nil && outcome.Verdict == fsm.Refused {
		err = conclave.Errorf(conclave.Invalid, "epoch %d is not closed, or did not end with this head: nothing was dropped", epoch)
	}
	return err
}

// command has a command of the cluster's own applied.
func (n *Node) command(encode func(term uint64, stamp int64) []byte) (fsm.Outcome, error) {
	term, _ := n.order.OpenTerm()
	if term == 0 {
		return fsm.Outcome{}, unavailable("this node doesn't lead any more", busyRetry)
	}
	data := encode(term, n.clock.Next())
	if err := fsm.CheckEntry(data); err != nil {
		return fsm.Outcome{}, conclave.Errorf(conclave.Invalid, "the command can't be applied: %w", err)
	}
	future := n.raft.Apply(data, commandTimeout)
	if err := future.Error(); err != nil {
		return fsm.Outcome{}, conclave.Errorf(conclave.Unknown, "the command's outcome is not known: look before you repeat it")
	}
	result, ok := future.Response().(*fsm.BatchResult)
	if !ok || len(result.Outcomes) != 1 {
		return fsm.Outcome{}, conclave.Errorf(conclave.Internal, "the command has no outcome")
	}
	if result.Outcomes[0].Verdict == fsm.Dead {
		return fsm.Outcome{}, unavailable("leadership changed before the command: nothing was done", busyRetry)
	}
	return result.Outcomes[0], nil
}

// registerEpochs serves what callLeader calls.
func (n *Node) registerEpochs(leads func(Handler) Handler) {
	n.Handle(callRotateAudit, leads(func(ctx context.Context, _ Member, body []byte) ([]byte, error) {
		return nil, n.RotateAudit(ctx, string(body))
	}))
	n.Handle(callPruneAudit, leads(func(ctx context.Context, _ Member, body []byte) ([]byte, error) {
		if len(body) != 8+32 {
			return nil, conclave.Errorf(conclave.Invalid, "malformed call")
		}
		return nil, n.PruneAudit(ctx, binary.BigEndian.Uint64(body), [32]byte(body[8:]))
	}))
}
