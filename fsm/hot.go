package fsm

import (
	"sync"
	"sync/atomic"
)

// hot holds items that are read again and again, such as the keyring, the mounts and a token's record, so that reading
// them costs a look-up in a map. It belongs to one epoch.
//
// It is exact. An entry is what is stored under its key at every index from since to the newest that readers see. It gets
// in only from a View of that newest index while nothing is being applied, and Apply takes it out before it changes the
// key. So a View whose index is at least since may use it; one that is older asks Pebble.
//
// A key gets in when it was missed twice with nothing else in its place of seen between, so that reading a million
// different keys once puts none in.
type hot struct {
	limit        int // bytes
	hits, misses atomic.Uint64

	mu    sync.RWMutex // guards what follows; never held over I/O
	items map[Key]hotItem
	bytes int    // estimate
	index uint64 // that readers see; 0 while something is being applied
	seen  [hotPlaces]uint32
}

// hotItem is an item, or its absence. Its value is shared: nobody may change it.
type hotItem struct {
	version uint64
	value   []byte
	since   uint64
}

const (
	hotPlaces = 4096
	hotValue  = 64 << 10 // bytes of the largest value that is kept
	hotCost   = 128      // estimate of what an entry takes beyond its bytes
)

func newHot(limit int, applied uint64) *hot {
	return &hot{limit: limit, items: make(map[Key]hotItem), index: applied}
}

// get returns the item as of a View's index, if it is known.
func (h *hot) get(key Key, index uint64) (hotItem, bool) {
	h.mu.RLock()
	item, ok := h.items[key]
	h.mu.RUnlock()
	if ok && item.since <= index {
		h.hits.Add(1)
		return item, true
	}
	h.misses.Add(1)
	return hotItem{}, false
}

// offer gives what a View of index has read. The value isn't changed by anybody afterwards.
func (h *hot) offer(key Key, version uint64, value []byte, index uint64) {
	if len(value) > hotValue {
		return
	}
	sum := hashOf(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.index != index || index == 0 {
		return
	}
	if place := &h.seen[sum%hotPlaces]; *place != sum {
		*place = sum
		return
	}
	if _, known := h.items[key]; known {
		return
	}
	h.items[key] = hotItem{version, value, index}
	h.bytes += hotCost + len(key) + len(value)
	for k := range h.items { // in no order: what is hot soon comes back
		if h.bytes <= h.limit {
			break
		}
		h.removeLocked(k)
	}
}

func (h *hot) removeLocked(key Key) {
	if item, ok := h.items[key]; ok {
		h.bytes -= hotCost + len(key) + len(item.value)
		delete(h.items, key)
	}
}

// begin is called before anything is changed, and end when all of it is about to be seen by readers.
func (h *hot) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index = 0
}

func (h *hot) end(index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index = index
}

// drop forgets a key that is about to change.
func (h *hot) drop(key []byte) {
	h.mu.RLock()
	_, ok := h.items[Key(key)]
	h.mu.RUnlock()
	if !ok {
		return // and nothing gets in before end
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(Key(key))
}

// dropSpace forgets all keys of a space.
func (h *hot) dropSpace(space uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.items {
		if key[0] != ClassPlain && len(key) > 8 && spaceOf(key) == space {
			h.removeLocked(key)
		}
	}
}

// size is the estimated bytes that are held.
func (h *hot) size() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.bytes
}

// hashOf is FNV-1a, for which any hash would do.
func hashOf(key Key) uint32 {
	sum := uint32(2166136261)
	for i := range len(key) {
		sum = (sum ^ uint32(key[i])) * 16777619
	}
	return sum
}
