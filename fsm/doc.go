// Package fsm is the replicated state machine. It holds ciphertext, versions, counters and the audit log, and judges
// transactions: the same entries give the same state, verdicts and audit head on every node.
//
// It has no clock, no randomness and no network. Time is the stamp of an entry; a transaction that was valid on one
// node is valid on all. Unknown commands and newer formats stop the process rather than let replicas diverge.
package fsm
