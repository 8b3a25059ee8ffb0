package cubbyhole

import (
	"reflect"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.Conformance(t, Plugin()) }

func TestWhatIsStoredIsReadUntilDeleted(t *testing.T) {
	h := enginetest.New(t, Engine{})
	h.Fails(conclave.Read, "a/b", nil, conclave.NotFound, "")
	h.Data(conclave.Update, "a/b", map[string]any{"n": 12345678901234567, "s": "<x>"})
	got := h.Data(conclave.Read, "a/b", nil)
	want := enginetest.Decode(t, map[string]any{"n": 12345678901234567, "s": "<x>"})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
	h.Data(conclave.Delete, "a/b", nil)
	h.Fails(conclave.Read, "a/b", nil, conclave.NotFound, "")
	h.Fails(conclave.Update, "a/b", nil, conclave.Invalid, "missing data fields")
}

func TestTokensDontSeeEachOther(t *testing.T) {
	h := enginetest.New(t, Engine{})
	other := h.As(&conclave.Caller{TokenID: "token-2", Root: true})
	h.Data(conclave.Update, "a", map[string]any{"x": "mine"})
	other.Fails(conclave.Read, "a", nil, conclave.NotFound, "")
	other.Fails(conclave.List, "", nil, conclave.NotFound, "")
	other.Data(conclave.Update, "a", map[string]any{"x": "other"})
	if got := h.Data(conclave.Read, "a", nil)["x"]; got != "mine" {
		t.Errorf("read %v after another token wrote", got)
	}
}

func TestListAndScan(t *testing.T) {
	h := enginetest.New(t, Engine{})
	for _, path := range []string{"a", "a/b", "a/c/d", "z"} {
		h.Data(conclave.Update, path, map[string]any{"x": 1})
	}
	for _, row := range []struct {
		op     conclave.Operation
		path   string
		fields map[string]any
		want   []any
	}{
		{conclave.List, "", nil, []any{"a", "a/", "z"}},
		{conclave.List, "a/", nil, []any{"b", "c/"}},
		{conclave.List, "", map[string]any{"after": "a", "limit": 1}, []any{"a/"}},
		{conclave.Scan, "", nil, []any{"a", "a/b", "a/c/d", "z"}},
		{conclave.Scan, "a/", nil, []any{"b", "c/d"}},
	} {
		if got := h.Data(row.op, row.path, row.fields)["keys"]; !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s %q %v = %v, want %v", row.op, row.path, row.fields, got, row.want)
		}
	}
}

func TestWriteIsACreateWhereNothingIs(t *testing.T) {
	var ops []conclave.Operation
	h := enginetest.New(t, Engine{}, enginetest.Fast(), enginetest.Authorize(func(op conclave.Operation, _ string) bool {
		ops = append(ops, op)
		return true
	}))
	for range 2 {
		h.Data(conclave.Update, "a", map[string]any{"x": 1})
	}
	if want := []conclave.Operation{conclave.Create, conclave.Update}; !reflect.DeepEqual(ops, want) {
		t.Errorf("operations %v, want %v", ops, want)
	}
}
