package ordering

import (
	"math/bits"
	"sync/atomic"
	"time"

	"conclave/fsm"
)

// Observer is told of each commit as it is answered. It must not block.
type Observer interface {
	Committed(verdict fsm.Verdict, err error, took time.Duration)
}

type nobody struct{}

func (nobody) Committed(fsm.Verdict, error, time.Duration) {}

// Stats are counts since the node started.
type Stats struct {
	Commits   uint64 // answered with a verdict
	Conflicts uint64 // of those
	Failed    uint64 // answered with an error
	Resent    uint64 // sendings that were certainly dead, and done again
	Unsure    uint64 // sendings whose fate had to be found out
	Batches   uint64 // sent by this node
	Forwarded uint64 // of those, to another node
	Entries   uint64 // proposed by this node as leader
	// CommitTime is the time from Commit to its verdict; EntryTime from proposal to answer, on the leader.
	CommitTime, EntryTime Histogram
	// BatchCount and EntryCount are transactions per batch and entry; EntryBytes is bytes per entry.
	BatchCount, EntryCount, EntryBytes Histogram
}

// Histogram counts values by powers of two: Counts[i] are those v with 2^(i-1) <= v < 2^i, Counts[0] is zeros. Times
// are in microseconds.
type Histogram struct {
	Counts [40]uint64
	Sum    uint64
}

// Count is how many values there are.
func (h *Histogram) Count() uint64 {
	var n uint64
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Quantile returns an upper bound of the q-quantile, 0 <= q <= 1.
func (h *Histogram) Quantile(q float64) uint64 {
	want := uint64(q * float64(h.Count()))
	var n uint64
	for i, c := range h.Counts {
		if n += c; n > want || n == want && n > 0 {
			return 1<<i - 1
		}
	}
	return 0
}

type histogram struct {
	counts [40]atomic.Uint64
	sum    atomic.Uint64
}

func (h *histogram) add(v uint64) {
	h.counts[min(bits.Len64(v), len(h.counts)-1)].Add(1)
	h.sum.Add(v)
}

func (h *histogram) snapshot() (s Histogram) {
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	s.Sum = h.sum.Load()
	return s
}

// counters count without locks.
type counters struct {
	commits, conflicts, failed, resends, doubts, batches, forwarded, entries atomic.Uint64

	commitTime, entryTime, batchCount, entryCount, entryBytes histogram
}

func micros(d time.Duration) uint64 { return uint64(max(d, 0) / time.Microsecond) }

func (s *counters) answered(v fsm.Verdict, err error, took time.Duration) {
	if err != nil {
		s.failed.Add(1)
		return
	}
	s.commits.Add(1)
	if v == fsm.Conflict {
		s.conflicts.Add(1)
	}
	s.commitTime.add(micros(took))
}

func (s *counters) resent() { s.resends.Add(1) }

func (s *counters) unsure() { s.doubts.Add(1) }

func (s *counters) sent(count int, forwarded bool) {
	s.batches.Add(1)
	if forwarded {
		s.forwarded.Add(1)
	}
	s.batchCount.add(uint64(count))
}

func (s *counters) proposed(count, bytes int) {
	s.entries.Add(1)
	s.entryCount.add(uint64(count))
	s.entryBytes.add(uint64(bytes))
}

func (s *counters) committed(took time.Duration) { s.entryTime.add(micros(took)) }

func (s *counters) snapshot() Stats {
	return Stats{
		Commits: s.commits.Load(), Conflicts: s.conflicts.Load(), Failed: s.failed.Load(), Resent: s.resends.Load(),
		Unsure: s.doubts.Load(), Batches: s.batches.Load(), Forwarded: s.forwarded.Load(), Entries: s.entries.Load(),
		CommitTime: s.commitTime.snapshot(), EntryTime: s.entryTime.snapshot(),
		BatchCount: s.batchCount.snapshot(), EntryCount: s.entryCount.snapshot(), EntryBytes: s.entryBytes.snapshot(),
	}
}
