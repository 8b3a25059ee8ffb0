package database

import (
	"context"
	"sync"
	"time"

	"conclave"
	"conclave/engine/database/driver"
)

// Limits of the connections to databases.
const (
	maxUsers = 256             // requests that use or wait for one database on this node
	maxPools = 1024            // databases that this node has connections to
	idleTime = 5 * time.Minute // after which a database that nobody uses is let go
)

var (
	errBusy     = conclave.Errorf(conclave.Unavailable, "too many requests wait for this database")
	errTooMany  = conclave.Errorf(conclave.Unavailable, "this node has connections to too many databases")
	errSettling = conclave.Errorf(conclave.Unavailable, "the database refuses both the connection's password and the one that was being set")
)

// place names a connection of a mount.
type place struct{ mount, name string }

// source is what connections are made of: they are the same as long as it is.
type source struct {
	settings driver.Settings
	pending  string // the password that may have been set, "" if none is being set
	resets   uint64
}

// pools keep connections by place. Each database has connections and waiters of its own: one that is slow or gone holds up
// those who want it, and nobody else.
type pools struct {
	mu   sync.Mutex       // guards all, and the users and closing of entries
	all  map[place]*entry // place → what was opened last
	idle time.Duration
	open func(driver.Settings) (driver.Driver, error)
}

type entry struct {
	from    source
	ready   chan struct{} // closed when driver or err is there
	driver  driver.Driver
	err     error
	users   int
	closing bool // it ends with its last user
	timer   *time.Timer
}

func newPools() *pools {
	return &pools{all: map[place]*entry{}, idle: idleTime, open: openDriver}
}

// use lends connections to the database of a source.
func (p *pools) use(ctx context.Context, at place, from source, act func(driver.Driver) error) error {
	e, first, err := p.enter(at, from)
	if err != nil {
		return err
	}
	defer func() { p.leave(at, e) }()
	if first {
		e.driver, e.err = p.begin(ctx, from)
		close(e.ready)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		return driver.ErrTimeout
	}
	if e.err != nil {
		p.drop(at, e, false) // the next one tries again
		return e.err
	}
	return act(e.driver)
}

func (p *pools) enter(at place, from source) (e *entry, first bool, err error) {
	var over driver.Driver
	defer func() { end(over) }() // when nothing is locked any more
	p.mu.Lock()
	defer p.mu.Unlock()
	e = p.all[at]
	switch {
	case e != nil && e.from == from && e.users >= maxUsers:
		return nil, false, errBusy
	case e != nil && e.from == from:
		if e.timer != nil {
			e.timer.Stop()
		}
		e.users++
		return e, false, nil
	case e == nil && len(p.all) >= maxPools:
		return nil, false, errTooMany
	}
	if e != nil {
		over = p.endLocked(at, e)
	}
	e = &entry{from: from, ready: make(chan struct{}), users: 1}
	p.all[at] = e
	return e, true, nil
}

func (p *pools) leave(at place, e *entry) {
	var over driver.Driver
	defer func() { end(over) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	if e.closing {
		over = e.driver
		return
	}
	e.timer = time.AfterFunc(p.idle, func() { p.drop(at, e, true) })
}

// drop has an entry end with its last user. If it has to be idle, one that is in use again goes on.
func (p *pools) drop(at place, e *entry, ifIdle bool) {
	var over driver.Driver
	defer func() { end(over) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ifIdle || e.users == 0 {
		over = p.endLocked(at, e)
	}
}

// endLocked forgets an entry, and returns what has to be closed if nobody uses it.
func (p *pools) endLocked(at place, e *entry) driver.Driver {
	if p.all[at] == e {
		delete(p.all, at)
	}
	if e.closing {
		return nil
	}
	e.closing = true
	if e.timer != nil {
		e.timer.Stop()
	}
	if e.users > 0 {
		return nil
	}
	return e.driver
}

func end(over driver.Driver) {
	if over != nil {
		over.Close()
	}
}

// begin opens a database. While a password is being set, either it or the one before it is right.
func (p *pools) begin(ctx context.Context, from source) (driver.Driver, error) {
	d, err := p.open(from.settings)
	if err != nil || from.pending == "" {
		return d, err
	}
	if err = d.Verify(ctx); err == nil {
		return d, nil
	}
	d.Close()
	if err != driver.ErrRefused {
		return nil, err
	}
	from.settings.Password = from.pending
	if d, err = p.open(from.settings); err != nil {
		return nil, err
	}
	if err = d.Verify(ctx); err == nil {
		return d, nil
	}
	d.Close()
	if err == driver.ErrRefused {
		err = errSettling
	}
	return nil, err
}
