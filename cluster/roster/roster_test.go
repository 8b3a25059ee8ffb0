package roster

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

const testCluster = "000102030405060708090a0b0c0d0e0f"

// key is a cluster key that is the same in every run.
func key(seed byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)) }

func signing(k ed25519.PrivateKey) (ed25519.PublicKey, func([]byte) []byte) {
	return k.Public().(ed25519.PublicKey), func(m []byte) []byte { return ed25519.Sign(k, m) }
}

func member(id string) Member {
	return Member{NodeID: id, TLSPublic: bytes.Repeat([]byte{id[0]}, 32), HPKEPublic: []byte("hpke " + id), AuditPublic: []byte("audit " + id),
		ServerID: id + "-0011223344556677", Address: "192.0.2.1:8201"}
}

func list(number uint64, ids ...string) *List {
	l := &List{Number: number, ClusterID: testCluster}
	for _, id := range ids {
		l.Put(member(id))
	}
	return l
}

func signed(t *testing.T, l *List, k ed25519.PrivateKey) *List {
	t.Helper()
	public, sign := signing(k)
	if err := l.Sign(public, sign); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestGoldenList(t *testing.T) {
	b, err := signed(t, list(7, "b", "a"), key(1)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "list.json")
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, golden) {
		t.Errorf("encoded as %s, want %s", b, golden)
	}
	l, err := Decode(golden)
	if err != nil || !l.Signed() || l.Number != 7 || l.Find("b") == nil || l.Members[0].NodeID != "a" {
		t.Errorf("decoded %+v, %v", l, err)
	}
}

func TestSignatureCoversWhoBelongs(t *testing.T) {
	change := map[string]func(*List){
		"number":      func(l *List) { l.Number++ },
		"cluster":     func(l *List) { l.ClusterID = strings.Repeat("f", 32) },
		"node id":     func(l *List) { l.Members[1].NodeID = "c" },
		"TLS key":     func(l *List) { l.Members[0].TLSPublic = bytes.Repeat([]byte{9}, 32) },
		"HPKE key":    func(l *List) { l.Members[0].HPKEPublic = nil },
		"audit key":   func(l *List) { l.Members[0].AuditPublic = []byte("x") },
		"removal":     func(l *List) { l.Drop("b") },
		"an entry":    func(l *List) { l.Put(member("z")) },
		"cluster key": func(l *List) { l.ClusterKey, _ = signing(key(2)) },
	}
	for name, f := range change {
		l := signed(t, list(7, "a", "b"), key(1))
		f(l)
		if err := l.check(); err == nil {
			t.Errorf("a changed %s isn't noticed", name)
		}
	}
	l := signed(t, list(7, "a", "b"), key(1))
	l.Members[0].Address, l.Members[0].ServerID = "192.0.2.9:1", "a-ffffffffffffffff"
	if err := l.check(); err != nil {
		t.Errorf("a changed address: %v; addresses may change freely", err)
	}
}

func TestOnlyLaterListsOfThePinnedKeyAreAdopted(t *testing.T) {
	dir := t.TempDir()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var seen []uint64
	r.Watch(func(now *Trust) { seen = append(seen, now.List.Number) })
	other := list(9, "a")
	other.ClusterID = strings.Repeat("0", 32)
	steps := []struct {
		name  string
		list  *List
		stale bool
		ok    bool
	}{
		{"provisional", list(1, "a"), false, true},
		{"later", list(3, "a", "b"), false, true},
		{"older", list(2, "a"), true, false},
		{"signed", signed(t, list(4, "a", "b"), key(1)), false, true},
		{"unsigned after signed", list(5, "a", "b"), false, false},
		{"signed by another", signed(t, list(6, "a", "b"), key(2)), false, false},
		{"of another cluster", signed(t, other, key(1)), false, false},
		{"older and signed", signed(t, list(3, "a"), key(1)), true, false},
		{"same number", signed(t, list(4, "a", "c"), key(1)), false, true},
		{"without b", signed(t, list(8, "a"), key(1)), false, true},
	}
	for _, s := range steps {
		err := r.Adopt(s.list)
		if (err == nil) != s.ok || errors.Is(err, ErrStale) != s.stale {
			t.Errorf("adopting one %s: %v", s.name, err)
		}
	}
	if want := []uint64{1, 3, 4, 8}; len(seen) != 4 || seen[3] != 8 {
		t.Errorf("watchers saw %v, want %v", seen, want)
	}
	r, err = Open(dir)
	if err != nil || r.List().Number != 8 {
		t.Fatalf("opened again: %+v, %v", r.List(), err)
	}
	if _, ok := r.Member([32]byte(member("a").TLSPublic)); !ok {
		t.Error("a isn't known by its key")
	}
	if _, ok := r.Member([32]byte(member("b").TLSPublic)); ok {
		t.Error("b is still known by its key")
	}
	if err := os.WriteFile(filepath.Join(dir, "members.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a damaged pin was opened")
	}
}

func FuzzDecode(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "list.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"number":1,"cluster_id":"` + testCluster + `","members":[{"node_id":"a"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Decode(b)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil {
			t.Fatalf("decoded but doesn't encode: %v", err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("encoded but doesn't decode: %v", err)
		}
	})
}
