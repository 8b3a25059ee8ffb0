package lease

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

// warn goes through what is to be told, and returns the paths that events were about.
func (d *desk) warn() (paths []string) {
	d.t.Helper()
	for {
		found, err := FindWarnings(d)
		if err != nil {
			d.t.Fatal(err)
		}
		if found == nil {
			return paths
		}
		if err := found.Tell(d); err != nil {
			d.t.Fatal(err)
		}
		for _, e := range d.Emitted() {
			paths = append(paths, e.Path)
		}
		if err := d.Commit(); err != nil {
			d.t.Fatal(err)
		}
	}
}

func TestLeasesThatAreAboutToExpireAreToldOnce(t *testing.T) {
	d := newDesk(t)
	long, short := d.grant("long", time.Hour, nil), d.grant("short", 15*time.Minute, nil)
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	want := func(when string, paths ...string) {
		t.Helper()
		if got := d.warn(); !slices.Equal(got, paths) {
			t.Errorf("%s: told of %q, want %q", when, got, paths)
		}
	}
	want("at first")
	d.Advance(6 * time.Minute)
	want("when only the short one is about to expire")
	d.Advance(44*time.Minute + 30*time.Second)
	found, err := FindWarnings(d)
	if err != nil || found == nil {
		t.Fatalf("FindWarnings = %v, %v", found, err)
	}
	if err := found.Tell(d); err != nil || len(d.Emitted()) != 1 {
		t.Fatalf("Tell = %v with %v", err, d.Emitted())
	}
	e := d.Emitted()[0]
	sum := sha256.Sum256([]byte(long.ID))
	if e.Type != EventExpiring || e.Path != "rooms/long" || e.Metadata["lease_id_sha256"] != hex.EncodeToString(sum[:]) ||
		e.Metadata["expires"] != time.Unix(0, long.Expires).UTC().Format(time.RFC3339) {
		t.Errorf("the event is %+v", e)
	}
	for _, value := range e.Metadata {
		if strings.Contains(value, long.Key()) {
			t.Errorf("the event gives the lease away: %+v", e)
		}
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := found.Tell(d); err != nil || len(d.Emitted()) > 0 { // another leader has found the same
		t.Errorf("told again: %v, %v", d.Emitted(), err)
	}
	d.Rollback()
	want("a second time")
	_ = short
}

// A lease that is renewed is told of before its new end, wherever its entry in the index is.
func TestRenewedLeasesAreToldOfBeforeTheirNewEnd(t *testing.T) {
	d := newDesk(t)
	for name, after := range map[string]time.Duration{"a little": 25 * time.Minute, "much": 2 * time.Hour} {
		r := d.grant(name, time.Hour, nil)
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
		d.Advance(40 * time.Minute)
		renewed := *r
		renewed.Renewed, renewed.Expires = d.Now().UnixNano(), d.Now().Add(after).UnixNano()
		if err := storeAt(d, idDir+r.ID, &renewed); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
		told := 0
		for range 200 {
			if paths := d.warn(); len(paths) > 0 {
				told += len(paths)
				if left := time.Unix(0, renewed.Expires).Sub(d.Now()); left < 3*time.Minute || left > WarnAhead {
					t.Errorf("%s: told %v before the end", name, left)
				}
			}
			d.reap()
			if err := d.Commit(); err != nil {
				t.Fatal(err)
			}
			d.Advance(time.Minute)
		}
		if told != 1 {
			t.Errorf("%s: told %d times, want once", name, told)
		}
	}
}

// However many end at once, each is told of once, in steps that fit a record.
func TestManyWarningsAreToldInSteps(t *testing.T) {
	d := newDesk(t)
	const leases = 150
	for i := range leases {
		d.grant(strings.Repeat("x", 6*i+1), time.Hour, nil)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	d.Advance(50*time.Minute + 30*time.Second)
	told := map[string]int{}
	for steps := 0; ; steps++ {
		found, err := FindWarnings(d)
		if err != nil {
			t.Fatal(err)
		}
		if found == nil {
			break
		}
		if err := found.Tell(d); err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, e := range d.Emitted() {
			o := conclave.Occurrence{Event: e}
			size += o.Size()
			told[e.Path]++
		}
		if size > conclave.MaxEventBytes {
			t.Errorf("step %d has events of %d bytes", steps, size)
		}
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
		if steps > leases {
			t.Fatal("the steps don't end")
		}
	}
	for path, n := range told {
		if n != 1 {
			t.Errorf("%.20s…: told %d times", path, n)
		}
	}
	if len(told) != leases {
		t.Errorf("told of %d leases, want %d", len(told), leases)
	}
}
