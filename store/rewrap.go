package store

import (
	"errors"

	"conclave/fsm"
)

// rewrapBytes bounds what one transaction of the re-encryption writes.
const rewrapBytes = 256 << 10

// Rewrap re-encrypts, with the active key, records of the space that are sealed with an older one: at most limit of
// them, in the order of their keys from the key from on. It returns where to go on, "" at the end.
func (v *View) Rewrap(from fsm.Key, limit int) (next fsm.Key, rewritten int, err error) {
	type old struct {
		key     fsm.Key
		version uint64
		item    []byte
	}
	var found []old
	var bad error
	prefix := spacePrefix(v.space.id)
	size := 0
	err = v.tx.view.Scan(prefix, from, func(key fsm.Key, version uint64, item []byte) bool {
		if len(found) == limit || size > rewrapBytes {
			next = key
			return false
		}
		var current bool
		if current, bad = v.current(item); bad != nil {
			return false
		}
		if !current {
			found = append(found, old{key, version, append([]byte(nil), item...)})
			size += len(item)
		}
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return "", 0, v.tx.fail(err)
	}
	for _, o := range found {
		v.tx.note(o.key, o.version)
		if err := v.rewrap(o.key, o.version, o.item); err != nil {
			return "", 0, v.tx.fail(err)
		}
	}
	return next, len(found), nil
}

// current reports whether all of an item is sealed with the active key.
func (v *View) current(item []byte) (bool, error) {
	name, value, err := unpackRecord(item)
	if err != nil {
		return false, err
	}
	for _, box := range [][]byte{name, value} {
		if len(box) == 0 {
			continue
		}
		term, err := v.space.cipher.Term(box)
		if err != nil || term != v.space.cipher.ActiveTerm() {
			return false, err
		}
	}
	return true, nil
}

func (v *View) rewrap(key fsm.Key, version uint64, item []byte) error {
	sealedName, sealedValue, err := unpackRecord(item)
	if err != nil {
		return err
	}
	name, err := v.space.cipher.OpenName([]byte(key), sealedName)
	if err != nil {
		return err
	}
	next := v.tx.NextVersion()
	var value []byte
	if len(sealedValue) > 0 {
		clear, err := v.space.cipher.OpenValue(nil, []byte(key), name, version, sealedValue)
		if err != nil {
			return err
		}
		value = v.space.cipher.SealValue(nil, []byte(key), name, next, clear)
	}
	return v.tx.write(fsm.Write{Op: fsm.Replace, Key: key, Version: next,
		Value: packRecord(v.space.cipher.SealName(nil, []byte(key), name), value)})
}

func spacePrefix(space uint64) fsm.Key {
	return dirPrefix(fsm.ClassRecord, space, [16]byte{})[:9]
}
