package event

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave"
)

// fakeLog is a log in memory.
type fakeLog struct {
	mu      sync.Mutex // guards all below
	oldest  uint64
	base    [32]byte // head before the oldest
	records []*Record
	more    chan struct{} // closed when there are more; replaced then
	reads   int           // records that were visited
	fail    error
}

func newFakeLog() *fakeLog { return &fakeLog{more: make(chan struct{})} }

// add appends a record for each number of events, each with events of type test/made about p<seq>/<i>.
func (l *fakeLog) add(counts ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range counts {
		seq := l.oldest + uint64(len(l.records))
		r := &Record{Seq: seq, Index: 100 + seq, Digest: sha256.Sum256(fmt.Append(nil, seq)), Time: time.Unix(int64(seq), 0)}
		r.Link = sha256.Sum256(append(fmt.Append(nil, "link", seq, n), l.base[:4]...))
		for i := range n {
			r.Events = append(r.Events, conclave.Occurrence{Event: conclave.Event{Type: "test/made", Path: fmt.Sprint("p", seq, "/", i)},
				Namespace: conclave.Namespace{ID: "root"}, Mount: &conclave.Mount{Path: "m/", Kind: "test"}})
		}
		l.records = append(l.records, r)
	}
	close(l.more)
	l.more = make(chan struct{})
}

// prune drops the first n records.
func (l *fakeLog) prune(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base, l.oldest = l.records[n-1].Link, l.oldest+uint64(n)
	l.records = append([]*Record(nil), l.records[n:]...)
}

// replace begins another history.
func (l *fakeLog) replace() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records, l.oldest, l.base = nil, 0, sha256.Sum256([]byte("other"))
}

func (l *fakeLog) Read(_ context.Context, from uint64, visit func(*Record) bool) error {
	l.mu.Lock()
	if l.fail != nil || from < l.oldest {
		defer l.mu.Unlock()
		return errors.Join(l.fail, conclave.Errorf(conclave.Unavailable, "moved"))
	}
	records := l.records[min(int(from-l.oldest), len(l.records)):]
	l.reads += len(records)
	l.mu.Unlock()
	for _, r := range records {
		if !visit(r) {
			break
		}
	}
	return nil
}

func (l *fakeLog) Range() (oldest, next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.oldest, l.oldest + uint64(len(l.records))
}

func (l *fakeLog) Head(_ context.Context, n uint64) ([32]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n == l.oldest {
		return l.base, nil
	}
	return l.records[n-l.oldest-1].Link, nil
}

