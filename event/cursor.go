package event

import (
	"encoding/base64"
	"encoding/binary"
	"strings"

	"conclave"
)

// Cursor is a place in the stream: before event number Done of the record number Seq. Link is the beginning of the hash
// chain's head after the last record that the cursor has touched, by which a log with another history is recognised.
//
//	text: "c1-" ‖ base64url, without padding, of Seq (8, big-endian) ‖ Done (2) ‖ Link (8)
type Cursor struct {
	Seq  uint64
	Done uint16
	Link [8]byte
}

const (
	cursorPrefix = "c1-"
	cursorSize   = 8 + 2 + 8
)

// Words that stand for a cursor.
const (
	Now    = "now"    // what happens from now on; the empty text means the same
	Oldest = "oldest" // all that is kept
)

// String is the cursor as clients get it.
func (c Cursor) String() string {
	var b [cursorSize]byte
	binary.BigEndian.PutUint64(b[:], c.Seq)
	binary.BigEndian.PutUint16(b[8:], c.Done)
	copy(b[10:], c.Link[:])
	return cursorPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// ParseCursor reads what String made, and nothing else.
func ParseCursor(text string) (Cursor, error) {
	encoded, ok := strings.CutPrefix(text, cursorPrefix)
	if !ok || len(encoded) != base64.RawURLEncoding.EncodedLen(cursorSize) {
		return Cursor{}, errCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) != cursorSize { // the decoder passes over line breaks
		return Cursor{}, errCursor
	}
	c := Cursor{Seq: binary.BigEndian.Uint64(b), Done: binary.BigEndian.Uint16(b[8:]), Link: [8]byte(b[10:])}
	if c.Done > conclave.MaxEvents || c.Seq > maxSeq {
		return Cursor{}, errCursor
	}
	return c, nil
}

// maxSeq bounds the number of a record in a cursor, so that numbers after it can be counted.
const maxSeq = 1 << 62

var errCursor = conclave.Errorf(conclave.Invalid, "malformed cursor: a cursor is what came with an event, or one of %s and %s", Now, Oldest)

// at is the cursor before the record number seq, where the chain's head is link.
func at(seq uint64, link [32]byte) Cursor { return Cursor{Seq: seq, Link: [8]byte(link[:8])} }

// touched is how many records the log has at least, if it is the cursor's.
func (c Cursor) touched() uint64 {
	if c.Done > 0 {
		return c.Seq + 1
	}
	return c.Seq
}
