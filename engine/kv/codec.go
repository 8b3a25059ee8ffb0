package kv

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"
)

// Format of what is stored at secrets/<path>. Numbers are uvarints unless said; a time is its Unix seconds (varint) and
// nanoseconds; a string is its length and its bytes.
//
//	version 1:  0x02 | flags | time written | [lease seconds] | JSON object, to the end
//	            flags: 1 a lease is given
//
//	version 2:  0x01 | flags | current | oldest | max versions | delete after (varint ns) | time created | time updated
//	            | number of custom metadata | that many (string key, string value), by key
//	            | versions, from the first kept to current | data of those that are inline, in that order
//	            flags: 1 check-and-set is required
//	   version: flags | time created | [deletion time] | [length of the data]
//	            flags: 1 has a deletion time, 2 deleted, 4 destroyed, 8 inline
//
// The data of a version that isn't inline is at versions/<hash>.<n>, as it is.
const (
	tagVersioned = 0x01
	tagPlain     = 0x02

	flagCASRequired = 1

	flagLease = 1

	flagDeletionTime = 1
	flagDeleted      = 2
	flagDestroyed    = 4
	flagInline       = 8
)

var errFormat = errors.New("kv: a stored secret has a format that can't be read")

// secret is what version 2 knows about one path.
type secret struct {
	created, updated time.Time
	current          uint64 // number of the newest version, 0 if there never was one
	oldest           uint64 // number of the oldest version kept, 0 before any was removed
	maxVersions      uint64 // 0: as the mount says
	deleteAfter      time.Duration
	casRequired      bool
	custom           map[string]string
	versions         []version // from number first() to current
}

// version is one version of a secret.
type version struct {
	created   time.Time
	deletion  time.Time // when it was or will be deleted; zero for never
	deleted   bool      // deleted by request, whatever the clock says
	destroyed bool
	inline    bool
	data      []byte // if inline; the JSON object
}

// first is the number of versions[0].
func (s *secret) first() uint64 { return max(s.oldest, 1) }

func (s *secret) encode() []byte {
	size := 128 + 24*len(s.versions)
	for i := range s.versions {
		size += len(s.versions[i].data)
	}
	for key, value := range s.custom {
		size += len(key) + len(value) + 4
	}
	b := make([]byte, 0, size)
	flags := byte(0)
	if s.casRequired {
		flags |= flagCASRequired
	}
	b = append(b, tagVersioned, flags)
	b = binary.AppendUvarint(b, s.current)
	b = binary.AppendUvarint(b, s.oldest)
	b = binary.AppendUvarint(b, s.maxVersions)
	b = binary.AppendVarint(b, int64(s.deleteAfter))
	b = appendTime(appendTime(b, s.created), s.updated)
	b = binary.AppendUvarint(b, uint64(len(s.custom)))
	if len(s.custom) > 0 {
		for _, key := range slices.Sorted(maps.Keys(s.custom)) {
			b = appendString(appendString(b, key), s.custom[key])
		}
	}
	for i := range s.versions {
		b = s.versions[i].append(b)
	}
	for i := range s.versions {
		if s.versions[i].inline {
			b = append(b, s.versions[i].data...)
		}
	}
	return b
}

func (v *version) append(b []byte) []byte {
	flags := byte(0)
	if !v.deletion.IsZero() {
		flags |= flagDeletionTime
	}
	if v.deleted {
		flags |= flagDeleted
	}
	if v.destroyed {
		flags |= flagDestroyed
	}
	if v.inline {
		flags |= flagInline
	}
	b = appendTime(append(b, flags), v.created)
	if !v.deletion.IsZero() {
		b = appendTime(b, v.deletion)
	}
	if v.inline {
		b = binary.AppendUvarint(b, uint64(len(v.data)))
	}
	return b
}

