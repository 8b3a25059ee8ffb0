package quota

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave"
)

// TestNodesTogetherKeepTheRate holds the promise of the package: never more than rate and one bucket, and nearly all of it.
func TestNodesTogetherKeepTheRate(t *testing.T) {
	const seconds = 20
	tests := []struct {
		name  string
		rate  float64
		load  int // requests of each node in 10 ms
		nodes []int
	}{
		{"all load on one node", 100, 5, []int{0}},
		{"load on all nodes", 100, 5, []int{0, 1, 2}},
		{"little more than allowed on two nodes", 100, 1, []int{1, 2}},
		{"a high rate", 5000, 75, []int{0, 1, 2}},
		{"a low rate", 0.5, 1, []int{0, 1, 2}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			lab := newLab(t, 3)
			lab.limit(RateRule{Name: "q", Rate: test.rate})
			in := float64(lab.run(seconds*time.Second, test.load, test.nodes...))
			most := test.rate*seconds + max(1, test.rate)
			if in > most || in < 0.9*test.rate*seconds {
				t.Errorf("%v requests were let in, want at most %v and nearly that", in, most)
			}
		})
	}
}

func TestLoadThatMovesKeepsTheRate(t *testing.T) {
	lab := newLab(t, 3)
	lab.limit(RateRule{Name: "q", Rate: 100})
	in := 0
	for second := range 15 {
		in += lab.run(time.Second, 5, second%3)
	}
	if in > 1600 || in < 1350 {
		t.Errorf("%d requests were let in, want at most 1600 and nearly that", in)
	}
}

func TestLoadBelowTheRateIsNeverRefused(t *testing.T) {
	lab := newLab(t, 3)
	lab.limit(RateRule{Name: "q", Rate: 1000})
	if in := lab.run(5*time.Second, 3, 0, 1, 2); in != 5*100*3*3 {
		t.Errorf("%d of %d requests were let in", in, 5*100*3*3)
	}
	lab.mu.Lock()
	defer lab.mu.Unlock()
	if lab.asks > 600 {
		t.Errorf("the ledger was asked %d times about 4500 requests", lab.asks)
	}
}

func TestBucketIsTheClustersAndExact(t *testing.T) {
	lab := newLab(t, 3)
	lab.limit(RateRule{Name: "q", Rate: 5, Interval: 60})
	if in := lab.try(0, 2, anybody) + lab.try(1, 2, anybody) + lab.try(2, 10, anybody); in != 5 {
		t.Errorf("%d of 14 requests were let in, want 5", in)
	}
	if in := lab.try(0, 9, other); in != 5 {
		t.Errorf("%d requests of another address were let in, want 5", in)
	}
	lab.advance(12 * time.Second)
	if in := lab.try(1, 3, anybody); in != 1 {
		t.Errorf("%d requests were let in after a fifth of the interval, want 1", in)
	}
}

func TestClientsMayShareOneBucket(t *testing.T) {
	lab := newLab(t, 2)
	lab.limit(RateRule{Name: "q", Rate: 5, Together: true})
	if in := lab.try(0, 4, anybody) + lab.try(1, 4, other); in != 5 {
		t.Errorf("%d of 8 requests were let in, want 5", in)
	}
}

func TestParallelRequestsAreCountedOneByOne(t *testing.T) {
	lab := newLab(t, 3)
	lab.limit(RateRule{Name: "q", Rate: 50, Interval: 60})
	var group errgroup.Group
	counts := make([]int, 60)
	for i := range counts {
		group.Go(func() error {
			counts[i] = lab.try(i%3, 5, anybody)
			return nil
		})
	}
	_ = group.Wait()
	in := 0
	for _, n := range counts {
		in += n
	}
	// What was taken ahead and not used isn't lost.
	for _, l := range lab.nodes {
		l.settle(context.Background(), true)
		l.settle(context.Background(), true)
	}
	lab.advance(leastPause)
	if left := lab.try(0, 50, anybody); in > 50 || in+left < 49 || in+left > 51 {
		t.Errorf("%d and %d of 350 requests were let in, want 50", in, left)
	}
}

func TestClientBeyondTheRateIsBlockedEverywhere(t *testing.T) {
	lab := newLab(t, 2)
	lab.limit(RateRule{Name: "q", Rate: 3, Block: 60})
	if in := lab.try(0, 4, anybody); in != 3 {
		t.Fatalf("%d requests were let in, want 3", in)
	}
	lab.advance(59 * time.Second)
	if in := lab.try(0, 1, anybody) + lab.try(1, 1, anybody); in != 0 {
		t.Errorf("%d requests were let in while the client is blocked", in)
	}
	lab.advance(2 * time.Second)
	if in := lab.try(1, 3, anybody); in != 3 {
		t.Errorf("%d requests were let in after that, want 3", in)
	}
}

