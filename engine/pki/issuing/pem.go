package issuing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"

	"conclave"
)

// Format is how clients want certificates and keys.
type Format struct {
	Name  string // pem, der or pem_bundle
	PKCS8 bool   // private keys in PKCS #8, whatever their kind
}

// NewFormat reads the fields format and private_key_format.
func NewFormat(name, key string) (Format, error) {
	switch name {
	case "":
		name = "pem"
	case "pem", "der", "pem_bundle":
	default:
		return Format{}, conclave.Errorf(conclave.Invalid, `the "format" path parameter must be "pem", "der", or "pem_bundle"`)
	}
	switch key {
	case "", "der", "pem", "pkcs8":
		return Format{name, key == "pkcs8"}, nil
	}
	return Format{}, conclave.Errorf(conclave.Invalid, `private_key_format must be "der", "pem" or "pkcs8"`)
}

// PEM is a block without the newline at its end, as clients expect.
func PEM(kind string, der []byte) string {
	return strings.TrimSuffix(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})), "\n")
}

// CertificatePEM is a certificate in PEM.
func CertificatePEM(cert *x509.Certificate) string { return PEM("CERTIFICATE", cert.Raw) }

// Encode is DER in base64, or PEM.
func (f Format) Encode(kind string, der []byte) string {
	if f.Name == "der" {
		return base64.StdEncoding.EncodeToString(der)
	}
	return PEM(kind, der)
}

// Certificate is a certificate in the format, but not a bundle.
func (f Format) Certificate(cert *x509.Certificate) string { return f.Encode("CERTIFICATE", cert.Raw) }

// Key is a private key in the format.
func (f Format) Key(key crypto.Signer) (string, error) {
	kind, der, err := marshalKey(key, f.PKCS8)
	if err != nil {
		return "", err
	}
	return f.Encode(kind, der), nil
}

// Bundle is a certificate with what belongs to it, in PEM: its key first, if there is one, then the chain.
func Bundle(key string, cert *x509.Certificate, chain []*x509.Certificate) string {
	var parts []string
	if key != "" {
		parts = append(parts, key)
	}
	parts = append(parts, CertificatePEM(cert))
	for _, above := range chain {
		parts = append(parts, CertificatePEM(above))
	}
	return strings.Join(parts, "\n")
}

func marshalKey(key crypto.Signer, pkcs8 bool) (kind string, der []byte, err error) {
	if rsaKey, ok := key.(*rsa.PrivateKey); ok && !pkcs8 {
		return "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil
	}
	if ecKey, ok := key.(*ecdsa.PrivateKey); ok && !pkcs8 {
		der, err = x509.MarshalECPrivateKey(ecKey)
		return "EC PRIVATE KEY", der, err
	}
	der, err = x509.MarshalPKCS8PrivateKey(key)
	return "PRIVATE KEY", der, err
}

// KeyType is a key's kind as clients name it.
func KeyType(public crypto.PublicKey) string {
	switch public.(type) {
	case *rsa.PublicKey:
		return "rsa"
	case *ecdsa.PublicKey:
		return "ec"
	case ed25519.PublicKey:
		return "ed25519"
	}
	return ""
}

// maxBundle bounds what is imported, in bytes of text.
const maxBundle = 512 << 10

var errBundle = conclave.Errorf(conclave.Invalid, "no certificate or key could be read: PEM is wanted")

// ParseBundle reads the certificates and private keys in PEM text, in their order.
func ParseBundle(text string) (certs []*x509.Certificate, keys []crypto.Signer, err error) {
	if len(text) > maxBundle {
		return nil, nil, conclave.Errorf(conclave.TooLarge, "a bundle has at most %d bytes", maxBundle)
	}
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "CERTIFICATE" || block.Type == "X509 CERTIFICATE" || block.Type == "TRUSTED CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, errBundle
			}
			certs = append(certs, cert)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key, err := ParseKey(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			keys = append(keys, key)
		case block.Type == "EC PARAMETERS": // openssl writes them before a key, which has them too
		default:
			return nil, nil, errBundle
		}
		if len(certs)+len(keys) > maxList {
			return nil, nil, errBundle
		}
	}
	if len(certs)+len(keys) == 0 || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, nil, errBundle
	}
	return certs, keys, nil
}

// ParseKey reads a private key in DER: PKCS #8, PKCS #1 or SEC 1.
func ParseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return checkedKey(signer)
		}
		return nil, errKeyUnsafe
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return checkedKey(key)
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return checkedKey(key)
	}
	return nil, conclave.Errorf(conclave.Invalid, "a private key could not be read: PKCS #8, PKCS #1 or SEC 1, without a password, is wanted")
}

func checkedKey(key crypto.Signer) (crypto.Signer, error) {
	_, err := SpecOf(key.Public())
	return key, err
}
