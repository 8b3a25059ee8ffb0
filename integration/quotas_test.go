package integration

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// limitReads gives an address so many reads of hidden/ in a day, over the whole cluster, and waits until all nodes know.
func limitReads(t *testing.T, l *lab.Lab, reads int) {
	t.Helper()
	mountKV(t, l, "hidden")
	ctx := within(t, 30*time.Second)
	if err := l.Client(1).Write(ctx, "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true}, nil); err != nil {
		t.Fatal(err)
	}
	// A second quota shows when a node knows of both, at the cost of nothing in the first.
	for path, rate := range map[string]int{"hidden": reads, "hidden/config": 10_000} {
		fields := map[string]any{"path": path, "rate": rate, "interval": "24h"}
		if err := l.Client(2).Write(ctx, "sys/quotas/rate-limit/q"+fmt.Sprint(rate), fields, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 10*time.Second, func(ctx context.Context) error {
		for n := 1; n <= l.Nodes(); n++ {
			answer, err := l.Client(n).Do(ctx, "GET", "hidden/config", nil)
			if err != nil {
				return err
			}
			if answer.Header.Get("X-RateLimit-Limit") != "10000" {
				return fmt.Errorf("node %d doesn't know the quotas", n)
			}
		}
		return nil
	})
}

// readHidden makes requests at nodes, many at once, and returns how many weren't refused by the limit.
func readHidden(t *testing.T, l *lab.Lab, each int, nodes ...int) int {
	t.Helper()
	ctx := within(t, time.Minute)
	var in atomic.Int64
	var group errgroup.Group
	group.SetLimit(24)
	for i := range each * len(nodes) {
		group.Go(func() error {
			answer, err := l.Client(nodes[i%len(nodes)]).Do(ctx, "GET", "hidden/data/x", nil)
			switch {
			case err != nil:
				return err
			case answer.Status != 429:
				in.Add(1)
				return answer.Want(404)
			case answer.Header.Get("Retry-After") == "":
				return fmt.Errorf("a refusal that doesn't say when to try again")
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return int(in.Load())
}

// TestRateLimitIsTheClusters has an address use up its rate through all nodes, and through another leader.
func TestRateLimitIsTheClusters(t *testing.T) {
	const reads = 60
	l := startLab(t, 3)
	limitReads(t, l, reads)
	in := readHidden(t, l, 20, 1) + readHidden(t, l, 40, 1, 2, 3)
	if in > reads || in < reads/2 {
		t.Fatalf("%d reads were let in, want at most %d and nearly that", in, reads)
	}
	// What a node had taken ahead goes back when it isn't used, so that in the end all of it is.
	eventually(t, 20*time.Second, func(context.Context) error {
		if in += readHidden(t, l, 5, 1, 2, 3); in > reads {
			t.Fatalf("%d reads were let in, want %d", in, reads)
		}
		if in < reads-1 { // the last token may be in parts
			return fmt.Errorf("%d reads were let in, want %d", in, reads)
		}
		return nil
	})
	ctx := within(t, time.Minute)
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Leader(ctx); err != nil {
		t.Fatal(err)
	}
	others := []int{1 + leader%3, 1 + (leader+1)%3}
	if more := readHidden(t, l, 60, others...); more > reads {
		t.Errorf("%d more reads were let in after the leader was lost, want at most one bucket", more)
	}
}

// TestLeaseCountIsExactOverTheCluster has many clients race on all nodes for the last places of a lease count.
func TestLeaseCountIsExactOverTheCluster(t *testing.T) {
	const places = 10
	l := startLab(t, 3)
	ctx := within(t, time.Minute)
	if err := l.Client(1).Write(ctx, "sys/quotas/lease-count/few", map[string]any{"max_leases": places}, nil); err != nil {
		t.Fatal(err)
	}
	race := func() (tokens []string) {
		t.Helper()
		made := make([]string, 60)
		var group errgroup.Group
		for i := range made {
			group.Go(func() error {
				answer, err := l.Client(1+i%3).Do(ctx, "POST", "auth/token/create", map[string]any{"ttl": "1h", "policies": []string{"default"}})
				if err == nil && answer.Status == 200 {
					made[i], err = answer.Token()
				} else if err == nil {
					err = answer.Want(429)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		for _, token := range made {
			if token != "" {
				tokens = append(tokens, token)
			}
		}
		return tokens
	}
	tokens := race()
	if len(tokens) != places {
		t.Fatalf("%d tokens were made, want %d", len(tokens), places)
	}
	for _, token := range tokens[:4] {
		if err := l.Client(2).Write(ctx, "auth/token/revoke", map[string]string{"token": token}, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		var quota struct{ Counter int }
		if err := l.Client(3).Read(ctx, "sys/quotas/lease-count/few", &quota); err != nil {
			return err
		}
		if quota.Counter != places-4 {
			return fmt.Errorf("%d leases are counted, want %d", quota.Counter, places-4)
		}
		return nil
	})
	if again := race(); len(again) != 4 {
		t.Errorf("%d tokens were made in place of 4, want 4", len(again))
	}
}
