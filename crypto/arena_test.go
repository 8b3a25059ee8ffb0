//go:build unix

package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func newArena(t *testing.T, size int) *Arena {
	t.Helper()
	a, err := NewArena(size)
	if err != nil {
		t.Fatalf("NewArena: %v", err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// content is a copy of what h holds.
func content(h *Held) (b []byte, err error) {
	err = h.Use(func(secret []byte) error {
		b = bytes.Clone(secret)
		return nil
	})
	return b, err
}

func TestHoldMovesTheSecret(t *testing.T) {
	a := newArena(t, 4096)
	source := []byte("a root key")
	h := a.Hold(source)
	if !bytes.Equal(source, make([]byte, 10)) {
		t.Errorf("Hold left %q behind", source)
	}
	if got, err := content(h); err != nil || string(got) != "a root key" {
		t.Errorf("Use gave %q, %v", got, err)
	}
	if got, err := content(a.Hold(nil)); err != nil || len(got) != 0 {
		t.Errorf("Use of nothing gave %q, %v", got, err)
	}
	failure := errors.New("mine")
	if err := h.Use(func([]byte) error { return failure }); err != failure {
		t.Errorf("Use returned %v, want what f returned", err)
	}
	if got := fmt.Sprintf("%v %+v %x", h, h, a); got != strings.Repeat(redaction+" ", 2)+redaction {
		t.Errorf("an arena prints as %q", got)
	}
}

func TestWipeOverwritesAndGivesRoomBack(t *testing.T) {
	a := newArena(t, 1)
	n := len(a.memory) / heldAlign
	var held []*Held
	for i := range n {
		held = append(held, a.Hold(bytes.Repeat([]byte{byte(i + 1)}, heldAlign)))
	}
	if _, err := content(a.Hold([]byte{1})); err != ErrArenaFull {
		t.Errorf("one too many: %v, want ErrArenaFull", err)
	}
	if got, err := content(held[n-1]); err != nil || got[0] != byte(n) {
		t.Errorf("the last secret is %x, %v", got, err)
	}
	held[3].Wipe()
	held[4].Wipe()
	held[4].Wipe()
	if !bytes.Equal(a.memory[3*heldAlign:5*heldAlign], make([]byte, 2*heldAlign)) {
		t.Error("Wipe left the secret in memory")
	}
	if _, err := content(held[3]); err != ErrWiped {
		t.Errorf("Use after Wipe: %v, want ErrWiped", err)
	}
	if got, err := content(a.Hold(bytes.Repeat([]byte{0xee}, 2*heldAlign))); err != nil || len(got) != 2*heldAlign {
		t.Errorf("in the room given back: %x, %v", got, err)
	}
	for _, i := range []int{2, 5} {
		if got, err := content(held[i]); err != nil || got[0] != byte(i+1) {
			t.Errorf("neighbour %d is now %x, %v", i, got, err)
		}
	}
	if _, err := content(a.Hold(make([]byte, len(a.memory)+1))); err != ErrArenaFull {
		t.Errorf("a secret larger than the arena: %v, want ErrArenaFull", err)
	}
}

func TestWipeWaitsForUse(t *testing.T) {
	a := newArena(t, 1)
	h := a.Hold([]byte("secret"))
	err := h.Use(func(secret []byte) error {
		h.Wipe()
		if string(secret) != "secret" {
			t.Errorf("Wipe took the secret from under its user: %q", secret)
		}
		if _, err := content(h); err != ErrWiped {
			t.Errorf("Use after Wipe: %v, want ErrWiped", err)
		}
		return nil
	})
	if err != nil || !bytes.Equal(a.memory[:6], make([]byte, 6)) {
		t.Errorf("after Use: %q, %v", a.memory[:6], err)
	}
}

func TestUseReleasesWhenItsFunctionPanics(t *testing.T) {
	a := newArena(t, 1)
	h := a.Hold([]byte("secret"))
	func() {
		defer func() { recover() }()
		h.Use(func([]byte) error { panic("oops") })
	}()
	h.Wipe()
	if a.uses != 0 || len(a.held) != 0 {
		t.Errorf("%d uses and %d secrets remain", a.uses, len(a.held))
	}
}

func TestCloseWaitsAndEndsEverything(t *testing.T) {
	a := newArena(t, 4096)
	h, other := a.Hold([]byte("secret")), a.Hold([]byte("other"))
	entered, leave := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		h.Use(func(secret []byte) error {
			close(entered)
			<-leave
			if string(secret) != "secret" {
				t.Errorf("Close took the secret from under its user: %q", secret)
			}
			return nil
		})
	})
	<-entered
	wait.Go(func() {
		if err := a.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	close(leave)
	wait.Wait()
	if err := a.Close(); err != nil || a.region != nil {
		t.Errorf("Close again: %v", err)
	}
	for name, h := range map[string]*Held{"used": h, "other": other, "new": a.Hold([]byte("new"))} {
		if _, err := content(h); err != ErrArenaClosed {
			t.Errorf("%s after Close: %v, want ErrArenaClosed", name, err)
		}
		h.Wipe()
	}
}

func TestArenaIsSafeForConcurrentUse(t *testing.T) {
	a := newArena(t, 64<<10)
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for i := range 300 {
				want := bytes.Repeat([]byte{byte(worker + 1)}, 1+i%100)
				h := a.Hold(bytes.Clone(want))
				if got, err := content(h); err != nil || !bytes.Equal(got, want) {
					t.Errorf("worker %d holds %x, %v", worker, got, err)
				}
				h.Wipe()
			}
		})
	}
	wait.Wait()
	if !bytes.Equal(a.memory, make([]byte, len(a.memory))) {
		t.Error("something is left in memory after every Wipe")
	}
}

func TestArenaRefuses(t *testing.T) {
	for _, size := range []int{-1, 0, maxArena + 1} {
		if _, err := NewArena(size); err != ErrArenaSize {
			t.Errorf("NewArena(%d): %v, want ErrArenaSize", size, err)
		}
	}
	err := lockError(64<<10, unix.ENOMEM)
	if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "ulimit -l") || !strings.Contains(err.Error(), "LimitMEMLOCK") {
		t.Errorf("the error of a refused lock doesn't say what to do: %v", err)
	}
}

func TestWipe(t *testing.T) {
	b := []byte("secret")
	Wipe(b)
	Wipe(nil)
	if !bytes.Equal(b, make([]byte, 6)) {
		t.Errorf("Wipe left %q", b)
	}
}
