// Package transit is the secrets engine that encrypts, signs and authenticates for others with keys that don't leave it.
// It behaves as Vault's HTTP API does; what keys can do is in its package keys, how they travel between vaults in wrap.
//
// Encryption, decryption and signatures write nothing, so they cost what a read costs. A key is decoded once per change
// of it on each node. What takes long, by the kind of key and the size of a batch, is computed before the transaction
// opens: see operation.
//
// Where things are in the mount's storage:
//
//	keys/<name>    → key with all its versions, as JSON; package keys has the form
//	wrapping-key   → the key of type rsa-4096 that others wrap keys with which they import
//	config/keys    → settings for all keys, as JSON
//	config/cache   → the size that clients have set for a cache, as JSON; nothing follows from it
package transit

import (
	"strconv"

	"conclave"
	"conclave/engine/transit/keys"
)

const kind = "transit"

// Limits of this package.
const (
	maxBatch      = 10_000    // items of one batch
	maxRandom     = 128 << 10 // bytes that one request draws
	minAutoRotate = 3600      // seconds
	maxAutoRotate = 100 * 365 * 86400
)

const (
	keysDir         = "keys/"
	wrappingPath    = "wrapping-key"
	keysConfigPath  = "config/keys"
	cacheConfigPath = "config/cache"
)

// Plugin is the engine's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Encryption, signatures and HMACs with keys that stay in the vault.",
		Open: func(map[string]string) (conclave.Engine, error) { return Engine{}, nil },
	}
}

// Engine serves the routes. It has no state.
type Engine struct {
	wrapping keys.Type // of the wrapping key, if it isn't to be rsa-4096
}

var _ conclave.Worker = Engine{}

// Kind is "transit".
func (Engine) Kind() string { return kind }

// Routes are those of keys and of what is done with them.
func (e Engine) Routes() []conclave.Route {
	routes := keyRoutes()
	routes = append(routes, configRoutes()...)
	routes = append(routes, exportRoutes()...)
	routes = append(routes, e.importRoutes()...)
	routes = append(routes, certificateRoutes()...)
	routes = append(routes, agreeRoutes()...)
	routes = append(routes, cipherRoutes()...)
	routes = append(routes, signRoutes()...)
	return append(routes, digestRoutes()...)
}

func (e Engine) wrappingType() keys.Type {
	if e.wrapping == "" {
		return keys.RSA4096
	}
	return e.wrapping
}

// decodeKey is for View.Load.
func decodeKey(value []byte) (any, error) { return keys.Decode(value) }

// find returns the key of a name, nil if there is none. It is shared and must not be changed.
func find(view conclave.View, name string) (*keys.Key, error) {
	if keys.CheckName(name) != nil {
		return nil, nil // no key has such a name
	}
	loaded, err := view.Load(keysDir+name, decodeKey)
	key, _ := loaded.(*keys.Key)
	return key, err
}

// existing is find for routes that need a key: without one, the answer is that of Vault, 400.
func existing(view conclave.View, name string) (*keys.Key, error) {
	key, err := find(view, name)
	if err == nil && key == nil {
		err = errNoKey
	}
	return key, err
}

var errNoKey = conclave.Errorf(conclave.Invalid, "encryption key not found")

// save stores a key under its name, in place of old, which is nil if there is none, and sets when it is rotated next. what
// is what happened to the key, for those who hear of it.
func save(tx conclave.Tx, what string, old, key *keys.Key) error {
	value, err := key.Encode()
	if err != nil {
		return err
	}
	if old != nil && old.AutoRotate != 0 || key.AutoRotate != 0 {
		if err := tx.Wake(rotationOf(key.Name), nextRotation(key)); err != nil {
			return err
		}
	}
	if err := tx.Put(keysDir+key.Name, value); err != nil {
		return err
	}
	return emit(tx, what, key)
}

// emit tells what happened to a key.
func emit(tx conclave.Tx, what string, key *keys.Key) error {
	return tx.Emit(conclave.Event{Type: "transit/" + what, Path: keysDir + key.Name, Metadata: map[string]string{
		"operation": what, "latest_version": strconv.Itoa(key.Latest()), "modified": "true"}})
}
