package pipeline

import (
	"context"
	"sync"

	"conclave"
)

// Gate counts the requests inside and can be closed: nobody enters a closed gate, and closing waits for those inside.
// The zero Gate is open.
type Gate struct {
	mu     sync.Mutex // guards all below
	inside int
	closed bool
	empty  chan struct{} // closed when a closed gate has nobody inside; nil while open
}

func (g *Gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return conclave.Errorf(conclave.Sealed, "Vault is sealed")
	}
	g.inside++
	return nil
}

// Inside is how many requests are inside.
func (g *Gate) Inside() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside
}

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.closed && g.inside == 0 {
		close(g.empty)
	}
}

// Drain refuses new requests and returns when the last one inside has left, or with ctx's error; the gate stays closed
// either way.
func (g *Gate) Drain(ctx context.Context) error {
	g.mu.Lock()
	if !g.closed {
		g.closed, g.empty = true, make(chan struct{})
		if g.inside == 0 {
			close(g.empty)
		}
	}
	empty := g.empty
	g.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Resume lets requests in again.
func (g *Gate) Resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed, g.empty = false, nil
}

// turns lets the requests that keep conflicting over one path go one after the other on this node.
type turns struct {
	mu    sync.Mutex           // guards queue
	queue map[string]*turnLine // path → who waits for it
}

type turnLine struct {
	token   chan struct{} // holds one element while nobody has the turn
	waiting int
}

func (t *turns) take(ctx context.Context, path string) (done func(), err error) {
	t.mu.Lock()
	if t.queue == nil {
		t.queue = map[string]*turnLine{}
	}
	line := t.queue[path]
	if line == nil {
		line = &turnLine{token: make(chan struct{}, 1)}
		line.token <- struct{}{}
		t.queue[path] = line
	}
	line.waiting++
	t.mu.Unlock()

	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if line.waiting--; line.waiting == 0 {
			delete(t.queue, path)
		}
	}
	select {
	case <-line.token:
		return func() { line.token <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
