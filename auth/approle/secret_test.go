package approle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func TestSecretIDStaysWithinItsRole(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"secret_id_num_uses": 3, "secret_id_ttl": 3600, "secret_id_bound_cidrs": "10.0.0.0/8", "token_bound_cidrs": "10.0.0.0/8,2001:db8::/32"})
	for _, row := range []struct {
		fields fields
		text   string // of the refusal, "" if it is made
		uses   int
		ttl    int
	}{
		{nil, "", 3, 3600},
		{fields{"num_uses": 2, "ttl": "1m"}, "", 2, 60},
		{fields{"num_uses": 4}, "num_uses cannot be higher", 0, 0},
		{fields{"num_uses": 0}, "num_uses cannot be higher", 0, 0},
		{fields{"num_uses": -1}, "num_uses cannot be negative", 0, 0},
		{fields{"ttl": 3601}, "ttl cannot be longer", 0, 0},
		{fields{"ttl": 0}, "ttl cannot be longer", 0, 0},
		{fields{"ttl": -1}, "ttl must be", 0, 0},
		{fields{"cidr_list": "10.1.0.0/16,10.2.3.4", "token_bound_cidrs": "2001:db8:1::/48"}, "", 3, 3600},
		{fields{"cidr_list": "0.0.0.0/0"}, "subset", 0, 0},
		{fields{"cidr_list": "10.1.0.0/16,192.0.2.1"}, "subset", 0, 0},
		{fields{"token_bound_cidrs": "::/0"}, "subset", 0, 0},
		{fields{"cidr_list": "10.0.0.1/33"}, "neither an address", 0, 0},
		{fields{"cidr_list": slices.Repeat([]string{"10.0.0.1"}, maxCIDRs+1)}, "at most", 0, 0},
		{fields{"metadata": "{"}, "failed to parse metadata", 0, 0},
		{fields{"metadata": "novalue"}, "key=value", 0, 0},
		{fields{"metadata": fields{"a": fields{}}}, "metadata", 0, 0},
		{fields{"metadata": fields{"a": strings.Repeat("x", maxText+1)}}, "metadata", 0, 0},
	} {
		if row.text != "" {
			h.Fails(conclave.Update, "role/a/secret-id", row.fields, conclave.Invalid, row.text)
			continue
		}
		made := h.Data(conclave.Update, "role/a/secret-id", row.fields)
		if fmt.Sprintf("%v %v", made["secret_id_num_uses"], made["secret_id_ttl"]) != fmt.Sprintf("%d %d", row.uses, row.ttl) {
			t.Errorf("%v made %v", row.fields, made)
		}
	}
	h.Fails(conclave.Update, "role/none/secret-id", nil, conclave.NotFound, "does not exist")
	h.Fails(conclave.Update, "role/none/custom-secret-id", fields{"secret_id": "x"}, conclave.NotFound, "does not exist")
}

func TestSecretIDLivesNoLongerThanTheMountAllows(t *testing.T) {
	h := mounted(t, enginetest.Mount(func(m *conclave.Mount) { m.MaxTTL = time.Hour }))
	h.Data(conclave.Update, "role/a", nil)
	if ttl := h.Data(conclave.Update, "role/a/secret-id", fields{"ttl": "2h"})["secret_id_ttl"]; fmt.Sprint(ttl) != "3600" {
		t.Errorf("ttl is %v", ttl)
	}
	if ttl := h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id_ttl"]; fmt.Sprint(ttl) != "0" {
		t.Errorf("ttl is %v, want none", ttl)
	}
}

func TestAnswersNameTheirAccessor(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", nil)
	resp, err := h.Do(conclave.Update, "role/a/secret-id", nil)
	if err != nil || resp.Accessor == "" {
		t.Errorf("%+v, %v, want an accessor for whoever wraps the answer", resp, err)
	}
}

func TestMetadataInAllSpellings(t *testing.T) {
	want := map[string]string{"a": "b", "n": "1"}
	for _, raw := range []any{`{"a":"b","n":"1"}`, "a=b,n=1", fields{"a": "b", "n": "1"}, fields{"a": "b", "n": json.Number("1")}, []any{"a=b", "n=1"}} {
		if got, err := parseMetadata(raw); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("parseMetadata(%v) = %v, %v", raw, got, err)
		}
	}
	for _, raw := range []any{nil, "", "{}"} {
		if got, err := parseMetadata(raw); err != nil || len(got) != 0 {
			t.Errorf("parseMetadata(%v) = %v, %v", raw, got, err)
		}
	}
}

