package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"conclave"
	"conclave/engine/enginetest"
)

// issue issues a certificate of a role for a name.
func issue(t testing.TB, h *enginetest.Harness, role, name, ttl string) (text, serial string, cert *x509.Certificate) {
	t.Helper()
	got := h.Data(conclave.Update, "issue/"+role, fields{"common_name": name, "ttl": ttl})
	return got["certificate"].(string), got["serial_number"].(string), parse(t, got["certificate"])
}

// isListed reports whether the default issuer's list has a certificate, and holds OCSP to the same.
func isListed(t testing.TB, h *enginetest.Harness, cert *x509.Certificate) bool {
	t.Helper()
	ca := parse(t, string(rawOf(t, h, "ca/pem").Body))
	crl := parseList(t, rawOf(t, h, "crl").Body)
	if err := crl.CheckSignatureFrom(ca); err != nil {
		t.Fatal(err)
	}
	listed := slices.ContainsFunc(crl.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 })
	request, err := ocsp.CreateRequest(cert, ca, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The edge has made one segment of it, in the base64 without slashes.
	answer, err := ocsp.ParseResponseForCert(rawOf(t, h, "ocsp/"+base64.RawURLEncoding.EncodeToString(request)).Body, cert, ca)
	if err != nil {
		t.Fatal(err)
	}
	if (answer.Status == ocsp.Revoked) != listed {
		t.Errorf("on the list %v, OCSP status %d", listed, answer.Status)
	}
	return listed
}

func TestRevocation(t *testing.T) {
	h := withRoot(t)
	_, serial, cert := issue(t, h, "web", "a.example.com", "1h")
	h.Data(conclave.Update, "roles/gone", fields{"allow_any_name": true, "key_type": "ec", "no_store": true})
	text, unkept, other := issue(t, h, "gone", "b.example.com", "1h")
	h.Fails(conclave.Read, "cert/"+unkept, nil, conclave.NotFound, "")
	h.Fails(conclave.Update, "revoke", fields{"serial_number": unkept}, conclave.Invalid, "not found")
	if isListed(t, h, cert) || isListed(t, h, other) {
		t.Error("listed before revocation")
	}
	first := h.Data(conclave.Update, "revoke", fields{"serial_number": strings.ToUpper(strings.ReplaceAll(serial, ":", "-"))})
	h.Advance(time.Minute)
	if again := h.Data(conclave.Update, "revoke", fields{"serial_number": serial}); again["revocation_time"] != first["revocation_time"] || again["state"] != "revoked" {
		t.Errorf("revoked again: %v, at first %v", again, first)
	}
	h.Data(conclave.Update, "revoke", fields{"certificate": text})
	if !isListed(t, h, cert) || !isListed(t, h, other) {
		t.Error("not listed after revocation")
	}
	got := h.Data(conclave.List, "certs/revoked", nil)["keys"].([]any)
	if len(got) != 2 || !slices.Contains(got, any(serial)) {
		t.Errorf("revoked are %v", got)
	}
	if crl := parseList(t, rawOf(t, h, "crl").Body); len(crl.RevokedCertificateEntries) != 2 {
		t.Errorf("%d entries", len(crl.RevokedCertificateEntries))
	}
	for about, body := range map[string]fields{"nothing": {}, "both": {"serial_number": serial, "certificate": text}, "a path": {"serial_number": "../issuer/x"}, "a path in hexadecimal": {"serial_number": "2e2e/"}, "no digits": {"serial_number": "zz"}, "too long": {"serial_number": strings.Repeat("ab", 40)}} {
		if _, err := h.Do(conclave.Update, "revoke", body); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", about, err)
		}
	}
	_, brief, short := issue(t, h, "web", "c.example.com", "1m")
	h.Advance(time.Hour)
	response, err := h.Do(conclave.Update, "revoke", fields{"serial_number": brief})
	if err != nil || len(response.Warnings) != 1 || isListed(t, h, short) {
		t.Errorf("an ended one: %v, %v", response, err)
	}
}

