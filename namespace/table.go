// Package namespace keeps the tree of namespaces. A namespace is a vault within the vault: it has a system space of its
// own, and in it its mounts, policies, tokens and identities. What belongs to one is never found from another, except that
// a token of a namespace may act in those below it.
//
// The children of a namespace are one record, "namespaces" in its system space, decoded once per version:
//
//	{"children": [entry, …]}      JSON, at most 1 MiB, entries sorted by name
//
// An entry holds the keys of the child's system space, so that deleting the entry and the space destroys all of it, with
// what is below. Names are one segment; ids are random and never used again.
package namespace

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"conclave"
)

// Limits of namespaces.
const (
	MaxChildren = 2000 // of one namespace
	MaxDepth    = 16   // below the root namespace
	maxName     = 128  // bytes
	maxMetadata = 64   // entries of custom metadata
	maxText     = 512  // bytes of a key or value of custom metadata
)

const recordPath = "namespaces"

// Entry is one child of a namespace. Entries of a table are shared: they must not be changed.
type Entry struct {
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	UUID     string            `json:"uuid"`
	Space    conclave.Space    `json:"space"` // its system space
	Metadata map[string]string `json:"custom_metadata,omitempty"`
	Created  int64             `json:"created"`        // Unix nanoseconds
	Lock     []byte            `json:"lock,omitempty"` // SHA-256 of the key that unlocks it; empty while it isn't locked
}

// Locked reports whether requests to the namespace and those below it are refused.
func (e *Entry) Locked() bool { return len(e.Lock) > 0 }

// Table holds the children of one namespace. It is immutable; the nil Table has none.
type Table struct {
	Children []*Entry `json:"children"`
}

// Load returns the children of the namespace whose system space is viewed.
func Load(view conclave.View) (*Table, error) {
	loaded, err := view.Load(recordPath, func(value []byte) (any, error) { return decode(value) })
	t, _ := loaded.(*Table)
	return t, err
}

func decode(value []byte) (*Table, error) {
	t := &Table{}
	if err := json.Unmarshal(value, t); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored table of namespaces is damaged")
	}
	for i, e := range t.Children {
		if e == nil || e.Name == "" || e.ID == "" || e.Space.ID == 0 || i > 0 && t.Children[i-1].Name >= e.Name {
			return nil, conclave.Errorf(conclave.Internal, "the stored table of namespaces has a damaged entry")
		}
	}
	return t, nil
}

// Find returns the child of a name, nil if there is none.
func (t *Table) Find(name string) *Entry {
	if t == nil {
		return nil
	}
	at, found := slices.BinarySearchFunc(t.Children, name, func(e *Entry, name string) int { return strings.Compare(e.Name, name) })
	if !found {
		return nil
	}
	return t.Children[at]
}

// with stores the table with one entry taken out and another put in; either may be nil.
func (t *Table) with(tx conclave.Tx, out, in *Entry) error {
	next := &Table{}
	if t != nil {
		next.Children = slices.DeleteFunc(slices.Clone(t.Children), func(e *Entry) bool { return e == out })
	}
	if in != nil {
		next.Children = append(next.Children, in)
		slices.SortFunc(next.Children, func(a, b *Entry) int { return strings.Compare(a.Name, b.Name) })
	}
	if len(next.Children) > MaxChildren {
		return conclave.Errorf(conclave.Invalid, "a namespace has at most %d directly below it", MaxChildren)
	}
	return next.put(tx)
}

func (t *Table) put(tx conclave.Tx) error {
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if len(value) > conclave.MaxValue {
		return conclave.Errorf(conclave.TooLarge, "the table of namespaces is full: it has at most %d bytes", conclave.MaxValue)
	}
	return tx.Put(recordPath, value)
}

// Walk calls visit for the namespace whose system space is given and for all below it, each with its system space, those
// above first.
func Walk(system conclave.System, at conclave.Namespace, visit func(at conclave.Namespace, system conclave.System) error) error {
	if err := visit(at, system); err != nil {
		return err
	}
	table, err := Load(system)
	if err != nil || table == nil {
		return err
	}
	for _, e := range table.Children {
		below, err := open(system, e)
		if err != nil {
			return err
		}
		if err := Walk(below, conclave.Namespace{ID: e.ID, Path: at.Path + e.Name + "/"}, visit); err != nil {
			return err
		}
	}
	return nil
}

// At returns the system space of the namespace at a path below that of system, nil if there is none.
func At(system conclave.System, path string) (conclave.System, error) {
	for name := range strings.SplitSeq(strings.TrimSuffix(path, "/"), "/") {
		if name == "" {
			return system, nil
		}
		table, err := Load(system)
		if err != nil {
			return nil, err
		}
		e := table.Find(name)
		if e == nil {
			return nil, nil
		}
		if system, err = open(system, e); err != nil {
			return nil, err
		}
	}
	return system, nil
}

// Descend calls visit for the namespace whose system space is given, the root namespace, and for each one on the way down to
// the one at a path. One that is missing ends the way.
func Descend(system conclave.System, path string, visit func(at conclave.Namespace, system conclave.System) error) error {
	at := conclave.Namespace{ID: conclave.RootNamespace}
	for rest := path; ; {
		if err := visit(at, system); err != nil || rest == "" {
			return err
		}
		name, below, _ := strings.Cut(rest, "/")
		table, err := Load(system)
		if err != nil {
			return err
		}
		e := table.Find(name)
		if e == nil {
			return nil
		}
		if system, err = open(system, e); err != nil {
			return err
		}
		at, rest = conclave.Namespace{ID: e.ID, Path: at.Path + name + "/"}, below
	}
}

func open(system conclave.System, e *Entry) (conclave.System, error) {
	tx, err := system.Open(e.Space)
	if err != nil {
		return nil, err
	}
	below, ok := tx.(conclave.System)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "a namespace's space is not a system space")
	}
	return below, nil
}

// ChangeSpaces stores the table with the keys that change returns for each child's system space. Nothing is written if
// none differ.
func ChangeSpaces(tx conclave.Tx, change func(conclave.Space) (conclave.Space, error)) error {
	table, err := Load(tx)
	if err != nil || table == nil {
		return err
	}
	next, changed := &Table{Children: slices.Clone(table.Children)}, false
	for i, e := range table.Children {
		space, err := change(e.Space)
		if err != nil {
			return err
		}
		if bytes.Equal(space.Keys, e.Space.Keys) {
			continue
		}
		same := *e
		same.Space = space
		next.Children[i], changed = &same, true
	}
	if !changed {
		return nil
	}
	return next.put(tx)
}