func TestNewLedgerLearnsWhatWasUsed(t *testing.T) {
	lab := newLab(t, 3)
	lab.limit(RateRule{Name: "q", Rate: 100, Interval: 3600})
	if in := lab.try(0, 100, anybody); in != 100 {
		t.Fatalf("%d requests were let in, want 100", in)
	}
	lab.elect()
	for _, l := range lab.nodes {
		l.settle(context.Background(), true)
		l.settle(context.Background(), true)
	}
	if in := lab.try(0, 20, anybody) + lab.try(1, 20, anybody); in > 0 {
		t.Errorf("%d requests were let in by a new ledger, want none", in)
	}
}

func TestNodeWithoutLedgerHasItsPart(t *testing.T) {
	lab := newLab(t, 3)
	lab.limit(RateRule{Name: "q", Rate: 30, Interval: 60})
	lab.depose()
	if in := lab.try(0, 30, anybody); in != 10 {
		t.Errorf("%d requests were let in, want a third of 30", in)
	}
	lab.elect()
	lab.advance(10 * time.Second)
	for _, l := range lab.nodes {
		l.settle(context.Background(), true)
	}
	if in := lab.try(0, 40, anybody); in < 20 || in > 25 {
		t.Errorf("%d requests were let in when there was a ledger again, want what the 10 left", in)
	}
}

func TestRefusalSaysWhenToTryAgain(t *testing.T) {
	lab := newLab(t, 1)
	lab.limit(RateRule{Name: "q", Rate: 1, Interval: 10})
	headers := map[string]string{}
	s := *lab.nodes[0].current.Load()
	s.Rules.settled.ResponseHeaders = true
	admit := func() error {
		return lab.nodes[0].Admit(context.Background(), Request{Path: "secret/x", Client: anybody}, func(name, value string) { headers[name] = value })
	}
	if err := admit(); err != nil || headers["X-RateLimit-Limit"] != "1" || headers["X-RateLimit-Remaining"] != "0" || headers["X-RateLimit-Reset"] != "10" {
		t.Errorf("the first request: %v, %v", err, headers)
	}
	var refusal *conclave.Error
	if err := admit(); !errors.As(err, &refusal) || refusal.RetryAfter != 10*time.Second || refusal.Message != `request path "secret/x": rate limit quota exceeded` {
		t.Errorf("the second: %#v", err)
	}
}

func TestManyClientsFillNothing(t *testing.T) {
	lab := newLab(t, 1)
	lab.limit(RateRule{Name: "q", Rate: 1, Interval: 3600})
	lab.depose() // so that nobody is waited for
	lab.try(0, 1, anybody)
	address := netip.MustParseAddr("10.0.0.0")
	for range maxAccounts + 1000 {
		address = address.Next()
		lab.try(0, 1, address)
	}
	if in := lab.try(0, 10, netip.MustParseAddr("10.200.0.1")); in > 0 {
		t.Errorf("%d requests of a client beyond the bound were let in, want what those share, which is used up", in)
	}
	if n := len(lab.nodes[0].accounts); n > maxAccounts+1 {
		t.Errorf("%d clients are remembered", n)
	}
	network := netip.MustParseAddr("2001:db8::1")
	if oneClient(network) != oneClient(network.Next()) || oneClient(network) == oneClient(netip.MustParseAddr("2001:db8:0:1::")) {
		t.Error("a client of IPv6 isn't a network of 64 bits")
	}
}

func BenchmarkAdmit(b *testing.B) {
	l := NewLimiter(nil, time.Now)
	rule := &RateRule{Name: "q", Rate: maxRate, Interval: 1}
	l.Set(&Snapshot{Rules: newRules(record{Rates: []*RateRule{rule}}), Inner: func(_, _ string) bool { return false }})
	l.accountLocked(rule, anybody, time.Now()).tokens = 1 << 40
	for b.Loop() {
		if err := l.Admit(context.Background(), Request{Path: "secret/data/x", Client: anybody}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAdmitByLedger has each request be another client's, so that the ledger is asked about every one of them.
func BenchmarkAdmitByLedger(b *testing.B) {
	ledger := NewLedger(time.Now, rand.Reader)
	ledger.seat, ledger.buckets = 1, map[bucketKey]*bucket{}
	l := NewLimiter(inProcess{ledger}, time.Now)
	l.Set(&Snapshot{Rules: newRules(record{Rates: []*RateRule{{Name: "q", Rate: 10, Interval: 1}}}), Inner: func(_, _ string) bool { return false }})
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	group.Go(func() error { return l.Run(ctx) })
	var client atomic.Uint32
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := client.Add(1)
			_ = l.Admit(ctx, Request{Path: "secret/data/x", Client: netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})}, nil)
		}
	})
	cancel()
	_ = group.Wait()
}

// inProcess asks a ledger without a network.
type inProcess struct{ *Ledger }

func (p inProcess) Ask(_ context.Context, body []byte) ([]byte, error) { return p.Answer(body) }

func (inProcess) Nodes() int { return 1 }
