package main

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/audit"
	"conclave/server/config"
)

// A log that has reached its size refuses, drops nothing, and can still be exported, rotated and pruned; then requests go on.
func TestFullAuditLogRefusesUntilItIsExportedAndPruned(t *testing.T) {
	v := startVault(t, t.TempDir(), func(c *config.Config) { c.Audit.MaxSize = 64 << 10 })
	opened, err := v.openDev(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	v.root = conclave.NewSecret(opened.RootToken)
	var refusal error
	for range 1000 {
		if _, refusal = v.do(v.root, conclave.Read, "sys/mounts", nil); refusal != nil {
			break
		}
	}
	if !conclave.Is(refusal, conclave.Unavailable) || !strings.Contains(refusal.Error(), "audit log") {
		t.Fatalf("the last request was answered with %v, want that there is no room", refusal)
	}
	full := v.state.Audit().Shown()
	if full.Base.Seq != 0 || v.records(0) == nil {
		t.Fatalf("records up to %d were dropped", full.Base.Seq)
	}

	page := v.must(conclave.Read, "sys/audit-log", map[string]any{"from": json.Number("0")})
	if frames, _ := page["frames"].([]any); uint64(len(frames)) < full.Seq {
		t.Errorf("%d records can be exported, want %d", len(frames), full.Seq)
	}
	v.must(conclave.Update, "sys/audit-rotate", map[string]any{"reason": "full"})
	head := ""
	err = v.state.Audit().Read(t.Context(), 0, func(f audit.Frame) bool {
		if start, err := audit.ParseEpochStart(f.Box); f.Start && err == nil {
			head = hex.EncodeToString(start.PreviousHead[:])
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	v.must(conclave.Update, "sys/audit-prune", map[string]any{"epoch": json.Number("0"), "head": head})
	if _, err := v.do(v.root, conclave.Read, "sys/mounts", nil); err != nil {
		t.Errorf("after pruning: %v", err)
	}
}

func TestEpochsEndAsConfigured(t *testing.T) {
	for _, tc := range []struct {
		limits  config.Audit
		records uint64
		age     time.Duration
		due     string
	}{
		{config.Audit{}, 1 << 40, 1000 * time.Hour, ""},
		{config.Audit{EpochMaxAge: time.Hour}, 1 << 40, time.Hour - 1, ""},
		{config.Audit{EpochMaxAge: time.Hour}, 2, time.Hour, "the epoch has reached an age of 1h0m0s"},
		{config.Audit{EpochMaxAge: time.Hour}, 1, 9 * time.Hour, ""},
		{config.Audit{EpochMaxRecords: 1000}, 999, 9 * time.Hour, ""},
		{config.Audit{EpochMaxRecords: 1000}, 1000, 0, "the epoch has reached 1000 records"},
	} {
		due := dueReason(tc.limits, tc.records, tc.age)
		if due != tc.due {
			t.Errorf("%+v, %d records, %s: due for %q, want %q", tc.limits, tc.records, tc.age, due, tc.due)
		}
		if due != "" && audit.CheckReason(due) != nil {
			t.Errorf("%q can't be a reason", due)
		}
	}
}

func TestEpochIsClosedWhenItIsDue(t *testing.T) {
	v := openVault(t)
	for _, tc := range []struct {
		limits config.Audit
		due    bool
	}{{config.Audit{}, false}, {config.Audit{EpochMaxRecords: 1}, true}, {config.Audit{EpochMaxRecords: 1 << 40, EpochMaxAge: time.Hour}, false}} {
		v.must(conclave.Read, "sys/mounts", nil)
		v.settings.Audit = tc.limits
		reason, err := v.epochDue(t.Context())
		if err != nil || (reason != "") != tc.due {
			t.Errorf("%+v: %q, %v, want due: %v", tc.limits, reason, err, tc.due)
		}
	}
}
