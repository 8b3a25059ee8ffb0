package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/worker"
)

// startWork has the lodge's engines do their work until the test ends, or stop is called.
func (l *lodge) startWork(t *testing.T) (stop func()) {
	t.Helper()
	l.worker = worker.New(worker.Config{Store: l.store, Engines: engines{l.daemon}, Logger: hclog.NewNullLogger(), Pause: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.worker.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the worker: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestWorkIsDoneWhenItIsDue(t *testing.T) {
	l := openLodge(t, false)
	l.must(conclave.Update, "rooms/chores/sweep", nil)
	l.must(conclave.Update, "rooms/chores/later", map[string]any{"after": "1h"})
	l.must(conclave.Update, "rooms/chores/never", nil)
	l.must(conclave.Delete, "rooms/chores/never", nil)
	l.startWork(t)
	waitFor(t, "the chore to be done", func() bool { return l.must(conclave.Read, "rooms/chores/sweep", nil)["done"] == 1.0 })
	if l.outside.Chores("sweep") != 1 || l.outside.Chores("later") != 0 || l.outside.Chores("never") != 0 {
		t.Errorf("chores were done %d, %d and %d times, want 1, 0, 0", l.outside.Chores("sweep"), l.outside.Chores("later"), l.outside.Chores("never"))
	}
}

// Failing work is told to the engine, which sets the next time.
func TestFailedWorkIsFinished(t *testing.T) {
	l := openLodge(t, false)
	fail := errors.New("a secret that nobody may read")
	l.outside.Chore(func(_ context.Context, name string) error {
		if name == "panics" {
			panic("fire")
		}
		return fail
	})
	l.must(conclave.Update, "rooms/chores/fails", nil)
	l.must(conclave.Update, "rooms/chores/panics", nil)
	l.startWork(t)
	for _, name := range []string{"fails", "panics"} {
		waitFor(t, "the failure of "+name, func() bool { return l.must(conclave.Read, "rooms/chores/"+name, nil)["error"] != "" })
		if out := l.must(conclave.Read, "rooms/chores/"+name, nil); out["done"] != 0.0 || strings.Contains(fmt.Sprint(out), "secret") {
			t.Errorf("%s: %v", name, out)
		}
	}
}

// A mount whose work doesn't end holds up no other mount's, and a chore isn't begun twice at once.
func TestWorkOfOneMountHoldsUpNoOther(t *testing.T) {
	l := openLodge(t, false)
	l.dead.Chore(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
	for i := range 40 {
		l.must(conclave.Update, fmt.Sprintf("dead/chores/%d", i), nil)
	}
	stop := l.startWork(t)
	busy := func() (n int) {
		for i := range 40 {
			n += l.dead.Chores(fmt.Sprint(i))
		}
		return n
	}
	waitFor(t, "the dead mount's work to begin", func() bool { return busy() == 4 })
	l.must(conclave.Update, "rooms/chores/sweep", nil)
	waitFor(t, "the other mount's work", func() bool { return l.must(conclave.Read, "rooms/chores/sweep", nil)["done"] == 1.0 })
	if got := busy(); got != 4 {
		t.Errorf("%d chores of the dead mount were begun at once, want 4", got)
	}
	stop() // who stops leading has what he began end, and tells the engine
	waitFor(t, "the ends of what was begun", func() bool {
		failed := 0
		for i := range 40 {
			if l.must(conclave.Read, fmt.Sprintf("dead/chores/%d", i), nil)["error"] != "" {
				failed++
			}
		}
		return failed == 4
	})
}

// Disabling a mount takes its work back.
func TestWorkOfAMountThatIsGoneIsDropped(t *testing.T) {
	l := openLodge(t, false)
	for i := range 5 {
		l.must(conclave.Update, fmt.Sprintf("rooms/chores/%d", i), map[string]any{"after": "1h"})
	}
	count := func() int {
		n := 0
		if err := l.store.Look("", func(system conclave.Tx) error {
			mounts, err := system.List("schedule/name/", "", 0)
			for _, m := range mounts {
				names, listErr := system.List("schedule/name/"+m, "", 0)
				err = errors.Join(err, listErr)
				n += len(names)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := count(); got != 5 {
		t.Fatalf("%d appointments, want 5", got)
	}
	l.must(conclave.Delete, "sys/mounts/rooms", nil)
	l.startWork(t)
	waitFor(t, "the appointments to be gone", func() bool { return count() == 0 })
}

func TestWorkThatCantBeginWaits(t *testing.T) {
	l := openLodge(t, false)
	l.must(conclave.Update, "rooms/chores/refused", nil)
	l.must(conclave.Update, "rooms/chores/sweep", nil)
	l.startWork(t)
	waitFor(t, "the other work", func() bool { return l.must(conclave.Read, "rooms/chores/sweep", nil)["done"] == 1.0 })
	waitFor(t, "why it can't begin", func() bool {
		table := l.appointments(t)
		return strings.Contains(table["chore/refused"], `"failed":1,"error":"the staff is on strike"`)
	})
	if out := fmt.Sprint(l.must(conclave.Read, "sys/work", nil)["failed"]); !strings.Contains(out, "chore/refused") || strings.Contains(out, "chore/sweep") {
		t.Errorf("shown as failing: %s", out)
	}
}

// appointments are those of the root namespace, as they are stored, by name.
func (l *lodge) appointments(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := l.store.Look("", func(system conclave.Tx) error {
		mounts, err := system.List("schedule/name/", "", 0)
		for _, m := range mounts {
			keys, listErr := system.List("schedule/name/"+m, "", 0)
			err = errors.Join(err, listErr)
			for _, key := range keys {
				value, getErr := system.Get("schedule/name/" + m + key)
				err = errors.Join(err, getErr)
				name, _, _ := strings.Cut(strings.TrimPrefix(string(value), `{"name":"`), `"`)
				all[name] = string(value)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
