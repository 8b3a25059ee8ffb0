package crypto

import (
	"bytes"
	"testing"
)

func TestHPKERoundTrip(t *testing.T) {
	private, public, err := GenerateHPKE()
	if err != nil || len(private) != HPKEPrivateSize || len(public) != HPKEPublicSize {
		t.Fatalf("GenerateHPKE = %d and %d bytes, %v", len(private), len(public), err)
	}
	if again, err := PublicHPKE(private); err != nil || !bytes.Equal(again, public) {
		t.Errorf("PublicHPKE isn't what GenerateHPKE gave: %v", err)
	}
	box, err := SealTo(public, []byte("info"), []byte("aad"), []byte("share"))
	if err != nil || len(box) != HPKEOverhead+5 {
		t.Fatalf("SealTo = %d bytes, %v, want %d", len(box), err, HPKEOverhead+5)
	}
	if got, err := OpenWith(private, []byte("info"), []byte("aad"), box); err != nil || string(got) != "share" {
		t.Fatalf("OpenWith = %q, %v", got, err)
	}
	other, _, err := GenerateHPKE()
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"private key": func() ([]byte, error) { return OpenWith(other, []byte("info"), []byte("aad"), box) },
		"info":        func() ([]byte, error) { return OpenWith(private, []byte("infa"), []byte("aad"), box) },
		"additional":  func() ([]byte, error) { return OpenWith(private, []byte("info"), []byte("aae"), box) },
		"cut key":     func() ([]byte, error) { return OpenWith(private[1:], []byte("info"), []byte("aad"), box) },
		"trailing box": func() ([]byte, error) {
			return OpenWith(private, []byte("info"), []byte("aad"), append(bytes.Clone(box), 0))
		},
	} {
		if got, err := open(); err != ErrOpen || got != nil {
			t.Errorf("other %s: %q, %v, want ErrOpen", name, got, err)
		}
	}
	for _, n := range []int{0, 1, 500, 1088, 1100, 1120, 1121, len(box) - 1} {
		flipped := bytes.Clone(box)
		flipped[n] ^= 1
		if _, err := OpenWith(private, []byte("info"), []byte("aad"), flipped); err != ErrOpen {
			t.Errorf("byte %d flipped: %v, want ErrOpen", n, err)
		}
		if _, err := OpenWith(private, []byte("info"), []byte("aad"), box[:n]); err != ErrOpen {
			t.Errorf("cut to %d: %v, want ErrOpen", n, err)
		}
	}
}

func TestSealToRefusesForeignKeys(t *testing.T) {
	for _, n := range []int{0, 32, HPKEPublicSize - 1, HPKEPublicSize + 1} {
		if _, err := SealTo(make([]byte, n), nil, nil, nil); err == nil {
			t.Errorf("SealTo took a public key of %d bytes", n)
		}
	}
	if _, err := SealTo(bytes.Repeat([]byte{0xff}, HPKEPublicSize), nil, nil, nil); err == nil {
		t.Error("SealTo took a public key that isn't one of ML-KEM")
	}
	if _, err := PublicHPKE(make([]byte, 31)); err == nil {
		t.Error("PublicHPKE took a key of 31 bytes")
	}
}

func TestHPKEBoxesOfVersionOneStillOpen(t *testing.T) {
	got, err := OpenWith(bytes.Repeat([]byte{0xa2}, 32), []byte("info"), []byte("aad"), golden(t, "hpke.v1.hex"))
	if err != nil || string(got) != "sealed when format 1 was new" {
		t.Errorf("OpenWith = %q, %v", got, err)
	}
}

func FuzzOpenWith(f *testing.F) {
	private := bytes.Repeat([]byte{0xa2}, 32)
	f.Add(private, []byte("info"), []byte("aad"), golden(f, "hpke.v1.hex"))
	f.Fuzz(func(t *testing.T, private, info, additional, box []byte) {
		if _, err := OpenWith(private, info, additional, box); err != nil && err != ErrOpen {
			t.Errorf("OpenWith: %v", err)
		}
	})
}

func FuzzSealTo(f *testing.F) {
	public, err := PublicHPKE(bytes.Repeat([]byte{0xa2}, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(public, []byte("plain"))
	f.Fuzz(func(t *testing.T, public, plain []byte) {
		if box, err := SealTo(public, nil, nil, plain); err == nil && len(box) != HPKEOverhead+len(plain) {
			t.Errorf("SealTo = %d bytes", len(box))
		}
	})
}

func BenchmarkHPKE(b *testing.B) {
	private, public, err := GenerateHPKE()
	if err != nil {
		b.Fatal(err)
	}
	plain := make([]byte, 300)
	box, err := SealTo(public, nil, nil, plain)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("SealTo", func(b *testing.B) {
		for b.Loop() {
			SealTo(public, nil, nil, plain)
		}
	})
	b.Run("OpenWith", func(b *testing.B) {
		for b.Loop() {
			OpenWith(private, nil, nil, box)
		}
	})
}
