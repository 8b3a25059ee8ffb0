package crypto

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("decode %q: %v", s, err)
	}
	return b
}

// steady is randomness that repeats: the same seed gives the same bytes.
func steady(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func newAEAD(t testing.TB, fill byte) *AEAD {
	t.Helper()
	a, err := NewAEAD(bytes.Repeat([]byte{fill}, KeySize))
	if err != nil {
		t.Fatalf("NewAEAD: %v", err)
	}
	return a
}

// The two vectors of https://c2sp.org/XAES-256-GCM: without and with a carry in CMAC's subkey.
func TestXAESVectors(t *testing.T) {
	nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
	for _, v := range []struct {
		key                   byte
		subkey, aad, expected string
	}{
		{1, "e531954aca063d5b8d9c47a47d4cc6f0", "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "23810ec50edb99f374409466ed1f4b7b", "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		a := newAEAD(t, v.key)
		if got := hex.EncodeToString(a.subkey[:]); got != v.subkey {
			t.Errorf("key %d: K1 = %s, want %s", v.key, got, v.subkey)
		}
		got := a.seal(nil, nonce, []byte("XAES-256-GCM"), []byte(v.aad))
		if hex.EncodeToString(got) != v.expected {
			t.Errorf("key %d: ciphertext = %x, want %s", v.key, got, v.expected)
		}
		plain, err := a.Open(nil, append(bytes.Clone(nonce), got...), []byte(v.aad))
		if err != nil || string(plain) != "XAES-256-GCM" {
			t.Errorf("key %d: Open = %q, %v", v.key, plain, err)
		}
	}
}

var long = flag.Bool("long", false, "run the accumulated vectors in full: a million messages")

// The accumulated vectors of the same page: keys, nonces, plaintexts and additional data drawn from SHAKE-128, ciphertexts hashed by it.
func TestXAESAccumulated(t *testing.T) {
	iterations, expected := 10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
	if *long {
		iterations, expected = 1_000_000, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"
	}
	source, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	var buffer [2 * 256]byte
	read := func(b []byte) []byte {
		source.Read(b)
		return b
	}
	for i := range iterations {
		key := read(make([]byte, KeySize))
		nonce := read(make([]byte, NonceSize))
		plaintext := read(buffer[:read(make([]byte, 1))[0]])
		aad := read(buffer[256:][:read(make([]byte, 1))[0]])
		a, err := NewAEAD(key)
		if err != nil {
			t.Fatal(err)
		}
		ciphertext := a.seal(nil, nonce, plaintext, aad)
		sum.Write(ciphertext)
		got, err := a.Open(nil, append(nonce, ciphertext...), aad)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("message %d doesn't open: %v", i, err)
		}
	}
	if got := hex.EncodeToString(squeeze(sum, 32)); got != expected {
		t.Errorf("hash of %d ciphertexts = %s, want %s", iterations, got, expected)
	}
}

func squeeze(s *sha3.SHAKE, n int) []byte {
	b := make([]byte, n)
	s.Read(b)
	return b
}

func TestAEADAppendsToItsDestination(t *testing.T) {
	a := newAEAD(t, 7)
	box := a.Seal([]byte("head"), []byte("secret"), []byte("aad"))
	if string(box[:4]) != "head" || len(box) != 4+6+Overhead {
		t.Fatalf("Seal made %d bytes beginning %q", len(box), box[:4])
	}
	plain, err := a.Open([]byte("head"), box[4:], []byte("aad"))
	if err != nil || string(plain) != "headsecret" {
		t.Fatalf("Open = %q, %v", plain, err)
	}
	if again := a.Seal(nil, []byte("secret"), []byte("aad")); bytes.Equal(again, box[4:]) {
		t.Error("two boxes of one plaintext are equal: the nonce isn't fresh")
	}
}

func TestDamagedBoxesDoNotOpen(t *testing.T) {
	a := newAEAD(t, 7)
	box := a.Seal(nil, []byte("secret"), []byte("aad"))
	if _, err := a.Open(nil, box, []byte("aad")); err != nil {
		t.Fatalf("the whole box doesn't open: %v", err)
	}
	everyDamage(box, func(name string, damaged []byte) {
		if got, err := a.Open(nil, damaged, []byte("aad")); err != ErrOpen || got != nil {
			t.Errorf("%s: Open = %q, %v, want ErrOpen", name, got, err)
		}
	})
	if _, err := a.Open(nil, box, []byte("other")); err != ErrOpen {
		t.Errorf("other additional data: %v, want ErrOpen", err)
	}
	if _, err := newAEAD(t, 8).Open(nil, box, []byte("aad")); err != ErrOpen {
		t.Errorf("other key: %v, want ErrOpen", err)
	}
}

// everyDamage calls try with box cut to every shorter length, with every bit flipped, and with a byte too many.
func everyDamage(box []byte, try func(name string, damaged []byte)) {
	for n := range box {
		try(fmt.Sprintf("cut to %d", n), bytes.Clone(box[:n]))
		for bit := range 8 {
			flipped := bytes.Clone(box)
			flipped[n] ^= 1 << bit
			try(fmt.Sprintf("bit %d of byte %d flipped", bit, n), flipped)
		}
	}
	try("a byte too many", append(bytes.Clone(box), 0))
}

func TestNewAEADRefusesOtherKeySizes(t *testing.T) {
	for _, n := range []int{0, 16, 24, 31, 33} {
		if _, err := NewAEAD(make([]byte, n)); err == nil {
			t.Errorf("NewAEAD took a key of %d bytes", n)
		}
	}
}

func TestBindRecognisesExactlyItsBlob(t *testing.T) {
	a := newAEAD(t, 1)
	tag := a.Bind([]byte("blob"))
	if err := a.Bound([]byte("blob"), tag); err != nil {
		t.Fatalf("Bound of the same blob: %v", err)
	}
	for _, blob := range []string{"", "blo", "Blob", "blob2"} {
		if err := a.Bound([]byte(blob), tag); err != ErrOpen {
			t.Errorf("Bound(%q) = %v, want ErrOpen", blob, err)
		}
	}
	everyDamage(tag, func(name string, damaged []byte) {
		if err := a.Bound([]byte("blob"), damaged); err != ErrOpen {
			t.Errorf("tag %s: %v, want ErrOpen", name, err)
		}
	})
	if err := a.Bound([]byte("blob"), a.Seal(nil, []byte("x"), bindAdditional([]byte("blob")))); err != ErrOpen {
		t.Errorf("a tag with a plaintext: %v, want ErrOpen", err)
	}
}

func TestRootKeyWrap(t *testing.T) {
	unseal, root, aad := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), []byte("config")
	box, err := WrapRootKey(unseal, root, aad)
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnwrapRootKey(unseal, box, aad)
	if err != nil || !bytes.Equal(got, root) {
		t.Fatalf("UnwrapRootKey = %x, %v", got, err)
	}
	everyDamage(box, func(name string, damaged []byte) {
		if _, err := UnwrapRootKey(unseal, damaged, aad); err != ErrOpen {
			t.Errorf("%s: %v, want ErrOpen", name, err)
		}
	})
	if _, err := UnwrapRootKey(unseal, box, []byte("other")); err != ErrOpen {
		t.Errorf("other config: %v, want ErrOpen", err)
	}
	for _, key := range [][]byte{root, nil, unseal[:31]} {
		if _, err := UnwrapRootKey(key, box, aad); err != ErrOpen {
			t.Errorf("other unseal key: %v, want ErrOpen", err)
		}
	}
	if _, err := WrapRootKey(unseal[:16], root, aad); err == nil {
		t.Error("WrapRootKey took an unseal key of 16 bytes")
	}
	if _, err := WrapRootKey(unseal, root[:16], aad); err == nil {
		t.Error("WrapRootKey took a root key of 16 bytes")
	}
}

