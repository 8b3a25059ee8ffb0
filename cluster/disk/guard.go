package disk

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the guard.
const (
	defaultReserve = 64 << 20 // twice what a new segment of the log and the state's tables take at once
	guardInterval  = 250 * time.Millisecond
)

// Guard watches the free space of the data directory's file system. Below the reserve nothing new is begun, so that the
// rest of it is for what has been begun; below half of it the log takes no more from other nodes either.
type Guard struct {
	dir     string
	reserve uint64 // bytes
	free    func(dir string) (free uint64, err error)
	now     func() time.Duration // monotonic

	mu      sync.Mutex // guards what follows
	checked time.Duration
	known   bool
	low     error
}

// NewGuard watches dir. A reserve of 0 bytes means the default: 64 MiB. free tells the free space in bytes; nil asks the
// file system.
func NewGuard(dir string, reserve uint64, free func(dir string) (uint64, error), now func() time.Duration) *Guard {
	if reserve == 0 {
		reserve = defaultReserve
	}
	if free == nil {
		free = statfs
	}
	return &Guard{dir: dir, reserve: reserve, free: free, now: now}
}

// Check returns an error if the reserve is reached. It asks the file system at most every 250 ms.
func (g *Guard) Check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.known && now-g.checked < guardInterval {
		return g.low
	}
	g.known, g.checked = true, now
	free, err := g.free(g.dir)
	switch {
	case err != nil:
		g.low = fmt.Errorf("free space of the data directory is not known: %w", err)
	case free < g.reserve:
		g.low = fmt.Errorf("the data directory has %d MiB left, and %d MiB are kept in reserve: free or add space", free>>20, g.reserve>>20)
	default:
		g.low = nil
	}
	return g.low
}

// Room returns an error if less than half of the reserve would be free after a write of that many bytes. It asks the file
// system each time.
func (g *Guard) Room(bytes int) error {
	free, err := g.free(g.dir)
	if err != nil {
		return fmt.Errorf("free space of the data directory is not known: %w", err)
	}
	if floor := g.reserve/2 + uint64(bytes); free < floor {
		return fmt.Errorf("the data directory has %d MiB left, and %d MiB are needed: free or add space", free>>20, floor>>20)
	}
	return nil
}

func statfs(dir string) (free uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}
