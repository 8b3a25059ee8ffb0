package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/schedule"
	"conclave/store"
)

// Limits of work.
const (
	perMount   = 4                // done at a time for one mount
	perNode    = 32               // done at a time
	clearBatch = 128              // appointments of mounts that are gone, cleared in one step
	recordTime = 10 * time.Second // to record what came of work, whatever is left of its time
	// WorkTime is how long an engine may take to do one thing.
	WorkTime = time.Minute
	// claimTime is after how long work that nobody has finished counts as lost: more than WorkTime with what is before and after.
	claimTime = 3 * time.Minute
)

// Engines opens the engine of a mount of the namespace whose system space is given, with the mount's storage in the same
// transaction.
type Engines interface {
	Engine(system conclave.Tx, mountUUID string) (conclave.Engine, conclave.Tx, error)
}

// Config is what work is done with. Pause is the time between looks, one second if not given.
type Config struct {
	Store   *store.Store
	Engines Engines
	Logger  hclog.Logger
	Pause   time.Duration
}

// Runner does work. It is safe for concurrent use.
type Runner struct {
	Config

	mu   sync.Mutex                // guards busy
	busy map[place]map[string]bool // mount → names that are worked on
}

// place is a mount of a namespace.
type place struct {
	namespace string // path
	mount     string // UUID
}

// New makes a runner.
func New(config Config) *Runner {
	if config.Pause <= 0 {
		config.Pause = time.Second
	}
	return &Runner{Config: config, busy: map[place]map[string]bool{}}
}

// Run has work done until ctx ends. It is for the leader.
func (r *Runner) Run(ctx context.Context) error {
	group := &errgroup.Group{}
	group.SetLimit(perNode)
	defer func() { _ = group.Wait() }() // work has no errors: what fails is noted at the appointment
	for {
		if !r.Store.Locked() {
			if err := r.pass(ctx, group); err != nil && ctx.Err() == nil {
				r.Logger.Debug("work is begun later", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.Pause):
		}
	}
}

// pass looks at all namespaces. What fails in one doesn't keep the others waiting.
func (r *Runner) pass(ctx context.Context, group *errgroup.Group) error {
	all, err := r.Store.Namespaces()
	if err != nil {
		return err
	}
	for _, at := range all {
		path := at.Path
		err = errors.Join(err, r.clear(ctx, path), r.start(ctx, group, path))
	}
	return err
}

// clear takes a step in clearing away what mounts that are gone have left.
func (r *Runner) clear(ctx context.Context, path string) error {
	var closed []string
	err := r.Store.Look(path, func(system conclave.Tx) (err error) {
		closed, err = schedule.Closed(system)
		return err
	})
	for _, mount := range closed {
		err = errors.Join(err, r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) error {
			_, err := schedule.Clear(system, mount, clearBatch)
			return err
		}))
	}
	return err
}

// start begins what is due in a namespace, as far as there is room.
func (r *Runner) start(ctx context.Context, group *errgroup.Group, path string) error {
	var mounts []string
	err := r.Store.Look(path, func(system conclave.Tx) (err error) {
		mounts, err = schedule.Mounts(system)
		return err
	})
	for _, mount := range mounts {
		at := place{path, mount}
		var names []string
		err = errors.Join(err, r.Store.Look(path, func(system conclave.Tx) (err error) {
			names, err = schedule.Due(system, mount, 2*perMount) // of which some may be worked on
			return err
		}))
		for _, name := range names {
			if !r.take(at, name) {
				continue
			}
			started := group.TryGo(func() error {
				defer r.giveBack(at, name)
				r.do(ctx, at, name)
				return nil
			})
			if !started {
				r.giveBack(at, name)
				return err
			}
		}
	}
	return err
}

func (r *Runner) take(at place, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[at][name] || len(r.busy[at]) >= perMount {
		return false
	}
	if r.busy[at] == nil {
		r.busy[at] = map[string]bool{}
	}
	r.busy[at][name] = true
	return true
}

func (r *Runner) giveBack(at place, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy[at], name)
	if len(r.busy[at]) == 0 {
		delete(r.busy, at)
	}
}

// do takes work through its three steps.
func (r *Runner) do(ctx context.Context, at place, name string) {
	engine, begun, err := r.begin(ctx, at, name)
	if err == nil && begun != nil {
		var done any
		done, failure := r.work(ctx, engine, name, begun)
		err = r.finish(ctx, at, name, begun, done, failure)
	}
	if err == nil {
		return
	}
	why := conclave.Reason(err)
	r.Logger.Debug("work is done later", "error", why)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	err = r.Store.Change(ctx, at.namespace, func(_ *store.Tx, system conclave.System) error {
		return schedule.Fail(system, at.mount, name, why)
	})
	if err != nil { // then it is due still, or its claim ends
		r.Logger.Debug("that work failed could not be recorded", "error", err)
	}
}

// begin claims work and has the engine decide what it is. begun is nil if there is nothing to do.
func (r *Runner) begin(ctx context.Context, at place, name string) (engine conclave.Worker, begun any, err error) {
	err = r.Store.Change(ctx, at.namespace, func(_ *store.Tx, system conclave.System) error {
		engine, begun = nil, nil // of an earlier attempt
		claimed, err := schedule.Claim(system, at.mount, name, system.Now().Add(claimTime))
		if err != nil || !claimed {
			return err
		}
		opened, inner, err := r.open(system, at.mount)
		if err != nil {
			return err
		}
		var what any
		err = guarded(func() (err error) {
			what, err = opened.BeginWork(ctx, inner, name)
			return err
		})
		if err != nil {
			return err
		}
		if what == nil {
			return schedule.Settle(system, at.mount, name)
		}
		engine, begun = opened, what
		return nil
	})
	return engine, begun, err
}

func (r *Runner) open(system conclave.Tx, mount string) (conclave.Worker, conclave.Tx, error) {
	opened, inner, err := r.Engines.Engine(system, mount)
	if err != nil {
		return nil, nil, err
	}
	engine, ok := opened.(conclave.Worker)
	if !ok {
		return nil, nil, conclave.Errorf(conclave.Internal, "the engine does no work")
	}
	return engine, inner, nil
}

func (r *Runner) work(ctx context.Context, engine conclave.Worker, name string, begun any) (done any, err error) {
	ctx, cancel := context.WithTimeout(ctx, WorkTime)
	defer cancel()
	err = guarded(func() (err error) {
		done, err = engine.Work(ctx, name, begun)
		return err
	})
	return done, err
}

// finish records what came of work, also when this node has just stopped leading.
func (r *Runner) finish(ctx context.Context, at place, name string, begun, done any, failure error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	return r.Store.Change(ctx, at.namespace, func(_ *store.Tx, system conclave.System) error {
		engine, inner, err := r.open(system, at.mount) // the mount as it is now
		if err != nil {
			return err
		}
		if err := guarded(func() error { return engine.FinishWork(ctx, inner, name, begun, done, failure) }); err != nil {
			return err
		}
		return schedule.Settle(system, at.mount, name)
	})
}

// guarded makes a panic the failure of one piece of work.
func guarded(work func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = conclave.Errorf(conclave.Internal, "the engine panicked")
		}
	}()
	return work()
}
