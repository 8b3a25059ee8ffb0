package kv

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// fill makes a secret that has every kind of version: large, small, deleted, destroyed.
func fill(h *enginetest.Harness, path string) {
	for i := range 12 {
		put(h, path, strings.Repeat(string(rune('a'+i)), 1+i%3*inlineBudget))
		h.Advance(time.Second)
	}
	h.Data(conclave.Update, "metadata/"+path, fields{"custom_metadata": fields{"owner": "team"}, "max_versions": 11})
	h.Data(conclave.Update, "delete/"+path, fields{"versions": []int{5}})
	h.Data(conclave.Update, "destroy/"+path, fields{"versions": []int{6, 7}})
}

// all is what clients can read of a secret.
func all(h *enginetest.Harness, path string) []any {
	out := []any{h.Data(conclave.Read, "metadata/"+path, nil)}
	for n := 3; n <= 12; n++ {
		response, err := h.Do(conclave.Read, "data/"+path, fields{"version": n})
		if err != nil {
			out = append(out, err)
			continue
		}
		out = append(out, *response.Data.(*dataOut))
	}
	return out
}

func TestCopyAndMoveTakeEverything(t *testing.T) {
	h := newVersioned(t)
	fill(h, "team/a")
	before, stored := all(h, "team/a"), len(h.Stored())
	got := h.Data(conclave.Update, "copy/team/a", fields{"destination": "b"})
	checkJSON(t, "copy", got, `{"destination":"b","current_version":12,"versions":10}`)
	if !reflect.DeepEqual(all(h, "b"), before) || !reflect.DeepEqual(all(h, "team/a"), before) {
		t.Error("source and copy aren't what the source was")
	}
	h.Data(conclave.Delete, "metadata/b", nil)
	checkJSON(t, "move", h.Data(conclave.Update, "move/team/a", fields{"destination": "c/d"}), `{"destination":"c/d","current_version":12,"versions":10}`)
	if !reflect.DeepEqual(all(h, "c/d"), before) {
		t.Error("what was moved isn't what the source was")
	}
	h.Fails(conclave.Read, "metadata/team/a", nil, conclave.NotFound, "")
	if got := len(h.Stored()); got != stored {
		t.Errorf("%d values are stored after the move, %d before", got, stored)
	}
	put(h, "c/d", "new")
	put(h, "team/a", "another") // the old path begins anew, and doesn't meet what was moved
	checkJSON(t, "old path", h.Data(conclave.Read, "data/team/a", nil)["data"], `{"x":"another"}`)
}

func TestDestinationIsReplacedOnlyByForce(t *testing.T) {
	for _, op := range []string{"copy/", "move/"} {
		h := newVersioned(t)
		fill(h, "a")
		put(h, "b", strings.Repeat("old", inlineBudget))
		put(h, "b", strings.Repeat("older", inlineBudget))
		before := h.Stored()
		h.Fails(conclave.Update, op+"a", fields{"destination": "b"}, conclave.Invalid, "the destination exists")
		if !reflect.DeepEqual(h.Stored(), before) {
			t.Errorf("%s: a refused request changed something", op)
		}
		want := all(h, "a")
		h.Data(conclave.Update, op+"a", fields{"destination": "b", "force": true})
		if !reflect.DeepEqual(all(h, "b"), want) {
			t.Errorf("%s: the destination isn't what the source was", op)
		}
	}
}

func TestBadDestinations(t *testing.T) {
	h := newVersioned(t)
	put(h, "a", 1)
	for _, bad := range []string{"", "a", "/b", "b/", "b//c", "../b", "b/./c", "b\x00", "b\xff", "b\n"} {
		if bad == "b\xff" {
			_, err := relocate(nil, &relocateIn{Path: "a", Destination: bad})
			if !conclave.Is(err, conclave.Invalid) {
				t.Errorf("destination %q: %v, want Invalid", bad, err)
			}
			continue
		}
		h.Fails(conclave.Update, "move/a", fields{"destination": bad}, conclave.Invalid, "destination")
	}
	h.Fails(conclave.Update, "move/a", fields{"destination": strings.Repeat("b", conclave.MaxName+1)}, conclave.Invalid, "")
	h.Fails(conclave.Update, "move/none", fields{"destination": "b"}, conclave.NotFound, "")
}

func TestRelocationOfTooMuchIsRefused(t *testing.T) {
	h := newVersioned(t, enginetest.Fast())
	for range 8 {
		put(h, "a", strings.Repeat("x", conclave.MaxValue-100))
	}
	before := len(h.Stored())
	h.Fails(conclave.Update, "copy/a", fields{"destination": "b"}, conclave.TooLarge, "destroy some first")
	if got := len(h.Stored()); got != before {
		t.Errorf("%d values are stored after a refused copy, %d before", got, before)
	}
	h.Data(conclave.Update, "destroy/a", fields{"versions": []int{1, 2}})
	h.Data(conclave.Update, "copy/a", fields{"destination": "b"})
}

func TestRelocationNeedsWhatItDoes(t *testing.T) {
	copies := []string{"update copy/a", "read data/a", "read metadata/a", "create data/b", "create metadata/b"}
	forced := append(slices.Clone(copies), "update data/b", "update metadata/b", "delete metadata/b")
	moves := append([]string{"update move/a", "delete metadata/a"}, copies[1:]...)
	for _, row := range []struct {
		path  string
		force bool
		needs []string
	}{{"copy/a", false, copies}, {"copy/a", true, forced}, {"move/a", false, moves}} {
		asked := map[string]bool{}
		h := newVersioned(t, enginetest.Fast())
		put(h, "a", 1)
		allowing := func(denied string) *enginetest.Harness {
			return h.With(enginetest.Authorize(func(op conclave.Operation, path string) bool {
				asked[op.String()+" "+path] = true
				return op.String()+" "+path != denied
			}))
		}
		for _, denied := range row.needs {
			allowing(denied).Fails(conclave.Update, row.path, fields{"destination": "b", "force": row.force}, conclave.Denied, "")
		}
		allowing("").Data(conclave.Update, row.path, fields{"destination": "b", "force": row.force})
		want := slices.Sorted(slices.Values(row.needs))
		if got := slices.Sorted(maps.Keys(asked)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s force=%v asks for %v, want %v", row.path, row.force, got, want)
		}
	}
}
