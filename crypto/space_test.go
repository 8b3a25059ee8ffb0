package crypto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var testScope = Scope{Cluster: [16]byte{1, 2, 3}, Space: 7}

// fixedKeys are space keys written out by hand, for golden files: terms 3 and 5.
func fixedKeys() *SpaceKeys {
	k := &SpaceKeys{Active: 5, Data: map[uint32]Key{}}
	for i := range k.Name {
		k.Name[i] = byte(i)
	}
	k.Data[3] = Key(bytes.Repeat([]byte{0x33}, 32))
	k.Data[5] = Key(bytes.Repeat([]byte{0x55}, 32))
	return k
}

func openSpace(t testing.TB, scope Scope, keys *SpaceKeys) *Space {
	t.Helper()
	s, err := OpenSpace(scope, keys)
	if err != nil {
		t.Fatalf("OpenSpace: %v", err)
	}
	return s
}

// golden is the content of testdata/name, in hexadecimal with line breaks.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return unhex(t, strings.Join(strings.Fields(string(b)), ""))
}

func TestSpaceKeysRotateAndDrop(t *testing.T) {
	k, err := NewSpaceKeys(steady(1))
	if err != nil || k.Active != 1 || len(k.Data) != 1 || k.Data[1] == (Key{}) || Key(k.Name) == k.Data[1] {
		t.Fatalf("NewSpaceKeys: active %d, %d keys, %v", k.Active, len(k.Data), err)
	}
	before := k.Clone()
	if err := k.Rotate(steady(2)); err != nil || k.Active != 2 || k.Data[1] == k.Data[2] || k.Data[1] != before.Data[1] {
		t.Fatalf("Rotate: active %d, %v", k.Active, err)
	}
	if len(before.Data) != 1 {
		t.Error("Rotate changed a clone")
	}
	if k.Drop(2) == nil || k.Drop(9) == nil {
		t.Error("Drop took the active term, or one that isn't there")
	}
	if err := k.Drop(1); err != nil || len(k.Data) != 1 {
		t.Errorf("Drop(1): %v, %d left", err, len(k.Data))
	}
	for len(k.Data) < MaxTerms {
		if err := k.Rotate(steady(3)); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Rotate(steady(3)); err != ErrTooManyTerms || len(k.Data) != MaxTerms {
		t.Errorf("Rotate at the limit: %v, want ErrTooManyTerms", err)
	}
	if _, err := NewSpaceKeys(bytes.NewReader(make([]byte, 63))); err == nil {
		t.Error("NewSpaceKeys made keys of 63 bytes of randomness")
	}
	active := k.Active
	k.Drop(active - 1)
	if err := k.Rotate(bytes.NewReader(nil)); err == nil || k.Active != active {
		t.Error("a Rotate without randomness changed the keys")
	}
	k.Wipe()
	if k.Name != (NameKey{}) || len(k.Data) != 0 {
		t.Error("Wipe left keys behind")
	}
}

func TestSpaceKeysGolden(t *testing.T) {
	want := golden(t, "spacekeys.v1.hex")
	got, err := fixedKeys().MarshalBinary()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("MarshalBinary = %x, %v, want %x", got, err, want)
	}
	var k SpaceKeys
	if err := k.UnmarshalBinary(want); err != nil || k.Active != 5 || k.Name != fixedKeys().Name || k.Data[3] != fixedKeys().Data[3] {
		t.Errorf("UnmarshalBinary: active %d, %v", k.Active, err)
	}
}

func TestSpaceKeysCodecIsStrict(t *testing.T) {
	whole := golden(t, "spacekeys.v1.hex")
	edit := func(at int, b byte) []byte {
		c := bytes.Clone(whole)
		c[at] = b
		return c
	}
	for name, b := range map[string][]byte{
		"empty":              nil,
		"other format":       edit(0, 2),
		"active not last":    edit(36, 3),
		"active not there":   edit(36, 6),
		"no keys":            edit(38, 0)[:39],
		"a key too few":      edit(38, 3),
		"a key too many":     edit(38, 1),
		"count of thousands": edit(37, 0xff),
		"terms descend":      edit(42, 6),
		"term zero":          edit(42, 0),
		"terms equal":        edit(42, 5),
		"trailing":           append(bytes.Clone(whole), 0),
	} {
		k := SpaceKeys{Active: 99}
		if err := k.UnmarshalBinary(b); err != ErrFormat || k.Active != 99 {
			t.Errorf("%s: %v, active %d, want ErrFormat and no change", name, err, k.Active)
		}
	}
	for n := range whole {
		if new(SpaceKeys).UnmarshalBinary(whole[:n]) == nil {
			t.Errorf("cut to %d bytes it still decodes", n)
		}
	}
	for name, k := range map[string]*SpaceKeys{
		"no keys":          {Active: 1},
		"active not there": {Active: 2, Data: map[uint32]Key{1: {}}},
		"active not last":  {Active: 1, Data: map[uint32]Key{1: {}, 2: {}}},
		"term zero":        {Active: 1, Data: map[uint32]Key{0: {}, 1: {}}},
	} {
		if _, err := k.MarshalBinary(); err != ErrFormat {
			t.Errorf("marshal %s: %v, want ErrFormat", name, err)
		}
	}
}

