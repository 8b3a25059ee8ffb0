package enginetest

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

// setting is what transactions see beside their storage.
type setting struct {
	t      testing.TB
	now    *time.Time // shared by all that run on one clock
	mount  *conclave.Mount
	caller *conclave.Caller
	fast   bool

	passwordPolicies map[string]string // name → text
}

// space is what one mount, or one caller's part of it, has stored.
type space struct {
	values map[string][]byte // path → value
	cells  map[string]int64  // path → counter
	loaded map[string]loaded // path → what was last decoded
	wakes  map[string]time.Time
}

// loaded is a decoded object with the value that it was decoded from. What an aborted transaction wrote is so never
// taken for what is stored.
type loaded struct {
	value  []byte
	object any
}

func newSpace() *space {
	return &space{values: map[string][]byte{}, cells: map[string]int64{}, loaded: map[string]loaded{}, wakes: map[string]time.Time{}}
}

// write is one effect of a transaction.
type write struct {
	Value []byte // nil deletes
	Cell  *int64 // the counter that was set, nil if it was removed
	// IsCell tells a counter from a value.
	IsCell bool
}

// addition is a conditional addition to a counter, judged at commit.
type addition struct {
	path         string
	delta, floor int64
	refusal      error
}

// progress is what the parts of one transaction share.
type progress struct {
	failed error // the first error of a View or Tx; the transaction ends with it
	bytes  int   // of all that is written
	events []conclave.Event
}

// tx implements conclave.Tx on a space in memory. Writes stay in the transaction until commit.
type tx struct {
	*setting
	*progress
	from     *space
	request  *conclave.Request
	writable bool
	writes   map[string]write // path → value written, or nil
	cells    map[string]write // path → counter written
	wakes    map[string]time.Time
	adds     []addition
	lent     map[string][]byte // path → the copy that a Get handed out, to see that it isn't changed
}

var _ conclave.Tx = (*tx)(nil)

func newTx(in *setting, from *space, request *conclave.Request, writable bool, p *progress) *tx {
	return &tx{setting: in, progress: p, from: from, request: request, writable: writable,
		writes: map[string]write{}, cells: map[string]write{}, wakes: map[string]time.Time{}, lent: map[string][]byte{}}
}

// fail keeps the first error: a handler that swallows it must not commit.
func (t *tx) fail(err error) error {
	if t.failed == nil {
		t.failed = err
	}
	return err
}

// checkPath tells what is wrong with a storage path, nil if it is a good one.
func checkPath(path string) error {
	if strings.Count(path, "/") >= conclave.MaxDepth {
		return conclave.Errorf(conclave.Invalid, "path has more than %d segments", conclave.MaxDepth)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" {
			return conclave.Errorf(conclave.Invalid, "path has an empty segment")
		}
		if len(segment) > conclave.MaxName {
			return conclave.Errorf(conclave.Invalid, "path has a segment of more than %d bytes", conclave.MaxName)
		}
	}
	return nil
}

func (t *tx) Get(path string) ([]byte, error) {
	if err := checkPath(path); err != nil {
		return nil, t.fail(err)
	}
	value := t.value(path)
	if value == nil || t.fast {
		return value, nil
	}
	if t.lent[path] == nil {
		t.lent[path] = bytes.Clone(value)
	}
	return t.lent[path], nil
}

func (t *tx) value(path string) []byte {
	if w, ok := t.writes[path]; ok {
		return w.Value
	}
	return t.from.values[path]
}

func (t *tx) Load(path string, decode func(value []byte) (any, error)) (any, error) {
	if err := checkPath(path); err != nil {
		return nil, t.fail(err)
	}
	value := t.value(path)
	if value == nil {
		return nil, nil
	}
	if last, ok := t.from.loaded[path]; ok && bytes.Equal(last.value, value) {
		return last.object, nil
	}
	object, err := decode(bytes.Clone(value))
	if err != nil {
		return nil, t.fail(err)
	}
	t.from.loaded[path] = loaded{value, object}
	return object, nil
}

// List sorts names by their bytes, the trailing slash included: "a", "a-b", "a/".
func (t *tx) List(dir, after string, limit int) ([]string, error) {
	if dir != "" {
		if !strings.HasSuffix(dir, "/") {
			return nil, t.fail(conclave.Errorf(conclave.Invalid, "directory %q doesn't end in a slash", dir))
		}
		if err := checkPath(strings.TrimSuffix(dir, "/")); err != nil {
			return nil, t.fail(err)
		}
	}
	found := map[string]bool{}
	see := func(path string) {
		rest, under := strings.CutPrefix(path, dir)
		if !under {
			return
		}
		if name, _, deeper := strings.Cut(rest, "/"); deeper {
			rest = name + "/"
		}
		if rest > after {
			found[rest] = true
		}
	}
	for path := range t.from.values {
		if _, written := t.writes[path]; !written {
			see(path)
		}
	}
	for path, w := range t.writes {
		if w.Value != nil {
			see(path)
		}
	}
	names := slices.Sorted(maps.Keys(found))
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names, nil
}

func (t *tx) Cell(path string) (int64, bool, error) {
	if err := checkPath(path); err != nil {
		return 0, false, t.fail(err)
	}
	n, ok := t.from.cells[path]
	if w, written := t.cells[path]; written {
		n, ok = 0, w.Cell != nil
		if ok {
			n = *w.Cell
		}
	}
	for _, add := range t.adds {
		if add.path == path && ok {
			n += add.delta
		}
	}
	return n, ok, nil
}

