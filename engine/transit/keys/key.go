// Package keys is what the transit engine knows of cryptography: named keys in versions, what they can do, and how they
// are stored, exported and backed up. All that leaves it (ciphertexts, signatures, digests, exports, backups) has the form
// that Vault's transit engine gives it, so that either reads what the other wrote.
//
// A key that was decoded is shared and isn't changed; Clone makes one that may be. What a version's bytes stand for is
// parsed when it is first used, once.
//
// The primitives come from the standard library and golang.org/x/crypto. Nonces and keys are drawn from crypto/rand.
package keys

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"conclave"
)

// Limits of this package.
const (
	MaxVersions = 5000 // versions of one key that are kept; trim removes old ones
	MaxName     = 256  // bytes of a key's name
)

// convergentVersion is how nonces are derived nowadays: from a key of their own, see nonce.
const convergentVersion = 3

// Key is a named key with all of its versions. Versions are numbered from 1; those below MinAvailable are gone.
type Key struct {
	Name       string `json:"name"`
	Type       Type   `json:"type"`
	Derived    bool   `json:"derived,omitempty"`    // the key itself is never used: each context has one derived from it
	Convergent bool   `json:"convergent,omitempty"` // equal plaintexts have equal ciphertexts
	Size       int    `json:"size,omitempty"`       // bytes of each version of a key of type hmac

	Exportable      bool `json:"exportable,omitempty"`
	PlaintextBackup bool `json:"plaintext_backup,omitempty"`
	DeletionAllowed bool `json:"deletion_allowed,omitempty"`
	SoftDeleted     bool `json:"soft_deleted,omitempty"`

	Imported        bool `json:"imported,omitempty"`         // no version was made here
	RotatesImported bool `json:"rotates_imported,omitempty"` // versions may be made here although the key was imported

	MinDecryption int `json:"min_decryption"`           // oldest version that decrypts and verifies, at least 1
	MinEncryption int `json:"min_encryption,omitempty"` // oldest version that encrypts and signs; 0 for the latest only by default
	MinAvailable  int `json:"min_available,omitempty"`  // oldest version that was kept by the last trim; 0 before any

	AutoRotate conclave.Seconds `json:"auto_rotate,omitempty"` // period; 0 for never
	Backup     *Moment          `json:"backup,omitempty"`      // the last one
	Restore    *Moment          `json:"restore,omitempty"`

	First    int        `json:"first"` // number of Versions[0]
	Versions []*Version `json:"versions"`
}

// Moment is when something was done, and which version was the latest then.
type Moment struct {
	Time    time.Time `json:"time"`
	Version int       `json:"version"`
}

// Version is one version of a key.
type Version struct {
	Created time.Time `json:"created"`
	// Secret is the raw key of an AEAD or for HMAC, the private key of 64 bytes of Ed25519 (RFC 8032: seed, public key), and
	// of ECDSA and RSA the PKCS #8 form. Empty if only the public half is known.
	Secret []byte `json:"secret,omitempty"`
	// Public is the public key in PKIX form, of versions without a secret.
	Public []byte `json:"public,omitempty"`
	// HMAC is the key for HMACs; those of type hmac have none beside Secret.
	HMAC []byte `json:"hmac,omitempty"`
	// Convergent is how nonces are derived; 0 if they aren't.
	Convergent int `json:"convergent,omitempty"`
	// Chain is a certificate for the key and those above it, DER, leaf first.
	Chain [][]byte `json:"chain,omitempty"`

	parsed func() (*material, error)
}

// CheckName holds a new key's name against the rule: letters, digits and "_", with "-" and "." between them.
func CheckName(name string) error {
	for i := range len(name) {
		c := name[i]
		word := c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !word && ((c != '-' && c != '.') || i == 0 || i == len(name)-1) {
			return conclave.Errorf(conclave.Invalid, "a key's name is made of letters, digits and _, with - and . between them")
		}
	}
	if name == "" || len(name) > MaxName {
		return conclave.Errorf(conclave.Invalid, "a key's name has between 1 and %d bytes", MaxName)
	}
	return nil
}

// Encode is the form in which a key is stored: JSON.
func (k *Key) Encode() ([]byte, error) {
	if len(k.Versions) > MaxVersions {
		return nil, conclave.Errorf(conclave.Invalid, "a key has at most %d versions: trim old ones", MaxVersions)
	}
	value, err := json.Marshal(k)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "encode a key: %w", err)
	}
	if len(value) > conclave.MaxValue {
		return nil, conclave.Errorf(conclave.Invalid, "the key's versions take more than %d bytes: trim old ones", conclave.MaxValue)
	}
	return value, nil
}

// Decode is the reverse of Encode.
func Decode(value []byte) (*Key, error) {
	k := &Key{}
	if err := json.Unmarshal(value, k); err != nil || !k.isSound() {
		return nil, conclave.Errorf(conclave.Internal, "the stored record of a key is damaged")
	}
	for _, v := range k.Versions {
		v.prepare(k)
	}
	return k, nil
}

