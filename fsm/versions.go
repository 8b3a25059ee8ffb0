package fsm

import (
	"encoding/binary"
)

// versions knows the current version of what was lately read or changed, so that judging costs look-ups in maps.
//
// It is exact: what it holds is what the state holds once the pending Pebble batch is in. It holds at least everything
// that changed after index floor, so a key that it doesn't hold is as it was at any snapshot from floor on. Entries live
// in two generations; the older one is dropped when the younger is full. When that happens depends on what this node
// did since it started, so verdicts must not depend on it: for transactions that write, a key that isn't here is looked
// up in Pebble and compared, never taken for unchanged.
type versions struct {
	young, old           generation
	floor                uint64 // index at which old began
	youngFrom            uint64 // index at which young began
	limit                int    // entries of a generation
	lookups, found, gone uint64
}

type generation struct {
	items   map[Key]uint64      // key → its version, or absence
	dropped map[uint64]struct{} // spaces that were dropped: what isn't in items isn't there
}

const generationEntries = 32 << 10

func newGeneration() generation {
	return generation{items: make(map[Key]uint64), dropped: make(map[uint64]struct{})}
}

func newVersions(applied uint64) *versions {
	return &versions{young: newGeneration(), old: newGeneration(), floor: applied, youngFrom: applied, limit: generationEntries}
}

// absent is the version of what isn't there.
func absent(class byte) uint64 {
	if class == ClassCell {
		return NoCell
	}
	return 0
}

// get returns the current version of a key, if it is known without Pebble.
func (v *versions) get(key []byte) (version uint64, known bool) {
	v.lookups++
	version, known = v.young.items[Key(key)]
	if known {
		v.found++
		return version, true
	}
	if version, known = v.old.items[Key(key)]; known {
		v.found++
		v.young.items[Key(key)] = version
		return version, true
	}
	if key[0] != ClassPlain && v.isDropped(binary.BigEndian.Uint64(key[1:])) {
		return absent(key[0]), true
	}
	return 0, false
}

// getKey is get for a key that is a string already, and it remembers nothing.
func (v *versions) getKey(key Key) (version uint64, known bool) {
	v.lookups++
	if version, known = v.young.items[key]; !known {
		version, known = v.old.items[key]
	}
	if known {
		v.found++
		return version, true
	}
	if key[0] != ClassPlain && v.isDropped(spaceOf(key)) {
		return absent(key[0]), true
	}
	return 0, false
}

func (v *versions) isDropped(space uint64) bool {
	if len(v.young.dropped)+len(v.old.dropped) == 0 {
		return false
	}
	_, young := v.young.dropped[space]
	_, old := v.old.dropped[space]
	return young || old
}

// set notes the current version of a key.
func (v *versions) set(key []byte, version uint64) {
	if _, known := v.young.items[Key(key)]; known {
		v.young.items[Key(key)] = version // the key that is there is kept: no allocation
		return
	}
	v.young.items[Key(key)] = version
}

// drop notes that a space is empty.
func (v *versions) drop(space uint64) {
	for _, g := range []generation{v.young, v.old} {
		for key := range g.items {
			if key[0] != ClassPlain && spaceOf(key) == space {
				g.items[key] = absent(key[0])
			}
		}
	}
	v.young.dropped[space] = struct{}{}
}

// rotate drops the older generation if the younger is full. Everything up to applied must be in Pebble.
func (v *versions) rotate(applied uint64) {
	if len(v.young.items) < v.limit && len(v.young.dropped) < v.limit {
		return
	}
	v.gone += uint64(len(v.old.items))
	v.old, v.young = v.young, newGeneration()
	v.floor, v.youngFrom = v.youngFrom, applied
}

// spaceOf returns the space of a key of a class that has one.
func spaceOf(key Key) uint64 {
	var n uint64
	for i := 1; i <= 8; i++ {
		n = n<<8 | uint64(key[i])
	}
	return n
}
