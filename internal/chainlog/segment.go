package chainlog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment is a file "seg-<number, 16 hex digits>.log": a header and then frames without gaps.
//
//	magic       8  "CNCLVAU" ‖ 1
//	epoch       8
//	segment     8  number
//	first seq   8  number of the first record
//	epoch seq   8  number of the epoch's first record
//	head       32  of the chain before the first record
//	checksum    4  CRC-32C of all before
//
// An epoch begins a new segment. Which record begins a segment follows from the State alone, so the files of replicas
// are equal.
type segment struct {
	Epoch, Number, First, EpochSeq uint64
	Head                           [32]byte
	size                           int64
}

const (
	segmentMagic  = "CNCLVAU\x01"
	segmentHeader = 8 + 4*8 + 32 + 4
	segmentPrefix = "seg-"
	segmentSuffix = ".log"
	// DefaultSegmentSize is where a segment ends and the next begins, in bytes.
	DefaultSegmentSize = 64 << 20
)

// SegmentName is the file name of a segment.
func SegmentName(number uint64) string {
	return fmt.Sprintf("%s%016x%s", segmentPrefix, number, segmentSuffix)
}

// ParseSegmentName is the reverse of SegmentName.
func ParseSegmentName(name string) (number uint64, ok bool) {
	digits, isLog := strings.CutSuffix(name, segmentSuffix)
	digits, isSegment := strings.CutPrefix(digits, segmentPrefix)
	number, err := strconv.ParseUint(digits, 16, 64)
	return number, isLog && isSegment && err == nil && SegmentName(number) == name
}

func (s *segment) encode() []byte {
	b := append(make([]byte, 0, segmentHeader), segmentMagic...)
	for _, n := range [...]uint64{s.Epoch, s.Number, s.First, s.EpochSeq} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, s.Head[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeSegment(b []byte) (segment, error) {
	if len(b) != segmentHeader || string(b[:8]) != segmentMagic {
		return segment{}, errors.New("not a segment of the audit log")
	}
	if binary.BigEndian.Uint32(b[segmentHeader-4:]) != crc32.Checksum(b[:segmentHeader-4], castagnoli) {
		return segment{}, errors.New("checksum of a segment's header doesn't match")
	}
	s := segment{Epoch: binary.BigEndian.Uint64(b[8:]), Number: binary.BigEndian.Uint64(b[16:]),
		First: binary.BigEndian.Uint64(b[24:]), EpochSeq: binary.BigEndian.Uint64(b[32:])}
	copy(s.Head[:], b[40:])
	return s, nil
}

// readSegment reads the header of a segment's file, and its size.
func readSegment(fs vfs.FS, dir string, number uint64) (s segment, err error) {
	file, err := fs.Open(fs.PathJoin(dir, SegmentName(number)))
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return s, err
	}
	var b [segmentHeader]byte
	if _, err := file.ReadAt(b[:], 0); err != nil && (err != io.EOF || info.Size() < segmentHeader) {
		return s, fmt.Errorf("header of %s: %w", SegmentName(number), err)
	}
	if s, err = decodeSegment(b[:]); err != nil {
		return s, fmt.Errorf("%s: %w", SegmentName(number), err)
	}
	if s.Number != number {
		return s, fmt.Errorf("%s says that it is segment %d", SegmentName(number), s.Number)
	}
	s.size = info.Size()
	return s, nil
}

// listSegments returns the numbers of the segments in dir, in order; other files are passed over.
func listSegments(fs vfs.FS, dir string) ([]uint64, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		if n, ok := ParseSegmentName(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// frames reads the frames of one segment from offset to limit.
type frames struct {
	in      *bufio.Reader
	seg     *segment
	offset  int64 // of the next frame
	limit   int64
	scratch []byte
}

func newFrames(file io.ReaderAt, seg *segment, offset, limit int64) *frames {
	return &frames{in: bufio.NewReaderSize(io.NewSectionReader(file, offset, limit-offset), 64<<10), seg: seg, offset: offset, limit: limit}
}

// next returns the next frame, io.EOF at the limit. The box is valid until the next call.
func (r *frames) next() (Frame, error) {
	left := r.limit - r.offset
	if left == 0 {
		return Frame{}, io.EOF
	}
	if left < frameMin {
		return Frame{}, errCut
	}
	head, err := r.in.Peek(4)
	if err != nil {
		return Frame{}, cut(err)
	}
	size, err := frameSize(head)
	if err != nil {
		return Frame{}, err
	}
	if int64(size) > left {
		return Frame{}, errCut
	}
	if cap(r.scratch) < size {
		r.scratch = make([]byte, size, size+size/2)
	}
	b := r.scratch[:size]
	if _, err := io.ReadFull(r.in, b); err != nil {
		return Frame{}, cut(err)
	}
	f, err := decodeFrame(b)
	if err != nil {
		return Frame{}, err
	}
	r.offset += int64(size)
	f.Epoch, f.Start = r.seg.Epoch, r.seg.Epoch > 0 && f.Seq == r.seg.EpochSeq
	return f, nil
}

func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCut
	}
	return err
}
