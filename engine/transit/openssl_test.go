package transit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/transit/keys"
)

// openssl runs OpenSSL's command line in a directory of its own.
type openssl struct {
	t   testing.TB
	dir string
}

func newOpenSSL(t *testing.T) *openssl {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no openssl: install the package openssl")
		}
		t.Skip("needs the package openssl")
	}
	return &openssl{t, t.TempDir()}
}

// try runs a command and returns what it writes.
func (o *openssl) try(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "openssl", args...)
	command.Dir = o.dir
	var complaints bytes.Buffer
	command.Stderr = &complaints
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("openssl %s: %w\n%s%s", strings.Join(args, " "), err, out, complaints.Bytes())
	}
	return out, err
}

func (o *openssl) run(args ...string) []byte {
	o.t.Helper()
	out, err := o.try(args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

func (o *openssl) write(name string, content []byte) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), content, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o *openssl) read(name string) []byte {
	o.t.Helper()
	content, err := os.ReadFile(filepath.Join(o.dir, name))
	if err != nil {
		o.t.Fatal(err)
	}
	return content
}

// exported is the one version of a key, in PEM unless another format is given.
func exported(t testing.TB, h *enginetest.Harness, what, name, format string) string {
	t.Helper()
	return text(t, h.Data(conclave.Read, "export/"+what+"/"+name+"/latest", fields{"format": format})["keys"].(fields), "1")
}

// TestOpenSSLAgreesOnSignatures has OpenSSL verify what we sign, and us what it signs with the exported key.
func TestOpenSSLAgreesOnSignatures(t *testing.T) {
	o, h := newOpenSSL(t), newTransit(t)
	const message = "signed by one, verified by the other"
	o.write("message", []byte(message))
	pss := []string{"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}
	for _, row := range []struct {
		kind   keys.Type
		hash   string
		fields fields
		args   []string
	}{
		{keys.P256, "sha256", nil, nil},
		{keys.P384, "sha384", fields{"hash_algorithm": "sha2-384"}, nil},
		{keys.P521, "sha3-512", fields{"hash_algorithm": "sha3-512"}, nil},
		{keys.RSA2048, "sha256", fields{"salt_length": "hash"}, pss},
		{keys.RSA2048, "sha512", fields{"salt_length": "hash", "hash_algorithm": "sha2-512"}, pss},
		{keys.RSA2048, "sha1", fields{"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha1"}, nil},
		{keys.RSA2048, "sha3-256", fields{"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha3-256"}, nil},
		{keys.Ed25519, "", nil, nil},
	} {
		name := string(row.kind)
		if h.Stored()["keys/"+name] == nil {
			create(h, name, row.kind, fields{"exportable": true})
		}
		o.write("public.pem", []byte(exported(t, h, "public-key", name, "pem")))
		o.write("private.pem", []byte(exported(t, h, "signing-key", name, "pem")))
		given := with(fields{"input": b64(message)}, row.fields)
		made := text(t, h.Data(conclave.Update, "sign/"+name, given), "signature")
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(made, "vault:v1:"))
		if err != nil {
			t.Fatal(err)
		}
		o.write("ours", raw)
		if row.kind == keys.Ed25519 {
			o.run("pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "message", "-sigfile", "ours")
			o.run("pkeyutl", "-sign", "-inkey", "private.pem", "-rawin", "-in", "message", "-out", "theirs")
		} else {
			o.run(append([]string{"dgst", "-" + row.hash, "-verify", "public.pem", "-signature", "ours"}, append(row.args, "message")...)...)
			o.run(append([]string{"dgst", "-" + row.hash, "-sign", "private.pem", "-out", "theirs"}, append(row.args, "message")...)...)
		}
		theirs := "vault:v1:" + base64.StdEncoding.EncodeToString(o.read("theirs"))
		if got := h.Data(conclave.Update, "verify/"+name, with(given, fields{"signature": theirs})); got["valid"] != true {
			t.Errorf("%s, %s: OpenSSL's signature verifies %v", row.kind, row.hash, got)
		}
		o.write("message2", []byte("another"))
		if out, err := o.try("dgst", "-sha256", "-verify", "public.pem", "-signature", "ours", "message2"); err == nil {
			t.Errorf("%s: OpenSSL takes the signature for that of another message: %s", row.kind, out)
		}
	}
}

// TestOpenSSLAgreesOnEncryption has each decrypt what the other encrypted with an RSA key.
func TestOpenSSLAgreesOnEncryption(t *testing.T) {
	o, h := newOpenSSL(t), newTransit(t)
	create(h, "rsa", keys.RSA2048, fields{"exportable": true})
	o.write("public.pem", []byte(exported(t, h, "public-key", "rsa", "")))
	o.write("private.pem", []byte(exported(t, h, "encryption-key", "rsa", "")))
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(encryptText(t, h, "rsa", "a text", nil), "vault:v1:"))
	if err != nil {
		t.Fatal(err)
	}
	o.write("ours", raw)
	oaep := []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"}
	if got := o.run(append([]string{"pkeyutl", "-decrypt", "-inkey", "private.pem", "-in", "ours"}, oaep...)...); string(got) != "a text" {
		t.Errorf("OpenSSL decrypts to %q", got)
	}
	o.write("plain", []byte("another text"))
	theirs := o.run(append([]string{"pkeyutl", "-encrypt", "-pubin", "-inkey", "public.pem", "-in", "plain"}, oaep...)...)
	got := h.Data(conclave.Update, "decrypt/rsa", fields{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(theirs)})
	if got["plaintext"] != b64("another text") {
		t.Errorf("OpenSSL's ciphertext decrypts to %v", got)
	}
}

