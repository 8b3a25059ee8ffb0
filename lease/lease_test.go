package lease

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/internal/timeline"
)

// owners are tokens: name → when it ends, Unix nanoseconds, 0 is never. Others have ended.
type owners map[string]int64

func (o owners) Lives(_ conclave.View, owner *Owner) (bool, int64, error) {
	ends, lives := o[owner.Token]
	return lives, ends, nil
}

func (owners) Release(conclave.Tx, *Record) error { return nil }

// innkeeper is an engine that renews for what is asked for.
type innkeeper struct{ conclave.Leaser }

func (innkeeper) RenewLease(context.Context, conclave.View, *conclave.GrantedLease, time.Duration) (*conclave.Lease, error) {
	return &conclave.Lease{Renewable: true, MaxTTL: 2 * time.Hour}, nil
}

// inn opens it on storage that is also the mount's.
type inn struct{ mount *conclave.Mount }

func (i inn) Engine(system conclave.Tx, _ string) (conclave.Engine, conclave.Tx, error) {
	return innkeeper{}, mounted{system, i.mount}, nil
}

type mounted struct {
	conclave.Tx
	mount *conclave.Mount
}

func (m mounted) Mount() *conclave.Mount { return m.mount }

// desk is the system space of a namespace with one mount.
type desk struct {
	*enginetest.Memory
	*Setup
	t     *testing.T
	mount *conclave.Mount
}

func newDesk(t *testing.T) *desk {
	mount := &conclave.Mount{UUID: "3b0d3c0e-0000-4000-8000-000000000001", Path: "rooms/", DefaultTTL: time.Hour, MaxTTL: 24 * time.Hour}
	return &desk{enginetest.NewMemory(t), &Setup{Mounts: inn{mount}, Owners: owners{"ann": 0}}, t, mount}
}

