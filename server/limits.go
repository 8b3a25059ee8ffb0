package server

import (
	"sync/atomic"
	"time"
)

// What one request may ask for. A request beyond one of these, or of those of package jsonbody, is refused whole.
const (
	MaxBody   = 32 << 20 // bytes of a body; 413 beyond
	MaxPath   = 8 << 10  // bytes of a path, decoded
	MaxHeader = 64 << 10 // bytes of the request line and all headers; net/http answers 431 beyond

	maxStatusBody = 1 << 20 // bytes of a body sent to sys/init or sys/unseal: 255 PGP keys fit
	maxHops       = 64      // addresses in X-Forwarded-For
	maxStates     = 4       // X-Vault-Index headers of one request
	maxStreams    = 256     // requests at once on one HTTP/2 connection
)

// Limits bounds what the server carries at once. The zero value of a member means its default.
type Limits struct {
	InFlight    int           // requests being executed; default 4096; 503 with Retry-After beyond
	Bytes       int64         // bytes of bodies held by them, decoded or not; default 512 MiB; 503 beyond
	Connections int           // open connections of each listener; default 16384; closed at once beyond
	Duration    time.Duration // of one request's execution; default 90 s
	IndexWait   time.Duration // for this node to reach the index that a client names; default 2 s; 412 beyond
	ReadHeader  time.Duration // to receive a request's headers; default 10 s
	Read        time.Duration // to receive a request with its body; default 30 s
	Idle        time.Duration // of a connection between two requests; default 5 min
	Write       time.Duration // to send an answer after its execution; default 30 s
	Shutdown    time.Duration // for running requests to end when the server stops; default 15 s
}

func (l Limits) withDefaults() Limits {
	orInt := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	orTime := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	orInt(&l.InFlight, 4096)
	orInt(&l.Connections, 16384)
	if l.Bytes <= 0 {
		l.Bytes = 512 << 20
	}
	orTime(&l.Duration, 90*time.Second)
	orTime(&l.IndexWait, 2*time.Second)
	orTime(&l.ReadHeader, 10*time.Second)
	orTime(&l.Read, 30*time.Second)
	orTime(&l.Idle, 5*time.Minute)
	orTime(&l.Write, 30*time.Second)
	orTime(&l.Shutdown, 15*time.Second)
	return l
}

// budget is a bounded amount that requests take from and give back to. It never blocks: what can't be had is refused.
type budget struct {
	limit int64
	used  atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// holding is what one request has taken of a budget.
type holding struct {
	from *budget
	held int64
}

func (h *holding) take(n int64) error {
	if !h.from.take(n) {
		return errBusy
	}
	h.held += n
	return nil
}

func (h *holding) release() {
	h.from.give(h.held)
	h.held = 0
}
