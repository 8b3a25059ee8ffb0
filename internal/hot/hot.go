// Package hot keeps what is read again and again from a versioned store in memory, exactly: what a reader of one index
// gets is what is stored at that index.
//
// It is told of every change before it happens, and reads nothing by itself.
package hot

import (
	"sync"
	"sync/atomic"
)

// Items holds items that are read again and again, so that reading them costs a look-up in a map.
//
// An entry is what is stored under its key at every index from since to the newest that readers see. It gets in only from
// a reader of that newest index while nothing is being changed, and the writer takes it out before it changes the key. So
// a reader whose index is at least since may use it; one that is older asks the store.
//
// A key gets in when it was missed twice with nothing else in its place of seen between, so that reading a million
// different keys once puts none in.
type Items struct {
	limit int // bytes
	hits  atomic.Uint64

	mu    sync.RWMutex // guards what follows; never held over I/O
	items map[string]item
	bytes int    // estimate
	index uint64 // that readers see; 0 while something is being changed
	seen  [places]uint32
}

// item is an item, or its absence. Its value is shared: nobody may change it.
type item struct {
	version uint64
	value   []byte
	since   uint64
}

const (
	places   = 4096
	maxValue = 64 << 10 // bytes of the largest value that is kept
	cost     = 128      // estimate of what an entry takes beyond its bytes
)

// New returns an empty Items of at most limit bytes for a store that readers see at index.
func New(limit int, index uint64) *Items {
	return &Items{limit: limit, items: make(map[string]item), index: index}
}

// Get returns the item as of a reader's index, if it is known. Its value must not be changed.
func (h *Items) Get(key string, index uint64) (version uint64, value []byte, known bool) {
	h.mu.RLock()
	i, ok := h.items[key]
	h.mu.RUnlock()
	if !ok || i.since > index {
		return 0, nil, false
	}
	h.hits.Add(1)
	return i.version, i.value, true
}

// Offer gives what a reader of index has read. The value isn't changed by anybody afterwards.
func (h *Items) Offer(key string, version uint64, value []byte, index uint64) {
	if len(value) > maxValue {
		return
	}
	sum := hashOf(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.index != index || index == 0 {
		return
	}
	if place := &h.seen[sum%places]; *place != sum {
		*place = sum
		return
	}
	if _, known := h.items[key]; known {
		return
	}
	h.items[key] = item{version, value, index}
	h.bytes += cost + len(key) + len(value)
	for k := range h.items { // in no order: what is hot soon comes back
		if h.bytes <= h.limit {
			break
		}
		h.removeLocked(k)
	}
}

func (h *Items) removeLocked(key string) {
	if i, ok := h.items[key]; ok {
		h.bytes -= cost + len(key) + len(i.value)
		delete(h.items, key)
	}
}

// Begin is called before anything is changed, and End when all of it is about to be seen by readers.
func (h *Items) Begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index = 0
}

func (h *Items) End(index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index = index
}

// Drop forgets a key that is about to change.
func (h *Items) Drop(key []byte) {
	h.mu.RLock()
	_, ok := h.items[string(key)]
	h.mu.RUnlock()
	if !ok {
		return // and nothing gets in before End
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removeLocked(string(key))
}

// DropAll forgets all keys that are about to change, as change says.
func (h *Items) DropAll(change func(key string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.items {
		if change(key) {
			h.removeLocked(key)
		}
	}
}

// Hits is how often an item was known.
func (h *Items) Hits() uint64 { return h.hits.Load() }

// Size is the estimated bytes that are held.
func (h *Items) Size() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.bytes
}

// hashOf is FNV-1a, for which any hash would do.
func hashOf(key string) uint32 {
	sum := uint32(2166136261)
	for i := range len(key) {
		sum = (sum ^ uint32(key[i])) * 16777619
	}
	return sum
}
