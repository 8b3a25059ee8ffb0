package mount

import (
	"slices"
	"strings"
	"time"

	"conclave"
)

// memory is a Tx over a map, for tests: it has neither conflicts nor judgement, and executes what it is told at once.
type memory struct {
	values map[string][]byte
	cells  map[string]int64
	loaded map[string]any
	now    time.Time
	caller *conclave.Caller
	spaces map[uint64]bool // spaces that were made → whether they are still there
}

var _ conclave.System = (*memory)(nil)

func newMemory() *memory {
	return &memory{values: map[string][]byte{}, cells: map[string]int64{}, loaded: map[string]any{}, now: time.Unix(1_700_000_000, 0),
		spaces: map[uint64]bool{}}
}

func (m *memory) CreateSpace() (conclave.Space, error) {
	space := conclave.Space{ID: uint64(len(m.spaces) + 1), Keys: []byte("keys")}
	m.spaces[space.ID] = true
	return space, nil
}

func (m *memory) DropSpace(space conclave.Space) error {
	m.spaces[space.ID] = false
	return nil
}

func (m *memory) Open(conclave.Space) (conclave.Tx, error) { return newMemory(), nil }

func (m *memory) Get(path string) ([]byte, error) { return m.values[path], nil }

func (m *memory) Load(path string, decode func([]byte) (any, error)) (any, error) {
	value, ok := m.values[path]
	if !ok {
		return nil, nil
	}
	if object, ok := m.loaded[path]; ok {
		return object, nil
	}
	object, err := decode(value)
	if err == nil {
		m.loaded[path] = object
	}
	return object, err
}

func (m *memory) List(dir, after string, limit int) ([]string, error) {
	var names []string
	if dir != "" && !strings.HasSuffix(dir, "/") {
		return nil, conclave.Errorf(conclave.Internal, "directory %q doesn't end in a slash", dir)
	}
	for path := range m.values {
		rest, ok := strings.CutPrefix(path, dir)
		if !ok {
			continue
		}
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			rest = rest[:i+1]
		}
		if rest > after {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names, nil
}

func (m *memory) Cell(path string) (int64, bool, error) { n, ok := m.cells[path]; return n, ok, nil }
func (m *memory) Now() time.Time                        { return m.now }
func (m *memory) Reached(at time.Time) bool             { return !m.now.Before(at) }
func (m *memory) Request() *conclave.Request            { return nil }
func (m *memory) Caller() *conclave.Caller              { return m.caller }
func (m *memory) Mount() *conclave.Mount                { return nil }

func (m *memory) Put(path string, value []byte) error {
	m.values[path] = value
	delete(m.loaded, path)
	return nil
}

func (m *memory) Delete(path string) error {
	delete(m.values, path)
	delete(m.loaded, path)
	return nil
}

func (m *memory) SetCell(path string, value int64, present bool) error {
	m.cells[path] = value
	if !present {
		delete(m.cells, path)
	}
	return nil
}

func (m *memory) AddCell(path string, delta, floor int64, refusal error) error {
	if n, ok := m.cells[path]; !ok || n+delta < floor {
		return refusal
	}
	m.cells[path] += delta
	return nil
}
