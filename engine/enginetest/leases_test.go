package enginetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"conclave"
)

func lodgingOf(t *testing.T) (*Harness, *Outside) {
	t.Helper()
	outside := NewOutside()
	engine, err := outside.Plugin("lodging").Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	return New(t, engine), outside
}

func TestHarnessKeepsLeases(t *testing.T) {
	h, outside := lodgingOf(t)
	for _, path := range []string{"creds/app", "suites/app"} {
		resp, err := h.Do(conclave.Read, path, map[string]any{"ttl": "1h"})
		if err != nil || resp.Lease == nil || resp.Lease.ID == "" {
			t.Fatalf("%s: %+v, %v", path, resp, err)
		}
		leases := h.Leases()
		if len(leases) != 1 || leases[0].ID != resp.Lease.ID || !leases[0].Expires.Equal(h.Now().Add(time.Hour)) || leases[0].Path != path || len(outside.Accounts()) != 1 {
			t.Errorf("%s: leases are %+v, accounts %v", path, leases, outside.Accounts())
		}
		if _, err := h.RenewLease(resp.Lease.ID, time.Hour); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		outside.Fail(errors.New("closed"))
		if err := h.EndLease(resp.Lease.ID); err == nil || len(h.Leases()) != 1 {
			t.Errorf("%s: ended although it failed: %v", path, err)
		}
		outside.Fail(nil)
		if err := h.EndLease(resp.Lease.ID); err != nil || len(h.Leases()) != 0 || len(outside.Accounts()) != 0 {
			t.Errorf("%s: %v; leases are %v, accounts %v", path, err, h.Leases(), outside.Accounts())
		}
	}
}

func TestInterruptLeavesTheIntent(t *testing.T) {
	for stage, accounts := range map[Stage]int{AfterIntend: 0, AfterPrepare: 1} {
		h, outside := lodgingOf(t)
		if err := h.Interrupt(stage, conclave.Read, "suites/app", nil); err != nil {
			t.Fatal(err)
		}
		if len(h.Leases()) != 1 || len(outside.Accounts()) != accounts {
			t.Errorf("stage %d: leases are %v, accounts %v", stage, h.Leases(), outside.Accounts())
		}
		if err := h.EndLease(h.Leases()[0].ID); err != nil || len(outside.Accounts()) != 0 {
			t.Errorf("stage %d: %v; accounts %v", stage, err, outside.Accounts())
		}
	}
}

func TestFailedPreparationIsEnded(t *testing.T) {
	h, outside := lodgingOf(t)
	outside.Furnish(func(context.Context, string) error { return conclave.Errorf(conclave.Unavailable, "wet paint") })
	if _, err := h.Do(conclave.Read, "suites/app", nil); !conclave.Is(err, conclave.Unavailable) {
		t.Fatal(err)
	}
	if len(h.Leases()) != 0 || len(outside.Accounts()) != 0 || outside.Attempts() != 1 {
		t.Errorf("leases are %v, accounts %v, %d attempts to end any", h.Leases(), outside.Accounts(), outside.Attempts())
	}
}

func TestHarnessDoesWhatIsDue(t *testing.T) {
	h, outside := lodgingOf(t)
	h.Data(conclave.Update, "chores/once", map[string]any{"after": "1m"})
	h.Data(conclave.Update, "chores/often", map[string]any{"after": "2m", "every": "1h"})
	if names, err := h.RunDue(h.Now()); err != nil || len(names) != 0 {
		t.Fatalf("%v were due, %v", names, err)
	}
	names, err := h.RunDue(h.Now().Add(2 * time.Minute))
	if err != nil || !slices.Equal(names, []string{"chore/often", "chore/once"}) {
		t.Fatalf("%v were due, %v", names, err)
	}
	if woken := h.Woken(); len(woken) != 1 || !woken["chore/often"].Equal(h.Now().Add(time.Hour)) {
		t.Errorf("woken: %v", woken)
	}
	if err := h.LoseWork("chore/often"); err != nil {
		t.Fatal(err)
	}
	if names, err := h.RunDue(h.Now()); err != nil || len(names) != 1 || outside.Chores("often") != 3 {
		t.Errorf("after it was lost, %v were due and it was done %d times, %v", names, outside.Chores("often"), err)
	}
	if out := h.Data(conclave.Read, "chores/often", nil); out["done"].(interface{ String() string }).String() != "2" {
		t.Errorf("it is known to be done %v times, want 2", out["done"])
	}
	h.Data(conclave.Update, "chores/refused", nil)
	if names, err := h.RunDue(h.Now()); err == nil || len(names) != 1 || h.Woken()["chore/refused"].IsZero() {
		t.Errorf("%v were due, %v", names, err)
	}
}