// grant gives ann a lease.
func (d *desk) grant(path string, ttl time.Duration, change func(*Grant)) *Record {
	d.t.Helper()
	letters, err := Mint(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	g := Grant{Mount: d.mount, Path: path, Letters: letters, Owner: &Owner{NamespaceID: conclave.RootNamespace, Token: "ann"},
		Lease: &conclave.Lease{TTL: ttl, Renewable: true, Data: json.RawMessage(`{}`)}}
	if change != nil {
		change(&g)
	}
	r, err := New(d, g)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

// reap queues what is due, and returns the ids of the leases in the queue, in order.
func (d *desk) reap() (ids []string) {
	d.t.Helper()
	due, err := FindDue(d, MaxStep)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := Expire(d, due, d.Owners); err != nil {
		d.t.Fatal(err)
	}
	keys, err := d.List(endingDir, "", 0)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, key := range keys {
		r, err := FindEnding(d, key)
		if err != nil || r == nil {
			d.t.Fatalf("FindEnding(%q) = %v, %v", key, r, err)
		}
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

func (d *desk) lives(id string) bool {
	r, _, err := d.find(d, id)
	if err != nil {
		d.t.Fatal(err)
	}
	return r != nil
}

func TestExpiredLeaseIsOverBeforeAnybodyReaps(t *testing.T) {
	d := newDesk(t)
	short, long := d.grant("creds/a", time.Minute, nil), d.grant("creds/a", time.Hour, nil)
	d.Advance(time.Minute - time.Nanosecond)
	if !d.lives(short.ID) {
		t.Error("over before its time")
	}
	d.Advance(time.Nanosecond)
	if d.lives(short.ID) || !d.lives(long.ID) {
		t.Error("not judged by its time")
	}
	d.Advance(timeline.SlotTime)
	if got := d.reap(); !slices.Equal(got, []string{short.ID}) {
		t.Errorf("queued %v, want %v", got, short.ID)
	}
	if got := d.reap(); len(got) != 1 {
		t.Errorf("queued %v the second time", got)
	}
}

func TestRenewedLeaseIsLookedAtAgain(t *testing.T) {
	d := newDesk(t)
	r := d.grant("creds/a", time.Minute, nil)
	for range 3 {
		d.Advance(50 * time.Second)
		resp, err := d.renew(t.Context(), d, &renewInput{idInput{r.ID}, time.Minute})
		if err != nil || resp.Lease.TTL != time.Minute {
			t.Fatalf("renewed as %+v, %v", resp, err)
		}
		if got := d.reap(); len(got) != 0 {
			t.Fatalf("queued %v while it runs", got)
		}
	}
	// It can be made shorter, too.
	if _, err := d.renew(t.Context(), d, &renewInput{idInput{r.ID}, time.Second}); err != nil {
		t.Fatal(err)
	}
	d.Advance(time.Second + timeline.SlotTime)
	if got := d.reap(); len(got) != 1 {
		t.Error("not queued when its shorter time was over")
	}
	for path := range d.Values() {
		if strings.HasPrefix(path, "lease/expiry/") || strings.HasPrefix(path, idDir) {
			t.Errorf("%s was left behind", path)
		}
	}
}

func TestRenewalsEndAtTheMaximum(t *testing.T) {
	d := newDesk(t)
	r := d.grant("creds/a", time.Hour, nil)
	d.Advance(59 * time.Minute)
	resp, err := d.renew(t.Context(), d, &renewInput{idInput{r.ID}, 3 * time.Hour})
	if err != nil || resp.Lease.TTL != 61*time.Minute || len(resp.Warnings) == 0 {
		t.Errorf("renewed as %+v, %v; want what is left of two hours", resp, err)
	}
}

func TestLeaseIsLookedAtWhenItsTokenEnds(t *testing.T) {
	d := newDesk(t)
	ends := d.Now().Add(time.Minute).UnixNano()
	d.Owners.(owners)["ann"] = ends
	r := d.grant("creds/a", time.Hour, func(g *Grant) { g.OwnerEnds = ends })
	if r.TTL(d.Now()) != time.Hour {
		t.Errorf("granted for %v", r.TTL(d.Now()))
	}
	d.Advance(time.Minute + timeline.SlotTime)
	d.Owners.(owners)["ann"] = d.Now().Add(time.Minute).UnixNano() // it was renewed
	if got := d.reap(); len(got) != 0 {
		t.Fatalf("queued %v while the token lives", got)
	}
	d.Advance(time.Minute + timeline.SlotTime)
	delete(d.Owners.(owners), "ann")
	if got := d.reap(); len(got) != 1 {
		t.Error("not queued when its token had ended")
	}
	batch := d.grant("creds/a", time.Hour, func(g *Grant) {
		g.OwnerEnds, g.Within, g.Owner = d.Now().Add(time.Minute).UnixNano(), true, nil
	})
	if batch.TTL(d.Now()) != time.Minute || batch.Renewable {
		t.Errorf("a batch token's lease lives for %v, renewable %v", batch.TTL(d.Now()), batch.Renewable)
	}
}

func TestAttemptsWaitLongerAndLonger(t *testing.T) {
	d := newDesk(t)
	r := d.grant("creds/a", time.Minute, nil)
	if err := r.end(d, Ending{Why: "revoked"}, 0); err != nil {
		t.Fatal(err)
	}
	var last time.Duration
	for i := range 12 {
		found, _, err := NextOf(d, d.mount.UUID, 10)
		if err != nil || len(found) != 1 {
			t.Fatalf("attempt %d: %d are due, %v", i, len(found), err)
		}
		if _, err := Failed(d, r.Key(), strings.Repeat("x", 2*maxError)); err != nil {
			t.Fatal(err)
		}
		began := d.Now()
		for {
			if found, _, err := NextOf(d, d.mount.UUID, 10); err != nil || len(found) == 1 {
				break
			}
			d.Advance(timeline.SlotTime)
		}
		if waited := d.Now().Sub(began); waited < last || waited > maxPause+timeline.SlotTime {
			t.Errorf("attempt %d: waited %v after %v", i, waited, last)
		} else {
			last = waited
		}
	}
	if last < maxPause-timeline.SlotTime {
		t.Errorf("waits %v at most, want about %v", last, maxPause)
	}
	if n, err := Outstanding(d, d.mount.UUID); err != nil || n != 1 {
		t.Errorf("outstanding: %d, %v", n, err)
	}
	if ended, err := Ended(d, r.Key()); err != nil || ended == nil {
		t.Fatalf("Ended = %v, %v", ended, err)
	}
	if ended, err := Ended(d, r.Key()); err != nil || ended != nil {
		t.Errorf("ended twice: %v, %v", ended, err)
	}
	if err := Close(d, d.mount); err != nil {
		t.Errorf("a mount without leases: %v", err)
	}
	for path := range d.Values() {
		t.Errorf("%s was left behind", path)
	}
}

func TestJobGoesThroughAllInSmallSteps(t *testing.T) {
	d := newDesk(t)
	want := map[string]bool{}
	for i := range 40 {
		want[d.grant(fmt.Sprintf("creds/%d/x/%d", i%3, i%5), time.Hour, nil).Key()] = true
	}
	kept := d.grant("other", time.Hour, nil)
	if err := d.start(d, &prefixInput{Prefix: "rooms/creds/"}, Job{}); err != nil {
		t.Fatal(err)
	}
	later := d.grant("creds/0/x/0", time.Hour, nil)
	if later.Issued > kept.Issued { // the clock stands still: it is covered, too
		t.Fatal("the clock runs")
	}
	want[later.Key()] = true
	ids, err := Jobs(d)
	if err != nil || len(ids) != 1 {
		t.Fatalf("Jobs = %v, %v", ids, err)
	}
	got := map[string]bool{}
	for range 100 {
		keys, done, err := Step(d, ids[0], 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) > 3 {
			t.Fatalf("a step did %d", len(keys))
		}
		for _, key := range keys {
			if got[key] {
				t.Errorf("%s was done twice", key)
			}
			got[key] = true
		}
		if done {
			break
		}
	}
	if len(got) != len(want) || !d.lives(kept.ID) {
		t.Errorf("%d were done, want %d", len(got), len(want))
	}
	if ids, err := Jobs(d); err != nil || len(ids) != 0 {
		t.Errorf("afterwards Jobs = %v, %v", ids, err)
	}
}

func TestJobsAreBounded(t *testing.T) {
	d := newDesk(t)
	for range MaxJobs {
		if err := d.start(d, &prefixInput{Prefix: "rooms"}, Job{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.start(d, &prefixInput{Prefix: "rooms"}, Job{}); !conclave.Is(err, conclave.Limited) {
		t.Errorf("one more: %v, want Limited", err)
	}
}
