package policy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

const someText = `path "secret/*" { capabilities = ["read"] }`

// must is call for what has to succeed.
func must(t *testing.T, tx *enginetest.Memory, op conclave.Operation, path string, fields map[string]any) string {
	t.Helper()
	got, err := call(t, tx, op, path, fields)
	if err != nil {
		t.Fatalf("%v %s %v: %v", op, path, fields, err)
	}
	return got
}

func TestPolicyThatExpiresIsGoneAtItsTime(t *testing.T) {
	tx, cache := enginetest.NewMemory(t), NewCache()
	must(t, tx, conclave.Update, "policies/acl/soon", map[string]any{"policy": someText, "ttl": "1h"})
	must(t, tx, conclave.Update, "policies/acl/later", map[string]any{"policy": someText, "expiration": tx.Now().Add(2 * time.Hour).Format(time.RFC3339)})
	must(t, tx, conclave.Update, "policies/acl/never", map[string]any{"policy": someText})
	allowed := func(name string) bool {
		t.Helper()
		tx.Rollback()
		acl, err := cache.ACL(tx, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		return acl.Allows(Check{Path: "secret/a", Operation: conclave.Read}).Allowed
	}
	for _, step := range []struct {
		after time.Duration
		names []string
	}{{0, []string{"later", "never", "soon"}}, {time.Hour, []string{"later", "never"}}, {time.Hour, []string{"never"}}} {
		tx.Advance(step.after)
		list := must(t, tx, conclave.List, "policies/acl", nil)
		for _, name := range []string{"soon", "later", "never"} {
			want := strings.Contains(strings.Join(step.names, " "), name)
			_, err := call(t, tx, conclave.Read, "policies/acl/"+name, nil)
			if allowed(name) != want || strings.Contains(list, name) != want || (err == nil) != want {
				t.Errorf("after %v, %s: allowed %v, listed in %s, read %v; want %v", step.after, name, allowed(name), list, err, want)
			}
		}
	}
	must(t, tx, conclave.Update, "policies/acl/other", map[string]any{"policy": someText})
	if got := len(tx.Values()); got != 2 {
		t.Errorf("%d records after the next write, want the two policies: %v", got, tx.Values())
	}
	must(t, tx, conclave.Update, "policies/acl/soon", map[string]any{"policy": someText, "cas": json.Number("-1")})
	if !allowed("soon") {
		t.Error("a policy can't be made anew after one of its name has expired")
	}
}

func TestPatchKeepsWhatIsNotGiven(t *testing.T) {
	tx := enginetest.NewMemory(t)
	must(t, tx, conclave.Update, "policies/acl/p", map[string]any{"policy": someText, "ttl": "1h"})
	end := tx.Now().UTC().Add(time.Hour).Format(time.RFC3339Nano)
	read := func() map[string]any {
		t.Helper()
		var got map[string]any
		if err := json.Unmarshal([]byte(must(t, tx, conclave.Read, "policies/acl/p", nil)), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	other := strings.ReplaceAll(someText, "read", "list")
	must(t, tx, conclave.Patch, "policies/acl/p", map[string]any{"policy": other})
	if got := read(); got["policy"] != other || got["expiration"] != end || got["version"] != 2.0 {
		t.Errorf("after a patch of the text: %v", got)
	}
	must(t, tx, conclave.Patch, "policies/acl/p", map[string]any{"cas_required": true, "cas": json.Number("2")})
	if got := read(); got["policy"] != other || got["cas_required"] != true || got["expiration"] != end {
		t.Errorf("after a patch of cas_required: %v", got)
	}
	tx.SetRequest(&conclave.Request{Fields: map[string]any{"expiration": nil}})
	must(t, tx, conclave.Patch, "policies/acl/p", map[string]any{"expiration": nil, "cas": json.Number("3")})
	if got := read(); got["expiration"] != nil || got["policy"] != other || got["cas_required"] != true {
		t.Errorf("after null took the expiration away: %v", got)
	}
	tx.SetRequest(nil)
	must(t, tx, conclave.Update, "policies/acl/p", map[string]any{"policy": someText, "cas": json.Number("4")})
	if got := read(); len(got) != 2 {
		t.Errorf("a plain policy is answered as %v, want name and text alone", got)
	}
	if got := len(tx.Values()); got != 1 {
		t.Errorf("%d records are left, want one", got)
	}
}

func TestWritesOfPoliciesAreChecked(t *testing.T) {
	tx := enginetest.NewMemory(t)
	must(t, tx, conclave.Update, "policies/acl/p", map[string]any{"policy": someText, "cas": json.Number("-1"), "cas_required": true})
	for name, fields := range map[string]map[string]any{
		"no cas":              {"policy": someText},
		"an old cas":          {"policy": someText, "cas": json.Number("0")},
		"cas of none":         {"policy": someText, "cas": json.Number("-1")},
		"both ends":           {"policy": someText, "cas": json.Number("1"), "ttl": "1h", "expiration": "2100-01-01T00:00:00Z"},
		"the past":            {"policy": someText, "cas": json.Number("1"), "expiration": "2001-01-01T00:00:00Z"},
		"too far":             {"policy": someText, "cas": json.Number("1"), "expiration": "2300-01-01T00:00:00Z"},
		"too long":            {"policy": someText, "cas": json.Number("1"), "ttl": "2500000h"},
		"negative":            {"policy": someText, "cas": json.Number("1"), "ttl": "-1h"},
		"no time":             {"policy": someText, "cas": json.Number("1"), "expiration": "tomorrow"},
		"required, not given": {"policy": someText, "cas_required": true},
	} {
		if _, err := call(t, tx, conclave.Update, "policies/acl/p", fields); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if _, err := call(t, tx, conclave.Update, "policies/acl/default", map[string]any{"policy": someText, "ttl": "1h"}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("default with an end: %v, want invalid", err)
	}
	must(t, tx, conclave.Update, "policies/acl/p", map[string]any{"policy": someText, "cas": json.Number("1")})
	want := `"p":{"name":"p","policy":"path \"secret/*\" { capabilities = [\"read\"] }","version":2,"modified":"` + tx.Now().UTC().Format(time.RFC3339Nano) + `","cas_required":false}`
	if got := must(t, tx, conclave.List, "policies/detailed/acl", nil); !strings.Contains(got, want) {
		t.Errorf("detailed list = %s, want %s in it", got, want)
	}
	tx.Rollback()
	if err := tx.End(tx.Put("policy/p", []byte("damaged"))); err != nil {
		t.Fatal(err)
	}
	must(t, tx, conclave.Update, "policies/acl/p", map[string]any{"policy": someText})
}

// TestStoredTermsStay loads a record as they are written since policies have versions.
func TestStoredTermsStay(t *testing.T) {
	tx := enginetest.NewMemory(t)
	stored := `{"policy":"path \"a\" { policy = \"read\" }","version":7,"modified":1700000000000000001,"expires":4102444800000000000,"cas_required":true}`
	if err := tx.End(tx.Put("policy/p", []byte(stored))); err != nil {
		t.Fatal(err)
	}
	p, err := Load(tx, "p")
	want := Terms{7, time.Unix(1700000000, 1).UTC(), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), true}
	if err != nil || p == nil || p.Terms != want {
		t.Fatalf("Load = %+v, %v, want %+v", p, err, want)
	}
	if err := tx.End(Store(tx, p)); err != nil {
		t.Fatal(err)
	}
	if got := tx.Values(); len(got) != 2 || got["policy-expiry/38eecfcf56a60000-p"] == nil {
		t.Errorf("stored %q, want the policy and its entry in the index", got)
	}
}
