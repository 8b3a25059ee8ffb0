package chainlog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxBox is the limit of one sealed record in bytes.
const MaxBox = 256 << 10

// Sealed is a record as it enters the log: Digest is SHA-256(salt ‖ record), Box is the ciphertext of salt ‖ record.
type Sealed struct {
	Digest [32]byte
	Box    []byte
}

// Frame is one record of the log as it is stored:
//
//	length    4  bytes after the checksum: 88 + len(box)
//	checksum  4  CRC-32C of length and everything after the checksum
//	seq       8  number of the record; the first is 0, and epochs don't restart it
//	index     8  of the Raft entry that carried it
//	stamp     8  cluster time, Unix nanoseconds
//	digest   32  SHA-256(salt ‖ record)
//	link     32  head of the chain after this record
//	box          ciphertext of salt ‖ record; of an epoch's first record the text of EpochStart
//
// Numbers are big-endian.
type Frame struct {
	Seq    uint64
	Index  uint64
	Stamp  int64
	Digest [32]byte
	Link   [32]byte
	Box    []byte
	// Epoch and Start come from the segment that holds the frame. Start marks the first record of an epoch, whose Box is
	// an EpochStart in clear.
	Epoch uint64
	Start bool
}

const (
	frameHead   = 8                   // length and checksum
	frameFields = 8 + 8 + 8 + 32 + 32 // all before the box
	frameMin    = frameHead + frameFields
	frameMax    = frameMin + MaxBox
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What can be wrong with stored records.
var (
	errCut      = errors.New("the log ends within a record")
	errLength   = errors.New("the length of a record is out of bounds")
	errChecksum = errors.New("checksum of a record doesn't match")
)

// appendFrame appends the stored form of f.
func appendFrame(dst []byte, f *Frame) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(frameFields+len(f.Box)))
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, f.Seq)
	dst = binary.BigEndian.AppendUint64(dst, f.Index)
	dst = binary.BigEndian.AppendUint64(dst, uint64(f.Stamp))
	dst = append(dst, f.Digest[:]...)
	dst = append(dst, f.Link[:]...)
	dst = append(dst, f.Box...)
	binary.BigEndian.PutUint32(dst[at+4:], checksum(dst[at:]))
	return dst
}

func checksum(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:4], castagnoli), castagnoli, frame[frameHead:])
}

// frameSize returns the stored size of the frame that begins with head.
func frameSize(head []byte) (int, error) {
	n := binary.BigEndian.Uint32(head)
	if n < frameFields || n > frameFields+MaxBox {
		return 0, errLength
	}
	return frameHead + int(n), nil
}

// decodeFrame takes apart one whole stored frame. Box aliases b.
func decodeFrame(b []byte) (Frame, error) {
	if len(b) < frameMin {
		return Frame{}, errCut
	}
	size, err := frameSize(b)
	if err != nil {
		return Frame{}, err
	}
	if size != len(b) {
		return Frame{}, errCut
	}
	if binary.BigEndian.Uint32(b[4:]) != checksum(b) {
		return Frame{}, errChecksum
	}
	f := Frame{Seq: binary.BigEndian.Uint64(b[8:]), Index: binary.BigEndian.Uint64(b[16:]), Stamp: int64(binary.BigEndian.Uint64(b[24:]))}
	copy(f.Digest[:], b[32:])
	copy(f.Link[:], b[64:])
	f.Box = b[frameMin:]
	return f, nil
}

// EpochStart is what the first record of an epoch says, in clear:
//
//	conclave audit epoch v1
//	epoch 2
//	previous-seq 1000
//	previous-head <64 hex digits>
//	previous-root <64 hex digits>
//	reason <printable ASCII>
//
// Every line ends in a newline. The record's digest is SHA-256 of this text.
type EpochStart struct {
	Epoch        uint64
	PreviousSeq  uint64    // records before it
	PreviousHead [32]byte  // of the chain
	PreviousRoot tlog.Hash // of the previous epoch's tree; zero if that was empty
	Reason       string
}

// MaxReason is the limit of an epoch's reason in bytes.
const MaxReason = 256

const epochTitle = "conclave audit epoch v1\n"

// CheckReason reports whether text can be the reason of an epoch: 1 to MaxReason bytes of printable ASCII.
func CheckReason(text string) error {
	if text == "" || len(text) > MaxReason || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("an epoch's reason is 1 to %d bytes of printable ASCII", MaxReason)
	}
	return nil
}

func (e *EpochStart) encode() []byte {
	return fmt.Appendf(nil, epochTitle+"epoch %d\nprevious-seq %d\nprevious-head %x\nprevious-root %x\nreason %s\n",
		e.Epoch, e.PreviousSeq, e.PreviousHead[:], e.PreviousRoot[:], e.Reason)
}

// ParseEpochStart reads the box of an epoch's first record.
func ParseEpochStart(box []byte) (EpochStart, error) {
	var e EpochStart
	bad := errors.New("not the start of an audit epoch")
	if len(box) > len(epochTitle)+512+MaxReason {
		return e, bad
	}
	text, ok := strings.CutPrefix(string(box), epochTitle)
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 6 {
		return e, bad
	}
	values := make([]string, 5)
	for i, name := range []string{"epoch ", "previous-seq ", "previous-head ", "previous-root ", "reason "} {
		if values[i], ok = strings.CutPrefix(lines[i], name); !ok {
			return e, bad
		}
	}
	var err1, err2, err3, err4 error
	e.Epoch, err1 = strconv.ParseUint(values[0], 10, 64)
	e.PreviousSeq, err2 = strconv.ParseUint(values[1], 10, 64)
	err3 = ParseHash(&e.PreviousHead, values[2])
	err4 = ParseHash((*[32]byte)(&e.PreviousRoot), values[3])
	e.Reason = values[4]
	if errors.Join(err1, err2, err3, err4, CheckReason(e.Reason)) != nil || string(e.encode()) != string(box) {
		return EpochStart{}, bad
	}
	return e, nil
}

func (e *EpochStart) sealed() Sealed {
	box := e.encode()
	return Sealed{Digest: sha256.Sum256(box), Box: box}
}
