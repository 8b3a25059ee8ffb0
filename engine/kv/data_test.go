package kv

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

type fields = map[string]any

func newVersioned(t testing.TB, options ...enginetest.Option) *enginetest.Harness {
	t.Helper()
	engine, err := Plugin().Open(map[string]string{"version": "2"})
	if err != nil {
		t.Fatal(err)
	}
	return enginetest.New(t, engine, options...)
}

// put writes a secret with one member x.
func put(h *enginetest.Harness, path string, x any) {
	h.Data(conclave.Update, "data/"+path, fields{"data": fields{"x": x}})
}

// checkJSON compares an answer with JSON text, as clients see it.
func checkJSON(t *testing.T, what string, got any, want string) {
	t.Helper()
	var wanted map[string]any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	var plain map[string]any
	if err := json.Unmarshal(text, &plain); err != nil || !reflect.DeepEqual(plain, wanted) {
		t.Errorf("%s:\n got %s\nwant %s", what, text, want)
	}
}

const began = "2026-01-02T03:04:05.678901234Z" // the clock of a new harness

func TestOptionsChooseTheVersion(t *testing.T) {
	for version, want := range map[string]conclave.Engine{"": plain{}, "1": plain{}, "2": versioned{}} {
		if got, err := Plugin().Open(map[string]string{"version": version}); err != nil || got != want {
			t.Errorf("Open(version=%q) = %v, %v, want %T", version, got, err, want)
		}
	}
	if _, err := Plugin().Open(map[string]string{"version": "3"}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("Open(version=3): %v, want Invalid", err)
	}
}

func TestWriteAnswersTheVersion(t *testing.T) {
	h := newVersioned(t)
	got := h.Data(conclave.Update, "data/a/b", fields{"data": fields{"x": 1}})
	checkJSON(t, "write", got, `{"created_time":"`+began+`","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}`)
	got = h.Data(conclave.Read, "data/a/b", nil)
	checkJSON(t, "read", got, `{"data":{"x":1},"metadata":{"created_time":"`+began+`","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}}`)
	h.Advance(time.Second)
	put(h, "a/b", 2)
	for version, want := range map[any]string{nil: "2", "0": "2", "1": "1", 2: "2"} {
		data := h.Data(conclave.Read, "data/a/b", fields{"version": version})["data"].(map[string]any)
		if got := data["x"].(json.Number).String(); got != want {
			t.Errorf("read of version %v: x = %s, want %s", version, got, want)
		}
	}
	h.Fails(conclave.Read, "data/a/b", fields{"version": 3}, conclave.NotFound, "")
	if failure := h.Fails(conclave.Read, "data/a", nil, conclave.NotFound, ""); failure.Data != nil || failure.Message != "" {
		t.Errorf("absent secret: data %v, message %q, want neither", failure.Data, failure.Message)
	}
}

func TestDataIsKeptAsWritten(t *testing.T) {
	h := newVersioned(t)
	body := `{"data":{"big":123456789012345678901234567890,"e":1e400,"f":1.10,"html":"<&>","n":null,"s":"é\u2028","deep":{"l":[1,{"z":true}]}}}`
	if _, err := h.DoJSON(conclave.Update, "data/a", []byte(body)); err != nil {
		t.Fatal(err)
	}
	response, err := h.Do(conclave.Read, "data/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"big":123456789012345678901234567890,"deep":{"l":[1,{"z":true}]},"e":1e400,"f":1.10,"html":"\u003c\u0026\u003e","n":null,"s":"é\u2028"}`
	if got := string(response.Data.(*dataOut).Data); got != want {
		t.Errorf("stored\n%s, want\n%s", got, want)
	}
}

func TestBadWritesAreRefused(t *testing.T) {
	h := newVersioned(t)
	for _, row := range []struct {
		body, text string
		kind       conclave.Kind
	}{
		{`{}`, "no data provided", conclave.Invalid},
		{`{"data":null}`, "no data provided", conclave.Invalid},
		{`{"x":1}`, "no data provided", conclave.Invalid},
		{`{"data":"x"}`, "must be an object", conclave.Invalid},
		{`{"data":[1]}`, "must be an object", conclave.Invalid},
		{`{"data":{},"options":1}`, "must be an object", conclave.Invalid},
		{`{"data":{},"options":{"cas":"one"}}`, "whole number", conclave.Invalid},
		{`{"data":{},"options":{"cas":-1}}`, "did not match", conclave.Invalid},
		{`{"data":{"x":"` + strings.Repeat("a", conclave.MaxValue) + `"}}`, "at most", conclave.TooLarge},
	} {
		for _, op := range []conclave.Operation{conclave.Update, conclave.Patch} {
			h := newVersioned(t)
			put(h, "a", 1)
			_, err := h.DoJSON(op, "data/a", []byte(row.body))
			if conclave.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.text) {
				t.Errorf("%s %.60s: %v, want %s: %s", op, row.body, err, row.kind, row.text)
			}
		}
	}
	if stored := h.Stored(); len(stored) > 0 {
		t.Errorf("refused writes stored %v", stored)
	}
	largest := strings.Repeat("a", conclave.MaxValue-len(`{"x":""}`))
	put(h, "large", largest)
	if got := h.Data(conclave.Read, "data/large", nil)["data"].(map[string]any)["x"]; got != largest {
		t.Error("the largest secret doesn't come back")
	}
}

