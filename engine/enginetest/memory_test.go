package enginetest

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"conclave"
)

func put(t *testing.T, tx conclave.Tx, path, value string) {
	t.Helper()
	if err := tx.Put(path, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryKeepsWhatIsCommitted(t *testing.T) {
	m := NewMemory(t)
	space, err := m.CreateSpace()
	if err != nil {
		t.Fatal(err)
	}
	inner, err := m.Open(space)
	if err != nil {
		t.Fatal(err)
	}
	put(t, m, "a", "1")
	put(t, inner, "a", "2")
	if err := m.SetCell("uses", 3, true); err != nil {
		t.Fatal(err)
	}
	if err := m.Commit(); err != nil {
		t.Fatal(err)
	}
	put(t, m, "a", "changed")
	put(t, m, "b", "new")
	_ = m.Delete("a")
	_ = m.SetCell("uses", 0, false)
	_ = m.SetCell("others", 1, true)
	inner, _ = m.Open(space)
	put(t, inner, "a", "changed")
	if err := m.DropSpace(space); err != nil {
		t.Fatal(err)
	}
	second, _ := m.CreateSpace()
	if got := m.Values(); len(got) != 1 || string(got["b"]) != "new" || !reflect.DeepEqual(m.Cells(), map[string]int64{"others": 1}) ||
		!slices.Equal(m.Spaces(), []uint64{second.ID}) {
		t.Errorf("the open transaction sees %q, %v, %v", got, m.Cells(), m.Spaces())
	}
	m.Rollback()
	if got := m.Values(); len(got) != 1 || string(got["a"]) != "1" || !reflect.DeepEqual(m.Cells(), map[string]int64{"uses": 3}) ||
		!slices.Equal(m.Spaces(), []uint64{space.ID}) {
		t.Errorf("after the rollback: %q, %v, %v", got, m.Cells(), m.Spaces())
	}
	inner, _ = m.Open(space)
	if got, err := inner.Get("a"); string(got) != "2" || err != nil {
		t.Errorf("in the space: %q, %v", got, err)
	}
	if err := m.End(m.DropSpace(space)); err != nil || len(m.Spaces()) != 0 {
		t.Errorf("dropping: %v, left %v", err, m.Spaces())
	}
	if third, _ := m.CreateSpace(); third.ID == space.ID || third.ID == second.ID || slices.Equal(third.Keys, space.Keys) {
		t.Errorf("an id or keys came twice: %+v", third)
	}
}

func TestMemoryCommitsAllOrNothing(t *testing.T) {
	m := NewMemory(t)
	refusal := errors.New("used up")
	space, _ := m.CreateSpace()
	inner, _ := m.Open(space)
	_ = inner.SetCell("uses", 1, true)
	if err := m.Commit(); err != nil {
		t.Fatal(err)
	}
	use := func() error {
		inner, _ := m.Open(space)
		put(t, m, "seen", "x")
		return m.End(inner.AddCell("uses", -1, 0, refusal))
	}
	if err := use(); err != nil || len(m.Values()) != 1 {
		t.Fatalf("first use: %v, values %q", err, m.Values())
	}
	_ = m.End(m.Delete("seen"))
	if err := use(); err != refusal || len(m.Values()) != 0 {
		t.Errorf("second use: %v, values %q; want the refusal and none", err, m.Values())
	}
	put(t, m, "a", "1")
	if _, err := m.Get("a//b"); err == nil {
		t.Fatal("an empty segment is no error")
	}
	if err := m.Commit(); !conclave.Is(err, conclave.Invalid) || len(m.Values()) != 0 {
		t.Errorf("commit after an error: %v, values %q; want the error and none", err, m.Values())
	}
	inner, _ = m.Open(space)
	put(t, m, "a", "1")
	if _, err := inner.List("no-slash", "", 0); err == nil {
		t.Fatal("a directory without a slash is no error")
	}
	if err := m.Commit(); !conclave.Is(err, conclave.Invalid) || len(m.Values()) != 0 {
		t.Errorf("commit after an error in a space: %v, values %q", err, m.Values())
	}
	put(t, m, "a", "1")
	if err := m.End(refusal); err != refusal || len(m.Values()) != 0 {
		t.Errorf("End of a failure: %v, values %q", err, m.Values())
	}
}

func TestMemoryWantsTheRightSpace(t *testing.T) {
	m := NewMemory(t)
	space, _ := m.CreateSpace()
	if err := m.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(space); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]conclave.Space{"unknown": {ID: 77, Keys: space.Keys}, "other keys": {ID: space.ID, Keys: []byte("other")}} {
		if _, err := m.Open(other); !conclave.Is(err, conclave.Internal) {
			t.Errorf("%s: Open = %v, want Internal", name, err)
		}
		if err := m.End(m.DropSpace(other)); !conclave.Is(err, conclave.Internal) || len(m.Spaces()) != 1 {
			t.Errorf("%s: DropSpace = %v, left %v", name, err, m.Spaces())
		}
	}
}

func TestMemoryReportsChangedValues(t *testing.T) {
	r := &recorder{TB: t}
	m := NewMemory(r)
	for _, value := range []string{"1", "2", "3"} { // reading, then writing and reading again, is no change
		put(t, m, "a", value)
		if _, err := m.Get("a"); err != nil {
			t.Fatal(err)
		}
	}
	put(t, m, "a", "4")
	if err := m.Commit(); err != nil || r.Failed() {
		t.Fatalf("Commit = %v, reports %q", err, r.reports)
	}
	for name, end := range map[string]func(value []byte){
		"commit": func([]byte) { _ = m.Commit() }, "rollback": func([]byte) { m.Rollback() }, "put": func(value []byte) { put(t, m, "a", string(value)) }} {
		r.reports = nil
		value, _ := m.Get("a")
		value[0]++
		if end(value); !r.has("changed the value") {
			t.Errorf("%s: not reported", name)
		}
		m.Rollback()
	}
}

func TestMemoryShowsWhatIsSet(t *testing.T) {
	m := NewMemory(t)
	if m.Request() != nil || m.Caller() != nil || m.Mount() != nil {
		t.Error("at first there is a request, a caller or a mount")
	}
	space, _ := m.CreateSpace()
	inner, _ := m.Open(space)
	request, caller, mount, now := &conclave.Request{}, &conclave.Caller{}, &conclave.Mount{}, time.Unix(5, 0)
	m.SetRequest(request)
	m.SetCaller(caller)
	m.SetMount(mount)
	m.SetNow(now)
	for _, tx := range []conclave.Tx{m, inner} {
		if tx.Request() != request || tx.Caller() != caller || tx.Mount() != mount || !tx.Now().Equal(now) || !tx.Reached(now) {
			t.Errorf("%T sees %v, %v, %v at %v", tx, tx.Request(), tx.Caller(), tx.Mount(), tx.Now())
		}
	}
	m.Advance(-time.Second)
	if m.Reached(now) || inner.Reached(now) {
		t.Error("reached what lies ahead")
	}
	if m.Rollback(); m.Request() != request {
		t.Error("the next transaction has no request")
	}
}
