// Package event tells those who may know of it what changed, in the order in which it changed.
//
// Events are in the audit record of the transaction that made them happen (conclave.Tx.Emit). The audit log is ordered,
// as durable as a quorum, and the same on all nodes; so the stream of events is a walk of a node's own log from a
// [Cursor], and nothing else is stored. Whoever goes on from the cursor of the last event it got, on any node, misses
// nothing and gets nothing twice, as long as the log has what is wanted.
//
// A [Stream] follows the log of one node while anybody listens, and keeps what came last in memory for all. Who is
// further behind reads the log by itself. A subscriber gets an event if its token may know of it at the moment when the
// event is sent: each batch is judged on a state that is no older than its events, and at least twice a second.
//
// [Webhooks] are sent by the leader, in order, again and again until each was taken; how far they have come is
// replicated, so that a new leader goes on.
package event
