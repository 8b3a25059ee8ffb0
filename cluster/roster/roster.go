package roster

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

	"conclave/cluster/disk"
)

// Roster is what a node believes about who belongs to the cluster: the newest list that it has accepted, pinned on disk
// with the cluster key.
type Roster struct {
	path    string
	current atomic.Pointer[Trust]

	mu       sync.Mutex // serialises adopt
	onChange []func(*Trust)
}

// Trust is one accepted list, with its index by key. It never changes.
type Trust struct {
	List  *List // nil before there is one
	byKey map[[sha256.Size]byte]*Member
}

// Has reports whether a certificate key is a member's.
func (t *Trust) Has(spki [sha256.Size]byte) bool { return t.byKey[spki] != nil }

// ErrStale is what a list that is older than the pinned one gives.
var ErrStale = errors.New("list of members is older than the one pinned here")

// Open reads what is pinned in dir.
func Open(dir string) (*Roster, error) {
	r := &Roster{path: filepath.Join(dir, "members.json")}
	r.current.Store(&Trust{})
	b, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove this data directory and join again as a new node", r.path, err)
	}
	r.current.Store(newTrust(l))
	return r, nil
}

func newTrust(l *List) *Trust {
	t := &Trust{List: l, byKey: make(map[[sha256.Size]byte]*Member, len(l.Members))}
	for i := range l.Members {
		t.byKey[[sha256.Size]byte(l.Members[i].TLSPublic)] = &l.Members[i]
	}
	return t
}

// List returns the newest accepted list, nil if there is none.
func (r *Roster) List() *List { return r.current.Load().List }

// Member returns the member with that certificate key.
func (r *Roster) Member(spki [sha256.Size]byte) (Member, bool) {
	m, ok := r.current.Load().byKey[spki]
	if !ok {
		return Member{}, false
	}
	return *m, true
}

// Watch registers f to be called after each change, with the list lock held: f must not call Adopt.
func (r *Roster) Watch(f func(*Trust)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onChange = append(r.onChange, f)
}

// Adopt accepts a list that Decode has verified, pins it, and tells the watchers. A list of another cluster or
// another key, or without a signature after one with, is an error; so is an older one. The same number again is nothing.
func (r *Roster) Adopt(l *List) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.List()
	if old != nil {
		switch {
		case l.ClusterID != old.ClusterID:
			return errors.New("list of members is of another cluster")
		case old.Signed() && !bytes.Equal(l.ClusterKey, old.ClusterKey):
			return errors.New("list of members isn't signed by the pinned cluster key")
		case l.Number < old.Number:
			return ErrStale
		case l.Number == old.Number:
			return nil
		}
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := disk.WriteFile(r.path, b); err != nil {
		return fmt.Errorf("pin list of members: %w", err)
	}
	t := newTrust(l)
	r.current.Store(t)
	for _, f := range r.onChange {
		f(t)
	}
	return nil
}