func TestLookupTellsAllButTheSecretID(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", nil)
	h.Data(conclave.Update, "role/b", nil)
	made := h.Data(conclave.Update, "role/A/secret-id", fields{"ttl": 60, "num_uses": 7, "metadata": "a=b", "cidr_list": "10.0.0.0/8"})
	now := h.Now()
	want := enginetest.Decode(t, fields{"secret_id_accessor": made["secret_id_accessor"], "secret_id_num_uses": 7, "secret_id_ttl": 60, "creation_time": now.Format(time.RFC3339Nano),
		"expiration_time": now.Add(time.Minute).Format(time.RFC3339Nano), "last_updated_time": now.Format(time.RFC3339Nano), "metadata": fields{"a": "b"},
		"cidr_list": []string{"10.0.0.0/8"}, "token_bound_cidrs": []string{}})
	if got := h.Data(conclave.Update, "role/a/secret-id/lookup", fields{"secret_id": made["secret_id"]}); !reflect.DeepEqual(got, want) {
		t.Errorf("lookup is\n%v, want\n%v", got, want)
	}
	byAccessor := fields{"secret_id_accessor": made["secret_id_accessor"]}
	if got := h.Data(conclave.Update, "role/a/secret-id-accessor/lookup", byAccessor); !reflect.DeepEqual(got, want) {
		t.Errorf("lookup by accessor is\n%v, want\n%v", got, want)
	}
	if response, err := h.Do(conclave.Update, "role/b/secret-id/lookup", fields{"secret_id": made["secret_id"]}); err != nil || response.Data != nil {
		t.Errorf("another role sees %v, %v", response, err)
	}
	h.Fails(conclave.Update, "role/b/secret-id-accessor/lookup", byAccessor, conclave.NotFound, "failed to find accessor entry")
	h.Fails(conclave.Update, "role/b/secret-id-accessor/destroy", byAccessor, conclave.NotFound, "failed to find accessor entry")
	h.Fails(conclave.Update, "role/a/secret-id/lookup", nil, conclave.Invalid, "missing secret_id")
	h.Fails(conclave.Update, "role/a/secret-id-accessor/lookup", nil, conclave.Invalid, "missing secret_id_accessor")
	h.Fails(conclave.Update, "role/none/secret-id/lookup", fields{"secret_id": "x"}, conclave.NotFound, "does not exist")
	h.Fails(conclave.Update, "role/a/secret-id-accessor/lookup", fields{"secret_id_accessor": strings.Repeat("/", accessorLength)}, conclave.NotFound, "failed to find")
	h.Advance(time.Minute)
	h.Fails(conclave.Update, "role/a/secret-id-accessor/lookup", byAccessor, conclave.NotFound, "failed to find accessor entry")
}

func TestDestroyedSecretIDsAreGone(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	before := h.Stored()
	for _, destroy := range []func(made fields) error{
		func(made fields) error { return do(h, conclave.Update, "role/a/secret-id/destroy", "secret_id", made) },
		func(made fields) error { return do(h, conclave.Delete, "role/a/secret-id/destroy", "secret_id", made) },
		func(made fields) error {
			return do(h, conclave.Update, "role/a/secret-id-accessor/destroy", "secret_id_accessor", made)
		},
		func(made fields) error {
			return do(h, conclave.Delete, "role/a/secret-id-accessor/destroy", "secret_id_accessor", made)
		},
	} {
		made := h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": 2})
		logIn(t, h, "a", made["secret_id"])
		if err := destroy(made); err != nil {
			t.Fatal(err)
		}
		h.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": made["secret_id"]}, conclave.Invalid, "invalid role or secret ID")
		if after := h.Stored(); !reflect.DeepEqual(after, before) {
			t.Errorf("stored is %d values, want %d", len(after), len(before))
		}
	}
	h.Data(conclave.Update, "role/a/secret-id/destroy", fields{"secret_id": "none"})
	h.Fails(conclave.Update, "role/a/secret-id-accessor/destroy", fields{"secret_id_accessor": "none"}, conclave.NotFound, "failed to find accessor entry")
}

func do(h *enginetest.Harness, op conclave.Operation, path, field string, made fields) error {
	_, err := h.Do(op, path, fields{field: made[field]})
	return err
}