func FuzzAEADOpen(f *testing.F) {
	a := newAEAD(f, 9)
	f.Add(a.Seal(nil, []byte("secret"), []byte("aad")), []byte("aad"))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, box, aad []byte) {
		if _, err := a.Open(nil, box, aad); err != nil && err != ErrOpen {
			t.Errorf("Open: %v", err)
		}
		if err := a.Bound(aad, box); err != ErrOpen {
			t.Errorf("Bound a tag nobody made: %v", err)
		}
		if got, err := a.Open(nil, a.Seal(nil, box, aad), aad); err != nil || !bytes.Equal(got, box) {
			t.Errorf("a box of %x doesn't open again: %v", box, err)
		}
	})
}

func FuzzUnwrapRootKey(f *testing.F) {
	unseal := bytes.Repeat([]byte{1}, 32)
	box, err := WrapRootKey(unseal, bytes.Repeat([]byte{2}, 32), []byte("aad"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(unseal, box, []byte("aad"))
	f.Fuzz(func(t *testing.T, key, box, aad []byte) {
		root, err := UnwrapRootKey(key, box, aad)
		if err != nil && !errors.Is(err, ErrOpen) || err == nil && len(root) != KeySize {
			t.Errorf("UnwrapRootKey = %d bytes, %v", len(root), err)
		}
	})
}

func BenchmarkAEAD(b *testing.B) {
	a := newAEAD(b, 1)
	for _, size := range []int{64, 300, 4096} {
		plain := make([]byte, size)
		aad := make([]byte, 64)
		box := a.Seal(nil, plain, aad)
		buffer := make([]byte, 0, len(box))
		b.Run(fmt.Sprintf("Seal/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				a.Seal(buffer, plain, aad)
			}
		})
		b.Run(fmt.Sprintf("Open/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Open(buffer, box, aad); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
