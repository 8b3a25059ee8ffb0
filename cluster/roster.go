package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// roster is what a node believes about who belongs to the cluster: the newest list that it has accepted, pinned on disk
// with the cluster key.
type roster struct {
	path    string
	current atomic.Pointer[trust]

	mu       sync.Mutex // serialises adopt
	onChange []func(*trust)
}

// trust is one accepted list, with its index by key. It never changes.
type trust struct {
	list  *List // nil before there is one
	byKey map[[sha256.Size]byte]*Member
}

// errStaleList is what a list that is older than the pinned one gives.
var errStaleList = errors.New("list of members is older than the one pinned here")

func openRoster(dir string) (*roster, error) {
	r := &roster{path: filepath.Join(dir, "members.json")}
	r.current.Store(&trust{})
	b, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := DecodeList(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove this data directory and join again as a new node", r.path, err)
	}
	r.current.Store(newTrust(l))
	return r, nil
}

func newTrust(l *List) *trust {
	t := &trust{list: l, byKey: make(map[[sha256.Size]byte]*Member, len(l.Members))}
	for i := range l.Members {
		t.byKey[[sha256.Size]byte(l.Members[i].TLSPublic)] = &l.Members[i]
	}
	return t
}

// list returns the newest accepted list, nil if there is none.
func (r *roster) list() *List { return r.current.Load().list }

// member returns the member with that certificate key.
func (r *roster) member(spki [sha256.Size]byte) (Member, bool) {
	m, ok := r.current.Load().byKey[spki]
	if !ok {
		return Member{}, false
	}
	return *m, true
}

// watch registers f to be called after each change, with the list lock held: f must not adopt.
func (r *roster) watch(f func(*trust)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onChange = append(r.onChange, f)
}

// adopt accepts a list that DecodeList has verified, pins it, and tells the watchers. A list of another cluster or
// another key, or without a signature after one with, is an error; so is an older one. The same number again is nothing.
func (r *roster) adopt(l *List) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.list()
	if old != nil {
		switch {
		case l.ClusterID != old.ClusterID:
			return errors.New("list of members is of another cluster")
		case old.Signed() && !bytes.Equal(l.ClusterKey, old.ClusterKey):
			return errors.New("list of members isn't signed by the pinned cluster key")
		case l.Number < old.Number:
			return errStaleList
		case l.Number == old.Number:
			return nil
		}
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := writeFile(r.path, b); err != nil {
		return fmt.Errorf("pin list of members: %w", err)
	}
	t := newTrust(l)
	r.current.Store(t)
	for _, f := range r.onChange {
		f(t)
	}
	return nil
}
