package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"conclave"
	"conclave/crypto"
)

var testCluster = [16]byte{9, 8, 7}

// testKeys are an epoch's data key and an HPKE pair.
func testKeys(t testing.TB) (map[uint32]crypto.Key, []byte, []byte) {
	t.Helper()
	private := bytes.Repeat([]byte{5}, crypto.HPKEPrivateSize)
	public, err := crypto.PublicHPKE(private)
	if err != nil {
		t.Fatal(err)
	}
	return map[uint32]crypto.Key{3: {1}, 4: {2}}, private, public
}

func testOpener(t testing.TB) *Opener {
	t.Helper()
	keys, private, _ := testKeys(t)
	o, err := NewOpener(testCluster, keys, private)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// testSealers are one of an unsealed and one of a sealed node.
func testSealers(t testing.TB) []*Sealer {
	t.Helper()
	keys, _, public := testKeys(t)
	open, err := NewSealer(testCluster, 4, keys[4])
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := NewPublicSealer(testCluster, public)
	if err != nil {
		t.Fatal(err)
	}
	return []*Sealer{open, sealed}
}

func TestBoxOpensToItsRecord(t *testing.T) {
	o := testOpener(t)
	for _, s := range testSealers(t) {
		for _, record := range [][]byte{nil, []byte("record"), make([]byte, MaxRecord)} {
			digest, box, err := s.Seal(record)
			if err != nil {
				t.Fatal(err)
			}
			salt, got, err := o.Open(digest, box)
			if err != nil || !bytes.Equal(got, record) {
				t.Fatalf("Open = %d bytes, %v, want %d bytes", len(got), err, len(record))
			}
			if sha256.Sum256(append(salt[:], got...)) != digest {
				t.Error("digest isn't SHA-256 of salt and record")
			}
			if len(box) > MaxBox {
				t.Errorf("box of %d bytes, want at most %d", len(box), MaxBox)
			}
		}
	}
}

func TestRecordOverTheLimitIsRefused(t *testing.T) {
	_, _, err := testSealers(t)[0].Seal(make([]byte, MaxRecord+1))
	if !conclave.Is(err, conclave.TooLarge) {
		t.Errorf("Seal = %v, want too large", err)
	}
}

func TestChangedBoxDoesNotOpen(t *testing.T) {
	o := testOpener(t)
	for _, s := range testSealers(t) {
		digest, box, err := s.Seal([]byte("record"))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := o.Open(digest, box); err != nil {
			t.Fatal(err)
		}
		for i := range box {
			changed := slices.Clone(box)
			changed[i] ^= 1
			if _, _, err := o.Open(digest, changed); !errors.Is(err, crypto.ErrOpen) {
				t.Fatalf("Open with byte %d changed = %v, want ErrOpen", i, err)
			}
		}
		for _, cut := range []int{0, 1, boxHead, len(box) / 2, len(box) - 1} {
			if _, _, err := o.Open(digest, box[:cut]); !errors.Is(err, crypto.ErrOpen) {
				t.Errorf("Open of the first %d bytes = %v, want ErrOpen", cut, err)
			}
		}
		other := digest
		other[0] ^= 1
		if _, _, err := o.Open(other, box); !errors.Is(err, crypto.ErrOpen) {
			t.Errorf("Open for another digest = %v, want ErrOpen", err)
		}
		keys, private, _ := testKeys(t)
		foreign, err := NewOpener([16]byte{1}, keys, private)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := foreign.Open(digest, box); !errors.Is(err, crypto.ErrOpen) {
			t.Errorf("Open in another cluster = %v, want ErrOpen", err)
		}
	}
}

func TestDestroyedKeyIsNamed(t *testing.T) {
	digest, box, err := testSealers(t)[0].Seal([]byte("record"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(testCluster, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Open(digest, box); !errors.Is(err, crypto.ErrOpen) || !strings.Contains(err.Error(), "epoch 4") {
		t.Errorf("Open = %v, want ErrOpen that names epoch 4", err)
	}
}

func TestPublicSealerWantsAKey(t *testing.T) {
	if _, err := NewPublicSealer(testCluster, []byte("short")); err == nil {
		t.Error("NewPublicSealer took five bytes for a key")
	}
}

// TestBoxGolden opens boxes that earlier versions wrote: one per line, digest and box, in hex.
func TestBoxGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/boxes.hex")
	if err != nil {
		t.Fatal(err)
	}
	o, opened := testOpener(t), 0
	for line := range strings.Lines(string(text)) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if _, record, err := o.Open(Digest(b), b[len(Digest{}):]); err != nil || string(record) != "golden" {
			t.Errorf("Open = %q, %v, want golden", record, err)
		}
		opened++
	}
	if opened != 2 {
		t.Errorf("%d boxes, want one of each format", opened)
	}
}

func FuzzOpenBox(f *testing.F) {
	o := testOpener(f)
	for _, s := range testSealers(f) {
		digest, box, err := s.Seal([]byte("record"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(digest[:], box)
	}
	f.Fuzz(func(t *testing.T, digest, box []byte) {
		if len(digest) != len(Digest{}) {
			return
		}
		salt, record, err := o.Open(Digest(digest), box)
		if err == nil && sha256.Sum256(append(salt[:], record...)) != Digest(digest) {
			t.Fatalf("opened to %q against its digest", record)
		}
	})
}

func BenchmarkSeal1K(b *testing.B) {
	s, record := testSealers(b)[0], make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Seal(record); err != nil {
			b.Fatal(err)
		}
	}
}
