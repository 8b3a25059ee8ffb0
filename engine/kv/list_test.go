package kv

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

func keys(t *testing.T, h *enginetest.Harness, op conclave.Operation, path string, given fields) []string {
	t.Helper()
	response, err := h.Do(op, path, given)
	if conclave.Is(err, conclave.NotFound) {
		return nil
	}
	if err != nil {
		t.Fatalf("%s %s %v: %v", op, path, given, err)
	}
	return response.Data.(*conclave.Keys).Keys
}

func TestListAndScan(t *testing.T) {
	for prefix, h := range map[string]*enginetest.Harness{"": enginetest.New(t, plain{}), "metadata/": newVersioned(t)} {
		for _, path := range []string{"a", "a/b", "a/c/d", "a/c/e", "a-b", "a0", "z/y"} {
			if prefix == "" {
				h.Data(conclave.Update, path, fields{"x": 1})
			} else {
				put(h, path, strings.Repeat("x", inlineBudget))
			}
		}
		for _, row := range []struct {
			op    conclave.Operation
			path  string
			given fields
			want  []string
		}{
			{conclave.List, "", nil, []string{"a", "a-b", "a/", "a0", "z/"}},
			{conclave.List, "a/", nil, []string{"b", "c/"}},
			{conclave.List, "a", nil, []string{"b", "c/"}},
			{conclave.List, "a/b", nil, nil},
			{conclave.List, "none/", nil, nil},
			{conclave.List, "", fields{"after": "a-b", "limit": 2}, []string{"a/", "a0"}},
			{conclave.List, "", fields{"after": "zz"}, nil},
			{conclave.List, "", fields{"limit": "-1"}, []string{"a", "a-b", "a/", "a0", "z/"}},
			{conclave.Scan, "", nil, []string{"a", "a-b", "a/b", "a/c/d", "a/c/e", "a0", "z/y"}},
			{conclave.Scan, "a/", nil, []string{"b", "c/d", "c/e"}},
			{conclave.Scan, "none", nil, nil},
			{conclave.Scan, "", fields{"after": "a/c/d", "limit": 2}, []string{"a/c/e", "a0"}},
			{conclave.Scan, "", fields{"after": "a/c", "limit": 1}, []string{"a/c/d"}},
			{conclave.Scan, "a", fields{"after": "c/e"}, nil},
		} {
			if got := keys(t, h, row.op, prefix+row.path, row.given); !slices.Equal(got, row.want) {
				t.Errorf("%s %s%s %v = %v, want %v", row.op, prefix, row.path, row.given, got, row.want)
			}
		}
	}
}

func TestPagesOfAScanAreTheWhole(t *testing.T) {
	h := newVersioned(t, enginetest.Fast())
	for i := range 60 {
		put(h, fmt.Sprintf("%c/%d/%s", 'a'+i%3, i%5, strings.Repeat("x/", i%4)+fmt.Sprint(i)), i)
	}
	whole := keys(t, h, conclave.Scan, "metadata/", nil)
	if len(whole) != 60 || !slices.IsSorted(whole) {
		t.Fatalf("scan gives %d keys, sorted: %v", len(whole), slices.IsSorted(whole))
	}
	for _, limit := range []int{1, 2, 7, 59, 60, 100} {
		var pages []string
		for after := ""; ; {
			page := keys(t, h, conclave.Scan, "metadata/", fields{"after": after, "limit": limit})
			if len(page) == 0 {
				break
			}
			pages = append(pages, page...)
			after = page[len(page)-1]
		}
		if !reflect.DeepEqual(pages, whole) {
			t.Errorf("pages of %d give %d keys, want %d", limit, len(pages), len(whole))
		}
	}
}

func TestStrayPathsSayWhereSecretsAre(t *testing.T) {
	h := newVersioned(t)
	for _, row := range []struct {
		op         conclave.Operation
		path, text string
	}{
		{conclave.Read, "foo", "use test/data/foo, or the command kv get"},
		{conclave.Update, "foo/bar", "use test/data/foo/bar, or the command kv put"},
		{conclave.Patch, "foo", "kv patch"},
		{conclave.Delete, "foo", "kv delete"},
		{conclave.List, "", "use test/metadata/, or the command kv list"},
		{conclave.Scan, "foo/", "use test/metadata/foo, or"},
		{conclave.Update, "data", "Name a secret: test/data/<path>"},
	} {
		response, err := h.Do(row.op, row.path, fields{"x": 1})
		if err != nil || response.Status != 404 || response.Data != nil || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], row.text) {
			t.Errorf("%s %q: %+v, %v, want 404 and a warning with %q", row.op, row.path, response, err, row.text)
		}
	}
	h.Fails(conclave.List, "data/foo/", nil, conclave.Unsupported, "test/metadata/foo")
	h.Fails(conclave.Delete, "config", nil, conclave.Unsupported, "")
	h.Fails(conclave.Read, "destroy/a", nil, conclave.Unsupported, "")
	if stored := h.Stored(); len(stored) > 0 {
		t.Errorf("stray requests stored %v", stored)
	}
}
