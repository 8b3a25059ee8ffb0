package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"conclave"
)

// Limits of keys.
const (
	maxKeys    = 100  // of one set
	minRSABits = 2048 // NIST SP 800-131A
	maxRSABits = 8192 // beyond, verifying takes too long
)

var (
	errPEM    = conclave.Errorf(conclave.Invalid, "not a public key or certificate in PEM")
	errWeak   = conclave.Errorf(conclave.Invalid, "RSA keys have between %d and %d bits", minRSABits, maxRSABits)
	errKind   = conclave.Errorf(conclave.Invalid, "public keys are RSA, ECDSA on P-256, P-384 or P-521, or Ed25519")
	errSet    = conclave.Errorf(conclave.Invalid, "malformed set of keys")
	errNoKeys = conclave.Errorf(conclave.Invalid, "the set of keys has none for signatures")
)

// Key is a public key.
type Key struct {
	ID        string // empty if it has no name
	Algorithm string // empty if it may be used with all that its kind allows
	Public    crypto.PublicKey
}

// fits reports whether the key may be the one that a token was signed with.
func (k Key) fits(t *Token) bool {
	if k.ID != "" && t.KeyID != "" && k.ID != t.KeyID || k.Algorithm != "" && k.Algorithm != t.Algorithm {
		return false
	}
	switch public := k.Public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(t.Algorithm, "RS") || strings.HasPrefix(t.Algorithm, "PS")
	case *ecdsa.PublicKey:
		return curves[t.Algorithm] == public.Curve
	case ed25519.PublicKey:
		return t.Algorithm == "EdDSA"
	}
	return false
}

// curves are the ones that RFC 7518 section 3.4 ties to an algorithm: name → curve.
var curves = map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}

func checkPublic(public crypto.PublicKey) error {
	switch public := public.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return errWeak
		}
		return nil
	case *ecdsa.PublicKey:
		for _, curve := range curves {
			if public.Curve == curve {
				return nil
			}
		}
	case ed25519.PublicKey:
		return nil
	}
	return errKind
}

// ParsePEM reads one public key or the key of one certificate. Text around it is not allowed, nor is a second block.
func ParsePEM(text string) (Key, error) {
	block, rest := pem.Decode([]byte(strings.TrimSpace(text)))
	if block == nil || len(rest) > 0 {
		return Key{}, errPEM
	}
	var public crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			public = certificate.PublicKey
		}
	default:
		return Key{}, errPEM
	}
	if err != nil {
		return Key{}, errPEM
	}
	return Key{Public: public}, checkPublic(public)
}

// ParseSet reads a JSON Web Key Set (RFC 7517 section 5). Keys of unknown kinds, for encryption, too weak, shared or
// private ones are left out, as that section asks for; a set without any other is an error.
func ParseSet(data []byte) ([]Key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil || len(set.Keys) > maxKeys {
		return nil, errSet
	}
	var keys []Key
	for _, member := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(member) != nil || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
			continue
		}
		if len(key.KeyID) <= maxKeyID && checkPublic(key.Key) == nil {
			keys = append(keys, Key{key.KeyID, key.Algorithm, key.Key})
		}
	}
	if len(keys) == 0 {
		return nil, errNoKeys
	}
	return keys, nil
}
