package fsm

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"conclave/audit"
)

var errMalformed = errors.New("malformed command")

// decoder takes a command apart from front to back. After the first shortage everything it returns is zero and bad is
// set. It allocates nothing per transaction once its scratch space has grown.
type decoder struct {
	rest []byte
	bad  bool
	tx   rawTx
}

// rawTx is a decoded transaction whose bytes alias the command's. It is valid until the next one is decoded.
type rawTx struct {
	id                  ProposalID
	writing             bool
	judged              bool // has what follows, up to reads
	snapshot            uint64
	notBefore, notAfter int64
	reads               []rawRead
	writes              []rawWrite
	digest              [32]byte
	box                 []byte
}

type rawRead struct {
	key     []byte
	version uint64
}

type rawWrite struct {
	op           Op
	key          []byte
	value        []byte
	delta, floor int64
}

func (d *decoder) end() error {
	if d.bad || len(d.rest) > 0 {
		return errMalformed
	}
	return nil
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.rest) {
		d.bad = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uint8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// count reads a number of things of at least size bytes each, which bounds what is allocated by what is there.
func (d *decoder) count(limit, size int) int {
	n := d.uint32()
	if n > uint32(limit) || int64(n)*int64(size) > int64(len(d.rest)) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) key() []byte { return d.take(int(d.uint8())) }

// transaction decodes the next one; full says whether one that doesn't write has its reads.
func (d *decoder) transaction(full bool) (*rawTx, error) {
	t := &d.tx
	*t = rawTx{reads: t.reads[:0], writes: t.writes[:0]}
	flags := d.uint8()
	copy(t.id[:], d.take(len(t.id)))
	t.writing = flags&flagWriting != 0
	t.judged = full || t.writing
	if t.judged {
		t.snapshot, t.notBefore, t.notAfter = d.uint64(), int64(d.uint64()), int64(d.uint64())
		for range d.count(MaxReads, 1+2+8) {
			r := rawRead{key: d.key(), version: d.uint64()}
			d.bad = d.bad || !readable(r.key)
			t.reads = append(t.reads, r)
		}
		d.bad = d.bad || t.snapshot >= math.MaxInt64
	}
	if t.writing {
		d.writes(t)
	}
	if flags&flagRecord != 0 {
		copy(t.digest[:], d.take(len(t.digest)))
		n := d.uint32()
		d.bad = d.bad || n == 0 || n > audit.MaxBox
		t.box = d.take(int(n))
	}
	if d.bad || flags > flagWriting|flagRecord {
		return nil, errMalformed
	}
	return t, nil
}

// writes decodes the writes of t, and checks that each fits its key and what was read.
func (d *decoder) writes(t *rawTx) {
	written := 0
	n := d.count(MaxWrites, 2+2)
	d.bad = d.bad || n == 0
	for range n {
		w := rawWrite{op: Op(d.uint8()), key: d.key()}
		switch w.op {
		case Create, Replace:
			size := d.uint32()
			d.bad = d.bad || size > MaxValue
			w.value = d.take(int(size))
		case SetCell:
			w.delta = int64(d.uint64())
			d.bad = d.bad || w.delta == math.MinInt64
		case AddCell:
			w.delta, w.floor = int64(d.uint64()), int64(d.uint64())
		}
		if d.bad = d.bad || !w.op.fits(w.key); d.bad {
			return
		}
		written += len(w.key) + len(w.value)
		t.writes = append(t.writes, w)
	}
	d.bad = d.bad || written > MaxWritten || !t.coherent()
}

// small is up to how many comparisons a search through a slice is cheaper than a map.
const small = 256

// coherent reports whether no key is written twice, and what needs to have been read was, at a version that fits.
func (t *rawTx) coherent() bool {
	if len(t.writes)*(len(t.reads)+len(t.writes)) > small {
		return t.coherentMany()
	}
	for i := range t.writes {
		w := &t.writes[i]
		for j := range t.writes[:i] {
			if string(t.writes[j].key) == string(w.key) {
				return false
			}
		}
		if !w.op.needsRead() {
			continue
		}
		at := slices.IndexFunc(t.reads, func(r rawRead) bool { return string(r.key) == string(w.key) })
		if at < 0 || !w.op.allows(t.reads[at].version) {
			return false
		}
	}
	return true
}

func (t *rawTx) coherentMany() bool {
	reads := make(map[string]uint64, len(t.reads)) // key → version of its first read
	for i := len(t.reads) - 1; i >= 0; i-- {
		reads[string(t.reads[i].key)] = t.reads[i].version
	}
	written := make(map[string]struct{}, len(t.writes))
	for i := range t.writes {
		w := &t.writes[i]
		if _, again := written[string(w.key)]; again {
			return false
		}
		written[string(w.key)] = struct{}{}
		if version, read := reads[string(w.key)]; w.op.needsRead() && (!read || !w.op.allows(version)) {
			return false
		}
	}
	return true
}

// needsRead reports whether an operation's key must be in the read set.
func (o Op) needsRead() bool { return o == Create || o == Replace || o == Delete || o == DropStamp }

// allows reports whether an operation makes sense over what was read.
func (o Op) allows(version uint64) bool { return (o == Create) == (version == 0) }

// Sizes of keys by class.
const (
	spaceKey = 1 + 8      // the key of a DropSpace
	stampKey = 1 + 8 + 16 // ClassStamp
	childKey = 1 + 8 + 32 // ClassRecord and ClassCell
	lossSize = 1 + 8 + 2  // of a loss, see lossKey
)

// readable reports whether a key can be in a read set.
func readable[K Key | []byte](k K) bool {
	if len(k) == 0 {
		return false
	}
	switch k[0] {
	case ClassRecord, ClassCell:
		return len(k) == childKey
	case ClassStamp:
		return len(k) == stampKey
	case ClassPlain:
		return len(k) > 1 && len(k) <= MaxKey
	}
	return false
}

// fits reports whether o is an operation for this key.
func (o Op) fits(k []byte) bool {
	if o == DropSpace {
		return len(k) == spaceKey && k[0] == ClassRecord
	}
	if !readable(k) {
		return false
	}
	switch o {
	case Create, Replace, Delete:
		return k[0] == ClassRecord || k[0] == ClassPlain
	case SetCell, DropCell, AddCell:
		return k[0] == ClassCell
	case DropStamp:
		return k[0] == ClassStamp
	}
	return false
}

// public copies the transaction's structure; values and the box go on aliasing the command.
func (t *rawTx) public() *Transaction {
	p := &Transaction{ID: t.id, Record: AuditRecord{Digest: t.digest, Box: t.box}}
	if t.judged {
		p.Snapshot, p.NotBefore, p.NotAfter = t.snapshot, t.notBefore, t.notAfter
	}
	if len(t.reads) > 0 {
		p.Reads = make([]Read, len(t.reads))
	}
	for i, r := range t.reads {
		p.Reads[i] = Read{Key: Key(r.key), Version: r.version}
	}
	if len(t.writes) > 0 {
		p.Writes = make([]Write, len(t.writes))
	}
	for i, w := range t.writes {
		p.Writes[i] = Write{Op: w.op, Key: Key(w.key), Value: w.value, Delta: w.delta, Floor: w.floor}
		if w.op == Create || w.op == Replace {
			p.Writes[i].Version = t.snapshot + 1
		}
	}
	return p
}
