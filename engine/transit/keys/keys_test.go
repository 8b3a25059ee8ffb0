package keys

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"conclave"
)

// newKey is a key of one version that was made here.
func newKey(t testing.TB, settings Key) *Key {
	t.Helper()
	v, err := Generate(settings.Type, settings.Size, then)
	if err != nil {
		t.Fatal(err)
	}
	return single(t, settings, v)
}

// fixed are keys of which all bytes are known, for the golden file: one symmetric, one with public halves, all settings.
func fixed(t testing.TB) []*Key {
	t.Helper()
	moment := &Moment{then, 2}
	symmetric := &Key{Name: "app", Type: AES256, Derived: true, Convergent: true, Exportable: true, PlaintextBackup: true, DeletionAllowed: true,
		SoftDeleted: true, MinDecryption: 3, MinEncryption: 4, MinAvailable: 3, AutoRotate: 86400, Backup: moment, Restore: moment, First: 3}
	for i := range 2 {
		symmetric.Add(&Version{Created: then, Secret: bytes.Repeat([]byte{byte(i)}, 32), HMAC: bytes.Repeat([]byte{9}, 32)})
	}
	pair := &Key{Name: "sign", Type: Ed25519, Imported: true, RotatesImported: true}
	v, err := FromSecret(Ed25519, mustDecode(t, "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpeyJ7K3cyZ6yMR8RW"), then)
	if err != nil {
		t.Fatal(err)
	}
	v.HMAC, v.Chain = bytes.Repeat([]byte{8}, 32), [][]byte{{1}, {2}}
	pair.Add(v)
	public, err := FromPublic(Ed25519, "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n", then)
	if err != nil {
		t.Fatal(err)
	}
	public.HMAC = bytes.Repeat([]byte{7}, 32)
	pair.Add(public)
	return []*Key{symmetric, pair, {Name: "mac", Type: HMACOnly, Size: 33, MinDecryption: 1, First: 1, Versions: []*Version{{Created: then, Secret: bytes.Repeat([]byte{6}, 33)}}}}
}

func mustDecode(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const goldenFile = "testdata/stored.golden"

// TestStoredForm compares with what was stored by the first version; that must be read for ever.
func TestStoredForm(t *testing.T) {
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(golden), "\n"), "\n")
	all := fixed(t)
	if len(lines) != len(all) {
		t.Fatalf("the golden file has %d keys, want %d", len(lines), len(all))
	}
	for i, k := range all {
		if got := encoded(t, k); got != lines[i] {
			t.Errorf("%s is stored as\n%s, want\n%s", k.Name, got, lines[i])
		}
		decoded, err := Decode([]byte(lines[i]))
		if err != nil {
			t.Fatalf("%s: %v", lines[i], err)
		}
		if again := encoded(t, decoded); again != lines[i] {
			t.Errorf("%s is read and stored as\n%s, want\n%s", k.Name, again, lines[i])
		}
	}
}

