package crypto

import (
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
)

// MaxAuditKeys bounds the audit data keys that a keyring has at once.
const MaxAuditKeys = 1024

// Keyring is what the root key opens: everything a node needs to be unsealed. It is mutable and not safe for concurrent use; change a
// Clone and swap it in.
type Keyring struct {
	redacted
	Term           uint32             // counts rotations, from 1
	Root           *SpaceKeys         // of the root namespace's system space
	AuditData      map[uint32]Key     // epoch, from 1 → key of that epoch's records
	AuditActive    uint32             // the epoch that is written: the highest
	AuditHMAC      Key                // salt of hmac-sha256: values; never changes, or old records couldn't be searched
	AuditPrivate   []byte             // HPKE private key, HPKEPrivateSize bytes, for records of sealed nodes
	ClusterPrivate ed25519.PrivateKey // signs the list of members
	TokenKey       Key
	Installed      []TermInfo // the newest MaxTerms terms, ascending; the last is Term
}

// TermInfo says when a term was installed, by cluster time.
type TermInfo struct {
	Term        uint32
	UnixSeconds int64
}

const formatKeyring = 1

// NewKeyring makes the keyring of a new cluster, at term 1 and audit epoch 1. now is in Unix seconds.
func NewKeyring(random io.Reader, now int64) (*Keyring, error) {
	root, err := NewSpaceKeys(random)
	if err != nil {
		return nil, err
	}
	var auditData, auditHMAC, auditPrivate, clusterSeed, token Key
	for _, k := range []*Key{&auditData, &auditHMAC, &auditPrivate, &clusterSeed, &token} {
		if *k, err = NewKey(random); err != nil {
			return nil, err
		}
	}
	return &Keyring{
		Term:           1,
		Root:           root,
		AuditData:      map[uint32]Key{1: auditData},
		AuditActive:    1,
		AuditHMAC:      auditHMAC,
		AuditPrivate:   auditPrivate[:],
		ClusterPrivate: ed25519.NewKeyFromSeed(clusterSeed[:]),
		TokenKey:       token,
		Installed:      []TermInfo{{Term: 1, UnixSeconds: now}},
	}, nil
}

// Rotate begins a new term: a new data key for the root space and a new one for audit records. Keys of namespaces and mounts are values
// below Root; who rotates those calls SpaceKeys.Rotate on each. On an error nothing has changed.
func (k *Keyring) Rotate(random io.Reader, now int64) error {
	if k.Term == math.MaxUint32 {
		return ErrTooManyTerms
	}
	root, next := k.Root.Clone(), &Keyring{AuditData: maps.Clone(k.AuditData), AuditActive: k.AuditActive}
	if err := root.Rotate(random); err != nil {
		return err
	}
	if err := next.RotateAudit(random); err != nil {
		return err
	}
	k.Root, k.AuditData, k.AuditActive = root, next.AuditData, next.AuditActive
	k.Term++
	k.Installed = append(k.Installed, TermInfo{Term: k.Term, UnixSeconds: now})
	if extra := len(k.Installed) - MaxTerms; extra > 0 {
		k.Installed = slices.Delete(k.Installed, 0, extra)
	}
	return nil
}

// RotateAudit adds the key of epoch AuditActive+1 and makes it the active one. On an error nothing has changed.
func (k *Keyring) RotateAudit(random io.Reader) error {
	if len(k.AuditData) >= MaxAuditKeys || k.AuditActive == math.MaxUint32 {
		return ErrTooManyTerms
	}
	key, err := NewKey(random)
	if err != nil {
		return err
	}
	k.AuditActive++
	k.AuditData[k.AuditActive] = key
	return nil
}

// DropAudit destroys the key of a closed epoch, and with it what that epoch's stored records say.
func (k *Keyring) DropAudit(epoch uint32) error { return dropKey(k.AuditData, epoch, k.AuditActive) }

// DropAuditBefore destroys the keys of audit records that weren't active any more at a time, in Unix seconds of cluster time,
// and returns how many. It drops none of a keyring whose audit keys weren't made by Rotate alone, for it can't tell their age.
func (k *Keyring) DropAuditBefore(at int64) (dropped int) {
	if k.AuditActive != k.Term || len(k.Installed) == 0 {
		return 0
	}
	for epoch := range k.AuditData {
		next := k.Installed[0] // what is older than all that are listed was replaced before the first of them
		if i, listed := slices.BinarySearchFunc(k.Installed, epoch+1, func(t TermInfo, term uint32) int { return cmp.Compare(t.Term, term) }); listed {
			next = k.Installed[i]
		}
		if epoch != k.AuditActive && next.UnixSeconds < at && k.DropAudit(epoch) == nil {
			dropped++
		}
	}
	return dropped
}

// Clone is a deep copy.
func (k *Keyring) Clone() *Keyring {
	c := *k
	c.Root = k.Root.Clone()
	c.AuditData = maps.Clone(k.AuditData)
	c.AuditPrivate = slices.Clone(k.AuditPrivate)
	c.ClusterPrivate = slices.Clone(k.ClusterPrivate)
	c.Installed = slices.Clone(k.Installed)
	return &c
}

