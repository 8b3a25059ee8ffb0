package quota

import (
	"context"
	"math"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"conclave"
)

// Limits of a node.
const (
	maxAccounts = 32_768                 // clients of rate limits; those beyond share one for each quota
	maxWaiting  = 8192                   // requests that wait for the ledger
	period      = 250 * time.Millisecond // after which what wasn't used goes back, and what will be is asked for
	askPatience = 250 * time.Millisecond // with the ledger
	patience    = time.Second            // of a request with all of that
	leastPause  = 5 * time.Millisecond   // for which a refusal of the ledger holds at least,
	mostPause   = time.Second            // and at most: tokens that other nodes return come sooner than the rate says
)

// Desk is the way to the cluster's ledger.
type Desk interface {
	// Ask has the leader's ledger answer.
	Ask(ctx context.Context, body []byte) ([]byte, error)
	// Nodes is how many nodes serve clients.
	Nodes() int
}

// Snapshot is what a node goes by: the definitions of one version, and where namespaces are.
type Snapshot struct {
	Rules *Rules
	// Inner reports whether a name is that of a namespace directly below another.
	Inner func(namespace, name string) bool
}

// Limiter holds requests against the rate limits, on one node. It is safe for concurrent use. Run must be running.
type Limiter struct {
	desk    Desk
	now     func() time.Time // monotonic
	current atomic.Pointer[Snapshot]
	refused atomic.Uint64
	kick    chan struct{} // has one element while somebody waits for the ledger

	mu       sync.Mutex // guards all below
	accounts map[accountKey]*account
	pending  []*account // that requests wait for
	seat     uint64     // of the ledger that answered last
	alone    bool       // the ledger did not answer
	nodes    int        // that serve clients
	waiting  int        // requests
	swept    time.Time
}

type accountKey struct {
	rule   string
	client netip.Addr // the zero address is everybody; unspecified are those for whom there was no room
}

// account is what this node knows of one bucket.
type account struct {
	key         accountKey
	rate, burst float64
	block       time.Duration
	tokens      int              // that the ledger gave and nobody used yet
	left        int              // in the ledger's bucket, when it last said so
	spent       int              // since the last period began
	used        float64          // that hasn't been filled again
	usedAt      time.Time        // when used was right
	untold      float64          // of used: what the ledger doesn't know of
	refuseUntil time.Time        // this node asks nobody before
	nextAt      time.Time        // when there is a token, by the rate
	introduced  uint64           // the seat of the ledger that has been told of used
	waiters     []chan<- verdict // of requests
	own         bucket           // for when there is no ledger
}

// verdict is what a waiting request is told.
type verdict uint8

const (
	letIn verdict = iota + 1
	turnOff
	onOwn // there is no ledger
)

// NewLimiter makes a limiter that limits nothing until it gets a Snapshot. now must be monotonic.
func NewLimiter(desk Desk, now func() time.Time) *Limiter {
	return &Limiter{desk: desk, now: now, nodes: 1, kick: make(chan struct{}, 1), accounts: map[accountKey]*account{}}
}

// Set has the limiter go by other definitions.
func (l *Limiter) Set(s *Snapshot) { l.current.Store(s) }

// Refused is how many requests were refused, for metrics.
func (l *Limiter) Refused() uint64 { return l.refused.Load() }

// Audited reports whether each refusal of Admit is to be recorded.
func (l *Limiter) Audited() bool {
	s := l.current.Load()
	return s != nil && s.Rules.settled.Audit
}

// Request is what limits depend on.
type Request struct {
	Namespace string // that the client names: "", or ends in "/"
	Path      string // may begin with further namespaces
	Client    netip.Addr
}

// Admit decides whether a request goes on, before its body is read: nil, or an error of the kind Limited that says when to
// try again. If that is configured, setHeader is told what the limit is. The ledger is waited for, a second at most, when
// this node has no token of the client's at hand.
func (l *Limiter) Admit(ctx context.Context, req Request, setHeader func(name, value string)) error {
	s := l.current.Load()
	if s == nil || len(s.Rules.Rates) == 0 || s.Rules.exempt(req.Namespace, req.Path) {
		return nil
	}
	at, ok := s.Rules.rates.find(req.Namespace+req.Path, s.Inner)
	if !ok {
		return nil
	}
	return l.hold(ctx, s.Rules.Rates[at], req, setHeader, s.Rules.settled.ResponseHeaders)
}

// AdmitLogin is Admit for the quota of a role, which is known only once a login has succeeded. mount is the auth method's,
// in namespace.
func (l *Limiter) AdmitLogin(ctx context.Context, namespace, mount, role string, client netip.Addr) error {
	s := l.current.Load()
	if s == nil {
		return nil
	}
	at, ok := s.Rules.rates.ofRole(namespace+mount, role)
	if !ok {
		return nil
	}
	return l.hold(ctx, s.Rules.Rates[at], Request{namespace, mount, client}, nil, false)
}

