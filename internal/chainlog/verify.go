package chainlog

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"
)

// VerifyOptions says what to compare with.
type VerifyOptions struct {
	FS vfs.FS // default: the operating system's
	// Expect is where the log should stand. Without it a tail that was cut off, or a log that was made up as a whole,
	// doesn't show.
	Expect *State
	// Mark asks for the State after this many records, in all epochs. 0: for none.
	Mark uint64
	// Check, if not nil, is called for every record but the first of an epoch, after all else about it was found right:
	// it opens the box and compares the digest. Its error is the record's Fault.
	Check func(Frame) error
}

// Report is what Verify found.
type Report struct {
	From    Base          // where history starts
	State   State         // where it ends, as far as it is right
	Marked  *State        // after VerifyOptions.Mark records; nil if the log doesn't pass there
	Epochs  []EpochReport // at most 1,024, the latest
	Records uint64
	// TailChecked reports that the end was compared with an expected State. If it is false, a cut tail would not show.
	TailChecked bool
	Fault       *Fault // the first thing that is wrong, nil if nothing is
}

// EpochReport is one epoch of the log.
type EpochReport struct {
	Epoch, First, Records uint64
	Head                  [32]byte // of the chain at its end
	Root                  tlog.Hash
	Start                 EpochStart // zero for epoch 0
}

// Fault is the first wrong record.
type Fault struct {
	Seq     uint64 // of the record that is wrong or missing
	Segment uint64
	Offset  int64
	What    string // "checksum", "chain", "gap", "digest", "cut", "header", "state": see Detail
	Detail  string
}

// The kinds of Fault.
const (
	FaultChecksum = "checksum" // damaged on disk
	FaultChain    = "chain"    // not the record that was linked here
	FaultGap      = "gap"      // records are missing
	FaultDigest   = "digest"   // what the box holds isn't what its digest says
	FaultCut      = "cut"      // the log ends too early
	FaultHeader   = "header"   // a segment doesn't continue the one before it
	FaultState    = "state"    // all records are right, but this isn't the expected log
)

// Error says what is wrong, where.
func (f *Fault) Error() string {
	return fmt.Sprintf("audit record %d (%s, offset %d): %s: %s", f.Seq, SegmentName(f.Segment), f.Offset, f.What, f.Detail)
}

const maxEpochReports = 1024

// Verify checks every retained record of the log up to what was flushed when it began; mark is VerifyOptions.Mark. It
// returns an error only if it couldn't read; what is wrong with the log is the Report's Fault.
func (l *Log) Verify(ctx context.Context, mark uint64, check func(Frame) error) (Report, error) {
	at := l.Shown()
	return VerifyDir(ctx, l.dir, VerifyOptions{FS: l.fs, Expect: &at, Mark: mark, Check: check})
}

// VerifyDir checks the segments in a directory, whether or not a node is running on it.
func VerifyDir(ctx context.Context, dir string, options VerifyOptions) (Report, error) {
	if options.FS == nil {
		options.FS = vfs.Default
	}
	v := &verifier{fs: options.FS, dir: dir, expect: options.Expect, mark: options.Mark, check: options.Check}
	v.report.TailChecked = options.Expect != nil
	err := v.run(ctx)
	var fault *Fault
	if errors.As(err, &fault) {
		v.report.Fault, err = fault, nil
	}
	v.report.State = v.state
	return v.report, err
}

// verifier walks over the segments with the State that they add up to.
type verifier struct {
	fs     vfs.FS
	dir    string
	expect *State
	mark   uint64
	check  func(Frame) error
	report Report
	state  State
}

func (v *verifier) run(ctx context.Context) error {
	numbers, err := listSegments(v.fs, v.dir)
	if err != nil {
		return err
	}
	if v.expect != nil {
		numbers = within(numbers, v.expect)
	}
	for i, n := range numbers {
		s, err := readSegment(v.fs, v.dir, n)
		if err != nil {
			return v.fault(n, 0, FaultHeader, err.Error())
		}
		if i == 0 {
			v.begin(&s)
		}
		if err := v.continues(&s, i == 0); err != nil {
			return err
		}
		if err := v.segment(ctx, &s); err != nil {
			return err
		}
	}
	return v.end()
}

