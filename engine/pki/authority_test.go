package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// stranger is a certificate that somebody else has made, with its key in PEM.
func stranger(t testing.TB, change func(*x509.Certificate)) (cert, key string) {
	t.Helper()
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	template := &x509.Certificate{SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "Stranger"}, NotBefore: began, NotAfter: began.Add(2000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, made.Public(), made)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(made)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func asIs(*x509.Certificate) {}

func TestRootsAreMadeRotatedAndReplaced(t *testing.T) {
	h := withRoot(t)
	first := h.Data(conclave.Read, "issuer/default", nil)
	if first["issuer_name"] != "root" || first["leaf_not_after_behavior"] != "err" || first["revoked"] != false || first["key_id"] == "" {
		t.Errorf("%v", first)
	}
	exported := h.Data(conclave.Update, "root/generate/exported", fields{"common_name": "Other", "key_type": "ed25519", "key_name": "k", "private_key_format": "pkcs8", "format": "pem_bundle"})
	if exported["private_key_type"] != "ed25519" || !strings.HasPrefix(exported["certificate"].(string), "-----BEGIN PRIVATE KEY") || exported["key_name"] != "k" {
		t.Errorf("%v", exported)
	}
	if now := h.Data(conclave.Read, "config/issuers", nil); now["default"] != first["issuer_id"] {
		t.Error("another root became the default by itself")
	}
	existing := h.Data(conclave.Update, "root/generate/existing", fields{"common_name": "Same key", "key_ref": "k"})
	if existing["key_id"] != exported["key_id"] {
		t.Errorf("the key is %v, want %v", existing["key_id"], exported["key_id"])
	}
	rotated := h.Data(conclave.Update, "root/rotate/internal", fields{"common_name": "Next", "key_type": "ec"})
	if rotated["issuer_name"] != "next" {
		t.Errorf("rotated: %v", rotated)
	}
	h.Data(conclave.Update, "root/replace", nil)
	if now := h.Data(conclave.Read, "config/issuers", nil); now["default"] != rotated["issuer_id"] {
		t.Errorf("after replace the default is %v", now)
	}
	h.Data(conclave.Update, "config/issuers", fields{"default": "root", "default_follows_latest_issuer": true})
	last := h.Data(conclave.Update, "issuers/generate/root/internal", fields{"common_name": "Last", "key_type": "ec"})
	if now := h.Data(conclave.Read, "config/issuers", nil); now["default"] != last["issuer_id"] {
		t.Error("the default doesn't follow the latest issuer")
	}
	keys := h.Data(conclave.List, "issuers", nil)
	if len(keys["keys"].([]any)) != 5 {
		t.Errorf("issuers are %v", keys)
	}
	h.Fails(conclave.Update, "root/generate/elsewhere", fields{"common_name": "x"}, conclave.Invalid, "last segment")
	h.Fails(conclave.Update, "root/generate/internal", fields{"common_name": "x", "issuer_name": "root"}, conclave.Invalid, "in use")
	h.Fails(conclave.Update, "root/generate/internal", fields{"common_name": "x", "issuer_name": "default"}, conclave.Invalid, "must not be default")
	h.Fails(conclave.Update, "root/generate/internal", fields{"common_name": "x", "key_bits": 1024}, conclave.Invalid, "key_bits")
	h.Data(conclave.Delete, "root", nil)
	h.Fails(conclave.List, "issuers", nil, conclave.NotFound, "")
	h.Fails(conclave.Update, "issue/web", fields{"common_name": "a.example.com"}, conclave.Invalid, "no default issuer")
	h.Fails(conclave.Read, "ca", nil, conclave.NotFound, "")
}

func TestIssuersAndKeysAreChanged(t *testing.T) {
	h := withRoot(t)
	id := h.Data(conclave.Read, "issuer/root", nil)["issuer_id"].(string)
	got := h.Data(conclave.Patch, "issuer/"+id, fields{"issuer_name": "prime", "leaf_not_after_behavior": "truncate", "ocsp_servers": "http://ocsp.example/", "usage": "issuing-certificates"})
	if got["issuer_name"] != "prime" || got["usage"] != "read-only,issuing-certificates" || got["leaf_not_after_behavior"] != "truncate" {
		t.Errorf("%v", got)
	}
	h.Fails(conclave.Read, "issuer/root", nil, conclave.NotFound, "")
	leaf := parse(t, h.Data(conclave.Update, "issuer/prime/issue/web", fields{"common_name": "a.example.com"})["certificate"])
	if len(leaf.OCSPServer) != 1 {
		t.Error("the certificate lacks the issuer's URL")
	}
	h.Fails(conclave.Read, "crl", nil, conclave.Invalid, "may not sign")
	got = h.Data(conclave.Update, "issuer/prime", fields{"issuer_name": "prime"})
	if got["usage"] != "read-only,issuing-certificates,crl-signing,ocsp-signing" || len(got["ocsp_servers"].([]any)) != 0 {
		t.Errorf("a write doesn't set what isn't given back: %v", got)
	}
	rawOf(t, h, "crl")
	for about, change := range map[string]fields{"behavior": {"leaf_not_after_behavior": "maybe"}, "usage": {"usage": "fun"}, "name": {"issuer_name": "../x"}, "URL": {"ocsp_servers": "nowhere"}, "algorithm": {"revocation_signature_algorithm": "SHA256WithRSA"}, "chain": {"manual_chain": "nobody"}} {
		if _, err := h.Do(conclave.Patch, "issuer/prime", change); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", about, err)
		}
	}
	h.Data(conclave.Patch, "issuer/prime", fields{"usage": "read-only"})
	h.Fails(conclave.Update, "issue/web", fields{"common_name": "a.example.com"}, conclave.Invalid, "usage")
	key := h.Data(conclave.Update, "key/default", fields{"key_name": "first"})
	h.Data(conclave.Delete, "key/first", nil)
	if got := h.Data(conclave.Read, "issuer/prime", nil); got["key_id"] != "" {
		t.Errorf("the issuer still has the key %v", key)
	}
	h.Data(conclave.Patch, "issuer/prime", fields{"usage": "issuing-certificates"})
	h.Fails(conclave.Update, "issue/web", fields{"common_name": "a.example.com"}, conclave.Invalid, "private key")
	h.Data(conclave.Delete, "issuer/prime", nil)
	h.Data(conclave.Delete, "issuer/prime", nil)
	made := h.Data(conclave.Update, "keys/generate/exported", fields{"key_type": "ec", "key_name": "second"})
	if _, err := h.Do(conclave.Update, "keys/import", fields{"pem_bundle": made["private_key"], "key_name": "third"}); err != nil {
		t.Fatal(err)
	}
	if got := h.Data(conclave.List, "keys", nil); len(got["keys"].([]any)) != 1 {
		t.Errorf("keys are %v", got)
	}
}

