package issuing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"io"

	"conclave"
)

func validHash(bits int) bool { return bits == 0 || bits == 256 || bits == 384 || bits == 512 }

// SignatureAlgorithm is how a key signs: with a hash of so many bits, 0 for the one that fits the key, and with PSS if it
// is an RSA key and that is wanted.
func SignatureAlgorithm(public crypto.PublicKey, bits int, pss bool) (x509.SignatureAlgorithm, error) {
	if !validHash(bits) {
		return 0, errSignatureBits
	}
	switch key := public.(type) {
	case ed25519.PublicKey:
		return x509.PureEd25519, nil
	case *ecdsa.PublicKey:
		if bits == 0 {
			bits = key.Curve.Params().BitSize
		}
		switch {
		case bits <= 256:
			return x509.ECDSAWithSHA256, nil
		case bits == 384:
			return x509.ECDSAWithSHA384, nil
		}
		return x509.ECDSAWithSHA512, nil
	case *rsa.PublicKey:
		if bits == 0 {
			bits = 256
		}
		if pss {
			return map[int]x509.SignatureAlgorithm{256: x509.SHA256WithRSAPSS, 384: x509.SHA384WithRSAPSS, 512: x509.SHA512WithRSAPSS}[bits], nil
		}
		return map[int]x509.SignatureAlgorithm{256: x509.SHA256WithRSA, 384: x509.SHA384WithRSA, 512: x509.SHA512WithRSA}[bits], nil
	}
	return 0, errKeyType
}

// steady signs the same with the same signature: ECDSA by RFC 6979, PSS with a salt made of the digest. A handler that
// runs again then writes the same, and all nodes publish the same revocation list.
type steady struct{ crypto.Signer }

// Steady wraps a key so that its signatures are a function of what is signed.
func Steady(key crypto.Signer) crypto.Signer { return steady{key} }

// Sign signs a digest, or a message for Ed25519. What random gives is not used.
func (s steady) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, isPSS := opts.(*rsa.PSSOptions); isPSS {
		return s.Signer.Sign(saltFrom(digest), digest, opts)
	}
	return s.Signer.Sign(nil, digest, opts)
}

// saltFrom is 128 bytes that depend on a digest: more than a salt is long. A PSS salt need be neither secret nor random
// (RFC 8017, 8.1).
func saltFrom(digest []byte) io.Reader {
	var salt []byte
	for i := range byte(4) {
		sum := sha256.Sum256(append([]byte{i}, digest...))
		salt = append(salt, sum[:]...)
	}
	return bytes.NewReader(salt)
}

// Sign signs a certificate for public with the issuer's key; a nil parent makes it self-signed.
func Sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(nil, template, parent, public, Steady(key))
	if err != nil {
		// The words of crypto/x509 tell what of the template can't be encoded, such as a name that isn't ASCII.
		return nil, conclave.Errorf(conclave.Invalid, "the certificate can't be made: %s", err.Error())
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the certificate can't be made: %s", err.Error())
	}
	return made, nil
}
