package fsm

import "sync/atomic"

// Stats are counters since the FSM was opened, and gauges.
type Stats struct {
	Applied, OpenedTerm  uint64
	Time                 int64
	Entries              uint64 // applied
	Skipped              uint64 // entries that the state already had
	Dropped              uint64 // commands of another term
	Committed, Conflicts uint64 // transactions, by verdict
	Refused, Dead        uint64
	Recorded             uint64
	Views, OpenViews     int64 // Pebble snapshots made, and not yet closed
	Waiters, Expected    int
	AuditRecords         uint64
	AuditBytes           int64
	StateBytes           uint64 // on disk, with what snapshots pin
	MemTableBytes        uint64
	CacheBytes           int64
	CacheHits, CacheMiss int64
	Flushes, Compactions int64
	Snapshots, Restores  uint64
}

type counters struct {
	entries, skipped, dropped atomic.Uint64
	verdicts                  [Recorded + 1]atomic.Uint64
	views, openViews          atomic.Int64
	snapshots, restores       atomic.Uint64
}

// Stats returns the counters. It costs Pebble's Metrics, some microseconds.
func (f *FSM) Stats() Stats {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return Stats{}
	}
	s := Stats{Applied: f.shown.applied, OpenedTerm: f.shown.opened, Time: f.shown.time, Waiters: len(f.waiters),
		Expected: len(f.expected), AuditRecords: f.shown.audit.Seq, AuditBytes: f.epoch.log.Bytes()}
	e := f.epoch
	e.refs.Add(1)
	f.mu.Unlock()
	m := e.db.Metrics()
	if err := e.release(); err != nil {
		f.options.Logger.Error("close a state that was replaced", "error", err)
	}
	s.StateBytes, s.MemTableBytes, s.CacheBytes = m.DiskSpaceUsage(), m.MemTable.Size, m.BlockCache.Size
	s.CacheHits, s.CacheMiss = m.BlockCache.Hits, m.BlockCache.Misses
	s.Flushes, s.Compactions = m.Flush.Count, m.Compact.Count
	c := &f.stats
	s.Entries, s.Skipped, s.Dropped = c.entries.Load(), c.skipped.Load(), c.dropped.Load()
	s.Committed, s.Conflicts = c.verdicts[Committed].Load(), c.verdicts[Conflict].Load()
	s.Refused, s.Dead, s.Recorded = c.verdicts[Refused].Load(), c.verdicts[Dead].Load(), c.verdicts[Recorded].Load()
	s.Views, s.OpenViews = c.views.Load(), c.openViews.Load()
	s.Snapshots, s.Restores = c.snapshots.Load(), c.restores.Load()
	return s
}
