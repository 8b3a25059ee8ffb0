package fsm

import (
	"errors"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// View is the state as of one applied index. It is shared by all who ask at that index; each calls Release once.
type View struct {
	epoch    *epoch
	snapshot *pebble.Snapshot
	at       position
	refs     atomic.Int64
	closed   func() // counts
}

// View returns the state as of Applied. It costs one Pebble snapshot for each applied batch that somebody looks at. It must
// not be called after Close.
func (f *FSM) View() *View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.viewLocked()
}

func (f *FSM) viewLocked() *View {
	if f.view == nil {
		f.epoch.refs.Add(1)
		f.view = &View{epoch: f.epoch, snapshot: f.epoch.db.NewSnapshot(), at: f.shown}
		f.view.refs.Store(1) // the FSM's own
		f.stats.views.Add(1)
		f.stats.openViews.Add(1)
		f.view.closed = func() { f.stats.openViews.Add(-1) }
	}
	f.view.refs.Add(1)
	return f.view
}

// Index is the applied index that the view shows.
func (v *View) Index() uint64 { return v.at.applied }

// Time is the stamp of the last entry up to Index, in Unix nanoseconds.
func (v *View) Time() int64 { return v.at.time }

// Epoch is a number that changes when a Restore replaced the state.
func (v *View) Epoch() uint64 { return v.epoch.number }

// Stale reports that a Restore has replaced the state since: the view is still readable, but what was executed on it
// must be taken for a Conflict.
func (v *View) Stale() bool { return v.epoch.stale.Load() }

// Get returns what is stored under key. Absence is a nil value, and version 0, of a cell NoCell; what is there has a
// value that isn't nil, though for a cell or stamp it is empty. The caller may keep the value, but not change it: it is
// shared by all who read it.
func (v *View) Get(key Key) (version uint64, value []byte, err error) {
	if len(key) == 0 {
		return 0, nil, errMalformed
	}
	version, value, known := v.epoch.hot.Get(string(key), v.at.applied)
	if known {
		return version, value, nil
	}
	if version, value, err = v.stored(key); err == nil {
		v.epoch.hot.Offer(string(key), version, value, v.at.applied)
	}
	return version, value, err
}

// stored is Get from Pebble. The value is a copy.
func (v *View) stored(key Key) (version uint64, value []byte, err error) {
	item, closer, err := v.snapshot.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return absent(key[0]), nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	version, stored := splitItem(item)
	value = append(make([]byte, 0, len(stored)), stored...)
	return version, value, closer.Close()
}

// Children visits what is stored directly under a directory, 'r' ‖ space ‖ directory, in key order, until visit returns
// false. Values are valid until visit returns.
func (v *View) Children(directory Key, visit func(key Key, version uint64, value []byte) (more bool)) error {
	return v.Scan(directory, directory, visit)
}

// Scan visits the keys that begin with prefix, from the key from on, in order, until visit returns false. Values are
// valid until visit returns.
func (v *View) Scan(prefix, from Key, visit func(key Key, version uint64, value []byte) (more bool)) error {
	if len(prefix) == 0 || prefix[0] == classMeta {
		return errMalformed
	}
	return v.scan([]byte(max(prefix, from)), prefixEnd([]byte(prefix)), func(key, item []byte) bool {
		version, value := splitItem(item)
		return visit(Key(key), version, value)
	})
}

// scan visits stored items from the key from on, before the key to.
func (v *View) scan(from, to []byte, visit func(key, item []byte) bool) error {
	it, err := v.snapshot.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		item, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !visit(it.Key(), item) {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// Release gives the view back. Nothing of it may be used afterwards.
func (v *View) Release() {
	if v.refs.Add(-1) > 0 {
		return
	}
	err := errors.Join(v.snapshot.Close(), v.epoch.release())
	if err != nil {
		v.epoch.options.Logger.Error("close a view of the state", "error", err)
	}
	v.closed()
}
