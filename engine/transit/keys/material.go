package keys

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"conclave"
)

// material is what a version's bytes stand for.
type material struct {
	aead    cipher.AEAD       // of a key that isn't derived; it draws its nonces for AES
	private crypto.Signer     // nil if only the public half is known
	public  crypto.PublicKey  // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	rsa     *rsa.PrivateKey   // private, if it is that
	ecdsa   *ecdsa.PrivateKey // private, if it is that
}

const hmacBytes = 32 // of the HMAC key that each version has

// Generate makes a new version of a key of the type; size is that of a key of type hmac, 0 for the default.
func Generate(kind Type, size int, now time.Time) (*Version, error) {
	v := &Version{Created: now}
	var err error
	switch {
	case kind.isAEAD():
		v.Secret = randomBytes(kind.KeySize())
	case kind == HMACOnly:
		if size == 0 {
			size = defaultHMACKey
		}
		v.Secret = randomBytes(size)
		return v, nil
	case kind == Ed25519:
		_, v.Secret, err = ed25519.GenerateKey(rand.Reader)
	case kind.isECDSA():
		var key *ecdsa.PrivateKey
		if key, err = ecdsa.GenerateKey(table[kind].curve, rand.Reader); err == nil {
			v.Secret, err = x509.MarshalPKCS8PrivateKey(key)
		}
	case kind.isRSA():
		var key *rsa.PrivateKey
		if key, err = rsa.GenerateKey(rand.Reader, table[kind].bits); err == nil {
			v.Secret, err = x509.MarshalPKCS8PrivateKey(key)
		}
	}
	if err != nil || v.Secret == nil {
		return nil, conclave.Errorf(conclave.Internal, "generate a key of type %s: %w", kind, err)
	}
	v.HMAC = randomBytes(hmacBytes)
	return v, nil
}

// randomBytes never fails: crypto/rand ends the process if there is no randomness.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// FromSecret makes a version of what somebody brings: a raw key, or a private key in PKCS #8 form.
func FromSecret(kind Type, secret []byte, now time.Time) (*Version, error) {
	v := &Version{Created: now, Secret: bytes.Clone(secret)}
	switch {
	case kind.isAEAD() && len(secret) != kind.KeySize(),
		kind == HMACOnly && (len(secret) < MinHMACKey || len(secret) > MaxHMACKey):
		return nil, conclave.Errorf(conclave.Invalid, "invalid key size %d bytes for key type %s", len(secret), kind)
	case kind == HMACOnly:
		return v, nil
	case kind.IsAsymmetric():
		key, err := parsePrivate(secret)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "what is imported is no private key in PKCS #8 form")
		}
		if err := checkPublic(kind, publicOf(key)); err != nil {
			return nil, err
		}
		if ed, ok := key.(ed25519.PrivateKey); ok {
			v.Secret = bytes.Clone(ed)
		} else if v.Secret, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "the private key can't be kept")
		}
	}
	v.HMAC = randomBytes(hmacBytes)
	return v, nil
}

// FromPublic makes a version of a public key alone, in PEM.
func FromPublic(kind Type, text string, now time.Time) (*Version, error) {
	if !kind.IsAsymmetric() {
		return nil, conclave.Errorf(conclave.Invalid, "keys of type %s have no public half to import", kind)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, conclave.Errorf(conclave.Invalid, "the public key isn't in PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the public key isn't in PKIX form")
	}
	if err := checkPublic(kind, public); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the public key can't be kept")
	}
	return &Version{Created: now, Public: der, HMAC: randomBytes(hmacBytes)}, nil
}

// pssOID names RSA keys that are for PSS only (RFC 4055); such keys are written by some tools.
var pssOID = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}