func TestCheckAndSet(t *testing.T) {
	h := newVersioned(t)
	write := func(cas any) fields { return fields{"data": fields{"x": 1}, "options": fields{"cas": cas}} }
	const mismatch = "check-and-set parameter did not match the current version"
	const required = "check-and-set parameter required for this call"
	h.Fails(conclave.Update, "data/a", write(1), conclave.Invalid, mismatch)
	h.Data(conclave.Update, "data/a", write(0))
	h.Fails(conclave.Update, "data/a", write(0), conclave.Invalid, mismatch)
	h.Data(conclave.Update, "data/a", write("1"))
	h.Data(conclave.Delete, "data/a", nil)
	h.Fails(conclave.Update, "data/a", write(0), conclave.Invalid, mismatch)
	h.Data(conclave.Update, "data/a", write(2))

	put(h, "a", 4)
	h.Data(conclave.Update, "metadata/a", fields{"cas_required": true})
	h.Fails(conclave.Update, "data/a", fields{"data": fields{}}, conclave.Invalid, required)
	h.Fails(conclave.Patch, "data/a", fields{"data": fields{}}, conclave.Invalid, required)
	h.Data(conclave.Patch, "data/a", write(4))
	put(h, "b", 1)
	h.Data(conclave.Update, "config", fields{"cas_required": "true"})
	h.Fails(conclave.Update, "data/b", fields{"data": fields{}, "options": fields{}}, conclave.Invalid, required)
	h.Fails(conclave.Update, "data/new", fields{"data": fields{}}, conclave.Invalid, required)
	h.Data(conclave.Update, "data/new", write(0))
}

func TestDeletedAndDestroyedVersionsAnswerTheirMetadata(t *testing.T) {
	h := newVersioned(t)
	put(h, "a", 1)
	h.Advance(time.Minute)
	h.Data(conclave.Delete, "data/a", nil)
	meta := `"metadata":{"created_time":"` + began + `","custom_metadata":null,"deletion_time":"2026-01-02T03:05:05.678901234Z","destroyed":%v,"version":1}}`
	failure := h.Fails(conclave.Read, "data/a", nil, conclave.NotFound, "")
	checkJSON(t, "read of deleted", failure.Data, `{"data":null,`+fmt.Sprintf(meta, false))
	failure = h.Fails(conclave.Read, "subkeys/a", nil, conclave.NotFound, "")
	checkJSON(t, "subkeys of deleted", failure.Data, `{"subkeys":null,`+fmt.Sprintf(meta, false))
	failure = h.Fails(conclave.Patch, "data/a", fields{"data": fields{"y": 1}}, conclave.NotFound, "")
	checkJSON(t, "patch of deleted", failure.Data, `{"created_time":"`+began+`","custom_metadata":null,"deletion_time":"2026-01-02T03:05:05.678901234Z","destroyed":false,"version":1}`)

	h.Advance(time.Minute)
	h.Data(conclave.Delete, "data/a", nil) // keeps the first deletion's time
	h.Data(conclave.Update, "destroy/a", fields{"versions": []int{1}})
	failure = h.Fails(conclave.Read, "data/a", nil, conclave.NotFound, "")
	checkJSON(t, "read of destroyed", failure.Data, `{"data":null,`+fmt.Sprintf(meta, true))
	if failure = h.Fails(conclave.Patch, "data/none", fields{"data": fields{}}, conclave.NotFound, ""); failure.Data != nil {
		t.Errorf("patch of nothing: data %v", failure.Data)
	}
	h.Data(conclave.Delete, "data/none", nil)
}