// A certificate of somebody else with a serial number of ours revokes nothing, nor do an issuer's or a forged one.
func TestForeignCertificatesAreNotRevoked(t *testing.T) {
	h := withRoot(t)
	_, _, cert := issue(t, h, "web", "a.example.com", "1h")
	root := parse(t, string(rawOf(t, h, "ca/pem").Body))
	foreign, _ := stranger(t, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	named, _ := stranger(t, func(c *x509.Certificate) { c.SerialNumber, c.Subject = cert.SerialNumber, root.Subject })
	for _, text := range []string{foreign, named} {
		h.Fails(conclave.Update, "revoke", fields{"certificate": text}, conclave.Invalid, "unable to verify signature")
	}
	h.Fails(conclave.Update, "revoke", fields{"certificate": string(rawOf(t, h, "ca/pem").Body)}, conclave.Invalid, "issuer's")
	if isListed(t, h, cert) {
		t.Error("a foreign certificate has revoked ours")
	}
	other, err := ocsp.CreateRequest(cert, parse(t, foreign), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := h.Do(conclave.Read, "ocsp/"+base64.RawURLEncoding.EncodeToString(other), nil)
	if err != nil || response.Status != 401 || string(response.Raw.Body) != string(ocsp.UnauthorizedErrorResponse) {
		t.Errorf("a question about a stranger's certificate: %v, %v", response, err)
	}
	for _, text := range []string{"AAAA", "x/y", "%"} {
		if response, err := h.Do(conclave.Read, "ocsp/"+text, nil); err != nil || response.Status != 400 {
			t.Errorf("%s: %v, %v", text, response, err)
		}
	}
	h.Data(conclave.Update, "config/crl", fields{"ocsp_disable": true})
	request, err := ocsp.CreateRequest(cert, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := h.Do(conclave.Read, "ocsp/"+base64.RawURLEncoding.EncodeToString(request), nil); err != nil || response.Status != 401 {
		t.Errorf("OCSP, disabled: %v, %v", response, err)
	}
}

func TestRevokeWithKey(t *testing.T) {
	h := withRoot(t)
	one := h.Data(conclave.Update, "issue/web", fields{"common_name": "a.example.com"})
	two := h.Data(conclave.Update, "issue/web", fields{"common_name": "b.example.com", "private_key_format": "pkcs8"})
	h.Fails(conclave.Update, "revoke-with-key", fields{"serial_number": one["serial_number"], "private_key": two["private_key"]}, conclave.Invalid, "not the certificate's")
	h.Data(conclave.Update, "revoke-with-key", fields{"serial_number": one["serial_number"], "private_key": one["private_key"]})
	h.Data(conclave.Update, "revoke-with-key", fields{"certificate": two["certificate"], "private_key": two["private_key"]})
	if !isListed(t, h, parse(t, one["certificate"])) || !isListed(t, h, parse(t, two["certificate"])) {
		t.Error("not listed")
	}
}

func TestCertificatesAreReadBySerialNumber(t *testing.T) {
	h := withRoot(t)
	text, serial, cert := issue(t, h, "web", "a.example.com", "1h")
	got := h.Data(conclave.Read, "cert/"+strings.ReplaceAll(serial, ":", "-"), nil)
	if strings.TrimSpace(got["certificate"].(string)) != text || got["issuer_id"] == "" {
		t.Errorf("%v", got)
	}
	if raw := rawOf(t, h, "cert/"+serial+"/raw"); string(raw.Body) != string(cert.Raw) || raw.ContentType != "application/pkix-cert" {
		t.Error("raw is another one")
	}
	if raw := rawOf(t, h, "cert/"+serial+"/raw/pem"); strings.TrimSpace(string(raw.Body)) != text || raw.ContentType != "application/pem-certificate-chain" {
		t.Error("PEM is another one")
	}
	for path, contentType := range map[string]string{"ca": "application/pkix-cert", "ca/pem": "application/pem-certificate-chain", "ca_chain": "application/pkix-cert", "crl": "application/pkix-crl", "issuer/root/der": "application/pkix-cert",
		"issuer/root/pem": "application/pem-certificate-chain", "issuer/root/crl": "application/pkix-crl", "issuer/default/crl/der": "application/pkix-crl", "crl/pem": "application/x-pem-file", "cert/crl/raw": "application/pkix-crl"} {
		if raw := rawOf(t, h, path); raw.ContentType != contentType || len(raw.Body) == 0 {
			t.Errorf("%s: %s", path, raw.ContentType)
		}
	}
	for _, path := range []string{"cert/ca", "cert/ca_chain", "cert/crl"} {
		if got := h.Data(conclave.Read, path, nil); !strings.Contains(got["certificate"].(string), "BEGIN") {
			t.Errorf("%s: %v", path, got)
		}
	}
	for _, bad := range []string{"cert/..", "cert/zz", "cert/a", "cert/00:", "cert/:00", "cert/0:0", "cert/config", "cert/" + strings.Repeat("ab", 33)} {
		if _, err := h.Do(conclave.Read, bad, nil); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for range 30 {
		issue(t, h, "web", "a.example.com", "1h")
	}
	all := h.Data(conclave.List, "certs", nil)["keys"].([]any)
	if len(all) != 32 { // with the root's
		t.Fatalf("%d certificates", len(all))
	}
	var paged []any
	for after := ""; len(paged) < len(all); {
		page := h.Data(conclave.List, "certs", fields{"after": after, "limit": 7})["keys"].([]any)
		paged, after = append(paged, page...), page[len(page)-1].(string)
	}
	if !slices.Equal(all, paged) {
		t.Error("pages differ from the whole")
	}
}

func TestListsHoldDeltas(t *testing.T) {
	h := withRoot(t)
	h.Fails(conclave.Read, "crl/delta", nil, conclave.NotFound, "not enabled")
	h.Fails(conclave.Update, "config/crl", fields{"enable_delta": true}, conclave.Invalid, "auto_rebuild")
	h.Data(conclave.Update, "config/crl", fields{"enable_delta": true, "auto_rebuild": "true", "expiry": "48h"})
	if got := h.Data(conclave.Read, "config/crl", nil); got["expiry"] != "48h" || got["delta_rebuild_interval"] != "15m" || got["ocsp_expiry"] != "12h" {
		t.Errorf("config/crl reads as %v", got)
	}
	_, old, _ := issue(t, h, "web", "a.example.com", "1h")
	h.Data(conclave.Update, "revoke", fields{"serial_number": old})
	h.Advance(time.Second)
	h.Data(conclave.Read, "crl/rotate", nil)
	base := parseList(t, rawOf(t, h, "crl").Body)
	h.Advance(time.Second)
	_, serial, cert := issue(t, h, "web", "b.example.com", "1h")
	h.Data(conclave.Update, "revoke", fields{"serial_number": serial})
	delta, whole := parseList(t, rawOf(t, h, "crl/delta").Body), parseList(t, rawOf(t, h, "crl").Body)
	if len(base.RevokedCertificateEntries) != 1 || len(delta.RevokedCertificateEntries) != 1 || len(whole.RevokedCertificateEntries) != 2 || delta.Number.Cmp(whole.Number) != 0 {
		t.Errorf("base has %d, delta %d, whole %d", len(base.RevokedCertificateEntries), len(delta.RevokedCertificateEntries), len(whole.RevokedCertificateEntries))
	}
	if delta.RevokedCertificateEntries[0].SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Error("the delta has another one")
	}
	for _, e := range delta.Extensions {
		if e.Id.String() == "2.5.29.27" && !strings.HasSuffix(string(e.Value), string(base.Number.Bytes())) {
			t.Errorf("the delta begins with %x, want %x", e.Value, base.Number.Bytes())
		}
	}
	if text := h.Data(conclave.Read, "cert/delta-crl", nil)["certificate"].(string); string(decodePEM(t, text)) != string(rawOf(t, h, "crl/delta").Body) {
		t.Error("cert/delta-crl is another one")
	}
	h.Advance(40 * time.Hour) // past the list's end but for the grace period
	next := parseList(t, rawOf(t, h, "crl").Body)
	if next.Number.Cmp(whole.Number) <= 0 || !next.NextUpdate.After(h.Now()) || !next.ThisUpdate.Before(h.Now().Add(time.Second)) {
		t.Errorf("a list from %v to %v at %v", next.ThisUpdate, next.NextUpdate, h.Now())
	}
	h.Data(conclave.Update, "config/crl", fields{"disable": true})
	if crl := parseList(t, rawOf(t, h, "crl").Body); len(crl.RevokedCertificateEntries) != 0 || crl.Number.Cmp(next.Number) <= 0 {
		t.Errorf("disabled: %d entries", len(crl.RevokedCertificateEntries))
	}
}

func TestManyAreRevoked(t *testing.T) {
	h := withRoot(t, enginetest.Fast())
	h.Data(conclave.Update, "config/crl", fields{"max_crl_entries": 300})
	var last *x509.Certificate
	for range 300 {
		var serial string
		_, serial, last = issue(t, h, "web", "a.example.com", "1h")
		h.Data(conclave.Update, "revoke", fields{"serial_number": serial})
	}
	crl := parseList(t, rawOf(t, h, "crl").Body)
	if len(crl.RevokedCertificateEntries) != 300 || !isListed(t, h, last) {
		t.Errorf("%d entries", len(crl.RevokedCertificateEntries))
	}
	_, serial, _ := issue(t, h, "web", "a.example.com", "1h")
	h.Fails(conclave.Update, "revoke", fields{"serial_number": serial}, conclave.Limited, "max_crl_entries")
	h.Advance(80 * time.Hour)
	h.Data(conclave.Update, "tidy", fields{"tidy_revoked_certs": true, "tidy_cert_store": true})
	for range 50 {
		if _, err := h.RunDue(h.Now()); err != nil {
			t.Fatal(err)
		}
	}
	status := h.Data(conclave.Read, "tidy-status", nil)
	if status["state"] != "Finished" || status["cert_store_deleted_count"] != json.Number("301") || status["revoked_cert_deleted_count"] != json.Number("300") {
		t.Errorf("status %v", status)
	}
	if crl := parseList(t, rawOf(t, h, "crl").Body); len(crl.RevokedCertificateEntries) != 0 {
		t.Errorf("%d entries are left", len(crl.RevokedCertificateEntries))
	}
	for path := range h.Stored() {
		if strings.HasPrefix(path, "revoked/") || strings.HasPrefix(path, "register/") && !strings.HasSuffix(path, "/head") || strings.HasPrefix(path, "cert/") && !strings.HasPrefix(path, "cert/"+rootShard(t, h)) {
			t.Errorf("%s is left", path)
		}
	}
}

func rootShard(t testing.TB, h *enginetest.Harness) string {
	t.Helper()
	serial := parse(t, string(rawOf(t, h, "ca/pem").Body)).SerialNumber.Bytes()
	return fmt.Sprintf("%02x/", serial[len(serial)-1])
}

func TestTidyingKeepsWhatHasNotEnded(t *testing.T) {
	h := withRoot(t)
	_, gone, _ := issue(t, h, "web", "a.example.com", "1h")
	_, revoked, _ := issue(t, h, "web", "b.example.com", "1h")
	_, stays, long := issue(t, h, "web", "c.example.com", "72h")
	h.Data(conclave.Update, "revoke", fields{"serial_number": revoked})
	h.Data(conclave.Update, "revoke", fields{"serial_number": stays})
	h.Fails(conclave.Update, "tidy", fields{"safety_buffer": 0}, conclave.Invalid, "safety_buffer")
	h.Fails(conclave.Update, "config/auto-tidy", fields{"enabled": true}, conclave.Invalid, "no tidy operations")
	h.Data(conclave.Update, "config/auto-tidy", fields{"enabled": true, "tidy_cert_store": true, "safety_buffer": "1h", "interval_duration": "4h"})
	run := func() {
		t.Helper()
		for range 8 {
			if _, err := h.RunDue(h.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.Advance(time.Hour)
	run()
	h.Data(conclave.Read, "cert/"+gone, nil)
	h.Advance(4 * time.Hour)
	run()
	h.Fails(conclave.Read, "cert/"+gone, nil, conclave.NotFound, "")
	h.Data(conclave.Read, "cert/"+revoked, nil) // tidy_revoked_certs isn't set
	h.Data(conclave.Read, "cert/"+stays, nil)
	if woken := h.Woken(); !woken["tidy"].IsZero() || !woken["auto-tidy"].After(h.Now()) {
		t.Errorf("woken at %v", woken)
	}
	h.Data(conclave.Patch, "roles/web", fields{"ttl": "1h"})
	response, err := h.Do(conclave.Update, "tidy", fields{"tidy_revoked_certs": true, "safety_buffer": "1h"})
	if err != nil || response.Status != 202 {
		t.Fatal(response, err)
	}
	if got := h.Data(conclave.Update, "tidy-cancel", nil); got["state"] != "Cancelled" {
		t.Errorf("cancelled: %v", got)
	}
	run()
	h.Data(conclave.Read, "cert/"+revoked, nil)
	h.Data(conclave.Update, "tidy", fields{"tidy_revoked_certs": true, "tidy_expired_issuers": true, "safety_buffer": "1h"})
	run()
	h.Fails(conclave.Read, "cert/"+revoked, nil, conclave.NotFound, "")
	if !isListed(t, h, long) {
		t.Error("a revoked certificate that is still valid is off the list")
	}
	h.Data(conclave.Update, "config/auto-tidy", fields{"enabled": false})
	if woken := h.Woken(); !woken["auto-tidy"].IsZero() {
		t.Errorf("woken at %v", woken)
	}
}

func TestLeasesRevoke(t *testing.T) {
	h := withRoot(t)
	h.Data(conclave.Update, "roles/leased", fields{"allow_any_name": true, "key_type": "ec", "generate_lease": true})
	response, err := h.Do(conclave.Update, "issue/leased", fields{"common_name": "a.example.com", "ttl": "1h"})
	if err != nil || response.Lease == nil || response.Lease.Renewable || response.Lease.TTL > time.Hour || response.Lease.TTL < 59*time.Minute {
		t.Fatalf("%+v, %v", response, err)
	}
	cert := parse(t, enginetest.Decode(t, response.Data)["certificate"])
	leases := h.Leases()
	if _, err := h.RenewLease(leases[0].ID, time.Hour); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("renewed: %v", err)
	}
	end := func(id string) {
		t.Helper()
		if err := h.EndLease(id); err != nil {
			t.Fatal(err)
		}
	}
	end(leases[0].ID)
	if !isListed(t, h, cert) {
		t.Error("the end of its lease doesn't revoke a certificate")
	}
	if response, err = h.Do(conclave.Update, "issue/leased", fields{"common_name": "b.example.com", "ttl": "1h"}); err != nil {
		t.Fatal(err)
	}
	h.Advance(2 * time.Hour)
	end(h.Leases()[0].ID)
	if isListed(t, h, parse(t, enginetest.Decode(t, response.Data)["certificate"])) {
		t.Error("a certificate that has ended is revoked")
	}
	if _, err = h.Do(conclave.Update, "issue/leased", fields{"common_name": "c.example.com", "ttl": "1h"}); err != nil {
		t.Fatal(err)
	}
	h.Advance(100 * time.Hour)
	h.Data(conclave.Update, "tidy", fields{"tidy_cert_store": true})
	if _, err := h.RunDue(h.Now()); err != nil {
		t.Fatal(err)
	}
	end(h.Leases()[0].ID) // of one that is gone
	if response, err = h.Do(conclave.Update, "roles/both", fields{"generate_lease": true, "no_store": true}); err != nil || len(response.Warnings) == 0 {
		t.Errorf("both: %v, %v", response, err)
	}
	if got := h.Data(conclave.Read, "roles/both", nil); got["generate_lease"] != false {
		t.Error("no_store and generate_lease")
	}
}

// Serial numbers are random, and none is another one's.
func TestSerialNumbers(t *testing.T) {
	h := withRoot(t)
	seen := map[string]bool{}
	for range 50 {
		_, next, cert := issue(t, h, "web", "a.example.com", "1h")
		if seen[next] || cert.SerialNumber.BitLen() > 159 || cert.SerialNumber.Cmp(big.NewInt(1<<62)) < 0 {
			t.Errorf("serial number %s", next)
		}
		seen[next] = true
	}
}

// Certificates that end in a week are told of once each, but not those that are revoked, gone or were made for days.
func TestEndsAreToldOf(t *testing.T) {
	h := withRoot(t, enginetest.Fast())
	h.Data(conclave.Update, "roles/long", fields{"allow_any_name": true, "key_type": "ec"})
	wanted := map[string]bool{}
	for n := range 130 {
		_, serial, _ := issue(t, h, "long", fmt.Sprintf("a%d.example.com", n), "480h")
		wanted["cert/"+serial] = true
	}
	_, gone, _ := issue(t, h, "long", "revoked.example.com", "480h")
	h.Data(conclave.Update, "revoke", fields{"serial_number": gone})
	if events := h.TakeEvents(); len(events) != 1 || events[0].Type != "pki/revoke" || events[0].Path != "cert/"+gone {
		t.Errorf("revocation is told as %v", events)
	}
	_, late, _ := issue(t, h, "long", "late.example.com", "700h")
	told := map[string]int{}
	days := func(n int) {
		t.Helper()
		for range n {
			h.Advance(24 * time.Hour)
			for range 10 {
				if _, err := h.RunDue(h.Now()); err != nil {
					t.Fatal(err)
				}
			}
			for _, event := range h.TakeEvents() {
				if event.Type != "pki/certificate-expiring" || event.Metadata["not_after"] == "" || event.Metadata["serial_number"] == "" {
					t.Errorf("told: %v", event)
				}
				told[event.Path]++
			}
		}
	}
	days(11)
	if len(told) != 0 {
		t.Errorf("too early: %v", told)
	}
	issue(t, h, "long", "brief.example.com", "200h")
	days(4)
	for path := range wanted {
		if told[path] != 1 {
			t.Errorf("%s was told of %d times", path, told[path])
		}
	}
	if len(told) != len(wanted) {
		t.Errorf("%d were told of, want %d", len(told), len(wanted))
	}
	days(15)
	if told["cert/"+late] != 1 {
		t.Error("the late one was not told of")
	}
	days(20)
	h.Data(conclave.Update, "tidy", fields{"tidy_cert_store": true, "tidy_revoked_certs": true, "safety_buffer": "1s"})
	days(2)
	if woken := h.Woken(); len(woken) != 0 {
		t.Errorf("nothing is kept, and woken at %v", woken)
	}
}

// numbered signs a certificate of an authority with a serial number of somebody's choice.
func numbered(t testing.TB, ca, caKey string, serial *big.Int) string {
	t.Helper()
	block, _ := pem.Decode([]byte(caKey))
	signer, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	above := parse(t, ca)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Leaf"}, NotBefore: above.NotBefore, NotAfter: above.NotAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, above, signer.(*ecdsa.PrivateKey).Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	// crypto/x509 makes no certificates with such numbers, but others did.
	var cert struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		t.Fatal(err)
	}
	was, now := []byte{2, 1, 1}, must(asn1.Marshal(serial))
	cert.TBS = asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Replace(cert.TBS.Bytes, was, now, 1)}
	sum := sha256.Sum256(must(asn1.Marshal(cert.TBS)))
	cert.Signature = asn1.BitString{Bytes: must(signer.(crypto.Signer).Sign(rand.Reader, sum[:], crypto.SHA256))}
	cert.Signature.BitLength = 8 * len(cert.Signature.Bytes)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: must(asn1.Marshal(cert))}))
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// Authorities that are imported have numbered certificates themselves. What can't go into a list is refused, and leaves the
// list as it is; what another authority has the number of isn't said to be revoked.
func TestSerialNumbersOfImportedAuthorities(t *testing.T) {
	h := newHarness(t)
	names, cas, keys := []string{"a", "b"}, make([]string, 2), make([]string, 2)
	for i, name := range names {
		cas[i], keys[i] = stranger(t, func(c *x509.Certificate) { c.Subject.CommonName = name })
		h.Data(conclave.Update, "issuers/import/bundle", fields{"pem_bundle": cas[i] + keys[i]})
	}
	for about, serial := range map[string]*big.Int{"zero": big.NewInt(0), "33 bytes": new(big.Int).Lsh(big.NewInt(1), 8*32), "200 bytes": new(big.Int).Lsh(big.NewInt(1), 8*199)} {
		if _, err := h.Do(conclave.Update, "revoke", fields{"certificate": numbered(t, cas[0], keys[0], serial)}); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", about, err)
		}
	}
	for _, serial := range []*big.Int{big.NewInt(7), new(big.Int).Lsh(big.NewInt(1), 8*32-1)} {
		h.Data(conclave.Update, "revoke", fields{"certificate": numbered(t, cas[0], keys[0], serial)})
	}
	h.Fails(conclave.Update, "revoke", fields{"certificate": numbered(t, cas[1], keys[1], big.NewInt(7))}, conclave.Invalid, "not revoked")
	if list := parseList(t, rawOf(t, h, "crl").Body); len(list.RevokedCertificateEntries) != 2 {
		t.Errorf("%d are on the list", len(list.RevokedCertificateEntries))
	}
	h.Data(conclave.Update, "revoke", fields{"certificate": numbered(t, cas[1], keys[1], big.NewInt(8))})
}