// An authority whose certificate doesn't let it sign revocation lists isn't made to.
func TestIssuersThatMayNotSignLists(t *testing.T) {
	h := newHarness(t)
	cert, key := stranger(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	h.Data(conclave.Update, "issuers/import/bundle", fields{"pem_bundle": cert + key})
	if got := h.Data(conclave.Read, "issuer/default", nil); strings.Contains(got["usage"].(string), "crl-signing") {
		t.Errorf("usage is %v", got["usage"])
	}
	h.Fails(conclave.Patch, "issuer/default", fields{"usage": "crl-signing"}, conclave.Invalid, "CRLSign")
	h.Fails(conclave.Read, "crl", nil, conclave.Invalid, "may not sign")
	leaf, leafKey := stranger(t, func(c *x509.Certificate) { c.IsCA = false })
	h.Fails(conclave.Update, "issuers/import/bundle", fields{"pem_bundle": leaf + leafKey}, conclave.Invalid, "no authority's")
	h.Fails(conclave.Update, "issuers/import/cert", fields{"pem_bundle": cert + key}, conclave.Invalid, "private keys")
	h.Fails(conclave.Update, "config/ca", fields{"pem_bundle": "nothing"}, conclave.Invalid, "PEM")
}

func TestIntermediatesAndChains(t *testing.T) {
	h := newHarness(t)
	h.Data(conclave.Update, "root/generate/internal", fields{"common_name": "Root", "key_type": "ec", "ttl": "700h", "issuer_name": "root", "max_path_length": 1, "permitted_dns_domains": "example.com"})
	csr := h.Data(conclave.Update, "intermediate/generate/internal", fields{"common_name": "Intermediate", "key_type": "ec", "key_name": "int"})
	signed := h.Data(conclave.Update, "root/sign-intermediate", fields{"csr": csr["csr"], "common_name": "Intermediate", "ttl": "600h", "organization": "Example"})
	if chain, _ := signed["ca_chain"].([]any); len(chain) != 2 || chain[0] != signed["certificate"] || chain[1] != signed["issuing_ca"] {
		t.Errorf("the chain of a signed intermediate has %d certificates, want its own and the root's", len(chain))
	}
	cert := parse(t, signed["certificate"])
	if !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero || cert.Subject.Organization[0] != "Example" {
		t.Errorf("intermediate: %v, path length %d", cert.Subject, cert.MaxPathLen)
	}
	imported := h.Data(conclave.Update, "intermediate/set-signed", fields{"certificate": signed["certificate"].(string) + "\n" + signed["issuing_ca"].(string)})
	id := imported["imported_issuers"].([]any)[0].(string)
	if imported["mapping"].(map[string]any)[id] != csr["key_id"] {
		t.Errorf("imported %v", imported)
	}
	h.Data(conclave.Update, "roles/web", fields{"allow_any_name": true, "key_type": "ec", "ttl": "1h"})
	got := h.Data(conclave.Update, "issuer/"+id+"/issue/web", fields{"common_name": "a.example.com"})
	if chain := got["ca_chain"].([]any); len(chain) != 2 || parse(t, chain[0]).Subject.CommonName != "Intermediate" || parse(t, chain[1]).Subject.CommonName != "Root" {
		t.Errorf("chain %v", chain)
	}
	got = h.Data(conclave.Update, "issuer/"+id+"/issue/web", fields{"common_name": "a.example.com", "remove_roots_from_chain": true, "format": "pem_bundle"})
	if strings.Count(got["certificate"].(string), "BEGIN CERTIFICATE") != 2 || len(got["ca_chain"].([]any)) != 1 {
		t.Errorf("without roots: %v", got)
	}
	// Path length and name constraints of those above hold.
	next := h.Data(conclave.Update, "intermediate/generate/internal", fields{"common_name": "Third", "key_type": "ec"})
	h.Fails(conclave.Update, "issuer/"+id+"/sign-intermediate", fields{"csr": next["csr"], "common_name": "Third", "ttl": "1h"}, conclave.Invalid, "path length")
	h.Fails(conclave.Update, "issue/web", fields{"common_name": "a.evil.org"}, conclave.Invalid, "name constraints")
	h.Data(conclave.Update, "issue/web", fields{"common_name": "a.example.com"})
	h.Data(conclave.Update, "root/generate/internal", fields{"common_name": "Bound", "key_type": "ec", "issuer_name": "bound", "permitted_ip_ranges": "10.0.0.0/8", "excluded_dns_domains": "secret.example.com",
		"permitted_email_addresses": "example.com", "excluded_uri_domains": "evil.org"})
	for about, names := range map[string]fields{"address": {"ip_sans": "192.168.0.1"}, "excluded": {"alt_names": "a.secret.example.com"}, "mail": {"alt_names": "a@evil.org"}} {
		names["common_name"] = "a.example.com"
		if _, err := h.Do(conclave.Update, "issuer/bound/issue/web", names); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "name constraints") {
			t.Errorf("%s: %v", about, err)
		}
	}
	h.Data(conclave.Update, "issuer/bound/issue/web", fields{"common_name": "a.example.com", "ip_sans": "10.0.0.1", "alt_names": "a@example.com"})
	for name, value := range map[string]string{"permitted_ip_ranges": "10.0.0.1", "permitted_dns_domains": "a b", "excluded_email_addresses": "@", "permitted_uri_domains": "https://x"} {
		h.Fails(conclave.Update, "root/generate/internal", fields{"common_name": "x", "key_type": "ec", name: value}, conclave.Invalid, "name constraint")
	}
	late := h.Data(conclave.Update, "intermediate/generate/internal", fields{"common_name": "Late", "key_type": "ec"})
	h.Data(conclave.Update, "root/sign-intermediate", fields{"csr": late["csr"], "common_name": "Late", "ttl": "760h"})
	h.Fails(conclave.Update, "root/sign-intermediate", fields{"csr": late["csr"], "common_name": "Late", "ttl": "760h", "enforce_leaf_not_after_behavior": true}, conclave.Invalid, "beyond the expiration")
	if err := h.Fails(conclave.Update, "root/sign-intermediate", fields{"csr": "x", "common_name": "x"}, conclave.Invalid, "certificate request"); err == nil {
		t.Error("no error")
	}
	// Cross-signing: the same key below another root; both chains are found.
	h.Data(conclave.Update, "root/generate/internal", fields{"common_name": "Root 2", "key_type": "ec", "ttl": "700h", "issuer_name": "root2"})
	cross := h.Data(conclave.Update, "intermediate/cross-sign", fields{"common_name": "Intermediate", "organization": "Example", "key_ref": "int"})
	crossed := h.Data(conclave.Update, "issuer/root2/sign-intermediate", fields{"csr": cross["csr"], "use_csr_values": true, "ttl": "500h"})
	second := h.Data(conclave.Update, "issuers/import/cert", fields{"pem_bundle": crossed["certificate"]})["imported_issuers"].([]any)[0].(string)
	if got := h.Data(conclave.Read, "issuer/"+second, nil); got["key_id"] != csr["key_id"] || len(got["ca_chain"].([]any)) != 2 {
		t.Errorf("cross-signed: %v", got)
	}
	h.Data(conclave.Patch, "issuer/"+second, fields{"manual_chain": []string{"self", id, "root", "root2"}})
	if got := h.Data(conclave.Read, "issuer/"+second, nil); len(got["ca_chain"].([]any)) != 4 {
		t.Errorf("manual chain: %v", got["manual_chain"])
	}
	again := h.Data(conclave.Update, "issuer/root2/sign-self-issued", fields{"certificate": h.Data(conclave.Read, "issuer/root/json", nil)["certificate"]})
	if cert := parse(t, again["certificate"]); cert.Subject.CommonName != "Root" || cert.Issuer.CommonName != "Root 2" {
		t.Errorf("self-issued: %v by %v", cert.Subject, cert.Issuer)
	}
	h.Fails(conclave.Update, "issuer/root2/sign-self-issued", fields{"certificate": signed["certificate"]}, conclave.Invalid, "self-issued")
}

