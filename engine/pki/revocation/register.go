// Package revocation makes revocation lists and OCSP responses of what an authority has revoked. It is pure.
//
// What an authority has revoked is a register: a head, and sheets of entries in the order of revocation, of which only the
// last one grows. A list of many entries is read without reading them again, since all but the last sheet stay as they
// are. The time of the last change, in nanoseconds, is the number of the list: it grows with each change, on every node
// alike, and a list is a function of the register and the period of time it is asked for in.
package revocation

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"conclave"
)

// Limits of a register.
const (
	SheetSize  = 128     // entries of one sheet
	MaxEntries = 500_000 // entries of one register
	maxSerial  = 32      // bytes of a serial number
)

var errFormat = conclave.Errorf(conclave.Internal, "a stored revocation list can't be read")

// Entry is one revoked certificate.
type Entry struct {
	Serial  []byte // big-endian, without leading zeros
	At      int64  // Unix nanoseconds; each entry's is later than those of the entries before it
	Expires int64  // Unix seconds: the certificate's end
	Reason  int    // RFC 5280, 5.3.1
}

// Head is the register but for its entries, stored as JSON.
type Head struct {
	Changed int64  `json:"changed"` // Unix nanoseconds: the number of the list
	Base    int64  `json:"base"`    // the number of the list that deltas begin with
	First   uint64 `json:"first"`   // the oldest sheet
	Next    uint64 `json:"next"`    // the sheet after the newest
	Count   int    `json:"count"`   // entries

	made *editions // lists that were made of this version of the register
}

// maxEditions bounds the lists that are kept of one version of a register.
const maxEditions = 8

// editions are lists in DER, by what they were made of besides the register.
type editions struct {
	mu   sync.Mutex // guards list
	list map[string][]byte
}

// Made returns the list that was made of the register and something else, which key names in full, or makes it. The result
// is shared.
func (h *Head) Made(key string, make func() ([]byte, error)) ([]byte, error) {
	if h.made == nil {
		return make()
	}
	h.made.mu.Lock()
	der, found := h.made.list[key]
	h.made.mu.Unlock()
	if found {
		return der, nil
	}
	der, err := make()
	if err != nil {
		return nil, err
	}
	h.made.mu.Lock()
	defer h.made.mu.Unlock()
	if len(h.made.list) >= maxEditions || h.made.list == nil {
		h.made.list = map[string][]byte{}
	}
	h.made.list[key] = der
	return der, nil
}

// DecodeHead reads a stored head.
func DecodeHead(value []byte) (*Head, error) {
	head := &Head{made: &editions{}}
	if err := json.Unmarshal(value, head); err != nil || head.First > head.Next {
		return nil, errFormat
	}
	return head, nil
}

// Touch is the time of a change at now, later than any change before.
func (h *Head) Touch(now time.Time, config *Config) int64 {
	return max(now.UnixNano(), h.Changed+1, config.Changed+1)
}

// Sheet is some entries of a register.
//
//	0x01 | entries, each: length of the serial | serial | at (varint) | expires (varint) | reason
type Sheet struct {
	Entries []Entry

	der []byte // of all entries, as lists have them
}

const tagSheet = 0x01

// With is the sheet with one more entry, nil being one without any.
func (s *Sheet) With(e Entry) *Sheet {
	if s == nil {
		return newSheet([]Entry{e})
	}
	return newSheet(append(slices.Clone(s.Entries), e))
}

func newSheet(entries []Entry) *Sheet {
	s := &Sheet{Entries: entries}
	for _, e := range entries {
		s.der = e.appendDER(s.der)
	}
	return s
}

// appendDER appends an entry of a revocation list (RFC 5280, 5.1.2.6). Its parts are short: one byte holds each length.
func (e *Entry) appendDER(b []byte) []byte {
	number := e.Serial
	if number[0] >= 0x80 {
		number = append([]byte{0}, number...)
	}
	at := time.Unix(0, e.At).UTC()
	tag, text := byte(0x17), at.AppendFormat(nil, "060102150405Z")
	if at.Year() < 1950 || at.Year() > 2049 {
		tag, text = 0x18, at.AppendFormat(nil, "20060102150405Z")
	}
	reason := []byte(nil)
	if e.Reason != 0 { // SEQUENCE { SEQUENCE { OID reasonCode, OCTET STRING { ENUMERATED } } }
		reason = []byte{0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01, byte(e.Reason)}
	}
	b = append(b, 0x30, byte(2+len(number)+2+len(text)+len(reason)), 0x02, byte(len(number)))
	b = append(append(append(b, number...), tag, byte(len(text))), text...)
	return append(b, reason...)
}

// Encode is the stored form.
func (s *Sheet) Encode() []byte {
	b := make([]byte, 0, 1+len(s.Entries)*44)
	b = append(b, tagSheet)
	for _, e := range s.Entries {
		b = append(append(b, byte(len(e.Serial))), e.Serial...)
		b = binary.AppendVarint(b, e.At)
		b = binary.AppendVarint(b, e.Expires)
		b = append(b, byte(e.Reason))
	}
	return b
}

// maxReason is the last reason there is (RFC 5280, 5.3.1).
const maxReason = 10

// DecodeSheet reads the stored form.
func DecodeSheet(b []byte) (*Sheet, error) {
	if len(b) == 0 || b[0] != tagSheet {
		return nil, errFormat
	}
	var entries []Entry
	for b = b[1:]; len(b) > 0; {
		var e Entry
		n := int(b[0])
		if n == 0 || n > maxSerial || len(b) < 1+n || b[1] == 0 {
			return nil, errFormat
		}
		e.Serial, b = b[1:1+n:1+n], b[1+n:]
		var size int
		if e.At, size = binary.Varint(b); size <= 0 {
			return nil, errFormat
		}
		b = b[size:]
		if e.Expires, size = binary.Varint(b); size <= 0 || len(b) <= size || b[size] > maxReason {
			return nil, errFormat
		}
		e.Reason, b = int(b[size]), b[size+1:]
		entries = append(entries, e)
	}
	return newSheet(entries), nil
}