// within leaves out what the expected state doesn't count: pruned segments and those written after it.
func within(numbers []uint64, expect *State) []uint64 {
	var kept []uint64
	for _, n := range numbers {
		if n >= expect.Base.Segment && (n < expect.Segment || (n == expect.Segment && expect.Offset > 0)) {
			kept = append(kept, n)
		}
	}
	return kept
}

// begin takes the first segment's word for what was before it, which end compares with the expected state.
func (v *verifier) begin(s *segment) {
	v.report.From = Base{Epoch: s.Epoch, Seq: s.First, Segment: s.Number, Head: s.Head}
	v.state = State{Epoch: s.Epoch, Seq: s.First, EpochSeq: s.First, Head: s.Head, Segment: s.Number, Base: v.report.From}
	if s.Number == 0 {
		// Nothing was before the first segment of all, so this needs no witness; its epoch may be 0 or 1.
		v.report.From, v.state.Base = Base{}, Base{}
		v.state.Head, v.state.Seq, v.state.EpochSeq = [32]byte{}, 0, 0
	}
}

func (v *verifier) continues(s *segment, first bool) error {
	last := &v.state
	fail := func(what, detail string) error { return v.fault(s.Number, 0, what, detail) }
	switch {
	case first && s.First != s.EpochSeq:
		return fail(FaultGap, "history starts within an epoch: segments before this one are missing")
	case first && s.Number == 0 && s.Epoch > 1:
		return fail(FaultHeader, "the first segment of all begins a later epoch")
	case !first && s.Number != last.Segment+1:
		return fail(FaultGap, fmt.Sprintf("after segment %d comes segment %d", last.Segment, s.Number))
	case s.First != last.Seq:
		return fail(FaultGap, fmt.Sprintf("the segment begins with record %d", s.First))
	case s.Head != last.Head:
		return fail(FaultChain, "the segment doesn't continue the chain before it")
	case !first && s.Epoch == last.Epoch && s.EpochSeq != last.EpochSeq,
		!first && s.Epoch != last.Epoch && (s.Epoch != last.Epoch+1 || s.EpochSeq != s.First):
		return fail(FaultHeader, "the segment's epoch doesn't follow from the one before it")
	}
	last.Segment, last.Offset = s.Number, segmentHeader
	return nil
}

func (v *verifier) segment(ctx context.Context, s *segment) (err error) {
	size := s.size
	if v.expect != nil && s.Number == v.expect.Segment {
		size = min(size, v.expect.Offset)
	}
	file, err := v.fs.Open(v.fs.PathJoin(v.dir, SegmentName(s.Number)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var start *EpochStart
	if s.First == s.EpochSeq && s.Epoch > 0 {
		// The epoch's tree begins here; its first record must say what the state before it was.
		before := v.state
		before.Epoch = s.Epoch - 1
		begun := before.BeginEpoch("")
		start = &begun
		v.state.Epoch, v.state.EpochSeq, v.state.Frontier = before.Epoch, before.EpochSeq, nil
	}
	if s.First == s.EpochSeq {
		v.addEpoch(s)
	}
	in := newFrames(file, s, segmentHeader, size)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := in.offset
		f, err := in.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return v.frameFault(s, at, err)
		}
		if err := v.frame(s, &f, at, start); err != nil {
			return err
		}
		start = nil
		v.state.Offset = in.offset
	}
	if start != nil {
		return v.fault(s.Number, segmentHeader, FaultCut, "the epoch's first record is missing")
	}
	return nil
}

