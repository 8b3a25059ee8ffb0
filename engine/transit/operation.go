package transit

import (
	"context"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
)

// handlerTime is how long a handler computes at most. What takes longer is prepared: it holds no transaction open, and is
// not done again when the transaction conflicts with another one.
const handlerTime = 200 * time.Microsecond

// operation is something that is computed with a key and writes nothing.
type operation[In any] struct {
	name func(in *In) string // of the key
	// cost is about how long it takes.
	cost func(key *keys.Key, in *In) time.Duration
	// run looks at its context between the items of a batch.
	run func(ctx context.Context, key *keys.Key, in *In) (*conclave.Response, error)
}

// route makes the route of an operation.
func (o operation[In]) route(pattern, doc string) conclave.Route {
	route := conclave.ReadRoute(conclave.Update, pattern, doc, o.handle)
	route.Gather, route.Prepare = o.gather, o.prepare
	return route
}

// gather returns the key if there is something to prepare with it. Two keys are equal to the pipeline if they are one: a
// key that has changed is another one.
func (o operation[In]) gather(view conclave.View, in any) (any, error) {
	key, err := existing(view, o.name(in.(*In)))
	if err != nil {
		return nil, err
	}
	return o.gatherWith(key, in.(*In)), nil
}

func (o operation[In]) gatherWith(key *keys.Key, in *In) any {
	if o.cost(key, in) <= handlerTime {
		return conclave.NoPreparation{}
	}
	return key
}

func (o operation[In]) prepare(ctx context.Context, _ *conclave.Request, in any) (any, error) {
	key, ok := conclave.Gathered[*keys.Key](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no key was gathered")
	}
	return o.run(ctx, key, in.(*In))
}

func (o operation[In]) handle(ctx context.Context, view conclave.View, in *In) (*conclave.Response, error) {
	key, err := existing(view, o.name(in))
	return o.handleWith(ctx, key, in, err)
}

func (o operation[In]) handleWith(ctx context.Context, key *keys.Key, in *In, err error) (*conclave.Response, error) {
	if err != nil {
		return nil, err
	}
	if done, ok := conclave.Prepared[*conclave.Response](ctx); ok {
		response := *done // who gets it may change it, and may come again
		return &response, nil
	}
	return o.run(ctx, key, in)
}

// within is an operation whose input is a part of another one.
func within[Outer, In any](o operation[In], part func(*Outer) *In) operation[Outer] {
	return operation[Outer]{
		name: func(in *Outer) string { return o.name(part(in)) },
		cost: func(key *keys.Key, in *Outer) time.Duration { return o.cost(key, part(in)) },
		run: func(ctx context.Context, key *keys.Key, in *Outer) (*conclave.Response, error) {
			return o.run(ctx, key, part(in))
		},
	}
}
