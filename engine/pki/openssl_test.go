package pki

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// openssl is the program of that name in a directory of its own.
type openssl struct {
	t   *testing.T
	dir string
}

func newOpenSSL(t *testing.T) *openssl {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("openssl is missing: install the package openssl")
		}
		t.Skip("openssl is missing: install the package openssl")
	}
	return &openssl{t, t.TempDir()}
}

// file writes a file.
func (o *openssl) file(name, text string) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// run returns what the program says, and whether it succeeded.
func (o *openssl) run(args ...string) (string, bool) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), 30*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "openssl", args...)
	command.Dir = o.dir
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	return out.String(), err == nil
}

func (o *openssl) must(args ...string) string {
	o.t.Helper()
	text, ok := o.run(args...)
	if !ok {
		o.t.Fatalf("openssl %s: %s", strings.Join(args, " "), text)
	}
	return text
}

// nowIsNow has a harness's clock go as the real one does, which openssl goes by.
func nowIsNow(h *enginetest.Harness) { h.Advance(time.Since(h.Now())) }

// TestOpenSSLAgrees has another implementation look at chains of every kind of key, at lists, deltas and OCSP responses.
func TestOpenSSLAgrees(t *testing.T) {
	o := newOpenSSL(t)
	for _, kind := range []struct{ name, key, bits, pss string }{{"ec", "ec", "256", "false"}, {"ed25519", "ed25519", "0", "false"}, {"rsa", "rsa", "2048", "false"}, {"pss", "rsa", "2048", "true"}} {
		t.Run(kind.name, func(t *testing.T) {
			o := &openssl{t, filepath.Join(o.dir, kind.name)}
			if err := os.Mkdir(o.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			h := newHarness(t)
			nowIsNow(h)
			key := fields{"key_type": kind.key, "key_bits": kind.bits, "use_pss": kind.pss}
			with := func(more fields) fields {
				all := fields{}
				for _, part := range []fields{key, more} {
					for name, value := range part {
						all[name] = value
					}
				}
				return all
			}
			root := h.Data(conclave.Update, "root/generate/internal", with(fields{"common_name": "Root", "ttl": "700h", "issuer_name": "root"}))
			csr := h.Data(conclave.Update, "intermediate/generate/internal", with(fields{"common_name": "Intermediate", "add_basic_constraints": true}))
			signed := h.Data(conclave.Update, "issuer/root/sign-intermediate", fields{"csr": csr["csr"], "common_name": "Intermediate", "ttl": "600h", "max_path_length": "0", "use_pss": kind.pss})
			imported := h.Data(conclave.Update, "intermediate/set-signed", fields{"certificate": signed["certificate"]})
			id := imported["imported_issuers"].([]any)[0].(string)
			h.Data(conclave.Update, "config/issuers", fields{"default": id})
			h.Data(conclave.Update, "config/crl", fields{"auto_rebuild": true, "enable_delta": true})
			h.Data(conclave.Update, "roles/web", (fields{"key_type": "ec", "key_bits": "384", "use_pss": kind.pss, "allow_any_name": true, "ttl": "1h", "policy_identifiers": `[{"oid":"1.2.3.4","notice":"Read me","cps":"https://cps.example/"},"2.5.29.32.0"]`, "allowed_other_sans": "*"}))
			leaf := h.Data(conclave.Update, "issue/web", fields{"common_name": "a.example.com", "ip_sans": "10.0.0.1", "other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:ann@example.com"})
			o.file("root.pem", root["certificate"].(string))
			o.file("int.pem", signed["certificate"].(string))
			o.file("leaf.pem", leaf["certificate"].(string))
			o.file("key.pem", leaf["private_key"].(string))
			o.must("verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "int.pem", "-verify_hostname", "a.example.com", "leaf.pem")
			o.must("verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "int.pem", "-verify_ip", "10.0.0.1", "leaf.pem")
			if text := o.must("x509", "-in", "leaf.pem", "-noout", "-text"); !strings.Contains(text, "Read me") || !strings.Contains(text, "https://cps.example/") || !strings.Contains(text, "othername") {
				t.Errorf("openssl doesn't see the policies and names:\n%s", text)
			}
			if public := o.must("pkey", "-in", "key.pem", "-pubout"); public != o.must("x509", "-in", "leaf.pem", "-noout", "-pubkey") {
				t.Error("the private key is another certificate's")
			}
			checkRevocation(t, o, h, leaf["serial_number"].(string))
		})
	}
}

// checkRevocation revokes a certificate, and has openssl find it by list and by OCSP.
func checkRevocation(t *testing.T, o *openssl, h *enginetest.Harness, serial string) {
	t.Helper()
	lists := func() {
		for name, path := range map[string]string{"crl.pem": "crl/pem", "root-crl.pem": "issuer/root/crl/pem", "delta.pem": "crl/delta/pem"} {
			o.file(name, string(rawOf(t, h, path).Body))
		}
		o.file("crls.pem", string(rawOf(t, h, "crl/pem").Body)+string(rawOf(t, h, "issuer/root/crl/pem").Body))
	}
	lists()
	checked := []string{"verify", "-crl_check_all", "-CAfile", "root.pem", "-untrusted", "int.pem", "-CRLfile", "crls.pem", "leaf.pem"}
	o.must(checked...)
	o.must("ocsp", "-issuer", "int.pem", "-cert", "leaf.pem", "-no_nonce", "-reqout", "req.der")
	request, err := os.ReadFile(filepath.Join(o.dir, "req.der"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		t.Helper()
		answer, err := h.Do(conclave.Update, "ocsp", fields{"body": base64.StdEncoding.EncodeToString(request)})
		if err != nil {
			t.Fatal(err)
		}
		got := rawOf(t, h, "ocsp/"+base64.RawURLEncoding.EncodeToString(request))
		if got.ContentType != "application/ocsp-response" || !bytes.Equal(got.Body, answer.Raw.Body) {
			t.Error("GET and POST answer different things")
		}
		o.file("resp.der", string(got.Body))
		return o.must("ocsp", "-issuer", "int.pem", "-cert", "leaf.pem", "-respin", "resp.der", "-CAfile", "root.pem", "-verify_other", "int.pem", "-no_nonce", "-partial_chain")
	}
	if text := ask(); !strings.Contains(text, "leaf.pem: good") || !strings.Contains(text, "verify OK") {
		t.Errorf("OCSP: %s", text)
	}
	h.Data(conclave.Update, "revoke", fields{"serial_number": serial})
	lists()
	if text, ok := o.run(checked...); ok || !strings.Contains(text, "certificate revoked") {
		t.Errorf("a revoked certificate verifies: %s", text)
	}
	if text := ask(); !strings.Contains(text, "leaf.pem: revoked") {
		t.Errorf("OCSP: %s", text)
	}
	if text := o.must("crl", "-in", "delta.pem", "-noout", "-text"); !strings.Contains(text, "Delta CRL Indicator") || !strings.Contains(strings.ToLower(text), strings.ReplaceAll(serial, ":", "")) {
		t.Errorf("delta: %s", text)
	}
}

// TestOpenSSLsRequestsAreSigned has openssl make CSRs, bundles and keys.
func TestOpenSSLsRequestsAreSigned(t *testing.T) {
	o := newOpenSSL(t)
	h := withRoot(t)
	h.Data(conclave.Update, "roles/any", fields{"ttl": "1h", "key_type": "any", "allow_any_name": true, "allowed_uri_sans": "spiffe://*"})
	for name, args := range map[string][]string{"rsa": {"-newkey", "rsa:2048"}, "ec": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}, "ed25519": {"-newkey", "ed25519"}} {
		o.must(append([]string{"req", "-new", "-nodes", "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=" + name + ".example.com", "-addext", "subjectAltName=DNS:b.example.com,IP:10.0.0.7,URI:spiffe://a/b,email:a@example.com"}, args...)...)
		csr, err := os.ReadFile(filepath.Join(o.dir, "csr.pem"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"sign/any", "sign-verbatim"} {
			cert := parse(t, h.Data(conclave.Update, path, fields{"csr": string(csr), "ttl": "1h"})["certificate"])
			if cert.Subject.CommonName != name+".example.com" || len(cert.IPAddresses) != 1 || len(cert.URIs) != 1 || len(cert.EmailAddresses) != 1 {
				t.Errorf("%s %s: %+v", name, path, cert.Subject)
			}
		}
	}
	o.must("req", "-x509", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Imported", "-days", "30")
	var bundle string
	for _, name := range []string{"ca.key", "ca.pem"} {
		text, err := os.ReadFile(filepath.Join(o.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		bundle += string(text)
	}
	got := h.Data(conclave.Update, "config/ca", fields{"pem_bundle": bundle})
	if len(got["imported_issuers"].([]any)) != 1 || len(got["imported_keys"].([]any)) != 1 {
		t.Fatalf("imported %v", got)
	}
	again := h.Data(conclave.Update, "issuers/import/bundle", fields{"pem_bundle": bundle})
	if len(again["imported_issuers"].([]any)) != 0 || len(again["existing_issuers"].([]any)) != 1 || len(again["existing_keys"].([]any)) != 1 {
		t.Errorf("imported again: %v", again)
	}
}

// decodePEM is the only block of a text.
func decodePEM(t testing.TB, text string) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %.40s", text)
	}
	return block.Bytes
}

func parseList(t testing.TB, der []byte) *x509.RevocationList {
	t.Helper()
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return crl
}
