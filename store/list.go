package store

import (
	"errors"
	"slices"
	"strings"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
)

// listingKey names a decrypted listing by the stamp of its directory.
type listingKey struct {
	space uint64
	dir   crypto.Token
	stamp uint64
}

// List returns the names directly under dir, in order.
func (v *View) List(dir, after string, limit int) ([]string, error) {
	if dir != "" && !strings.HasSuffix(dir, "/") {
		return nil, v.tx.fail(conclave.Errorf(conclave.Invalid, "a directory ends in a slash"))
	}
	p, err := v.locate(dir)
	if err != nil {
		return nil, err
	}
	names, err := v.names(p.self)
	if err != nil {
		return nil, err
	}
	names = v.overlay(p.self, names)
	if after != "" {
		at, found := slices.BinarySearch(names, after)
		if found {
			at++
		}
		names = names[at:]
	}
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return slices.Clone(names), nil
}

// names returns what the snapshot has under a directory, in order. The result is shared.
func (v *View) names(dir crypto.Token) ([]string, error) {
	stamp, _, err := v.tx.get(dirPrefix(fsm.ClassStamp, v.space.id, dir))
	if err != nil || stamp == 0 {
		return nil, err
	}
	key := listingKey{v.space.id, dir, stamp}
	if names, ok := v.tx.store.listings.get(key); ok {
		return names, nil
	}
	var names []string
	var bad error
	err = v.tx.view.Children(dirPrefix(fsm.ClassRecord, v.space.id, dir), func(key fsm.Key, _ uint64, item []byte) bool {
		var name string
		if name, bad = v.openName(key, dir, item); bad != nil {
			return false
		}
		names = append(names, name)
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, v.tx.fail(err)
	}
	slices.Sort(names)
	if len(names) <= maxCachedListing {
		v.tx.store.listings.set(key, names)
	}
	return names, nil
}

// openName decrypts a child's name, which must be the one that its token was made from.
func (v *View) openName(key fsm.Key, dir crypto.Token, item []byte) (string, error) {
	sealed, _, err := unpackRecord(item)
	if err != nil {
		return "", err
	}
	name, err := v.space.cipher.OpenName([]byte(key), sealed)
	if err != nil {
		return "", err
	}
	if recordKey(fsm.ClassRecord, v.space.id, dir, v.space.cipher.Child(dir, name)) != key {
		return "", errDamaged
	}
	return name, nil
}

// overlay adds what this transaction has made under dir and takes away what it has removed.
func (v *View) overlay(dir crypto.Token, names []string) []string {
	copied := false
	for _, w := range v.tx.plain {
		if w.space.id != v.space.id || w.dir != dir {
			continue
		}
		at, found := slices.BinarySearch(names, w.name)
		if found != w.gone {
			continue
		}
		if !copied {
			names, copied = slices.Clone(names), true
		}
		if w.gone {
			names = slices.Delete(names, at, at+1)
		} else {
			names = slices.Insert(names, at, w.name)
		}
	}
	return names
}

// emptyDir reports whether nothing is left under dir once this transaction's writes are in. A child that is left is
// noted as the witness; when none is, the directory's stamp is. The witness is the next one after gone, which was removed:
// transactions that remove different children at once have different witnesses, and seldom conflict.
func (v *View) emptyDir(dir crypto.Token, gone fsm.Key) (bool, error) {
	for _, w := range v.tx.plain {
		if w.space.id == v.space.id && w.dir == dir && !w.gone {
			return false, nil
		}
	}
	empty, prefix := true, dirPrefix(fsm.ClassRecord, v.space.id, dir)
	testify := func(key fsm.Key, version uint64, _ []byte) bool {
		if w, ok := v.tx.plain[key]; ok && w.gone {
			return true
		}
		v.tx.note(key, version)
		empty = false
		return false
	}
	err := v.tx.view.Scan(prefix, gone, testify)
	if err == nil && empty {
		err = v.tx.view.Scan(prefix, prefix, testify) // again past gone, if anything is left at all
	}
	if err != nil {
		return false, v.tx.fail(err)
	}
	if empty {
		_, _, err = v.tx.get(dirPrefix(fsm.ClassStamp, v.space.id, dir))
	}
	return empty, err
}
