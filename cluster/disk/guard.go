package disk

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the guard.
const (
	defaultReserve  = 64 << 20
	reserveFraction = 50 // 2 %
	guardInterval   = 250 * time.Millisecond
)

// Guard watches the free space of the data directory's file system, so that proposals are refused before a write fails.
type Guard struct {
	dir     string
	reserve uint64 // bytes; 0: the default
	free    func(dir string) (free, size uint64, err error)
	now     func() time.Duration // monotonic

	mu      sync.Mutex // guards what follows
	checked time.Duration
	known   bool
	low     error
}

// NewGuard watches dir. A reserve of 0 bytes means the default: 64 MiB or 2 % of the file system, whichever is less.
func NewGuard(dir string, reserve uint64, now func() time.Duration) *Guard {
	return &Guard{dir: dir, reserve: reserve, free: statfs, now: now}
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
	free, size, err := g.free(g.dir)
	reserve := g.reserve
	if reserve == 0 {
		reserve = min(defaultReserve, size/reserveFraction)
	}
	switch {
	case err != nil:
		g.low = fmt.Errorf("free space of the data directory is not known: %w", err)
	case free < reserve:
		g.low = fmt.Errorf("the data directory has %d MiB left, and %d MiB are kept in reserve: free or add space", free>>20, reserve>>20)
	default:
		g.low = nil
	}
	return g.low
}

func statfs(dir string) (free, size uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
