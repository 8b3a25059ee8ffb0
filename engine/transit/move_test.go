package transit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/transit/keys"
	"conclave/engine/transit/shelf"
	"conclave/engine/transit/wrap"
)

// wrapFor wraps a key for an import.
func wrapFor(t testing.TB, h *enginetest.Harness, key []byte, hash string) string {
	t.Helper()
	public := parsePublic(t, text(t, h.Data(conclave.Read, "wrapping_key", nil), "public_key")).(*rsa.PublicKey)
	function, err := wrap.Hash(hash)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := wrap.Seal(public, function, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sealed)
}

func parsePublic(t testing.TB, text string) any {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("%q is no PEM", text)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func publicPEM(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestExportIsRefused(t *testing.T) {
	h := newTransit(t)
	create(h, "closed", keys.AES256, nil)
	create(h, "sign", keys.P256, nil)
	create(h, "open", keys.AES256, fields{"exportable": true})
	create(h, "mac", keys.HMACOnly, fields{"exportable": true})
	for _, row := range []struct {
		path   string
		fields fields
		text   string
	}{
		{"export/encryption-key/closed", nil, "not exportable"},
		{"export/hmac-key/closed", nil, "not exportable"},
		{"export/signing-key/sign", nil, "not exportable"},
		{"export/soul/open", nil, "invalid export type"},
		{"export/signing-key/open", nil, "signing not supported"},
		{"export/encryption-key/mac", nil, "encryption not supported"},
		{"export/public-key/open", nil, "no public half"},
		{"export/certificate-chain/sign", nil, "does not have a certificate chain"},
		{"export/encryption-key/open/2", nil, "cannot be found"},
		{"export/encryption-key/open/0", nil, "below minimum"},
		{"export/encryption-key/open/x", nil, "invalid key version"},
		{"export/encryption-key/open", fields{"format": "jwk"}, "invalid format"},
		{"export/encryption-key/open", fields{"format": "pem"}, "no such format"},
		{"export/public-key/sign", fields{"format": "raw"}, "no such format"},
		{"byok-export/sign/open", nil, "must be an RSA key"},
		{"byok-export/none/open", nil, "no such destination"},
		{"byok-export/sign/none", nil, "no such source"},
		{"byok-export/sign/closed", nil, "not exportable"},
		{"byok-export/sign/open", fields{"hash": "MD5"}, "unknown hash"},
		{"backup/closed", nil, "exporting is disallowed"},
		{"backup/open", nil, "backup is disallowed"},
	} {
		h.Fails(conclave.Read, row.path, row.fields, conclave.Invalid, row.text)
	}
	for _, path := range []string{"export/encryption-key/none", "backup/none"} {
		h.Fails(conclave.Read, path, nil, conclave.NotFound, "")
	}
	if _, err := h.Do(conclave.Read, "export/public-key/sign", nil); err != nil {
		t.Errorf("a public key isn't exportable: %v", err)
	}
}

func TestExportForms(t *testing.T) {
	h := newTransit(t)
	for _, row := range []struct {
		kind         keys.Type
		what, format string
		begins       string
	}{
		{keys.RSA2048, "encryption-key", "", "-----BEGIN RSA PRIVATE KEY"},
		{keys.RSA2048, "signing-key", "pem", "-----BEGIN PRIVATE KEY"},
		{keys.RSA2048, "public-key", "", "-----BEGIN PUBLIC KEY"},
		{keys.RSA2048, "signing-key", "der", "MII"},
		{keys.P521, "signing-key", "", "-----BEGIN EC PRIVATE KEY"},
		{keys.P521, "signing-key", "pem", "-----BEGIN PRIVATE KEY"},
		{keys.P521, "public-key", "der", "MIGb"},
		{keys.Ed25519, "signing-key", "pem", "-----BEGIN PRIVATE KEY"},
		{keys.Ed25519, "public-key", "pem", "-----BEGIN PUBLIC KEY"},
		{keys.Ed25519, "public-key", "der", "MCow"},
	} {
		name := string(row.kind)
		if h.Stored()["keys/"+name] == nil {
			create(h, name, row.kind, fields{"exportable": true})
			rotate(h, name, 1)
		}
		got := h.Data(conclave.Read, "export/"+row.what+"/"+name, fields{"format": row.format})
		all := got["keys"].(fields)
		if len(all) != 2 || got["type"] != name || got["name"] != name || !strings.HasPrefix(text(t, all, "2"), row.begins) {
			t.Errorf("%+v: %v", row, got)
		}
		for _, version := range []string{"latest", "2", "v2"} {
			if one := h.Data(conclave.Read, "export/"+row.what+"/"+name+"/"+version, fields{"format": row.format})["keys"].(fields); len(one) != 1 || one["2"] != all["2"] {
				t.Errorf("%+v, %s: %v", row, version, one)
			}
		}
	}
	for kind, length := range map[keys.Type]int{keys.AES128: 16, keys.XChaCha: 32, keys.Ed25519: 64} {
		name, what := string(kind), "encryption-key"
		if kind == keys.Ed25519 {
			what = "signing-key"
		} else {
			create(h, name, kind, fields{"exportable": true})
		}
		raw, err := base64.StdEncoding.DecodeString(text(t, h.Data(conclave.Read, "export/"+what+"/"+name+"/1", nil)["keys"].(fields), "1"))
		if err != nil || len(raw) != length {
			t.Errorf("%s: %d bytes, %v", kind, len(raw), err)
		}
		raw, err = base64.StdEncoding.DecodeString(text(t, h.Data(conclave.Read, "export/hmac-key/"+name, nil)["keys"].(fields), "1"))
		if err != nil || len(raw) != 32 {
			t.Errorf("%s, for HMACs: %d bytes, %v", kind, len(raw), err)
		}
	}
}

func TestBackupAndRestore(t *testing.T) {
	h := newTransit(t)
	create(h, "k", keys.AES256, fields{"exportable": true, "allow_plaintext_backup": true, "auto_rotate_period": "24h"})
	old := encryptText(t, h, "k", "x", nil)
	rotate(h, "k", 1)
	backup := h.Data(conclave.Read, "backup/k", nil)
	if info := h.Data(conclave.Read, "keys/k", nil)["backup_info"].(fields); number(t, info, "version") != 2 {
		t.Errorf("backup_info is %v", info)
	}
	h.Fails(conclave.Update, "restore", backup, conclave.Invalid, "already exists")
	h.Fails(conclave.Update, "restore", nil, conclave.Invalid, "must be supplied")
	h.Fails(conclave.Update, "restore/-x", backup, conclave.Invalid, "name")
	h.Fails(conclave.Update, "restore", with(backup, fields{"name": "a/b"}), conclave.Invalid, "name")
	for _, path := range []string{"restore/other", "restore"} {
		if _, err := h.Do(conclave.Update, path, with(backup, fields{"name": "third"})); err != nil {
			t.Fatal(err)
		}
	}
	rotate(h, "k", 1)
	if _, err := h.Do(conclave.Update, "restore", with(backup, fields{"force": true})); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"other", "third", "k"} {
		got := h.Data(conclave.Read, "keys/"+name, nil)
		if number(t, got, "latest_version") != 2 || got["name"] != name || number(t, got["restore_info"].(fields), "version") != 2 {
			t.Errorf("%s: %v", name, got)
		}
		if got := h.Data(conclave.Update, "decrypt/"+name, fields{"ciphertext": old}); got["plaintext"] != b64("x") {
			t.Errorf("%s: decrypts to %v", name, got)
		}
		if h.Woken()["rotate/"+name].IsZero() {
			t.Errorf("%s doesn't rotate by itself", name)
		}
	}
}

func TestImport(t *testing.T) {
	h := newTransit(t)
	h.Fails(conclave.Update, "keys/early/import", fields{"ciphertext": b64("x")}, conclave.Invalid, "wrapping key")
	ec, edPublic, ed := ecKey(t), ed25519.PublicKey(nil), ed25519.PrivateKey(nil)
	edPublic, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		kind keys.Type
		key  []byte
		hash string
	}{
		{keys.AES128, make([]byte, 16), ""}, {keys.AES256, make([]byte, 32), "SHA1"}, {keys.ChaCha, make([]byte, 32), "sha256"}, {keys.XChaCha, make([]byte, 32), "SHA384"},
		{keys.HMACOnly, make([]byte, 77), "SHA512"}, {keys.P256, pkcs8(t, ec), "SHA224"}, {keys.Ed25519, pkcs8(t, ed), ""}, {keys.RSA2048, pkcs8(t, rsaKey), ""},
	} {
		name := "i-" + string(row.kind)
		given := fields{"type": string(row.kind), "ciphertext": wrapFor(t, h, row.key, row.hash), "hash_function": row.hash, "exportable": true}
		if _, err := h.Do(conclave.Update, "keys/"+name+"/import", given); err != nil {
			t.Fatalf("%s: %v", row.kind, err)
		}
		shown := h.Data(conclave.Read, "keys/"+name, nil)
		if shown["imported_key"] != true || shown["imported_key_allow_rotation"] != false {
			t.Errorf("%s: %v", row.kind, shown)
		}
		h.Fails(conclave.Update, "keys/"+name+"/rotate", nil, conclave.Invalid, "does not allow rotation")
		h.Fails(conclave.Update, "keys/"+name+"/import", given, conclave.Invalid, "existing key")
	}
	made := h.Data(conclave.Update, "sign/i-ed25519", fields{"input": b64("x")})
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text(t, made, "signature"), "vault:v1:"))
	if err != nil || !ed25519.Verify(edPublic, []byte("x"), raw) {
		t.Errorf("the imported key signs %v", made)
	}
	if got := h.Data(conclave.Read, "export/encryption-key/i-aes128-gcm96", nil)["keys"].(fields)["1"]; got != base64.StdEncoding.EncodeToString(make([]byte, 16)) {
		t.Errorf("exported again: %v", got)
	}
	if number(t, h.Data(conclave.Read, "keys/i-hmac", nil), "key_size") != 77 {
		t.Error("the size of an imported key for HMACs isn't kept")
	}
	for _, row := range []struct {
		fields fields
		text   string
	}{
		{nil, "must be set"},
		{fields{"ciphertext": "x", "public_key": "x"}, "only one"},
		{fields{"ciphertext": "?"}, "base64"},
		{fields{"ciphertext": b64("short")}, "unwrapped"},
		{fields{"ciphertext": wrapFor(t, h, make([]byte, 31), "")}, "invalid key size"},
		{fields{"ciphertext": wrapFor(t, h, make([]byte, 32), "SHA1")}, "unwrapped"},
		{fields{"ciphertext": wrapFor(t, h, make([]byte, 32), ""), "hash_function": "MD5"}, "unknown hash"},
		{fields{"ciphertext": wrapFor(t, h, make([]byte, 31), ""), "type": "hmac"}, "invalid key size"},
		{fields{"ciphertext": wrapFor(t, h, pkcs8(t, ec), ""), "type": "ecdsa-p384"}, "isn't of type"},
		{fields{"ciphertext": wrapFor(t, h, pkcs8(t, ec), ""), "type": "rsa-2048"}, "isn't of type"},
		{fields{"ciphertext": wrapFor(t, h, pkcs8(t, rsaKey), ""), "type": "rsa-4096"}, "isn't of type"},
		{fields{"ciphertext": wrapFor(t, h, []byte("no key"), ""), "type": "ed25519"}, "PKCS #8"},
		{fields{"ciphertext": "x", "type": "rot13"}, "unknown key type"},
		{fields{"ciphertext": "x", "convergent_encryption": true}, "convergent"},
		{fields{"ciphertext": "x", "auto_rotate_period": "1h"}, "allow_rotation"},
		{fields{"ciphertext": "x", "type": "ecdsa-p256", "derived": true}, "derivation not supported"},
		{fields{"public_key": publicPEM(t, &ec.PublicKey), "type": "aes256-gcm96"}, "no public half"},
		{fields{"public_key": publicPEM(t, &ec.PublicKey), "type": "ed25519"}, "isn't of type"},
		{fields{"public_key": publicPEM(t, edPublic), "type": "ed25519", "derived": true}, "private key only"},
		{fields{"public_key": "x", "type": "ed25519"}, "PEM"},
	} {
		h.Fails(conclave.Update, "keys/bad/import", row.fields, conclave.Invalid, row.text)
	}
}

