package driver

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"conclave"
	"conclave/internal/outbound"
)

// TLS says how to know a database, and how to show who we are. All texts are PEM.
type TLS struct {
	CA          string // whom the database's certificate must come from; empty is the system's
	Certificate string // ours
	Key         string // ours; it may stand in Certificate
	ServerName  string // instead of the host that is connected to
	SkipVerify  bool
}

// Wanted reports whether anything is said.
func (t *TLS) Wanted() bool { return *t != TLS{} }

// Config is how to encrypt connections to host.
func (t *TLS) Config(host string) (*tls.Config, error) {
	roots, err := outbound.Roots(t.CA)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "tls_ca: no certificate in PEM")
	}
	made := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, RootCAs: roots, InsecureSkipVerify: t.SkipVerify}
	if t.ServerName != "" {
		made.ServerName = t.ServerName
	}
	if t.Certificate == "" && t.Key == "" {
		return made, nil
	}
	key := t.Key
	if key == "" {
		key = keyIn(t.Certificate)
	}
	pair, err := tls.X509KeyPair([]byte(t.Certificate), []byte(key))
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the client's certificate and its key are no pair in PEM")
	}
	made.Certificates = []tls.Certificate{pair}
	return made, nil
}

// keyIn is the private key of a text that has certificates as well.
func keyIn(text string) string {
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return string(pem.EncodeToMemory(block))
		}
	}
	return ""
}

func isUntrusted(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	return verification || authority || name
}