func TestURLsHaveTemplates(t *testing.T) {
	h := withRoot(t)
	h.Fails(conclave.Update, "config/urls", fields{"issuing_certificates": "{{cluster_path}}/x"}, conclave.Invalid, "URL")
	h.Data(conclave.Update, "config/urls", fields{"enable_templating": true, "issuing_certificates": "{{cluster_aia_path}}/issuer/{{issuer_id}}/der", "crl_distribution_points": "{{cluster_path}}/crl/der", "ocsp_servers": "{{cluster_path}}/ocsp", "delta_crl_distribution_points": "http://delta.example/"})
	h.Fails(conclave.Update, "issue/web", fields{"common_name": "a.example.com"}, conclave.Invalid, "config/cluster")
	h.Data(conclave.Update, "config/cluster", fields{"path": "https://vault.example/v1/pki/", "aia_path": "http://aia.example"})
	cert := parse(t, h.Data(conclave.Update, "issue/web", fields{"common_name": "a.example.com"})["certificate"])
	id := h.Data(conclave.Read, "issuer/root", nil)["issuer_id"].(string)
	if got := cert.IssuingCertificateURL[0]; got != "http://aia.example/issuer/"+id+"/der" {
		t.Errorf("issuer's URL is %s", got)
	}
	if got := cert.OCSPServer[0]; got != "https://vault.example/v1/pki/ocsp" {
		t.Errorf("responder's URL is %s", got)
	}
	if !slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "2.5.29.46" }) {
		t.Error("the certificate doesn't say where delta lists are")
	}
	response, err := h.Do(conclave.Update, "root/generate/internal", fields{"common_name": "Other", "key_type": "ec"})
	if err != nil || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "issuer_id") {
		t.Errorf("a root whose URLs need its id: %v, %v", response, err)
	}
}