func TestImportedVersions(t *testing.T) {
	h := newTransit(t)
	h.Data(conclave.Read, "wrapping_key", nil)
	first, second := ecKey(t), ecKey(t)
	given := fields{"type": "ecdsa-p256", "public_key": publicPEM(t, &first.PublicKey), "allow_rotation": true}
	if _, err := h.Do(conclave.Update, "keys/k/import", given); err != nil {
		t.Fatal(err)
	}
	h.Fails(conclave.Update, "sign/k", fields{"input": b64("x")}, conclave.Invalid, "private part")
	h.Fails(conclave.Update, "keys/k/csr", nil, conclave.Invalid, "private half")
	version := func(given fields, text string) {
		t.Helper()
		if text != "" {
			h.Fails(conclave.Update, "keys/k/import_version", given, conclave.Invalid, text)
			return
		}
		if _, err := h.Do(conclave.Update, "keys/k/import_version", given); err != nil {
			t.Fatal(err)
		}
	}
	latest := func(want int64) {
		t.Helper()
		if got := number(t, h.Data(conclave.Read, "keys/k", nil), "latest_version"); got != want {
			t.Errorf("latest version %d, want %d", got, want)
		}
	}
	version(fields{"ciphertext": wrapFor(t, h, pkcs8(t, second), ""), "version": 1}, "does not match")
	version(fields{"public_key": publicPEM(t, &second.PublicKey), "version": 1}, "already has a public key")
	version(fields{"ciphertext": wrapFor(t, h, pkcs8(t, first), ""), "version": 2}, "no such key version")
	version(fields{"public_key": publicPEM(t, &second.PublicKey)}, "")
	latest(2)
	version(fields{"ciphertext": wrapFor(t, h, pkcs8(t, first), ""), "version": 1}, "")
	version(fields{"ciphertext": wrapFor(t, h, pkcs8(t, first), ""), "version": 1}, "cannot be updated")
	version(fields{"ciphertext": wrapFor(t, h, pkcs8(t, second), "")}, "") // completes version 2
	latest(2)
	made := h.Data(conclave.Update, "sign/k", fields{"input": b64("x"), "key_version": 2})
	if got := h.Data(conclave.Update, "verify/k", with(fields{"input": b64("x")}, fields{"signature": made["signature"]})); got["valid"] != true {
		t.Errorf("verifies %v", got)
	}
	version(fields{"ciphertext": wrapFor(t, h, pkcs8(t, ecKey(t)), "")}, "")
	latest(3)
	rotate(h, "k", 1)
	latest(4)
	version(fields{"public_key": publicPEM(t, &first.PublicKey)}, "only be used with an imported key")
	h.Fails(conclave.Update, "keys/none/import_version", fields{"public_key": "x"}, conclave.Invalid, "no key found")
}