func (t *tx) Now() time.Time             { return *t.now }
func (t *tx) Reached(at time.Time) bool  { return !t.now.Before(at) }
func (t *tx) Request() *conclave.Request { return t.request }
func (t *tx) Caller() *conclave.Caller   { return t.caller }
func (t *tx) Mount() *conclave.Mount     { return t.mount }
func (t *tx) PasswordPolicy(name string) (string, error) {
	return t.passwordPolicies[name], nil
}
func (t *tx) Namespace() conclave.Namespace {
	if t.request == nil || t.request.Namespace == "" {
		return conclave.Namespace{ID: conclave.RootNamespace}
	}
	return conclave.Namespace{ID: "id-" + t.request.Namespace, Path: t.request.Namespace}
}

func (t *tx) Put(path string, v []byte) error {
	if len(v) > conclave.MaxValue {
		return t.fail(conclave.Errorf(conclave.TooLarge, "value of %d bytes is over the limit of %d", len(v), conclave.MaxValue))
	}
	value := make([]byte, len(v)) // not nil, even if v is
	copy(value, v)
	return t.note(path, write{Value: value}, len(v))
}

// PutNew fails where there is something: with a cluster the request would never succeed.
func (t *tx) PutNew(path string, v []byte) error {
	if value, err := t.Get(path); err != nil || value != nil {
		return errors.Join(err, t.fail(conclave.Errorf(conclave.Internal, "%s isn't new", path)))
	}
	return t.Put(path, v)
}

func (t *tx) Delete(path string) error { return t.note(path, write{}, 0) }

func (t *tx) SetCell(path string, value int64, present bool) error {
	w := write{IsCell: true}
	if present {
		w.Cell = &value
	}
	t.adds = slices.DeleteFunc(t.adds, func(add addition) bool { return add.path == path }) // the last word counts
	return t.note(path, w, 8)
}

func (t *tx) AddCell(path string, delta, floor int64, refusal error) error {
	if err := t.mayWrite(path, 8); err != nil {
		return err
	}
	t.adds = append(t.adds, addition{path, delta, floor, refusal})
	return nil
}

// Wake notes when work is to begin beside what is stored.
func (t *tx) Wake(name string, at time.Time) error {
	if name == "" || len(name) > 512 {
		return t.fail(conclave.Errorf(conclave.Internal, "woken for a name of %d bytes", len(name)))
	}
	if err := t.mayWrite("wake/"+name, 8); err != nil {
		return err
	}
	t.wakes[name] = at
	return nil
}

func (t *tx) Emit(event conclave.Event) error {
	if !t.writable {
		t.t.Errorf("a handler that only reads emitted %s", event.Type)
	}
	if err := event.Check(); err != nil {
		t.t.Errorf("event of type %q: %v", event.Type, err)
		return t.fail(err)
	}
	if len(t.events) == conclave.MaxEvents {
		return t.fail(conclave.Errorf(conclave.TooLarge, "more than %d events", conclave.MaxEvents))
	}
	t.events = append(t.events, event)
	return nil
}

func (t *tx) note(path string, w write, size int) error {
	if err := t.mayWrite(path, size); err != nil {
		return err
	}
	if w.IsCell {
		t.cells[path] = w
		return nil
	}
	t.checkLoan(path)
	delete(t.lent, path)
	t.writes[path] = w
	return nil
}

func (t *tx) mayWrite(path string, size int) error {
	if !t.writable {
		t.t.Errorf("a handler that only reads wrote %q", path)
		return t.fail(conclave.Errorf(conclave.Internal, "a handler that only reads wrote"))
	}
	if err := checkPath(path); err != nil {
		return t.fail(err)
	}
	if t.bytes += len(path) + size; t.bytes > conclave.MaxTransaction {
		return t.fail(conclave.Errorf(conclave.TooLarge, "transaction is over the limit of %d bytes", conclave.MaxTransaction))
	}
	return nil
}

// commit judges the additions, then applies all writes as one.
func (t *tx) commit() error {
	cells, err := t.judge()
	if err == nil {
		t.apply(cells)
	}
	return err
}

// judge returns the counters as they are after the transaction, or why one of its additions isn't allowed.
func (t *tx) judge() (map[string]int64, error) {
	cells := maps.Clone(t.from.cells)
	for path, w := range t.cells {
		delete(cells, path)
		if w.Cell != nil {
			cells[path] = *w.Cell
		}
	}
	for _, add := range t.adds {
		n, ok := cells[add.path]
		if !ok || n+add.delta < add.floor {
			if add.refusal == nil {
				return nil, conclave.Errorf(conclave.Precondition, "counter is at its limit")
			}
			return nil, add.refusal
		}
		cells[add.path] = n + add.delta
	}
	return cells, nil
}

func (t *tx) apply(cells map[string]int64) {
	for path, w := range t.writes {
		if _, shared := cells[path]; shared {
			t.t.Errorf("%q is both a value and a counter", path)
		}
		delete(t.from.values, path)
		if w.Value != nil {
			t.from.values[path] = w.Value
		}
	}
	t.from.cells = cells
	for name, at := range t.wakes {
		delete(t.from.wakes, name)
		if !at.IsZero() {
			t.from.wakes[name] = at
		}
	}
}

// checkLent reports values that the handler changed although it may not.
func (t *tx) checkLent() {
	for path := range t.lent {
		t.checkLoan(path)
	}
}

func (t *tx) checkLoan(path string) {
	if value, ok := t.lent[path]; ok && !bytes.Equal(value, t.value(path)) {
		t.t.Errorf("a handler changed the value that Get(%q) returned", path)
	}
}
