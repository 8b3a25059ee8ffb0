package health

import "sync"

// Quorum is whether this node has been without a leader for so long that waiting for the next one is in vain. It is safe for
// concurrent use.
type Quorum struct {
	mu     sync.Mutex // guards what follows
	lost   chan struct{}
	closed bool
}

// NewQuorum has one.
func NewQuorum() *Quorum { return &Quorum{lost: make(chan struct{})} }

// Lost is a channel that is closed while there is no quorum.
func (q *Quorum) Lost() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost
}

// Set says whether it is lost.
func (q *Quorum) Set(lost bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if lost == q.closed {
		return
	}
	if q.closed = lost; lost {
		close(q.lost)
	} else {
		q.lost = make(chan struct{})
	}
}
