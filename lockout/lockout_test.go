package lockout

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

var ann = Account{"auth_x_1", "ann"}

// step commits what do does.
func step(t *testing.T, m *enginetest.Memory, do func(tx conclave.Tx) error) error {
	t.Helper()
	return m.End(do(m))
}

func guess(t *testing.T, m *enginetest.Memory, a Account, outcome Outcome) error {
	t.Helper()
	if err := step(t, m, func(tx conclave.Tx) error { return Check(tx, a, Settings{}) }); err != nil {
		return err
	}
	return step(t, m, func(tx conclave.Tx) error { return Resolve(tx, a, Settings{}, 0, outcome) })
}

func TestWrongGuessesLockForAWhile(t *testing.T) {
	m := enginetest.NewMemory(t)
	for i := range 5 {
		if err := guess(t, m, ann, Wrong); err != nil {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	if err := guess(t, m, ann, Right); !conclave.Is(err, conclave.Denied) {
		t.Fatalf("after five wrong guesses: %v, want Denied", err)
	}
	if err := guess(t, m, Account{ann.Mount, "bob"}, Right); err != nil {
		t.Errorf("another account is locked as well: %v", err)
	}
	m.Advance(15*time.Minute - time.Second)
	if err := guess(t, m, ann, Right); !conclave.Is(err, conclave.Denied) {
		t.Errorf("just before the end: %v, want Denied", err)
	}
	m.Advance(time.Second)
	if err := guess(t, m, ann, Right); err != nil {
		t.Errorf("after the end: %v", err)
	}
	if values, cells := m.Values(), m.Cells(); len(values) != 0 || cells[accountsCell] != 0 {
		t.Errorf("what is left: %v, %v", values, cells)
	}
}

// That an account was locked is told once, without its name.
func TestLockedAccountsAreTold(t *testing.T) {
	m := enginetest.NewMemory(t)
	for round := range 2 {
		for i := range 5 {
			if err := Resolve(m, ann, Settings{}, 0, Wrong); err != nil {
				t.Fatal(err)
			}
			events := m.Emitted()
			if want := i == 4; (len(events) == 1) != want {
				t.Fatalf("round %d, guess %d: events %v", round, i, events)
			}
			if i == 4 {
				e := events[0]
				if e.Type != EventLocked || e.Path != "sys/locked-users" || e.Metadata["mount_accessor"] != ann.Mount || strings.Contains(fmt.Sprint(e), ann.Name) {
					t.Errorf("the event is %+v", e)
				}
			}
			if err := m.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if err := Resolve(m, ann, Settings{}, 0, Wrong); err != nil || len(m.Emitted()) > 0 {
			t.Errorf("of an account that is locked already: %v, %v", m.Emitted(), err)
		}
		m.Rollback()
		m.Advance(16 * time.Minute)
	}
}

func TestRightGuessForgetsWrongOnes(t *testing.T) {
	m := enginetest.NewMemory(t)
	for range 20 {
		for _, outcome := range []Outcome{Wrong, Wrong, Wrong, Wrong, Right} {
			if err := guess(t, m, ann, outcome); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReservedGuessesAreNeverMoreThanTheThreshold(t *testing.T) {
	m := enginetest.NewMemory(t)
	reserve := func() (until int64, err error) {
		err = step(t, m, func(tx conclave.Tx) (err error) { until, err = Reserve(tx, ann, Settings{}); return err })
		return until, err
	}
	var held []int64
	for range 5 {
		until, err := reserve()
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, until)
	}
	if _, err := reserve(); err != ErrBusy {
		t.Fatalf("a sixth at once: %v, want ErrBusy", err)
	}
	resolve := func(until int64, outcome Outcome) {
		t.Helper()
		if err := step(t, m, func(tx conclave.Tx) error { return Resolve(tx, ann, Settings{}, until, outcome) }); err != nil {
			t.Fatal(err)
		}
	}
	resolve(held[0], Undecided)
	if until, err := reserve(); err != nil {
		t.Errorf("after one that didn't count: %v", err)
	} else {
		held[0] = until
	}
	for _, until := range held {
		resolve(until, Wrong)
		resolve(until, Wrong) // a second resolution of the same changes nothing
	}
	if _, err := reserve(); !conclave.Is(err, conclave.Denied) {
		t.Errorf("after five wrong ones: %v, want Denied", err)
	}
}

func TestAbandonedGuessesAreWrongOnes(t *testing.T) {
	m := enginetest.NewMemory(t)
	for range 5 {
		if err := step(t, m, func(tx conclave.Tx) error { _, err := Reserve(tx, ann, Settings{}); return err }); err != nil {
			t.Fatal(err)
		}
	}
	m.Advance(Patience + time.Second)
	if err := guess(t, m, ann, Right); !conclave.Is(err, conclave.Denied) {
		t.Errorf("after five that nobody resolved: %v, want Denied", err)
	}
	m.Advance(15 * time.Minute)
	if err := guess(t, m, ann, Right); err != nil {
		t.Error(err)
	}
}

func TestGuessesAtManyNamesFillNothing(t *testing.T) {
	m := enginetest.NewMemory(t)
	if err := step(t, m, func(tx conclave.Tx) error { return tx.SetCell(accountsCell, MaxAccounts, true) }); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		a := Account{ann.Mount, fmt.Sprint("name", i)}
		for range 5 {
			if err := guess(t, m, a, Wrong); err != nil {
				t.Fatal(err)
			}
		}
		if err := guess(t, m, a, Right); !conclave.Is(err, conclave.Denied) {
			t.Errorf("%s isn't locked: %v", a.Name, err)
		}
	}
	if got := len(m.Values()); got > 50 || m.Cells()[accountsCell] != MaxAccounts {
		t.Errorf("%d records, %d own ones", got, m.Cells()[accountsCell])
	}
}

func TestTidyRemovesWhatSaysNothing(t *testing.T) {
	m := enginetest.NewMemory(t)
	for i := range 7 {
		if err := guess(t, m, Account{fmt.Sprint("mount", i%2), fmt.Sprint("name", i)}, Wrong); err != nil {
			t.Fatal(err)
		}
	}
	m.Advance(16 * time.Minute)
	after, steps := "", 0
	for again := true; again; again = after != "" && steps < 20 {
		if err := step(t, m, func(tx conclave.Tx) (err error) {
			after, err = Tidy(tx, after, 2, func(string) Settings { return Settings{} })
			return err
		}); err != nil {
			t.Fatal(err)
		}
		steps++
	}
	if len(m.Values()) != 0 || m.Cells()[accountsCell] != 0 {
		t.Errorf("after %d steps: %v, %v", steps, m.Values(), m.Cells())
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"alias":"ann","failed":5,"last":1,"pending":[2]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		m := enginetest.NewMemory(t)
		if m.Put(ann.path(), value) != nil || m.End(nil) != nil {
			t.Skip("no value")
		}
		_ = Check(m, ann, Settings{})
	})
}
