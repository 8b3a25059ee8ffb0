package enginetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

// recorder is a testing.TB that notes what is reported, to see that the kit finds what it is for.
type recorder struct {
	testing.TB
	reports []string
}

func (r *recorder) Helper()      {}
func (r *recorder) Failed() bool { return len(r.reports) > 0 }
func (r *recorder) Errorf(format string, a ...any) {
	r.reports = append(r.reports, fmt.Sprintf(format, a...))
}
func (r *recorder) has(text string) bool {
	return slices.ContainsFunc(r.reports, func(report string) bool { return strings.Contains(report, text) })
}

type engine []conclave.Route

func (engine) Kind() string               { return "fake" }
func (e engine) Routes() []conclave.Route { return e }

type in struct {
	Name  string `path:"name" doc:"A name."`
	Count int    `json:"count" doc:"A count."`
}

type out struct {
	Value string `json:"value" doc:"A value."`
}

// bad runs all checks on one route and wants a report.
func bad(t *testing.T, route conclave.Route, text string) {
	t.Helper()
	r := &recorder{TB: t}
	check(r, &route, func(tb testing.TB) *Harness { return New(tb, engine{route}) })
	if !r.has(text) {
		t.Errorf("%s %s: reports are %q, want one with %q", route.Operation, route.Pattern, r.reports, text)
	}
}

func writing(op conclave.Operation, pattern string, handle func(tx conclave.Tx, in *in) error) conclave.Route {
	return conclave.WriteRoute(op, pattern, "A doc.", func(_ context.Context, tx conclave.Tx, in *in) (*conclave.None, error) { return nil, handle(tx, in) })
}

func TestConformanceFindsWhatItIsFor(t *testing.T) {
	ok := func(_ context.Context, view conclave.View, in *in) (*out, error) {
		value, err := view.Get(in.Name)
		if err == nil && value == nil {
			err = &conclave.Error{Kind: conclave.NotFound}
		}
		return &out{string(value)}, err
	}
	good := conclave.ReadRoute(conclave.Read, "x/{name}", "A doc.", ok)
	r := &recorder{TB: t}
	if check(r, &good, func(tb testing.TB) *Harness { return New(tb, engine{good}) }); len(r.reports) > 0 {
		t.Fatalf("a good route is reported: %q", r.reports)
	}
	bad(t, conclave.ReadRoute(conclave.Create, "x/{name}", "A doc.", ok), "operation is")
	bad(t, conclave.ReadRoute(conclave.Read, "x/{name}", "", ok), "first line")
	bad(t, conclave.ReadRoute(conclave.Read, "x/{name}/", "A doc.", ok), "has the segment")
	bad(t, conclave.ReadRoute(conclave.Read, "x/{other}", "A doc.", ok), "no string parameter")
	bad(t, conclave.ReadRoute(conclave.Read, "x/{name}/{other}", "A doc.", ok), "no member for the path parameter")
	bad(t, conclave.ReadRoute(conclave.Read, "x/{name}", "A doc.", func(context.Context, conclave.View, *in) (*struct{ Value string }, error) { return nil, nil }), "has no json tag")
	bad(t, conclave.ReadRoute(conclave.Read, "x/{name}", "A doc.", func(context.Context, conclave.View, *in) (*struct {
		Value string `json:"value"`
	}, error) {
		return nil, nil
	}), "has no doc tag")
	bad(t, conclave.ReadRoute(conclave.Read, "x/{name}", "A doc.", func(context.Context, conclave.View, *in) (*out, error) { return &out{}, nil }), "answers for a path where nothing is")
	bad(t, conclave.ReadRoute(conclave.Read, "x/{name}", "A doc.", func(_ context.Context, view conclave.View, in *in) (*out, error) {
		if err := view.(conclave.Tx).Put("a", nil); err != nil {
			return nil, err
		}
		return &out{}, nil
	}), "only reads wrote")
	bad(t, writing(conclave.Update, "x/{name}", func(_ conclave.Tx, in *in) error {
		if in.Count < 0 {
			return errors.New("unclassified")
		}
		return nil
	}), "internal error")
	bad(t, writing(conclave.Update, "x/{name}", func(tx conclave.Tx, _ *in) error {
		_ = tx.Put("a//b", nil)
		return nil
	}), "went on after an error")
	bad(t, conclave.WriteRoute(conclave.Update, "x", "A doc.", func(_ context.Context, _ conclave.Tx, in *struct {
		Password conclave.Secret `json:"password" doc:"A password."`
	}) (*conclave.None, error) {
		return nil, conclave.Errorf(conclave.Invalid, "wrong password %s", in.Password.Reveal())
	}), "shows a secret")
	calls := 0
	bad(t, writing(conclave.Update, "x/{name}", func(tx conclave.Tx, _ *in) error {
		calls++
		return tx.Put("a", []byte{byte(calls)})
	}), "wrote different things")
	h := New(&recorder{TB: t}, engine{writing(conclave.Update, "x/{name}", func(tx conclave.Tx, _ *in) error {
		value, err := tx.Get("a")
		value[0]++
		return err
	})})
	h.Store("a", []byte("v"))
	if _, err := h.Do(conclave.Update, "x/y", nil); err != nil || !h.t.(*recorder).has("changed the value") {
		t.Errorf("changing what Get returned is not reported: %v", err)
	}
}

