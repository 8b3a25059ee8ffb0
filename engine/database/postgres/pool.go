package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"conclave/engine/database/driver"
)

// pool keeps connections to one database, a bounded number of them.
type pool struct {
	config   *pgconn.Config
	lifetime time.Duration // of a connection; 0 is unlimited
	keep     int           // connections that may wait for work
	slots    chan struct{} // one element per connection that is in use

	mu     sync.Mutex    // guards all below
	idle   []*connection // the one used last is last
	closed bool
}

type connection struct {
	*pgconn.PgConn
	born time.Time
}

func newPool(config *pgconn.Config, s driver.Settings) *pool {
	open, idle := s.Open()
	return &pool{config: config, lifetime: s.MaxLifetime, keep: idle, slots: make(chan struct{}, open)}
}

// take waits for a connection: one that has waited, or a new one.
func (p *pool) take(ctx context.Context) (*connection, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for c := p.pop(); c != nil; c = p.pop() {
		if !p.isOld(c) && c.CheckConn() == nil {
			return c, nil
		}
		end(c)
	}
	connecting, cancel := context.WithTimeout(ctx, driver.ConnectTime)
	defer cancel()
	made, err := pgconn.ConnectConfig(connecting, p.config)
	if err != nil {
		<-p.slots
		return nil, err
	}
	return &connection{made, time.Now()}, nil
}

func (p *pool) isOld(c *connection) bool { return p.lifetime > 0 && time.Since(c.born) > p.lifetime }

func (p *pool) pop() *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	c := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return c
}

// give takes a connection back. One in the middle of anything is closed.
func (p *pool) give(c *connection) {
	defer func() { <-p.slots }()
	if !c.IsClosed() && c.TxStatus() == idleStatus && !p.isOld(c) && p.push(c) {
		return
	}
	end(c)
}

func (p *pool) push(c *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= p.keep {
		return false
	}
	p.idle = append(p.idle, c)
	return true
}

func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		end(c)
	}
}

func end(c *connection) {
	const grace = time.Second // to say good-bye
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = c.Close(ctx)
}