func (k *Key) isSound() bool {
	return k.Name != "" && k.Type.Known() && len(k.Versions) > 0 && len(k.Versions) <= MaxVersions && k.First >= 1 && k.First < 1<<31 &&
		!slices.Contains(k.Versions, nil) && k.MinDecryption >= k.First && k.MinDecryption <= k.Latest() &&
		(k.MinEncryption == 0 || k.MinEncryption >= k.MinDecryption && k.MinEncryption <= k.Latest()) &&
		(!k.Derived || k.Type.Derives()) && (!k.Convergent || k.Derived && k.Type.isAEAD())
}

// prepare has the version parsed when it is first used.
func (v *Version) prepare(k *Key) {
	kind, derived := k.Type, k.Derived
	v.parsed = sync.OnceValues(func() (*material, error) { return v.parse(kind, derived) })
}

// Clone returns a copy that may be changed, but for the versions themselves, which are shared.
func (k *Key) Clone() *Key {
	clone := *k
	clone.Versions = slices.Clone(k.Versions)
	return &clone
}

// Latest is the number of the newest version.
func (k *Key) Latest() int { return k.First + len(k.Versions) - 1 }

// Version returns a version by its number, nil if it isn't kept.
func (k *Key) Version(number int) *Version {
	if number < k.First || number > k.Latest() {
		return nil
	}
	return k.Versions[number-k.First]
}

// Replace puts another version in place of one that is kept. The key must be a clone.
func (k *Key) Replace(number int, v *Version) {
	v.prepare(k)
	k.Versions[number-k.First] = v
}

// Add appends a version. The key must be a clone, or new.
func (k *Key) Add(v *Version) {
	v.prepare(k)
	if k.First == 0 {
		k.First, k.MinDecryption = 1, 1
	}
	if k.Convergent {
		v.Convergent = convergentVersion
	}
	k.Versions = append(k.Versions, v)
}

// Trim removes the versions below a number, which the caller has found to be allowed.
func (k *Key) Trim(oldest int) {
	k.Versions = slices.Clone(k.Versions[max(oldest-k.First, 0):])
	k.First, k.MinAvailable = max(oldest, k.First), oldest
}

// Shown are the numbers of the versions that clients are shown: those that still decrypt.
func (k *Key) Shown() (first, last int) { return max(k.First, k.MinDecryption), k.Latest() }

// errSoftDeleted is Vault's answer.
var errSoftDeleted = conclave.Errorf(conclave.Invalid, "refusing to use soft-deleted key")

// Usable reports by an error that the key is deleted softly.
func (k *Key) Usable() error {
	if k.SoftDeleted {
		return errSoftDeleted
	}
	return nil
}

// newest chooses the version that encrypts, signs or makes an HMAC; 0 is the latest.
func (k *Key) newest(number int, doing string) (*Version, int, error) {
	if err := k.Usable(); err != nil {
		return nil, 0, err
	}
	if number == 0 {
		number = k.Latest()
	}
	switch {
	case number < 0:
		return nil, 0, conclave.Errorf(conclave.Invalid, "requested version for %s is negative", doing)
	case number > k.Latest():
		return nil, 0, conclave.Errorf(conclave.Invalid, "requested version for %s is higher than the latest key version", doing)
	case number < k.MinEncryption:
		return nil, 0, conclave.Errorf(conclave.Invalid, "requested version for %s is less than the minimum encryption key version", doing)
	}
	v := k.Version(number)
	if v == nil {
		return nil, 0, conclave.Errorf(conclave.Invalid, "no such key version")
	}
	return v, number, nil
}

// prefix begins what a version has made.
const prefix = "vault:v"

// mark appends what a version has made begins with: "vault:v1:".
func mark(dst []byte, number int) []byte {
	return append(strconv.AppendInt(append(dst, prefix...), int64(number), 10), ':')
}

// take reads what a version has made apart, and returns the version, which must be one that may still be used, and the
// rest. what names it in errors.
func (k *Key) take(what, text string) (v *Version, number int, payload string, err error) {
	if err := k.Usable(); err != nil {
		return nil, 0, "", err
	}
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return nil, 0, "", conclave.Errorf(conclave.Invalid, "invalid %s: no prefix", what)
	}
	digits, payload, ok := strings.Cut(rest, ":")
	if !ok {
		return nil, 0, "", conclave.Errorf(conclave.Invalid, "invalid %s: wrong number of fields", what)
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return nil, 0, "", conclave.Errorf(conclave.Invalid, "invalid %s: version number could not be decoded", what)
	}
	number = max(int(n), 1) // Vault's first release counted from 0
	switch {
	case number > k.Latest():
		return nil, 0, "", conclave.Errorf(conclave.Invalid, "invalid %s: version is too new", what)
	case number < k.MinDecryption:
		return nil, 0, "", conclave.Errorf(conclave.Invalid, "ciphertext or signature version is disallowed by policy (too old)")
	}
	if v = k.Version(number); v == nil {
		return nil, 0, "", conclave.Errorf(conclave.Invalid, "no such key version")
	}
	return v, number, payload, nil
}
