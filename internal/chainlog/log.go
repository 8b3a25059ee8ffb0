package chainlog

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// LogOptions says where and how a Log is kept. The zero value is right.
type LogOptions struct {
	FS          vfs.FS // default: the operating system's
	SegmentSize int64  // bytes; default DefaultSegmentSize. All replicas of a log need the same
	Capacity    int64  // bytes of all segments from which on Full reports true; default 64 GiB
}

// Log is the segment files of the audit log in one directory. Append, Flush, Sync, Rotate, Prune and Close are for one
// caller at a time; Sync and everything that reads may run beside them.
//
// The log doesn't know by itself where it ends: the State that its owner keeps does. What lies beyond it was written
// before a crash and will be written again; OpenLog cuts it off.
type Log struct {
	fs      vfs.FS
	dir     string
	options LogOptions

	// Of the appending caller.
	state  State
	buffer []byte // frames that aren't written yet
	header []byte // of the segment that they begin, before them
	file   vfs.File

	bytes atomic.Int64 // of all segments, as published
	dirty atomic.Bool  // something was written since the last Sync

	// syncing guards file against being closed while it is synced. Held over the fsync, never with mu.
	syncing sync.Mutex

	// mu guards what readers see. Never held over I/O.
	mu       sync.Mutex
	shown    State     // as of the last Flush
	segments []segment // all retained, in order; the size of the last is shown.Offset
	ends     [8]place  // where the latest Reads stopped, so that going on doesn't begin at the segment's start
	nextEnd  int
}

// place is where the frame of a record begins.
type place struct {
	epoch, seq, segment uint64
	offset              int64
}

// ErrPruned is returned for records that Prune has dropped.
var ErrPruned = errors.New("the audit record was dropped after its export")

// OpenLog opens the log in dir as it was at State. What is beyond is cut off; if something before is missing, the
// error says what to do.
func OpenLog(dir string, at State, options LogOptions) (*Log, error) {
	if options.FS == nil {
		options.FS = vfs.Default
	}
	if options.SegmentSize == 0 {
		options.SegmentSize = DefaultSegmentSize
	}
	if options.Capacity == 0 {
		options.Capacity = 64 << 30
	}
	if options.SegmentSize < segmentHeader+frameMax || options.Capacity < 0 {
		return nil, fmt.Errorf("open audit log: a segment needs %d bytes or more", segmentHeader+frameMax)
	}
	l := &Log{fs: options.FS, dir: dir, options: options, state: at.Clone(), shown: at.Clone()}
	if err := errors.Join(l.fs.MkdirAll(dir, 0o700), syncDir(l.fs, l.fs.PathDir(dir))); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open audit log %s: %w", dir, err)
	}
	return l, nil
}

// load brings the directory to what the state says and opens the last segment for writing.
func (l *Log) load() error {
	numbers, err := listSegments(l.fs, l.dir)
	if err != nil {
		return err
	}
	begun := l.state.Offset > 0
	for _, n := range numbers {
		if n < l.state.Base.Segment || n > l.state.Segment || (n == l.state.Segment && !begun) {
			if err := l.fs.Remove(l.path(n)); err != nil {
				return err
			}
		}
	}
	total := int64(0)
	for n := l.state.Base.Segment; n < l.state.Segment || (n == l.state.Segment && begun); n++ {
		s, err := readSegment(l.fs, l.dir, n)
		if err != nil {
			return fmt.Errorf("%w: a part of the audit log that state relies on is missing or damaged; restore this node's data directory from before, or remove the node and let it join anew", err)
		}
		if n == l.state.Segment {
			if err := l.trim(&s); err != nil {
				return err
			}
		}
		l.segments = append(l.segments, s)
		total += s.size
	}
	l.bytes.Store(total)
	if !begun {
		return syncDir(l.fs, l.dir)
	}
	l.file, err = l.fs.OpenReadWrite(l.path(l.state.Segment), vfs.WriteCategoryUnspecified)
	return errors.Join(err, syncDir(l.fs, l.dir))
}

// trim cuts the last segment to the length that the state gives. A file that snapshots share is written anew under its name:
// up to a whole segment.
func (l *Log) trim(s *segment) error {
	if s.size < l.state.Offset {
		return fmt.Errorf("%s has %d bytes where state says %d: a part of the audit log that was synced is lost; restore this node's data directory from before, or remove the node and let it join anew",
			SegmentName(s.Number), s.size, l.state.Offset)
	}
	if s.size == l.state.Offset {
		return nil
	}
	s.size = l.state.Offset
	if done, err := cutAlone(l.fs, l.path(s.Number), s.size); done || err != nil {
		return err
	}
	temporary := l.path(s.Number) + ".trim"
	if err := CopyPart(l.fs, l.path(s.Number), temporary, l.state.Offset); err != nil {
		return err
	}
	return l.fs.Rename(temporary, l.path(s.Number))
}

