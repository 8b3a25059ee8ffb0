package access

import (
	"fmt"
	"testing"
	"time"

	"conclave"
	"conclave/audit"
	"conclave/crypto"
)

// someRecords is a log of its own, to find requests in.
type someRecords struct {
	tb     testing.TB
	log    *audit.Log
	opener *audit.Opener
	sealer *audit.Sealer
	hasher *audit.Hasher
	index  uint64
}

func newRecords(tb testing.TB) *someRecords {
	tb.Helper()
	key := crypto.Key{7}
	sealer, err := audit.NewSealer([16]byte{1}, 1, key)
	if err != nil {
		tb.Fatal(err)
	}
	opener, err := audit.NewOpener([16]byte{1}, map[uint32]crypto.Key{1: key}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	log, err := audit.OpenLog(tb.TempDir(), audit.State{}, audit.LogOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { log.Close() })
	return &someRecords{tb: tb, log: log, opener: opener, sealer: sealer, hasher: audit.NewHasher(key)}
}

func (r *someRecords) Audit() *audit.Log              { return r.log }
func (r *someRecords) Opener() (*audit.Opener, error) { return r.opener, nil }

// add records attempts of a request; the last is flushed with all before it when flush is called.
func (r *someRecords) add(sealer *audit.Sealer, id string, attempt int) {
	r.tb.Helper()
	entry := &audit.Entry{Time: time.Unix(1700000000, 0), RequestID: id, Attempt: attempt, Node: fmt.Sprint("node", attempt), NamespaceID: "root",
		Operation: conclave.Read, Path: "secret/data/" + id, Err: conclave.Errorf(conclave.Denied, "permission denied")}
	digest, box, err := sealer.Seal(audit.Encode(nil, entry, r.hasher))
	if err != nil {
		r.tb.Fatal(err)
	}
	r.index++
	if _, err := r.log.Append(r.index, int64(r.index), audit.Sealed{Digest: digest, Box: box}); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *someRecords) flush() {
	r.tb.Helper()
	if err := r.log.Flush(); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *someRecords) find(id string) *recorded {
	r.tb.Helper()
	f, err := newFinder(r, id)
	if err != nil {
		r.tb.Fatal(err)
	}
	found, err := f.find(r.tb.Context())
	if err != nil {
		r.tb.Fatal(err)
	}
	return found
}

func TestTheLastAttemptIsFound(t *testing.T) {
	r := newRecords(t)
	r.add(r.sealer, "early", 1)
	r.add(r.sealer, "early", 2)
	for i := range 3 * firstPage {
		r.add(r.sealer, fmt.Sprint("other-", i), 1)
	}
	r.flush()
	if _, err := r.log.Rotate(r.index+1, int64(r.index+1), "a test"); err != nil {
		t.Fatal(err)
	}
	foreign, err := audit.NewSealer([16]byte{1}, 2, crypto.Key{8})
	if err != nil {
		t.Fatal(err)
	}
	r.add(foreign, "early", 3) // under a key that is gone
	r.add(r.sealer, "late", 1)
	r.flush()
	for id, attempt := range map[string]string{"early": "node2", "late": "node1", "other-0": "node1", "other-3071": "node1"} {
		found := r.find(id)
		if found == nil || found.Request.ID != id || found.Request.Node != attempt || found.Request.Path != "secret/data/"+id || !found.Denied {
			t.Errorf("%s: %+v, want the attempt on %s", id, found, attempt)
		}
	}
	if found := r.find("other-"); found != nil {
		t.Errorf("a part of an id finds %+v", found)
	}
	for _, id := range []string{"", string(make([]byte, maxRequestID+1))} {
		if _, err := newFinder(r, id); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("an id of %d bytes: %v, want invalid", len(id), err)
		}
	}
}

// A node that lags finds the request once it has its record.
func TestRecordThatComesIsFound(t *testing.T) {
	r := newRecords(t)
	r.add(r.sealer, "before", 1)
	r.flush()
	f, err := newFinder(r, "coming")
	if err != nil {
		t.Fatal(err)
	}
	shown := r.log.Shown().Seq
	r.add(r.sealer, "coming", 1)
	r.flush()
	if found, err := f.await(t.Context(), shown); err != nil || found == nil {
		t.Errorf("await = %+v, %v, want the record", found, err)
	}
	if found := r.find("nowhere"); found != nil {
		t.Errorf("a request that nobody made: %+v", found)
	}
}

// BenchmarkFindMiss looks through a log for a request that isn't there: what the newest maxScanned records cost at most.
func BenchmarkFindMiss(b *testing.B) {
	const records = 20_000
	r := newRecords(b)
	for i := range records {
		r.add(r.sealer, fmt.Sprint("request-", i), 1)
	}
	r.flush()
	f, err := newFinder(r, "nowhere")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if found, err := f.backwards(b.Context(), 0, records); err != nil || found != nil {
			b.Fatal(found, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
}
