package transit

import (
	"context"
	"strings"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
)

// rotationDir begins the names of the work of rotating keys by themselves.
const rotationDir = "rotate/"

func rotationOf(name string) string { return rotationDir + name }

// nextRotation is when a key is rotated by itself: a period after its latest version was made. Zero is never.
func nextRotation(key *keys.Key) time.Time {
	if key.AutoRotate == 0 || mayRotate(key) != nil {
		return time.Time{}
	}
	return key.Version(key.Latest()).Created.Add(key.AutoRotate.Duration())
}

// BeginWork finds out whether a key is still to be rotated.
func (Engine) BeginWork(_ context.Context, tx conclave.Tx, name string) (any, error) {
	key, err := find(tx, strings.TrimPrefix(name, rotationDir))
	if err != nil || key == nil {
		return nil, err
	}
	at := nextRotation(key)
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
	shared, err := find(tx, strings.TrimPrefix(name, rotationDir))
	if err != nil || shared == nil {
		return err
	}
	made, ok := done.(*keys.Version)
	at := nextRotation(shared)
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
	return save(tx, "key-rotate", shared, key)
}
