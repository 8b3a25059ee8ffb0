package enginetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

// rounds is how often Conformance tries each route with fields at random. The seed is fixed: a failure repeats.
const rounds = 60

// AnswersAbsent lists patterns of routes whose Read or List answers without anything having been stored under the path:
// they compute, or they have defaults. Conformance expects NotFound of all others that have a path parameter.
func AnswersAbsent(patterns ...string) Option {
	return func(h *Harness) { h.answersAbsent = append(h.answersAbsent, patterns...) }
}

// Conformance checks what every plug-in promises, whatever it does: its routes are documented, typed and canonical; its
// handlers are pure, and those that only read don't write; bad fields are the caller's error, never an internal one; what
// isn't there is NotFound. An engine with leases ends them twice, and one with work has none for what is gone; what is taken back in an emergency may be gone. It runs on empty storage; a plug-in's own tests show that it works.
func Conformance(t *testing.T, plugin conclave.Plugin, options ...Option) {
	t.Helper()
	probe := Harness{setting: setting{mount: &conclave.Mount{}, caller: &conclave.Caller{}}}
	for _, option := range options {
		option(&probe)
	}
	engine := openPlugin(t, plugin, probe.mount.Options)
	fresh := func(t testing.TB) *Harness { return New(t, engine, options...) }
	for _, route := range engine.Routes() {
		t.Run(route.Operation.String()+" "+route.Pattern, func(t *testing.T) {
			check(t, &route, fresh)
		})
	}
	checkLeaser(t, engine, fresh)
	checkWorker(t, engine, fresh)
	checkEmergency(t, engine, fresh)
}

func check(t testing.TB, route *conclave.Route, fresh func(testing.TB) *Harness) {
	checkPattern(t, route)
	checkDoc(t, route)
	checkSchema(t, route)
	checkAbsent(t, fresh(t), route)
	checkWrongTypes(t, fresh(t), route)
	checkRandomFields(t, fresh(t), route)
	checkSecretsStay(t, fresh(t), route)
}

func openPlugin(t *testing.T, plugin conclave.Plugin, options map[string]string) conclave.Engine {
	t.Helper()
	if plugin.Kind == "" || plugin.Doc == "" || strings.Contains(plugin.Doc, "\n") {
		t.Errorf("plugin %q: kind and a one-line doc are wanted, have %q", plugin.Kind, plugin.Doc)
	}
	engine, err := plugin.Open(options)
	if err != nil {
		t.Fatalf("Open(%v): %v", options, err)
	}
	if engine.Kind() != plugin.Kind {
		t.Errorf("engine is of kind %q, its plugin of kind %q", engine.Kind(), plugin.Kind)
	}
	if len(engine.Routes()) == 0 {
		t.Fatal("engine has no routes")
	}
	return engine
}

func checkPattern(t testing.TB, route *conclave.Route) {
	if route.Operation < conclave.Read || route.Operation > conclave.Scan || route.Operation == conclave.Create {
		t.Errorf("operation is %q; routes are for read, update, patch, delete, list and scan", route.Operation)
	}
	for i, segment := range strings.Split(route.Pattern, "/") {
		if segment == "" && (i > 0 || route.Pattern != "") || segment == "." || segment == ".." {
			t.Errorf("pattern has the segment %q", segment)
		}
	}
}

func checkDoc(t testing.TB, route *conclave.Route) {
	line, _, _ := strings.Cut(route.Doc, "\n")
	if line == "" || len(line) > 120 || !strings.HasSuffix(line, ".") {
		t.Errorf("doc's first line is %q; one sentence of at most 120 bytes is wanted", line)
	}
}

func checkSchema(t testing.TB, route *conclave.Route) {
	wanted := map[string]bool{} // path parameters
	for _, segment := range strings.Split(route.Pattern, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			wanted[strings.TrimSuffix(strings.TrimSuffix(name, "}"), "...")] = true
		}
	}
	if route.Input != nil {
		checkStruct(t, "input", route.Input, wanted, map[reflect.Type]bool{})
	}
	for name := range wanted {
		t.Errorf("the input has no member for the path parameter %q", name)
	}
	if route.Output != nil && route.Output != reflect.TypeFor[conclave.Response]() {
		checkStruct(t, "output", route.Output, nil, map[reflect.Type]bool{})
	}
}

