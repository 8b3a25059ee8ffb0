package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"conclave"
)

// damage makes what is stored at a path nonsense.
func (d *desk) damage(path string) {
	d.t.Helper()
	if err := d.Put(path, []byte("nonsense")); err != nil {
		d.t.Fatal(err)
	}
}

// A lease that can't be read is set aside, and the others are ended.
func TestDamagedLeaseHoldsUpNoOther(t *testing.T) {
	d := newDesk(t)
	bad, good := d.grant("creds/a", time.Minute, nil), d.grant("creds/b", time.Minute, nil)
	d.damage(idDir + bad.ID)
	d.Advance(time.Minute + 10*time.Second)
	if ids := d.reap(); !slices.Equal(ids, []string{good.ID}) {
		t.Errorf("%v are over, want %s", ids, good.ID)
	}
	if due, err := FindDue(d, 10); err != nil || len(due) != 0 {
		t.Errorf("%v are due still, %v", due, err)
	}
	out, err := d.readDamaged(t.Context(), d, &keyInput{bad.Key()})
	if err != nil || out.LeaseID != bad.ID || out.Error == "" {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := d.retryDamaged(t.Context(), d, &keyInput{bad.Key()}); !conclave.Damaged(err) {
		t.Errorf("a record that is damaged still: %v", err)
	}
	if err := storeAt(d, idDir+bad.ID, bad); err != nil { // repaired
		t.Fatal(err)
	}
	if _, err := d.retryDamaged(t.Context(), d, &keyInput{bad.Key()}); err != nil {
		t.Fatal(err)
	}
	if ids := d.reap(); len(ids) != 2 {
		t.Errorf("%v are over, want both", ids)
	}
	if _, err := d.readDamaged(t.Context(), d, &keyInput{bad.Key()}); !conclave.Is(err, conclave.NotFound) {
		t.Errorf("a repaired lease is listed: %v", err)
	}
}

func TestDamagedLeaseInTheQueueHoldsUpNoOther(t *testing.T) {
	d := newDesk(t)
	bad, good := d.grant("creds/a", time.Minute, nil), d.grant("creds/b", time.Minute, nil)
	for _, r := range []*Record{bad, good} {
		if err := EndOf(d, r.ID); err != nil {
			t.Fatal(err)
		}
	}
	d.damage(endingDir + bad.Key())
	records, damaged, err := NextOf(d, d.mount.UUID, 10)
	if err != nil || len(records) != 1 || records[0].ID != good.ID || len(damaged) != 1 {
		t.Fatalf("%v, %v, %v", records, damaged, err)
	}
	if err := SetEndingAside(d, damaged, errDamaged); err != nil {
		t.Fatal(err)
	}
	if records, damaged, err = NextOf(d, d.mount.UUID, 10); err != nil || len(records) != 1 || len(damaged) != 0 {
		t.Errorf("%v, %v, %v", records, damaged, err)
	}
	forget := &forgetInput{keyInput: keyInput{bad.Key()}}
	if _, err := d.forgetDamaged(t.Context(), d, forget); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("forgotten although nobody knows whose it is: %v", err)
	}
	forget.Mount = d.mount.UUID
	if _, err := d.forgetDamaged(t.Context(), d, forget); err != nil {
		t.Fatal(err)
	}
	if n, err := Outstanding(d, d.mount.UUID); err != nil || n != 1 {
		t.Errorf("%d are outstanding, %v", n, err)
	}
	if value, err := d.Get(endingDir + bad.Key()); err != nil || value != nil {
		t.Errorf("its record is %q, %v", value, err)
	}
}

