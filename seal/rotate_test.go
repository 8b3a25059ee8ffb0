package seal

import (
	"testing"

	"conclave/mount"
	"conclave/store"
)

// A rotation that comes while an earlier one is being worked off: what was sealed anew by then has the key in between,
// which must not be taken for an old one that nothing needs.
func TestRotationDuringReencryption(t *testing.T) {
	v, _ := openedVault(t)
	update(t, v, func(tx *store.Tx) error { return tx.System().Put("a/b", []byte("kept")) })
	rotateOnce(t, v)
	old, err := v.oldSpaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range old {
		if err := v.reencryptSpace(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	rotateOnce(t, v)
	for _, s := range old {
		if err := v.dropOld(t.Context(), s); err == nil {
			t.Errorf("keys of space %d were dropped while records are sealed with them", s.space.ID)
		}
	}
	readable := func() {
		t.Helper()
		tx, err := v.Store.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Close()
		if value, err := tx.System().Get("a/b"); err != nil || string(value) != "kept" {
			t.Fatalf("a/b is %q, %v", value, err)
		}
		if _, err := mount.Spaces(tx.System()); err != nil {
			t.Fatal(err)
		}
	}
	readable()
	for range 3 {
		if _, err := v.reencryptAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := v.OldSpaces(); n != 0 || err != nil {
		t.Fatalf("%d spaces have old keys, %v", n, err)
	}
	readable()
}
