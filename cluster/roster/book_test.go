package roster

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func contacts(number uint64) *Contacts {
	return &Contacts{Number: number, Nodes: map[string]Contact{
		"a": {Cluster: "192.0.2.1:8201", Gossip: "192.0.2.1:8301"}, "b": {Cluster: "node-b.example:8201"}}}
}

func TestGoldenContacts(t *testing.T) {
	b, err := contacts(3).Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "contacts.json")
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
	if c, err := DecodeContacts(golden); err != nil || !reflect.DeepEqual(c, contacts(3)) {
		t.Errorf("decoded %+v, %v", c, err)
	}
}

func TestContactsThatCannotBeAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Contacts){
		"number":  func(c *Contacts) { c.Number = 0 },
		"node id": func(c *Contacts) { c.Nodes["A"] = c.Nodes["a"] },
		"address": func(c *Contacts) { c.Nodes["a"] = Contact{Gossip: "192.0.2.1:8301"} },
		"length":  func(c *Contacts) { c.Nodes["a"] = Contact{Cluster: strings.Repeat("x", MaxAddress+1)} },
	} {
		c := contacts(1)
		change(c)
		if _, err := c.Encode(); err == nil {
			t.Errorf("a bad %s was encoded", name)
		}
	}
}

func TestBookKeepsTheNewestContacts(t *testing.T) {
	dir := t.TempDir()
	b, err := OpenBook(dir)
	if err != nil || b.Contacts().Number != 0 {
		t.Fatalf("an empty book has number %d, %v", b.Contacts().Number, err)
	}
	for _, number := range []uint64{2, 5, 4, 5} {
		if err := b.Adopt(contacts(number)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err = OpenBook(dir); err != nil || !reflect.DeepEqual(b.Contacts(), contacts(5)) {
		t.Errorf("opened again: %+v, %v; want number 5", b.Contacts(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "contacts.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err = OpenBook(dir); err == nil || b.Contacts().Number != 0 {
		t.Errorf("a damaged book: number %d, %v; want an empty one and why", b.Contacts().Number, err)
	}
	if err := b.Adopt(contacts(1)); err != nil || b.Contacts().Number != 1 {
		t.Errorf("a damaged book doesn't take contacts: %v", err)
	}
}

func FuzzDecodeContacts(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "contacts.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"number":1,"nodes":{"a":{"cluster":"x"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeContacts(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatalf("decoded but doesn't encode: %v", err)
		}
		if same, err := DecodeContacts(again); err != nil || len(same.Nodes) != len(c.Nodes) {
			t.Fatalf("encoded but doesn't decode to the same: %v", err)
		}
	})
}
