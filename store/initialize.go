package store

import (
	"encoding/binary"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
)

// Initialize begins the transaction that makes a vault: its keyring, and all that the caller puts into the system
// space. What an earlier, provisional initialisation left there is dropped by it. The store stays locked.
func (s *Store) Initialize(root RootKey, cluster [16]byte, keyring *crypto.Keyring) (*Tx, error) {
	keys, err := keyring.Root.MarshalBinary()
	if err != nil {
		return nil, err
	}
	u := &unlocked{root: root, cluster: cluster, spaces: newCache[uint64, *openSpace](spaceCacheEntries)}
	system, err := u.open(RootSpace, keys)
	if err != nil {
		return nil, err
	}
	view := s.state.View()
	tx := &Tx{store: fresh(s), unlocked: u, view: view, snapshot: view.Index(), began: s.timeAt(view),
		notBefore: fsm.NotBeforeAny, notAfter: fsm.NotAfterAny}
	tx.store.unlocked.Store(u)
	tx.ring = &ring{version: tx.NextVersion(), keyring: keyring, system: system}
	var drop [9]byte
	drop[0] = fsm.ClassRecord
	binary.BigEndian.PutUint64(drop[1:], RootSpace)
	if err := tx.write(fsm.Write{Op: fsm.DropSpace, Key: fsm.Key(drop[:])}); err != nil {
		tx.Close()
		return nil, err
	}
	if err := tx.PutKeyring(keyring); err != nil {
		tx.Close()
		return nil, err
	}
	return tx, nil
}

// fresh is a store beside s that shares its state and none of its keys and caches.
func fresh(s *Store) *Store { return New(s.state, s.commit, s.now) }

// PutKeyring stores a changed keyring, sealed by the root key. Every transaction reads the keyring, so that none that
// was executed with the old one is judged valid after this.
func (tx *Tx) PutKeyring(keyring *crypto.Keyring) error {
	var sealed []byte
	if err := tx.unlocked.root.Use(func(root *crypto.AEAD) error {
		sealed = keyring.Seal(root, tx.NextVersion(), tx.unlocked.cluster)
		return nil
	}); err != nil {
		return tx.fail(err)
	}
	return tx.PutPlain(KeyringItem, sealed)
}

// PutBound stores a plain item together with a tag of the root key over it, so that nobody without that key can change
// it unnoticed.
func (tx *Tx) PutBound(name string, item []byte) error {
	if len(item) > conclave.MaxValue/2 {
		return tx.fail(conclave.Errorf(conclave.TooLarge, "plain item is too large"))
	}
	var tag []byte
	if err := tx.unlocked.root.Use(func(root *crypto.AEAD) error {
		tag = root.Bind(item)
		return nil
	}); err != nil {
		return tx.fail(err)
	}
	return tx.PutPlain(name, append(binary.BigEndian.AppendUint32(nil, uint32(len(item))), append(item, tag...)...))
}

// SplitBound takes apart what PutBound stored; crypto's AEAD.Bound checks the tag.
func SplitBound(stored []byte) (item, tag []byte, err error) {
	if len(stored) < 4 || uint64(len(stored)-4) < uint64(binary.BigEndian.Uint32(stored)) {
		return nil, nil, errDamaged
	}
	n := 4 + int(binary.BigEndian.Uint32(stored))
	return stored[4:n], stored[n:], nil
}
