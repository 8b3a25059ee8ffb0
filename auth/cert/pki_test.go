package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// start is when the clock of a harness stands at first.
var start = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)

// holder is a certificate with its key.
type holder struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
	up   *holder // its issuer; itself if self-signed
}

// change alters a template before it is signed.
type change func(*x509.Certificate)

func template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: start.Add(-time.Hour), NotAfter: start.Add(1000 * time.Hour)}
}

func isCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
}

func isClient(c *x509.Certificate) {
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue signs a certificate for key with up's, or with its own if up is nil.
func issue(t testing.TB, up *holder, key crypto.Signer, made *x509.Certificate) *holder {
	t.Helper()
	h := &holder{t: t, key: key, up: up}
	parent, signer := made, key
	if up != nil {
		parent, signer = up.cert, up.key
	}
	der, err := x509.CreateCertificate(rand.Reader, made, parent, key.Public(), signer)
	if err == nil {
		h.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newCA(t testing.TB, name string, changes ...change) *holder {
	made := template(name, 1)
	isCA(made)
	for _, c := range changes {
		c(made)
	}
	return issue(t, nil, newKey(t), made)
}

func (h *holder) issue(name string, serial int64, changes ...change) *holder {
	h.t.Helper()
	made := template(name, serial)
	isClient(made)
	for _, c := range changes {
		c(made)
	}
	return issue(h.t, h, newKey(h.t), made)
}

func (h *holder) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.cert.Raw}))
}

// crl is a revocation list of serial numbers, PEM.
func (h *holder) crl(this, next time.Time, serials ...int64) string {
	return h.crlWith(&x509.RevocationList{Number: big.NewInt(1), ThisUpdate: this, NextUpdate: next}, serials...)
}

func (h *holder) crlWith(made *x509.RevocationList, serials ...int64) string {
	h.t.Helper()
	for _, serial := range serials {
		made.RevokedCertificateEntries = append(made.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: start})
	}
	der, err := x509.CreateRevocationList(rand.Reader, made, h.cert, h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func chainOf(holders ...*holder) [][]byte {
	var chain [][]byte
	for _, h := range holders {
		chain = append(chain, h.cert.Raw)
	}
	return chain
}

// newHarness mounts the method; what clients present is set with presenting.
func newHarness(t testing.TB) *enginetest.Harness { return enginetest.New(t, Engine{}) }

func presenting(h *enginetest.Harness, holders ...*holder) *enginetest.Harness {
	return from(h, "192.0.2.1", holders...)
}

func from(h *enginetest.Harness, address string, holders ...*holder) *enginetest.Harness {
	return h.With(enginetest.Request(func(req *conclave.Request) {
		req.PresentedCertificates = chainOf(holders...)
		req.Remote = netip.AddrPortFrom(netip.MustParseAddr(address), 4711)
	}))
}

// logIn logs in with what h presents and wants it to work.
func logIn(t testing.TB, h *enginetest.Harness, role string) *conclave.Login {
	t.Helper()
	resp, err := h.Do(conclave.Update, "login", map[string]any{"name": role})
	if err != nil || resp.Login == nil {
		t.Fatalf("login with role %q: %v", role, err)
	}
	return resp.Login
}

func refused(t testing.TB, h *enginetest.Harness, role, text string) {
	t.Helper()
	h.Fails(conclave.Update, "login", map[string]any{"name": role}, conclave.Invalid, text)
}
