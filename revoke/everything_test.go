package revoke

import (
	"encoding/json"
	"reflect"
	"testing"
)

const goldenEverything = `{"id":"r1","scope":{"path":"database/creds"},"dry_run":true,"reason":"leaked","by":"root","except":"abc","phase":"mounts","cursor":"static/app",` +
	`"mount":"3b0d3c0e-0000-4000-8000-000000000001","started":1767323045678901234,"finished":1767323145678901234,"tokens":1,"leases":2,"taken":{"certificate":3},` +
	`"items":[{"kind":"token","name":"def"}],"kept":[{"kind":"token","name":"abc"}],"failures":[{"kind":"certificate","name":"pki/1","error":"closed"}],"failed":1}`

func TestEverythingGolden(t *testing.T) {
	want := &Everything{ID: "r1", Scope: Scope{Path: "database/creds"}, Dry: true, Reason: "leaked", By: "root", Except: "abc", Phase: atMounts, Cursor: "static/app",
		Mount: "3b0d3c0e-0000-4000-8000-000000000001", Started: 1767323045678901234, Finished: 1767323145678901234, Tokens: 1, Leases: 2, Taken: map[string]int{"certificate": 3},
		Items: []Item{{Kind: "token", Name: "def"}}, Kept: []Item{{Kind: "token", Name: "abc"}}, Failures: []Item{{Kind: "certificate", Name: "pki/1", Error: "closed"}}, Failed: 1}
	got, err := decodeEverything([]byte(goldenEverything))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decoded as %+v, %v", got, err)
	}
	if encoded, err := json.Marshal(want); err != nil || string(encoded) != goldenEverything {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
}

func FuzzDecodeEverything(f *testing.F) {
	f.Add([]byte(goldenEverything))
	f.Add([]byte(`{"id":"r1","phase":"tokens","started":1}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := decodeEverything(value)
		if err != nil {
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := decodeEverything(again); err != nil || second.Phase != e.Phase {
			t.Fatalf("%s: %+v, %v", again, second, err)
		}
	})
}
