package lease

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// goldenRecord is a record as it was first stored, and must be read for ever.
const goldenRecord = `{"id":"rooms/creds/app/0123456789abcdefghijABCD.team1","mount":"3b0d3c0e-0000-4000-8000-000000000001","mount_path":"rooms/",` +
	`"path":"creds/app","issued":1767323045678901234,"expires":1767326645678901234,"renewed":1767323145678901234,"renewable":true,"max_ttl":7200000000000,` +
	`"look":1767326645678901234,"owner":{"namespace":"root","namespace_path":"","token":"ann"},"counted":"1.q","data":{"name":"account-1"},` +
	`"ending":{"why":"token","since":1767323245678901234,"next":1767323255678901234,"attempts":2,"error":"closed","force":true,"reason":"moved","by":"root"}}`

var golden = Record{ID: "rooms/creds/app/0123456789abcdefghijABCD.team1", MountUUID: "3b0d3c0e-0000-4000-8000-000000000001", MountPath: "rooms/", Path: "creds/app",
	Issued: 1767323045678901234, Expires: 1767326645678901234, Renewed: 1767323145678901234, Renewable: true, MaxTTL: 2 * time.Hour, Look: 1767326645678901234,
	Owner: &Owner{NamespaceID: "root", Token: "ann"}, Counted: "1.q", Data: json.RawMessage(`{"name":"account-1"}`),
	Ending: &Ending{Why: "token", Since: 1767323245678901234, Next: 1767323255678901234, Attempts: 2, Error: "closed", Force: true, Reason: "moved", By: "root"}}

func TestRecordGolden(t *testing.T) {
	decoded, err := decode([]byte(goldenRecord))
	if err != nil || !reflect.DeepEqual(decoded, &golden) {
		t.Errorf("decoded as %+v, %v", decoded, err)
	}
	if encoded, err := json.Marshal(&golden); err != nil || string(encoded) != goldenRecord {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(goldenRecord))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		decoded, err := decode(value)
		if err != nil {
			return
		}
		r := decoded.(*Record)
		_ = r.Granted()
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := decode(again); err != nil {
			t.Fatalf("%s: %v, %+v", again, err, second)
		}
	})
}

const goldenJobs = `{"jobs":[{"id":"r1","prefix":"rooms/","before":1767323045678901234,"cursor":"creds/app/x","sync":true,"force":true,"reason":"moved","by":"root"}]}`

func TestJobsGolden(t *testing.T) {
	want := &jobs{[]*Job{{ID: "r1", Prefix: "rooms/", Before: 1767323045678901234, Cursor: "creds/app/x", Sync: true, Force: true, Reason: "moved", By: "root"}}}
	decoded, err := decodeJobs([]byte(goldenJobs))
	if err != nil || !reflect.DeepEqual(decoded, want) {
		t.Errorf("decoded as %+v, %v", decoded, err)
	}
	if encoded, err := json.Marshal(want); err != nil || string(encoded) != goldenJobs {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
}

func FuzzDecodeJobs(f *testing.F) {
	f.Add([]byte(goldenJobs))
	f.Fuzz(func(t *testing.T, value []byte) {
		if decoded, err := decodeJobs(value); err == nil && decoded == nil {
			t.Fatal("neither jobs nor an error")
		}
	})
}

func TestIDsAreRecognised(t *testing.T) {
	const key = "0123456789abcdefghijABCD"
	for id, want := range map[string]bool{"a/" + key: true, "a/b/" + key + ".team1": true, key: false, "/" + key: false, "a//" + key: false,
		"a/" + key + ".": false, "a/" + key + ".a.b": false, "a/" + key[1:]: false, "a/" + key + "/": false, "": false} {
		if got := validID(id); got != want {
			t.Errorf("validID(%q) = %v", id, got)
		}
	}
	made, err := Mint(bytes.NewReader(bytes.Repeat([]byte{255, 7, 250, 61}, 48)))
	if err != nil || !validKey(made) {
		t.Errorf("Mint = %q, %v", made, err)
	}
	if _, err := Mint(bytes.NewReader(nil)); err == nil {
		t.Error("made of no randomness")
	}
}

const goldenCounted = `{"jobs":[{"id":"r1","prefix":"rooms/","before":1767323045678901234,"counted":true}]}`

func TestCountedJobGolden(t *testing.T) {
	want := &jobs{[]*Job{{ID: "r1", Prefix: "rooms/", Before: 1767323045678901234, Counted: true}}}
	decoded, err := decodeJobs([]byte(goldenCounted))
	if err != nil || !reflect.DeepEqual(decoded, want) {
		t.Errorf("decoded as %+v, %v", decoded, err)
	}
	if encoded, err := json.Marshal(want); err != nil || string(encoded) != goldenCounted {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
}
