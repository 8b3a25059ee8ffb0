package store

import (
	"errors"
	"strings"

	"conclave"
	"conclave/fsm"
)

// Some returns at most limit names directly under dir that come after the name after in the order of storage, which is
// that of no alphabet. It reads and decrypts those names and no others. An empty directory is noted by its stamp.
func (v *View) Some(dir, after string, limit int) ([]string, error) {
	if limit <= 0 || dir != "" && !strings.HasSuffix(dir, "/") {
		return nil, v.tx.fail(conclave.Errorf(conclave.Internal, "a part of a directory has a limit, and a directory ends in a slash"))
	}
	p, err := v.locate(dir)
	if err != nil {
		return nil, err
	}
	prefix := dirPrefix(fsm.ClassRecord, v.space.id, p.self)
	last := prefix
	if after != "" {
		last = recordKey(fsm.ClassRecord, v.space.id, p.self, v.space.cipher.Child(p.self, after))
	}
	names, seen := []string(nil), map[fsm.Key]struct{}{}
	var bad error
	err = v.tx.view.Scan(prefix, last, func(key fsm.Key, version uint64, item []byte) bool {
		if key == last {
			return true
		}
		seen[key] = struct{}{}
		if w, written := v.tx.plain[key]; written && w.gone {
			return true
		}
		var name string
		if name, bad = v.openName(key, p.self, item); bad != nil {
			return false
		}
		v.tx.note(key, version)
		names = append(names, name)
		return len(names) < limit
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, v.tx.fail(err)
	}
	for key, w := range v.tx.plain { // what this transaction has made
		if _, there := seen[key]; !there && !w.gone && w.space.id == v.space.id && w.dir == p.self && key > last && len(names) < limit && v.tx.isNew(key) {
			names = append(names, w.name)
		}
	}
	if len(names) == 0 {
		_, _, err = v.tx.get(dirPrefix(fsm.ClassStamp, v.space.id, p.self))
	}
	return names, err
}

// isNew reports whether the snapshot has nothing under a key that this transaction writes.
func (tx *Tx) isNew(key fsm.Key) bool {
	version, _, err := tx.view.Get(key)
	return err == nil && version == 0
}
