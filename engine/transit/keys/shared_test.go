package keys

import (
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestManyUseAKeyAtOnce is about what is parsed when it is first used; run it with the race detector.
func TestManyUseAKeyAtOnce(t *testing.T) {
	k := newKey(t, Key{Type: P256})
	scheme, err := NewScheme("", "", "", false, SaltAuto)
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for range 16 {
		group.Go(func() error {
			signature, err := k.Sign(0, scheme, nil, []byte("input"))
			if err != nil {
				return err
			}
			if valid, err := k.Verify(signature.Text, scheme, nil, []byte("input")); err != nil || !valid {
				t.Errorf("verifies %v, %v", valid, err)
			}
			clone := k.Clone()
			clone.Add(&Version{Created: then, Secret: clone.Versions[0].Secret, HMAC: make([]byte, 32)})
			if clone.Latest() != 2 || k.Latest() != 1 {
				t.Errorf("the clone has %d versions, the key %d", clone.Latest(), k.Latest())
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}
