// Package pipeline executes requests, each as one replicated transaction: route, authenticate, authorise, handle, write
// the audit record, commit; and again on a newer state when what the request read has changed meanwhile.
//
// There is no second way in. A request that was denied or failed is a transaction as well: its record is durable on a
// quorum before the client hears of it. Only an answer that tells nothing but "not now" (sealed, no quorum, too busy,
// outcome unknown) leaves without one, and is counted in a gap record later.
package pipeline
