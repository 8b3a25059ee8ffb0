package issuing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"slices"

	"conclave"
)

var (
	errKeyType       = conclave.Errorf(conclave.Invalid, "unknown key type: rsa, ec and ed25519 are known")
	errKeyBits       = conclave.Errorf(conclave.Invalid, "unsupported key_bits: rsa has 2048, 3072, 4096 and 8192, ec has 224, 256, 384 and 521")
	errSignatureBits = conclave.Errorf(conclave.Invalid, "signature_bits must be 0, 256, 384 or 512")
	errKeyUnsafe     = conclave.Errorf(conclave.Invalid, "the key is of a kind that is not supported, or not safe: RSA keys need 2048 to 8192 bits and an odd exponent of at least 65537")
)

// maxRSABits bounds keys that others have made: checking a signature takes time that grows with its square.
const maxRSABits = 8192

// KeySpec is a kind of key with its size.
type KeySpec struct {
	Type string // "rsa", "ec", "ed25519"
	Bits int
}

// NewKeySpec is the kind of key that clients name, with a usual size for 0 bits.
func NewKeySpec(kind string, bits int) (KeySpec, error) {
	sizes := map[string][]int{"rsa": {2048, 3072, 4096, 8192}, "ec": {256, 224, 384, 521}}[kind]
	switch {
	case kind == "ed25519":
		return KeySpec{"ed25519", 0}, nil
	case sizes == nil:
		return KeySpec{}, errKeyType
	case bits == 0:
		bits = sizes[0]
	case !slices.Contains(sizes, bits):
		return KeySpec{}, errKeyBits
	}
	return KeySpec{kind, bits}, nil
}

// Generate makes a key.
func (s KeySpec) Generate() (crypto.Signer, error) {
	switch s.Type {
	case "rsa":
		return rsa.GenerateKey(rand.Reader, s.Bits)
	case "ec":
		curve := map[int]elliptic.Curve{224: elliptic.P224(), 256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}[s.Bits]
		if curve == nil {
			return nil, errKeyBits
		}
		return ecdsa.GenerateKey(curve, rand.Reader)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, errKeyType
}

// SpecOf is the kind of a public key; what isn't safe to certify is Invalid.
func SpecOf(public crypto.PublicKey) (KeySpec, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits >= 2048 && bits <= maxRSABits && key.E >= 65537 && key.E&1 == 1 && key.N.Bit(0) == 1 {
			return KeySpec{"rsa", bits}, nil
		}
	case *ecdsa.PublicKey:
		// ECDH checks that the point is on the curve, for the curves that it knows; P-224 isn't one of them.
		if _, err := key.ECDH(); err == nil || key.Curve == elliptic.P224() {
			return KeySpec{"ec", key.Curve.Params().BitSize}, nil
		}
	case ed25519.PublicKey:
		if len(key) == ed25519.PublicKeySize {
			return KeySpec{"ed25519", 0}, nil
		}
	}
	return KeySpec{}, errKeyUnsafe
}

// allowsKey holds a CSR's key against the role: of its kind, and of at least its size.
func (r *Role) allowsKey(public crypto.PublicKey) error {
	spec, err := SpecOf(public)
	switch {
	case err != nil:
		return err
	case r.KeyType != "any" && r.KeyType != spec.Type:
		return conclave.Errorf(conclave.Invalid, "role requires keys of type %s", r.KeyType)
	case r.KeyType != "any" && spec.Bits < r.KeyBits:
		return conclave.Errorf(conclave.Invalid, "role requires a minimum of a %d-bit key, but CSR's key is %d bits", r.KeyBits, spec.Bits)
	}
	return nil
}

// Serial makes a certificate's serial number: 159 random bits (RFC 5280, 4.1.2.2, allows 20 octets and no negative ones).
func Serial() (*big.Int, error) {
	for {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
		if err != nil || serial.BitLen() > 64 {
			return serial, err
		}
	}
}

// KeyID is the key identifier of a public key: method 1 of RFC 7093, the first 160 bits of the SHA-256 of its bits.
func KeyID(public crypto.PublicKey) ([]byte, error) {
	var bits []byte
	var err error
	switch key := public.(type) {
	case *rsa.PublicKey:
		bits = x509.MarshalPKCS1PublicKey(key)
	case *ecdsa.PublicKey:
		bits, err = key.Bytes()
	case ed25519.PublicKey:
		bits = key
	default:
		err = errKeyUnsafe
	}
	if err != nil {
		return nil, errKeyUnsafe
	}
	sum := sha256.Sum256(bits)
	return sum[:20], nil
}
