package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave"
	"conclave/mount"
	"conclave/store"
)

// empty waits until nothing that the engine has made is there, and nothing is left of any lease.
func (l *lodge) empty(t *testing.T) {
	t.Helper()
	waitFor(t, "the accounts to be gone", func() bool { return len(l.outside.Accounts()) == 0 })
	waitFor(t, "nothing to be left of any lease", func() bool {
		_, err := l.do(l.root, conclave.List, "sys/leases/queue", nil)
		return conclave.Is(err, conclave.NotFound) && l.must(conclave.Read, "sys/leases/count", nil)["lease_count"] == 0.0
	})
}

// recordsOf is how many records the audit log has of a request.
func (l *lodge) recordsOf(id string) (count int) {
	for _, record := range l.records(0) {
		if strings.Contains(string(record.Request), `"id":"`+id+`"`) {
			count++
		}
	}
	return count
}

// redecorate changes what the engine gathers for its suites.
func (l *lodge) redecorate(tx *store.Tx, system conclave.System) error {
	table, err := mount.Load(system, mount.Defaults{})
	if err != nil {
		return err
	}
	entry, _, _ := table.Find("rooms/")
	rooms, err := tx.Space(entry.Space, "", entry.Mount())
	if err != nil {
		return err
	}
	return rooms.Put("suite/app", l.nextID())
}

func TestIntentBecomesTheLease(t *testing.T) {
	l := openLodge(t, true)
	var inBetween string
	l.outside.Furnish(func(context.Context, string) error {
		keys := l.must(conclave.List, "sys/leases/lookup/rooms/suites/app/", nil)["keys"].([]any)
		inBetween = "rooms/suites/app/" + keys[0].(string)
		bogus := map[string]any{"lease_id": inBetween}
		l.refuses(t, conclave.Invalid, "lease not found", conclave.Update, "sys/leases/renew", bogus)
		l.refuses(t, conclave.Invalid, "invalid lease", conclave.Update, "sys/leases/lookup", bogus)
		return nil
	})
	lease := l.creds(t, l.root, "rooms/suites/app", map[string]any{"ttl": "1h", "max_ttl": "2h"})
	if lease.ID != inBetween || lease.TTL != time.Hour || !lease.Renewable {
		t.Errorf("answered %+v, intended %s", lease, inBetween)
	}
	if out := l.must(conclave.Update, "sys/leases/lookup", id(lease)); out["id"] != lease.ID {
		t.Errorf("looked up as %v", out)
	}
	if out := l.must(conclave.Read, "sys/leases/count", nil); out["lease_count"] != 1.0 {
		t.Errorf("counted %v, want 1", out)
	}
	if resp, err := l.do(l.root, conclave.Update, "sys/leases/renew", map[string]any{"lease_id": lease.ID, "increment": "90m"}); err != nil || resp.Lease.TTL <= time.Hour {
		t.Errorf("renewed as %+v, %v", resp, err)
	}
	l.must(conclave.Update, "sys/leases/revoke", map[string]any{"lease_id": lease.ID, "sync": true})
	l.empty(t)
}

// Whatever goes wrong after something was made outside, it is ended at once.
func TestWhatFailedRequestsMadeIsEnded(t *testing.T) {
	for name, furnish := range map[string]func(l *lodge, cancel func()) error{
		"preparation fails":  func(*lodge, func()) error { return errors.New("the paint is wet") },
		"preparation panics": func(*lodge, func()) error { panic("fire") },
		"the client goes":    func(_ *lodge, cancel func()) error { cancel(); return nil },
		"it is revoked": func(l *lodge, _ func()) error {
			l.must(conclave.Update, "sys/leases/revoke-prefix/rooms", nil)
			return nil
		},
		"the mount's leases are forced out": func(l *lodge, _ func()) error {
			l.must(conclave.Update, "sys/leases/revoke-force/rooms", nil)
			return nil
		},
		"what it gathered keeps changing": func(l *lodge, _ func()) error {
			return l.inNamespace(context.Background(), conclave.Namespace{}, l.redecorate)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := openLodge(t, true)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var made atomic.Int64
			l.outside.Furnish(func(context.Context, string) error { made.Add(1); return furnish(l, cancel) })
			_, err := l.pipeline.Handle(ctx, &conclave.Request{ID: "the-request", Operation: conclave.Read, Path: "rooms/suites/app", Token: l.root})
			if err == nil || made.Load() == 0 {
				t.Fatalf("%v; %d accounts were made", err, made.Load())
			}
			l.empty(t)
			if got := l.recordsOf("the-request"); got != 1 {
				t.Errorf("the request has %d records, want 1", got)
			}
		})
	}
}

// Whoever goes while his answer is committed leaves nothing behind, whether or not it was.
func TestUnansweredLeaseIsEnded(t *testing.T) {
	l := openLodge(t, true)
	failed := 0
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		l.outside.Handled(cancel)
		resp, err := l.pipeline.Handle(ctx, &conclave.Request{ID: "unanswered-" + string(rune('a'+failed)), Operation: conclave.Read, Path: "rooms/suites/app", Token: l.root})
		cancel()
		if err == nil {
			l.must(conclave.Update, "sys/leases/revoke", id(resp.Lease))
			continue
		}
		failed++
	}
	if failed == 0 {
		t.Error("no request failed: nothing is tested")
	}
	l.outside.Handled(nil)
	l.empty(t)
}

// When what a preparation works from changes, what the first one made is ended, and the second one's lease is answered.
func TestRepeatedPreparationLeavesOneAccount(t *testing.T) {
	l := openLodge(t, true)
	var once sync.Once
	l.outside.Furnish(func(context.Context, string) (err error) {
		once.Do(func() { err = l.inNamespace(context.Background(), conclave.Namespace{}, l.redecorate) })
		return err
	})
	lease := l.creds(t, l.root, "rooms/suites/app", nil)
	waitFor(t, "the first account to be gone", func() bool { return len(l.outside.Accounts()) == 1 })
	l.must(conclave.Update, "sys/leases/revoke", map[string]any{"lease_id": lease.ID, "sync": true})
	l.empty(t)
}

// A token with one use left could not end what it gets.
func TestLastUseMakesNothing(t *testing.T) {
	l := openLodge(t, true)
	var made atomic.Int64
	l.outside.Furnish(func(context.Context, string) error { made.Add(1); return nil })
	token := l.token(map[string]any{"policies": []any{"root"}, "num_uses": json.Number("1")})
	if _, err := l.do(token, conclave.Read, "rooms/suites/app", nil); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("the last use: %v", err)
	}
	if _, err := l.do(token, conclave.Read, "rooms/suites/app", nil); !conclave.Is(err, conclave.Denied) {
		t.Errorf("a use after the last: %v", err)
	}
	if made.Load() != 0 {
		t.Errorf("%d accounts were made", made.Load())
	}
	l.empty(t)
}

func TestUsesAreExactWithIntents(t *testing.T) {
	l := openLodge(t, true)
	token := l.token(map[string]any{"policies": []any{"root"}, "num_uses": json.Number("4")})
	var wait sync.WaitGroup
	var got atomic.Int64
	for range 12 {
		wait.Go(func() {
			if resp, err := l.do(token, conclave.Read, "rooms/suites/app", nil); err == nil && resp.Lease != nil {
				got.Add(1)
			}
		})
	}
	wait.Wait()
	if got.Load() > 3 {
		t.Errorf("%d of 4 uses were answered with a lease, want at most 3", got.Load())
	}
	l.empty(t) // it has no use left
}
