package keys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"

	"conclave"
)

// Forms of exported keys. The plain one depends on the type: base64 of symmetric keys and of Ed25519 keys, PKCS #1 in PEM
// of private RSA keys, SEC 1 in PEM of private ECDSA keys, PKIX in PEM of their public halves.
const (
	FormPlain = ""
	FormRaw   = "raw" // base64 of keys that are bytes
	FormDER   = "der" // base64 of PKCS #8 or PKIX
	FormPEM   = "pem"
)

// CheckForm reports by an error that there is no such form.
func CheckForm(form string) error {
	switch form {
	case FormPlain, FormRaw, FormDER, FormPEM:
		return nil
	}
	return conclave.Errorf(conclave.Invalid, "invalid format: %q", form)
}

var errForm = conclave.Errorf(conclave.Invalid, "keys of this type have no such format")

// ExportBytes exports a symmetric key.
func ExportBytes(key []byte, form string) (string, error) {
	if form == FormDER || form == FormPEM {
		return "", errForm
	}
	return base64.StdEncoding.EncodeToString(key), nil
}

// ExportPrivate exports the private half of an asymmetric key; it is empty if the version has none.
func (k *Key) ExportPrivate(v *Version, form string) (string, error) {
	if !v.HasPrivate() {
		return "", nil
	}
	m, err := v.parsed()
	if err != nil {
		return "", err
	}
	der, label := []byte(nil), "PRIVATE KEY"
	switch {
	case form == FormRaw && k.Type != Ed25519:
		return "", errForm
	case k.Type == Ed25519 && (form == FormPlain || form == FormRaw):
		return base64.StdEncoding.EncodeToString(v.Secret), nil
	case form != FormPlain:
		der, err = x509.MarshalPKCS8PrivateKey(m.private)
	case m.rsa != nil:
		der, label = x509.MarshalPKCS1PrivateKey(m.rsa), "RSA PRIVATE KEY"
	default:
		label = "EC PRIVATE KEY"
		der, err = x509.MarshalECPrivateKey(m.ecdsa)
	}
	if err != nil {
		return "", conclave.Errorf(conclave.Internal, "export a key: %w", err)
	}
	return encodeDER(der, label, form), nil
}

// ExportPublic exports the public half of an asymmetric key.
func (k *Key) ExportPublic(v *Version, form string) (string, error) {
	m, err := v.parsed()
	if err != nil {
		return "", err
	}
	public, ok := m.public.(ed25519.PublicKey)
	switch {
	case ok && (form == FormPlain || form == FormRaw):
		return base64.StdEncoding.EncodeToString(public), nil
	case form == FormRaw || m.public == nil:
		return "", errForm
	}
	der, err := x509.MarshalPKIXPublicKey(m.public)
	if err != nil {
		return "", conclave.Errorf(conclave.Internal, "export a key: %w", err)
	}
	return encodeDER(der, "PUBLIC KEY", form), nil
}

func encodeDER(der []byte, label, form string) string {
	if form == FormDER {
		return base64.StdEncoding.EncodeToString(der)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

// ForWrapping is what travels of a version to another vault: the raw key, or PKCS #8.
func (k *Key) ForWrapping(v *Version) ([]byte, error) {
	if !v.HasPrivate() {
		return nil, errNoPrivate
	}
	if k.Type != Ed25519 {
		return v.Secret, nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.PrivateKey(v.Secret))
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "export a key: %w", err)
	}
	return der, nil
}

// PublicName is how public keys of the type are called when they are shown.
func (t Type) PublicName() string {
	if t.isECDSA() {
		return table[t].curve.Params().Name
	}
	return string(t)
}

// SamePublic reports whether a public key is that of the version.
func (v *Version) SamePublic(public any) bool {
	m, err := v.parsed()
	if err != nil {
		return false
	}
	switch own := m.public.(type) {
	case *rsa.PublicKey:
		return own.Equal(public)
	case *ecdsa.PublicKey:
		return own.Equal(public)
	case ed25519.PublicKey:
		return own.Equal(public)
	}
	return false
}