// parsePrivate reads PKCS #8, also of RSA keys that are marked to be for PSS only.
func parsePrivate(der []byte) (any, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err == nil {
		return key, nil
	}
	var outer struct {
		Version   int
		Algorithm struct {
			OID        asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Key []byte
	}
	if _, failed := asn1.Unmarshal(der, &outer); failed == nil && outer.Algorithm.OID.Equal(pssOID) {
		return x509.ParsePKCS1PrivateKey(outer.Key)
	}
	return nil, err
}

func publicOf(key any) crypto.PublicKey {
	if signer, ok := key.(crypto.Signer); ok {
		return signer.Public()
	}
	return nil
}

// checkPublic reports by an error that a public key isn't of the type.
func checkPublic(kind Type, public crypto.PublicKey) error {
	fits := false
	switch public := public.(type) {
	case *rsa.PublicKey:
		fits = kind.isRSA() && public.N.BitLen() == table[kind].bits
	case *ecdsa.PublicKey:
		fits = kind.isECDSA() && public.Curve == table[kind].curve
	case ed25519.PublicKey:
		fits = kind == Ed25519
	}
	if !fits {
		return conclave.Errorf(conclave.Invalid, "the key that is given isn't of type %s", kind)
	}
	return nil
}

// parse reads the version's bytes.
func (v *Version) parse(kind Type, derived bool) (*material, error) {
	m := &material{}
	var err error
	switch {
	case kind == HMACOnly:
		if len(v.Secret) < MinHMACKey {
			return nil, errDamaged
		}
	case kind.isAEAD():
		if len(v.Secret) != kind.KeySize() {
			return nil, errDamaged
		}
		if !derived {
			m.aead, err = newAEAD(kind, v.Secret, true)
		}
	case kind == Ed25519 && len(v.Secret) > 0:
		if len(v.Secret) != ed25519.PrivateKeySize {
			return nil, errDamaged
		}
		m.private = ed25519.PrivateKey(v.Secret)
	case len(v.Secret) > 0:
		var key any
		if key, err = x509.ParsePKCS8PrivateKey(v.Secret); err != nil {
			return nil, errDamaged
		}
		m.private, _ = key.(crypto.Signer)
		m.rsa, _ = key.(*rsa.PrivateKey)
		m.ecdsa, _ = key.(*ecdsa.PrivateKey)
	default:
		if m.public, err = x509.ParsePKIXPublicKey(v.Public); err != nil {
			return nil, errDamaged
		}
	}
	if m.private != nil {
		m.public = m.private.Public()
	}
	if err == nil && kind.IsAsymmetric() {
		err = checkPublic(kind, m.public)
	}
	if err != nil {
		return nil, errDamaged
	}
	return m, nil
}

var errDamaged = conclave.Errorf(conclave.Internal, "the stored form of a key is damaged")

// newAEAD returns the cipher of a type. With ownNonce, AES draws its nonces itself, as FIPS 140 wants it, and takes and
// gives them in front of the ciphertext.
func newAEAD(kind Type, key []byte, ownNonce bool) (cipher.AEAD, error) {
	switch kind {
	case ChaCha:
		return chacha20poly1305.New(key)
	case XChaCha:
		return chacha20poly1305.NewX(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if ownNonce {
		return cipher.NewGCMWithRandomNonce(block)
	}
	return cipher.NewGCM(block)
}

// HasPrivate reports whether a version has its private half, or is a symmetric key.
func (v *Version) HasPrivate() bool { return len(v.Secret) > 0 }

// PublicKey is the public half: *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey; nil for symmetric keys.
func (v *Version) PublicKey() (crypto.PublicKey, error) {
	m, err := v.parsed()
	if err != nil {
		return nil, err
	}
	return m.public, nil
}

// Signer is the private half of an asymmetric key that isn't derived.
func (v *Version) Signer() (crypto.Signer, error) {
	m, err := v.parsed()
	if err != nil {
		return nil, err
	}
	if m.private == nil {
		return nil, errNoPrivate
	}
	return m.private, nil
}

var errNoPrivate = conclave.Errorf(conclave.Invalid, "the key's version has no private half")
