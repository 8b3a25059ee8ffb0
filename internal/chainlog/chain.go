package chainlog

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// State is where the log stands: all that is needed to go on with it, and to notice that it isn't what it was. Replicas
// that have applied the same entries have equal States.
type State struct {
	Epoch    uint64   // 0 until the first Rotate
	Seq      uint64   // records so far, in all epochs
	EpochSeq uint64   // of them before this epoch
	Head     [32]byte // of the chain, which goes on over epochs; zero before the first record
	// Frontier holds the roots of the complete subtrees of this epoch's tree (RFC 6962), largest first: one for each bit
	// set in Seq-EpochSeq.
	Frontier []tlog.Hash
	Segment  uint64 // number of the segment that is being written
	Offset   int64  // and its length in bytes, 0 if it hasn't been begun
	Base     Base   // where retained history starts
}

// Base is where retained history starts: what Prune has left begins with this epoch, record and segment, and Head is
// the head of the chain before it.
type Base struct {
	Epoch, Seq, Segment uint64
	Head                [32]byte
}

const (
	stateFormat = 1
	stateFixed  = 1 + 5*8 + 32 + 3*8 + 32
	maxFrontier = 64
)

// AppendBinary appends the stored form:
//
//	format 1 ‖ epoch 8 ‖ seq 8 ‖ epoch seq 8 ‖ segment 8 ‖ offset 8 ‖ head 32 ‖
//	base: epoch 8 ‖ seq 8 ‖ segment 8 ‖ head 32 ‖ frontier: 32 for each bit set in seq - epoch seq
func (s *State) AppendBinary(dst []byte) ([]byte, error) {
	dst = append(dst, stateFormat)
	for _, n := range [...]uint64{s.Epoch, s.Seq, s.EpochSeq, s.Segment, uint64(s.Offset)} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	dst = append(dst, s.Head[:]...)
	for _, n := range [...]uint64{s.Base.Epoch, s.Base.Seq, s.Base.Segment} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	dst = append(dst, s.Base.Head[:]...)
	for _, h := range s.Frontier {
		dst = append(dst, h[:]...)
	}
	return dst, nil
}

// UnmarshalBinary reads what AppendBinary wrote and nothing else.
func (s *State) UnmarshalBinary(b []byte) error {
	bad := errors.New("audit state is malformed")
	if len(b) < stateFixed || b[0] != stateFormat {
		return bad
	}
	at := 1
	next := func() uint64 {
		at += 8
		return binary.BigEndian.Uint64(b[at-8:])
	}
	var r State
	r.Epoch, r.Seq, r.EpochSeq, r.Segment, r.Offset = next(), next(), next(), next(), int64(next())
	at += copy(r.Head[:], b[at:])
	r.Base.Epoch, r.Base.Seq, r.Base.Segment = next(), next(), next()
	at += copy(r.Base.Head[:], b[at:])
	if r.Offset < 0 || r.EpochSeq > r.Seq || r.Base.Seq > r.EpochSeq || r.Base.Segment > r.Segment || r.Base.Epoch > r.Epoch {
		return bad
	}
	n := bits.OnesCount64(r.Seq - r.EpochSeq)
	if len(b)-at != n*tlog.HashSize {
		return bad
	}
	if n > 0 {
		r.Frontier = make([]tlog.Hash, n)
	}
	for i := range r.Frontier {
		at += copy(r.Frontier[i][:], b[at:])
	}
	*s = r
	return nil
}

// Root is the root of the epoch's tree, zero if the tree is empty.
func (s *State) Root() tlog.Hash {
	if len(s.Frontier) == 0 {
		return tlog.Hash{}
	}
	last := len(s.Frontier) - 1
	root := s.Frontier[last]
	for _, left := range slices.Backward(s.Frontier[:last]) {
		root = tlog.NodeHash(left, root)
	}
	return root
}

// Size is how many records the epoch's tree has.
func (s *State) Size() uint64 { return s.Seq - s.EpochSeq }

// Equal reports whether both are the same place of the same log.
func (s *State) Equal(o *State) bool {
	return s.Epoch == o.Epoch && s.Seq == o.Seq && s.EpochSeq == o.EpochSeq && s.Head == o.Head && s.Segment == o.Segment &&
		s.Offset == o.Offset && s.Base == o.Base && slices.Equal(s.Frontier, o.Frontier)
}

// Clone is a copy that shares nothing.
func (s *State) Clone() State {
	c := *s
	c.Frontier = slices.Clone(s.Frontier)
	return c
}

// Extend adds a record, of which LeafHash is known, to chain and tree.
func (s *State) Extend(index uint64, stamp int64, leaf tlog.Hash) {
	s.Head = Link(&s.Head, s.Seq, index, stamp, &leaf)
	node := leaf
	for n := s.Size(); n&1 == 1; n >>= 1 {
		last := len(s.Frontier) - 1
		node = tlog.NodeHash(s.Frontier[last], node)
		s.Frontier = s.Frontier[:last]
	}
	s.Frontier = append(s.Frontier, node)
	s.Seq++
}

// BeginEpoch starts a new epoch and tree; the chain goes on. The epoch's first record is what it returns.
func (s *State) BeginEpoch(reason string) EpochStart {
	start := EpochStart{Epoch: s.Epoch + 1, PreviousSeq: s.Seq, PreviousHead: s.Head, PreviousRoot: s.Root(), Reason: reason}
	s.Epoch, s.EpochSeq, s.Frontier = s.Epoch+1, s.Seq, nil
	return start
}

// LeafHash is the hash of a record in the tree, as RFC 6962 has it: SHA-256(0 ‖ leaf data), where the leaf data is
// SHA-256(salt ‖ record) ‖ SHA-256(box).
func LeafHash(digest *[32]byte, box [32]byte) tlog.Hash {
	var data [1 + 64]byte
	copy(data[1:], digest[:])
	copy(data[33:], box[:])
	return sha256.Sum256(data[:])
}

const linkTitle = "conclave audit link v1\x00"

// Link is the head of the chain after a record: SHA-256(title ‖ head ‖ seq ‖ index ‖ stamp ‖ leaf).
func Link(head *[32]byte, seq, index uint64, stamp int64, leaf *tlog.Hash) [32]byte {
	var b [len(linkTitle) + 32 + 3*8 + 32]byte
	n := copy(b[:], linkTitle)
	n += copy(b[n:], head[:])
	binary.BigEndian.PutUint64(b[n:], seq)
	binary.BigEndian.PutUint64(b[n+8:], index)
	binary.BigEndian.PutUint64(b[n+16:], uint64(stamp))
	copy(b[n+24:], leaf[:])
	return sha256.Sum256(b[:])
}

// ParseHash reads 64 hex digits.
func ParseHash(dst *[32]byte, text string) error {
	if len(text) != 64 {
		return errors.New("a hash has 64 digits")
	}
	_, err := hex.Decode(dst[:], []byte(text))
	return err
}
