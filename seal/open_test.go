package seal

import (
	"testing"

	"conclave"
)

// A node whose first opening can't be noted stays sealed: what it acknowledged could be wiped by anybody who repeats the
// initialisation, which needs no token.
func TestFirstOpeningIsNotedFirst(t *testing.T) {
	v, node := newVault(t)
	share := initVault(t, v, 1, 1)[0]
	node.answer(conclave.Errorf(conclave.Unavailable, "no quorum"))
	if _, err := v.Submit(t.Context(), share); err == nil {
		t.Error("the share was taken without a quorum that knows that the vault is open")
	}
	if !v.Sealed() || !v.Store.Locked() {
		t.Error("the node serves, and initialisation may be repeated")
	}
	node.answer(nil)
	if _, err := v.Submit(t.Context(), share); err != nil || v.Sealed() {
		t.Fatalf("sealed %t, %v", v.Sealed(), err)
	}
	if _, err := v.Init(t.Context(), InitRequest{Shares: 1, Threshold: 1}); !conclave.Is(err, conclave.Invalid) {
		t.Fatalf("an open vault was initialised again: %v", err)
	}
}

// Without a quorum a vault that was opened before opens all the same.
func TestLaterOpeningsNeedNoQuorum(t *testing.T) {
	v, node := newVault(t)
	share := initVault(t, v, 1, 1)[0]
	if _, err := v.Submit(t.Context(), share); err != nil {
		t.Fatal(err)
	}
	v.SealNode(t.Context())
	node.answer(conclave.Errorf(conclave.Unavailable, "no quorum"))
	if _, err := v.Submit(t.Context(), share); err != nil || v.Sealed() {
		t.Fatalf("sealed %t, %v", v.Sealed(), err)
	}
}

// Shares of an initialisation that was repeated don't stand in the way of those of the new one.
func TestSharesOfAnEarlierInitialisation(t *testing.T) {
	v, _ := newVault(t)
	first := initVault(t, v, 3, 2)
	if _, err := v.Submit(t.Context(), first[0]); err != nil {
		t.Fatal(err)
	}
	second := initVault(t, v, 3, 2)
	if _, err := v.Submit(t.Context(), first[1]); err == nil {
		t.Error("a share of the earlier initialisation was taken")
	}
	for i, share := range second[:2] {
		status, err := v.Submit(t.Context(), share)
		if err != nil {
			t.Fatalf("share %d: %v", i+1, err)
		}
		if i == 0 && (status.Progress != 1 || !status.Sealed) {
			t.Errorf("after one share: %+v", status)
		}
	}
	if v.Sealed() {
		t.Error("two good shares don't open the vault")
	}
}

// Anybody may ask for a reset, which is recorded: not more than one a second, or the audit log could be filled.
func TestResetsAreBounded(t *testing.T) {
	v, node := openedVault(t)
	before := node.records
	done := 0
	for range 50 {
		if _, err := v.Reset(t.Context()); err == nil {
			done++
		} else if !conclave.Is(err, conclave.Limited) {
			t.Fatal(err)
		}
	}
	node.mu.Lock()
	recorded := node.records - before
	node.now = node.now.Add(resetPause)
	node.mu.Unlock()
	if done != 1 || recorded != 1 {
		t.Errorf("%d of 50 resets were done and %d recorded, want 1 and 1", done, recorded)
	}
	if _, err := v.Reset(t.Context()); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

// A node that was told to seal itself while it was opening is sealed: the seal was acknowledged.
func TestSealDuringOpening(t *testing.T) {
	v, node := newVault(t)
	share := initVault(t, v, 1, 1)[0]
	node.before = func() {
		node.before = nil
		v.SealNode(t.Context())
	}
	_, err := v.Submit(t.Context(), share)
	if err == nil || !v.Sealed() || !v.Store.Locked() {
		t.Errorf("sealed %t, store locked %t, %v; want sealed, and an error", v.Sealed(), v.Store.Locked(), err)
	}
	if _, err := v.Submit(t.Context(), share); err != nil || v.Sealed() {
		t.Errorf("opened anew: sealed %t, %v", v.Sealed(), err)
	}
}