func TestDeleteUndeleteDestroy(t *testing.T) {
	h := newVersioned(t)
	for i := range 3 {
		put(h, "a", i+1)
	}
	readable := func(want ...string) {
		t.Helper()
		var got []string
		for n := range 3 {
			response, err := h.Do(conclave.Read, "data/a", fields{"version": n + 1})
			if err == nil {
				got = append(got, string(response.Data.(*dataOut).Data))
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("readable are %v, want %v", got, want)
		}
	}
	readable(`{"x":1}`, `{"x":2}`, `{"x":3}`)
	h.Data(conclave.Update, "delete/a", fields{"versions": []any{"1", 3, 9, -1, 0}})
	readable(`{"x":2}`)
	h.Data(conclave.Update, "undelete/a", fields{"versions": "1,3"})
	readable(`{"x":1}`, `{"x":2}`, `{"x":3}`)
	h.Data(conclave.Update, "destroy/a", fields{"versions": 2})
	h.Data(conclave.Update, "undelete/a", fields{"versions": []int{2}})
	readable(`{"x":1}`, `{"x":3}`)
	for _, path := range []string{"delete/a", "undelete/a", "destroy/a"} {
		h.Fails(conclave.Update, path, nil, conclave.Invalid, "no version number provided")
		h.Fails(conclave.Update, path, fields{"versions": "x"}, conclave.Invalid, "versions")
	}
	h.Data(conclave.Update, "delete/none", fields{"versions": []int{1}})
	if _, made := h.Stored()["secrets/none"]; made {
		t.Error("deleting versions of nothing made a secret")
	}
}

func TestVersionsExpire(t *testing.T) {
	h := newVersioned(t)
	h.Data(conclave.Update, "config", fields{"delete_version_after": "1h"})
	h.Data(conclave.Update, "metadata/a", fields{"delete_version_after": 60})
	put(h, "a", 1)
	put(h, "b", 1)
	if got := h.Data(conclave.Read, "data/a", nil)["metadata"].(map[string]any)["deletion_time"]; got != "2026-01-02T03:05:05.678901234Z" {
		t.Errorf("deletion_time is %v", got)
	}
	h.Advance(time.Minute)
	h.Fails(conclave.Read, "data/a", nil, conclave.NotFound, "")
	h.Data(conclave.Read, "data/b", nil)
	h.Data(conclave.Update, "undelete/a", fields{"versions": []int{1}})
	h.Data(conclave.Read, "data/a", nil)
	h.Advance(time.Hour)
	h.Fails(conclave.Read, "data/a", nil, conclave.NotFound, "")
	h.Fails(conclave.Read, "data/b", nil, conclave.NotFound, "")

	h.Data(conclave.Update, "config", fields{"delete_version_after": "-5h"})
	if got := h.Data(conclave.Read, "config", nil)["delete_version_after"]; got != "-1s" {
		t.Errorf("delete_version_after is %v, want -1s for never", got)
	}
	put(h, "a", 2)
	h.Advance(time.Hour)
	h.Data(conclave.Read, "data/a", nil)
}

func TestOldVersionsGo(t *testing.T) {
	h := newVersioned(t)
	large := strings.Repeat("y", inlineBudget)
	h.Data(conclave.Update, "config", fields{"max_versions": 3})
	for i := range 5 {
		put(h, "a", fmt.Sprint(i+1, large))
	}
	meta := h.Data(conclave.Read, "metadata/a", nil)
	if got := meta["versions"].(map[string]any); len(got) != 3 || got["3"] == nil || meta["oldest_version"] != json.Number("3") || meta["current_version"] != json.Number("5") {
		t.Errorf("metadata after 5 writes of 3 kept: %v", meta)
	}
	h.Fails(conclave.Read, "data/a", fields{"version": 2}, conclave.NotFound, "")
	if stored := h.Stored(); len(stored) != 5 { // config, the record, three versions of data
		t.Errorf("%d values are stored, want 5", len(stored))
	}
	h.Data(conclave.Delete, "metadata/a", nil)
	if stored := h.Stored(); len(stored) != 1 {
		t.Errorf("%d values are left of a removed secret", len(stored)-1)
	}
	h.Data(conclave.Delete, "metadata/a", nil)
}

func TestTenVersionsAreKeptByDefault(t *testing.T) {
	h := newVersioned(t)
	for i := range 25 {
		put(h, "a", fmt.Sprint(i+1, strings.Repeat("z", 900)))
		for n := max(1, i-8); n <= i+1; n++ {
			got := h.Data(conclave.Read, "data/a", fields{"version": n})["data"].(map[string]any)["x"].(string)
			if !strings.HasPrefix(got, fmt.Sprint(n, "z")) {
				t.Fatalf("after %d writes, version %d is %.10s", i+1, n, got)
			}
		}
	}
	if got := len(h.Stored()); got > 11 {
		t.Errorf("%d values are stored for ten versions", got)
	}
}

func TestOneWriteEvictsSoMany(t *testing.T) {
	h := newVersioned(t, enginetest.Fast())
	h.Data(conclave.Update, "metadata/a", fields{"max_versions": 300})
	for range 300 {
		put(h, "a", strings.Repeat("z", 100))
	}
	h.Data(conclave.Update, "metadata/a", fields{"max_versions": 1})
	for _, want := range []int{201, 102, 3, 1} {
		put(h, "a", 1)
		if got := len(h.Data(conclave.Read, "metadata/a", nil)["versions"].(map[string]any)); got != want {
			t.Errorf("%d versions after a write, want %d", got, want)
		}
	}
}

func TestWritesAreCreatesWhereNothingIs(t *testing.T) {
	var seen []string
	h := newVersioned(t, enginetest.Fast(), enginetest.Authorize(func(op conclave.Operation, path string) bool {
		seen = append(seen, op.String()+" "+path)
		return true
	}))
	put(h, "a", 1)
	put(h, "a", 1)
	h.Data(conclave.Update, "metadata/b", fields{"max_versions": 1})
	h.Data(conclave.Update, "metadata/b", fields{"max_versions": 1})
	want := []string{"create data/a", "update data/a", "create metadata/b", "update metadata/b"}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("authorised %v, want %v", seen, want)
	}
}
