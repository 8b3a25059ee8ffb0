package conclave

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

type anyPath struct {
	Name string `path:"name"`
	Path string `path:"path"`
	ID   string `path:"id"`
}

func route(op Operation, pattern string) Route {
	return ReadRoute(op, pattern, pattern, func(context.Context, View, *anyPath) (*None, error) { return nil, nil })
}

var routes = []Route{
	route(Read, ""), route(List, ""),
	route(Read, "config"), route(Update, "config"),
	route(Read, "keys/{name}"), route(Update, "keys/{name}"), route(List, "keys"),
	route(Update, "keys/{name}/rotate"), route(Delete, "keys/{name}"), route(Read, "keys/default"),
	route(Read, "role/{name}/secret-id/{id}"),
	route(Read, "data/{path...}"), route(Update, "data/{path...}"),
	route(List, "metadata/{path...}"), route(Read, "metadata/{path...}"),
	route(Read, "deep/{name}/{path...}"), route(Read, "deep/fixed/leaf"),
}

func TestFind(t *testing.T) {
	router := NewRouter(routes)
	for _, row := range []struct {
		op      Operation
		path    string
		pattern string // of the route found; or
		kind    Kind   // of the error
		params  map[string]string
	}{
		{op: Read, path: "", pattern: ""},
		{op: List, path: "", pattern: ""},
		{op: List, path: "/", pattern: ""},
		{op: Update, path: "", kind: Unsupported},
		{op: Read, path: "config", pattern: "config"},
		{op: Delete, path: "config", kind: Unsupported},
		{op: Read, path: "config/x", kind: NotFound},
		{op: Read, path: "conf", kind: NotFound},
		{op: Read, path: "keys/a", pattern: "keys/{name}", params: map[string]string{"name": "a"}},
		{op: Read, path: "keys/default", pattern: "keys/default"},
		{op: Update, path: "keys/default", pattern: "keys/{name}", params: map[string]string{"name": "default"}},
		{op: Update, path: "keys/default/rotate", pattern: "keys/{name}/rotate", params: map[string]string{"name": "default"}},
		{op: Read, path: "keys/a/rotate", kind: Unsupported},
		{op: List, path: "keys", pattern: "keys"},
		{op: List, path: "keys/", pattern: "keys"},
		{op: Read, path: "keys", kind: Unsupported},
		{op: Patch, path: "keys/a", kind: Unsupported},
		{op: Read, path: "role/r/secret-id/s", pattern: "role/{name}/secret-id/{id}", params: map[string]string{"name": "r", "id": "s"}},
		{op: Read, path: "role/r/secret-id", kind: NotFound},
		{op: Read, path: "data/a", pattern: "data/{path...}", params: map[string]string{"path": "a"}},
		{op: Read, path: "data/a/b/c", pattern: "data/{path...}", params: map[string]string{"path": "a/b/c"}},
		{op: Read, path: "data", kind: NotFound},
		{op: List, path: "data/a/", kind: Unsupported},
		{op: List, path: "metadata", pattern: "metadata/{path...}", params: map[string]string{"path": ""}},
		{op: List, path: "metadata/", pattern: "metadata/{path...}", params: map[string]string{"path": ""}},
		{op: List, path: "metadata/a/b/", pattern: "metadata/{path...}", params: map[string]string{"path": "a/b"}},
		{op: Read, path: "metadata", kind: NotFound},
		{op: Read, path: "deep/fixed/leaf", pattern: "deep/fixed/leaf"},
		{op: Read, path: "deep/fixed/other", pattern: "deep/{name}/{path...}", params: map[string]string{"name": "fixed", "path": "other"}},
		{op: Read, path: "deep/fixed/leaf/x", pattern: "deep/{name}/{path...}", params: map[string]string{"name": "fixed", "path": "leaf/x"}},
		{op: Read, path: "deep/a", kind: NotFound},
		{op: Read, path: "data//", kind: NotFound},
		{op: Read, path: "data//a", kind: NotFound},
		{op: Read, path: "/data/a", kind: NotFound},
		{op: List, path: "//", kind: NotFound},
	} {
		found, params, err := router.Find(row.op, row.path)
		switch {
		case row.kind != Internal:
			if KindOf(err) != row.kind {
				t.Errorf("Find(%s, %q): %v, want %s", row.op, row.path, err, row.kind)
			}
		case err != nil:
			t.Errorf("Find(%s, %q): %v, want %q", row.op, row.path, err, row.pattern)
		case found.Pattern != row.pattern || found.Operation != row.op || len(params) != len(row.params) || len(params) > 0 && !reflect.DeepEqual(params, row.params):
			t.Errorf("Find(%s, %q) = %s %q with %v, want %q with %v", row.op, row.path, found.Operation, found.Pattern, params, row.pattern, row.params)
		}
	}
}

func TestRoutesAreVisitedOnce(t *testing.T) {
	var want, got []string
	for _, r := range routes {
		want = append(want, r.Operation.String()+" "+r.Pattern)
	}
	NewRouter(routes).Routes(func(r *Route) { got = append(got, r.Operation.String()+" "+r.Pattern) })
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("visited %q, want %q", got, want)
	}
}

