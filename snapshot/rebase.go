// Package snapshot makes what a person has saved ready to become the state again.
//
// Putting back an old state cuts off what came after it, in the audit log too. That must show: the state that is put back
// begins a new epoch of the audit log, whose first record names the head that it replaces and the reason. It is part of
// the snapshot before any node restores it, so that no crash lets a cluster serve the old state without it.
//
// It knows nothing of clusters, and holds no key.
package snapshot

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave/audit"
	"conclave/fsm"
)

// MaxReason bounds a person's reason in bytes; the rest of an epoch's reason says what was replaced.
const MaxReason = 120

// Rebase is one putting back.
type Rebase struct {
	Dir      string      // scratch: it must be empty or absent, is filled with the state, and removed in the end
	Replaced audit.State // where the audit log stands that is cut off
	Time     int64       // cluster time, in Unix nanoseconds
	Reason   string      // printable ASCII, 1 to MaxReason bytes
	Logger   hclog.Logger
}

// Reason is how the first record of the new epoch reads. Whoever keeps the head that it names can show what was cut off.
func Reason(why string, replaced *audit.State) (string, error) {
	if len(why) > MaxReason {
		return "", fmt.Errorf("a reason has at most %d bytes", MaxReason)
	}
	if err := audit.CheckReason(why); err != nil {
		return "", err
	}
	return fmt.Sprintf("restored: %s; replaces a log of %d records, head %x", why, replaced.Seq, replaced.Head), nil
}

// Write reads a snapshot and writes the one that is to be restored in its place. It returns the index that this one's
// state is of, one more than that of source.
func (r *Rebase) Write(dst io.Writer, source io.ReadCloser) (index uint64, err error) {
	reason, err := Reason(r.Reason, &r.Replaced)
	if err != nil {
		return 0, err
	}
	names, err := vfs.Default.List(r.Dir)
	if err == nil && len(names) > 0 {
		return 0, fmt.Errorf("the scratch directory %s is not empty", r.Dir)
	}
	defer func() { err = errors.Join(err, vfs.Default.RemoveAll(r.Dir)) }()
	state, err := fsm.Open(fsm.Options{Dir: r.Dir, Logger: r.Logger})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	if err := state.Restore(source); err != nil {
		return 0, err
	}
	index = state.Applied() + 1
	entry := &raft.Log{Index: index, Type: raft.LogCommand, Data: fsm.EncodeRotate(0, r.Time, reason)}
	if err := fsm.CheckEntry(entry.Data); err != nil {
		return 0, err
	}
	state.Apply(entry)
	cut, err := state.Snapshot()
	if err != nil {
		return 0, err
	}
	defer cut.Release()
	return index, cut.Persist(sink{dst})
}

// sink takes a snapshot as a stream.
type sink struct{ io.Writer }

// ID implements raft.SnapshotSink.
func (sink) ID() string { return "" }

// Close implements raft.SnapshotSink.
func (sink) Close() error { return nil }

// Cancel implements raft.SnapshotSink.
func (sink) Cancel() error { return nil }
