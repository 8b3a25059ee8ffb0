package hot

import (
	"fmt"
	"testing"
)

// twice offers an item as somebody does who misses it twice.
func twice(h *Items, key string, version, index uint64) {
	for range 2 {
		h.Offer(key, version, []byte("value"), index)
	}
}

func TestWhatIsReadTwiceIsKnownToReadersOfThatIndexAndLaterOnes(t *testing.T) {
	h := New(1<<10, 5)
	h.Offer("a", 3, []byte("value"), 5)
	if _, _, known := h.Get("a", 5); known {
		t.Error("a is known after one read, want two")
	}
	h.Offer("a", 3, []byte("value"), 5)
	for index, want := range map[uint64]bool{4: false, 5: true, 9: true} {
		if version, value, known := h.Get("a", index); known != want || known && (version != 3 || string(value) != "value") {
			t.Errorf("Get(a) at %d = %d, %q, %v, want known %v", index, version, value, known, want)
		}
	}
}

func TestNothingStaleGetsIn(t *testing.T) {
	h := New(1<<10, 5)
	twice(h, "older", 1, 4)
	h.Begin()
	twice(h, "beside a change", 1, 5)
	h.End(6)
	twice(h, "of before", 1, 5)
	twice(h, "kept", 1, 6)
	h.Begin()
	h.Drop([]byte("kept"))
	h.End(7)
	for _, key := range []string{"older", "beside a change", "of before", "kept"} {
		if _, _, known := h.Get(key, 7); known {
			t.Errorf("%s is known", key)
		}
	}
	twice(h, "kept", 2, 7)
	if version, _, known := h.Get("kept", 7); !known || version != 2 {
		t.Errorf("Get(kept) = %d, %v, want 2", version, known)
	}
	h.DropAll(func(key string) bool { return key == "kept" })
	if _, _, known := h.Get("kept", 7); known || h.Size() != 0 {
		t.Errorf("after DropAll kept is known: %v, with %d bytes", known, h.Size())
	}
}

func TestItemsAreBounded(t *testing.T) {
	const limit = 10 * (cost + 16)
	h := New(limit, 1)
	for i := range 1000 {
		twice(h, fmt.Sprint("key ", i), 1, 1)
		if h.Size() > limit {
			t.Fatalf("%d bytes are held, want at most %d", h.Size(), limit)
		}
	}
	if h.Size() == 0 {
		t.Error("nothing is held")
	}
}