func TestBadPatternsPanic(t *testing.T) {
	for _, patterns := range [][]string{{"a", "a"}, {"{x}", "{y}"}, {"{x...}", "{y...}"}, {"{x...}/b"}, {"{x"}, {"x}"}, {"{}"}, {"{...}"}, {"a//b"}, {"/a"}, {"{x}/{x}"}, {"a{x}"}, {"a..."}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("patterns %q make a router", patterns)
				}
			}()
			var list []Route
			for _, pattern := range patterns {
				list = append(list, route(Read, pattern))
			}
			NewRouter(list)
		}()
	}
}

func TestWhatHandlersAnswer(t *testing.T) {
	type answer struct{ X int }
	raw := &Response{Status: 202}
	refusal := errors.New("refused")
	for _, row := range []struct {
		name  string
		route Route
		data  any // of the response
		err   func(error) bool
	}{
		{"output", ReadRoute(Read, "", "", func(context.Context, View, *None) (*answer, error) { return &answer{1}, nil }), &answer{1}, nil},
		{"nil output", ReadRoute(Read, "", "", func(context.Context, View, *None) (*answer, error) { return nil, nil }), nil, nil},
		{"none", WriteRoute(Update, "", "", func(context.Context, Tx, *None) (*None, error) { return &None{}, nil }), nil, nil},
		{"keys", ReadRoute(List, "", "", func(context.Context, View, *None) (*Keys, error) { return &Keys{Keys: []string{"a"}}, nil }), &Keys{Keys: []string{"a"}}, nil},
		{"no keys", ReadRoute(List, "", "", func(context.Context, View, *None) (*Keys, error) { return &Keys{}, nil }), nil, func(err error) bool { return Is(err, NotFound) }},
		{"error", ReadRoute(Read, "", "", func(context.Context, View, *None) (*answer, error) { return &answer{1}, refusal }), nil, func(err error) bool { return err == refusal }},
		{"response", ReadRoute(Read, "", "", func(context.Context, View, *None) (*Response, error) { return raw, nil }), nil, nil},
	} {
		in, err := row.route.Bind(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := row.route.Handle(t.Context(), nil, in)
		switch {
		case row.err != nil:
			if got != nil || !row.err(err) {
				t.Errorf("%s: %v, %v", row.name, got, err)
			}
		case err != nil || !reflect.DeepEqual(got.Data, row.data):
			t.Errorf("%s: %+v, %v, want data %v", row.name, got, err, row.data)
		case row.name == "response" && got != raw:
			t.Errorf("%s: %+v, want the handler's own", row.name, got)
		}
	}
}

func TestOptionsChangeACopy(t *testing.T) {
	plain := route(Read, "a")
	changed := plain.With(Public, Sudo)
	if plain.Public || plain.Sudo || !changed.Public || !changed.Sudo {
		t.Errorf("plain %v %v, changed %v %v", plain.Public, plain.Sudo, changed.Public, changed.Sudo)
	}
	writing := WriteRoute(Update, "a", "", func(context.Context, Tx, *None) (*None, error) { return nil, nil })
	if plain.Writes() || !writing.Writes() {
		t.Error("Writes doesn't tell the routes apart")
	}
}

func TestPreparedHasAType(t *testing.T) {
	ctx := WithPrepared(t.Context(), 7)
	if n, ok := Prepared[int](ctx); n != 7 || !ok {
		t.Errorf("Prepared = %v, %v", n, ok)
	}
	if _, ok := Prepared[string](ctx); ok {
		t.Error("what was prepared is taken for another type")
	}
	if _, ok := Prepared[int](t.Context()); ok {
		t.Error("something was prepared by nobody")
	}
}

// FuzzRouter finds any path: no panic, and a route that is found has its parameters in the path, none of them empty.
func FuzzRouter(f *testing.F) {
	for _, path := range []string{"", "/", "config", "data/a/b", "metadata/", "keys/default/rotate", "deep/fixed/leaf", "a//b", strings.Repeat("deep/", 100)} {
		f.Add(uint8(Read), path)
		f.Add(uint8(List), path)
	}
	router := NewRouter(routes)
	f.Fuzz(func(t *testing.T, op uint8, path string) {
		found, params, err := router.Find(Operation(op), path)
		if err != nil {
			if kind := KindOf(err); kind != NotFound && kind != Unsupported {
				t.Errorf("Find(%d, %q): %v", op, path, err)
			}
			return
		}
		rebuilt := found.Pattern
		for name, value := range params {
			rebuilt = strings.ReplaceAll(strings.ReplaceAll(rebuilt, "{"+name+"}", value), "{"+name+"...}", value)
		}
		if strings.Contains(path, "{") {
			return // looks like a pattern itself
		}
		if strings.TrimSuffix(rebuilt, "/") != strings.TrimSuffix(path, "/") || found.Operation != Operation(op) {
			t.Errorf("Find(%s, %q) = %s %q with %q", Operation(op), path, found.Operation, found.Pattern, params)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	router := NewRouter(routes)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := router.Find(Read, "data/team/app/database"); err != nil {
			b.Fatal(err)
		}
	}
}
