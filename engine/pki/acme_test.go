package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/pki/acme"
	"conclave/engine/pki/issuing"
)

// withACME is the engine with a route that does for a test what ACME asks of it.
type withACME struct {
	Engine
	do func(tx conclave.Tx) error
}

func (e withACME) Routes() []conclave.Route {
	return append(e.Engine.Routes(), conclave.WriteRoute(conclave.Update, "test", "Do what the test says.", func(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.None, error) {
		return nil, e.do(tx)
	}))
}

// asACME does something as ACME does.
func asACME(h *enginetest.Harness, do func(tx conclave.Tx) error) error {
	_, err := h.Reopen(withACME{Engine{}, do}).Do(conclave.Update, "test", nil)
	return err
}

// acmeCSR asks for more than it gets: names, extensions, a subject.
func acmeCSR(t *testing.T, common string) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: common, Organization: []string{"Mine"}, SerialNumber: "7"},
		DNSNames: []string{"other.example.org"}, EmailAddresses: []string{"root@example.com"},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestACMEGetsWhatTheRoleAllows(t *testing.T) {
	h := withRoot(t, enginetest.Fast())
	h.Data(conclave.Update, "roles/client", fields{"allow_any_name": true, "key_type": "ec", "client_flag": true, "server_flag": false, "ttl": "10h", "organization": "Ours", "no_store": true})
	issue := func(wanted *acme.Wanted, common string) (*acme.Issued, error) {
		m, err := issuing.NewMaterials()
		if err != nil {
			t.Fatal(err)
		}
		var issued *acme.Issued
		err = asACME(h, func(tx conclave.Tx) (err error) {
			if err := (acmeAuthority{}).Permits(tx, wanted); err != nil {
				return err
			}
			issued, err = acmeAuthority{}.Issue(tx, wanted, acmeCSR(t, common), m)
			return err
		})
		return issued, err
	}
	month := 30 * 24 * time.Hour
	issued, err := issue(&acme.Wanted{Role: "web", MaxTTL: month, DNS: []string{"a.example.com", "b.example.com"}}, "b.example.com")
	if err != nil {
		t.Fatal(err)
	}
	leaf := issued.Leaf
	if !slices.Equal(leaf.DNSNames, []string{"a.example.com", "b.example.com"}) || leaf.Subject.CommonName != "b.example.com" || len(leaf.EmailAddresses) > 0 || leaf.IsCA || leaf.Subject.SerialNumber != "" || len(leaf.Subject.Organization) > 0 {
		t.Errorf("issued is %v %v, an authority's: %v", leaf.Subject, leaf.DNSNames, leaf.IsCA)
	}
	if got := leaf.NotAfter.Sub(h.Now()).Round(time.Minute); got != 72*time.Hour {
		t.Errorf("it is valid for %v, want the role's 72h", got)
	}
	if !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("it is for %v", leaf.ExtKeyUsage)
	}
	if got := strings.Count(string(issued.Chain), "BEGIN CERTIFICATE"); got != 2 {
		t.Errorf("the chain has %d certificates", got)
	}
	if block, _ := pem.Decode(issued.Chain); block == nil || string(block.Bytes) != string(leaf.Raw) {
		t.Error("the chain doesn't begin with the certificate")
	}
	if got := h.Data(conclave.List, "certs", nil)["keys"].([]any); len(got) != 2 { // the root's, too
		t.Errorf("kept are %v", got)
	}
	for why, wanted := range map[string]*acme.Wanted{
		"another domain": {Role: "web", MaxTTL: month, DNS: []string{"a.example.org"}},
		"no role":        {Role: "none", MaxTTL: month, DNS: []string{"a.example.com"}},
		"no issuer":      {Role: "web", Issuer: "none", MaxTTL: month, DNS: []string{"a.example.com"}},
	} {
		if _, err := issue(wanted, ""); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want Invalid", why, err)
		}
	}
	issued, err = issue(&acme.Wanted{Role: "client", RoleUsages: true, MaxTTL: 5 * time.Hour, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, "evil")
	if err != nil {
		t.Fatal(err)
	}
	leaf = issued.Leaf
	if len(leaf.IPAddresses) != 1 || leaf.Subject.CommonName != "" || !slices.Equal(leaf.Subject.Organization, []string{"Ours"}) || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("issued is %v %v for %v", leaf.Subject, leaf.IPAddresses, leaf.ExtKeyUsage)
	}
	if got := leaf.NotAfter.Sub(h.Now()).Round(time.Minute); got != 5*time.Hour {
		t.Errorf("it is valid for %v, want ACME's 5h", got)
	}
	// Without a role any name will do, and nothing else of the CSR does.
	issued, err = issue(&acme.Wanted{MaxTTL: month, DNS: []string{"a.example.org"}}, "a.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if leaf = issued.Leaf; !slices.Equal(leaf.DNSNames, []string{"a.example.org"}) || leaf.IsCA || len(leaf.EmailAddresses) > 0 || len(leaf.Subject.Organization) > 0 {
		t.Errorf("issued is %v %v, an authority's: %v", leaf.Subject, leaf.DNSNames, leaf.IsCA)
	}
	revoke := func(cert *x509.Certificate) (already bool, err error) {
		err = asACME(h, func(tx conclave.Tx) (err error) {
			already, err = acmeAuthority{}.Revoke(tx, cert)
			return err
		})
		return already, err
	}
	if already, err := revoke(leaf); already || err != nil {
		t.Errorf("revoke: %v, %v", already, err)
	}
	if already, err := revoke(leaf); !already || err != nil {
		t.Errorf("revoke again: %v, %v", already, err)
	}
	stranger := withRoot(t, enginetest.Fast())
	theirs := parse(t, stranger.Data(conclave.Update, "issue/web", fields{"common_name": "a.example.com"})["certificate"])
	if _, err := revoke(theirs); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("revoke another authority's: %v", err)
	}
	root := parse(t, h.Data(conclave.Read, "cert/ca", nil)["certificate"])
	if _, err := revoke(root); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("revoke the authority itself: %v", err)
	}
}
