package lease

import (
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"conclave"
)

// What is revoked while it is being made may be made after its engine was asked to end it: it is ended once more when its
// request is over at the latest.
func TestWhatIsInTheMakingIsEndedTwice(t *testing.T) {
	d := newDesk(t)
	r := d.intend()
	if err := EndOf(d, r.ID); err != nil {
		t.Fatal(err)
	}
	if ended, err := Ended(d, r.Key()); err != nil || ended != nil {
		t.Fatalf("forgotten while it may be made: %+v, %v", ended, err)
	}
	d.Advance(intentTime - time.Second)
	if due, _, err := NextOf(d, r.MountUUID, MaxStep); err != nil || len(due) != 0 {
		t.Errorf("due before its request is over: %v, %v", due, err)
	}
	d.Advance(15 * time.Second)
	due, _, err := NextOf(d, r.MountUUID, MaxStep)
	if err != nil || len(due) != 1 || due[0].ID != r.ID {
		t.Fatalf("due when its request is over: %v, %v", due, err)
	}
	if ended, err := Ended(d, r.Key()); err != nil || ended == nil {
		t.Errorf("not forgotten: %v", err)
	}
	if n, err := Outstanding(d, r.MountUUID); err != nil || n != 0 {
		t.Errorf("%d are outstanding, %v", n, err)
	}
}

// It is ended at once when its request comes to nothing before that.
func TestWhatWasInTheMakingIsEndedWithItsRequest(t *testing.T) {
	for name, over := range map[string]func(conclave.Tx, string) error{"withdrawn": Withdraw, "disowned": Disown} {
		d := newDesk(t)
		r := d.intend()
		if err := EndOf(d, r.ID); err != nil {
			t.Fatal(err)
		}
		if ended, err := Ended(d, r.Key()); err != nil || ended != nil {
			t.Fatalf("%s: forgotten while it may be made: %+v, %v", name, ended, err)
		}
		for range 2 {
			if err := over(d, r.ID); err != nil {
				t.Fatal(err)
			}
		}
		d.Advance(10 * time.Second)
		if due, _, err := NextOf(d, r.MountUUID, MaxStep); err != nil || len(due) != 1 || due[0].Ending.Why != "token" {
			t.Errorf("%s: due %v, %v", name, due, err)
		}
		if ended, err := Ended(d, r.Key()); err != nil || ended == nil {
			t.Errorf("%s: not forgotten: %v", name, err)
		}
		if err := over(d, r.ID); err != nil {
			t.Errorf("%s again: %v", name, err)
		}
	}
}

// A request that is over has made what it will make.
func TestWithdrawnIntentIsEndedOnce(t *testing.T) {
	d := newDesk(t)
	r := d.intend()
	if err := Withdraw(d, r.ID); err != nil {
		t.Fatal(err)
	}
	if ended, err := Ended(d, r.Key()); err != nil || ended == nil {
		t.Errorf("not forgotten: %v", err)
	}
}

// A batch token that ends in the middle of a request doesn't make the request's intent be over before the request is.
func TestIntentOutlivesItsToken(t *testing.T) {
	d := newDesk(t)
	letters, err := Mint(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Intend(d, Grant{Mount: d.mount, Path: "creds/app", Letters: letters, OwnerEnds: d.Now().Add(time.Second).UnixNano(), Within: true,
		Lease: &conclave.Lease{Data: json.RawMessage(`{}`)}})
	if err != nil {
		t.Fatal(err)
	}
	d.Advance(20 * time.Second)
	if ids := d.reap(); len(ids) != 0 {
		t.Errorf("over while it may be made: %v", ids)
	}
	d.Advance(intentTime)
	if ids := d.reap(); len(ids) != 1 || ids[0] != r.ID {
		t.Errorf("%v are over, want %s", ids, r.ID)
	}
}
