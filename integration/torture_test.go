//go:build torture

package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

var (
	rounds       = flag.Int("rounds", 30, "how often a leader is killed, or asked to step down, to measure the gap")
	tortureTime  = flag.Duration("torture", 10*time.Minute, "how long TestTortureHistories runs, in histories of a minute")
	firstFailure = flag.Bool("first", true, "end TestTortureHistories at its first failure")
)

// TestTortureHistories runs one history after the other, each with the seed after the last one's.
func TestTortureHistories(t *testing.T) {
	begin, chosen := time.Now(), pickSeed(t)
	for n := uint64(0); time.Since(begin) < *tortureTime; n++ {
		ok := t.Run(fmt.Sprintf("seed=%d", chosen+n), func(t *testing.T) { runHistory(t, chosen+n, longHistory) })
		if !ok && *firstFailure {
			return
		}
	}
}

// gaps are times without service.
type gaps []time.Duration

func (g gaps) String() string {
	sorted := slices.Sorted(slices.Values(g))
	at := func(q float64) time.Duration {
		return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(time.Millisecond)
	}
	return fmt.Sprintf("%d rounds: p50 %v, p99 %v, longest %v", len(g), at(0.5), at(0.99), sorted[len(sorted)-1].Round(time.Millisecond))
}

// writers write without pause, each through a node of its own, and note when something was acknowledged.
type writers struct {
	lab     *lab.Lab
	last    atomic.Int64 // time of the newest acknowledgement, from start
	longest atomic.Int64 // time between two of them
	start   time.Time
}

// attemptTime bounds each attempt: a request that is lost with a node must not hide that the others serve.
const attemptTime = 250 * time.Millisecond

func (w *writers) run(ctx context.Context, node int) error {
	for n := 0; ctx.Err() == nil; n++ {
		attempt, cancel := context.WithTimeout(ctx, attemptTime)
		err := w.lab.Client(node).Write(attempt, fmt.Sprintf("gap/data/w%d", node), map[string]any{"data": map[string]int{"n": n}}, nil)
		cancel()
		if err != nil {
			breathe(ctx)
			continue
		}
		now := int64(time.Since(w.start))
		if gap := now - w.last.Swap(now); gap > w.longest.Load() {
			w.longest.Store(gap)
		}
	}
	return nil
}

// await returns when a write was acknowledged that ended after the given time.
func (w *writers) await(ctx context.Context, after time.Duration) (time.Duration, error) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		if last := time.Duration(w.last.Load()); last > after {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return 0, errors.New("no write is acknowledged any more")
		case <-ticker.C:
		}
	}
}

func startWriters(t *testing.T) (*writers, func()) {
	t.Helper()
	w := &writers{lab: startLab(t, 3), start: time.Now()}
	mountKV(t, w.lab, "gap")
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	for n := 1; n <= w.lab.Nodes(); n++ {
		group.Go(func() error { return w.run(ctx, n) })
	}
	return w, func() {
		cancel()
		_ = group.Wait() // they return nil
	}
}

