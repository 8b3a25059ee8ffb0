package quota

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"sync"
	"time"

	"conclave"
)

// maxBuckets bounds the buckets of a ledger. Clients beyond share one for each quota.
const maxBuckets = 65_536

// sweepPause is the least time between two searches for buckets that are full again.
const sweepPause = time.Second

// nobody stands for the clients that there was no room for.
const nobody = "*"

// Ledger is where the cluster's buckets are kept, on the node that leads. It is safe for concurrent use.
type Ledger struct {
	now    func() time.Time // monotonic
	random io.Reader

	mu      sync.Mutex // guards all below
	seat    uint64     // 0 while this node doesn't lead
	buckets map[bucketKey]*bucket
	swept   time.Time
}

type bucketKey struct{ rule, client string }

// bucket is the cluster's bucket of one client, or of all.
type bucket struct {
	rate, burst  float64 // tokens a second, and at most
	level        float64
	at           time.Time // when level was right
	blockedUntil time.Time
}

// NewLedger makes a closed ledger. now must be monotonic.
func NewLedger(now func() time.Time, random io.Reader) *Ledger {
	return &Ledger{now: now, random: random}
}

// Lead keeps the ledger open until ctx ends: it is work for the leader alone. A ledger that opens knows nothing: it learns
// what was used from the nodes, as each of them asks for the first time.
func (l *Ledger) Lead(ctx context.Context) error {
	var seat [8]byte
	if _, err := io.ReadFull(l.random, seat[:]); err != nil {
		return err
	}
	l.mu.Lock()
	l.seat, l.buckets = binary.BigEndian.Uint64(seat[:])|1, map[bucketKey]*bucket{}
	l.mu.Unlock()
	<-ctx.Done()
	l.mu.Lock()
	l.seat, l.buckets = 0, nil
	l.mu.Unlock()
	return nil
}

var errNotLeading = conclave.Errorf(conclave.Unavailable, "this node doesn't keep the cluster's rate limits")

// Answer answers what a node's Limiter asks. The error is Unavailable on a node that doesn't lead.
func (l *Ledger) Answer(body []byte) ([]byte, error) {
	asked, err := decodeAsk(body)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seat == 0 {
		return nil, errNotLeading
	}
	reply := answer{Seat: l.seat}
	if asked.Seat == l.seat {
		now := l.now()
		reply.Grants = make([]grant, len(asked.Items))
		for i := range asked.Items {
			reply.Grants[i] = l.bucketLocked(&asked.Items[i], now).take(&asked.Items[i], now)
		}
	}
	return json.Marshal(reply)
}

func (l *Ledger) bucketLocked(i *item, now time.Time) *bucket {
	key := bucketKey{i.Rule, i.Client}
	b := l.buckets[key]
	if b == nil && !l.roomLocked(now) && i.Client != nobody && i.Client != "" {
		key.client = nobody
		b = l.buckets[key]
	}
	if b == nil {
		b = &bucket{rate: i.Rate, burst: i.Burst, level: i.Burst, at: now}
		l.buckets[key] = b
	}
	return b
}

// roomLocked reports whether another client may have a bucket.
func (l *Ledger) roomLocked(now time.Time) bool {
	if len(l.buckets) >= maxBuckets && now.Sub(l.swept) >= sweepPause {
		l.swept = now
		for key, b := range l.buckets {
			if b.fill(now); b.level >= b.burst && !now.Before(b.blockedUntil) {
				delete(l.buckets, key)
			}
		}
	}
	return len(l.buckets) < maxBuckets
}

func (b *bucket) fill(now time.Time) {
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.level, b.at = min(b.burst, b.level+passed*b.rate), now
	}
}

// take gives a node tokens: to requests that wait for one, whatever is there; ahead of requests, only of the upper half.
func (b *bucket) take(i *item, now time.Time) grant {
	b.fill(now)
	b.level = max(0, min(b.burst, b.level+float64(i.Back))-i.Used)
	if now.Before(b.blockedUntil) {
		return grant{Wait: b.blockedUntil.Sub(now)}
	}
	var g grant
	g.Tokens = min(i.Need, b.whole())
	b.level -= float64(g.Tokens)
	if g.Tokens < i.Need {
		g.Wait = b.untilOne()
		if i.Block > 0 {
			b.blockedUntil = now.Add(i.Block)
			g.Wait = i.Block
		}
		return g
	}
	ahead := min(i.Ahead, max(0, int((b.level-b.burst/2)/2)))
	b.level -= float64(ahead)
	g.Tokens, g.Left = g.Tokens+ahead, b.whole()
	return g
}

// untilOne is the time in which an empty bucket gets a token, a year at most.
func (b *bucket) untilOne() time.Duration {
	return time.Duration(min((1-b.level)/b.rate, maxInterval) * float64(time.Second))
}

// whole is how many tokens can be taken. Filling by fractions must not make the last of them late.
func (b *bucket) whole() int { return int(b.level + 1e-6) }
