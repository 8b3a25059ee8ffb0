package lease

import (
	"crypto/rand"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"conclave"
)

// intend writes an intent of ann's down.
func (d *desk) intend() *Record {
	d.t.Helper()
	letters, err := Mint(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := Intend(d, Grant{Mount: d.mount, Path: "creds/app", Letters: letters, Owner: &Owner{NamespaceID: conclave.RootNamespace, Token: "ann"},
		Lease: &conclave.Lease{TTL: time.Hour, Renewable: true, Data: json.RawMessage(`{"name":"a"}`)}})
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

func (d *desk) confirm(r *Record, given conclave.Lease) (*Record, error) {
	return Confirm(d, r.ID, Grant{Mount: d.mount, Path: r.Path, Lease: &given})
}

func TestUnconfirmedIntentIsOverInTime(t *testing.T) {
	d := newDesk(t)
	r := d.intend()
	d.Advance(intentTime - time.Second)
	if ids := d.reap(); len(ids) != 0 {
		t.Fatalf("%v are over before their time", ids)
	}
	d.Advance(time.Second)
	if _, err := d.confirm(r, conclave.Lease{}); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("confirmed when it is over, before anybody has come: %v", err)
	}
	d.Advance(10 * time.Second)
	if ids := d.reap(); !slices.Equal(ids, []string{r.ID}) {
		t.Errorf("%v are over, want %s", ids, r.ID)
	}
	if _, err := d.confirm(r, conclave.Lease{}); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("confirmed after it was ended: %v", err)
	}
	queued, err := FindEnding(d, r.Key())
	if err != nil || queued == nil || queued.Ending.Why != "unconfirmed" || string(queued.Data) != `{"name":"a"}` {
		t.Errorf("queued as %+v, %v", queued, err)
	}
}

func TestConfirmedIntentLivesAsGiven(t *testing.T) {
	d := newDesk(t)
	r := d.intend()
	d.Advance(time.Minute)
	kept, err := d.confirm(r, conclave.Lease{TTL: 3 * time.Hour, MaxTTL: 4 * time.Hour, Renewable: true})
	if err != nil || kept.ID != r.ID || kept.TTL(d.Now()) != 3*time.Hour || !kept.Renewable || kept.Issued != d.Now().UnixNano() || string(kept.Data) != `{"name":"a"}` ||
		kept.Owner == nil {
		t.Fatalf("confirmed as %+v, %v", kept, err)
	}
	if err := Withdraw(d, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.confirm(r, conclave.Lease{}); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("confirmed twice: %v", err)
	}
	d.Advance(3*time.Hour - time.Second)
	if ids := d.reap(); len(ids) != 0 {
		t.Errorf("%v are over before their time", ids)
	}
	d.Advance(10 * time.Second)
	if ids := d.reap(); !slices.Equal(ids, []string{r.ID}) {
		t.Errorf("%v are over, want %s", ids, r.ID)
	}
}

// To confirm an intent takes nothing out of the slot of the index that it shares with others of the same seconds: all that are
// confirmed at once would conflict. The entry has the lease looked at early, which is moved then.
func TestConfirmingChangesNoSlotOfOthers(t *testing.T) {
	d := newDesk(t)
	long, short := d.intend(), d.intend()
	slot := expiryIndex.Dir(long.Look)
	for r, ttl := range map[*Record]time.Duration{long: time.Hour, short: time.Minute} {
		if _, err := d.confirm(r, conclave.Lease{TTL: ttl}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.List(slot, "", 0); err != nil || len(got) != 2 {
		t.Errorf("the slot has %v, %v, want both entries", got, err)
	}
	d.Advance(time.Minute + 10*time.Second)
	if ids := d.reap(); !slices.Equal(ids, []string{short.ID}) {
		t.Errorf("%v are over, want %s", ids, short.ID)
	}
	d.Advance(time.Minute + 10*time.Second)
	if ids := d.reap(); !slices.Equal(ids, []string{short.ID}) {
		t.Errorf("%v are over, still want %s alone", ids, short.ID)
	}
	if got, err := d.List(slot, "", 0); err != nil || len(got) != 0 {
		t.Errorf("the slot has %v, %v, when it is over", got, err)
	}
	d.Advance(time.Hour)
	if ids := d.reap(); len(ids) != 2 || !slices.Contains(ids, long.ID) {
		t.Errorf("%v are over, want %s as well", ids, long.ID)
	}
}

// A prefix that is being revoked covers what is being made.
func TestRevokedPrefixCoversIntents(t *testing.T) {
	d := newDesk(t)
	r := d.intend()
	if err := d.start(d, &prefixInput{Prefix: "rooms/"}, Job{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.confirm(r, conclave.Lease{}); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("confirmed: %v", err)
	}
}

func TestWithdrawnIntentIsQueued(t *testing.T) {
	d := newDesk(t)
	r := d.intend()
	for range 2 {
		if err := Withdraw(d, r.ID); err != nil {
			t.Fatal(err)
		}
	}
	queued, _, err := NextOf(d, d.mount.UUID, 10)
	if err != nil || len(queued) != 1 || queued[0].ID != r.ID {
		t.Errorf("due are %v, %v", queued, err)
	}
	if n, err := Outstanding(d, d.mount.UUID); err != nil || n != 1 {
		t.Errorf("%d are outstanding, %v", n, err)
	}
}

// What nobody was answered is ended, whether or not it was confirmed.
func TestDisownedLeaseIsQueued(t *testing.T) {
	d := newDesk(t)
	intended, confirmed := d.intend(), d.intend()
	if _, err := d.confirm(confirmed, conclave.Lease{TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Record{intended, confirmed, intended} {
		if err := Disown(d, r.ID); err != nil {
			t.Fatal(err)
		}
	}
	for r, why := range map[*Record]string{intended: "unconfirmed", confirmed: "unanswered"} {
		if queued, err := FindEnding(d, r.Key()); err != nil || queued == nil || queued.Ending.Why != why {
			t.Errorf("queued as %+v, %v, want %s", queued, err, why)
		}
	}
}