func TestEndedAndRevokedIssuersSignNothing(t *testing.T) {
	h := withRoot(t)
	h.Data(conclave.Update, "issuer/root/revoke", nil)
	h.Fails(conclave.Update, "issue/web", fields{"common_name": "a.example.com"}, conclave.Invalid, "revoked")
	rawOf(t, h, "crl")
	h = withRoot(t)
	h.Data(conclave.Patch, "issuer/root", fields{"leaf_not_after_behavior": "permit"})
	h.Advance(769 * time.Hour)
	h.Fails(conclave.Update, "issue/web", fields{"common_name": "a.example.com"}, conclave.Invalid, "ended")
}

// identity gives values of identity templates.
type identity map[string]string

func (i identity) Resolve(name string) (string, bool) { value, ok := i[name]; return value, ok }

func TestIdentityTemplates(t *testing.T) {
	h := withRoot(t)
	h.Data(conclave.Update, "roles/mine", fields{"allowed_domains": "{{identity.entity.name}}.example.com,{{identity.entity.metadata.domain}}", "allowed_domains_template": true, "allow_bare_domains": true, "allow_glob_domains": true,
		"allowed_uri_sans": "spiffe://x/{{identity.entity.name}}", "allowed_uri_sans_template": true, "key_type": "ec"})
	as := func(values identity) *enginetest.Harness {
		return h.As(&conclave.Caller{TokenID: "t", DisplayName: "d", Identity: values})
	}
	ask := func(h *enginetest.Harness, name, uri string) error {
		_, err := h.Do(conclave.Update, "issue/mine", fields{"common_name": name, "uri_sans": uri, "ttl": "1h"})
		return err
	}
	if err := ask(as(identity{"identity.entity.name": "ann"}), "ann.example.com", "spiffe://x/ann"); err != nil {
		t.Error(err)
	}
	for about, row := range map[string]struct {
		values    identity
		name, uri string
	}{
		"another's name":       {identity{"identity.entity.name": "ann"}, "bob.example.com", ""},
		"no entity":            {nil, "ann.example.com", ""},
		"the template itself":  {nil, "{{identity.entity.name}}.example.com", ""},
		"an asterisk":          {identity{"identity.entity.name": "*"}, "bob.example.com", ""},
		"an asterisk as whole": {identity{"identity.entity.metadata.domain": "*"}, "evil.org", ""},
		"a slash":              {identity{"identity.entity.name": "ann/admin"}, "localhost", "spiffe://x/ann/admin"},
	} {
		if err := ask(as(row.values), row.name, row.uri); err == nil {
			t.Errorf("%s: issued", about)
		}
	}
	h.Data(conclave.Patch, "roles/mine", fields{"allow_globs_in_identity_templates": true})
	if err := ask(as(identity{"identity.entity.metadata.domain": "*.trusted.org"}), "a.trusted.org", ""); err != nil {
		t.Error(err)
	}
}

