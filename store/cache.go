package store

import "sync"

// cache is a bounded map that forgets in generations: when the young generation is full it becomes the old one, and
// what is not asked for again goes with it. Look-ups are one lock and one or two map reads.
type cache[K comparable, V any] struct {
	mu    sync.Mutex // guards the maps
	young map[K]V
	old   map[K]V
	limit int // entries of one generation
}

func newCache[K comparable, V any](limit int) *cache[K, V] {
	return &cache[K, V]{young: map[K]V{}, limit: limit}
}

func (c *cache[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.young[key]; ok {
		return v, true
	}
	v, ok := c.old[key]
	if ok {
		c.put(key, v)
	}
	return v, ok
}

func (c *cache[K, V]) set(key K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(key, v)
}

// put needs mu.
func (c *cache[K, V]) put(key K, v V) {
	if len(c.young) >= c.limit {
		c.old, c.young = c.young, make(map[K]V, c.limit/4)
	}
	c.young[key] = v
}

func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old = map[K]V{}, nil
}
