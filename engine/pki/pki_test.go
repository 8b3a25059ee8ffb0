package pki

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

type fields = map[string]any

func newHarness(t testing.TB, options ...enginetest.Option) *enginetest.Harness {
	t.Helper()
	return enginetest.New(t, Engine{}, options...)
}

// withRoot is a mount with a root of an EC key, and a role that allows example.com and all below it.
func withRoot(t testing.TB, options ...enginetest.Option) *enginetest.Harness {
	t.Helper()
	h := newHarness(t, options...)
	h.Data(conclave.Update, "root/generate/internal", fields{"common_name": "Root", "key_type": "ec", "ttl": "8760h", "issuer_name": "root"})
	h.Data(conclave.Update, "roles/web", fields{"allowed_domains": "example.com", "allow_subdomains": true, "allow_bare_domains": true, "key_type": "ec", "max_ttl": "72h"})
	return h
}

func parse(t testing.TB, text any) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text.(string)))
	if block == nil {
		t.Fatalf("no PEM: %v", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// rawOf is a raw answer.
func rawOf(t testing.TB, h *enginetest.Harness, path string) *conclave.Raw {
	t.Helper()
	response, err := h.Do(conclave.Read, path, nil)
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	if response.Raw == nil {
		t.Fatalf("read %s: %v, want a raw answer", path, response.Data)
	}
	return response.Raw
}

func TestConformance(t *testing.T) {
	enginetest.Conformance(t, Plugin(), enginetest.AnswersAbsent("ocsp/{request...}", "unified-ocsp/{request...}"))
}

func TestIssueRevokeAndList(t *testing.T) {
	h := withRoot(t)
	got := h.Data(conclave.Update, "issue/web", fields{"common_name": "www.example.com", "alt_names": "example.com", "ttl": "1h"})
	leaf := parse(t, got["certificate"])
	roots := x509.NewCertPool()
	roots.AddCert(parse(t, got["issuing_ca"]))
	for _, name := range []string{"www.example.com", "example.com"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: h.Now()}); err != nil {
			t.Errorf("verify as %s: %v", name, err)
		}
	}
	if ends := leaf.NotAfter; ends != h.Now().Add(time.Hour).Truncate(time.Second) {
		t.Errorf("ends %v", ends)
	}
	root := parse(t, got["issuing_ca"])
	list := func() *x509.RevocationList {
		t.Helper()
		answer := rawOf(t, h, "crl")
		crl, err := x509.ParseRevocationList(answer.Body)
		if err != nil || answer.ContentType != "application/pkix-crl" {
			t.Fatal(answer.ContentType, err)
		}
		if err := crl.CheckSignatureFrom(root); err != nil {
			t.Fatal(err)
		}
		return crl
	}
	before := list()
	if len(before.RevokedCertificateEntries) != 0 {
		t.Errorf("new list revokes %v", before.RevokedCertificateEntries)
	}
	serial := got["serial_number"]
	h.Data(conclave.Update, "revoke", fields{"serial_number": serial})
	after := list()
	if len(after.RevokedCertificateEntries) != 1 || after.RevokedCertificateEntries[0].SerialNumber.Cmp(leaf.SerialNumber) != 0 || after.Number.Cmp(before.Number) <= 0 {
		t.Errorf("list after revocation: %+v", after)
	}
	if read := h.Data(conclave.Read, "cert/"+serial.(string), nil); read["revocation_time"].(interface{ String() string }).String() == "0" {
		t.Errorf("cert reads as %v", read)
	}
}
