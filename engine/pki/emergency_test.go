package pki

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"conclave"
)

// In an emergency all certificates that are valid are revoked, and no issuer is.
func TestEmergencyRevokesCertificates(t *testing.T) {
	h := withRoot(t)
	h.Data(conclave.Update, "roles/web", map[string]any{"allow_any_name": true, "key_type": "ec", "max_ttl": "48h"})
	var certs []*x509.Certificate
	for i := range 5 {
		_, _, cert := issue(t, h, "web", fmt.Sprintf("%d.example.com", i), "24h")
		certs = append(certs, cert)
	}
	_, _, brief := issue(t, h, "web", "brief.example.com", "1h")
	h.Advance(2 * time.Hour)
	if items := h.TakeBack(conclave.Exposure{EntityID: "ann"}); len(items) != 0 {
		t.Errorf("of an entity: %v", items)
	}
	if items := h.TakeBack(conclave.Exposure{Path: "roles"}); len(items) != 0 {
		t.Errorf("below a path without certificates: %v", items)
	}
	if items := h.TakeBack(conclave.Exposure{}); len(items) != len(certs) {
		t.Fatalf("taken back: %v, want %d certificates", items, len(certs))
	}
	for _, cert := range certs {
		if !isListed(t, h, cert) {
			t.Errorf("the certificate of %s isn't on the list", cert.Subject.CommonName)
		}
	}
	if isListed(t, h, brief) {
		t.Error("a certificate that had ended is on the list")
	}
	if items := h.TakeBack(conclave.Exposure{}); len(items) != 0 {
		t.Errorf("taken back again: %v", items)
	}
}