// A key travels to another mount wrapped, without anybody seeing it.
func TestKeysTravelWrapped(t *testing.T) {
	from, to := newTransit(t), newTransit(t)
	wrapping := to.Data(conclave.Read, "wrapping_key", nil)
	if _, err := from.Do(conclave.Update, "keys/there/import", fields{"type": "rsa-2048", "public_key": wrapping["public_key"]}); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []keys.Type{keys.AES256, keys.HMACOnly, keys.P384, keys.Ed25519, keys.RSA2048} {
		name := string(kind)
		create(from, name, kind, fields{"exportable": true})
		rotate(from, name, 1)
		wrapped := from.Data(conclave.Read, "byok-export/there/"+name, fields{"hash": "SHA384"})["keys"].(fields)
		if len(wrapped) != 2 {
			t.Fatalf("%s: %v", kind, wrapped)
		}
		if latest := from.Data(conclave.Read, "byok-export/there/"+name+"/latest", nil)["keys"].(fields); len(latest) != 1 || latest["2"] == wrapped["2"] {
			t.Errorf("%s: the latest is %v", kind, latest)
		}
		if _, err := to.Do(conclave.Update, "keys/"+name+"/import", fields{"type": name, "ciphertext": wrapped["1"], "hash_function": "SHA384"}); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Do(conclave.Update, "keys/"+name+"/import_version", fields{"ciphertext": wrapped["2"], "hash_function": "SHA384"}); err != nil {
			t.Fatal(err)
		}
		switch {
		case kind.Encrypts():
			ciphertext := encryptText(t, from, name, "x", nil)
			if got := to.Data(conclave.Update, "decrypt/"+name, fields{"ciphertext": ciphertext}); got["plaintext"] != b64("x") {
				t.Errorf("%s: decrypts to %v", kind, got)
			}
		case kind.Signs():
			made := from.Data(conclave.Update, "sign/"+name, fields{"input": b64("x")})
			if got := to.Data(conclave.Update, "verify/"+name, fields{"input": b64("x"), "signature": made["signature"]}); got["valid"] != true {
				t.Errorf("%s: verifies %v", kind, got)
			}
		default:
			made := from.Data(conclave.Update, "hmac/"+name, fields{"input": b64("x")})
			if got := to.Data(conclave.Update, "verify/"+name, fields{"input": b64("x"), "hmac": made["hmac"]}); got["valid"] != true {
				t.Errorf("%s: verifies %v", kind, got)
			}
		}
	}
	from.Fails(conclave.Read, "byok-export/there/there", nil, conclave.Invalid, "not exportable")
}

