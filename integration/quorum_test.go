//go:build torture

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// What a client may be made to wait without a quorum.
const (
	lossBar   = 5 * time.Second // from the loss of the quorum until all that had been asked before is answered
	refuseBar = time.Second     // for what is asked after that
	lossTime  = 12 * time.Second
)

// asked is one request and its answer, in time since the start.
type asked struct {
	what       string
	begun, got time.Duration
	status     int
	retry      string // Retry-After
	body       []byte
	err        error
}

// askers ask one node without pause: some read, some write.
type askers struct {
	lab   *lab.Lab
	start time.Time

	mu  sync.Mutex // guards what follows
	all []asked
}

func (a *askers) run(ctx context.Context, node, asker int) error {
	path := fmt.Sprintf("asked/data/n%d-%d", node, asker)
	for n := 0; ctx.Err() == nil; n++ {
		q := asked{what: http.MethodGet, begun: time.Since(a.start)}
		var body any
		if asker%2 == 0 {
			q.what, body = http.MethodPost, map[string]any{"data": map[string]int{"n": n}}
		}
		answer, err := a.lab.Client(node).Do(ctx, q.what, path, body)
		if ctx.Err() != nil {
			return nil
		}
		if q.got, q.err = time.Since(a.start), err; err == nil {
			q.status, q.retry, q.body = answer.Status, answer.Header.Get("Retry-After"), answer.Body
		}
		a.mu.Lock()
		a.all = append(a.all, q)
		a.mu.Unlock()
		breathe(ctx)
	}
	return nil
}

// askWhile has these nodes asked while f runs, which returns when something happened; and returns what was under way or
// asked from then on.
func askWhile(t *testing.T, l *lab.Lab, nodes []int, f func() time.Time) (happened time.Duration, since []asked) {
	t.Helper()
	a := &askers{lab: l, start: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	for _, node := range nodes {
		for asker := range 8 {
			if err := l.Client(node).Write(ctx, fmt.Sprintf("asked/data/n%d-%d", node, asker), map[string]any{"data": map[string]int{"n": -1}}, nil); err != nil {
				t.Fatal(err)
			}
			group.Go(func() error { return a.run(ctx, node, asker) })
		}
	}
	happened = f().Sub(a.start)
	cancel()
	_ = group.Wait() // they return nil
	for _, q := range a.all {
		if q.got >= happened {
			since = append(since, q)
		}
	}
	return happened, since
}

// TestTortureNoQuorum takes the quorum from a survivor, in several ways: what it was asked is answered soon, with 503 and
// when to try again; and all is well when the others are back.
func TestTortureNoQuorum(t *testing.T) {
	l := startLab(t, 3)
	mountKV(t, l, "asked")
	ways := []struct {
		name       string
		lose, back func(int) error
		led        bool // the survivor
	}{
		{"a leader alone, the others killed", l.Kill, func(n int) error { return l.Start(within(t, time.Minute), n) }, true},
		{"a follower alone, the others killed", l.Kill, func(n int) error { return l.Start(within(t, time.Minute), n) }, false},
		{"a leader alone, the others hang", l.Pause, l.Resume, true},
		{"a follower alone, the others hang", l.Pause, l.Resume, false},
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			survivor, err := l.Leader(within(t, time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if !way.led {
				survivor = others(l, survivor)[0]
			}
			lost, since := askWhile(t, l, []int{survivor}, func() time.Time {
				letPass(t, 500*time.Millisecond) // some requests are under way
				for _, n := range others(l, survivor) {
					if err := way.lose(n); err != nil {
						t.Error(err)
					}
				}
				at := time.Now()
				letPass(t, lossTime)
				return at
			})
			wantRefusedSoon(t, lost, since)
			var group errgroup.Group
			for _, n := range others(l, survivor) {
				group.Go(func() error { return way.back(n) })
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			for n := 1; n <= l.Nodes(); n++ {
				eventually(t, 20*time.Second, func(ctx context.Context) error {
					return l.Client(n).Read(ctx, fmt.Sprintf("asked/data/n%d-0", survivor), nil)
				})
			}
		})
	}
}

// letPass lets the askers ask for a while.
func letPass(t *testing.T, d time.Duration) {
	t.Helper()
	<-within(t, d).Done()
}

func wantRefusedSoon(t *testing.T, lost time.Duration, since []asked) {
	t.Helper()
	var waited, slowest time.Duration // until when answers were waited for, and the slowest of what was asked later
	statuses := make(map[string]int)
	for _, q := range since {
		if q.got < lost+100*time.Millisecond && q.status < 300 && q.err == nil {
			continue // it had been committed
		}
		statuses[fmt.Sprint(q.what, " ", q.status)]++
		switch {
		case q.err != nil:
			t.Errorf("%s at %v: %v", q.what, q.begun-lost, q.err)
		case q.status == http.StatusServiceUnavailable && q.retry == "":
			t.Errorf("%s at %v: 503 without Retry-After", q.what, q.begun-lost)
		case q.status == http.StatusInternalServerError && q.what == http.MethodPost && q.begun < lost+lossBar: // unknown
		case q.status != http.StatusServiceUnavailable:
			t.Errorf("%s at %v: status %d, %s; want 503", q.what, q.begun-lost, q.status, q.body)
		}
		switch took := q.got - q.begun; {
		case q.begun >= lost+lossBar:
			slowest = max(slowest, took)
		case took > refuseBar:
			waited = max(waited, q.got-lost)
		}
	}
	t.Logf("%v; waiting ended %v after the loss, what was asked later was answered within %v", statuses, waited.Round(time.Millisecond), slowest.Round(time.Millisecond))
	wantAtMost(t, "waiting after the loss of the quorum", waited, lossBar)
	wantAtMost(t, "refusal without a quorum", slowest, refuseBar)
}

// TestTortureFailoverRefusesNobody: while a new leader is elected requests wait for it, and are then answered.
func TestTortureFailoverRefusesNobody(t *testing.T) {
	l := startLab(t, 3)
	mountKV(t, l, "asked")
	var longest gaps
	for range *rounds {
		leader, err := l.Leader(within(t, time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		_, since := askWhile(t, l, others(l, leader), func() time.Time {
			letPass(t, 500*time.Millisecond)
			if err := l.Kill(leader); err != nil {
				t.Error(err)
			}
			at := time.Now()
			letPass(t, 4*time.Second)
			return at
		})
		var slowest time.Duration
		for _, q := range since {
			if slowest = max(slowest, q.got-q.begun); q.err != nil || q.status != http.StatusOK {
				t.Errorf("%s begun %v before its answer: status %d, %s, %v", q.what, q.got-q.begun, q.status, q.body, q.err)
			}
		}
		if len(since) == 0 {
			t.Error(errors.New("nothing was answered"))
		}
		longest = append(longest, slowest)
		if err := l.Start(within(t, time.Minute), leader); err != nil {
			t.Fatal(err)
		}
		if err := l.WaitServing(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("slowest answer around the death of a leader, %v", longest)
}
