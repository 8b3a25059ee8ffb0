package jwt

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"conclave"
)

// How long documents are used. A key that its issuer has withdrawn is so trusted for freshFor at most, staleFor while the
// issuer can't be reached.
const (
	freshFor     = 5 * time.Minute  // then a document is read again before it is used
	staleFor     = 30 * time.Minute // the same, if reading it again fails
	pause        = 10 * time.Second // between two readings because a token names a key that isn't known
	pauseFailed  = time.Second      // between two readings that fail
	readTime     = 10 * time.Second // for one reading
	maxDocuments = 64               // then all are forgotten
)

// source is where a document is, and which authorities its server's certificate may come from.
type source struct{ url, caPEM string }

// documents are what this node has read from outside. How old they are is counted by this node's own clock: cluster time
// has no part in it, since what is read is not replicated.
type documents[T any] struct {
	now     func() time.Time
	reading singleflight.Group

	mu   sync.Mutex         // guards kept
	kept map[source]kept[T] // where it was read → what it was
}

type kept[T any] struct {
	document T
	read     time.Time // zero if none has been read
	tried    time.Time
	failure  error // of the last try
}

func newDocuments[T any]() *documents[T] {
	return &documents[T]{now: time.Now, kept: map[source]kept[T]{}}
}

// get returns a document, reading it if need be, and when it was read. With after, one is wanted that was read later than
// that; the same is returned if it was tried too recently. Requests that want one document at a time share a reading.
func (d *documents[T]) get(ctx context.Context, from source, after time.Time, read func(context.Context, source) (T, error)) (T, time.Time, error) {
	d.mu.Lock()
	have := d.kept[from]
	d.mu.Unlock()
	now := d.now()
	isUsable := !have.read.IsZero() && now.Sub(have.read) < staleFor
	switch {
	case isUsable && have.read.After(after) && now.Sub(have.read) < freshFor:
		return have.document, have.read, nil
	case isUsable && !after.IsZero() && now.Sub(have.tried) < pause:
		return have.document, have.read, nil
	case have.failure != nil && now.Sub(have.tried) < pauseFailed:
		return d.orStale(have, isUsable)
	}
	done := d.reading.DoChan(from.url+"\x00"+from.caPEM, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime)
		defer cancel()
		document, err := read(ctx, from)
		return d.keep(from, document, err), nil
	})
	select {
	case result := <-done:
		have := result.Val.(kept[T])
		return d.orStale(have, !have.read.IsZero() && d.now().Sub(have.read) < staleFor)
	case <-ctx.Done():
		var none T
		return none, time.Time{}, conclave.Errorf(conclave.Unavailable, "the issuer doesn't answer in time")
	}
}

// orStale returns what there is: the document, or why there is none.
func (d *documents[T]) orStale(have kept[T], isUsable bool) (T, time.Time, error) {
	if isUsable {
		return have.document, have.read, nil
	}
	var none T
	return none, time.Time{}, have.failure
}

func (d *documents[T]) keep(from source, document T, failure error) kept[T] {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	have := d.kept[from]
	have.tried, have.failure = now, failure
	if failure == nil {
		have.document, have.read = document, now
	}
	if len(d.kept) >= maxDocuments {
		clear(d.kept)
	}
	d.kept[from] = have
	return have
}
