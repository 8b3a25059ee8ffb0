// Package quota limits how often the vault is asked, and how many leases it has out: by namespace, mount, path, or the
// role of a login. Of the quotas of one kind the most specific one applies, and no other: role before path, path before
// mount, mount before namespace, a namespace before those above it.
//
// Definitions belong to the cluster. They are one record, "quota/rules" in the root namespace's system space, decoded and
// indexed once per version:
//
//	{"config": Config, "rate": [RateRule, …], "leases": [LeaseRule, …]}      JSON, at most 1 MiB, rules sorted by name
//
// A rate limit is a bucket of tokens, of which each request takes one: it holds the requests of one interval and fills
// evenly. The bucket is the cluster's, not a node's: the leader keeps it, in memory, in a [Ledger]. Each node has a
// [Limiter], which takes tokens from the ledger as requests come, some ahead while there are plenty, and returns what it
// didn't use. So all nodes together never let through more than the rate times the time that passed plus one bucket. Two
// things add to that. A new leader learns what was used from the nodes as they first ask, so that a change of leader lets
// through one bucket more at most. A node that reaches no leader goes on with its part of rate and bucket; but without a
// leader the vault answers nothing, so that this concerns what is tried, not what is done.
//
// Limits are checked before a body is read and before a token is looked at. What is refused leaves no record of its own
// in the audit log and no trace in memory beyond the client's bucket; the number of buckets is bounded, and clients
// beyond share one for each quota.
//
// A lease count is a cell, "quota/leases/<id>" beside the record, that each lease takes one from in the transaction that
// makes it, so that it is exact.
package quota