func TestFailedHandlersLeaveNothing(t *testing.T) {
	h := New(t, engine{writing(conclave.Update, "x/{name}", func(tx conclave.Tx, in *in) error {
		if err := tx.Put(in.Name, []byte("v")); err != nil {
			return err
		}
		if in.Count > 0 {
			return conclave.Errorf(conclave.Invalid, "refused")
		}
		return nil
	})})
	h.Fails(conclave.Update, "x/a", map[string]any{"count": 1}, conclave.Invalid, "refused")
	if len(h.Stored()) > 0 {
		t.Error("a failed handler stored something")
	}
	h.Data(conclave.Update, "x/a", nil)
	if string(h.Stored()["a"]) != "v" {
		t.Error("a handler that succeeded stored nothing")
	}
}

// inTx runs f in a writing transaction and commits it.
func inTx(t *testing.T, h *Harness, f func(tx conclave.Tx)) error {
	t.Helper()
	tx := h.begin(nil, true)
	f(tx)
	return tx.commit()
}

func TestTxReadsItsOwnWrites(t *testing.T) {
	h := New(t, engine{})
	for _, path := range []string{"a", "a/b", "c/d/e", "gone"} {
		h.Store(path, []byte(path))
	}
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	must(inTx(t, h, func(tx conclave.Tx) {
		must(tx.Delete("gone"))
		must(tx.Put("c/x", nil))
		must(tx.Put("a", []byte("new")))
		if got, err := tx.Get("a"); string(got) != "new" || err != nil {
			t.Errorf("Get after Put = %q, %v", got, err)
		}
		if got, _ := tx.Get("c/x"); got == nil || len(got) != 0 {
			t.Errorf("Get of an empty value = %v, want empty and not nil", got)
		}
		if got, _ := tx.Get("gone"); got != nil {
			t.Errorf("Get after Delete = %q", got)
		}
		for _, row := range []struct {
			dir, after string
			limit      int
			want       []string
		}{{"", "", 0, []string{"a", "a/", "c/"}}, {"", "a", 1, []string{"a/"}}, {"c/", "", 0, []string{"d/", "x"}}, {"none/", "", 0, nil}} {
			if got, err := tx.List(row.dir, row.after, row.limit); !slices.Equal(got, row.want) || err != nil {
				t.Errorf("List(%q, %q, %d) = %v, %v, want %v", row.dir, row.after, row.limit, got, err, row.want)
			}
		}
	}))
	if got := len(h.Stored()); got != 4 {
		t.Errorf("%d values after the commit, want 4", got)
	}
}

func TestTxLimits(t *testing.T) {
	h := New(t, engine{})
	for _, path := range []string{"", "/a", "a/", "a//b", strings.Repeat("a", conclave.MaxName+1), strings.Repeat("a/", conclave.MaxDepth) + "a"} {
		tx := h.begin(nil, true)
		if _, err := tx.Get(path); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("Get(%.20q): %v, want Invalid", path, err)
		}
		if err := tx.Put(path, nil); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("Put(%.20q): %v, want Invalid", path, err)
		}
	}
	tx := h.begin(nil, true)
	if err := tx.Put("a", make([]byte, conclave.MaxValue+1)); !conclave.Is(err, conclave.TooLarge) {
		t.Errorf("Put of too large a value: %v", err)
	}
	for i := range 8 {
		err := tx.Put(fmt.Sprint(i), make([]byte, conclave.MaxValue))
		if want := i == 7; conclave.Is(err, conclave.TooLarge) != want {
			t.Errorf("write %d of 1 MiB: %v, too large: want %v", i, err, want)
		}
	}
}

