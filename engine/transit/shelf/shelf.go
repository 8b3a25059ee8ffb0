// Package shelf is where a transit engine keeps its keys: in the mount's storage, with the times at which they rotate by
// themselves and the events that tell of them.
package shelf

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"conclave"
	"conclave/engine/transit/keys"
)

// Dir is the directory of the keys, by name.
const Dir = "keys/"

// rotationDir begins the names of the work of rotating keys by themselves.
const rotationDir = "rotate/"

const settingsPath = "config/keys"

// ErrNoKey is the answer of Vault, 400, to the use of a key that isn't there.
var ErrNoKey = conclave.Errorf(conclave.Invalid, "encryption key not found")

// Decode is for View.Load.
func Decode(value []byte) (any, error) { return keys.Decode(value) }

// Find returns the key of a name, nil if there is none. It is shared and must not be changed.
func Find(view conclave.View, name string) (*keys.Key, error) {
	if keys.CheckName(name) != nil {
		return nil, nil // no key has such a name
	}
	loaded, err := view.Load(Dir+name, Decode)
	key, _ := loaded.(*keys.Key)
	return key, err
}

// Existing is Find for routes that need a key: without one, the error is ErrNoKey.
func Existing(view conclave.View, name string) (*keys.Key, error) {
	key, err := Find(view, name)
	if err == nil && key == nil {
		err = ErrNoKey
	}
	return key, err
}

// Save stores a key under its name, in place of old, which is nil if there is none, and sets when it is rotated next. what
// is what happened to the key, for those who hear of it.
func Save(tx conclave.Tx, what string, old, key *keys.Key) error {
	value, err := key.Encode()
	if err != nil {
		return err
	}
	if old != nil && old.AutoRotate != 0 || key.AutoRotate != 0 {
		if err := tx.Wake(rotationDir+key.Name, NextRotation(key)); err != nil {
			return err
		}
	}
	if err := tx.Put(Dir+key.Name, value); err != nil {
		return err
	}
	return emit(tx, what, key)
}

// Delete removes a key.
func Delete(tx conclave.Tx, key *keys.Key) error {
	if key.AutoRotate != 0 {
		if err := tx.Wake(rotationDir+key.Name, time.Time{}); err != nil {
			return err
		}
	}
	if err := tx.Delete(Dir + key.Name); err != nil {
		return err
	}
	return emit(tx, "key-delete", key)
}

// emit tells what happened to a key.
func emit(tx conclave.Tx, what string, key *keys.Key) error {
	return tx.Emit(conclave.Event{Type: "transit/" + what, Path: Dir + key.Name, Metadata: map[string]string{
		"operation": what, "latest_version": strconv.Itoa(key.Latest()), "modified": "true"}})
}

// Rotating is the name of the key that work is about.
func Rotating(work string) string { return strings.TrimPrefix(work, rotationDir) }

// NextRotation is when a key is rotated by itself: a period after its latest version was made. Zero is never.
func NextRotation(key *keys.Key) time.Time {
	if key.AutoRotate == 0 || MayRotate(key) != nil {
		return time.Time{}
	}
	return key.Version(key.Latest()).Created.Add(key.AutoRotate.Duration())
}

// MayRotate reports by an error that no version of a key may be made here.
func MayRotate(key *keys.Key) error {
	if key.Imported && !key.RotatesImported {
		return conclave.Errorf(conclave.Invalid, "imported key %s does not allow rotation", key.Name)
	}
	return key.Usable()
}

// Fresh is a version that was made before the transaction opened.
type Fresh struct{ Version *keys.Version }

// Prepared is the version of a Fresh that a route has prepared, created at the time of the transaction.
func Prepared(ctx context.Context, tx conclave.Tx) (*keys.Version, error) {
	made, ok := conclave.Prepared[Fresh](ctx)
	if !ok || made.Version == nil {
		return nil, conclave.Errorf(conclave.Internal, "no key was prepared")
	}
	v := *made.Version
	v.Created = tx.Now()
	return &v, nil
}

// Absent is what is gathered of a key that isn't there.
type Absent struct{}

// Settings are what holds for all keys of the mount.
type Settings struct {
	DisableUpsert bool `json:"disable_upsert" doc:"Whether encrypt makes no keys."`
}

// ReadSettings returns the settings, which are shared and must not be changed.
func ReadSettings(view conclave.View) (*Settings, error) {
	loaded, err := view.Load(settingsPath, decodeSettings)
	if settings, ok := loaded.(*Settings); ok {
		return settings, err
	}
	return &Settings{}, err
}

// WriteSettings stores settings.
func WriteSettings(tx conclave.Tx, settings *Settings) error {
	value, err := json.Marshal(settings)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode settings: %w", err)
	}
	return tx.Put(settingsPath, value)
}

func decodeSettings(value []byte) (any, error) {
	settings := &Settings{}
	if json.Unmarshal(value, settings) != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored settings are damaged")
	}
	return settings, nil
}