func TestChildTokens(t *testing.T) {
	keys := fixedKeys()
	s := openSpace(t, testScope, keys)
	// HMAC-SHA256 with the key 00…1f, of sixteen zeros and "secret"; computed apart, with Python's hmac.
	want := "5e83d9fae4e0772f0329c6beee39a53f"
	root := s.Child(Token{}, "secret")
	if root.String() != want {
		t.Errorf("Child(zero, secret) = %s, want %s", root, want)
	}
	seen := map[Token]string{}
	for _, segment := range []string{"", "a", "b", "ab", strings.Repeat("x", 20_000), "a\x00", "ü"} {
		for _, parent := range []Token{{}, root} {
			got := s.Child(parent, segment)
			if got != s.Child(parent, segment) || got != keys.Name.Child(parent, segment) {
				t.Errorf("Child(%s, %.10q) isn't the same each time", parent, segment)
			}
			if other, ok := seen[got]; ok {
				t.Errorf("%.10q and %.10q have one token", segment, other)
			}
			seen[got] = segment
		}
	}
}

func TestValuesOpenWhereTheyWereSealed(t *testing.T) {
	s := openSpace(t, testScope, fixedKeys())
	key := []byte("parent‖child")
	for _, n := range []int{0, 1, 27, 28, 29, 31, 32, 60, 61, 300, 4096, 1 << 20} {
		plain := bytes.Repeat([]byte{0xab}, n)
		box := s.SealValue([]byte("head"), key, "name", 9, plain)[4:]
		if want := BoxOverhead + (4+n+31)/32*32; len(box) != want {
			t.Errorf("box of %d bytes has %d, want %d", n, len(box), want)
		}
		got, err := s.OpenValue([]byte("head"), key, "name", 9, box)
		if err != nil || string(got[:4]) != "head" || !bytes.Equal(got[4:], plain) {
			t.Errorf("OpenValue of %d bytes: %d bytes, %v", n, len(got), err)
		}
		if term, err := s.Term(box); term != 5 || err != nil || s.ActiveTerm() != 5 {
			t.Errorf("Term = %d, %v, want 5", term, err)
		}
	}
}

func TestValuesDoNotOpenElsewhere(t *testing.T) {
	keys := fixedKeys()
	s := openSpace(t, testScope, keys)
	box := s.SealValue(nil, []byte("key"), "name", 9, []byte("secret"))
	if got, err := s.OpenValue(nil, []byte("key"), "name", 9, box); err != nil || string(got) != "secret" {
		t.Fatalf("where it belongs: %q, %v", got, err)
	}
	otherKeys := fixedKeys()
	otherKeys.Data[5] = Key{}
	fewerKeys := fixedKeys()
	fewerKeys.Drop(3)
	for name, open := range map[string]func() ([]byte, error){
		"key":           func() ([]byte, error) { return s.OpenValue(nil, []byte("kez"), "name", 9, box) },
		"name":          func() ([]byte, error) { return s.OpenValue(nil, []byte("key"), "nane", 9, box) },
		"version":       func() ([]byte, error) { return s.OpenValue(nil, []byte("key"), "name", 8, box) },
		"shifted field": func() ([]byte, error) { return s.OpenValue(nil, []byte("keyn"), "ame", 9, box) },
		"cluster": func() ([]byte, error) {
			return openSpace(t, Scope{Space: 7}, keys).OpenValue(nil, []byte("key"), "name", 9, box)
		},
		"space": func() ([]byte, error) {
			return openSpace(t, Scope{testScope.Cluster, 8}, keys).OpenValue(nil, []byte("key"), "name", 9, box)
		},
		"data key": func() ([]byte, error) {
			return openSpace(t, testScope, otherKeys).OpenValue(nil, []byte("key"), "name", 9, box)
		},
		"kind": func() ([]byte, error) {
			name := s.SealName(nil, []byte("key"), "secret")
			return s.OpenValue(nil, []byte("key"), "name", 9, name)
		},
	} {
		if got, err := open(); err != ErrOpen || got != nil {
			t.Errorf("other %s: %q, %v, want ErrOpen", name, got, err)
		}
	}
	if _, err := s.OpenName([]byte("key"), box); err != ErrOpen {
		t.Errorf("a value opens as a name: %v", err)
	}
	everyDamage(box, func(name string, damaged []byte) {
		if got, err := s.OpenValue(nil, []byte("key"), "name", 9, damaged); err != ErrOpen {
			t.Errorf("%s: %q, %v, want ErrOpen", name, got, err)
		}
	})
	if _, err := openSpace(t, testScope, fewerKeys).OpenValue(nil, []byte("key"), "name", 9, box); err != nil {
		t.Errorf("dropping another term lost this one: %v", err)
	}
}

