package event

import (
	"context"
	"slices"
	"time"

	"conclave"
)

// item is one event of a record.
type item struct {
	record *Record
	number int // of the event in it
}

func (it item) event() *conclave.Occurrence { return &it.record.Events[it.number] }

// batch is what follows a cursor: events, and where they end.
type batch struct {
	items []item
	next  Cursor
}

// index is that of the newest Raft entry in the batch; 0 if it has no events.
func (b *batch) index() uint64 {
	if len(b.items) == 0 {
		return 0
	}
	return b.items[len(b.items)-1].record.Index
}

// newBatch is the events of records that follow a cursor.
func newBatch(records []*Record, from, next Cursor) batch {
	b := batch{next: next}
	for _, r := range records {
		first := 0
		if r.Seq == from.Seq {
			first = int(from.Done)
		}
		for i := first; i < len(r.Events); i++ {
			b.items = append(b.items, item{r, i})
		}
	}
	return b
}

// listener gets what follows its cursor, which is moved by whoever has it. It is for one goroutine.
type listener struct {
	stream   *Stream
	cursor   Cursor
	verified uint64 // the following of the log in which the cursor was found to be of it
}

// listen begins to listen. The listener must be closed.
func (s *Stream) listen(from Cursor) *listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listeners++; s.listeners == 1 {
		close(s.called)
		s.called = make(chan struct{})
	}
	return &listener{stream: s, cursor: from}
}

func (l *listener) close() {
	l.stream.mu.Lock()
	defer l.stream.mu.Unlock()
	l.stream.listeners--
}

// next returns what follows the cursor, maybe no events after patience.
func (l *listener) next(ctx context.Context, patience time.Duration) (batch, error) {
	brief, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	nothing := batch{next: l.cursor}
	s := l.stream
	for {
		s.mu.Lock()
		w, changed, ended := s.window, s.changed, s.ended
		s.mu.Unlock()
		if ended {
			return nothing, errEnded
		}
		if w.following != 0 && w.following != l.verified {
			if err := s.verify(ctx, l.cursor); err != nil {
				return nothing, err
			}
			l.verified = w.following
		}
		if w.following != 0 && l.cursor.Seq < w.from {
			return l.fromLog(ctx)
		}
		if w.following != 0 && l.cursor.touched() <= w.next.Seq && l.cursor != w.next {
			return w.after(l.cursor), nil
		}
		select {
		case <-changed:
		case <-brief.Done():
			return nothing, ctx.Err()
		}
	}
}

// fromLog reads what the window doesn't have any more, or never had.
func (l *listener) fromLog(ctx context.Context) (batch, error) {
	s, nothing := l.stream, batch{next: l.cursor}
	select {
	case s.catchUp <- struct{}{}:
		defer func() { <-s.catchUp }()
	case <-ctx.Done():
		return nothing, ctx.Err()
	}
	if err := s.verify(ctx, l.cursor); err != nil {
		return nothing, err
	}
	records, next, err := s.read(ctx, l.cursor)
	if err != nil {
		return nothing, err
	}
	return newBatch(records, l.cursor, next), nil
}

// after is what a window has behind a cursor.
func (w *window) after(c Cursor) batch {
	first, _ := slices.BinarySearchFunc(w.records, c.Seq, func(r *Record, seq uint64) int {
		switch {
		case r.Seq < seq:
			return -1
		case r.Seq > seq:
			return 1
		}
		return 0
	})
	records, next := w.records[first:], w.next
	if len(records) > batchRecords {
		records = records[:batchRecords]
		last := records[batchRecords-1]
		next = at(last.Seq+1, last.Link)
	}
	return newBatch(records, c, next)
}
