package cluster

import (
	"context"
	"time"

	"conclave"
	"conclave/cluster/ordering"
	"conclave/cluster/roster"
	"conclave/fsm"
)

// Member is one node of the cluster; List is who belongs to it. Observer is told of each commit.
type (
	Member    = roster.Member
	List      = roster.List
	Observer  = ordering.Observer
	Histogram = ordering.Histogram
)

// Commit has the transaction ordered and judged by the cluster, and returns the verdict: Committed, Conflict, Refused,
// or, for one that doesn't write, Recorded. Its ID is set anew for each sending; the rest must not be changed until
// Commit returns, nor after an error.
//
// A proposal that is certainly dead is sent again until ctx ends, or for a minute. Errors are *conclave.Error:
// Unavailable if the transaction was certainly not applied, Unknown if it may have been, TooLarge above 8 MiB, Invalid
// if it can't be applied.
func (n *Node) Commit(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	return n.commit(ctx, tx, false)
}

// CommitUrgent is Commit in a lane of its own, for what must get through under load: seal, revoke, step-down.
func (n *Node) CommitUrgent(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error) {
	return n.commit(ctx, tx, true)
}

func (n *Node) commit(ctx context.Context, tx *fsm.Transaction, urgent bool) (fsm.Outcome, error) {
	if n.Removed() {
		return fsm.Outcome{}, unavailable("this node was removed from the cluster", 0) // no leader will ever take it
	}
	if err := n.Refused(); err != nil {
		return fsm.Outcome{}, err
	}
	return n.sender.Commit(ctx, tx, urgent)
}

// busyRetry is when clients are told to try again.
const busyRetry = time.Second

func unavailable(message string, retryAfter time.Duration) error {
	err := conclave.Errorf(conclave.Unavailable, "%s", message)
	err.RetryAfter = retryAfter
	return err
}
