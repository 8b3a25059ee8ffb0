package crypto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
)

// MaxTerms bounds the data keys that a space has at once. Re-encryption has to drop old ones before there can be more.
const MaxTerms = 64

// Errors of rotation.
var (
	ErrTooManyTerms = errors.New("crypto: too many key terms in use: re-encrypt and drop old ones first")
	ErrTermInUse    = errors.New("crypto: the active term cannot be dropped")
	ErrNoTerm       = errors.New("crypto: no such term")
)

// SpaceKeys are the keys of one space: of one storage area, the system space of a namespace or one mount. They are mutable and not safe
// for concurrent use; OpenSpace copies what it needs.
type SpaceKeys struct {
	redacted
	Name   NameKey        // makes tokens; never changes, since keys of state depend on it
	Active uint32         // the term that seals: the highest
	Data   map[uint32]Key // term, from 1 → data key
}

const formatSpaceKeys = 1

// NewSpaceKeys makes the keys of a new space, at term 1.
func NewSpaceKeys(random io.Reader) (*SpaceKeys, error) {
	name, err := NewKey(random)
	if err != nil {
		return nil, err
	}
	data, err := NewKey(random)
	if err != nil {
		return nil, err
	}
	return &SpaceKeys{Name: NameKey(name), Active: 1, Data: map[uint32]Key{1: data}}, nil
}

// Rotate adds the key of term Active+1 and makes it the active one. On an error nothing has changed.
func (k *SpaceKeys) Rotate(random io.Reader) error {
	if len(k.Data) >= MaxTerms || k.Active == math.MaxUint32 {
		return ErrTooManyTerms
	}
	key, err := NewKey(random)
	if err != nil {
		return err
	}
	k.Active++
	k.Data[k.Active] = key
	return nil
}

// Drop destroys the key of a term. Every box of that term is lost with it.
func (k *SpaceKeys) Drop(term uint32) error { return dropKey(k.Data, term, k.Active) }

// Clone is a deep copy.
func (k *SpaceKeys) Clone() *SpaceKeys {
	c := *k
	c.Data = maps.Clone(k.Data)
	return &c
}

// Wipe overwrites the keys and leaves an empty record behind.
func (k *SpaceKeys) Wipe() {
	Wipe(k.Name[:])
	wipeKeys(k.Data)
	k.Active = 0
}

// MarshalBinary returns the one encoding of k, or ErrFormat if k breaks its own rules.
//
//	format 1 (1 byte) ‖ name key (32) ‖ active (4) ‖ count (2) ‖ count × { term (4) ‖ data key (32) }
//
// Integers are big-endian, terms ascend strictly from 1 or more, active is the last of them, 1 ≤ count ≤ 64.
func (k *SpaceKeys) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, 39+len(k.Data)*(4+KeySize))
	b = append(b, formatSpaceKeys)
	b = append(b, k.Name[:]...)
	b = binary.BigEndian.AppendUint32(b, k.Active)
	return appendKeys(b, k.Data, MaxTerms, k.Active)
}

// UnmarshalBinary is the inverse of MarshalBinary. Anything else is ErrFormat, and leaves k as it was.
func (k *SpaceKeys) UnmarshalBinary(b []byte) error {
	r := reader{rest: b}
	format := r.uint8()
	name := NameKey(r.key())
	active := r.uint32()
	data := r.keys(int(r.uint16()), MaxTerms, active)
	if !r.ok() || format != formatSpaceKeys {
		return ErrFormat
	}
	*k = SpaceKeys{Name: name, Active: active, Data: data}
	return nil
}

// appendKeys appends count and keys in ascending order, as reader.keys reads them.
func appendKeys(b []byte, keys map[uint32]Key, limit int, active uint32) ([]byte, error) {
	numbers := slices.Sorted(maps.Keys(keys))
	if len(numbers) < 1 || len(numbers) > limit || numbers[0] == 0 || numbers[len(numbers)-1] != active {
		return nil, ErrFormat
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(numbers)))
	for _, n := range numbers {
		key := keys[n]
		b = binary.BigEndian.AppendUint32(b, n)
		b = append(b, key[:]...)
	}
	return b, nil
}

func dropKey(keys map[uint32]Key, number, active uint32) error {
	if number == active {
		return fmt.Errorf("drop %d: %w", number, ErrTermInUse)
	}
	if _, ok := keys[number]; !ok {
		return fmt.Errorf("drop %d: %w", number, ErrNoTerm)
	}
	keys[number] = Key{}
	delete(keys, number)
	return nil
}

func wipeKeys(keys map[uint32]Key) {
	for n := range keys {
		keys[n] = Key{}
	}
	clear(keys)
}
