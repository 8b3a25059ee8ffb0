package enginetest

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

// WithLease tells Conformance how to get a lease of the engine: prepare sets up what is needed, and the request that it
// returns is answered with one. Without it only wrong leases are shown to the engine.
func WithLease(prepare func(h *Harness) (op conclave.Operation, path string, fields map[string]any)) Option {
	return func(h *Harness) { h.leasing = prepare }
}

// oddLeases are data that an engine has not put into a lease, or not as it would now.
var oddLeases = []string{`null`, `{}`, `[]`, `"canary-5f0c1e"`, `7`, `{"name":"canary-5f0c1e"}`, `{"name":7,"role":[],"username":{},"kind":"?"}`, `nonsense canary-5f0c1e`, ``}

// checkLeaser shows the engine leases that aren't its own, and those that it has ended before.
func checkLeaser(t testing.TB, engine conclave.Engine, fresh func(testing.TB) *Harness) {
	leaser, ok := engine.(conclave.Leaser)
	if !ok {
		return
	}
	for _, data := range oddLeases {
		h := fresh(t)
		lease := &conclave.GrantedLease{ID: "test/creds/app/0123456789abcdefghijABCD", Path: "creds/app", Issued: h.Now(), Expires: h.Now().Add(time.Hour), Data: json.RawMessage(data)}
		checkQuiet(t, "RenewLease of a lease with "+data, func() error {
			_, err := leaser.RenewLease(context.Background(), h.begin(nil, false), lease, time.Hour)
			return err
		})
		checkQuiet(t, "GatherRevoke of a lease with "+data, func() error {
			_, err := leaser.GatherRevoke(h.begin(nil, false), lease)
			return err
		})
		checkQuiet(t, "ForgetLease of a lease with "+data, func() error { return leaser.ForgetLease(h.begin(nil, true), lease) })
	}
	if h := fresh(t); h.leasing != nil {
		checkEnds(t, leaser, h)
	}
}

// checkQuiet wants no panic, and no error that shows what was stored.
func checkQuiet(t testing.TB, what string, call func() error) {
	t.Helper()
	defer func() {
		if reason := recover(); reason != nil {
			t.Errorf("%s panicked: %v", what, reason)
		}
	}()
	if err := call(); err != nil && strings.Contains(err.Error(), "canary-5f0c1e") {
		t.Errorf("%s shows what was stored: %v", what, err)
	}
}

// checkEnds has a lease ended and forgotten twice: both succeed, and nothing is left of it.
func checkEnds(t testing.TB, leaser conclave.Leaser, h *Harness) {
	op, path, fields := h.leasing(h)
	before := h.Stored()
	if _, err := h.Do(op, path, fields); err != nil {
		t.Errorf("%s %s: %v", op, path, err)
		return
	}
	leases := h.Leases()
	if len(leases) != 1 {
		t.Errorf("%s %s gave %d leases, want 1", op, path, len(leases))
		return
	}
	lease := leases[0]
	for range 2 {
		gathered, err := leaser.GatherRevoke(h.begin(nil, false), lease)
		if err != nil {
			t.Errorf("GatherRevoke of what may be gone already: %v", err)
			return
		}
		if err := leaser.Revoke(context.Background(), lease, gathered); err != nil {
			t.Errorf("Revoke of what may be gone already: %v", err)
		}
	}
	for range 2 {
		forget := h.begin(nil, true)
		if err := leaser.ForgetLease(forget, lease); err != nil {
			t.Errorf("ForgetLease of what may be forgotten already: %v", err)
			return
		}
		if err := forget.commit(); err != nil {
			t.Errorf("ForgetLease: %v", err)
		}
	}
	for _, left := range slices.Sorted(maps.Keys(h.Stored())) {
		if _, was := before[left]; !was {
			t.Errorf("a lease that was forgotten leaves %q", left)
		}
	}
}

// checkWorker wakes the engine for what it doesn't know: it has nothing to do, now or later.
func checkWorker(t testing.TB, engine conclave.Engine, fresh func(testing.TB) *Harness) {
	worker, ok := engine.(conclave.Worker)
	if !ok {
		return
	}
	for _, name := range []string{"gone", "static/gone", "chore/gone", "a/b/c/d", "/", strings.Repeat("x", 512), "\u202e"} {
		h := fresh(t)
		checkQuiet(t, "BeginWork", func() error {
			tx := h.begin(nil, true)
			begun, err := worker.BeginWork(context.Background(), tx, name)
			tx.checkLent()
			if err != nil || begun != nil {
				t.Errorf("BeginWork for %.20q, which is gone: %v, %v; want nothing to do", name, begun, err)
			}
			if at := tx.wakes[name]; !at.IsZero() {
				t.Errorf("BeginWork for %.20q, which is gone, has it begun again", name)
			}
			return nil
		})
	}
}
