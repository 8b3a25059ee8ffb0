package event

import (
	"strings"
	"testing"

	"conclave"
)

var filtered = &conclave.Occurrence{
	Event: conclave.Event{Type: "kv-v2/data-write", Path: "data/app/x", Metadata: map[string]string{"operation": "data-write", "current_version": "3"}},
	Mount: &conclave.Mount{Path: "secret/"}, Namespace: conclave.Namespace{ID: "a", Path: "team/"},
}

func TestFilters(t *testing.T) {
	for source, want := range map[string]bool{
		`operation == "data-write"`:                                                    true,
		`operation == data-write`:                                                      true,
		`operation != "data-write"`:                                                    false,
		`data_path == secret/data/app/x`:                                               true,
		`data_path contains "app"`:                                                     true,
		`data_path not contains "app"`:                                                 false,
		`event_type == "kv-v2/data-write" and namespace == "team/"`:                    true,
		`event_type == "x" or source_plugin_mount == "secret/"`:                        true,
		`not event_type == "x"`:                                                        true,
		`event_type == "x" and event_type == "x" or operation is not empty`:            true,
		`event_type == "x" and (event_type == "x" or operation is not empty)`:          true == false,
		"metadata.current_version == `3`":                                              true,
		`metadata.other is empty`:                                                      true,
		`metadata.other == "and"`:                                                      false,
		`data_path == secret/data/app/x and operation != "data-write" or not (a == b)`: false, // refused, see below
	} {
		f, err := ParseFilter(source)
		if strings.Contains(source, "(a == b)") {
			if !conclave.Is(err, conclave.Invalid) {
				t.Errorf("%s: %v, want Invalid", source, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got := f.Matches(filtered); got != want {
			t.Errorf("%s = %v, want %v", source, got, want)
		}
	}
	if f, err := ParseFilter(" "); f != nil || err != nil {
		t.Errorf("the empty filter is %v, %v", f, err)
	}
}

func TestBadFiltersAreRefused(t *testing.T) {
	for _, source := range []string{"operation", "operation ==", "== x", "operation == x y", "(operation == x", "operation == x)", "operation == (", "operation = x",
		`operation == "x`, "operation is", "operation is not", "operation not x", "secret == x", "metadata. == x", "operation ~ x", "operation == x and", "not", "operation == =="} {
		if _, err := ParseFilter(source); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want Invalid", source, err)
		}
	}
	deep := strings.Repeat("(", 20) + "operation == x" + strings.Repeat(")", 20)
	many := strings.TrimSuffix(strings.Repeat("operation == x or ", 40), " or ")
	for _, source := range []string{deep, many, strings.Repeat("x", 2000)} {
		if _, err := ParseFilter(source); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%.20s…: %v, want Invalid", source, err)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`operation == "data-write" and (data_path contains x or not namespace is empty)`)
	f.Add("metadata.a != `b`")
	f.Fuzz(func(t *testing.T, source string) {
		filter, err := ParseFilter(source)
		if err == nil && filter != nil {
			filter.Matches(filtered)
			filter.Matches(&conclave.Occurrence{})
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(Cursor{Seq: 7, Done: 3, Link: [8]byte{1, 2}}.String())
	f.Add("c1-")
	f.Add("c1-0000000000000000000\n0000")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseCursor(text); err == nil && c.String() != text {
			t.Fatalf("%q is read as %+v, which is %q", text, c, c.String())
		}
	})
}

func FuzzSelection(f *testing.F) {
	f.Add("kv-v2/data-*", "a/*", "secret/*")
	f.Fuzz(func(t *testing.T, types, namespace, paths string) {
		s := Selection{Types: types, Namespaces: []string{namespace}, Paths: paths}
		if s.Check() == nil {
			s.Matches(filtered)
		}
	})
}

// The text of a cursor is what clients keep: it stays as it is.
func TestCursorGolden(t *testing.T) {
	c := Cursor{Seq: 4711, Done: 2, Link: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}
	const want = "c1-AAAAAAAAEmcAAgECAwQFBgcI"
	if got := c.String(); got != want {
		t.Errorf("cursor is %s, want %s", got, want)
	}
	if got, err := ParseCursor(want); err != nil || got != c {
		t.Errorf("ParseCursor = %+v, %v, want %+v", got, err, c)
	}
	for _, bad := range []string{"", "c1-", want + "A", want[:len(want)-1], "c2" + want[2:], strings.ToLower(want), want[:10] + "\n" + want[11:], Cursor{Seq: 1 << 63}.String(), Cursor{Done: 65}.String()} {
		if _, err := ParseCursor(bad); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("ParseCursor(%q): %v, want Invalid", bad, err)
		}
	}
}
