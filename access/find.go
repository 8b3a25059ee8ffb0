package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"conclave"
	"conclave/audit"
)

// Records is the audit log that questions about requests are answered from: that of the node that is asked.
type Records interface {
	Audit() *audit.Log
	// Opener opens records with the current keyring; an error while there is none.
	Opener() (*audit.Opener, error)
}

// Limits of looking for a request.
const (
	maxScanned = 200_000 // of the newest records
	firstPage  = 1024    // records that are read at first; each further page has four times as many
	lastPage   = 64 << 10
	maxScans   = 2 // at once

	// A node that lags behind the one that answered shows the record within catchUp; it is looked for again each catchUpStep.
	catchUp     = time.Second
	catchUpStep = 50 * time.Millisecond

	maxRequestID = 128 // bytes
)

// recorded is what a record says that its answer may depend on.
type recorded struct {
	Denied  bool
	Time    time.Time
	Error   string
	Auth    *recordedAuth
	Request struct {
		ID        string `json:"id"`
		Operation string `json:"operation"`
		Namespace struct {
			ID   string `json:"id"`
			Path string `json:"path"`
		} `json:"namespace"`
		Path  string `json:"path"`
		Node  string `json:"node"`
		Token string `json:"client_token"` // hashed; empty if none was sent
	}
}

type recordedAuth struct {
	DisplayName string   `json:"display_name"`
	EntityID    string   `json:"entity_id"`
	Policies    []string `json:"policies"`
	Results     *struct {
		Reason       string   `json:"reason"`
		Capabilities []string `json:"capabilities"`
		Path         string   `json:"path"`
		NamespaceID  string   `json:"namespace_id"`
		Pattern      string   `json:"pattern"`
		Rules        []string `json:"rules"`
		Field        string   `json:"field"`
	} `json:"policy_results"`
}

// finder looks for the record of one request.
type finder struct {
	log    *audit.Log
	opener *audit.Opener
	id     string
	needle []byte // what every record of the request has
}

func newFinder(records Records, id string) (*finder, error) {
	if id == "" || len(id) > maxRequestID {
		return nil, conclave.Errorf(conclave.Invalid, "a request id has 1 to %d characters", maxRequestID)
	}
	opener, err := records.Opener()
	if err != nil {
		return nil, err
	}
	quoted, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	return &finder{records.Audit(), opener, id, append([]byte(`{"id":`), quoted...)}, nil
}

// find returns the last record of the request, nil if there is none among the newest maxScanned.
func (f *finder) find(ctx context.Context) (*recorded, error) {
	shown := f.log.Shown()
	oldest := max(shown.Base.Seq, shown.Seq-min(shown.Seq, maxScanned))
	found, err := f.backwards(ctx, oldest, shown.Seq)
	if found != nil || err != nil {
		return found, err
	}
	return f.await(ctx, shown.Seq)
}

// await looks for a record that is still to come, from a number on, for catchUp.
func (f *finder) await(ctx context.Context, from uint64) (*recorded, error) {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	tick := time.NewTicker(catchUpStep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-tick.C:
		}
		end := f.log.Shown().Seq
		found, err := f.page(ctx, from, end)
		if found != nil || err != nil && ctx.Err() == nil {
			return found, err
		}
		from = end
	}
}

// backwards reads page after page, the newest first.
func (f *finder) backwards(ctx context.Context, oldest, end uint64) (*recorded, error) {
	for size := uint64(firstPage); end > oldest; size = min(4*size, lastPage) {
		from := max(oldest, end-min(end, size))
		found, err := f.page(ctx, from, end)
		if found != nil || err != nil {
			return found, err
		}
		end = from
	}
	return nil, nil
}

// page returns the last record of the request among those from from to before end. What can't be opened any more is
// passed over.
func (f *finder) page(ctx context.Context, from, end uint64) (found *recorded, err error) {
	err = f.log.Read(ctx, from, func(frame audit.Frame) bool {
		if frame.Seq >= end {
			return false
		}
		if frame.Start {
			return true
		}
		if _, plain, err := f.opener.Open(frame.Digest, frame.Box); err == nil && bytes.Contains(plain, f.needle) {
			if r := f.read(plain); r != nil {
				found = r
			}
		}
		return true
	})
	if errors.Is(err, audit.ErrPruned) {
		return found, nil
	}
	return found, err
}

// read decodes a record, nil if it is another request's.
func (f *finder) read(plain []byte) *recorded {
	parts, err := audit.DecodeRecord(plain)
	if err != nil {
		return nil
	}
	r := &recorded{Denied: parts.Denied}
	for _, part := range []struct {
		text []byte
		into any
	}{{parts.Time, &r.Time}, {parts.Auth, &r.Auth}, {parts.Request, &r.Request}, {parts.Error, &r.Error}} {
		if len(part.text) > 0 && json.Unmarshal(part.text, part.into) != nil {
			return nil
		}
	}
	if r.Request.ID != f.id {
		return nil
	}
	return r
}