func TestDamagedLeaseHoldsUpNoRevocation(t *testing.T) {
	d := newDesk(t)
	bad, good := d.grant("creds/a", time.Hour, nil), d.grant("creds/b", time.Hour, nil)
	d.damage(idDir + bad.ID)
	if err := EndOf(d, bad.ID); err != nil {
		t.Errorf("the end of its token: %v", err)
	}
	if err := d.start(d, &prefixInput{Prefix: "rooms"}, Job{}); err != nil {
		t.Fatal(err)
	}
	ids, err := Jobs(d)
	if err != nil || len(ids) != 1 {
		t.Fatalf("%v, %v", ids, err)
	}
	keys, done, err := Step(d, ids[0], 10)
	if err != nil || !done || !slices.Equal(keys, []string{good.Key()}) {
		t.Errorf("queued %v, %v, %v", keys, done, err)
	}
	d.Advance(2 * time.Hour)
	d.reap()
	out, err := d.listDamaged(t.Context(), d, &pageInput{})
	if err != nil || len(out.Data.(*conclave.Keys).Keys) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	if _, err := d.forgetDamaged(t.Context(), d, &forgetInput{keyInput: keyInput{bad.Key()}}); err != nil {
		t.Errorf("its path tells the mount: %v", err)
	}
}

// What not even the storage opens is set aside unread.
func TestSetAsideReadsNoRecord(t *testing.T) {
	d := newDesk(t)
	r := d.grant("creds/a", time.Minute, nil)
	d.damage(idDir + r.ID)
	d.Advance(2 * time.Minute)
	due, err := FindDue(d, 10)
	if err != nil || len(due) != 1 {
		t.Fatalf("%v, %v", due, err)
	}
	if err := SetAside(d, due, errors.New("cipher: a secret")); err != nil {
		t.Fatal(err)
	}
	out, err := d.readDamaged(t.Context(), d, &keyInput{r.Key()})
	if err != nil || out.LeaseID != r.ID || out.Error != "the engine failed with an error of type *errors.errorString" {
		t.Errorf("%+v, %v", out, err)
	}
}

const goldenDamage = `{"id":"rooms/creds/app/0123456789abcdefghijABCD","path":"lease/id/rooms/creds/app/0123456789abcdefghijABCD","since":1767323045678901234,"error":"damaged"}`

func TestDamageGolden(t *testing.T) {
	want := &Damage{ID: "rooms/creds/app/0123456789abcdefghijABCD", Path: "lease/id/rooms/creds/app/0123456789abcdefghijABCD", Since: 1767323045678901234, Error: "damaged"}
	if got, err := decodeDamage([]byte(goldenDamage)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decoded as %+v, %v", got, err)
	}
	if encoded, err := json.Marshal(want); err != nil || string(encoded) != goldenDamage {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
}

func FuzzDecodeDamage(f *testing.F) {
	f.Add([]byte(goldenDamage))
	f.Fuzz(func(t *testing.T, value []byte) {
		d, err := decodeDamage(value)
		if err != nil {
			return
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeDamage(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

// A listing shows all of a small directory in order, and of a large one page after page, each name once.
func TestListingsArePaged(t *testing.T) {
	d := newDesk(t)
	var want []string
	for i := range 25 {
		path := fmt.Sprintf("creds/%02d", i)
		d.grant(path, time.Hour, nil)
		want = append(want, fmt.Sprintf("%02d/", i))
	}
	out, err := d.list(t.Context(), d, &listInput{Prefix: "rooms/creds"})
	if err != nil || !slices.Equal(out.Data.(*conclave.Keys).Keys, want) || len(out.Warnings) != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	var got []string
	for after := ""; ; {
		out, err := d.list(t.Context(), d, &listInput{Prefix: "rooms/creds", After: after, Limit: 10})
		if conclave.Is(err, conclave.NotFound) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		keys := out.Data.(*conclave.Keys).Keys
		got, after = append(got, keys...), keys[len(keys)-1]
		if (len(out.Warnings) == 1) != (len(got) < 25) || len(keys) > 10 {
			t.Errorf("%d names so far, a page of %d, warnings %v", len(got), len(keys), out.Warnings)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("pages have %v", got)
	}
	if _, err := d.list(t.Context(), d, &listInput{Prefix: "rooms/creds", After: "a/b"}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("a wrong place to go on: %v", err)
	}
}