func TestOldTermsOpenUntilDropped(t *testing.T) {
	keys, err := NewSpaceKeys(steady(1))
	if err != nil {
		t.Fatal(err)
	}
	box := openSpace(t, testScope, keys).SealValue(nil, []byte("k"), "n", 1, []byte("old"))
	keys.Rotate(steady(2))
	s := openSpace(t, testScope, keys)
	got, err := s.OpenValue(nil, []byte("k"), "n", 1, box)
	if err != nil || string(got) != "old" {
		t.Fatalf("after Rotate: %q, %v", got, err)
	}
	if term, _ := s.Term(s.SealValue(nil, []byte("k"), "n", 2, got)); term != 2 {
		t.Errorf("after Rotate values are sealed with term %d, want 2", term)
	}
	keys.Drop(1)
	if _, err := openSpace(t, testScope, keys).OpenValue(nil, []byte("k"), "n", 1, box); err != ErrOpen {
		t.Errorf("after Drop: %v, want ErrOpen", err)
	}
	if _, err := s.OpenValue(nil, []byte("k"), "n", 1, box); err != nil {
		t.Errorf("a Space changed under its user: %v", err)
	}
}

func TestNames(t *testing.T) {
	s := openSpace(t, testScope, fixedKeys())
	for _, name := range []string{"", "a", "ünï", strings.Repeat("n", 5000)} {
		token := s.Child(Token{}, name)
		box := s.SealName([]byte("head"), token[:], name)[4:]
		got, err := s.OpenName(token[:], box)
		if err != nil || got != name || s.Child(Token{}, got) != token {
			t.Errorf("OpenName = %.20q, %v, want %.20q", got, err, name)
		}
		if _, err := s.OpenName(token[1:], box); err != ErrOpen {
			t.Errorf("at another key: %v, want ErrOpen", err)
		}
	}
	box := s.SealName(nil, []byte("key"), "name")
	everyDamage(box, func(name string, damaged []byte) {
		if got, err := s.OpenName([]byte("key"), damaged); err != ErrOpen {
			t.Errorf("%s: %q, %v, want ErrOpen", name, got, err)
		}
	})
}

// Padding that isn't canonical was made by someone with the key who is not this package; it is refused all the same.
func TestForeignPaddingDoesNotOpen(t *testing.T) {
	s := openSpace(t, testScope, fixedKeys())
	seal := func(padded []byte) []byte {
		aad := s.active.valueAdditional(nil, []byte("k"), "n", 1)
		return s.active.aead.Seal([]byte{formatBox, 0, 0, 0, 5}, padded, aad)
	}
	block := make([]byte, 32)
	block[3] = 1
	if _, err := s.OpenValue(nil, []byte("k"), "n", 1, seal(block)); err != nil {
		t.Fatalf("canonical padding: %v", err)
	}
	nonzero, tooLong, tooWide, huge := bytes.Clone(block), bytes.Clone(block), make([]byte, 64), bytes.Clone(block)
	nonzero[31] = 1
	tooLong[3] = 29
	tooWide[3] = 28
	copy(huge, "\xff\xff\xff\xff")
	for name, padded := range map[string][]byte{"not zero": nonzero, "longer than the box": tooLong, "a block too many": tooWide, "huge": huge,
		"none": nil, "half a block": block[:16]} {
		if _, err := s.OpenValue(nil, []byte("k"), "n", 1, seal(padded)); err != ErrOpen {
			t.Errorf("%s: %v, want ErrOpen", name, err)
		}
	}
}

func TestBoxesOfVersionOneStillOpen(t *testing.T) {
	s := openSpace(t, testScope, fixedKeys())
	value, err := s.OpenValue(nil, []byte("state key"), "segment", 41, golden(t, "value.v1.hex"))
	if err != nil || string(value) != "a value sealed when format 1 was new" {
		t.Errorf("OpenValue = %q, %v", value, err)
	}
	name, err := s.OpenName([]byte("state key"), golden(t, "name.v1.hex"))
	if err != nil || name != "segment" {
		t.Errorf("OpenName = %q, %v", name, err)
	}
}