func TestWrappingKeyIsMadeOnce(t *testing.T) {
	h := newTransit(t)
	first, second := h.Data(conclave.Read, "wrapping_key", nil), h.Data(conclave.Read, "wrapping_key", nil)
	if first["public_key"] != second["public_key"] {
		t.Error("the wrapping key changes")
	}
	if Engine(struct{ wrapping keys.Type }{}).wrappingType() != keys.RSA4096 {
		t.Error("the wrapping key isn't of 4096 bits")
	}
}

func TestAgreement(t *testing.T) {
	h := newTransit(t)
	create(h, "ann", keys.P256, nil)
	create(h, "bob", keys.P256, nil)
	create(h, "sym", keys.AES256, nil)
	create(h, "wide", keys.P521, nil)
	public := func(name string) any {
		return h.Data(conclave.Read, "keys/"+name, nil)["keys"].(fields)["1"].(fields)["public_key"]
	}
	for _, row := range [][3]string{{"one", "ann", "bob"}, {"two", "bob", "ann"}} {
		if _, err := h.Do(conclave.Update, "derive-key/"+row[0], fields{"base_key_name": row[1], "peer_public_key": public(row[2]), "derived_key_type": "chacha20-poly1305"}); err != nil {
			t.Fatal(err)
		}
	}
	ciphertext := encryptText(t, h, "one", "x", nil)
	if got := h.Data(conclave.Update, "decrypt/two", fields{"ciphertext": ciphertext}); got["plaintext"] != b64("x") {
		t.Errorf("decrypts to %v", got)
	}
	for _, row := range []struct {
		name   string
		fields fields
		text   string
	}{
		{"one", fields{"base_key_name": "ann", "peer_public_key": public("bob")}, "of that name"},
		{"x", fields{"base_key_name": "none"}, "not found"},
		{"x", fields{"base_key_name": "sym"}, "key agreement"},
		{"x", fields{"base_key_name": "ann"}, "PEM"},
		{"x", fields{"base_key_name": "wide", "peer_public_key": public("ann")}, "one curve"},
		{"x", fields{"base_key_name": "ann", "base_key_version": 2}, "no such key version"},
		{"x", fields{"base_key_name": "ann", "derived_key_type": "rsa-2048"}, "can't be derived"},
		{"x", fields{"base_key_name": "ann", "key_derivation_algorithm": "dh"}, "not supported"},
	} {
		h.Fails(conclave.Update, "derive-key/"+row.name, row.fields, conclave.Invalid, row.text)
	}
}

