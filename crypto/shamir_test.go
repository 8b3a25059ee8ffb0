package crypto

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// slowMul is the product in GF(2^8) as the field is defined: multiply polynomials, then divide by 0x11b.
func slowMul(a, b byte) byte {
	p := 0
	for i := range 8 {
		if b>>i&1 == 1 {
			p ^= int(a) << i
		}
	}
	for i := 14; i >= 8; i-- {
		if p>>i&1 == 1 {
			p ^= 0x11b << (i - 8)
		}
	}
	return byte(p)
}

func TestFieldIsThatOfAES(t *testing.T) {
	// FIPS 197, section 4.2: {57}•{83} = {c1}, {57}•{13} = {fe}. Vault's own tests of its field: 3•7 = 9.
	for _, v := range [][3]byte{{0x57, 0x83, 0xc1}, {0x57, 0x13, 0xfe}, {3, 7, 9}, {0, 7, 0}} {
		if got := fieldMul(v[0], v[1]); got != v[2] {
			t.Errorf("%#x•%#x = %#x, want %#x", v[0], v[1], got, v[2])
		}
	}
	for a := range 256 {
		for b := range 256 {
			if got, want := fieldMul(byte(a), byte(b)), slowMul(byte(a), byte(b)); got != want {
				t.Fatalf("%#x•%#x = %#x, want %#x", a, b, got, want)
			}
		}
		want := byte(1)
		if a == 0 {
			want = 0
		}
		if got := fieldMul(byte(a), fieldInverse(byte(a))); got != want {
			t.Errorf("%#x•1/%#x = %#x, want %#x", a, a, got, want)
		}
	}
}

// Worked out by hand, in Vault's form: two bytes of secret 42 9c, the polynomials 0x42 + 0x07·x + 0x03·x² and 0x9c + 0x01·x + 0x80·x².
func TestCombineKnownShares(t *testing.T) {
	shares := [][]byte{
		{0x42 ^ 0x07 ^ 0x03, 0x9c ^ 0x01 ^ 0x80, 1},
		{0x42 ^ 0x0e ^ 0x0c, 0x9c ^ 0x02 ^ 0x36, 2}, // 0x80·2² = 0x80·4 = 0x200 mod 0x11b = 0x36
		{0x42 ^ 0x09 ^ 0x0f, 0x9c ^ 0x03 ^ 0xb6, 3}, // 3² = 5: 0x03·5 = 0x0f, 0x80·5 = 0x36 ^ 0x80
	}
	got, err := Combine(shares)
	if err != nil || !bytes.Equal(got, []byte{0x42, 0x9c}) {
		t.Fatalf("Combine = %x, %v, want 429c", got, err)
	}
}

func TestAnyThresholdOfSharesGivesTheSecret(t *testing.T) {
	random := steady(1)
	secret := make([]byte, 32)
	random.Read(secret)
	for _, c := range []struct{ shares, threshold int }{{2, 2}, {3, 2}, {5, 3}, {7, 7}, {255, 2}, {255, 255}} {
		shares, err := Split(secret, c.shares, c.threshold, random)
		if err != nil || len(shares) != c.shares {
			t.Fatalf("Split(%d, %d) = %d shares, %v", c.shares, c.threshold, len(shares), err)
		}
		for first := 0; first+c.threshold <= c.shares; first += 1 + c.shares/8 {
			some := shares[first : first+c.threshold]
			if got, err := Combine(some); err != nil || !bytes.Equal(got, secret) {
				t.Fatalf("%d of %d from %d: %x, %v", c.threshold, c.shares, first, got, err)
			}
		}
		if got, err := Combine(shares); err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("all %d shares: %x, %v", c.shares, got, err)
		}
		if c.threshold > 2 {
			if got, err := Combine(shares[:c.threshold-1]); err != nil || bytes.Equal(got, secret) {
				t.Errorf("one share too few of %d gives %x, %v", c.threshold, got, err)
			}
		}
	}
}

