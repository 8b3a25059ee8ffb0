package conclave

import "context"

// Intent is what a route is about to do outside of the vault.
type Intent struct {
	// Lease is that of what will be made: its Data is what Revoke needs to end it, made or not; the rest doesn't matter, since
	// an intent lives for two minutes. The lease that the handler answers takes its place under the same id; without Data it
	// keeps the intent's. Nil if nothing has to be ended.
	Lease *Lease
	// Value is for Prepare and the handler.
	Value any
}

type intendedKey struct{}

// WithIntended returns a context that carries what a route's Intend returned.
func WithIntended(ctx context.Context, intent *Intent) context.Context {
	return context.WithValue(ctx, intendedKey{}, intent)
}

// Intended returns what the route's Intend returned for this request, and whether it returned anything.
func Intended(ctx context.Context) (*Intent, bool) {
	intent, _ := ctx.Value(intendedKey{}).(*Intent)
	return intent, intent != nil
}
