package pki

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

// What is stored as JSON keeps its names: the files in testdata are as first shipped.
func TestStoredFormsAreAsShipped(t *testing.T) {
	for name, decode := range map[string]func([]byte) (any, error){
		"role":   func(b []byte) (any, error) { return issuing.Decode(b) },
		"key":    func(b []byte) (any, error) { return authority.DecodeKey(b) },
		"issuer": func(b []byte) (any, error) { return authority.DecodeIssuer(b) },
	} {
		text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		object, err := decode(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := json.Marshal(object); err != nil || !bytes.Equal(got, bytes.TrimSpace(text)) {
			t.Errorf("%s is stored as\n%s, was\n%s, %v", name, got, text, err)
		}
		if _, err := decode([]byte("{")); err == nil {
			t.Errorf("%s: damage decodes", name)
		}
	}
}

// A mount as first shipped works: its root signs, and what it has revoked stays revoked.
func TestShippedMountsWork(t *testing.T) {
	h := newHarness(t)
	for path, file := range map[string]string{"role/web": "role", "key/5b0a4cd5-9d6e-4a0e-8d2a-0b5a52ea7c11": "key", "issuer/0f3c9b9e-4a4e-4df5-9d7a-6a55f1c7a2b4": "issuer"} {
		text, err := os.ReadFile(filepath.Join("testdata", file+".json"))
		if err != nil {
			t.Fatal(err)
		}
		h.Store(path, bytes.TrimSpace(text))
	}
	h.Store("config/issuers", []byte(`{"default":"0f3c9b9e-4a4e-4df5-9d7a-6a55f1c7a2b4","default_follows_latest_issuer":true}`))
	h.Store("config/keys", []byte(`{"default":"5b0a4cd5-9d6e-4a0e-8d2a-0b5a52ea7c11"}`))
	h.Store("issuername/shipped", []byte("0f3c9b9e-4a4e-4df5-9d7a-6a55f1c7a2b4"))
	h.Data(conclave.Update, "issuer/shipped/issue/web", fields{"common_name": "a.example.com", "ttl": "1h"})
	of := parse(t, string(rawOf(t, h, "ca/pem").Body))
	name := "register/" + authority.NameOf(of)
	h.Store(name+"/head", []byte(`{"changed":1767323045000000678,"base":1767323045000000600,"first":2,"next":3,"count":1}`))
	h.Store(name+"/2", []byte("\x01\x01\x05\xcc\xd2\xb1\xc9\xc3\xbc\xe5\x86\x31\xea\x8e\xba\x95\x0d\x01"))
	crl := parseList(t, rawOf(t, h, "crl").Body)
	if len(crl.RevokedCertificateEntries) != 1 || crl.RevokedCertificateEntries[0].SerialNumber.Int64() != 5 || crl.RevokedCertificateEntries[0].ReasonCode != 1 {
		t.Errorf("the list has %v", crl.RevokedCertificateEntries)
	}
	kept, err := (&stored.Certificate{Authority: authority.NameOf(of), DER: of.Raw}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	h.Store("cert/05/05", kept)
	h.Store("revoked/05/05", []byte(`{"authority":"`+authority.NameOf(of)+`","at":1767323045000000678,"expires":1767326645}`))
	if got := h.Data(conclave.Read, "cert/05", nil); got["revocation_time"] != json.Number("1767323045") || got["issuer_id"] != "0f3c9b9e-4a4e-4df5-9d7a-6a55f1c7a2b4" {
		t.Errorf("a revoked certificate reads as %v", got)
	}
	for path, text := range map[string]string{
		"config/urls":      `{"issuing_certificates":["http://a/"],"crl_distribution_points":["http://b/"],"delta_crl_distribution_points":["http://c/"],"ocsp_servers":["http://d/"],"enable_templating":true}`,
		"config/cluster":   `{"path":"https://a","aia_path":"https://b"}`,
		"config/auto-tidy": `{"tidy_cert_store":true,"tidy_revoked_certs":true,"tidy_revoked_cert_issuer_associations":true,"tidy_expired_issuers":true,"safety_buffer":5,"issuer_safety_buffer":6,"pause_duration":"1s","enabled":true,"interval_duration":7,"maintain_stored_certificate_counts":true,"publish_stored_certificate_count_metrics":true,"tidy_move_legacy_ca_bundle":true,"tidy_revocation_queue":true,"revocation_queue_safety_buffer":8,"tidy_cross_cluster_revoked_certs":true,"tidy_acme":true,"acme_account_safety_buffer":9,"tidy_cert_metadata":true,"tidy_cmpv2_nonce_store":true,"min_startup_backoff_duration":10,"max_startup_backoff_duration":11}`,
	} {
		h.Store(path, []byte(text))
		var want map[string]any
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if got := h.Data(conclave.Read, path, nil); !reflect.DeepEqual(got, want) {
			t.Errorf("%s reads as\n%v, want\n%v", path, got, want)
		}
	}
	h.Store("tidy/job", []byte(`{"options":{"tidy_cert_store":true,"safety_buffer":5,"issuer_safety_buffer":6,"pause_duration":"1s"},"state":"Finished","phase":0,"cursor":"x","started":1767323045,"finished":1767323046,"auto":1767323047,"by_itself":true,"certs":1,"revoked":2,"issuers":3}`))
	if got := h.Data(conclave.Read, "tidy-status", nil); got["state"] != "Finished" || got["tidy_cert_store"] != true || got["cert_store_deleted_count"] != json.Number("1") || got["revoked_cert_deleted_count"] != json.Number("2") ||
		got["time_started"] != "2026-01-02T03:04:05Z" || got["time_finished"] != "2026-01-02T03:04:06Z" || got["last_auto_tidy_finished"] != "2026-01-02T03:04:07Z" {
		t.Errorf("tidy-status reads as %v", got)
	}
}

// What a client sees of a role is what can be written again.
func TestRolesAreReadAsWritten(t *testing.T) {
	h := newHarness(t)
	h.Data(conclave.Update, "roles/a", fields{"allowed_domains": []string{"a.b"}, "ttl": "1h", "key_type": "ec", "key_bits": 384, "policy_identifiers": []any{"1.2.3", fields{"oid": "1.2.4", "notice": "n"}}})
	first := h.Data(conclave.Read, "roles/a", nil)
	if first["ttl"] != json.Number("3600") || first["key_bits"] != json.Number("384") {
		t.Errorf("%v", first)
	}
	h.Data(conclave.Update, "roles/b", first)
	if second := h.Data(conclave.Read, "roles/b", nil); !reflect.DeepEqual(first, second) {
		t.Errorf("read\n%v, then\n%v", first, second)
	}
	h.Data(conclave.Patch, "roles/a", fields{"ttl": "2h"})
	if got := h.Data(conclave.Read, "roles/a", nil); got["ttl"] != json.Number("7200") || got["key_type"] != "ec" {
		t.Errorf("patched: %v", got)
	}
	h.Data(conclave.Update, "roles/a", nil)
	if got := h.Data(conclave.Read, "roles/a", nil); got["key_type"] != "rsa" || got["key_bits"] != json.Number("2048") {
		t.Errorf("written anew: %v", got)
	}
	for name, value := range map[string]any{"key_type": "dsa", "key_bits": 1024, "signature_bits": 100, "key_usage": "fun", "ext_key_usage": "fun", "ext_key_usage_oids": "x", "allowed_ip_sans_cidr": "10.0.0.1", "allowed_other_sans": "x",
		"policy_identifiers": "x", "cn_validations": "fun", "not_before_bound": "fun", "not_after_bound": "fun", "not_after": "fun", "ttl": -1, "max_ttl": "1000000h", "ou": "a\x00b", "serial_number_source": "fun"} {
		if _, err := h.Do(conclave.Update, "roles/c", fields{name: value}); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s=%v: %v", name, value, err)
		}
	}
	h.Fails(conclave.Update, "roles/c", fields{"ttl": "2h", "max_ttl": "1h"}, conclave.Invalid, "ttl")
	h.Fails(conclave.Update, "roles/-x", nil, conclave.Invalid, "name")
	h.Fails(conclave.Patch, "roles/none", fields{"ttl": "2h"}, conclave.NotFound, "")
	h.Data(conclave.Delete, "roles/a", nil)
	h.Fails(conclave.Read, "roles/a", nil, conclave.NotFound, "")
}

// A key that takes long to make isn't made for a request that is refused.
func TestRefusedRequestsCostNoRSAKey(t *testing.T) {
	h := withRoot(t)
	h.Data(conclave.Update, "roles/rsa", fields{"allowed_domains": "example.com", "allow_subdomains": true, "key_bits": 8192})
	for about, body := range map[string]fields{"name": {"common_name": "evil.org"}, "time": {"common_name": "a.example.com", "not_after": "2099-01-01T00:00:00Z"}} {
		err := h.Interrupt(enginetest.AfterPrepare, conclave.Update, "issue/rsa", body)
		if !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", about, err)
		}
	}
	h.Data(conclave.Delete, "issuer/root", nil)
	if err := h.Interrupt(enginetest.AfterPrepare, conclave.Update, "issue/rsa", fields{"common_name": "a.example.com"}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("without an issuer: %v", err)
	}
}

// BenchmarkIssue issues a certificate of an EC key that isn't kept: the work of one node, without log and audit.
func BenchmarkIssue(b *testing.B) {
	h := withRoot(b, enginetest.Fast())
	h.Data(conclave.Update, "roles/fast", fields{"allow_any_name": true, "key_type": "ec", "no_store": true})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Do(conclave.Update, "issue/fast", fields{"common_name": "a.example.com", "ttl": "1h"}); err != nil {
			b.Fatal(err)
		}
	}
}