func (l *Limiter) hold(ctx context.Context, rule *RateRule, req Request, setHeader func(name, value string), headers bool) error {
	in, wait, left := l.take(ctx, rule, req.Client)
	if headers {
		reset := max(wait.Seconds(), (rule.Rate-float64(left))*float64(rule.Interval)/rule.Rate)
		setHeader("X-RateLimit-Limit", strconv.FormatFloat(rule.Rate, 'f', -1, 64))
		setHeader("X-RateLimit-Remaining", strconv.Itoa(left))
		setHeader("X-RateLimit-Reset", strconv.FormatInt(int64(math.Ceil(reset)), 10))
	}
	if in {
		return nil
	}
	l.refused.Add(1)
	return &conclave.Error{Kind: conclave.Limited, Message: "request path " + strconv.Quote(req.Path) + ": rate limit quota exceeded", RetryAfter: max(wait, time.Millisecond)}
}

// take gets a token, waiting for the ledger if need be. wait is until there may be another, left how many there are.
func (l *Limiter) take(ctx context.Context, rule *RateRule, client netip.Addr) (in bool, wait time.Duration, left int) {
	l.mu.Lock()
	now := l.now()
	a := l.accountLocked(rule, client, now)
	if in, decided := l.atHandLocked(a, now); decided || l.waiting >= maxWaiting {
		defer l.mu.Unlock()
		return in, a.wait(now), a.tokens + a.left
	}
	l.waiting++
	told := make(chan verdict, 1)
	if len(a.waiters) == 0 {
		l.pending = append(l.pending, a)
	}
	a.waiters = append(a.waiters, told)
	l.mu.Unlock()
	l.wake()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	heard := onOwn
	select {
	case heard = <-told:
	case <-ctx.Done():
		heard = turnOff // nobody waits for the answer
	case <-timer.C:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	now = l.now()
	in = heard == letIn || heard == onOwn && a.takeOwn(now, l.nodes)
	return in, a.wait(now), a.tokens + a.left
}

// wake has Run ask the ledger.
func (l *Limiter) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// atHandLocked decides about a request without the ledger, if that can be.
func (l *Limiter) atHandLocked(a *account, now time.Time) (in, decided bool) {
	switch {
	case now.Before(a.refuseUntil):
		a.spent++
		return false, true
	case a.tokens > 0:
		a.tokens--
		a.spend(1, now)
		return true, true
	case l.alone:
		return a.takeOwn(now, l.nodes), true
	}
	return false, false
}

func (a *account) spend(n int, now time.Time) {
	a.fill(now)
	a.used += float64(n)
	a.spent += n
}

func (a *account) fill(now time.Time) {
	a.used, a.usedAt = max(0, a.used-a.rate*now.Sub(a.usedAt).Seconds()), now
}

// wait is until a request may be let in, as far as this node knows.
func (a *account) wait(now time.Time) time.Duration { return max(0, a.nextAt.Sub(now)) }

// refuse turns requests off for as long as there is no token.
func (a *account) refuse(now time.Time, wait time.Duration) {
	a.nextAt = now.Add(wait)
	if a.block == 0 {
		wait = max(leastPause, min(wait, mostPause))
	}
	a.refuseUntil = now.Add(wait)
}

// takeOwn takes a token of this node's part of the bucket, of which what this node let in lately is used already.
func (a *account) takeOwn(now time.Time, nodes int) bool {
	part := 1 / float64(max(1, nodes))
	a.own.rate, a.own.burst = a.rate*part, max(1, a.burst*part)
	a.fill(now)
	a.own.fill(now)
	if a.own.level = min(a.own.level, a.own.burst, a.burst-a.used); a.own.whole() < 1 {
		a.refuse(now, max(a.own.untilOne(), a.block))
		return false
	}
	a.own.level--
	a.spend(1, now)
	a.untold++
	return true
}

func (l *Limiter) accountLocked(rule *RateRule, client netip.Addr, now time.Time) *account {
	key := accountKey{rule.key(), oneClient(client)}
	if rule.Together {
		key.client = netip.Addr{}
	}
	a := l.accounts[key]
	if a == nil && len(l.accounts) >= maxAccounts && !rule.Together {
		l.sweepLocked(now)
		if len(l.accounts) >= maxAccounts {
			key.client = netip.IPv6Unspecified()
			a = l.accounts[key]
		}
	}
	if a == nil {
		perSecond := rule.Rate / float64(rule.Interval)
		a = &account{key: key, rate: perSecond, burst: max(1, rule.Rate), block: rule.Block.Duration(), usedAt: now}
		a.own = bucket{level: a.burst, at: now}
		l.accounts[key] = a
	}
	return a
}

// sweepLocked forgets accounts that say nothing any more.
func (l *Limiter) sweepLocked(now time.Time) {
	if now.Sub(l.swept) < sweepPause {
		return
	}
	l.swept = now
	for key, a := range l.accounts {
		if a.fill(now); a.used == 0 && a.tokens == 0 && len(a.waiters) == 0 && !now.Before(a.refuseUntil) {
			delete(l.accounts, key)
		}
	}
}

// key names the buckets of a rule as it is now.
func (r *RateRule) key() string { return r.Name + "@" + strconv.FormatInt(r.Changed, 36) }

// oneClient is what one client is taken to have: an address, of IPv6 a network of 64 bits.
func oneClient(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if !address.Is6() {
		return address
	}
	network, err := address.Prefix(64)
	if err != nil {
		return address
	}
	return network.Addr()
}
