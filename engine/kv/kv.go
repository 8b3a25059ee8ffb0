// Package kv is the secrets engine for secrets that people bring: version 1 keeps one value per path, version 2 keeps
// versions, with check-and-set, soft deletion and metadata. Both behave as Vault's HTTP API does.
//
// Both versions store a secret at "secrets/<path>" and can tell the other's record by its first byte, so that a mount
// goes from version 1 to 2 by changing its option, and secrets are converted when they are next written. Version 1
// refuses to touch what version 2 wrote.
//
// A read of a small secret's current version costs one Get. The formats are drawn in codec.go.
package kv

import (
	"conclave"
)

const kind = "kv"

// Limits of this package.
const (
	maxVersionsLimit = 10_000  // versions of one secret; the record of a secret must stay below conclave.MaxValue
	defaultVersions  = 10      // versions kept when neither mount nor secret say
	maxScan          = 100_000 // names that one scan returns
	inlineBudget     = 4 << 10 // bytes of data that a secret's record holds beside its metadata
	maxEvictions     = 100     // versions beyond the limit that one write removes; the next write goes on
)

// Where things are in the mount's storage. Names under versions/ are hashes of paths, so that listings and their
// directories' stamps aren't touched by data.
const (
	secretsDir  = "secrets/"
	versionsDir = "versions/"
	configPath  = "config"
)

// Plugin is the engine's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Secrets that you bring; with the option version=2, versions of them.",
		Open: open,
	}
}

func open(options map[string]string) (conclave.Engine, error) {
	switch version := options["version"]; version {
	case "", "1":
		return plain{}, nil
	case "2":
		return versioned{}, nil
	default:
		return nil, conclave.Errorf(conclave.Invalid, "kv has version 1 and 2, not %q", version)
	}
}

// notFound is the plain 404, without a message, that clients take for "no value".
func notFound() error { return &conclave.Error{Kind: conclave.NotFound} }