// authority signs certificates.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := ecKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, certificate}
}

func (a *authority) sign(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}, a.certificate, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return chainText([][]byte{der})
}

func TestCertificates(t *testing.T) {
	h, ca, other := newTransit(t), newAuthority(t), newAuthority(t)
	caText := chainText([][]byte{ca.certificate.Raw})
	template, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "app"}, DNSNames: []string{"app.test"}}, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	templateText := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: template}))
	for _, kind := range []keys.Type{keys.P256, keys.Ed25519, keys.RSA2048} {
		name := string(kind)
		create(h, name, kind, nil)
		rotate(h, name, 1)
		answer := h.Data(conclave.Update, "keys/"+name+"/csr", fields{"csr": templateText, "version": 1})
		block, _ := pem.Decode([]byte(text(t, answer, "csr")))
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || request.CheckSignature() != nil || request.Subject.CommonName != "app" || len(request.DNSNames) != 1 || answer["type"] != name {
			t.Fatalf("%s: %+v, %v", kind, request, err)
		}
		if empty := h.Data(conclave.Update, "keys/"+name+"/csr", nil); text(t, empty, "csr") == answer["csr"] {
			t.Error("the empty request is the other one")
		}
		certificate := ca.sign(t, request.PublicKey)
		set := func(version any, chain, text string) {
			t.Helper()
			h.Fails(conclave.Update, "keys/"+name+"/set-certificate", fields{"version": version, "certificate_chain": chain}, conclave.Invalid, text)
		}
		set(2, certificate, "does not match")
		set(1, caText, "not a valid leaf")
		set(1, certificate+"\n"+chainText([][]byte{other.certificate.Raw}), "not signed by the next")
		set(1, "", "did not contain")
		set(1, "x", "PEM")
		set(1, strings.Replace(certificate, "M", "N", 1), "could not")
		set(3, certificate, "no such key version")
		set(1, strings.Repeat(certificate+"\n", 17), "at most 16")
		chain := certificate + "\n" + caText
		if got := h.Data(conclave.Update, "keys/"+name+"/set-certificate", fields{"version": 1, "certificate_chain": chain + "\n"}); got["certificate_chain"] != chain {
			t.Errorf("%s: set %v", kind, got)
		}
		if shown := h.Data(conclave.Read, "keys/"+name, nil)["keys"].(fields)["1"].(fields); shown["certificate_chain"] != chain {
			t.Errorf("%s: shown %v", kind, shown)
		}
		if got := h.Data(conclave.Read, "export/certificate-chain/"+name+"/1", nil)["keys"].(fields)["1"]; got != chain {
			t.Errorf("%s: exported %v", kind, got)
		}
	}
	create(h, "aes", keys.AES256, nil)
	create(h, "derived", keys.Ed25519, fields{"derived": true})
	for _, path := range []string{"csr", "set-certificate"} {
		h.Fails(conclave.Update, "keys/aes/"+path, nil, conclave.Invalid, "does not support signing")
		h.Fails(conclave.Update, "keys/derived/"+path, nil, conclave.Invalid, "derivation")
		h.Fails(conclave.Update, "keys/none/"+path, nil, conclave.Invalid, "not found")
	}
	h.Fails(conclave.Update, "keys/ed25519/csr", fields{"csr": "x"}, conclave.Invalid, "PEM")
	h.Fails(conclave.Update, "keys/ed25519/csr", fields{"csr": caText}, conclave.Invalid, "can't be read")
}

