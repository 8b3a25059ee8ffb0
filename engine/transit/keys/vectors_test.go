package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"
)

var then = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)

// hexBytes are written in hexadecimal in testdata.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func readTestdata(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// single is a key of one version, stored and read again.
func single(t testing.TB, settings Key, v *Version) *Key {
	t.Helper()
	k := settings
	k.Name = "k"
	k.Add(v)
	value, err := k.Encode()
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := Decode(value)
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	return decoded
}

func marked(text []byte, encoding *base64.Encoding) string {
	return "vault:v1:" + encoding.EncodeToString(text)
}

// TestWycheproof runs vectors picked from Project Wycheproof (C2SP/wycheproof, testvectors_v1, commit dac1dd4): of each
// file the first valid ones, and one invalid one for each of some flags.
func TestWycheproof(t *testing.T) {
	var vectors []struct {
		Source, Public, Hash, Padding, Marshaling      string
		Type                                           Type
		Key, Associated, Message, Text, Signature, MAC hexBytes
		Salt                                           int
		Good                                           bool
	}
	readTestdata(t, "wycheproof.json", &vectors)
	seen := map[Type]int{}
	for _, row := range vectors {
		if row.Good {
			seen[row.Type]++
		}
		var v *Version
		var err error
		if row.Public != "" {
			v, err = FromPublic(row.Type, row.Public, then)
		} else {
			v, err = FromSecret(row.Type, row.Key, then)
		}
		if err != nil {
			t.Fatalf("%s: %v", row.Source, err)
		}
		k := single(t, Key{Type: row.Type}, v)
		switch {
		case row.Text != nil:
			got, err := k.Decrypt(marked(row.Text, base64.StdEncoding), Sealing{Associated: row.Associated})
			if (err == nil) != row.Good || row.Good && !bytes.Equal(got, row.Message) {
				t.Errorf("%s: decrypts to %x, %v, want %x, good %v", row.Source, got, err, []byte(row.Message), row.Good)
			}
		case row.Signature != nil || row.Public != "":
			scheme, err := NewScheme(row.Hash, row.Padding, row.Marshaling, false, row.Salt)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := k.Verify(marked(row.Signature, scheme.encoding()), scheme, nil, row.Message); got != row.Good || err != nil && row.Good {
				t.Errorf("%s: verifies %v, %v, want %v", row.Source, got, err, row.Good)
			}
		default:
			hash, err := Hash(row.Hash)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := k.VerifyHMAC(marked(row.MAC, base64.StdEncoding), hash, row.Message); got != row.Good || err != nil {
				t.Errorf("%s: verifies %v, %v, want %v", row.Source, got, err, row.Good)
			}
		}
	}
	for kind := range table {
		if seen[kind] == 0 {
			t.Errorf("no vector for %s", kind)
		}
	}
}

// TestDerivedKeys holds derivation against what another implementation (Python's cryptography 48) has made of the same.
func TestDerivedKeys(t *testing.T) {
	var vectors []struct {
		Type                                                       Type
		Key, Context, Associated, Message, Text, Public, Signature hexBytes
		Vault                                                      hexBytes // as Vault encrypts it, if that differs
		Convergent                                                 bool
	}
	readTestdata(t, "derived.json", &vectors)
	for _, row := range vectors {
		k := single(t, Key{Type: row.Type, Derived: true, Convergent: row.Convergent}, &Version{Created: then, Secret: row.Key, HMAC: make([]byte, 32)})
		with := Sealing{Context: row.Context, Associated: row.Associated}
		if row.Type == Ed25519 {
			signature, err := k.Sign(0, &Scheme{}, row.Context, row.Message)
			if err != nil || signature.Text != marked(row.Signature, base64.StdEncoding) || !bytes.Equal(signature.Derived, row.Public) {
				t.Errorf("%s: signed %+v, %v", row.Type, signature, err)
			}
			public, err := k.Version(1).DerivedPublic(row.Context)
			if err != nil || !public.Equal(ed25519.PublicKey(row.Public)) {
				t.Errorf("%s: the public key is %x, %v", row.Type, public, err)
			}
			continue
		}
		text := marked(row.Text, base64.StdEncoding)
		if got, err := k.Decrypt(text, with); err != nil || !bytes.Equal(got, row.Message) {
			t.Errorf("%s, convergent %v: decrypts to %q, %v", row.Type, row.Convergent, got, err)
		}
		if len(row.Vault) > 0 {
			if got, err := k.Decrypt(marked(row.Vault, base64.StdEncoding), with); err != nil || !bytes.Equal(got, row.Message) {
				t.Errorf("%s: Vault's decrypts to %q, %v", row.Type, got, err)
			}
		}
		got, _, err := k.Encrypt(0, row.Message, with)
		if err != nil || (got == text) != row.Convergent {
			t.Errorf("%s, convergent %v: encrypts to %s, %v", row.Type, row.Convergent, got, err)
		}
	}
}
