// Package transit is the secrets engine that encrypts, signs and authenticates for others with keys that don't leave it.
// It behaves as Vault's HTTP API does. Here keys are made, changed, and come and go; what is done with them is in its package
// use, what they can do in keys, how they travel between vaults in wrap, where they are kept in shelf.
//
// Encryption, decryption and signatures write nothing, so they cost what a read costs. A key is decoded once per change
// of it on each node. What takes long, by the kind of key and the size of a batch, is computed before the transaction
// opens: see use.Operation.
//
// Where things are in the mount's storage:
//
//	keys/<name>    → key with all its versions, as JSON; package keys has the form
//	wrapping-key   → the key of type rsa-4096 that others wrap keys with which they import
//	config/keys    → settings for all keys, as JSON
//	config/cache   → the size that clients have set for a cache, as JSON; nothing follows from it
package transit

import (
	"conclave"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/use"
)

const kind = "transit"

// Limits of this package.
const (
	minAutoRotate = 3600 // seconds
	maxAutoRotate = 100 * 365 * 86400
)

const (
	wrappingPath    = "wrapping-key"
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
	return append(routes, use.Routes()...)
}

func (e Engine) wrappingType() keys.Type {
	if e.wrapping == "" {
		return keys.RSA4096
	}
	return e.wrapping
}