// Whatever else there is about a certificate, the issuer's name constraints hold for it.
func TestNameConstraintsHoldForOddCertificates(t *testing.T) {
	h := newHarness(t)
	h.Data(conclave.Update, "root/generate/internal", fields{"common_name": "Root", "key_type": "ec", "ttl": "700h", "permitted_dns_domains": "example.com"})
	h.Data(conclave.Update, "roles/web", fields{"allow_any_name": true, "key_type": "ec", "ttl": "1h"})
	csrFor := func(name string) string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}, Subject: pkix.Name{CommonName: name},
			ExtraExtensions: []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}, Critical: true, Value: []byte{5, 0}}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	}
	later := h.Now().Add(30 * time.Minute).UTC().Format(time.RFC3339)
	h.Fails(conclave.Update, "issue/web", fields{"common_name": "a.evil.org", "not_before": later}, conclave.Invalid, "name constraints")
	h.Fails(conclave.Update, "sign-verbatim", fields{"csr": csrFor("a.evil.org"), "ttl": "1h"}, conclave.Invalid, "name constraints")
	h.Data(conclave.Update, "issue/web", fields{"common_name": "a.example.com", "not_before": later})
	h.Data(conclave.Update, "sign-verbatim", fields{"csr": csrFor("a.example.com"), "ttl": "1h"})
}

// An issuer that is revoked doesn't become a good one by being removed and imported again.
func TestRevokedIssuersComeBackRevoked(t *testing.T) {
	h := newHarness(t)
	h.Data(conclave.Update, "root/generate/internal", fields{"common_name": "Root", "key_type": "ec", "ttl": "700h"})
	csr := h.Data(conclave.Update, "intermediate/generate/internal", fields{"common_name": "Intermediate", "key_type": "ec"})
	signed := h.Data(conclave.Update, "root/sign-intermediate", fields{"csr": csr["csr"], "common_name": "Intermediate", "ttl": "600h"})
	h.Data(conclave.Update, "roles/web", fields{"allow_any_name": true, "key_type": "ec", "ttl": "1h"})
	again := func() string {
		return h.Data(conclave.Update, "issuers/import/cert", fields{"pem_bundle": signed["certificate"]})["imported_issuers"].([]any)[0].(string)
	}
	id := again()
	h.Data(conclave.Delete, "issuer/"+id, nil)
	id = again()
	h.Data(conclave.Update, "issuer/"+id+"/issue/web", fields{"common_name": "a.example.com"})
	h.Data(conclave.Update, "issuer/"+id+"/revoke", nil)
	h.Data(conclave.Delete, "issuer/"+id, nil)
	id = again()
	if got := h.Data(conclave.Read, "issuer/"+id, nil); got["revoked"] != true {
		t.Errorf("revoked, removed and imported again: %v", got["revoked"])
	}
	h.Fails(conclave.Update, "issuer/"+id+"/issue/web", fields{"common_name": "a.example.com"}, conclave.Invalid, "revoked")
}
