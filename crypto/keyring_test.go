package crypto

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"reflect"
	"testing"
)

func newKeyring(t testing.TB) *Keyring {
	t.Helper()
	k, err := NewKeyring(steady(1), 1000)
	if err != nil {
		t.Fatalf("NewKeyring: %v", err)
	}
	return k
}

func TestNewKeyringHasItsOwnKeys(t *testing.T) {
	k := newKeyring(t)
	seen := map[Key]bool{{}: true}
	for _, key := range []Key{Key(k.Root.Name), k.Root.Data[1], k.AuditData[1], k.AuditHMAC, Key(k.AuditPrivate),
		Key(k.ClusterPrivate.Seed()), k.TokenKey} {
		if seen[key] {
			t.Error("a key is zero, or is there twice")
		}
		seen[key] = true
	}
	if k.Term != 1 || k.AuditActive != 1 || !reflect.DeepEqual(k.Installed, []TermInfo{{1, 1000}}) {
		t.Errorf("term %d, epoch %d, installed %v", k.Term, k.AuditActive, k.Installed)
	}
	public, err := PublicHPKE(k.AuditPrivate)
	if err != nil {
		t.Fatal(err)
	}
	box, err := SealTo(public, nil, nil, []byte("record"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenWith(k.AuditPrivate, nil, nil, box); err != nil || string(got) != "record" {
		t.Errorf("the audit key pair doesn't work: %q, %v", got, err)
	}
	if !ed25519.Verify(k.ClusterPrivate.Public().(ed25519.PublicKey), []byte("m"), ed25519.Sign(k.ClusterPrivate, []byte("m"))) {
		t.Error("the cluster key doesn't sign")
	}
	for n := range 7 * KeySize {
		if _, err := NewKeyring(bytes.NewReader(make([]byte, n)), 1); err == nil {
			t.Fatalf("NewKeyring made keys of %d bytes of randomness", n)
		}
	}
}

func TestKeyringRotates(t *testing.T) {
	k := newKeyring(t)
	first := k.Clone()
	if err := k.Rotate(steady(2), 2000); err != nil {
		t.Fatal(err)
	}
	if k.Term != 2 || k.Root.Active != 2 || k.AuditActive != 2 || len(k.Root.Data) != 2 || len(k.AuditData) != 2 {
		t.Errorf("after Rotate: term %d, root %d, epoch %d", k.Term, k.Root.Active, k.AuditActive)
	}
	if !reflect.DeepEqual(k.Installed, []TermInfo{{1, 1000}, {2, 2000}}) {
		t.Errorf("installed %v", k.Installed)
	}
	if k.AuditHMAC != first.AuditHMAC || k.TokenKey != first.TokenKey || k.Root.Name != first.Root.Name {
		t.Error("Rotate changed a key that must stay")
	}
	if !reflect.DeepEqual(first, newKeyring(t)) {
		t.Error("Rotate changed a clone")
	}
	before := k.Clone()
	for n := range 2 * KeySize {
		if err := k.Rotate(bytes.NewReader(make([]byte, n)), 3000); err == nil || !reflect.DeepEqual(k, before) {
			t.Fatalf("Rotate with %d bytes of randomness: %v, or it changed the keyring", n, err)
		}
	}
	if err := k.DropAudit(2); !errors.Is(err, ErrTermInUse) {
		t.Errorf("DropAudit of the active epoch: %v", err)
	}
	if err := k.DropAudit(1); err != nil || len(k.AuditData) != 1 {
		t.Errorf("DropAudit(1): %v", err)
	}
	if err := k.DropAudit(1); !errors.Is(err, ErrNoTerm) {
		t.Errorf("DropAudit(1) again: %v", err)
	}
}

func TestAuditKeysAreDroppedByTheirAge(t *testing.T) {
	k, random := newKeyring(t), steady(2) // term 1 is of second 1000
	for n := range int64(MaxTerms + 9) {
		if err := k.Rotate(random, 2000+100*n); err != nil {
			t.Fatal(err)
		}
		if err := k.Root.Drop(k.Root.Active - 1); err != nil {
			t.Fatal(err)
		}
	}
	all := len(k.AuditData)
	first := k.Installed[0]
	for _, tc := range []struct {
		at   int64
		left int
	}{
		{0, all},
		{first.UnixSeconds, all}, // when those before it ended isn't known any better
		{first.UnixSeconds + 1, all - int(first.Term) + 1},
		{first.UnixSeconds + 100, all - int(first.Term) + 1},
		{first.UnixSeconds + 101, all - int(first.Term)},
		{1 << 40, 1},
	} {
		before := len(k.AuditData)
		if dropped := k.DropAuditBefore(tc.at); len(k.AuditData) != tc.left || dropped != before-tc.left {
			t.Errorf("DropAuditBefore(%d) = %d, %d are left, want %d", tc.at, dropped, len(k.AuditData), tc.left)
		}
		if _, ok := k.AuditData[k.AuditActive]; !ok {
			t.Fatal("the active key is gone")
		}
	}
	if err := k.RotateAudit(random); err != nil {
		t.Fatal(err)
	}
	if dropped := k.DropAuditBefore(1 << 40); dropped != 0 {
		t.Errorf("%d keys of unknown age were dropped", dropped)
	}
}

func TestKeyringStaysWithinItsBounds(t *testing.T) {
	k, random := newKeyring(t), steady(2)
	for n := range 3 * MaxTerms {
		if err := k.Rotate(random, int64(n)); err != nil {
			t.Fatal(err)
		}
		if err := k.Root.Drop(k.Root.Active - 1); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.Installed) != MaxTerms || k.Installed[MaxTerms-1].Term != k.Term {
		t.Errorf("%d terms listed, the last %v", len(k.Installed), k.Installed[len(k.Installed)-1])
	}
	for len(k.AuditData) < MaxAuditKeys {
		if err := k.RotateAudit(random); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Rotate(random, 1); err != ErrTooManyTerms {
		t.Errorf("Rotate at the limit: %v, want ErrTooManyTerms", err)
	}
	b, err := k.MarshalBinary()
	if err != nil || new(Keyring).UnmarshalBinary(b) != nil {
		t.Errorf("a keyring at its limits doesn't survive its encoding: %v", err)
	}
	if cap(b) > len(b)+256 {
		t.Errorf("the encoding of %d bytes was grown to %d", len(b), cap(b))
	}
}

// fixedKeyring is the keyring of the golden files.
func fixedKeyring() *Keyring {
	fill := func(b byte) Key { return Key(bytes.Repeat([]byte{b}, 32)) }
	private, seed := fill(0xa2), fill(0xa3)
	return &Keyring{
		Term:           9,
		Root:           fixedKeys(),
		AuditData:      map[uint32]Key{2: fill(0x22), 4: fill(0x44)},
		AuditActive:    4,
		AuditHMAC:      fill(0xa1),
		AuditPrivate:   private[:],
		ClusterPrivate: ed25519.NewKeyFromSeed(seed[:]),
		TokenKey:       fill(0xa4),
		Installed:      []TermInfo{{8, 1_700_000_000}, {9, -1}},
	}
}

func TestKeyringGolden(t *testing.T) {
	want := golden(t, "keyring.v1.hex")
	got, err := fixedKeyring().MarshalBinary()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("MarshalBinary = %x, %v, want %x", got, err, want)
	}
	k, err := OpenKeyring(newAEAD(t, 0x66), 12, testScope.Cluster, golden(t, "keyring.sealed.v1.hex"))
	if err != nil || !reflect.DeepEqual(k, fixedKeyring()) {
		t.Errorf("OpenKeyring: %v, or not the keyring that was sealed", err)
	}
	root, err := UnwrapRootKey(bytes.Repeat([]byte{1}, 32), golden(t, "rootkey.v1.hex"), []byte("config"))
	if err != nil || !bytes.Equal(root, bytes.Repeat([]byte{0x66}, 32)) {
		t.Errorf("UnwrapRootKey = %x, %v", root, err)
	}
}

func TestKeyringCodecIsStrict(t *testing.T) {
	whole := golden(t, "keyring.v1.hex")
	for n := range whole {
		if new(Keyring).UnmarshalBinary(whole[:n]) == nil {
			t.Errorf("cut to %d bytes it still decodes", n)
		}
	}
	if new(Keyring).UnmarshalBinary(append(bytes.Clone(whole), 0)) == nil {
		t.Error("with a byte too many it still decodes")
	}
	for name, spoil := range map[string]func(*Keyring){
		"no root":                  func(k *Keyring) { k.Root = nil },
		"broken root":              func(k *Keyring) { k.Root = &SpaceKeys{} },
		"no audit key":             func(k *Keyring) { k.AuditData = nil },
		"audit active not there":   func(k *Keyring) { k.AuditActive = 5 },
		"short HPKE key":           func(k *Keyring) { k.AuditPrivate = k.AuditPrivate[1:] },
		"no cluster key":           func(k *Keyring) { k.ClusterPrivate = nil },
		"nothing installed":        func(k *Keyring) { k.Installed = nil },
		"last installed isn't it":  func(k *Keyring) { k.Term = 10 },
		"installed twice":          func(k *Keyring) { k.Installed[0].Term = 9 },
		"term zero":                func(k *Keyring) { k.Installed[0].Term = 0 },
		"more than the most terms": func(k *Keyring) { k.Installed = make([]TermInfo, MaxTerms+1) },
	} {
		k := fixedKeyring()
		spoil(k)
		if _, err := k.MarshalBinary(); err != ErrFormat {
			t.Errorf("marshal, %s: %v, want ErrFormat", name, err)
		}
	}
}

func TestKeyringOpensOnlyWhereItWasSealed(t *testing.T) {
	k, root, cluster := newKeyring(t), newAEAD(t, 3), [16]byte{9}
	box := k.Seal(root, 5, cluster)
	got, err := OpenKeyring(root, 5, cluster, box)
	if err != nil || !reflect.DeepEqual(got, k) {
		t.Fatalf("OpenKeyring: %v, or not the keyring that was sealed", err)
	}
	for name, open := range map[string]func() (*Keyring, error){
		"root key": func() (*Keyring, error) { return OpenKeyring(newAEAD(t, 4), 5, cluster, box) },
		"version":  func() (*Keyring, error) { return OpenKeyring(root, 6, cluster, box) },
		"cluster":  func() (*Keyring, error) { return OpenKeyring(root, 5, [16]byte{8}, box) },
		"content": func() (*Keyring, error) {
			return OpenKeyring(root, 5, cluster, root.Seal(nil, []byte("x"), keyringAdditional(5, cluster)))
		},
	} {
		if got, err := open(); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("other %s: %v, want ErrOpen", name, err)
		}
	}
	for n := range box {
		flipped := bytes.Clone(box)
		flipped[n] ^= 1
		if _, err := OpenKeyring(root, 5, cluster, flipped); !errors.Is(err, ErrOpen) {
			t.Errorf("byte %d flipped: %v, want ErrOpen", n, err)
		}
		if _, err := OpenKeyring(root, 5, cluster, box[:n]); !errors.Is(err, ErrOpen) {
			t.Errorf("cut to %d: %v, want ErrOpen", n, err)
		}
	}
	k.Wipe()
	if k.AuditHMAC != (Key{}) || k.TokenKey != (Key{}) || len(k.AuditData)+len(k.Root.Data) != 0 ||
		!bytes.Equal(k.ClusterPrivate, make([]byte, 64)) || !bytes.Equal(k.AuditPrivate, make([]byte, 32)) {
		t.Error("Wipe left keys behind")
	}
}

func FuzzKeyring(f *testing.F) {
	f.Add(golden(f, "keyring.v1.hex"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var k Keyring
		if k.UnmarshalBinary(b) != nil {
			return
		}
		if again, err := k.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x decodes, and encodes as %x, %v", b, again, err)
		}
		if err := k.Clone().Rotate(steady(1), 0); err != nil && err != ErrTooManyTerms {
			t.Errorf("a decoded keyring doesn't rotate: %v", err)
		}
	})
}

func FuzzOpenKeyring(f *testing.F) {
	root := newAEAD(f, 0x66)
	f.Add(uint64(12), golden(f, "keyring.sealed.v1.hex"), golden(f, "keyring.v1.hex"))
	f.Fuzz(func(t *testing.T, version uint64, box, content []byte) {
		if _, err := OpenKeyring(root, version, testScope.Cluster, box); err != nil && !errors.Is(err, ErrOpen) {
			t.Errorf("OpenKeyring: %v", err)
		}
		// Whoever has the root key can seal anything; it still must not crash.
		genuine := root.Seal(nil, content, keyringAdditional(version, testScope.Cluster))
		if _, err := OpenKeyring(root, version, testScope.Cluster, genuine); err != nil && !errors.Is(err, ErrOpen) {
			t.Errorf("OpenKeyring of odd content: %v", err)
		}
	})
}
