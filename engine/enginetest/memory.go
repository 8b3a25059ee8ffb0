package enginetest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"conclave"
)

// Memory is a conclave.System on storage in memory, for tests of packages that are given a transaction. One transaction
// is open at any time: what it writes is seen through Memory at once, and stays if Commit ends it. It begins with
// nothing stored, no request, no caller and no mount. It is for one goroutine.
type Memory struct {
	*tx     // of the system space
	setting setting
	request *conclave.Request
	system  *space
	spaces  map[uint64]*area // id → what was committed
	made    uint64           // the last id that was given; ids are not given twice

	// Of the open transaction:
	changed map[uint64]*area // id → the space that was made, nil if it was dropped
	opened  map[uint64]*tx   // id → its part of the transaction
}

// area is a space beside the system space.
type area struct {
	*space
	keys []byte
}

var _ conclave.System = (*Memory)(nil)

// NewMemory returns empty storage. Its clock stands still until it is set.
func NewMemory(t testing.TB) *Memory {
	now := start
	m := &Memory{setting: setting{t: t, now: &now}, system: newSpace(), spaces: map[uint64]*area{}}
	m.begin()
	return m
}

func (m *Memory) begin() {
	m.tx = newTx(&m.setting, m.system, m.request, true, &progress{})
	m.changed, m.opened = map[uint64]*area{}, map[uint64]*tx{}
}

// SetNow sets cluster time. Like the other setters it holds for the open transaction and those after it.
func (m *Memory) SetNow(now time.Time) { *m.setting.now = now }

// Advance lets cluster time pass.
func (m *Memory) Advance(d time.Duration) { m.SetNow(m.Now().Add(d)) }

// SetRequest sets the request that is being executed, nil for the vault's own work.
func (m *Memory) SetRequest(request *conclave.Request) {
	m.request, m.tx.request = request, request
	for _, part := range m.opened {
		part.request = request
	}
}

// SetCaller sets who makes the requests, nil for nobody.
func (m *Memory) SetCaller(caller *conclave.Caller) { m.setting.caller = caller }

// SetMount sets the mount whose routes run.
func (m *Memory) SetMount(mount *conclave.Mount) { m.setting.mount = mount }

// Values returns what the open transaction sees in the system space: path → value.
func (m *Memory) Values() map[string][]byte {
	values := maps.Clone(m.system.values)
	for path, w := range m.writes {
		values[path] = w.Value
		if w.Value == nil {
			delete(values, path)
		}
	}
	return values
}

// Emitted returns the events of the open transaction.
func (m *Memory) Emitted() []conclave.Event { return m.tx.events }

// Cells returns the counters that the open transaction sees in the system space: path → counter.
func (m *Memory) Cells() map[string]int64 {
	cells := maps.Clone(m.system.cells)
	for path := range m.cells {
		cells[path] = 0
	}
	for path := range cells {
		n, there, err := m.Cell(path)
		cells[path] = n
		if err != nil || !there {
			delete(cells, path)
		}
	}
	return cells
}

// Spaces returns the ids of the spaces that are there for the open transaction, in order.
func (m *Memory) Spaces() []uint64 {
	there := maps.Clone(m.spaces)
	maps.Copy(there, m.changed)
	maps.DeleteFunc(there, func(_ uint64, a *area) bool { return a == nil })
	return slices.Sorted(maps.Keys(there))
}

// CreateSpace makes a space whose keys tell it from all others.
func (m *Memory) CreateSpace() (conclave.Space, error) {
	m.made++
	made := &area{newSpace(), fmt.Appendf(nil, "keys of space %d", m.made)}
	m.changed[m.made] = made
	return conclave.Space{ID: m.made, Keys: bytes.Clone(made.keys)}, nil
}

// DropSpace removes a space. One that isn't there is an error, which ends the transaction: a test wants to know.
func (m *Memory) DropSpace(space conclave.Space) error {
	if _, err := m.find(space); err != nil {
		return err
	}
	m.changed[space.ID] = nil
	delete(m.opened, space.ID)
	return nil
}

// Open returns a space within the open transaction. It wants the keys that CreateSpace gave.
func (m *Memory) Open(space conclave.Space) (conclave.Tx, error) {
	found, err := m.find(space)
	if err != nil {
		return nil, err
	}
	if m.opened[space.ID] == nil {
		m.opened[space.ID] = newTx(&m.setting, found.space, m.request, true, m.progress)
	}
	return m.opened[space.ID], nil
}

func (m *Memory) find(space conclave.Space) (*area, error) {
	found, changed := m.changed[space.ID]
	if !changed {
		found = m.spaces[space.ID]
	}
	if found == nil {
		return nil, m.fail(conclave.Errorf(conclave.Internal, "there is no space %d", space.ID))
	}
	if !bytes.Equal(found.keys, space.Keys) {
		return nil, m.fail(conclave.Errorf(conclave.Internal, "the keys of space %d are others", space.ID))
	}
	return found, nil
}

// Commit ends the transaction and begins the next. The error is the first of any View or Tx of it, or the refusal of an
// AddCell; nothing has happened then.
func (m *Memory) Commit() error {
	defer m.Rollback()
	if m.failed != nil {
		return m.failed
	}
	parts := []*tx{m.tx}
	for _, id := range slices.Sorted(maps.Keys(m.opened)) {
		parts = append(parts, m.opened[id])
	}
	var judged []map[string]int64
	for _, part := range parts {
		cells, err := part.judge()
		if err != nil {
			return err
		}
		judged = append(judged, cells)
	}
	for i, part := range parts {
		part.apply(judged[i])
	}
	for id, a := range m.changed {
		m.spaces[id] = a
		if a == nil {
			delete(m.spaces, id)
		}
	}
	return nil
}

// Rollback ends the transaction without effect and begins the next.
func (m *Memory) Rollback() {
	m.checkLent()
	for _, part := range m.opened {
		part.checkLent()
	}
	m.begin()
}

// End is the end of a request: it commits if err is nil, and rolls back otherwise. It returns the request's outcome.
func (m *Memory) End(err error) error {
	if err != nil {
		m.Rollback()
		return err
	}
	return m.Commit()
}