func TestDamagedKeysAreRefused(t *testing.T) {
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(golden), "\n")
	for old, changed := range map[string]string{
		`"type":"aes256-gcm96"`: `"type":"ed25519"`, `"first":3`: `"first":0`, `"min_decryption":3`: `"min_decryption":5`, `"min_encryption":4`: `"min_encryption":2`,
		`"name":"app"`: `"name":""`, `"versions":[{`: `"versions":[null,{`, `"derived":true`: `"derived":false`, `{"name"`: `["name"`,
	} {
		bad := strings.Replace(first, old, changed, 1)
		if bad == first {
			t.Fatalf("%s isn't in the golden file", old)
		}
		if _, err := Decode([]byte(bad)); !conclave.Is(err, conclave.Internal) {
			t.Errorf("with %s: %v, want Internal", changed, err)
		}
	}
	k, err := Decode([]byte(strings.Replace(first, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AQEB", 1)))
	if err != nil {
		t.Fatal(err)
	}
	k.SoftDeleted = false
	if _, _, err := k.Encrypt(4, nil, Sealing{Context: []byte("c")}); !conclave.Is(err, conclave.Internal) {
		t.Errorf("a key of another length encrypts: %v", err)
	}
	if _, _, err := k.HMAC(4, 5, nil); err != nil { // which doesn't use it
		t.Errorf("HMAC: %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{"a": true, "A_9": true, "a-b.c": true, "": false, "-a": false, "a.": false, "a/b": false, "é": false, "a b": false,
		strings.Repeat("a", MaxName): true, strings.Repeat("a", MaxName+1): false} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("CheckName(%.20q) = %v, want good %v", name, err, good)
		}
	}
}

func TestCiphertextsAreBoundToAllThatMadeThem(t *testing.T) {
	for _, kind := range []Type{AES128, AES256, ChaCha, XChaCha} {
		k, other := newKey(t, Key{Type: kind, Derived: true}), newKey(t, Key{Type: kind, Derived: true})
		with := Sealing{Context: []byte("context"), Associated: []byte("header")}
		text, _, err := k.Encrypt(0, []byte("plaintext"), with)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Decrypt(text, with); err != nil || string(got) != "plaintext" {
			t.Fatalf("%s: decrypts to %q, %v", kind, got, err)
		}
		raw := mustDecode(t, strings.TrimPrefix(text, "vault:v1:"))
		for i := range raw {
			raw[i] ^= 0x10
			if _, err := k.Decrypt(marked(raw, base64.StdEncoding), with); !conclave.Is(err, conclave.Invalid) {
				t.Errorf("%s: with byte %d flipped: %v", kind, i, err)
			}
			raw[i] ^= 0x10
		}
		for what, err := range map[string]error{
			"another context": second(k.Decrypt(text, Sealing{Context: []byte("contexu"), Associated: with.Associated})),
			"no context":      second(k.Decrypt(text, Sealing{Associated: with.Associated})),
			"another header":  second(k.Decrypt(text, Sealing{Context: with.Context, Associated: []byte("headed")})),
			"no header":       second(k.Decrypt(text, Sealing{Context: with.Context})),
			"another key":     second(other.Decrypt(text, with)),
			"cut short":       second(k.Decrypt("vault:v1:AAAA", with)),
			"empty":           second(k.Decrypt("vault:v1:", with)),
		} {
			if !conclave.Is(err, conclave.Invalid) {
				t.Errorf("%s: with %s: %v", kind, what, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestConvergentCiphertextsAreEqualForEqualPlaintexts(t *testing.T) {
	for _, kind := range []Type{AES128, AES256, ChaCha, XChaCha} {
		k := newKey(t, Key{Type: kind, Derived: true, Convergent: true})
		texts := map[string]bool{}
		for _, row := range []struct{ plaintext, context string }{{"a", "1"}, {"a", "1"}, {"b", "1"}, {"a", "2"}} {
			text, _, err := k.Encrypt(0, []byte(row.plaintext), Sealing{Context: []byte(row.context)})
			if err != nil {
				t.Fatal(err)
			}
			texts[text] = true
			if got, err := k.Decrypt(text, Sealing{Context: []byte(row.context)}); err != nil || string(got) != row.plaintext {
				t.Errorf("%s: %+v decrypts to %q, %v", kind, row, got, err)
			}
		}
		if len(texts) != 3 {
			t.Errorf("%s: %d ciphertexts of three plaintexts in their contexts", kind, len(texts))
		}
	}
}

// A nonce that served two messages would give GCM's authentication key away: associated data is part of what it is for.
func TestConvergentNoncesServeOneMessage(t *testing.T) {
	for _, kind := range []Type{AES128, AES256, ChaCha, XChaCha} {
		k := newKey(t, Key{Type: kind, Derived: true, Convergent: true})
		nonces := map[string]string{}
		for _, row := range []struct{ plaintext, associated string }{{"a", ""}, {"a", "1"}, {"a", "2"}, {"b", "1"}, {"1", ""}, {"", "a"}} {
			with := Sealing{Context: []byte("c"), Associated: []byte(row.associated)}
			text, _, err := k.Encrypt(0, []byte(row.plaintext), with)
			if err != nil {
				t.Fatal(err)
			}
			if again, _, err := k.Encrypt(0, []byte(row.plaintext), with); err != nil || again != text {
				t.Errorf("%s: %+v isn't encrypted alike twice: %v", kind, row, err)
			}
			if got, err := k.Decrypt(text, with); err != nil || string(got) != row.plaintext {
				t.Errorf("%s: %+v decrypts to %q, %v", kind, row, got, err)
			}
			size := 12
			if kind == XChaCha {
				size = 24
			}
			nonce := string(mustDecode(t, strings.TrimPrefix(text, "vault:v1:"))[:size])
			if other, used := nonces[nonce]; used {
				t.Errorf("%s: one nonce for %+v and %s", kind, row, other)
			}
			nonces[nonce] = fmt.Sprint(row)
		}
	}
}

// The second form of convergent encryption took the context itself for the key of the nonce's HMAC: whoever knows a
// context could check guesses at plaintexts. What it made decrypts, and nothing more is made so.
func TestOlderConvergentFormsOnlyDecrypt(t *testing.T) {
	k := newKey(t, Key{Type: AES256, Derived: true, Convergent: true})
	with := Sealing{Context: []byte("c")}
	text, _, err := k.Encrypt(0, []byte("x"), with)
	if err != nil {
		t.Fatal(err)
	}
	k.Versions[0].Convergent = 2 // its ciphertexts have the same form
	if got, err := k.Decrypt(text, with); err != nil || string(got) != "x" {
		t.Errorf("decrypts to %q, %v", got, err)
	}
	if _, _, err := k.Encrypt(0, []byte("x"), with); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("encrypts: %v", err)
	}
	k.Versions[0].Convergent = 1 // the nonce was kept by the caller
	raw := mustDecode(t, strings.TrimPrefix(text, "vault:v1:"))
	with.Nonce = raw[:12]
	if got, err := k.Decrypt(marked(raw[12:], base64.StdEncoding), with); err != nil || string(got) != "x" {
		t.Errorf("decrypts to %q, %v", got, err)
	}
	with.Nonce = raw[:11]
	if _, err := k.Decrypt(marked(raw[12:], base64.StdEncoding), with); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("with a short nonce: %v", err)
	}
}

func TestNoncesDiffer(t *testing.T) {
	for _, kind := range []Type{AES128, AES256, ChaCha, XChaCha} {
		k := newKey(t, Key{Type: kind})
		nonces := map[string]bool{}
		for range 1000 {
			text, _, err := k.Encrypt(0, nil, Sealing{})
			if err != nil {
				t.Fatal(err)
			}
			nonces[text[:len("vault:v1:")+16]] = true
		}
		if len(nonces) != 1000 {
			t.Errorf("%s: %d nonces for 1000 messages", kind, len(nonces))
		}
	}
}

func TestSignaturesAreBoundToAllThatMadeThem(t *testing.T) {
	for _, kind := range []Type{Ed25519, P256, P384, P521, RSA2048} {
		k := newKey(t, Key{Type: kind})
		for _, names := range [][3]string{{"", "", ""}, {"sha2-512", "pkcs1v15", ""}, {"sha3-256", "", "jws"}, {"sha1", "pkcs1v15", "jws"}} {
			scheme, err := NewScheme(names[0], names[1], names[2], false, SaltAuto)
			if err != nil {
				t.Fatal(err)
			}
			signature, err := k.Sign(0, scheme, nil, []byte("input"))
			if err != nil {
				t.Fatalf("%s %q: %v", kind, names, err)
			}
			if valid, err := k.Verify(signature.Text, scheme, nil, []byte("input")); err != nil || !valid {
				t.Errorf("%s %q: verifies %v, %v", kind, names, valid, err)
			}
			if valid, _ := k.Verify(signature.Text, scheme, nil, []byte("inpuT")); valid {
				t.Errorf("%s %q: another input verifies", kind, names)
			}
			payload := strings.TrimPrefix(signature.Text, "vault:v1:")
			raw, err := scheme.encoding().DecodeString(payload)
			if err != nil {
				t.Fatalf("%s: %v", payload, err)
			}
			for i := 0; i < len(raw); i += 1 + len(raw)/16 {
				raw[i] ^= 0x10
				if valid, _ := k.Verify(marked(raw, scheme.encoding()), scheme, nil, []byte("input")); valid {
					t.Errorf("%s %q: verifies with byte %d flipped", kind, names, i)
				}
				raw[i] ^= 0x10
			}
		}
	}
}

func TestPrehashedInput(t *testing.T) {
	hash, err := Hash("sha2-256")
	if err != nil {
		t.Fatal(err)
	}
	digest := Digest(hash, []byte("input"))
	for _, kind := range []Type{P256, RSA2048} {
		k := newKey(t, Key{Type: kind})
		whole, _ := NewScheme("", "", "", false, SaltAuto)
		before, _ := NewScheme("", "", "", true, SaltAuto)
		signature, err := k.Sign(0, before, nil, digest)
		if err != nil {
			t.Fatal(err)
		}
		if valid, err := k.Verify(signature.Text, whole, nil, []byte("input")); err != nil || !valid {
			t.Errorf("%s: verifies %v, %v", kind, valid, err)
		}
	}
	k := newKey(t, Key{Type: RSA2048})
	none, err := NewScheme("none", "pkcs1v15", "", true, SaltAuto)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := k.Sign(0, none, nil, []byte("any bytes"))
	if err != nil {
		t.Fatal(err)
	}
	if valid, err := k.Verify(signature.Text, none, nil, []byte("any bytes")); err != nil || !valid {
		t.Errorf("without a hash: verifies %v, %v", valid, err)
	}
	for what, err := range map[string]error{
		"no hash, not hashed before": second(NewScheme("none", "pkcs1v15", "", false, 0)),
		"no hash with PSS":           second(NewScheme("none", "pss", "", true, 0)),
		"an unknown hash":            second(NewScheme("md5", "", "", false, 0)),
		"an unknown padding":         second(NewScheme("", "oaep", "", false, 0)),
		"an unknown marshaling":      second(NewScheme("", "", "xml", false, 0)),
		"a hash of another length":   second(k.Sign(0, &Scheme{hash: hash, prehashed: true}, nil, digest[1:])),
		"an input that is too long":  second(k.Sign(0, none, nil, make([]byte, 300))),
		"a salt that is too long":    second(k.Sign(0, &Scheme{hash: hash, salt: 256 - 32 - 1}, nil, nil)),
		"a salt of no length":        second(k.Sign(0, &Scheme{hash: hash, salt: -2}, nil, nil)),
	} {
		if !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSaltLengths(t *testing.T) {
	k := newKey(t, Key{Type: RSA2048})
	for _, salt := range []int{SaltAuto, SaltHash, 20, 256 - 32 - 2} {
		scheme, err := NewScheme("", "", "", false, salt)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := k.Sign(0, scheme, nil, []byte("input"))
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []int{SaltAuto, SaltHash, 20, 256 - 32 - 2} {
			verifying, _ := NewScheme("", "", "", false, other)
			want := other == SaltAuto || other == salt || salt == SaltAuto && other == 256-32-2
			if valid, err := k.Verify(signature.Text, verifying, nil, []byte("input")); err != nil || valid != want {
				t.Errorf("salt %d, verified with %d: %v, %v, want %v", salt, other, valid, err, want)
			}
		}
	}
}

func TestHMACs(t *testing.T) {
	for _, kind := range []Type{AES256, P256, HMACOnly} {
		k := newKey(t, Key{Type: kind})
		for name := range hashes {
			hash, err := Hash(name)
			if name == "none" {
				if !conclave.Is(err, conclave.Invalid) {
					t.Errorf("HMAC without a hash: %v", err)
				}
				continue
			}
			text, _, err := k.HMAC(0, hash, []byte("input"))
			if err != nil {
				t.Fatal(err)
			}
			if valid, err := k.VerifyHMAC(text, hash, []byte("input")); err != nil || !valid {
				t.Errorf("%s, %s: verifies %v, %v", kind, name, valid, err)
			}
			if valid, err := k.VerifyHMAC(text, hash, []byte("other")); err != nil || valid {
				t.Errorf("%s, %s: another input verifies %v, %v", kind, name, valid, err)
			}
		}
	}
}

// FuzzTexts takes apart what isn't ciphertext, signature or HMAC: no panic, and nothing is good.
func FuzzTexts(f *testing.F) {
	k := newKey(f, Key{Type: AES256})
	signer, err := FromSecret(Ed25519, mustDecode(f, "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpeyJ7K3cyZ6yMR8RW"), then)
	if err != nil {
		f.Fatal(err)
	}
	ed, ec := single(f, Key{Type: Ed25519}, signer), newKey(f, Key{Type: P256})
	hash, _ := Hash(DefaultHash)
	for _, text := range []string{"", "vault:v1:", "vault:v0:AAAA", "vault:v99999999999999999999:AAAA", "vault:v-1:AAAA", "vault:v1:MAYCAQECAQE=", "vault:v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "vault:v2:x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := k.Decrypt(text, Sealing{}); err == nil {
			t.Errorf("%q decrypts to %q", text, got)
		}
		for _, marshaling := range []string{"asn1", "jws"} {
			scheme, _ := NewScheme("", "", marshaling, false, SaltAuto)
			for _, signing := range []*Key{ed, ec} {
				if valid, _ := signing.Verify(text, scheme, nil, []byte("input")); valid {
					t.Errorf("%q verifies", text)
				}
			}
		}
		if valid, _ := k.VerifyHMAC(text, hash, []byte("input")); valid {
			t.Errorf("%q verifies", text)
		}
	})
}

// FuzzDecode reads anything that might be stored: no panic, and what is read is stored in the same way.
func FuzzDecode(f *testing.F) {
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		f.Add([]byte(strings.TrimSuffix(line, "\n")))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		k, err := Decode(value)
		if err != nil {
			return
		}
		for _, v := range k.Versions {
			_, _ = v.PublicKey()
		}
		again, err := k.Encode()
		if err != nil {
			return
		}
		if _, err := Decode(again); err != nil {
			t.Errorf("%s is stored as %s, and then: %v", value, again, err)
		}
	})
}

func BenchmarkEncrypt1KiB(b *testing.B) {
	plaintext := make([]byte, 1024)
	for _, kind := range []Type{AES256, XChaCha} {
		for _, derived := range []bool{false, true} {
			k := newKey(b, Key{Type: kind, Derived: derived})
			var with Sealing
			name := string(kind)
			if derived {
				with.Context, name = []byte("context"), name+" derived"
			}
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					if _, _, err := k.Encrypt(0, plaintext, with); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
