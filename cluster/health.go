package cluster

import (
	"sync"
	"time"

	"conclave/cluster/wire"
)

// staleAfter is when what a node said about itself is too old to act on.
const staleAfter = 3 * time.Second

// report is what a node last said about itself.
type report struct {
	heard     time.Duration // monotonic
	wallLead  int64         // its wall clock minus this node's monotonic clock, in nanoseconds
	ready     bool
	applied   uint64
	behind    uint64 // entries that it had not applied, of those that this node had when it heard it
	term      uint64
	lastIndex uint64
	version   string
}

// health is what the leader knows about the others, from their beats.
type health struct {
	mono func() time.Duration

	mu      sync.Mutex // guards reports
	reports map[string]report
}

func newHealth(mono func() time.Duration) *health {
	return &health{mono: mono, reports: make(map[string]report)}
}

// note keeps what a member says, when this node has applied so far.
func (h *health) note(nodeID string, b *wire.Beat, applied uint64) {
	now := h.mono()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reports[nodeID] = report{heard: now, wallLead: b.GetWall() - int64(now), ready: b.GetReady(), applied: b.GetApplied(),
		behind: applied - min(applied, b.GetApplied()), term: b.GetTerm(), lastIndex: b.GetLastIndex(), version: b.GetVersion()}
}

// of returns what a node last said, and whether that is fresh.
func (h *health) of(nodeID string) (r report, fresh bool) {
	now := h.mono()
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.reports[nodeID]
	return r, ok && now-r.heard < staleAfter
}

// keep forgets those who aren't members any more.
func (h *health) keep(l *List) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.reports {
		if l.Find(id) == nil {
			delete(h.reports, id)
		}
	}
}
