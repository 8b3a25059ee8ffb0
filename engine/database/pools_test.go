package database

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/engine/database/driver"
)

// fake is a database in memory: it takes one password, and waits on demand.
type fake struct {
	settings driver.Settings
	world    *world
	closed   atomic.Bool
}

type world struct {
	mu       sync.Mutex // guards all
	password string
	opened   []*fake
	down     bool
}

func (w *world) open(s driver.Settings) (driver.Driver, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Host == "broken" {
		return nil, errors.New("broken")
	}
	f := &fake{settings: s, world: w}
	w.opened = append(w.opened, f)
	return f, nil
}

func (f *fake) Verify(context.Context) error {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	switch {
	case f.world.down:
		return driver.ErrUnreachable
	case f.settings.Password != f.world.password:
		return driver.ErrRefused
	}
	return nil
}

func (f *fake) Create(context.Context, *driver.Login) error      { return nil }
func (f *fake) SetPassword(context.Context, *driver.Login) error { return nil }
func (f *fake) Drop(context.Context, *driver.Login) error        { return nil }
func (f *fake) Close()                                           { f.closed.Store(true) }

func newWorld() (*world, *pools) {
	w := &world{password: "right"}
	p := newPools()
	p.open = w.open
	return w, p
}

func sourceOf(password string) source {
	return source{settings: driver.Settings{Password: password}}
}

func nothing(driver.Driver) error { return nil }

// waitFor waits for what a timer or another goroutine does.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("%s doesn't happen", what)
		case <-ticker.C:
		}
	}
}

func TestConnectionsAreSharedWhileTheirSourceIsTheSame(t *testing.T) {
	w, p := newWorld()
	at, ctx := place{"m", "db"}, t.Context()
	var used []driver.Driver
	use := func(at place, from source) {
		t.Helper()
		if err := p.use(ctx, at, from, func(d driver.Driver) error { used = append(used, d); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	use(at, sourceOf("right"))
	use(at, sourceOf("right"))
	use(place{"other", "db"}, sourceOf("right"))
	if used[0] != used[1] || used[0] == used[2] {
		t.Error("one place has two sets of connections, or two places share one")
	}
	changed := sourceOf("right")
	changed.resets = 1
	use(at, changed)
	if used[3] == used[0] {
		t.Error("a reset changes nothing")
	}
	waitFor(t, "the end of what was reset", w.opened[0].closed.Load)
	if w.opened[2].closed.Load() || w.opened[1].closed.Load() {
		t.Error("connections in use are closed")
	}
	p.closeAll()
	waitFor(t, "the end of all", func() bool { return w.opened[1].closed.Load() && w.opened[2].closed.Load() })
}

// A connection whose settings change goes on for those who use it, and ends with them.
func TestConnectionsEndWithTheirLastUser(t *testing.T) {
	w, p := newWorld()
	at := place{"m", "db"}
	err := p.use(t.Context(), at, sourceOf("right"), func(driver.Driver) error {
		other := sourceOf("right")
		other.resets = 1
		if err := p.use(t.Context(), at, other, nothing); err != nil {
			return err
		}
		if w.opened[0].closed.Load() {
			t.Error("closed while in use")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the first", w.opened[0].closed.Load)
}

func TestConnectionsThatNobodyUsesAreLetGo(t *testing.T) {
	w, p := newWorld()
	p.idle = time.Millisecond
	if err := p.use(t.Context(), place{"m", "db"}, sourceOf("right"), nothing); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of idle connections", w.opened[0].closed.Load)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) != 0 {
		t.Errorf("%d entries are kept", len(p.all))
	}
}

// Requests for a database that hangs are bounded in number, and hold up no other database.
func TestASlowDatabaseHoldsUpNobodyElse(t *testing.T) {
	_, p := newWorld()
	at, release := place{"m", "slow"}, make(chan struct{})
	var group errgroup.Group
	var busy atomic.Int64
	for range maxUsers + 50 {
		group.Go(func() error {
			err := p.use(t.Context(), at, sourceOf("right"), func(driver.Driver) error { <-release; return nil })
			if err == errBusy {
				busy.Add(1)
				return nil
			}
			return err
		})
	}
	waitFor(t, "the refusal of what is too much", func() bool { return busy.Load() == 50 })
	if err := p.use(t.Context(), place{"m", "other"}, sourceOf("right"), nothing); err != nil {
		t.Errorf("another database: %v", err)
	}
	close(release)
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if err := p.use(t.Context(), at, sourceOf("right"), nothing); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestWhileAPasswordIsSetEitherIsTried(t *testing.T) {
	for _, row := range []struct {
		now, pending string
		down         bool
		want         error
	}{{"right", "other", false, nil}, {"other", "right", false, nil}, {"old", "other", false, errSettling}, {"other", "right", true, driver.ErrUnreachable}} {
		w, p := newWorld()
		w.down = row.down
		from := sourceOf(row.now)
		from.pending = row.pending
		if err := p.use(t.Context(), place{"m", "db"}, from, nothing); err != row.want {
			t.Errorf("%+v: %v", row, err)
		}
		if row.want == nil {
			continue
		}
		w.mu.Lock()
		w.password, w.down = row.now, false
		w.mu.Unlock()
		if err := p.use(t.Context(), place{"m", "db"}, from, nothing); err != nil {
			t.Errorf("a failure is kept: %v", err)
		}
	}
}

func TestWhatCannotBeOpenedIsTriedAgain(t *testing.T) {
	w, p := newWorld()
	from := source{settings: driver.Settings{Host: "broken"}}
	if err := p.use(t.Context(), place{"m", "db"}, from, nothing); err == nil {
		t.Error("what is broken can be used")
	}
	if len(p.all) != 0 || len(w.opened) != 0 {
		t.Errorf("%d entries are kept", len(p.all))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.use(ctx, place{"m", "db"}, sourceOf("right"), func(driver.Driver) error { return ctx.Err() }); !errors.Is(err, context.Canceled) && !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("use by a request that is over: %v", err)
	}
}