// FuzzImport imports anything that is wrapped well: no panic, no internal error, and what is imported works.
func FuzzImport(f *testing.F) {
	h := newTransit(f, enginetest.Fast())
	f.Add("aes256-gcm96", make([]byte, 32))
	f.Add("hmac", make([]byte, 33))
	f.Add("ecdsa-p256", pkcs8(f, ecKey(f)))
	f.Add("ed25519", []byte{0x30, 0x2e})
	public := parsePublic(f, text(f, h.Data(conclave.Read, "wrapping_key", nil), "public_key")).(*rsa.PublicKey)
	f.Fuzz(func(t *testing.T, kind string, key []byte) {
		sealed, err := wrap.Seal(public, crypto.SHA256, key)
		if err != nil {
			return
		}
		route := importRoute(t)
		in, err := route.Bind(map[string]string{"name": "k"}, fields{"type": kind, "ciphertext": base64.StdEncoding.EncodeToString(sealed)})
		if err != nil {
			return
		}
		gathered, err := route.Gather(h.View(), in)
		if err != nil {
			if !conclave.Is(err, conclave.Invalid) {
				t.Errorf("gather: %v", err)
			}
			return
		}
		made, err := route.Prepare(conclave.WithGathered(t.Context(), gathered), nil, in)
		if err != nil {
			if !conclave.Is(err, conclave.Invalid) {
				t.Errorf("prepare: %v", err)
			}
			return
		}
		stored := &keys.Key{Name: "k", Type: keys.Type(kind)}
		stored.Add(made.(shelf.Fresh).Version)
		if _, err := stored.Version(1).PublicKey(); err != nil {
			t.Errorf("imported, then: %v", err)
		}
	})
}

func importRoute(t *testing.T) conclave.Route {
	for _, route := range quick.Routes() {
		if route.Pattern == "keys/{name}/import" {
			return route
		}
	}
	t.Fatal("there is no import")
	return conclave.Route{}
}

// A backup of a thousand RSA keys takes seconds to check: that is prepared, while no transaction is open.
func TestRestoresArePrepared(t *testing.T) {
	found := 0
	for _, route := range (Engine{}).Routes() {
		if !strings.HasPrefix(route.Pattern, "restore") {
			continue
		}
		found++
		in, err := route.Bind(map[string]string{"name": "x"}, map[string]any{"backup": "no backup"})
		if err != nil || route.Prepare == nil {
			t.Fatalf("%s prepares nothing: %v", route.Pattern, err)
		}
		if _, err := route.Prepare(t.Context(), nil, in); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s reads a backup that is none: %v", route.Pattern, err)
		}
	}
	if found != 2 {
		t.Errorf("%d routes restore", found)
	}
}
