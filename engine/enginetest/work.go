package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"conclave"
)

// Woken is when the engine's work is to begin next: name → cluster time.
func (h *Harness) Woken() map[string]time.Time { return maps.Clone(h.state.part(h).wakes) }

// RunDue sets the clock to a time, if that is later, and does all work that is due then, in the order of names, as the
// leader does: each once, also if it sets a time that has come already. It returns the names. The error joins those of
// BeginWork and FinishWork; after one of them the work is due still.
func (h *Harness) RunDue(at time.Time) (names []string, err error) {
	h.t.Helper()
	if at.After(*h.now) {
		*h.now = at
	}
	for _, name := range slices.Sorted(maps.Keys(h.state.part(h).wakes)) {
		if !h.state.part(h).wakes[name].After(*h.now) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if failure := h.work(name, true); failure != nil {
			err = errors.Join(err, fmt.Errorf("work for %s: %w", name, failure))
		}
	}
	return names, err
}

// LoseWork does the work for name, due or not, but its node dies before anybody learns what came of it. It is due at once.
func (h *Harness) LoseWork(name string) error {
	h.t.Helper()
	return h.work(name, false)
}

func (h *Harness) work(name string, finish bool) error {
	h.t.Helper()
	worker, ok := h.engine.(conclave.Worker)
	if !ok {
		h.t.Fatalf("%s is woken and does no work", h.engine.Kind())
	}
	was := h.state.part(h).wakes[name]
	var begun any
	err := h.step(name, was, func(t *tx) (settled bool, err error) {
		begun, err = worker.BeginWork(context.Background(), t, name)
		return begun == nil, err
	})
	if err != nil || begun == nil {
		return err
	}
	done, failure := worker.Work(context.Background(), name, begun)
	if !finish {
		h.state.part(h).wakes[name] = *h.now
		return nil
	}
	return h.step(name, was, func(t *tx) (bool, error) {
		return true, worker.FinishWork(context.Background(), t, name, begun, done, failure)
	})
}

// step runs one transaction of work. If that settles it and the engine didn't say when the next time is, there is none.
func (h *Harness) step(name string, was time.Time, run func(t *tx) (settles bool, err error)) error {
	h.t.Helper()
	t := h.begin(nil, true)
	settles, err := run(t)
	t.checkLent()
	if err == nil && t.failed != nil {
		h.t.Errorf("work for %s: the engine went on after an error of its Tx: %v", name, t.failed)
		err = t.failed
	}
	if err != nil {
		return err
	}
	if _, woken := t.wakes[name]; settles && !woken && h.state.part(h).wakes[name].Equal(was) {
		t.wakes[name] = time.Time{}
	}
	if err := t.commit(); err != nil {
		return err
	}
	h.emitted(t)
	return nil
}