func (l *fakeLog) Wait(ctx context.Context, seq uint64) error {
	for {
		l.mu.Lock()
		there, more := seq < l.oldest+uint64(len(l.records)), l.more
		l.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// running is a stream that runs until the test ends.
func running(t *testing.T, log Log) *Stream {
	t.Helper()
	s := NewStream(log, func(err error) { t.Logf("reported: %v", err) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// take returns what n events are about, and where they end.
func take(t *testing.T, l *listener, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got []string
	for len(got) < n {
		b, err := l.next(ctx, 10*time.Second)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		for _, it := range b.items {
			got = append(got, it.record.Events[it.number].FullPath())
		}
		l.cursor = b.next
	}
	return got
}

func wantPaths(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("events about %q, want %q", got, want)
	}
}

func start(t *testing.T, s *Stream, text string) Cursor {
	t.Helper()
	c, err := s.Start(t.Context(), text)
	if err != nil {
		t.Fatalf("Start(%q): %v", text, err)
	}
	return c
}

func TestListenersGetAllThatFollowsTheirCursor(t *testing.T) {
	log := newFakeLog()
	log.add(1, 0, 2)
	s := running(t, log)
	fresh, all := s.listen(start(t, s, "")), s.listen(start(t, s, Oldest))
	defer fresh.close()
	defer all.close()
	log.add(0, 1)
	wantPaths(t, take(t, fresh, 1), "m/p4/0")
	wantPaths(t, take(t, all, 4), "m/p0/0", "m/p2/0", "m/p2/1", "m/p4/0")
	log.add(1)
	wantPaths(t, take(t, fresh, 1), "m/p5/0")
	wantPaths(t, take(t, all, 1), "m/p5/0")
}

// A cursor between two events of a record goes on with the second, whether the record is in memory or in the log.
func TestCursorWithinARecord(t *testing.T) {
	log := newFakeLog()
	log.add(3)
	s := running(t, log)
	second := log.records[0].after(0)
	for range 2 {
		l := s.listen(start(t, s, second.String()))
		wantPaths(t, take(t, l, 2), "m/p0/1", "m/p0/2")
		l.close()
	}
	keep := s.listen(start(t, s, ""))
	defer keep.close()
	log.add(2)
	take(t, keep, 2) // the record is in the window now
	l := s.listen(start(t, s, log.records[1].after(0).String()))
	defer l.close()
	wantPaths(t, take(t, l, 1), "m/p1/1")
	if got := log.records[1].after(1); got.Seq != 2 || got.Done != 0 {
		t.Errorf("behind the last event the cursor is %+v", got)
	}
}

func TestOldCursorsNameTheOldest(t *testing.T) {
	log := newFakeLog()
	log.add(1, 1, 1, 1)
	s := running(t, log)
	old := start(t, s, Oldest)
	log.prune(2)
	_, err := s.Start(t.Context(), old.String())
	if !conclave.Is(err, conclave.Invalid) {
		t.Fatalf("a cursor that is too old: %v, want Invalid", err)
	}
	_, named, _ := strings.Cut(err.Error(), "oldest cursor is ")
	l := s.listen(start(t, s, named))
	defer l.close()
	wantPaths(t, take(t, l, 2), "m/p2/0", "m/p3/0")

	// A listener that is overtaken is told, too.
	behind := s.listen(old)
	defer behind.close()
	if _, err := behind.next(t.Context(), 10*time.Second); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), named) {
		t.Errorf("a listener behind what is kept: %v", err)
	}
}

func TestCursorOfAnotherHistoryIsRefused(t *testing.T) {
	log := newFakeLog()
	log.add(1, 1)
	s := running(t, log)
	l := s.listen(start(t, s, ""))
	defer l.close()
	log.add(1)
	take(t, l, 1)
	old := l.cursor
	log.replace()
	log.add(1, 1, 1, 1)
	if _, err := s.Start(t.Context(), old.String()); !errors.Is(err, errHistory) {
		t.Errorf("Start = %v, want %v", err, errHistory)
	}
	var err error
	for err == nil { // the follower finds out within a second
		var b batch
		if b, err = l.next(t.Context(), 10*time.Second); err == nil && len(b.items) > 0 {
			t.Fatalf("a listener gets %d events of another history", len(b.items))
		}
	}
	if !errors.Is(err, errHistory) {
		t.Errorf("a listener of the old history: %v, want %v", err, errHistory)
	}
}

func TestCursorAheadOfTheNodeIsWaitedFor(t *testing.T) {
	log := newFakeLog()
	log.add(1)
	other := newFakeLog() // a node that has come further
	other.add(1, 1)
	ahead := other.records[1].after(0)
	s := running(t, log)
	go log.add(1)
	if _, err := s.Start(t.Context(), ahead.String()); err != nil {
		t.Errorf("Start = %v", err)
	}
	far := ahead
	far.Seq = 1000
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // rather than wait two seconds
	if _, err := s.Start(ctx, far.String()); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("a cursor that the node doesn't reach: %v, want Unavailable", err)
	}
}

// What falls out of memory is read from the log; nothing is lost on the way between.
func TestSlowListenersMissNothing(t *testing.T) {
	log := newFakeLog()
	s := running(t, log)
	slow := s.listen(start(t, s, ""))
	defer slow.close()
	fast := s.listen(start(t, s, ""))
	defer fast.close()
	const rounds, each = 20, 1000
	for range rounds {
		ones := make([]int, each)
		for i := range ones {
			ones[i] = 1
		}
		log.add(ones...)
		take(t, fast, each)
	}
	s.mu.Lock()
	kept, from := len(s.window.records), s.window.from
	s.mu.Unlock()
	if kept > windowRecords || from == 0 {
		t.Fatalf("the window has %d records from %d on", kept, from)
	}
	got := take(t, slow, rounds*each)
	for i, path := range got {
		if want := fmt.Sprint("m/p", i, "/0"); path != want {
			t.Fatalf("event %d is about %s, want %s", i, path, want)
		}
	}
}

// Nobody follows the log while nobody listens.
func TestIdleStreamReadsNothing(t *testing.T) {
	log := newFakeLog()
	s := running(t, log)
	l := s.listen(start(t, s, ""))
	log.add(1)
	take(t, l, 1)
	l.close()
	log.add(1) // wakes the follower, which finds out that it is alone
	for closed := false; !closed; {
		s.mu.Lock()
		closed = s.window.following == 0
		changed := s.changed
		s.mu.Unlock()
		if !closed {
			<-changed
		}
	}
	log.mu.Lock()
	before := log.reads
	log.mu.Unlock()
	log.add(1, 1, 1)
	log.mu.Lock()
	after := log.reads
	log.mu.Unlock()
	if after != before {
		t.Errorf("%d records were read for nobody", after-before)
	}
	again := s.listen(start(t, s, Oldest))
	defer again.close()
	wantPaths(t, take(t, again, 5), "m/p0/0", "m/p1/0", "m/p2/0", "m/p3/0", "m/p4/0")
}

func TestListenersLearnThatTheNodeStops(t *testing.T) {
	log := newFakeLog()
	s := NewStream(log, func(error) {})
	ctx, cancel := context.WithCancel(t.Context())
	l := s.listen(start(t, s, ""))
	defer l.close()
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.next(t.Context(), 10*time.Second); !errors.Is(err, errEnded) {
		t.Errorf("next = %v, want %v", err, errEnded)
	}
}

// BenchmarkListen is the cost of one event for one of many listeners.
func BenchmarkListen(b *testing.B) {
	log := newFakeLog()
	log.add(make([]int, 1)...)
	s := NewStream(log, func(error) {})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	l := s.listen(at(0, [32]byte{}))
	ones := make([]int, 100)
	for i := range ones {
		ones[i] = 1
	}
	b.ReportAllocs()
	for n := 0; n < b.N; {
		log.add(ones...)
		for got := 0; got < len(ones); {
			next, err := l.next(ctx, time.Minute)
			if err != nil {
				b.Fatal(err)
			}
			for _, it := range next.items {
				it.record.message(it.number, "conclave://x")
			}
			got += len(next.items)
			n += len(next.items)
			l.cursor = next.next
		}
	}
	l.close()
	cancel()
	<-done
}