func (v *verifier) frameFault(s *segment, at int64, err error) error {
	if what := faultOf(err); what != "" {
		return v.fault(s.Number, at, what, err.Error())
	}
	return fmt.Errorf("read %s: %w", SegmentName(s.Number), err)
}

// faultOf is the kind of fault that an error of reading frames is, "" if it is none.
func faultOf(err error) string {
	switch {
	case errors.Is(err, errCut):
		return FaultCut
	case errors.Is(err, errChecksum), errors.Is(err, errLength):
		return FaultChecksum
	}
	return ""
}

// frame checks one record and adds it to the state. start is what the epoch's first record must say, but its reason.
func (v *verifier) frame(s *segment, f *Frame, at int64, start *EpochStart) error {
	if f.Seq != v.state.Seq {
		return v.fault(s.Number, at, FaultGap, fmt.Sprintf("record %d is in its place", f.Seq))
	}
	next := v.state
	next.Frontier = append([]tlog.Hash(nil), v.state.Frontier...)
	next.Extend(f.Index, f.Stamp, LeafHash(&f.Digest, sha256.Sum256(f.Box)))
	if next.Head != f.Link {
		return v.fault(s.Number, at, FaultChain, "the record isn't the one that was linked here")
	}
	if f.Start {
		said, err := ParseEpochStart(f.Box)
		if err == nil && f.Digest != sha256.Sum256(f.Box) {
			err = errors.New("digest of the epoch's first record doesn't match")
		}
		if err != nil {
			return v.fault(s.Number, at, FaultDigest, err.Error())
		}
		known := v.report.Records > 0 || s.Number == 0 // else the previous root was pruned away
		if start == nil || said.Epoch != start.Epoch || said.PreviousSeq != start.PreviousSeq || said.PreviousHead != start.PreviousHead ||
			(known && said.PreviousRoot != start.PreviousRoot) {
			return v.fault(s.Number, at, FaultChain, "the epoch's first record doesn't name the head before it")
		}
		v.report.Epochs[len(v.report.Epochs)-1].Start = said
	} else if v.check != nil {
		if err := v.check(*f); err != nil {
			return v.fault(s.Number, at, FaultDigest, err.Error())
		}
	}
	next.Epoch = s.Epoch
	v.state = next
	if next.Seq == v.mark {
		marked := next.Clone()
		v.report.Marked = &marked
	}
	v.report.Records++
	epoch := &v.report.Epochs[len(v.report.Epochs)-1]
	epoch.Records++
	epoch.Head, epoch.Root = next.Head, next.Root()
	return nil
}

func (v *verifier) addEpoch(s *segment) {
	if len(v.report.Epochs) == maxEpochReports {
		v.report.Epochs = append(v.report.Epochs[:0], v.report.Epochs[1:]...)
	}
	v.report.Epochs = append(v.report.Epochs, EpochReport{Epoch: s.Epoch, First: s.First, Head: s.Head})
}

// end compares with the expected state.
func (v *verifier) end() error {
	want := v.expect
	if want == nil {
		return nil
	}
	if v.report.Records == 0 && want.Offset == 0 && want.Seq == want.Base.Seq {
		v.state, v.report.From = want.Clone(), want.Base
	}
	at := &v.state
	switch {
	case at.Seq < want.Seq:
		return v.fault(at.Segment, at.Offset, FaultCut, fmt.Sprintf("the log ends here, but %d records were applied", want.Seq))
	case at.Base != want.Base:
		return v.fault(at.Base.Segment, 0, FaultState, "history doesn't start where it should")
	case at.Seq != want.Seq, at.Head != want.Head, at.Epoch != want.Epoch, at.Root() != want.Root():
		return v.fault(at.Segment, at.Offset, FaultState, "the log is whole, but it isn't the expected one")
	}
	return nil
}

func (v *verifier) fault(segment uint64, offset int64, what, detail string) error {
	return &Fault{Seq: v.state.Seq, Segment: segment, Offset: offset, What: what, Detail: detail}
}
