package quota

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave"
)

// lab is a cluster: one ledger that can be lost, and nodes that ask it. Its time passes when it is told to.
type lab struct {
	t     *testing.T
	nodes []*Limiter

	mu     sync.Mutex // guards all below
	at     time.Time
	ledger *Ledger // nil: no node leads
	lead   context.CancelFunc
	asks   int
}

var (
	anybody = netip.MustParseAddr("192.0.2.1")
	other   = netip.MustParseAddr("192.0.2.2")
)

func newLab(t *testing.T, nodes int) *lab {
	lab := &lab{t: t, at: time.Unix(1000, 0)}
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	t.Cleanup(func() {
		cancel()
		_ = group.Wait()
	})
	for range nodes {
		l := NewLimiter(lab, lab.now)
		lab.nodes = append(lab.nodes, l)
		group.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-l.kick:
					l.settle(ctx, false)
				}
			}
		})
	}
	lab.elect()
	t.Cleanup(lab.depose)
	return lab
}

// elect makes a new ledger, as another leader's.
func (lab *lab) elect() {
	lab.depose()
	ctx, cancel := context.WithCancel(context.Background())
	ledger := NewLedger(lab.now, rand.Reader)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = ledger.Lead(ctx)
	}()
	for open := false; !open; {
		ledger.mu.Lock()
		open = ledger.seat != 0
		ledger.mu.Unlock()
	}
	lab.mu.Lock()
	defer lab.mu.Unlock()
	lab.ledger, lab.lead = ledger, func() { cancel(); <-done }
}

// depose leaves the cluster without a leader.
func (lab *lab) depose() {
	lab.mu.Lock()
	lead := lab.lead
	lab.ledger, lab.lead = nil, nil
	lab.mu.Unlock()
	if lead != nil {
		lead()
	}
}

func (lab *lab) Ask(_ context.Context, body []byte) ([]byte, error) {
	lab.mu.Lock()
	ledger := lab.ledger
	lab.asks++
	lab.mu.Unlock()
	if ledger == nil {
		return nil, errors.New("no leader")
	}
	return ledger.Answer(body)
}

func (lab *lab) Nodes() int { return len(lab.nodes) }

func (lab *lab) now() time.Time {
	lab.mu.Lock()
	defer lab.mu.Unlock()
	return lab.at
}

func (lab *lab) advance(d time.Duration) {
	lab.mu.Lock()
	defer lab.mu.Unlock()
	lab.at = lab.at.Add(d)
}

// limit has all nodes go by one rule.
func (lab *lab) limit(rule RateRule) {
	if rule.Interval == 0 {
		rule.Interval = 1
	}
	s := &Snapshot{Rules: newRules(record{Rates: []*RateRule{&rule}}), Inner: func(_, _ string) bool { return false }}
	for _, l := range lab.nodes {
		l.Set(s)
	}
}

// try makes n requests of a client at a node, and returns how many were let in.
func (lab *lab) try(node, n int, client netip.Addr) (in int) {
	lab.t.Helper()
	for range n {
		err := lab.nodes[node].Admit(context.Background(), Request{Path: "secret/x", Client: client}, func(string, string) {})
		if err == nil {
			in++
		} else if !conclave.Is(err, conclave.Limited) {
			lab.t.Fatal(err)
		}
	}
	return in
}

// run makes load requests a step of 10 ms at each node named, for a time, and returns how many were let in.
func (lab *lab) run(d time.Duration, load int, nodes ...int) (in int) {
	const step = 10 * time.Millisecond
	for passed := step; passed <= d; passed += step {
		lab.advance(step)
		for _, node := range nodes {
			in += lab.try(node, load, anybody)
		}
		if passed%period == 0 {
			for _, l := range lab.nodes {
				l.settle(context.Background(), true)
			}
		}
	}
	return in
}
