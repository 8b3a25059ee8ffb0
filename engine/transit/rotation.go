package transit

import (
	"context"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
)

// BeginWork finds out whether a key is still to be rotated.
func (Engine) BeginWork(_ context.Context, tx conclave.Tx, name string) (any, error) {
	key, err := shelf.Find(tx, shelf.Rotating(name))
	if err != nil || key == nil {
		return nil, err
	}
	at := shelf.NextRotation(key)
	switch {
	case at.IsZero():
		return nil, nil
	case !tx.Reached(at): // it was rotated by somebody, or the period has changed
		return nil, tx.Wake(name, at)
	}
	return rotation{key.Type, key.Size}, nil
}

// Work makes the new version, which is stored by FinishWork or by nobody.
func (Engine) Work(_ context.Context, _ string, begun any) (any, error) {
	r, ok := begun.(rotation)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no rotation was begun")
	}
	return keys.Generate(r.kind, r.size, time.Time{})
}

// FinishWork adds the new version, unless the key has changed so that it isn't due or allowed any more.
func (Engine) FinishWork(_ context.Context, tx conclave.Tx, name string, begun, done any, failure error) error {
	if failure != nil {
		return failure
	}
	shared, err := shelf.Find(tx, shelf.Rotating(name))
	if err != nil || shared == nil {
		return err
	}
	made, ok := done.(*keys.Version)
	at := shelf.NextRotation(shared)
	switch {
	case at.IsZero():
		return nil
	case !ok || begun != rotation{shared.Type, shared.Size} || !tx.Reached(at):
		return tx.Wake(name, at)
	}
	key, v := shared.Clone(), *made
	v.Created = tx.Now()
	key.Imported = false
	key.Add(&v)
	return shelf.Save(tx, "key-rotate", shared, key)
}
