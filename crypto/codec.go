package crypto

import "encoding/binary"

// appendField appends one field of additional data: its length as a big-endian uint32, then its bytes. A fixed number of such fields in a
// fixed order reads in one way only.
func appendField[T string | []byte](b []byte, field T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
	return append(b, field...)
}

// reader takes a record apart from front to back. After the first shortage everything it returns is zero and ok is false.
type reader struct {
	rest []byte
	bad  bool
}

// ok reports that everything asked for was there and nothing is left.
func (r *reader) ok() bool { return !r.bad && len(r.rest) == 0 }

// take returns the next n bytes, which alias the record, or nil.
func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) key() Key {
	var k Key
	copy(k[:], r.take(KeySize))
	return k
}

// keys reads count keys by number, 1 or more and strictly ascending, of which the last must be active.
func (r *reader) keys(count, limit int, active uint32) map[uint32]Key {
	if count < 1 || count > limit || count*(4+KeySize) > len(r.rest) {
		r.bad = true
		return nil
	}
	m := make(map[uint32]Key, count)
	last := uint32(0)
	for range count {
		n := r.uint32()
		if n <= last {
			r.bad = true
			return nil
		}
		m[n], last = r.key(), n
	}
	if last != active {
		r.bad = true
		return nil
	}
	return m
}