// For a threshold of two, one share's y takes every value equally often over all coefficients: it says nothing of the secret.
func TestOneShareOfTwoSaysNothing(t *testing.T) {
	for x := 1; x < 256; x++ {
		var seen [256]bool
		for coefficient := range 256 {
			seen[0x42^fieldMul(byte(coefficient), byte(x))] = true
		}
		for y, ok := range seen {
			if !ok {
				t.Fatalf("y = %d never occurs at x = %d", y, x)
			}
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	for _, c := range []struct {
		name              string
		secret            []byte
		shares, threshold int
		want              error
	}{
		{"threshold 1", []byte("s"), 3, 1, ErrShareCount},
		{"threshold 0", []byte("s"), 3, 0, ErrShareCount},
		{"threshold above shares", []byte("s"), 2, 3, ErrShareCount},
		{"256 shares", []byte("s"), 256, 2, ErrShareCount},
		{"empty secret", nil, 3, 2, ErrSecretSize},
		{"huge secret", make([]byte, maxSecret+1), 3, 2, ErrSecretSize},
	} {
		if _, err := Split(c.secret, c.shares, c.threshold, steady(1)); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, n := range []int64{0, 100, 600} {
		if _, err := Split(make([]byte, 1000), 3, 3, io.LimitReader(steady(1), n)); err == nil {
			t.Errorf("Split made shares of %d bytes of randomness", n)
		}
	}
	if _, err := Split([]byte("s"), 3, 2, iotest.ErrReader(errors.New("no luck"))); err == nil {
		t.Error("Split made shares of failing randomness")
	}
}

func TestCombineRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		shares [][]byte
		want   error
	}{
		{"none", nil, ErrTooFewShares},
		{"one", [][]byte{{1, 1}}, ErrTooFewShares},
		{"same number", [][]byte{{1, 1}, {2, 1}}, ErrDuplicateShare},
		{"number zero", [][]byte{{1, 1}, {2, 0}}, ErrShareNumber},
		{"lengths differ", [][]byte{{1, 1}, {2, 2, 2}}, ErrShareLength},
		{"empty", [][]byte{{}, {}}, ErrShareLength},
		{"number only", [][]byte{{1}, {2}}, ErrShareLength},
		{"too many", make([][]byte, 256), ErrDuplicateShare},
	} {
		if got, err := Combine(c.shares); err != c.want {
			t.Errorf("%s: %x, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestPermutationHoldsEveryNumberOnce(t *testing.T) {
	random := steady(3)
	heads := map[byte]bool{}
	for range 200 {
		p, err := permutation(random)
		if err != nil {
			t.Fatal(err)
		}
		var seen [256]bool
		for _, x := range p {
			if x == 0 || seen[x] {
				t.Fatalf("%d is zero or twice in %v", x, p)
			}
			seen[x] = true
		}
		heads[p[0]] = true
	}
	if len(heads) < 100 {
		t.Errorf("200 permutations begin with only %d different numbers", len(heads))
	}
}

func TestSharesAreRecognised(t *testing.T) {
	shares, err := Split(bytes.Repeat([]byte{5}, 32), 5, 3, steady(2))
	if err != nil {
		t.Fatal(err)
	}
	salt := [32]byte{1}
	var hashes []ShareHash
	for _, s := range shares {
		hashes = append(hashes, HashShare(salt, s))
	}
	for i, s := range shares {
		if got := FindShare(hashes, HashShare(salt, s)); got != i {
			t.Errorf("FindShare of share %d = %d", i, got)
		}
		if got := FindShare(hashes, HashShare([32]byte{2}, s)); got != -1 {
			t.Errorf("FindShare with another salt = %d, want -1", got)
		}
	}
	if got := FindShare(hashes, HashShare(salt, shares[0][:32])); got != -1 {
		t.Errorf("FindShare of a cut share = %d, want -1", got)
	}
	if got := FindShare(nil, HashShare(salt, shares[0])); got != -1 {
		t.Errorf("FindShare among none = %d, want -1", got)
	}
}

func FuzzShamir(f *testing.F) {
	f.Add([]byte("secret"), uint8(5), uint8(3), uint8(1))
	f.Add([]byte{0}, uint8(255), uint8(255), uint8(0))
	f.Fuzz(func(t *testing.T, secret []byte, shares, threshold, seed uint8) {
		parts, err := Split(secret, int(shares), int(threshold), steady(seed))
		if err != nil {
			return
		}
		got, err := Combine(parts[len(parts)-int(threshold):])
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%d of %d: %x, %v, want %x", threshold, shares, got, err, secret)
		}
	})
}

func FuzzCombine(f *testing.F) {
	f.Add([]byte{1, 2, 1, 3, 4, 2}, 3)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, all []byte, size int) {
		var shares [][]byte
		for size > 0 && len(all) > 0 {
			n := min(size, len(all))
			shares = append(shares, all[:n])
			all = all[n:]
		}
		if got, err := Combine(shares); err == nil && len(got) != size-1 {
			t.Errorf("Combine of shares of %d bytes gave %d", size, len(got))
		}
	})
}

func BenchmarkShamir(b *testing.B) {
	secret := make([]byte, 32)
	random := steady(1)
	shares, err := Split(secret, 5, 3, random)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Split", func(b *testing.B) {
		for b.Loop() {
			Split(secret, 5, 3, random)
		}
	})
	b.Run("Combine", func(b *testing.B) {
		for b.Loop() {
			Combine(shares[:3])
		}
	})
}