func TestCells(t *testing.T) {
	h := New(t, engine{})
	refusal := errors.New("used up")
	add := func(delta int64) error {
		return inTx(t, h, func(tx conclave.Tx) {
			if err := tx.AddCell("uses", delta, 0, refusal); err != nil {
				t.Error(err)
			}
			if err := tx.Put("seen", []byte{byte(delta)}); err != nil {
				t.Error(err)
			}
		})
	}
	if err := add(-1); err != refusal || len(h.Stored()) > 0 {
		t.Errorf("add to no cell: %v, stored %v; want the refusal and nothing", err, h.Stored())
	}
	if err := inTx(t, h, func(tx conclave.Tx) { _ = tx.SetCell("uses", 1, true) }); err != nil {
		t.Fatal(err)
	}
	if err := add(-1); err != nil {
		t.Errorf("first use: %v", err)
	}
	if err := add(-1); err != refusal {
		t.Errorf("second use: %v, want the refusal", err)
	}
	_ = inTx(t, h, func(tx conclave.Tx) {
		if n, ok, err := tx.Cell("uses"); n != 0 || !ok || err != nil {
			t.Errorf("Cell = %d, %v, %v", n, ok, err)
		}
		_ = tx.SetCell("uses", 0, false)
		if _, ok, _ := tx.Cell("uses"); ok {
			t.Error("a removed cell is there")
		}
	})
	if err := inTx(t, h, func(tx conclave.Tx) {
		_ = tx.SetCell("uses", 1, true)
		_ = tx.AddCell("uses", -2, 0, refusal)
		_ = tx.SetCell("uses", 5, true)
		_ = tx.AddCell("uses", -2, 0, refusal)
		if n, ok, err := tx.Cell("uses"); n != 3 || !ok || err != nil {
			t.Errorf("Cell = %d, %v, %v, want 3", n, ok, err)
		}
	}); err != nil {
		t.Errorf("an addition that was overwritten counts: %v", err)
	}
}

func TestLoadDecodesOncePerValue(t *testing.T) {
	h := New(t, engine{})
	decoded := 0
	load := func(tx conclave.Tx) any {
		got, err := tx.Load("a", func(value []byte) (any, error) {
			decoded++
			return string(value), nil
		})
		if err != nil {
			t.Error(err)
		}
		return got
	}
	_ = inTx(t, h, func(tx conclave.Tx) {
		if got := load(tx); got != nil || decoded > 0 {
			t.Errorf("Load of nothing = %v", got)
		}
	})
	h.Store("a", []byte("1"))
	_ = inTx(t, h, func(tx conclave.Tx) {
		first, second := load(tx), load(tx)
		_ = tx.Put("a", []byte("2"))
		if third := load(tx); !reflect.DeepEqual([]any{first, second, third}, []any{"1", "1", "2"}) || decoded != 2 {
			t.Errorf("Load = %v, %v, %v with %d decodings", first, second, third, decoded)
		}
	})
}

func TestClockIsSet(t *testing.T) {
	h := New(t, engine{})
	at := h.Now().Add(time.Second)
	tx := h.begin(nil, false)
	if tx.Reached(at) || !tx.Reached(h.Now()) {
		t.Error("a moment is reached before its time, or not at it")
	}
	if h.Advance(time.Second); !tx.Reached(at) {
		t.Error("a moment isn't reached at its time")
	}
}

func TestPreparedReachesTheHandler(t *testing.T) {
	var authorised []string
	route := conclave.ReadRoute(conclave.Read, "x", "A doc.", func(ctx context.Context, view conclave.View, _ *conclave.None) (*out, error) {
		value, ok := conclave.Prepared[string](ctx)
		if !ok || view.Request().Path != "test/x" || view.Mount().Path != "test/" || view.Caller().DisplayName != "tester" {
			return nil, conclave.Errorf(conclave.Internal, "the handler sees %q, %q", value, view.Request().Path)
		}
		return &out{value}, nil
	})
	route.Prepare = func(context.Context, *conclave.Request, any) (any, error) { return "slow", nil }
	route.Needs = func(any) []conclave.Access { return []conclave.Access{{Operation: conclave.Delete, Path: "y"}} }
	h := New(t, engine{route}, Fast(), Authorize(func(op conclave.Operation, path string) bool {
		authorised = append(authorised, op.String()+" "+path)
		return true
	}))
	if got := h.Data(conclave.Read, "x", nil)["value"]; got != "slow" {
		t.Errorf("value is %v", got)
	}
	if want := []string{"read x", "delete y"}; !slices.Equal(authorised, want) {
		t.Errorf("authorised %v, want %v", authorised, want)
	}
}
