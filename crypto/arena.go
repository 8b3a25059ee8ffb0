//go:build unix

package crypto

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Errors of Arena.
var (
	ErrArenaSize   = errors.New("crypto: an arena has 1 byte to 64 MiB")
	ErrArenaFull   = errors.New("crypto: no room left in locked memory")
	ErrArenaClosed = errors.New("crypto: locked memory is closed")
	ErrWiped       = errors.New("crypto: the secret was wiped")
)

const (
	maxArena  = 64 << 20
	heldAlign = 16
)

// Arena is memory for the few secrets that matter most: outside Go's heap, so never copied by the runtime; locked, so never swapped;
// left out of core dumps and wiped in a forked child, where the system can (Linux); between two pages that fault on touch.
//
//	guard page │ held, held, … free │ guard page
//
// It is safe for concurrent use. On systems that aren't Unix there is no Arena.
type Arena struct {
	redacted
	mu     sync.Mutex // guards all below, and the fields of every Held of this arena
	idle   sync.Cond  // tells Close that no Use is running
	region []byte     // the mapping with its guards; nil once unmapped
	memory []byte     // what can be used of it
	held   []*Held    // by position
	uses   int        // Use calls running
	closed bool
}

// NewArena maps and locks memory for size bytes of secrets, each rounded up to 16. If the system refuses to lock, the error says what to
// raise.
func NewArena(size int) (*Arena, error) {
	if size < 1 || size > maxArena {
		return nil, ErrArenaSize
	}
	page := os.Getpagesize()
	size = (size + page - 1) / page * page
	region, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("crypto: map %d bytes: %w", size+2*page, err)
	}
	memory := region[page : page+size : page+size]
	if err := protect(memory); err != nil {
		unix.Munmap(region)
		return nil, err
	}
	a := &Arena{region: region, memory: memory}
	a.idle.L = &a.mu
	return a, nil
}

// protect makes memory usable, locks it and keeps it out of dumps.
func protect(memory []byte) error {
	if err := unix.Mprotect(memory, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("crypto: unprotect locked memory: %w", err)
	}
	if err := unix.Mlock(memory); err != nil {
		return lockError(len(memory), err)
	}
	return keepPrivate(memory)
}

func lockError(size int, err error) error {
	return fmt.Errorf("crypto: lock %d KiB of memory: %w: raise the limit of locked memory, with `ulimit -l` in a shell, "+
		"LimitMEMLOCK= in a systemd unit or --ulimit memlock= for a container", size>>10, err)
}

// Held is one secret in an Arena. It prints and marshals as [redacted].
type Held struct {
	redacted
	arena *Arena
	data  []byte // nil once wiped, or if it never got room
	room  int    // bytes taken, from data's start
	at    int    // where data starts in the arena's memory
	uses  int    // Use calls running
	err   error  // why it can't be used any more
}

// Hold moves secret into the arena: it copies the bytes and overwrites the source with zeros, always. It never returns nil; if there is
// no room, or the arena is closed, every Use of the result is ErrArenaFull or ErrArenaClosed.
func (a *Arena) Hold(secret []byte) *Held {
	defer Wipe(secret)
	a.mu.Lock()
	defer a.mu.Unlock()
	h := &Held{arena: a, room: max(heldAlign, (len(secret)+heldAlign-1)/heldAlign*heldAlign)}
	if a.closed {
		h.err = ErrArenaClosed
		return h
	}
	index, at, found := a.gapLocked(h.room)
	if !found {
		h.err = ErrArenaFull
		return h
	}
	h.at = at
	h.data = a.memory[at : at+len(secret) : at+len(secret)]
	copy(h.data, secret)
	a.held = slices.Insert(a.held, index, h)
	return h
}

// Use calls f with the secret, which f must neither keep nor change, and returns f's error. If the secret is gone the error is
// ErrWiped, ErrArenaFull or ErrArenaClosed, and f isn't called. Calls may overlap and nest; a Wipe meanwhile waits for them.
func (h *Held) Use(f func([]byte) error) error {
	a := h.arena
	a.mu.Lock()
	if h.err != nil {
		a.mu.Unlock()
		return h.err
	}
	h.uses++
	a.uses++
	data := h.data
	a.mu.Unlock()
	defer h.release()
	return f(data)
}

// Wipe overwrites the secret and gives its room back: at once, or when the last running Use returns. No new Use begins.
func (h *Held) Wipe() {
	h.arena.mu.Lock()
	defer h.arena.mu.Unlock()
	h.endLocked(ErrWiped)
}

// Close wipes all secrets, waits for running Uses, and unmaps the memory. It must not be called from within Use. Closing again does
// nothing.
func (a *Arena) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, h := range slices.Clone(a.held) {
		h.endLocked(ErrArenaClosed)
	}
	for a.uses > 0 {
		a.idle.Wait()
	}
	if a.region == nil {
		return nil
	}
	Wipe(a.memory)
	region := a.region
	a.region, a.memory = nil, nil
	if err := unix.Munmap(region); err != nil {
		return fmt.Errorf("crypto: unmap locked memory: %w", err)
	}
	return nil
}

// gapLocked finds the first gap of room bytes, and where among held it lies.
func (a *Arena) gapLocked(room int) (index, at int, found bool) {
	for i, h := range a.held {
		if h.at-at >= room {
			return i, at, true
		}
		at = h.at + h.room
	}
	return len(a.held), at, len(a.memory)-at >= room
}

func (h *Held) release() {
	a := h.arena
	a.mu.Lock()
	defer a.mu.Unlock()
	h.uses--
	if h.err != nil && h.uses == 0 {
		h.freeLocked()
	}
	a.uses--
	if a.uses == 0 {
		a.idle.Broadcast()
	}
}

func (h *Held) endLocked(reason error) {
	if h.err != nil {
		return
	}
	h.err = reason
	if h.uses == 0 {
		h.freeLocked()
	}
}

func (h *Held) freeLocked() {
	Wipe(h.data)
	h.data = nil
	if i := slices.Index(h.arena.held, h); i >= 0 {
		h.arena.held = slices.Delete(h.arena.held, i, i+1)
	}
}
