package event

import (
	"context"
	"errors"
	"sync"
	"time"

	"conclave"
)

// Log is a node's own audit log, as the stream sees it.
type Log interface {
	// Read visits the records from a number on that there are. Errors are conclave errors of kind Unavailable, or end all.
	Read(ctx context.Context, from uint64, visit func(*Record) (more bool)) error
	// Range is the number of the first record that is kept, and that of the next one there will be.
	Range() (oldest, next uint64)
	// Head is the hash chain's head after the first n records, oldest <= n <= next.
	Head(ctx context.Context, n uint64) ([32]byte, error)
	// Wait returns when the record with this number can be read, or with ctx's error.
	Wait(ctx context.Context, seq uint64) error
}

// Limits of a stream.
const (
	windowRecords = 8192     // with events, that are kept in memory
	windowBytes   = 16 << 20 // of their events and of these's messages, about
	messageSize   = 1024     // bytes of an event's message, about
	batchRecords  = 128      // with events, of one batch
	batchRead     = 16_384   // records that are read for one batch
	maxCatchUp    = 4        // readers of the log at once
	followPause   = time.Second
	reachPatience = 2 * time.Second // for this node to have what a cursor names
)

var (
	errHistory = conclave.Errorf(conclave.Invalid, "the cursor is of a history that the vault no longer has, since a snapshot was restored: begin with %s or %s", Oldest, Now)
	errAhead   = conclave.Errorf(conclave.Unavailable, "this node has not come as far as the cursor: try again, or another node")
	errEnded   = errors.New("the node stops")
)

// errPruned says what the oldest cursor is.
func errPruned(oldest Cursor) error {
	return conclave.Errorf(conclave.Invalid, "what follows the cursor is no longer kept: the oldest cursor is %s", oldest)
}

// Stream is the events of one node's log. It is safe for concurrent use. Run must run for anybody to get events.
type Stream struct {
	log     Log
	report  func(error)   // is told why the log can't be followed for now
	catchUp chan struct{} // holds one for each reader of the log beside Run

	mu        sync.Mutex    // guards all below
	listeners int           // how many there are
	called    chan struct{} // closed when the first listener comes; replaced then
	window    *window
	changed   chan struct{} // closed when the window changes; replaced then
	ended     bool          // Run has returned
}

// window is the records with events among those from number from to next. It is immutable.
type window struct {
	following uint64 // tells one following of the log from another, in which it may have been replaced; 0: not followed
	from      uint64
	next      Cursor
	records   []*Record
	bytes     int
}

// NewStream makes a stream of a log.
func NewStream(log Log, report func(error)) *Stream {
	return &Stream{log: log, report: report, catchUp: make(chan struct{}, maxCatchUp), called: make(chan struct{}),
		window: &window{}, changed: make(chan struct{})}
}

// Run follows the log until ctx ends, while anybody listens. It is called once.
func (s *Stream) Run(ctx context.Context) error {
	defer s.end()
	for following := uint64(1); ctx.Err() == nil; following++ {
		s.mu.Lock()
		called, idle := s.called, s.listeners == 0
		s.mu.Unlock()
		if idle {
			select {
			case <-ctx.Done():
				return nil
			case <-called:
			}
		}
		if err := s.follow(ctx, following); err != nil && ctx.Err() == nil {
			s.report(err) // the log is replaced, or the vault is sealed
			select {
			case <-ctx.Done():
			case <-time.After(followPause):
			}
		}
	}
	return nil
}

func (s *Stream) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.publish(&window{})
}

// publish replaces the window, and reports whether anybody listens.
func (s *Stream) publish(w *window) (wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.window != w {
		s.window = w
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return s.listeners > 0
}

// follow keeps the window from the log's end on, while anybody listens.
func (s *Stream) follow(ctx context.Context, following uint64) error {
	_, end := s.log.Range()
	head, err := s.log.Head(ctx, end)
	if err != nil {
		return err
	}
	defer s.publish(&window{})
	for w := (&window{following: following, from: end, next: at(end, head)}); s.publish(w); {
		if err := s.waitBriefly(ctx, w.next.Seq); err != nil {
			return err
		}
		if w, err = s.extend(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// waitBriefly waits for a record, but looks up now and then, since listeners go and logs are replaced.
func (s *Stream) waitBriefly(ctx context.Context, seq uint64) error {
	brief, cancel := context.WithTimeout(ctx, followPause)
	defer cancel()
	if err := s.log.Wait(brief, seq); err != nil && brief.Err() == nil {
		return err
	}
	return ctx.Err()
}

// extend adds what there is to the window, and lets go of what is too much.
func (s *Stream) extend(ctx context.Context, old *window) (*window, error) {
	if err := s.verify(ctx, old.next); err != nil {
		return nil, err
	}
	records, next, err := s.read(ctx, old.next)
	if err != nil || next == old.next {
		return old, err
	}
	w := *old
	w.next = next
	w.records = append(w.records, records...) // beyond the length that readers of the old one know
	for _, r := range records {
		w.bytes += sizeOf(r)
	}
	drop := 0
	for ; len(w.records)-drop > windowRecords || w.bytes > windowBytes; drop++ {
		w.bytes -= sizeOf(w.records[drop])
		w.from = w.records[drop].Seq + 1
	}
	if drop > 0 {
		w.records = append(make([]*Record, 0, len(w.records)), w.records[drop:]...)
	}
	return &w, nil
}

func sizeOf(r *Record) (n int) {
	for i := range r.Events {
		n += r.Events[i].Size() + messageSize
	}
	return n
}

// verify reports whether the log is the one that a cursor was made for, and has all that follows it.
func (s *Stream) verify(ctx context.Context, c Cursor) error {
	oldest, next := s.log.Range()
	if c.Seq < oldest {
		head, err := s.log.Head(ctx, oldest)
		if err != nil {
			return err
		}
		return errPruned(at(oldest, head))
	}
	if c.touched() > next {
		return errHistory
	}
	head, err := s.log.Head(ctx, c.touched())
	if err != nil {
		return err
	}
	if at(0, head).Link != c.Link {
		return errHistory
	}
	return nil
}

// read reads records with events from a cursor on, a bounded number.
func (s *Stream) read(ctx context.Context, from Cursor) (records []*Record, next Cursor, err error) {
	next = from
	seen := 0
	err = s.log.Read(ctx, from.Seq, func(r *Record) bool {
		next = at(r.Seq+1, r.Link)
		if len(r.Events) > 0 {
			records = append(records, r)
		}
		seen++
		return len(records) < batchRecords && seen < batchRead
	})
	return records, next, err
}

// Start is the cursor that a text means: where the log stands now for this node, the oldest, or the one it names, once
// this node has come so far.
func (s *Stream) Start(ctx context.Context, text string) (Cursor, error) {
	oldest, next := s.log.Range()
	switch text {
	case "", Now:
		return s.headAt(ctx, next)
	case Oldest:
		return s.headAt(ctx, oldest)
	}
	c, err := ParseCursor(text)
	if err != nil {
		return c, err
	}
	if c.touched() > next {
		brief, cancel := context.WithTimeout(ctx, reachPatience)
		defer cancel()
		if err := s.log.Wait(brief, c.touched()-1); err != nil {
			return c, errAhead
		}
	}
	return c, s.verify(ctx, c)
}

func (s *Stream) headAt(ctx context.Context, n uint64) (Cursor, error) {
	head, err := s.log.Head(ctx, n)
	return at(n, head), err
}
