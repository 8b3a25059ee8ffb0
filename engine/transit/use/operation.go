// Package use is what a transit engine does with its keys for others: encrypt, decrypt, sign, verify, and make HMACs; and
// hashes and random bytes, which take no key. Nothing of it writes, but that encryption makes a key that isn't there.
package use

import (
	"context"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
)

// Limits of this package.
const (
	maxBatch  = 10_000    // items of one batch
	maxRandom = 128 << 10 // bytes that one request draws
)

// HandlerTime is how long a handler computes at most. What takes longer is prepared: it holds no transaction open, and is
// not done again when the transaction conflicts with another one.
const HandlerTime = 200 * time.Microsecond

// Routes are those of all uses.
func Routes() []conclave.Route {
	routes := append(cipherRoutes(), signRoutes()...)
	return append(routes, digestRoutes()...)
}

// Operation is something that is computed with a key and writes nothing.
type Operation[In any] struct {
	Name func(in *In) string // of the key
	// Cost is about how long it takes.
	Cost func(key *keys.Key, in *In) time.Duration
	// Run looks at its context between the items of a batch.
	Run func(ctx context.Context, key *keys.Key, in *In) (*conclave.Response, error)
}

// Route makes the route of an operation.
func (o Operation[In]) Route(pattern, doc string) conclave.Route {
	route := conclave.ReadRoute(conclave.Update, pattern, doc, o.handle)
	route.Gather, route.Prepare = o.gather, o.prepare
	return route
}

// gather returns the key if there is something to prepare with it. Two keys are equal to the pipeline if they are one: a
// key that has changed is another one.
func (o Operation[In]) gather(view conclave.View, in any) (any, error) {
	key, err := shelf.Existing(view, o.Name(in.(*In)))
	if err != nil {
		return nil, err
	}
	return o.gatherWith(key, in.(*In)), nil
}

func (o Operation[In]) gatherWith(key *keys.Key, in *In) any {
	if o.Cost(key, in) <= HandlerTime {
		return conclave.NoPreparation{}
	}
	return key
}

func (o Operation[In]) prepare(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	key, ok := conclave.Gathered[*keys.Key](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no key was gathered")
	}
	return o.Run(ctx, key, in.(*In))
}

func (o Operation[In]) handle(ctx context.Context, view conclave.View, in *In) (*conclave.Response, error) {
	key, err := shelf.Existing(view, o.Name(in))
	return o.handleWith(ctx, key, in, err)
}

func (o Operation[In]) handleWith(ctx context.Context, key *keys.Key, in *In, err error) (*conclave.Response, error) {
	if err != nil {
		return nil, err
	}
	if done, ok := conclave.Prepared[*conclave.Response](ctx); ok {
		response := *done // who gets it may change it, and may come again
		return &response, nil
	}
	return o.Run(ctx, key, in)
}

// within is an operation whose input is a part of another one.
func within[Outer, In any](o Operation[In], part func(*Outer) *In) Operation[Outer] {
	return Operation[Outer]{
		Name: func(in *Outer) string { return o.Name(part(in)) },
		Cost: func(key *keys.Key, in *Outer) time.Duration { return o.Cost(key, part(in)) },
		Run: func(ctx context.Context, key *keys.Key, in *Outer) (*conclave.Response, error) {
			return o.Run(ctx, key, part(in))
		},
	}
}
