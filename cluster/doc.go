// Package cluster is the Raft node: it forms and holds together a cluster, carries transactions to the leader, orders
// them in the log, and keeps the cluster's time.
//
// Invariants:
//
//   - A transaction handed to Commit is applied at most once. Its answer is the verdict of the log, or an error that
//     says whether it may have been applied (conclave.Unknown) or certainly was not (conclave.Unavailable).
//   - An entry names the term it was proposed in; nothing is proposed in a term before that term's opening is applied.
//     So a proposal that was not seen before a later opening is dead, and may be sent again.
//   - A node talks only to members of the list: certificates are matched by their public key, never by an authority
//     alone. The cluster secret lets a node find the others and ask to be listed, no more.
//   - A node that has ever seen a cluster id never bootstraps.
//   - Cluster time never goes back, and no single wall clock can move it.
//
// It does not look into transactions, holds no key of the vault, and starts nothing that Shutdown does not stop.
package cluster
