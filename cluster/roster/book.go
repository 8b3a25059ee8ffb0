package roster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"conclave/cluster/disk"
)

// Contact is where a node was when it last told the leader, host:port each.
type Contact struct {
	Cluster string `json:"cluster"`
	Gossip  string `json:"gossip,omitempty"` // empty if its gossip is off
}

// Contacts are where the members were last, node id → contact. They are numbered like lists of members, but not signed:
// a node's certificate shows who answers at an address.
type Contacts struct {
	Number uint64             `json:"number"`
	Nodes  map[string]Contact `json:"nodes"`
}

// Successor is a copy with the next number, to be changed.
func (c *Contacts) Successor() *Contacts {
	next := &Contacts{Number: c.Number + 1, Nodes: maps.Clone(c.Nodes)}
	if next.Nodes == nil {
		next.Nodes = make(map[string]Contact)
	}
	return next
}

func (c *Contacts) check() error {
	if c.Number == 0 || len(c.Nodes) > MaxMembers {
		return fmt.Errorf("contacts have number %d and %d entries, 1 to %d are allowed", c.Number, len(c.Nodes), MaxMembers)
	}
	for id, at := range c.Nodes {
		if !ValidNodeID(id) || at.Cluster == "" || len(at.Cluster) > MaxAddress || len(at.Gossip) > MaxAddress {
			return errors.New("contacts have a bad entry")
		}
	}
	return nil
}

// Encode gives the stored form: JSON.
func (c *Contacts) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return json.Marshal(c)
}

// DecodeContacts parses and checks the stored form.
func DecodeContacts(b []byte) (*Contacts, error) {
	if len(b) > MaxBytes {
		return nil, errors.New("contacts are too long")
	}
	c := new(Contacts)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, errors.New("contacts don't parse")
	}
	return c, c.check()
}

// Book keeps the newest contacts that a node knows on its disk: after a crash the state has them only when the log is
// replayed, and that takes a leader, who is found by them.
type Book struct {
	path    string
	current atomic.Pointer[Contacts]

	mu sync.Mutex // serialises Adopt
}

// OpenBook reads what is kept in dir. One that is damaged counts as empty: the error says so, and the book can be used.
func OpenBook(dir string) (*Book, error) {
	b := &Book{path: filepath.Join(dir, "contacts.json")}
	b.current.Store(&Contacts{})
	text, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	c, err := DecodeContacts(text)
	if err != nil {
		return b, fmt.Errorf("%s: %w", b.path, err)
	}
	b.current.Store(c)
	return b, nil
}

// Contacts returns the newest contacts; nobody may change them.
func (b *Book) Contacts() *Contacts { return b.current.Load() }

// Adopt keeps contacts that are newer than those known, and ignores others.
func (b *Book) Adopt(c *Contacts) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.Number <= b.Contacts().Number {
		return nil
	}
	text, err := c.Encode()
	if err != nil {
		return err
	}
	b.current.Store(c)
	if err := disk.WriteFile(b.path, text); err != nil {
		return fmt.Errorf("keep contacts: %w", err)
	}
	return nil
}