var opaque = []reflect.Type{reflect.TypeFor[conclave.Secret](), reflect.TypeFor[time.Time](), reflect.TypeFor[conclave.None]()}

// checkStruct wants a json or path tag and a doc on every member. It takes the path parameters it finds out of wanted.
func checkStruct(t testing.TB, what string, typ reflect.Type, wanted map[string]bool, seen map[reflect.Type]bool) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if slices.Contains(opaque, typ) || seen[typ] {
		return
	}
	seen[typ] = true
	if typ.Kind() != reflect.Struct {
		if len(seen) == 1 {
			t.Errorf("%s is a %s, not a struct", what, typ)
		}
		return
	}
	for _, f := range reflect.VisibleFields(typ) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		param, fromPath := f.Tag.Lookup("path")
		switch {
		case name == "-" || name == "*":
			continue
		case fromPath && (!wanted[param] || f.Type.Kind() != reflect.String):
			t.Errorf("%s.%s: no string parameter %q in the pattern", typ, f.Name, param)
		case !fromPath && name == "":
			t.Errorf("%s.%s has no json tag", typ, f.Name)
		}
		delete(wanted, param)
		if f.Tag.Get("doc") == "" {
			t.Errorf("%s.%s has no doc tag", typ, f.Name)
		}
		checkStruct(t, what, f.Type, nil, seen)
	}
}

// examplePath fills the parameters of a pattern.
func examplePath(pattern string) string {
	segments := strings.Split(pattern, "/")
	for i, segment := range segments {
		if strings.HasSuffix(segment, "...}") {
			segments[i] = "absent/thing"
		} else if strings.HasPrefix(segment, "{") {
			segments[i] = "absent"
		}
	}
	return strings.Join(segments, "/")
}

func checkAbsent(t testing.TB, h *Harness, route *conclave.Route) {
	response, err := h.Do(route.Operation, examplePath(route.Pattern), nil)
	checkAnswer(t, "without fields", response, err)
	reads := route.Operation == conclave.Read || route.Operation == conclave.List || route.Operation == conclave.Scan
	if !reads || !strings.Contains(route.Pattern, "{") || slices.Contains(h.answersAbsent, route.Pattern) {
		return
	}
	if err == nil && response.Status != 404 {
		t.Errorf("answers for a path where nothing is")
	}
	if err != nil && !conclave.Is(err, conclave.NotFound) && !conclave.Is(err, conclave.Invalid) && !conclave.Is(err, conclave.Unsupported) {
		t.Errorf("nothing there: %v, want NotFound", err)
	}
}

// checkAnswer wants an error to be classified and an answer to be JSON.
func checkAnswer(t testing.TB, when string, response *conclave.Response, err error) {
	t.Helper()
	if err != nil {
		if failure, ok := errors.AsType[*conclave.Error](err); !ok || failure.Kind == conclave.Internal {
			t.Errorf("%s: internal error %v", when, err)
		}
		return
	}
	if _, err := json.Marshal(response.Data); err != nil {
		t.Errorf("%s: the answer can't be JSON: %v", when, err)
	}
}

// checkWrongTypes gives each field an object in an object where no such thing fits; Bind must refuse it.
func checkWrongTypes(t testing.TB, h *Harness, route *conclave.Route) {
	if route.Input == nil {
		return
	}
	for _, f := range inputFields(route.Input) {
		if !isScalar(f.typ) {
			continue
		}
		_, err := h.Do(route.Operation, examplePath(route.Pattern), map[string]any{f.name: map[string]any{"a": map[string]any{}}})
		if !conclave.Is(err, conclave.Invalid) {
			t.Errorf("field %q given as an object: %v, want Invalid", f.name, err)
		}
	}
	response, err := h.Do(route.Operation, examplePath(route.Pattern), map[string]any{"no_such_field": 1})
	checkAnswer(t, "with an unknown field", response, err)
}

