// Package revoke ends what is over: it takes leases whose time has come, or whose token has ended, into the queue, and has
// their engines end them outside of the vault. The reaper runs on the leader; a client that waits for a revocation has its
// own node do the same work.
//
// Each step is a transaction of bounded size, so that a crash between steps loses nothing: at most an engine is asked twice
// to end the same lease. Mounts are worked on apart from each other, each a slice of its queue at a time, and rest for longer
// and longer while their attempts fail, so that a database that doesn't answer holds up nobody else's leases.
package revoke
