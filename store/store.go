package store

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
)

// Limits of the caches, in entries of one generation; a cache holds at most two.
const (
	pathCacheEntries    = 32_768
	decodedCacheEntries = 16_384
	listingCacheEntries = 1_024
	spaceCacheEntries   = 8_192
	maxCachedListing    = 16_384 // names; longer listings are decrypted anew
)

// RootSpace is the id of the root namespace's system space. Its keys are in the keyring.
const RootSpace = 1

// KeyringItem is the plain item that holds the sealed keyring.
const KeyringItem = "keyring"

// Committer sends a transaction to the cluster and returns how it was judged.
type Committer interface {
	Commit(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error)
	// CommitUrgent does so in a lane of its own.
	CommitUrgent(ctx context.Context, tx *fsm.Transaction) (fsm.Outcome, error)
}

// State is the replicated state that transactions are executed on.
type State interface {
	View() *fsm.View
	WaitApplied(ctx context.Context, index uint64) error
}

// Store opens transactions. It is safe for concurrent use. While locked it holds no key and opens nothing.
type Store struct {
	state  State
	commit Committer
	now    func() time.Time
	own    OwnRecords // nil until RecordOwn

	unlocked atomic.Pointer[unlocked]
	paths    *cache[pathKey, *place]
	decoded  *cache[decodedKey, decoded]
	listings *cache[listingKey, []string]
}

// RootKey lends the cipher of the root key for as long as use runs. The key itself stays in locked memory.
type RootKey interface {
	Use(use func(*crypto.AEAD) error) error
}

// unlocked is all that an open vault holds and a sealed one doesn't.
type unlocked struct {
	root    RootKey
	cluster [16]byte
	ring    atomic.Pointer[ring]
	spaces  *cache[uint64, *openSpace]
}

// ring is the keyring of one version.
type ring struct {
	version uint64
	keyring *crypto.Keyring
	system  *openSpace
}

// openSpace is a space with its ciphers ready.
type openSpace struct {
	id     uint64
	keys   []byte // the record that it was opened from
	cipher *crypto.Space
}

// New makes a locked store. now is cluster time.
func New(state State, commit Committer, now func() time.Time) *Store {
	return &Store{state: state, commit: commit, now: now,
		paths:    newCache[pathKey, *place](pathCacheEntries),
		decoded:  newCache[decodedKey, decoded](decodedCacheEntries),
		listings: newCache[listingKey, []string](listingCacheEntries)}
}

// Unlock lets transactions begin. The keyring is opened with root at once, so that a
// wrong key is an error here.
func (s *Store) Unlock(root RootKey, cluster [16]byte) error {
	u := &unlocked{root: root, cluster: cluster, spaces: newCache[uint64, *openSpace](spaceCacheEntries)}
	view := s.state.View()
	defer view.Release()
	if _, err := u.ringAt(view); err != nil {
		return err
	}
	s.unlocked.Store(u)
	return nil
}

// Lock forgets all keys and all that was decrypted with them. Transactions in flight fail as sealed when they commit.
func (s *Store) Lock() {
	s.unlocked.Store(nil)
	s.paths.clear()
	s.decoded.clear()
	s.listings.clear()
}

// Locked reports whether the store holds no keys.
func (s *Store) Locked() bool { return s.unlocked.Load() == nil }

// WaitApplied waits until this node has applied index.
func (s *Store) WaitApplied(ctx context.Context, index uint64) error {
	return s.state.WaitApplied(ctx, index)
}

// Begin opens a transaction on the newest state that this node has applied. It must be closed.
func (s *Store) Begin() (*Tx, error) {
	u := s.unlocked.Load()
	if u == nil {
		return nil, conclave.Errorf(conclave.Sealed, "Vault is sealed")
	}
	view := s.state.View()
	r, err := u.ringAt(view)
	if err != nil {
		view.Release()
		return nil, err
	}
	tx := &Tx{store: s, unlocked: u, view: view, ring: r, snapshot: view.Index(), began: s.timeAt(view),
		notBefore: fsm.NotBeforeAny, notAfter: fsm.NotAfterAny}
	tx.note(PlainKey(KeyringItem), r.version)
	return tx, nil
}

// timeAt is cluster time, never before what a view has seen of it.
func (s *Store) timeAt(view *fsm.View) time.Time {
	now, seen := s.now(), time.Unix(0, view.Time())
	if seen.After(now) {
		return seen
	}
	return now
}

// ringAt returns the keyring as of view, decoding it when it has changed.
func (u *unlocked) ringAt(view *fsm.View) (*ring, error) {
	version, sealed, err := view.Get(PlainKey(KeyringItem))
	if err != nil {
		return nil, err
	}
	if r := u.ring.Load(); r != nil && r.version == version {
		return r, nil
	}
	if version == 0 {
		return nil, conclave.Errorf(conclave.Sealed, "Vault is not initialized")
	}
	var keyring *crypto.Keyring
	err = u.root.Use(func(root *crypto.AEAD) (err error) {
		keyring, err = crypto.OpenKeyring(root, version, u.cluster, sealed)
		return err
	})
	if err != nil {
		return nil, conclave.Errorf(conclave.Sealed, "the root key does not open the keyring: Vault must be unsealed again")
	}
	keys, err := keyring.Root.MarshalBinary()
	if err != nil {
		return nil, err
	}
	system, err := u.open(RootSpace, keys)
	if err != nil {
		return nil, err
	}
	r := &ring{version: version, keyring: keyring, system: system}
	u.ring.Store(r)
	return r, nil
}

// open returns the space with its ciphers, from the cache while its keys are the same.
func (u *unlocked) open(id uint64, keys []byte) (*openSpace, error) {
	if cached, ok := u.spaces.get(id); ok && bytes.Equal(cached.keys, keys) {
		return cached, nil
	}
	var decoded crypto.SpaceKeys
	if err := decoded.UnmarshalBinary(keys); err != nil {
		return nil, err
	}
	cipher, err := crypto.OpenSpace(crypto.Scope{Cluster: u.cluster, Space: id}, &decoded)
	if err != nil {
		return nil, err
	}
	space := &openSpace{id: id, keys: bytes.Clone(keys), cipher: cipher}
	u.spaces.set(id, space)
	return space, nil
}

// PlainKey is the key of a plain item.
func PlainKey(name string) fsm.Key { return fsm.Key(string(fsm.ClassPlain) + name) }
