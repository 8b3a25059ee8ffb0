package schedule

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/engine/enginetest"
)

const mount = "3b0d3c0e-0000-4000-8000-000000000001"

// due are the names that are due, in order.
func due(t *testing.T, m *enginetest.Memory) []string {
	t.Helper()
	names, err := Due(m, mount, MaxStep)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func wake(t *testing.T, m *enginetest.Memory, name string, at time.Time) {
	t.Helper()
	if err := Wake(m, mount, name, at); err != nil {
		t.Fatal(err)
	}
}

func TestLatestTimeHolds(t *testing.T) {
	m := enginetest.NewMemory(t)
	wake(t, m, "static/a", m.Now().Add(time.Hour))
	wake(t, m, "static/b", m.Now().Add(time.Minute))
	wake(t, m, "static/a", m.Now().Add(2*time.Minute))
	wake(t, m, "static/c", m.Now().Add(time.Minute))
	wake(t, m, "static/c", time.Time{})
	if got := due(t, m); len(got) != 0 {
		t.Errorf("%v are due before their time", got)
	}
	m.Advance(90 * time.Second)
	if got := due(t, m); !slices.Equal(got, []string{"static/b"}) {
		t.Errorf("%v are due, want static/b", got)
	}
	m.Advance(time.Hour)
	if got := due(t, m); !slices.Equal(got, []string{"static/a", "static/b"}) {
		t.Errorf("%v are due, want both once", got)
	}
	for _, name := range []string{"static/a", "static/b"} {
		wake(t, m, name, time.Time{})
	}
	if left := m.Values(); len(left) != 0 {
		t.Errorf("what was taken back left %v", left)
	}
}

// Whoever claims work has it for himself until the claim ends; then it is due again.
func TestClaimedWorkIsDueAgainWhenLost(t *testing.T) {
	m := enginetest.NewMemory(t)
	wake(t, m, "a", m.Now())
	m.Advance(time.Minute)
	for i, want := range []bool{true, false} {
		if claimed, err := Claim(m, mount, "a", m.Now().Add(time.Minute)); err != nil || claimed != want {
			t.Fatalf("claim %d: %v, %v", i, claimed, err)
		}
	}
	if got := due(t, m); len(got) != 0 {
		t.Errorf("%v are due while they are claimed", got)
	}
	m.Advance(2 * time.Minute)
	if got := due(t, m); len(got) != 1 {
		t.Errorf("%v are due after a claim was lost, want a", got)
	}
	if claimed, err := Claim(m, mount, "a", m.Now().Add(time.Minute)); err != nil || !claimed {
		t.Fatalf("%v, %v", claimed, err)
	}
	if err := Settle(m, mount, "a"); err != nil {
		t.Fatal(err)
	}
	if left := m.Values(); len(left) != 0 {
		t.Errorf("settled work left %v", left)
	}
}

// A time that somebody sets while the work is done stays.
func TestSettleKeepsNewTimes(t *testing.T) {
	m := enginetest.NewMemory(t)
	wake(t, m, "a", m.Now())
	m.Advance(time.Minute)
	if claimed, err := Claim(m, mount, "a", m.Now().Add(time.Minute)); err != nil || !claimed {
		t.Fatalf("%v, %v", claimed, err)
	}
	wake(t, m, "a", m.Now().Add(time.Hour))
	for _, work := range []func() error{func() error { return Settle(m, mount, "a") }, func() error { return Fail(m, mount, "a", "x") }} {
		if err := work(); err != nil {
			t.Fatal(err)
		}
		if a, err := Find(m, mount, "a"); err != nil || a == nil || a.At != m.Now().Add(time.Hour).UnixNano() || a.Failed != 0 {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

func TestFailuresPauseLongerAndLonger(t *testing.T) {
	m := enginetest.NewMemory(t)
	wake(t, m, "a", m.Now())
	last := time.Duration(0)
	for i := range 20 {
		m.Advance(11 * time.Minute)
		if err := Fail(m, mount, "a", strings.Repeat("x", 2*maxError)); err != nil {
			t.Fatal(err)
		}
		a, err := Find(m, mount, "a")
		if err != nil || a == nil || a.Failed != i+1 || len(a.Error) != maxError {
			t.Fatalf("%+v, %v", a, err)
		}
		wait := time.Unix(0, a.At).Sub(m.Now())
		if wait < last || wait < firstPause || wait > maxPause {
			t.Errorf("after %d failures it waits %v, before it was %v", i+1, wait, last)
		}
		last = wait
	}
	wake(t, m, "a", m.Now())
	if a, err := Find(m, mount, "a"); err != nil || a.Failed != 0 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestClosedMountsAreCleared(t *testing.T) {
	m := enginetest.NewMemory(t)
	if err := Close(m, mount); err != nil || len(m.Values()) != 0 {
		t.Fatalf("a mount without work leaves %v, %v", m.Values(), err)
	}
	for i := range 25 {
		wake(t, m, fmt.Sprintf("static/%d", i), m.Now().Add(time.Duration(i)*time.Hour))
	}
	if err := Wake(m, "other", "stays", m.Now()); err != nil {
		t.Fatal(err)
	}
	if err := Close(m, mount); err != nil {
		t.Fatal(err)
	}
	if closed, err := Closed(m); err != nil || !slices.Equal(closed, []string{mount}) {
		t.Fatalf("%v, %v", closed, err)
	}
	steps := 0
	for more := true; more; steps++ {
		var err error
		if more, err = Clear(m, mount, 10); err != nil {
			t.Fatal(err)
		}
	}
	if steps != 4 || len(m.Values()) != 2 {
		t.Errorf("after %d steps there is %v", steps, m.Values())
	}
	if mounts, err := Mounts(m); err != nil || !slices.Equal(mounts, []string{"other"}) {
		t.Errorf("%v, %v", mounts, err)
	}
}

func TestWrongNamesAreRefused(t *testing.T) {
	m := enginetest.NewMemory(t)
	for _, name := range []string{"", strings.Repeat("x", MaxName+1), "\xff"} {
		if err := Wake(m, mount, name, m.Now()); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	for _, name := range []string{strings.Repeat("x", MaxName), "a//b", "../a", "a/"} {
		wake(t, m, name, m.Now())
	}
}

const golden = `{"name":"static/app","at":1767323045678901234,"claimed":true,"failed":2,"error":"closed"}`

func TestAppointmentGolden(t *testing.T) {
	want := &Appointment{Name: "static/app", At: 1767323045678901234, Claimed: true, Failed: 2, Error: "closed"}
	got, err := decode([]byte(golden))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decoded as %+v, %v", got, err)
	}
	if encoded, err := json.Marshal(want); err != nil || string(encoded) != golden {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
	if got, want := keyOf("static/app"), "Dll-JqkuTRLi6SqJXOcoajeuV5DZ1MTxXx38C9rQcyY"; got != want {
		t.Errorf("keyOf = %s, want %s", got, want)
	}
}

func FuzzDecodeAppointment(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		a, err := decode(value)
		if err != nil {
			return
		}
		again, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := decode(again); err != nil || !reflect.DeepEqual(a, second) {
			t.Fatalf("%s: %+v, %v", again, second, err)
		}
	})
}

// What can't be begun or finished is shown until it can, or isn't wanted any more.
func TestFailuresAreShown(t *testing.T) {
	m := enginetest.NewMemory(t)
	shown := func() []failedOutput {
		t.Helper()
		out, err := showFailed(t.Context(), m, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out.Failed
	}
	for _, name := range []string{"a", "b"} {
		wake(t, m, name, m.Now())
	}
	m.Advance(time.Minute)
	if got := shown(); len(got) != 0 {
		t.Errorf("nothing has failed, and %v is shown", got)
	}
	for range 2 {
		m.Advance(time.Hour)
		for _, name := range []string{"a", "b"} {
			if err := Fail(m, mount, name, "closed"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := shown(); len(got) != 2 || got[0].Failed != 2 || got[0].Error != "closed" || got[0].Mount != mount {
		t.Errorf("shown: %v", got)
	}
	m.Advance(time.Hour)
	if claimed, err := Claim(m, mount, "a", m.Now().Add(time.Minute)); err != nil || !claimed {
		t.Fatalf("%v, %v", claimed, err)
	}
	if got := shown(); len(got) != 2 {
		t.Errorf("while it is tried again: %v", got)
	}
	wake(t, m, "a", m.Now().Add(time.Hour))
	wake(t, m, "b", time.Time{})
	if got := shown(); len(got) != 0 {
		t.Errorf("shown still: %v", got)
	}
}