// decodeSecret reads either version's record. Data is not copied out of b.
func decodeSecret(b []byte) (*secret, error) {
	if len(b) > 0 && b[0] == tagPlain {
		p, err := decodePlain(b)
		if err != nil {
			return nil, err
		}
		return &secret{created: p.written, updated: p.written, current: 1,
			versions: []version{{created: p.written, inline: true, data: p.data}}}, nil
	}
	r := reader{rest: b}
	if r.byte() != tagVersioned {
		return nil, errFormat
	}
	s := &secret{}
	flags := r.byte()
	s.casRequired = flags&flagCASRequired != 0
	s.current, s.oldest, s.maxVersions = r.uvarint(), r.uvarint(), r.uvarint()
	s.deleteAfter = time.Duration(r.varint())
	s.created, s.updated = r.time(), r.time()
	if n := r.count(2); n > 0 {
		s.custom = make(map[string]string, n)
		for range n {
			key := r.string()
			s.custom[key] = r.string()
		}
	}
	n := s.current + 1 - s.first()
	const minVersion = 3 // bytes of the shortest version
	if r.failed || flags&^flagCASRequired != 0 || s.first() > s.current+1 || n > uint64(len(r.rest))/minVersion {
		return nil, errFormat
	}
	s.versions = make([]version, n)
	lengths := make([]uint64, n)
	for i := range s.versions {
		lengths[i] = s.versions[i].read(&r)
	}
	for i := range s.versions {
		if s.versions[i].inline {
			s.versions[i].data = r.bytes(lengths[i])
		}
	}
	if r.failed || len(r.rest) > 0 {
		return nil, errFormat
	}
	return s, nil
}

// read reads all but the data, and returns the data's length.
func (v *version) read(r *reader) (length uint64) {
	flags := r.byte()
	if flags&^(flagDeletionTime|flagDeleted|flagDestroyed|flagInline) != 0 {
		r.failed = true
	}
	v.deleted, v.destroyed, v.inline = flags&flagDeleted != 0, flags&flagDestroyed != 0, flags&flagInline != 0
	v.created = r.time()
	if flags&flagDeletionTime != 0 {
		v.deletion = r.time()
	}
	if v.inline {
		length = r.uvarint()
	}
	return length
}

// plainRecord is a secret of version 1.
type plainRecord struct {
	written  time.Time
	hasLease bool
	lease    time.Duration // whole seconds, not negative
	data     []byte        // the JSON object
}

func (p *plainRecord) encode() []byte {
	b := make([]byte, 0, 24+len(p.data))
	if !p.hasLease {
		return append(appendTime(append(b, tagPlain, 0), p.written), p.data...)
	}
	b = appendTime(append(b, tagPlain, flagLease), p.written)
	b = binary.AppendUvarint(b, uint64(p.lease/time.Second))
	return append(b, p.data...)
}

func decodePlain(b []byte) (*plainRecord, error) {
	r := reader{rest: b}
	if r.byte() != tagPlain {
		return nil, errFormat
	}
	p := &plainRecord{}
	flags := r.byte()
	p.written = r.time()
	if p.hasLease = flags&flagLease != 0; p.hasLease {
		seconds := r.uvarint()
		if seconds > uint64(maxLease/time.Second) {
			return nil, errFormat
		}
		p.lease = time.Duration(seconds) * time.Second
	}
	if p.data = r.rest; r.failed || flags&^flagLease != 0 || len(p.data) == 0 || p.data[0] != '{' {
		return nil, errFormat
	}
	return p, nil
}

func appendTime(b []byte, t time.Time) []byte {
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes a record apart. After the first thing that isn't there it gives zeros, and failed is set.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.failed = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.rest)
	return took(r, n, size)
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.rest)
	return took(r, n, size)
}

func took[N int64 | uint64](r *reader, n N, size int) N {
	if size <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// count reads a number of things that take at least size bytes each.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.rest)/size) {
		r.failed, r.rest = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) time() time.Time {
	seconds, nanoseconds := r.varint(), r.uvarint()
	if nanoseconds >= 1e9 || seconds > 1<<40 || seconds < -1<<40 {
		r.failed = true
		return time.Time{}
	}
	return time.Unix(seconds, int64(nanoseconds)).UTC()
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) string() string { return string(r.bytes(r.uvarint())) }
