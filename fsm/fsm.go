package fsm

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"conclave/audit"
	"conclave/internal/hot"
	"conclave/internal/room"
)

// Options configure an FSM.
type Options struct {
	Dir    string       // required
	Logger hclog.Logger // default: none
	FS     vfs.FS       // default: the operating system's
	// CacheSize is Pebble's block cache in bytes; default 32 MiB.
	CacheSize int64
	// HotBytes bounds the memory of items that are read again and again, in bytes; default 8 MiB.
	HotBytes int
	// MemTableSize is the limit of Pebble's memtable in bytes; default 32 MiB. It must be at least twice FlushBytes, so
	// that Pebble doesn't flush by itself.
	MemTableSize int
	// FlushBytes is how many applied bytes make a flush; default 16 MiB. It bounds what is replayed after a crash.
	FlushBytes int
	// AuditCapacity is the size of the audit log in bytes from which on AuditFull reports true; default 64 GiB.
	AuditCapacity int64
	// AuditSegment is the size of an audit segment in bytes; default 64 MiB. All nodes need the same.
	AuditSegment int64
	// Fatal is called when storage fails for another reason than a full disk, for which the state waits, and when Apply
	// can't go on. It must not return. Default: panic, which ends the process.
	Fatal func(error)
	// RoomPause is the time between attempts to write to a full disk; default 1 s.
	RoomPause time.Duration

	room   *room.Room
	health io.Closer // of the operating system's file system
}

// FSM is the replicated state: Pebble without a write-ahead log (the Raft log is that), the audit log beside it, and
// snapshots.
//
// Locks, in the order in which they are taken:
//
//	applying  one of Apply, Restore, Snapshot and Close at a time; guards applier
//	mu        what readers see; held over the Pebble commit, so that a View's snapshot, index and time agree, and over
//	          no other I/O
type FSM struct {
	options Options
	store   *SnapshotStore
	stats   counters

	applying sync.Mutex
	applier  applier

	applied atomic.Uint64 // shown.applied, for Applied
	cutAt   atomic.Uint64 // cut.index, 0 if there is none, for Apply

	mu       sync.Mutex
	epoch    *epoch
	shown    position
	view     *View                         // of shown, nil until somebody asks
	waiters  map[ProposalID]*Waiter        // proposal → who waits for its outcome
	expected map[ProposalID][]*Transaction // batch → its transactions in full
	indexes  []indexWaiter
	cut      *Cut // that somebody waits for
	closed   bool
}

// Open opens or makes the state in options.Dir: Pebble in state/, audit segments in audit/, snapshots in snapshots/. If
// the newest snapshot is ahead of the state, the state is restored from it: Raft is to be run with
// NoSnapshotRestoreOnStart, and replays only what comes after.
func Open(options Options) (*FSM, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	f := &FSM{options: options, waiters: make(map[ProposalID]*Waiter), expected: make(map[ProposalID][]*Transaction)}
	e, at, err := openEpoch(&f.options)
	if err != nil {
		return nil, fmt.Errorf("open state in %s: %w", options.Dir, err)
	}
	f.adopt(e, at)
	if f.store, err = openSnapshots(&f.options); err == nil {
		err = f.recover()
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", options.Dir, errors.Join(err, f.Close()))
	}
	f.options.room.Begin()
	return f, nil
}

func (o *Options) complete() error {
	if o.Dir == "" {
		return errors.New("open state: no directory is given")
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err.Error()) }
	}
	o.room = room.New(room.Options{Logger: o.Logger, Pause: o.RoomPause})
	if o.FS == nil {
		o.FS, o.health = vfs.WithDiskHealthChecks(vfs.Default, slowDisk, nil, o.room.Slow)
	}
	if o.CacheSize == 0 {
		o.CacheSize = 32 << 20
	}
	if o.HotBytes == 0 {
		o.HotBytes = 8 << 20
	}
	if o.MemTableSize == 0 {
		o.MemTableSize = 32 << 20
	}
	if o.FlushBytes == 0 {
		o.FlushBytes = 16 << 20
	}
	if o.FlushBytes < 0 || o.CacheSize < 0 || o.HotBytes < 0 || o.MemTableSize < 2*o.FlushBytes {
		return errors.New("open state: the memtable must be at least twice the flush threshold")
	}
	return nil
}

// slowDisk is how long an operation on a file may take until the log says that the disk is slow.
const slowDisk = 5 * time.Second

// must ends the process when storage failed: a node that can't apply what is committed must stop.
func (o *Options) must(err error, what string) {
	if err != nil {
		o.Fatal(fmt.Errorf("%s: %w", what, err))
		panic("what is fatal to the state must end the process")
	}
}

// adopt makes e the state that is applied to and shown.
func (f *FSM) adopt(e *epoch, at position) {
	e.hot = hot.New(f.options.HotBytes, at.applied)
	f.applier = applier{epoch: e, versions: newVersions(at.applied), next: at}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch, f.shown = e, at
	f.applied.Store(at.applied)
}

// Applied is the index of the newest entry whose effect readers see.
func (f *FSM) Applied() uint64 { return f.applied.Load() }

// Time is the stamp of the newest entry, in Unix nanoseconds.
func (f *FSM) Time() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shown.time
}

// OpenedTerm is the highest term that was opened.
func (f *FSM) OpenedTerm() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shown.opened
}

// Format is the format version of the replicated state, raised by EncodeFormat.
func (f *FSM) Format() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shown.format
}

// Head is where the audit log stands as of Applied.
func (f *FSM) Head() audit.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shown.audit.Clone()
}

// Audit returns the audit log for reading. A Restore replaces it: Reads of the old one may fail then, so ask again.
func (f *FSM) Audit() *audit.Log {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch.log
}

// AuditFull reports that the audit log has reached its capacity, so that nothing but a prune should be proposed.
func (f *FSM) AuditFull() bool { return f.Audit().Full() }

// StopWaiting ends the waiting for room on a full disk: what finds none from here on is fatal. Call it before Raft is shut
// down, which waits for Apply.
func (f *FSM) StopWaiting() { f.options.room.Stop() }

// Close makes everything applied durable and closes the state when the last View is released.
func (f *FSM) Close() error {
	f.applying.Lock()
	defer f.applying.Unlock()
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	e, view := f.epoch, f.view
	f.view = nil
	f.endCutLocked(nil)
	f.mu.Unlock()
	if view != nil {
		view.Release()
	}
	err := errors.Join(e.log.Sync(), e.db.Flush())
	err = errors.Join(err, e.release())
	if f.options.health != nil {
		err = errors.Join(err, f.options.health.Close())
	}
	return err
}
