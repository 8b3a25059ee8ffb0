// Package conclave is the vocabulary of a replicated secrets vault: requests and responses, routes, plug-ins, the
// transactional view that handlers work on, and the kinds of error. It imports the standard library only, and holds
// no state.
//
// Every request, read or write, is one transaction. A handler sees a [View] or a [Tx] that is confined to its mount's
// storage, and what it reads is noted. When the handler is done, the transaction and its audit record are judged by
// the cluster in one step. A handler may therefore run more than once for a request and must be free of outside
// effects; slow or outside work belongs in a route's Prepare step.
package conclave