// TestOpenSSLAgreesOnWrapping imports what OpenSSL has wrapped, and has it unwrap what is exported.
func TestOpenSSLAgreesOnWrapping(t *testing.T) {
	o, h := newOpenSSL(t), newTransit(t)
	o.write("wrapping.pem", []byte(text(t, h.Data(conclave.Read, "wrapping_key", nil), "public_key")))
	o.run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "key.pem")
	o.run("pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER", "-out", "key.der")
	ephemeral := o.run("rand", "32")
	o.write("ephemeral", ephemeral)
	oaep := []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"}
	first := o.run(append([]string{"pkeyutl", "-encrypt", "-pubin", "-inkey", "wrapping.pem", "-in", "ephemeral"}, oaep...)...)
	second := o.run("enc", "-e", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(ephemeral), "-iv", "A65959A6", "-in", "key.der")
	given := fields{"type": "ecdsa-p384", "exportable": true, "ciphertext": base64.StdEncoding.EncodeToString(append(first, second...))}
	if _, err := h.Do(conclave.Update, "keys/k/import", given); err != nil {
		t.Fatal(err)
	}
	if ours, theirs := exported(t, h, "public-key", "k", "pem"), o.run("pkey", "-in", "key.pem", "-pubout"); ours != string(theirs) {
		t.Errorf("imported\n%s, want\n%s", ours, theirs)
	}

	o.run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "other.pem")
	if _, err := h.Do(conclave.Update, "keys/other/import", fields{"type": "rsa-2048", "public_key": string(o.run("pkey", "-in", "other.pem", "-pubout"))}); err != nil {
		t.Fatal(err)
	}
	sealed, err := base64.StdEncoding.DecodeString(text(t, h.Data(conclave.Read, "byok-export/other/k", nil)["keys"].(fields), "1"))
	if err != nil {
		t.Fatal(err)
	}
	o.write("first", sealed[:256])
	o.write("second", sealed[256:])
	ephemeral = o.run(append([]string{"pkeyutl", "-decrypt", "-inkey", "other.pem", "-in", "first"}, oaep...)...)
	der := o.run("enc", "-d", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(ephemeral), "-iv", "A65959A6", "-in", "second")
	o.write("unwrapped.der", der)
	if got, want := o.run("pkey", "-inform", "DER", "-in", "unwrapped.der", "-text"), o.run("pkey", "-in", "key.pem", "-text"); !bytes.Equal(got, want) {
		t.Errorf("unwrapped\n%s, want\n%s", got, want)
	}
}

