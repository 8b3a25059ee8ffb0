package jwt

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// add begins an attempt in a transaction of its own.
func add(m *enginetest.Memory, n int) (string, error) {
	state, err := addAttempt(m, fmt.Sprintf("%043d", n), &attempt{Role: "a", Expires: m.Now().Add(attemptTime)})
	return state, m.End(err)
}

func TestAttemptsAreBounded(t *testing.T) {
	m := enginetest.NewMemory(t)
	if err := makeRoom(m); err != nil {
		t.Fatal(err)
	}
	if err := m.End(m.SetCell(roomCell, 3, true)); err != nil { // instead of thousands
		t.Fatal(err)
	}
	var states []string
	for i := range 3 {
		state, err := add(m, i)
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, state)
	}
	if _, err := add(m, 3); !conclave.Is(err, conclave.Limited) {
		t.Errorf("one too many: %v, want Limited", err)
	}
	_, path, err := loadAttempt(m, states[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := m.End(endAttempt(m, path)); err != nil {
		t.Fatal(err)
	}
	if _, err := add(m, 4); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	m.Advance(attemptTime + bucketSeconds*time.Second)
	if _, err := add(m, 5); err != nil {
		t.Errorf("after all have expired: %v", err)
	}
	if n, _, _ := m.Cell(roomCell); n != 2 || len(m.Values()) != 1 {
		t.Errorf("there is room for %d beside %v", n, m.Values())
	}
	if err := makeRoom(m); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := m.Cell(roomCell); n != 2 {
		t.Errorf("writing the configuration again makes room for %d", n)
	}
}

func TestSweepingGoesOnWhereItEnded(t *testing.T) {
	m := enginetest.NewMemory(t)
	if err := makeRoom(m); err != nil {
		t.Fatal(err)
	}
	if err := m.Commit(); err != nil {
		t.Fatal(err)
	}
	for i := range sweepSize + 10 {
		if _, err := add(m, i); err != nil {
			t.Fatal(err)
		}
	}
	m.Advance(time.Hour)
	for i, want := range []int{11, 2, 3} {
		if _, err := add(m, 1000+i); err != nil {
			t.Fatal(err)
		}
		if got := len(m.Values()); got != want {
			t.Errorf("after beginning %d there are %d, want %d", i, got, want)
		}
	}
	if n, _, _ := m.Cell(roomCell); n != maxAttempts-3 {
		t.Errorf("there is room for %d", n)
	}
}

func TestBuckets(t *testing.T) {
	for _, at := range []int64{0, 59, 60, 1_700_000_000, lastSecond} {
		expires := time.Unix(at, 999)
		end, ok := bucketEnd(bucketOf(expires))
		if !ok || !end.After(expires) || end.Sub(expires) > bucketSeconds*time.Second {
			t.Errorf("what expires at %v is in a bucket that ends at %v, %v", expires, end, ok)
		}
		if bucket := bucketOf(expires); len(bucket) != 10 {
			t.Errorf("bucket %q", bucket)
		}
	}
}

const lastSecond = 253402300799 // of the year 9999

func FuzzAttemptPath(f *testing.F) {
	f.Add(stateOf("0000000abc", strings.Repeat("A", randomText)))
	f.Add(stateOf("0000000abc", strings.Repeat("_", randomText)) + ",ns=a/b")
	f.Add("st_../x")
	f.Fuzz(func(t *testing.T, state string) {
		path, ok := attemptPath(state)
		if !ok {
			return
		}
		rest, inside := strings.CutPrefix(path, attemptsDir)
		bucket, random, _ := strings.Cut(rest, "/")
		if !inside || strings.ContainsAny(random, "/.") || !strings.HasPrefix(state, stateOf(bucket, random)) {
			t.Errorf("attemptPath(%q) = %q", state, path)
		}
	})
}
