// Package revocation makes revocation lists and OCSP responses of what an authority has revoked. It is pure.
//
// What an authority has revoked is a ledger: a head, and segments of entries in the order of revocation, of which only the
// last one grows. A list of many entries is read without reading them again, since all but the last segment stay as they
// are. The time of the last change, in nanoseconds, is the number of the list: it grows with each change, on every node
// alike, and a list is a function of the ledger and the period of time it is asked for in.
package revocation

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"conclave"
)

// Limits of a ledger.
const (
	SegmentSize = 128     // entries of one segment
	MaxEntries  = 500_000 // entries of one ledger
	maxSerial   = 32      // bytes of a serial number
)

var errFormat = conclave.Errorf(conclave.Internal, "a stored revocation list can't be read")

// Entry is one revoked certificate.
type Entry struct {
	Serial  []byte // big-endian, without leading zeros
	At      int64  // Unix nanoseconds; each entry's is later than those of the entries before it
	Expires int64  // Unix seconds: the certificate's end
	Reason  int    // RFC 5280, 5.3.1
}

// Head is the ledger but for its entries, stored as JSON.
type Head struct {
	Changed int64  `json:"changed"` // Unix nanoseconds: the number of the list
	Base    int64  `json:"base"`    // the number of the list that deltas begin with
	First   uint64 `json:"first"`   // the oldest segment
	Next    uint64 `json:"next"`    // the segment after the newest
	Count   int    `json:"count"`   // entries
}

// DecodeHead reads a stored head.
func DecodeHead(value []byte) (*Head, error) {
	head := &Head{}
	if err := json.Unmarshal(value, head); err != nil || head.First > head.Next {
		return nil, errFormat
	}
	return head, nil
}

// Touch is the time of a change at now, later than any change before.
func (h *Head) Touch(now time.Time, config *Config) int64 {
	return max(now.UnixNano(), h.Changed+1, config.Changed+1)
}

// Segment is some entries of a ledger.
//
//	0x01 | entries, each: length of the serial | serial | at (varint) | expires (varint) | reason
type Segment []Entry

const tagSegment = 0x01

// Encode is the stored form.
func (s Segment) Encode() []byte {
	b := make([]byte, 0, 1+len(s)*44)
	b = append(b, tagSegment)
	for _, e := range s {
		b = append(append(b, byte(len(e.Serial))), e.Serial...)
		b = binary.AppendVarint(b, e.At)
		b = binary.AppendVarint(b, e.Expires)
		b = append(b, byte(e.Reason))
	}
	return b
}

// DecodeSegment reads the stored form.
func DecodeSegment(b []byte) (Segment, error) {
	if len(b) == 0 || b[0] != tagSegment {
		return nil, errFormat
	}
	var s Segment
	for b = b[1:]; len(b) > 0; {
		var e Entry
		n := int(b[0])
		if n == 0 || n > maxSerial || len(b) < 1+n {
			return nil, errFormat
		}
		e.Serial, b = b[1:1+n:1+n], b[1+n:]
		var size int
		if e.At, size = binary.Varint(b); size <= 0 {
			return nil, errFormat
		}
		b = b[size:]
		if e.Expires, size = binary.Varint(b); size <= 0 || len(b) <= size {
			return nil, errFormat
		}
		e.Reason, b = int(b[size]), b[size+1:]
		s = append(s, e)
	}
	return s, nil
}