// Append adds a record. It isn't readable, or safe from a crash of the process, before Flush.
func (l *Log) Append(index uint64, stamp int64, record Sealed) (seq uint64, err error) {
	if len(record.Box) > MaxBox {
		return 0, fmt.Errorf("an audit record of %d bytes is over the limit of %d", len(record.Box), MaxBox)
	}
	size := int64(frameMin + len(record.Box))
	if l.state.Offset > 0 && l.state.Offset+size > l.options.SegmentSize {
		if err := l.roll(); err != nil {
			return 0, err
		}
	}
	if l.state.Offset == 0 {
		l.header = l.begin()
		l.state.Offset = segmentHeader
	}
	f := Frame{Seq: l.state.Seq, Index: index, Stamp: stamp, Digest: record.Digest, Box: record.Box}
	l.state.Extend(index, stamp, LeafHash(&record.Digest, sha256.Sum256(record.Box)))
	f.Link = l.state.Head
	l.buffer = appendFrame(l.buffer, &f)
	l.state.Offset += size
	return f.Seq, nil
}

// begin is the header of the segment that the next record starts.
func (l *Log) begin() []byte {
	s := segment{Epoch: l.state.Epoch, Number: l.state.Segment, First: l.state.Seq, EpochSeq: l.state.EpochSeq, Head: l.state.Head}
	return s.encode()
}

// Rotate begins a new epoch: a new segment, a new tree, and as its first record the name of the previous head and the
// reason, which must pass CheckReason.
func (l *Log) Rotate(index uint64, stamp int64, reason string) (seq uint64, err error) {
	if l.state.Offset > 0 {
		if err := l.roll(); err != nil {
			return 0, err
		}
	}
	start := l.state.BeginEpoch(reason)
	return l.Append(index, stamp, start.sealed())
}

// roll ends the segment.
func (l *Log) roll() error {
	if err := l.Flush(); err != nil {
		return err
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	l.state.Segment, l.state.Offset = l.state.Segment+1, 0
	return err
}

// Flush writes what was appended, in one write, and shows it to readers.
func (l *Log) Flush() error {
	if len(l.buffer) == 0 && l.header == nil {
		return nil
	}
	from := l.state.Offset - int64(len(l.buffer))
	var begun *segment
	if l.header != nil {
		s, err := decodeSegment(l.header)
		if err != nil {
			return err
		}
		file, err := l.fs.Create(l.path(l.state.Segment), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		l.syncing.Lock()
		l.file = file
		l.syncing.Unlock()
		if _, err := l.file.WriteAt(l.header, 0); err != nil {
			return err
		}
		begun, l.header = &s, nil
	}
	if _, err := l.file.WriteAt(l.buffer, from); err != nil {
		return err
	}
	l.dirty.Store(true) // not before the write: a Sync between the two must not clear it
	if l.buffer = l.buffer[:0]; cap(l.buffer) > 4<<20 {
		l.buffer = nil
	}
	l.show(begun)
	return nil
}

// show publishes the state to readers.
func (l *Log) show(begun *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if begun != nil {
		l.segments = append(l.segments, *begun)
	}
	l.shown = l.state.Clone()
	total := int64(0)
	if n := len(l.segments); n > 0 && l.state.Offset > 0 {
		l.segments[n-1].size = l.state.Offset
	}
	for i := range l.segments {
		total += l.segments[i].size
	}
	l.bytes.Store(total)
}

// Sync makes everything that was flushed safe from a crash of the machine.
func (l *Log) Sync() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if !l.dirty.Swap(false) {
		return nil
	}
	if l.file != nil {
		if err := l.file.Sync(); err != nil {
			return fmt.Errorf("sync audit log: %w", err)
		}
	}
	return syncDir(l.fs, l.dir)
}

// Prune moves the start of the log behind the given epoch, if that is closed and head is how it ended: proof that the
// caller has all of it. It reports whether it did. Files stay until RemovePruned, so that a crash before the new State
// is safe loses nothing.
func (l *Log) Prune(epoch uint64, head [32]byte) bool {
	if epoch < l.state.Base.Epoch || epoch >= l.state.Epoch {
		return false
	}
	if err := l.Flush(); err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.segments, func(s segment) bool { return s.Epoch > epoch })
	if i < 0 || l.segments[i].Head != head || l.segments[i].Epoch != epoch+1 {
		return false
	}
	s := l.segments[i]
	l.state.Base = Base{Epoch: s.Epoch, Seq: s.First, Segment: s.Number, Head: s.Head}
	l.shown = l.state.Clone()
	l.segments = slices.Clone(l.segments[i:])
	total := int64(0)
	for i := range l.segments {
		total += l.segments[i].size
	}
	l.bytes.Store(total)
	return true
}