// Wipe overwrites the keys. Copies that others hold are theirs to wipe.
func (k *Keyring) Wipe() {
	if k.Root != nil {
		k.Root.Wipe()
	}
	wipeKeys(k.AuditData)
	for _, b := range [][]byte{k.AuditHMAC[:], k.AuditPrivate, k.ClusterPrivate, k.TokenKey[:]} {
		Wipe(b)
	}
}

// MarshalBinary returns the one encoding of k, or ErrFormat if k breaks its own rules.
//
//	format 1 (1 byte) ‖ term (4)
//	‖ length (4) ‖ root: SpaceKeys
//	‖ audit active (4) ‖ count (2) ‖ count × { epoch (4) ‖ key (32) }
//	‖ audit HMAC (32) ‖ audit private (32) ‖ seed of the cluster key (32) ‖ token key (32)
//	‖ count (2) ‖ count × { term (4) ‖ unix seconds, two's complement (8) }
//
// Integers are big-endian. Epochs and terms ascend strictly from 1 or more; the last are audit active and term. 1 ≤ counts ≤ 1024 and 64.
func (k *Keyring) MarshalBinary() ([]byte, error) {
	if k.Root == nil || len(k.AuditPrivate) != HPKEPrivateSize || len(k.ClusterPrivate) != ed25519.PrivateKeySize ||
		!validTerms(k.Installed, k.Term) {
		return nil, ErrFormat
	}
	root, err := k.Root.MarshalBinary()
	if err != nil {
		return nil, err
	}
	defer Wipe(root)
	// Room for everything at once: growing would leave copies of keys behind.
	b := make([]byte, 0, 256+len(root)+len(k.AuditData)*(4+KeySize)+len(k.Installed)*12)
	b = append(b, formatKeyring)
	b = binary.BigEndian.AppendUint32(b, k.Term)
	b = appendField(b, root)
	b = binary.BigEndian.AppendUint32(b, k.AuditActive)
	if b, err = appendKeys(b, k.AuditData, MaxAuditKeys, k.AuditActive); err != nil {
		return nil, err
	}
	b = append(b, k.AuditHMAC[:]...)
	b = append(b, k.AuditPrivate...)
	b = append(b, k.ClusterPrivate[:ed25519.SeedSize]...)
	b = append(b, k.TokenKey[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(k.Installed)))
	for _, t := range k.Installed {
		b = binary.BigEndian.AppendUint32(b, t.Term)
		b = binary.BigEndian.AppendUint64(b, uint64(t.UnixSeconds))
	}
	return b, nil
}

// UnmarshalBinary is the inverse of MarshalBinary. Anything else is ErrFormat, and leaves k as it was.
func (k *Keyring) UnmarshalBinary(b []byte) error {
	r := reader{rest: b}
	format := r.uint8()
	n := Keyring{Term: r.uint32(), Root: new(SpaceKeys)}
	// Compared before it is converted, so that a huge length isn't negative on 32 bits.
	length := r.uint32()
	if uint64(length) > uint64(len(r.rest)) || n.Root.UnmarshalBinary(r.take(int(length))) != nil {
		return ErrFormat
	}
	n.AuditActive = r.uint32()
	n.AuditData = r.keys(int(r.uint16()), MaxAuditKeys, n.AuditActive)
	n.AuditHMAC = r.key()
	n.AuditPrivate = slices.Clone(r.take(HPKEPrivateSize))
	seed := r.key()
	n.TokenKey = r.key()
	for range min(int(r.uint16()), MaxTerms+1) {
		n.Installed = append(n.Installed, TermInfo{Term: r.uint32(), UnixSeconds: int64(r.uint64())})
	}
	if !r.ok() || format != formatKeyring || !validTerms(n.Installed, n.Term) {
		return ErrFormat
	}
	n.ClusterPrivate = ed25519.NewKeyFromSeed(seed[:])
	*k = n
	return nil
}

// Seal returns the keyring as a box that opens only in this cluster and as this version. It panics if k breaks its own rules, which
// no method here makes it do.
func (k *Keyring) Seal(root *AEAD, version uint64, cluster [16]byte) []byte {
	b, err := k.MarshalBinary()
	if err != nil {
		panic("crypto: seal a keyring that breaks its rules")
	}
	defer Wipe(b)
	return root.Seal(nil, b, keyringAdditional(version, cluster))
}

// OpenKeyring opens what Seal made with the same root key, version and cluster; otherwise ErrOpen.
func OpenKeyring(root *AEAD, version uint64, cluster [16]byte, box []byte) (*Keyring, error) {
	b, err := root.Open(nil, box, keyringAdditional(version, cluster))
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	defer Wipe(b)
	k := new(Keyring)
	if k.UnmarshalBinary(b) != nil {
		return nil, fmt.Errorf("open keyring: %w", ErrOpen)
	}
	return k, nil
}

func keyringAdditional(version uint64, cluster [16]byte) []byte {
	b := appendField(nil, "keyring")
	b = appendField(b, cluster[:])
	return appendField(b, binary.BigEndian.AppendUint64(nil, version))
}

// validTerms reports that terms ascend strictly from 1 or more, end in last, and are neither none nor too many.
func validTerms(terms []TermInfo, last uint32) bool {
	previous := uint32(0)
	for _, t := range terms {
		if t.Term <= previous {
			return false
		}
		previous = t.Term
	}
	return len(terms) >= 1 && len(terms) <= MaxTerms && previous == last
}
