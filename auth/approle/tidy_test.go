package approle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func stored(h *enginetest.Harness, dir string) (n int) {
	for path := range h.Stored() {
		if strings.HasPrefix(path, dir) {
			n++
		}
	}
	return n
}

func TestTidyRemovesWhatHasEndedAndNothingElse(t *testing.T) {
	h := mounted(t)
	for _, name := range []string{"a", "b", "c"} {
		h.Data(conclave.Update, "role/"+name, fields{"role_id": name})
	}
	spent := h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": 2})["secret_id"]
	logIn(t, h, "a", spent)
	logIn(t, h, "a", spent)
	half := h.Data(conclave.Update, "role/b/secret-id", fields{"num_uses": 2})["secret_id"]
	logIn(t, h, "b", half)
	for range 5 {
		h.Data(conclave.Update, "role/c/secret-id", fields{"ttl": 60, "num_uses": 2})
	}
	ever := h.Data(conclave.Update, "role/c/secret-id", nil)["secret_id"]
	h.Advance(time.Minute)
	response, err := h.Do(conclave.Update, "tidy/secret-id", nil)
	if err != nil || response.Status != 202 || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "removed 6 ") || !strings.Contains(response.Warnings[0], "that was all") {
		t.Fatalf("tidy: %+v, %v", response, err)
	}
	if secrets, accessors := stored(h, secretsDir), stored(h, accessorsDir); secrets != 2 || accessors != 2 {
		t.Errorf("%d secret-ids and %d accessors are left", secrets, accessors)
	}
	logIn(t, h, "b", half)
	logIn(t, h, "c", ever)
}

func TestTidyGoesOnWhereItStopped(t *testing.T) {
	h := mounted(t, enginetest.Fast())
	h.Data(conclave.Update, "role/a", nil)
	h.Data(conclave.Update, "role/b", nil)
	const each = tidyNames * 3 / 4
	for range each {
		h.Data(conclave.Update, "role/a/secret-id", fields{"ttl": 60})
		h.Data(conclave.Update, "role/b/secret-id", nil)
	}
	h.Advance(time.Minute)
	for i, text := range []string{"there may be more", "that was all"} {
		response, err := h.Do(conclave.Update, "tidy/secret-id", nil)
		if err != nil || !strings.Contains(response.Warnings[0], text) {
			t.Fatalf("call %d: %+v, %v; want %q", i, response, err, text)
		}
	}
	if left := stored(h, secretsDir); left != each {
		t.Errorf("%d secret-ids are left, want %d", left, each)
	}
	if stored(h, tidyPath) != 0 {
		t.Error("a finished tidy leaves its place behind")
	}
}

func TestVeryManySecretIDsOfADeletedRoleAreClearedLater(t *testing.T) {
	h := mounted(t, enginetest.Fast())
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	var last any
	for range clearOnDelete + clearOnWrite + 10 {
		last = h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": 2})["secret_id"]
	}
	h.Data(conclave.Delete, "role/a", nil)
	h.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": last}, conclave.Invalid, "invalid role or secret ID")
	if left := stored(h, secretsDir); left != clearOnWrite+10 {
		t.Errorf("%d are left after the delete", left)
	}
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	h.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": last}, conclave.Invalid, "invalid role or secret ID")
	if left := stored(h, secretsDir); left != 10 {
		t.Errorf("%d are left after a write", left)
	}
	if _, err := h.Do(conclave.Update, "tidy/secret-id", nil); err != nil {
		t.Fatal(err)
	}
	if left, marks := stored(h, secretsDir), stored(h, goneDir); left != 0 || marks != 0 {
		t.Errorf("%d secret-ids and %d marks are left after tidy", left, marks)
	}
}

// TestGarbageIsBounded lets secret-ids of a minute be made for hours, with nobody calling tidy.
func TestGarbageIsBounded(t *testing.T) {
	h := mounted(t, enginetest.Fast())
	h.Data(conclave.Update, "role/a", fields{"secret_id_ttl": 60})
	worst := 0
	for i := range 3000 {
		h.Data(conclave.Update, "role/a/secret-id", nil)
		h.Advance(time.Second)
		if i > 1000 && i%50 == 0 {
			worst = max(worst, stored(h, secretsDir))
		}
	}
	// 60 live at any time. One in eight looks at one shard of sixteen: 1500 is far beyond what chance does.
	if worst > 1500 {
		t.Errorf("up to %d secret-ids were stored, of which 60 could be used", worst)
	}
	if worst < 60 {
		t.Errorf("only %d secret-ids were stored", worst)
	}
}

func TestDamagedRecordsAreErrors(t *testing.T) {
	for _, value := range []string{"", "{", "[]", "null", `{"name":"a"}`, `{"name":"a","role_id":"b","uid":"c","key":"AAAA"}`} {
		if _, err := decodeRole([]byte(value)); !conclave.Is(err, conclave.Internal) {
			t.Errorf("role %q: %v", value, err)
		}
	}
	for _, value := range []string{"", "{", "[]", "null", `{"accessor":"a"}`, `{"accessor":"a","created":1,"num_uses":-1}`} {
		if _, err := decodeSecret([]byte(value)); !conclave.Is(err, conclave.Internal) {
			t.Errorf("secret-id %q: %v", value, err)
		}
	}
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	made := h.Data(conclave.Update, "role/a/secret-id", nil)
	for path := range h.Stored() {
		if strings.HasPrefix(path, secretsDir) {
			h.Store(path, []byte("{"))
		}
	}
	failure := h.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": made["secret_id"]}, conclave.Internal, "damaged")
	if strings.Contains(failure.Error(), fmt.Sprint(made["secret_id"])) {
		t.Errorf("the error shows the secret-id: %v", failure)
	}
}
