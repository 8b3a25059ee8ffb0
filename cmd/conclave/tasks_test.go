package main

import (
	"testing"
	"time"

	"conclave"
	"conclave/lockout"
	"conclave/store"
)

// Wrong guesses that are forgotten by now leave nothing behind, in the namespace that they were made in.
func TestForgottenGuessesAreSwept(t *testing.T) {
	v := openVault(t)
	root := conclave.Namespace{ID: conclave.RootNamespace}
	account := lockout.Account{Mount: "auth_userpass_00000000", Name: "ann"}
	guess := func(_ *store.Tx, system conclave.System) error {
		return lockout.Resolve(system, account, lockout.Settings{Reset: time.Nanosecond}, 0, lockout.Wrong)
	}
	left := func() int {
		t.Helper()
		count := 0
		if err := v.inNamespace(t.Context(), root, func(_ *store.Tx, system conclave.System) error {
			mounts, err := system.List("lockout/own/", "", 0)
			count = len(mounts)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return count
	}
	if err := v.inNamespace(t.Context(), root, guess); err != nil {
		t.Fatal(err)
	}
	var sweep lockoutSweep
	if err := v.inNamespace(t.Context(), root, sweep.clear); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != 1 {
		t.Fatalf("a guess of just now is swept: %d mounts have any, want 1", got)
	}
	old := func(_ *store.Tx, system conclave.System) error {
		_, err := lockout.Tidy(system, "", expiryBatch, func(string) lockout.Settings { return lockout.Settings{Reset: time.Nanosecond} })
		return err
	}
	if err := v.inNamespace(t.Context(), root, old); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != 0 {
		t.Errorf("%d mounts have guesses that are forgotten, want 0", got)
	}
}
