package fsm

import (
	"crypto/sha256"
	"encoding/binary"
)

// stateClasses are the classes that a state hash covers, in order.
var stateClasses = [...]byte{ClassCell, ClassPlain, ClassRecord, ClassStamp}

// StateHash returns the applied index and the hash of all replicated items as of it. It reads everything: about a
// second for each gigabyte.
func (f *FSM) StateHash() (index uint64, hash [32]byte, err error) {
	v := f.View()
	defer v.Release()
	h := sha256.New()
	for _, class := range stateClasses {
		part, err := v.Hash(Key(class), Key(class+1))
		if err != nil {
			return 0, hash, err
		}
		h.Write(part[:])
	}
	return v.index, [32]byte(h.Sum(nil)), nil
}

// Hash returns the hash of the items from the key from on, before the key to, so that nodes at one index find the range
// in which they differ: SHA-256 over key length (2) ‖ key ‖ item length (4) ‖ item, for each in order.
func (v *View) Hash(from, to Key) (hash [32]byte, err error) {
	h := sha256.New()
	var head []byte
	err = v.scan([]byte(from), []byte(to), func(key, item []byte) bool {
		if key[0] == classMeta {
			return true
		}
		head = append(binary.BigEndian.AppendUint16(head[:0], uint16(len(key))), key...)
		h.Write(binary.BigEndian.AppendUint32(head, uint32(len(item))))
		h.Write(item)
		return true
	})
	return [32]byte(h.Sum(nil)), err
}
