// Package seal opens and closes the vault: initialisation, shares of the unseal key, auto-unseal, sealing, rotation of
// the data keys.
//
// The root key exists only in locked memory of open nodes. It is stored wrapped: by the unseal key, which exists only
// as shares in their holders' hands, and, with auto-unseal, by the key of the seal as well. The seal blob is plain
// state, bound as a whole by the root key, so that an open node notices when anybody has changed it.
//
// A share is submitted once, to any node. That node recognises it, by its salted hash, before it counts; then it
// passes all it has to the other members, sealed to each member's key. Every node combines for itself. Shares stay in
// memory only, for an hour at most.
package seal
