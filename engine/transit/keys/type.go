package keys

import (
	"crypto/elliptic"
	"slices"
	"strings"
	"time"

	"conclave"
)

// Type is a kind of key, by the name that clients use.
type Type string

// The kinds of keys.
const (
	AES128   Type = "aes128-gcm96"
	AES256   Type = "aes256-gcm96"
	ChaCha   Type = "chacha20-poly1305"
	XChaCha  Type = "xchacha20-poly1305"
	Ed25519  Type = "ed25519"
	P256     Type = "ecdsa-p256"
	P384     Type = "ecdsa-p384"
	P521     Type = "ecdsa-p521"
	RSA2048  Type = "rsa-2048"
	RSA3072  Type = "rsa-3072"
	RSA4096  Type = "rsa-4096"
	HMACOnly Type = "hmac"
)

// Sizes of keys of type hmac, in bytes.
const (
	MinHMACKey     = 32
	MaxHMACKey     = 512
	defaultHMACKey = 32
)

// traits are what sets a type apart.
type traits struct {
	number int            // in backups, see typeByNumber
	size   int            // bytes of a key for an AEAD; 0 for all others
	curve  elliptic.Curve // ECDSA
	bits   int            // of an RSA modulus
	// private and public are about how long one operation takes, for deciding where it runs; zero is next to nothing.
	private, public time.Duration
}

var table = map[Type]traits{
	AES256:   {number: 0, size: 32},
	P256:     {number: 1, curve: elliptic.P256(), private: 25 * time.Microsecond, public: 70 * time.Microsecond},
	Ed25519:  {number: 2, private: 35 * time.Microsecond, public: 80 * time.Microsecond},
	RSA2048:  {number: 3, bits: 2048, private: 900 * time.Microsecond, public: 40 * time.Microsecond},
	RSA4096:  {number: 4, bits: 4096, private: 5 * time.Millisecond, public: 150 * time.Microsecond},
	ChaCha:   {number: 5, size: 32},
	P384:     {number: 6, curve: elliptic.P384(), private: 250 * time.Microsecond, public: 600 * time.Microsecond},
	P521:     {number: 7, curve: elliptic.P521(), private: 500 * time.Microsecond, public: 1500 * time.Microsecond},
	AES128:   {number: 8, size: 16},
	RSA3072:  {number: 9, bits: 3072, private: 2500 * time.Microsecond, public: 80 * time.Microsecond},
	HMACOnly: {number: 11},
	XChaCha:  {number: 11, size: 32},
}

// Types are the names of all types, in order.
func Types() []string {
	names := make([]string, 0, len(table))
	for t := range table {
		names = append(names, string(t))
	}
	slices.Sort(names)
	return names
}

// OrDefault is the type of a key that is made without naming one.
func (t Type) OrDefault() Type {
	if t == "" {
		return AES256
	}
	return t
}

// Unknown is the error for a type that there is none of.
func (t Type) Unknown() error {
	return conclave.Errorf(conclave.Invalid, "unknown key type %q; there are %s", string(t), strings.Join(Types(), ", "))
}

// Known reports whether there is such a type.
func (t Type) Known() bool { _, known := table[t]; return known }

// isAEAD reports whether the type is a cipher that authenticates.
func (t Type) isAEAD() bool { return table[t].size > 0 }

func (t Type) isRSA() bool { return table[t].bits > 0 }

func (t Type) isECDSA() bool { return table[t].curve != nil }

// IsAsymmetric reports whether keys of the type have a public half.
func (t Type) IsAsymmetric() bool { return t.isRSA() || t.isECDSA() || t == Ed25519 }

// Encrypts reports whether keys of the type encrypt and decrypt.
func (t Type) Encrypts() bool { return t.isAEAD() || t.isRSA() }

// Signs reports whether keys of the type make signatures.
func (t Type) Signs() bool { return t.IsAsymmetric() }

// Derives reports whether keys can be derived from one of the type by a context.
func (t Type) Derives() bool { return t.isAEAD() || t == Ed25519 }

// Authenticates reports whether the type takes associated data.
func (t Type) Authenticates() bool { return t.isAEAD() }

// Agrees reports whether two keys of the type agree on a secret.
func (t Type) Agrees() bool { return t.isECDSA() }

// KeySize is the length of a symmetric key in bytes, 0 for all but the AEADs.
func (t Type) KeySize() int { return table[t].size }

// PrivateCost and PublicCost are about how long an operation with that half of a key takes.
func (t Type) PrivateCost() time.Duration { return table[t].private }

// PublicCost is about how long encrypting or verifying takes.
func (t Type) PublicCost() time.Duration { return table[t].public }

// GenerationCost is about how long it takes to make a key.
func (t Type) GenerationCost() time.Duration {
	if t.isRSA() {
		return 100 * table[t].private
	}
	return table[t].private
}

// typeByNumber finds the type that backups number so. Vault and OpenBao differ: 11 is a key of type hmac in the one, which
// always has a size, and of type xchacha20-poly1305 in the other, which alone has that type; there, 10 is of type hmac.
func typeByNumber(number, size int) (Type, bool) {
	switch {
	case number == 10, number == 11 && size > 0:
		return HMACOnly, true
	case number == 11:
		return XChaCha, true
	}
	for t, traits := range table {
		if traits.number == number {
			return t, true
		}
	}
	return "", false
}