func TestOpenSpaceRefusesBrokenKeys(t *testing.T) {
	for name, k := range map[string]*SpaceKeys{"empty": {}, "active not there": {Active: 2, Data: map[uint32]Key{1: {}}}} {
		if _, err := OpenSpace(testScope, k); err == nil {
			t.Errorf("%s: OpenSpace took it", name)
		}
	}
}

func TestSpaceIsSafeForConcurrentUse(t *testing.T) {
	s := openSpace(t, testScope, fixedKeys())
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for i := range 200 {
				name := fmt.Sprint(worker, " ", i)
				token := s.Child(Token{}, name)
				got, err := s.OpenValue(nil, token[:], name, uint64(i), s.SealValue(nil, token[:], name, uint64(i), []byte(name)))
				if err != nil || string(got) != name {
					t.Errorf("OpenValue = %q, %v, want %q", got, err, name)
				}
			}
		})
	}
	wait.Wait()
}

func TestKeysDoNotPrint(t *testing.T) {
	keys := fixedKeys()
	ring, err := NewKeyring(steady(1), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{keys, *keys, keys.Name, keys.Data, keys.Data[5], openSpace(t, testScope, keys), newAEAD(t, 1), ring, *ring} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			got := fmt.Sprintf(verb, v)
			if !strings.Contains(got, redaction) || strings.Contains(got, "55") || len(got) > 80 {
				t.Errorf("%T prints with %s as %.80s", v, verb, got)
			}
		}
		b, err := json.Marshal(v)
		if err != nil || !strings.Contains(string(b), redaction) || len(b) > 80 {
			t.Errorf("%T marshals as %.80s, %v", v, b, err)
		}
	}
}

func FuzzSpaceKeys(f *testing.F) {
	f.Add(golden(f, "spacekeys.v1.hex"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var k SpaceKeys
		if k.UnmarshalBinary(b) != nil {
			return
		}
		if again, err := k.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x decodes, and encodes as %x, %v", b, again, err)
		}
		if _, err := OpenSpace(testScope, &k); err != nil {
			t.Errorf("decoded keys don't open a space: %v", err)
		}
	})
}

func FuzzSpaceOpen(f *testing.F) {
	s, err := OpenSpace(testScope, fixedKeys())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("state key"), "segment", uint64(41), golden(f, "value.v1.hex"))
	f.Add([]byte("state key"), "", uint64(0), golden(f, "name.v1.hex"))
	f.Add([]byte{}, "", uint64(0), []byte{1, 0, 0, 0, 5})
	f.Fuzz(func(t *testing.T, key []byte, name string, version uint64, box []byte) {
		if _, err := s.OpenValue(nil, key, name, version, box); err != nil && err != ErrOpen {
			t.Errorf("OpenValue: %v", err)
		}
		if _, err := s.OpenName(key, box); err != nil && err != ErrOpen {
			t.Errorf("OpenName: %v", err)
		}
		if _, err := s.Term(box); err != nil && err != ErrOpen {
			t.Errorf("Term: %v", err)
		}
		got, err := s.OpenValue(nil, key, name, version, s.SealValue(nil, key, name, version, box))
		if err != nil || !bytes.Equal(got, box) {
			t.Errorf("a value doesn't open again: %v", err)
		}
		if got, err := s.OpenName(key, s.SealName(nil, key, name)); err != nil || got != name {
			t.Errorf("a name doesn't open again: %v", err)
		}
	})
}

func BenchmarkSpace(b *testing.B) {
	s := openSpace(b, testScope, fixedKeys())
	key := make([]byte, 32)
	plain := make([]byte, 300)
	value := s.SealValue(nil, key, "password", 9, plain)
	name := s.SealName(nil, key, "password")
	buffer := make([]byte, 0, len(value))
	for _, bench := range []struct {
		name string
		call func()
	}{
		{"SealValue300", func() { s.SealValue(buffer, key, "password", 9, plain) }},
		{"OpenValue300", func() { s.OpenValue(buffer, key, "password", 9, value) }},
		{"OpenValue300/new buffer", func() { s.OpenValue(nil, key, "password", 9, value) }},
		{"SealName", func() { s.SealName(buffer, key, "password") }},
		{"OpenName", func() { s.OpenName(key, name) }},
		{"Child", func() { s.Child(Token{}, "password") }},
		{"OpenSpace", func() { OpenSpace(testScope, fixedKeys()) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bench.call()
			}
		})
	}
}
