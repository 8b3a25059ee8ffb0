// Package health is what a leader knows about the other nodes, from their beats.
package health

import (
	"sync"
	"time"

	"conclave/cluster/roster"
	"conclave/cluster/wire"
)

// staleAfter is when what a node said about itself is too old to act on.
const staleAfter = 3 * time.Second

// Report is what a node last said about itself.
type Report struct {
	Heard     time.Duration // monotonic
	WallLead  int64         // its wall clock minus this node's monotonic clock, in nanoseconds
	Ready     bool
	Full      bool // its disk is below the reserve
	Applied   uint64
	Behind    uint64 // entries that it had not applied, of those that this node had when it heard it
	Lag       uint64 // entries that its log lacked, of those that were committed when this node heard it
	Term      uint64
	LastIndex uint64
	Version   string
}

// Health keeps the newest report of each member. It is safe for concurrent use.
type Health struct {
	mono func() time.Duration

	mu      sync.Mutex // guards what follows
	reports map[string]Report
	room    chan struct{} // closed when a node that was full has room again
}

// New knows of nobody. mono is a monotonic clock.
func New(mono func() time.Duration) *Health {
	return &Health{mono: mono, reports: make(map[string]Report), room: make(chan struct{})}
}

// Note keeps what a member says, when this node has applied and knows to be committed so far.
func (h *Health) Note(nodeID string, b *wire.Beat, applied, committed uint64) {
	now := h.mono()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reports[nodeID].Full && !b.GetFull() {
		close(h.room)
		h.room = make(chan struct{})
	}
	h.reports[nodeID] = Report{Heard: now, WallLead: b.GetWall() - int64(now), Ready: b.GetReady(), Full: b.GetFull(),
		Applied: b.GetApplied(), Behind: applied - min(applied, b.GetApplied()), Lag: committed - min(committed, b.GetLastIndex()),
		Term: b.GetTerm(), LastIndex: b.GetLastIndex(), Version: b.GetVersion()}
}

// NoRoom notes, before its next report, that a member can't store what it is sent. The channel is closed when one that was
// full has room again.
func (h *Health) NoRoom(nodeID string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r, ok := h.reports[nodeID]; ok {
		r.Full = true
		h.reports[nodeID] = r
	}
	return h.room
}

// Of returns what a node last said, and whether that is fresh.
func (h *Health) Of(nodeID string) (r Report, fresh bool) {
	now := h.mono()
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.reports[nodeID]
	return r, ok && now-r.Heard < staleAfter
}

// Keep forgets those who aren't members any more.
func (h *Health) Keep(l *roster.List) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.reports {
		if l.Find(id) == nil {
			delete(h.reports, id)
		}
	}
}
