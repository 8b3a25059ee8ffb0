//go:build unix && !linux

package crypto

// keepPrivate does nothing: only Linux can leave memory out of core dumps, or wipe it on fork, by advice. Harden rules dumps out.
func keepPrivate([]byte) error { return nil }

// Harden makes this process leave no core dump. It cannot be undone.
func Harden() error { return noCoreDump() }
