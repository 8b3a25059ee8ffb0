// Package crypto holds every key and every cipher of Conclave. It is pure: no storage, no clock, no network, no goroutine, and randomness
// for keys is passed in. Nonces alone come straight from crypto/rand, whose failure ends the process.
//
// The key tree, from what people hold down to what is on disk:
//
//	shares                      Split, Combine: Shamir over GF(2^8), byte-compatible with Vault's
//	└─ unseal key               never stored; WrapRootKey
//	   └─ root key              NewAEAD; held in an Arena
//	      ├─ seal blob          AEAD.Bind: bound as a whole
//	      └─ Keyring            Keyring.Seal, numbered versions
//	         ├─ audit keys      data key per epoch, HMAC key, HPKE private key
//	         ├─ cluster key     Ed25519: signs the list of members
//	         ├─ token key       for whoever looks tokens up
//	         └─ SpaceKeys       of the root namespace's system space
//	            └─ SpaceKeys    of each namespace and mount, stored as values of the space above
//	               ├─ name key  NameKey.Child: paths become chains of 16-byte tokens
//	               └─ data keys one per term; the active one seals, the others only open
//
// Invariants:
//
//   - One primitive seals everything symmetric: XAES-256-GCM (https://c2sp.org/XAES-256-GCM), a fresh random 24-byte nonce and so a fresh
//     derived key for each message. No message counter has to be kept, on any node, across any crash.
//   - Additional data says what a box is and where it belongs, every field with its length before it. A box that is cut, flipped,
//     swapped with another, or shown for another version is an error.
//   - All reasons for not opening are one error, ErrOpen. No input makes a function of this package that opens or decodes panic.
//   - Stored formats begin with a format byte, are canonical (one encoding for a value) and bounded.
//   - A type that holds a key prints and marshals as [redacted].
//   - The code asks the standard library for AES, GCM, HMAC, SHA-2, Ed25519 and HPKE; only the GF(2^8) arithmetic of Shamir's scheme and
//     the few lines of XAES's key derivation are here. It runs with GODEBUG=fips140=on; it does not run with fips140=only, where GCM
//     refuses nonces that its caller chose.
//
// What it will not do: decide who may use a key, remember which version is current, or keep an intruder who reads this process's memory
// from finding cipher state. The Arena keeps root and unseal keys out of swap and core dumps; expanded AES keys live on Go's heap and go
// with the process.
package crypto
