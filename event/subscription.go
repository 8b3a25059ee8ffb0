package event

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"conclave"
)

// Limits of subscribers.
const (
	MaxSubscribers   = 1024 // of a node
	MaxOfToken       = 32   // of one token on a node
	judgePause       = 500 * time.Millisecond
	patienceToEnding = 5 * time.Second
)

// Judge decides what whoever subscribed may know now.
type Judge interface {
	// Judge reports, for each of some events, whether whoever makes the request may know of it, on a state that has the Raft
	// entry index. An error says why it may subscribe no longer.
	Judge(ctx context.Context, req *conclave.Request, index uint64, events []*conclave.Occurrence) ([]bool, error)
}

// Config is what a service works with.
type Config struct {
	Stream *Stream
	Judge  Judge
	// Source is who the messages say they are from: a URI.
	Source func() string
	// Webhooks sends to webhooks; its routes are those of the service.
	Webhooks *Webhooks
	// Now measures how long a judgement is old. Default: the clock.
	Now func() time.Time
}

// Service lets clients subscribe. It is safe for concurrent use.
type Service struct {
	Config
	counters Counters

	mu      sync.Mutex     // guards all below
	all     int            // subscribers
	ofToken map[string]int // accessor, or name of a token → its subscribers
}

// Counters count what subscribers got, for metrics.
type Counters struct {
	Subscribers atomic.Int64  // now
	Sent        atomic.Uint64 // events
	Refused     atomic.Uint64 // subscriptions beyond a limit
	Cut         atomic.Uint64 // subscriptions that ended for another reason than the client's own
}

// New makes a service.
func New(config Config) *Service {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Service{Config: config, ofToken: map[string]int{}}
}

// Counters returns the live counters.
func (s *Service) Counters() *Counters { return &s.counters }

var errFull = &conclave.Error{Kind: conclave.Limited, Message: "too many subscriptions to events", RetryAfter: patienceToEnding}

// full reports whether there is no place for one more subscriber with this token.
func (s *Service) full(token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= MaxSubscribers || s.ofToken[token] >= MaxOfToken {
		s.counters.Refused.Add(1)
		return errFull
	}
	return nil
}

// enter takes a place, which leave gives back.
func (s *Service) enter(token string) (leave func(), err error) {
	if err := s.full(token); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all++
	s.ofToken[token]++
	s.counters.Subscribers.Add(1)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.ofToken[token]--; s.ofToken[token] == 0 {
			delete(s.ofToken, token)
		}
		s.counters.Subscribers.Add(-1)
	}, nil
}

// subscription is what one client asked for.
type subscription struct {
	Selection
	from      Cursor
	positions time.Duration // how often the client is told where it is while it gets no events; 0: never
}

// serve sends what a subscription selects and its maker may know of, until ctx ends or it may not know any more. The error
// names the cursor to go on from, unless sending failed.
func (s *Service) serve(ctx context.Context, sub *subscription, req *conclave.Request, token string, send func(context.Context, []byte) error) error {
	leave, err := s.enter(token)
	if err != nil {
		return err
	}
	defer leave()
	l := s.Stream.listen(sub.from)
	defer l.close()
	told, toldAt := l.cursor, s.Now()
	for {
		b, err := l.next(ctx, judgePause)
		if err == nil {
			var sent bool
			if sent, err = s.deliver(ctx, l, &b, sub, req, send); sent {
				told, toldAt = l.cursor, s.Now()
			}
		}
		if err == nil && sub.positions > 0 && told != l.cursor && s.Now().Sub(toldAt) >= sub.positions {
			if told, toldAt = l.cursor, s.Now(); send(ctx, position(told, toldAt, s.Source())) != nil {
				err = errSend
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errSend):
			return err
		case err != nil:
			s.counters.Cut.Add(1)
			return ending(err, l.cursor)
		}
	}
}

// errSend is why the client got no more: it is gone, or too slow.
var errSend = errors.New("the client takes no more")

// deliver sends a batch and moves the listener's cursor behind each event. What isn't sent within judgePause is judged
// again.
func (s *Service) deliver(ctx context.Context, l *listener, b *batch, sub *subscription, req *conclave.Request, send func(context.Context, []byte) error) (any bool, err error) {
	var chosen []item
	for _, it := range b.items {
		if sub.Matches(it.event()) {
			chosen = append(chosen, it)
		}
	}
	for first := true; first || len(chosen) > 0; first = false {
		events := make([]*conclave.Occurrence, len(chosen))
		for i, it := range chosen {
			events[i] = it.event()
		}
		seen, err := s.Judge.Judge(ctx, req, b.index(), events)
		if err != nil {
			return any, err
		}
		sent := 0
		for judged := s.Now(); sent < len(chosen) && (sent == 0 || s.Now().Sub(judged) < judgePause); sent++ {
			it := chosen[sent]
			if !seen[sent] {
				continue
			}
			if err := send(ctx, it.record.message(it.number, s.Source())); err != nil {
				return any, errors.Join(errSend, err)
			}
			any = true
			s.counters.Sent.Add(1)
			l.cursor = it.record.after(it.number)
		}
		chosen = chosen[sent:]
	}
	l.cursor = b.next
	return any, nil
}

// ending tells a client why its subscription ends, and where to go on.
func ending(err error, c Cursor) error {
	kind := conclave.KindOf(err)
	if errors.Is(err, errEnded) {
		kind = conclave.Unavailable
	}
	switch kind {
	case conclave.Denied, conclave.Unavailable, conclave.Sealed:
		return conclave.Errorf(kind, "%s; since=%s", err.Error(), c)
	case conclave.Invalid: // it says itself where to go on
		return err
	}
	return conclave.Errorf(kind, "internal error; since=%s", c)
}
