package revoke

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/lease"
	"conclave/store"
	"conclave/token"
)

// Limits of the reaper.
const (
	stepBatch   = 128              // leases that one transaction queues
	stepsInTurn = 32               // steps of one kind in a namespace before the others have their turn
	sliceBatch  = 32               // leases of a mount that are ended before others have their turn
	perMount    = 4                // engines' calls at a time, for one mount
	perNode     = 16               // mounts that are worked on at a time
	failuresOff = 4                // failures in a row that end a slice
	maxRest     = time.Minute      // of a mount whose attempts all fail
	firstRest   = time.Second      // of a mount whose attempts have begun to fail
	recordTime  = 10 * time.Second // to record what became of a slice, whatever is left of its time
	maxEndNow   = 10_000           // leases that one client waits for
)

// CallTime is how long an engine may take to end one lease.
const CallTime = 30 * time.Second

// Config is what the reaper works with. Pause is the time between looks, one second if not given.
type Config struct {
	Store   *store.Store
	Engines lease.Mounts
	Logger  hclog.Logger
	Pause   time.Duration
}

// Reaper ends leases. It is safe for concurrent use.
type Reaper struct {
	Config
	owners   Owners
	spending map[string]string // namespace path → how far tokens with limited uses have been gone through; of the one that runs

	mu    sync.Mutex         // guards mounts
	rests map[place]*resting // where a mount is → how its last slices went
}

// place is a mount of a namespace.
type place struct {
	namespace string // path
	mount     string // UUID
}

// resting is a mount that is worked on, or has failed lately.
type resting struct {
	busy  bool
	pause time.Duration
	until time.Time
}

// New makes a reaper.
func New(config Config) *Reaper {
	if config.Pause <= 0 {
		config.Pause = time.Second
	}
	return &Reaper{Config: config, rests: map[place]*resting{}, spending: map[string]string{}}
}

// Run reaps until ctx ends. It is for the leader.
func (r *Reaper) Run(ctx context.Context) error {
	group := &errgroup.Group{}
	group.SetLimit(perNode)
	defer func() { _ = group.Wait() }() // slices have no errors: what fails is noted at the leases
	for {
		if !r.Store.Locked() {
			if err := r.pass(ctx, group); err != nil && ctx.Err() == nil {
				r.Logger.Debug("leases are ended later", "error", err)
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
func (r *Reaper) pass(ctx context.Context, group *errgroup.Group) error {
	all, err := r.Store.Namespaces()
	if err != nil {
		return err
	}
	for _, at := range all {
		path := at.Path
		err = errors.Join(err, r.revokeEverything(ctx, path), r.queueDue(ctx, path), r.endSpent(ctx, path), r.queueLeft(ctx, path), r.work(ctx, path), r.startSlices(ctx, group, path))
	}
	return err
}

// queueDue queues leases whose time has come.
func (r *Reaper) queueDue(ctx context.Context, path string) error {
	for range stepsInTurn {
		var due lease.Due
		err := r.Store.Look(path, func(system conclave.Tx) (err error) {
			due, err = lease.FindDue(system, stepBatch)
			return err
		})
		if err != nil || len(due) == 0 {
			return err
		}
		if err := r.expire(ctx, path, due); err != nil {
			return err
		}
	}
	return nil
}

// expire queues leases, one by one if they can't be queued together: one that can't be read, or whose token can't be, holds up
// no other.
func (r *Reaper) expire(ctx context.Context, path string, due lease.Due) error {
	queue := func(some lease.Due) error {
		return r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) error { return lease.Expire(system, some, r.owners) })
	}
	err := queue(due)
	if !conclave.Damaged(err) {
		return err
	}
	for i := range due {
		err := queue(due.One(i))
		if conclave.Damaged(err) {
			r.Logger.Error("a lease can't be read and is set aside: see sys/leases/damaged", "namespace", path, "error", err)
			err = r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) error { return lease.SetAside(system, due.One(i), err) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endSpent ends tokens that have leases and no use left.
func (r *Reaper) endSpent(ctx context.Context, path string) error {
	var spent []string
	next := ""
	err := r.Store.Look(path, func(system conclave.Tx) (err error) {
		spent, next, err = token.Spent(system, r.spending[path], stepBatch)
		return err
	})
	if err != nil {
		return err
	}
	delete(r.spending, path)
	if next != "" {
		r.spending[path] = next
	}
	if len(spent) == 0 {
		return nil
	}
	return r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) error { return token.EndSpent(system, spent) })
}

// queueLeft queues the leases of tokens of the namespace that have ended. They may be those of namespaces below.
func (r *Reaper) queueLeft(ctx context.Context, path string) error {
	for batch, step := stepBatch, 0; step < stepsInTurn; step++ {
		more := false
		var last token.Holding
		err := r.Store.Change(ctx, path, func(tx *store.Tx, system conclave.System) error {
			left, err := token.Left(system, batch)
			if err != nil {
				return err
			}
			more = len(left) > 0
			for _, last = range left {
				if err := endHeld(tx, last); err != nil {
					return err
				}
				if err := token.Drop(system, last.Name, last.Key); err != nil {
					return err
				}
			}
			return nil
		})
		switch {
		case conclave.Damaged(err) && batch > 1:
			batch = 1
		case conclave.Damaged(err): // it is looked at when its own time comes
			r.Logger.Error("a lease of a token that has ended can't be read", "namespace", path, "error", err)
			err = r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) error { return token.Drop(system, last.Name, last.Key) })
			if err != nil {
				return err
			}
		case err != nil || !more:
			return err
		}
	}
	return nil
}

// work goes on with prefixes that are being revoked.
func (r *Reaper) work(ctx context.Context, path string) error {
	var ids []string
	err := r.Store.Look(path, func(system conclave.Tx) (err error) {
		ids, err = lease.Jobs(system)
		return err
	})
	for _, id := range ids {
		if err == nil {
			_, _, err = r.steps(ctx, path, id, stepsInTurn)
		}
	}
	return err
}

func (r *Reaper) steps(ctx context.Context, path, id string, limit int) (keys []string, done bool, err error) {
	for range limit {
		var found []string
		err = r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) (err error) {
			found, done, err = lease.Step(system, id, stepBatch)
			return err
		})
		keys = append(keys, found...)
		if err != nil || done {
			break
		}
	}
	return keys, done, err
}

// Work does a whole job while its client waits, and returns the keys of the leases that it has queued.
func (r *Reaper) Work(ctx context.Context, at conclave.Namespace, id string) ([]string, error) {
	keys, done, err := r.steps(ctx, at.Path, id, maxEndNow/stepBatch)
	if err == nil && !done {
		err = conclave.Errorf(conclave.Unavailable, "there are more leases than anybody can wait for: they are over, and are ended in the background")
	}
	return keys, err
}
