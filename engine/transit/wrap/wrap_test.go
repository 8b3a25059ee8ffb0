package wrap

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vectors are those of RFC 5649, section 6.
var vectors = []struct{ kek, key, wrapped string }{
	{"5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "c37b7e6492584340bed12207808941155068f738", "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
	{"5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"},
}

func TestVectors(t *testing.T) {
	for _, row := range vectors {
		wrapped, err := Wrap(unhex(t, row.kek), unhex(t, row.key))
		if err != nil || hex.EncodeToString(wrapped) != row.wrapped {
			t.Errorf("Wrap(%s) = %x, %v, want %s", row.key, wrapped, err, row.wrapped)
		}
		key, err := Unwrap(unhex(t, row.kek), unhex(t, row.wrapped))
		if err != nil || hex.EncodeToString(key) != row.key {
			t.Errorf("Unwrap(%s) = %x, %v, want %s", row.wrapped, key, err, row.key)
		}
	}
}

func TestKeysOfAllLengthsComeBack(t *testing.T) {
	kek := make([]byte, 32)
	for size := 1; size < 80; size++ {
		key := bytes.Repeat([]byte{byte(size)}, size)
		wrapped, err := Wrap(kek, key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Unwrap(kek, wrapped); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%d bytes come back as %x, %v", size, got, err)
		}
		for i := range wrapped {
			wrapped[i] ^= 1
			if _, err := Unwrap(kek, wrapped); !errors.Is(err, ErrUnwrap) {
				t.Errorf("%d bytes with byte %d changed: %v", size, i, err)
			}
			wrapped[i] ^= 1
		}
	}
	for _, size := range []int{0, MaxKey + 1} {
		if _, err := Wrap(kek, make([]byte, size)); err == nil {
			t.Errorf("%d bytes are wrapped", size)
		}
	}
}

func TestPaddingMustBeZero(t *testing.T) {
	kek := make([]byte, 16)
	for _, row := range []struct {
		text string
		good bool
	}{
		{"a65959a60000000601020304050600000000000000000000", false}, // a block of padding too many
		{"a65959a60000000901020304050607080900000000000000", true},
		{"a65959a60000000901020304050607080900000000000001", false},
		{"a65959a60000000801020304050607080000000000000000", false},
		{"a65959a60000001101020304050607080900000000000000", false},
		{"a65959a6ffffffff01020304050607080900000000000000", false},
		{"a65959a70000000901020304050607080900000000000000", false},
	} {
		text := unhex(t, row.text)
		mix(mustAES(t, kek), text)
		if _, err := Unwrap(kek, text); (err == nil) != row.good {
			t.Errorf("%s: %v, want good %v", row.text, err, row.good)
		}
	}
}

func TestSealAndOpen(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "sha1", "SHA224", "SHA256", "SHA384", "SHA512"} {
		hash, err := Hash(name)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := Seal(&private.PublicKey, hash, []byte("a key"))
		if err != nil {
			t.Fatal(err)
		}
		if key, err := Open(private, hash, sealed); err != nil || string(key) != "a key" {
			t.Errorf("%s: opened as %q, %v", name, key, err)
		}
		other := crypto.SHA256
		if hash == other {
			other = crypto.SHA1
		}
		for what, err := range map[string]error{
			"another hash": second(Open(private, other, sealed)),
			"cut":          second(Open(private, hash, sealed[:len(sealed)-8])),
			"first part":   second(Open(private, hash, sealed[:256])),
			"nothing":      second(Open(private, hash, nil)),
		} {
			if !errors.Is(err, ErrUnwrap) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
	if _, err := Hash("MD5"); err == nil {
		t.Error("MD5 is taken")
	}
}

func second[T any](_ T, err error) error { return err }

// FuzzUnwrap unwraps anything: no panic, and what is unwrapped wraps to what it was.
func FuzzUnwrap(f *testing.F) {
	for _, row := range vectors {
		f.Add(unhex(f, row.kek), unhex(f, row.wrapped))
	}
	f.Fuzz(func(t *testing.T, kek, text []byte) {
		key, err := Unwrap(kek, text)
		if err != nil {
			return
		}
		if wrapped, err := Wrap(kek, key); err != nil || !bytes.Equal(wrapped, text) {
			t.Errorf("%x unwraps to %x, which wraps to %x, %v", text, key, wrapped, err)
		}
	})
}

func mustAES(t *testing.T, key []byte) cipher.Block {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// TestWycheproof runs vectors picked from Project Wycheproof (C2SP/wycheproof, testvectors_v1/aes_kwp_test.json, commit
// dac1dd4): of each size of keys some valid ones, and one invalid one for each of some flags.
func TestWycheproof(t *testing.T) {
	text, err := os.ReadFile("testdata/wycheproof.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Source, KEK, Key, Wrapped string
		Good                      bool
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors) == 0 {
		t.Fatal(err)
	}
	for _, row := range vectors {
		key, err := Unwrap(unhex(t, row.KEK), unhex(t, row.Wrapped))
		if (err == nil) != row.Good || row.Good && hex.EncodeToString(key) != row.Key {
			t.Errorf("%s: unwraps to %x, %v, want good %v", row.Source, key, err, row.Good)
		}
	}
}
