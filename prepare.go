package conclave

// NoPreparation is what a route's Gather returns when Prepare has nothing to do for the request at hand: Prepare doesn't
// run then, and the handler runs in the transaction in which the caller was found to be allowed.
type NoPreparation struct{}