// TestTortureFailover measures the time from the SIGKILL of a leader to the first write that is acknowledged.
func TestTortureFailover(t *testing.T) {
	w, stop := startWriters(t)
	defer stop()
	var all gaps
	for range *rounds {
		ctx := within(t, time.Minute)
		leader, err := w.lab.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.lab.Kill(leader); err != nil {
			t.Fatal(err)
		}
		killed := time.Since(w.start)
		// What the dead leader had acknowledged may still be on its way through the others.
		settled, err := w.await(ctx, killed+20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, settled-killed)
		if err := w.lab.Start(ctx, leader); err != nil {
			t.Fatal(err)
		}
		if err := w.lab.WaitServing(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := w.await(ctx, time.Since(w.start)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("leader killed to first acknowledged write, %v", all)
	wantAtMost(t, "p50", slices.Sorted(slices.Values(all))[len(all)/2], 1500*time.Millisecond)
	wantAtMost(t, "longest", slices.Max(all), 3*time.Second)
}

// TestTortureStepDown measures the longest time between two acknowledged writes while leaders step down.
func TestTortureStepDown(t *testing.T) {
	w, stop := startWriters(t)
	defer stop()
	var all gaps
	for range *rounds {
		ctx := within(t, time.Minute)
		leader, err := w.lab.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.await(ctx, time.Since(w.start)); err != nil {
			t.Fatal(err)
		}
		w.longest.Store(0)
		if err := w.lab.StepDown(ctx, leader); err != nil {
			t.Logf("step down: %v", err)
		}
		eventually(t, 10*time.Second, func(ctx context.Context) error {
			if next, err := w.lab.Leader(ctx); err != nil || next == leader {
				return errors.Join(err, errors.New("the leader is the same"))
			}
			return nil
		})
		if _, err := w.await(ctx, time.Since(w.start)); err != nil {
			t.Fatal(err)
		}
		all = append(all, time.Duration(w.longest.Load()))
	}
	t.Logf("longest time without an acknowledged write around a step-down, %v", all)
	wantAtMost(t, "longest", slices.Max(all), 500*time.Millisecond)
}

func wantAtMost(t *testing.T, what string, got, bar time.Duration) {
	t.Helper()
	if got > bar {
		t.Errorf("%s: %v, the bar is %v", what, got, bar)
	}
}

// TestTortureRestart measures how long a node takes from its start to serving, alternately in a cluster with few secrets and
// in one with many: nothing has to be loaded. One that led also waits for the next leader to be elected, so followers and
// leaders are looked at apart.
func TestTortureRestart(t *testing.T) {
	counts := []int{1_000, 100_000}
	var labs [2]*lab.Lab
	for i, secrets := range counts {
		labs[i] = startLab(t, 3)
		mountKV(t, labs[i], "many")
		if err := fill(within(t, 20*time.Minute), labs[i], 0, secrets); err != nil {
			t.Fatal(err)
		}
	}
	var followers, leaders [2]gaps
	for round := range *rounds {
		for i, l := range labs {
			leader, err := l.Leader(within(t, time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			followers[i] = append(followers[i], restart(t, l, others(l, leader)[round%2]))
			leaders[i] = append(leaders[i], restart(t, l, leader))
		}
	}
	for what, took := range map[string][2]gaps{"a follower": followers, "the leader": leaders} {
		for i, secrets := range counts {
			t.Logf("%s restarted with %d secrets, unsealed and serving, %v", what, secrets, took[i])
		}
		few, many := slices.Sorted(slices.Values(took[0]))[*rounds/2], slices.Sorted(slices.Values(took[1]))[*rounds/2]
		wantAtMost(t, "p50 of "+what+" with 100,000 secrets, against 1.2 times that with 1,000", many, few*12/10)
	}
}

// restart kills a node and returns how long it takes from its start until it serves, and waits for the others.
func restart(t *testing.T, l *lab.Lab, node int) time.Duration {
	t.Helper()
	if err := l.Kill(node); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := l.Start(within(t, time.Minute), node); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if err := l.WaitServing(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	return took
}

// others are all nodes but one.
func others(l *lab.Lab, node int) []int {
	var nodes []int
	for n := 1; n <= l.Nodes(); n++ {
		if n != node {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// fill writes secrets, from one number to another, through all nodes.
func fill(ctx context.Context, l *lab.Lab, from, to int) error {
	var next atomic.Int64
	next.Store(int64(from))
	var group errgroup.Group
	for client := range 32 {
		group.Go(func() error {
			c := l.Client(1 + client%l.Nodes())
			for n := next.Add(1) - 1; int(n) < to; n = next.Add(1) - 1 {
				path := fmt.Sprintf("many/data/f%03d/k%d", n/1000, n)
				answer, err := c.Do(ctx, http.MethodPost, path, map[string]any{"data": map[string]string{"v": fmt.Sprintf("%0250d", n)}})
				if err == nil {
					err = answer.Want(200)
				}
				if err != nil {
					return fmt.Errorf("write %s: %w", path, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}