func TestCustomSecretIDs(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	h.Data(conclave.Update, "role/b", fields{"role_id": "b"})
	made := h.Data(conclave.Update, "role/a/custom-secret-id", fields{"secret_id": "of my own", "num_uses": 2, "ttl": 60})
	if made["secret_id"] != "of my own" || len(made["secret_id_accessor"].(string)) != accessorLength {
		t.Errorf("made %v", made)
	}
	h.Fails(conclave.Update, "role/a/custom-secret-id", fields{"secret_id": "of my own"}, conclave.Invalid, "SecretID is already registered")
	h.Data(conclave.Update, "role/b/custom-secret-id", fields{"secret_id": "of my own"})
	logIn(t, h, "a", "of my own")
	logIn(t, h, "b", "of my own")
	h.Advance(time.Minute)
	h.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": "of my own"}, conclave.Invalid, "invalid role or secret ID")
	h.Data(conclave.Update, "role/a/custom-secret-id", fields{"secret_id": "of my own", "num_uses": 2}) // the old one has ended
	if keys := h.Data(conclave.List, "role/a/secret-id", nil)["keys"].([]any); len(keys) != 1 {
		t.Errorf("accessors are %v, want one", keys)
	}
	logIn(t, h, "a", "of my own")
	logIn(t, h, "a", "of my own")
	h.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": "of my own"}, conclave.Invalid, "invalid role or secret ID")
	for _, secret := range []string{" x", "x\n", "x\u200b", "x\x00", strings.Repeat("x", maxSecretID+1)} {
		h.Fails(conclave.Update, "role/a/custom-secret-id", fields{"secret_id": secret}, conclave.Invalid, "a secret_id has")
	}
	h.Fails(conclave.Update, "role/a/custom-secret-id", nil, conclave.Invalid, "missing secret_id")
}

func TestNothingStoredShowsASecretID(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", nil)
	h.Data(conclave.Update, "role/b", nil)
	secrets := []string{"known-secret-value", h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id"].(string)}
	h.Data(conclave.Update, "role/a/custom-secret-id", fields{"secret_id": secrets[0]})
	h.Data(conclave.Update, "role/b/custom-secret-id", fields{"secret_id": secrets[0]})
	names := 0
	for path, value := range h.Stored() {
		for _, secret := range secrets {
			if strings.Contains(path, secret) || bytes.Contains(value, []byte(secret)) {
				t.Errorf("%s holds a secret-id", path)
			}
		}
		if strings.HasPrefix(path, secretsDir) {
			names++
		}
	}
	if names != 3 {
		t.Errorf("%d secret-ids are stored: the same one of two roles must have two names", names)
	}
}

func TestAccessorsAreListedInPages(t *testing.T) {
	h := mounted(t)
	h.Fails(conclave.List, "role/a/secret-id", nil, conclave.NotFound, "does not exist")
	h.Data(conclave.Update, "role/a", nil)
	h.Fails(conclave.List, "role/a/secret-id", nil, conclave.NotFound, "")
	var made []any
	for range 40 {
		made = append(made, h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id_accessor"])
	}
	slices.SortFunc(made, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	if all := h.Data(conclave.List, "role/a/secret-id", nil)["keys"]; !reflect.DeepEqual(all, made) {
		t.Errorf("accessors are %v, want %v", all, made)
	}
	var paged []any
	after := ""
	for range 6 {
		page := h.Data(conclave.List, "role/a/secret-id", fields{"after": after, "limit": 7})["keys"].([]any)
		paged, after = append(paged, page...), page[len(page)-1].(string)
	}
	if !reflect.DeepEqual(paged, made) {
		t.Errorf("in pages accessors are %v, want %v", paged, made)
	}
}

func TestListLeavesOutWhatHasEnded(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	for range 4 {
		logIn(t, h, "a", h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": 1})["secret_id"])
		h.Data(conclave.Update, "role/a/secret-id", fields{"ttl": 60})
	}
	good := h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": 1})["secret_id_accessor"]
	h.Advance(time.Minute)
	for _, page := range []fields{nil, {"limit": 1}} {
		if keys := h.Data(conclave.List, "role/a/secret-id", page)["keys"]; !reflect.DeepEqual(keys, []any{good}) {
			t.Errorf("accessors are %v, want %v", keys, good)
		}
	}
	h.Data(conclave.Update, "role/a/secret-id-accessor/destroy", fields{"secret_id_accessor": good})
	h.Fails(conclave.List, "role/a/secret-id", nil, conclave.NotFound, "")
}
