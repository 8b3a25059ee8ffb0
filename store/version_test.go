package store

import (
	"errors"
	"testing"

	"conclave/fsm"
)

// A version is never used twice, also over delete and recreate: two transactions that begin on one snapshot don't both
// make the same key, however long one of them takes.
func TestVersionIsNotUsedTwiceOverDelete(t *testing.T) {
	w := newWorld(t)
	decode := func(value []byte) (any, error) { return string(value), nil }
	w.update(t, func(v *View) { put(t, v, "d/stays", "x") })
	slow, quick := w.begin(t), w.begin(t)
	put(t, slow.System(), "d/k", "two")
	put(t, quick.System(), "d/k", "one")
	if _, err := quick.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	seen := w.begin(t)
	if value, err := seen.System().Load("d/k", decode); value != "one" || err != nil {
		t.Fatalf("d/k is %v, %v", value, err)
	}
	w.update(t, func(v *View) {
		if err := v.Delete("d/k"); err != nil {
			t.Fatal(err)
		}
	})
	_, err := slow.Commit(t.Context(), fsm.AuditRecord{})
	if conflict, ok := errors.AsType[*ErrConflict](err); !ok {
		t.Errorf("a transaction that made a key before it was made and deleted is %v, want a conflict", err)
	} else if conflict.Index == 0 {
		t.Error("the conflict has no index")
	}
	if err == nil {
		after := w.begin(t)
		stored, err := after.System().Get("d/k")
		loaded, loadErr := after.System().Load("d/k", decode)
		t.Errorf("d/k is %q, %v, but %v, %v as decoded", stored, err, loaded, loadErr)
		// What was read of the first is taken for unchanged.
		put(t, seen.System(), "copy", "of one")
		if _, err := seen.Commit(t.Context(), fsm.AuditRecord{}); err == nil {
			t.Error("a transaction that has read what was deleted since is committed")
		}
	}
	// Creating beside it conflicts with nothing.
	a, b := w.begin(t), w.begin(t)
	put(t, a.System(), "d/a", "a")
	put(t, b.System(), "d/b", "b")
	for _, tx := range []*Tx{a, b} {
		if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
			t.Errorf("create: %v", err)
		}
	}
}
