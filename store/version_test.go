package store

import (
	"cmp"
	"errors"
	"slices"
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

// Transactions that remove different children of one directory don't wait for each other, unless one removes the child
// that the other has for a witness that the directory isn't empty.
func TestRemovalsFromOneDirectorySeldomConflict(t *testing.T) {
	w := newWorld(t)
	names := []string{"d/a", "d/b", "d/c", "d/d", "d/e", "d/f"}
	w.update(t, func(v *View) {
		for _, name := range names {
			put(t, v, name, "x")
		}
	})
	slices.SortFunc(names, func(a, b string) int {
		tx := w.begin(t)
		defer tx.Close()
		at, err := tx.System().locateLeaf(a)
		if err != nil {
			t.Fatal(err)
		}
		other, err := tx.System().locateLeaf(b)
		if err != nil {
			t.Fatal(err)
		}
		return cmp.Compare(at.key, other.key)
	})
	begun := map[string]*Tx{}
	for _, name := range []string{names[0], names[2], names[4]} { // the next ones stay
		begun[name] = w.begin(t)
		if err := begun[name].System().Delete(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, tx := range begun {
		if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	both := []*Tx{w.begin(t), w.begin(t)}
	for i, name := range []string{names[1], names[3]} { // the second is the first one's witness
		if err := both[i].System().Delete(name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := both[1].Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	if _, err := both[0].Commit(t.Context(), fsm.AuditRecord{}); !conflicts(err) {
		t.Errorf("removed although the witness is gone: %v", err)
	}
}