// RemovePruned removes the files that Prune has left behind. The State with the new Base must be safe before.
func (l *Log) RemovePruned() error {
	numbers, err := listSegments(l.fs, l.dir)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if n < l.state.Base.Segment {
			err = errors.Join(err, l.fs.Remove(l.path(n)))
		}
	}
	return errors.Join(err, syncDir(l.fs, l.dir))
}

// State is where the log stands for the caller that appends, whether or not it is flushed.
func (l *Log) State() State { return l.state.Clone() }

// Shown is where the log stands for readers.
func (l *Log) Shown() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shown.Clone()
}

// EpochEnd is the number of the first record after an epoch; ok says that the epoch is closed and still there.
func (l *Log) EpochEnd(epoch uint64) (seq uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.segments, func(s segment) bool { return s.Epoch > epoch })
	if i < 0 || epoch < l.shown.Base.Epoch || l.segments[i].Epoch != epoch+1 {
		return 0, false
	}
	return l.segments[i].First, true
}

// Bytes is the size of all retained segments.
func (l *Log) Bytes() int64 { return l.bytes.Load() }

// Full reports whether the log has reached its capacity: nothing more should be proposed before an epoch is exported
// and pruned. Append goes on regardless, since what is committed must be applied.
func (l *Log) Full() bool { return l.Bytes() >= l.options.Capacity }

// Capacity is the size in bytes from which on Full reports true.
func (l *Log) Capacity() int64 { return l.options.Capacity }

// Read visits the records from number from on, in order, up to what was flushed when it began, until visit returns
// false. A frame's box is valid until visit returns. Errors: ErrPruned, ctx's, and damage, which is a *Fault.
func (l *Log) Read(ctx context.Context, from uint64, visit func(Frame) (more bool)) error {
	l.mu.Lock()
	segments, shown := slices.Clone(l.segments), l.shown
	at := place{segment: shown.Base.Segment}
	for _, s := range segments {
		if s.First <= from {
			at = place{segment: s.Number, offset: segmentHeader}
		}
	}
	for _, end := range l.ends {
		if end.seq == from && end.offset > at.offset && end.segment == at.segment {
			at = end
		}
	}
	l.mu.Unlock()
	if from >= shown.Seq {
		return nil
	}
	if from < shown.Base.Seq {
		return ErrPruned
	}
	for i := range segments {
		s := &segments[i]
		if s.Number < at.segment {
			continue
		}
		offset := int64(segmentHeader)
		if s.Number == at.segment {
			offset = at.offset
		}
		more, err := l.readSegment(ctx, s, offset, from, visit)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// readSegment visits the frames of one segment from offset on whose numbers are at least from.
func (l *Log) readSegment(ctx context.Context, s *segment, offset int64, from uint64, visit func(Frame) bool) (more bool, err error) {
	file, err := l.fs.Open(l.path(s.Number))
	if err != nil {
		return false, fmt.Errorf("read audit log: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	in := newFrames(file, s, offset, s.size)
	expected := s.First
	if offset > segmentHeader {
		expected = from
	}
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		f, err := in.next()
		if err == io.EOF {
			l.remember(place{seq: expected, segment: s.Number, offset: in.offset})
			return true, nil
		}
		if err == nil && f.Seq != expected {
			return false, &Fault{expected, s.Number, in.offset, FaultGap, fmt.Sprintf("record %d is in its place", f.Seq)}
		}
		if what := faultOf(err); what != "" {
			return false, &Fault{expected, s.Number, in.offset, what, err.Error()}
		}
		if err != nil {
			return false, fmt.Errorf("read audit record %d in %s: %w", expected, SegmentName(s.Number), err)
		}
		expected++
		if f.Seq >= from && !visit(f) {
			l.remember(place{seq: expected, segment: s.Number, offset: in.offset})
			return false, nil
		}
	}
}

func (l *Log) remember(end place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[l.nextEnd] = end
	l.nextEnd = (l.nextEnd + 1) % len(l.ends)
}

// Close closes the log without syncing it. Reads that have begun go on.
func (l *Log) Close() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

func (l *Log) path(number uint64) string { return l.fs.PathJoin(l.dir, SegmentName(number)) }