type inputField struct {
	name string
	typ  reflect.Type
}

func inputFields(typ reflect.Type) []inputField {
	var fields []inputField
	for _, f := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if _, fromPath := f.Tag.Lookup("path"); !fromPath && name != "" && name != "-" && name != "*" && !f.Anonymous && f.IsExported() {
			fields = append(fields, inputField{name, f.Type})
		}
	}
	return fields
}

func isScalar(typ reflect.Type) bool {
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	return typ.Kind() >= reflect.Bool && typ.Kind() <= reflect.Float64 || typ.Kind() == reflect.String || typ == reflect.TypeFor[conclave.Secret]()
}

func checkRandomFields(t testing.TB, h *Harness, route *conclave.Route) {
	random := rand.New(rand.NewPCG(1, uint64(len(route.Pattern))<<8|uint64(route.Operation)))
	var fields []inputField
	if route.Input != nil {
		fields = inputFields(route.Input)
	}
	for range rounds {
		given := map[string]any{}
		for _, f := range fields {
			if random.IntN(3) > 0 {
				given[f.name] = someValue(random, f.typ)
			}
		}
		given[fmt.Sprintf("field%d", random.IntN(3))] = someValue(random, reflect.TypeFor[any]())
		response, err := h.Do(route.Operation, examplePath(route.Pattern), given)
		checkAnswer(t, fmt.Sprintf("with %v", given), response, err)
		if t.Failed() {
			return
		}
	}
}

// odd are values that decoders trip over.
var odd = []any{nil, true, false, 0, 1, -1, 1 << 31, int64(1) << 62, json.Number("1e400"), json.Number("0.1"), "", "0", "-1", "1h", "-1h", "a", "a=b,c=d", "a/b",
	"../x", "\x00", "é\u202e", strings.Repeat("x", 5000), []any{}, []any{"a"}, []any{1, nil}, []any{[]any{}}, map[string]any{}, map[string]any{"a": nil},
	map[string]any{"a": map[string]any{"b": []any{1, "x"}}}, map[string]any{"cas": 0}, map[string]any{"cas": "x"}}

// someValue is sometimes one that fits the type, so that the fuzz gets past Bind.
func someValue(random *rand.Rand, typ reflect.Type) any {
	if random.IntN(2) == 0 {
		return odd[random.IntN(len(odd))]
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ == reflect.TypeFor[json.RawMessage]() {
		return map[string]any{"key": "value", "n": random.IntN(10)}
	}
	switch kind := typ.Kind(); {
	case kind == reflect.Bool:
		return random.IntN(2) == 0
	case kind >= reflect.Int && kind <= reflect.Float64:
		return random.IntN(4) - 1
	case kind == reflect.Slice:
		return []any{someValue(random, typ.Elem())}
	case kind == reflect.Map:
		return map[string]any{"key": someValue(random, typ.Elem())}
	case kind == reflect.Struct && typ != reflect.TypeFor[conclave.Secret]():
		members := map[string]any{}
		for _, f := range inputFields(typ) {
			members[f.name] = someValue(random, f.typ)
		}
		return members
	}
	return []string{"a", "some text", "1", "default"}[random.IntN(4)]
}

// checkSecretsStay gives all Secret fields a value that no error may show.
func checkSecretsStay(t testing.TB, h *Harness, route *conclave.Route) {
	if route.Input == nil {
		return
	}
	const canary = "canary-5f0c1e"
	given := map[string]any{}
	for _, f := range inputFields(route.Input) {
		if f.typ == reflect.TypeFor[conclave.Secret]() || f.typ == reflect.TypeFor[*conclave.Secret]() {
			given[f.name] = canary
		}
	}
	if _, err := h.Do(route.Operation, examplePath(route.Pattern), given); err != nil && strings.Contains(err.Error(), canary) {
		t.Errorf("an error shows a secret field: %v", err)
	}
}