// TestOpenSSLAgreesOnDerivation has OpenSSL compute what derived keys, nonces and HMACs are.
func TestOpenSSLAgreesOnDerivation(t *testing.T) {
	o, h := newOpenSSL(t), newTransit(t)
	create(h, "k", keys.AES256, fields{"derived": true, "convergent_encryption": true, "exportable": true})
	key, err := base64.StdEncoding.DecodeString(exported(t, h, "encryption-key", "k", ""))
	if err != nil {
		t.Fatal(err)
	}
	derived := o.run("kdf", "-keylen", "64", "-binary", "-kdfopt", "digest:SHA256", "-kdfopt", "hexkey:"+hex.EncodeToString(key), "-kdfopt", "hexinfo:"+hex.EncodeToString([]byte("context")), "HKDF")
	o.write("plain", []byte("a text"))
	nonce := o.run("mac", "-digest", "SHA256", "-macopt", "hexkey:"+hex.EncodeToString(derived[32:]), "-binary", "-in", "plain", "HMAC")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(encryptText(t, h, "k", "a text", fields{"context": b64("context")}), "vault:v1:"))
	if err != nil || !bytes.HasPrefix(raw, nonce[:12]) {
		t.Errorf("the ciphertext begins with %x, want %x", raw[:12], nonce[:12])
	}
	mac, err := base64.StdEncoding.DecodeString(exported(t, h, "hmac-key", "k", ""))
	if err != nil {
		t.Fatal(err)
	}
	want := o.run("mac", "-digest", "SHA3-384", "-macopt", "hexkey:"+hex.EncodeToString(mac), "-binary", "-in", "plain", "HMAC")
	if got := h.Data(conclave.Update, "hmac/k/sha3-384", fields{"input": b64("a text")})["hmac"]; got != "vault:v1:"+base64.StdEncoding.EncodeToString(want) {
		t.Errorf("the HMAC is %v, want %x", got, want)
	}
}

// TestOpenSSLReadsRequestsAndBackups checks a certificate request, and that the RSA key in a backup is one.
func TestOpenSSLReadsRequestsAndBackups(t *testing.T) {
	o, h := newOpenSSL(t), newTransit(t)
	create(h, "rsa", keys.RSA2048, fields{"exportable": true, "allow_plaintext_backup": true})
	o.write("request.pem", []byte(text(t, h.Data(conclave.Update, "keys/rsa/csr", nil), "csr")))
	o.run("req", "-verify", "-noout", "-in", "request.pem")
	if got := o.run("req", "-pubkey", "-noout", "-in", "request.pem"); string(got) != exported(t, h, "public-key", "rsa", "") {
		t.Errorf("the request is for\n%s", got)
	}
	backup, err := base64.StdEncoding.DecodeString(text(t, h.Data(conclave.Read, "backup/rsa", nil), "backup"))
	if err != nil {
		t.Fatal(err)
	}
	var members struct {
		Policy struct {
			Keys map[string]struct {
				RSA struct{ N json.Number } `json:"rsa_key"`
			}
		}
	}
	if err := json.Unmarshal(backup, &members); err != nil {
		t.Fatal(err)
	}
	o.write("private.pem", []byte(exported(t, h, "encryption-key", "rsa", "")))
	modulus, ok := new(big.Int).SetString(strings.TrimPrefix(strings.TrimSpace(string(o.run("rsa", "-noout", "-modulus", "-in", "private.pem"))), "Modulus="), 16)
	if !ok || modulus.String() != members.Policy.Keys["1"].RSA.N.String() {
		t.Errorf("the backup's modulus is %s, OpenSSL's %s", members.Policy.Keys["1"].RSA.N, modulus)
	}
}
