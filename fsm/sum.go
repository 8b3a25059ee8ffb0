package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
)

// Range is a part of the state that replicas compare: all of a class in a space, "record/7"; "plain" items; the "audit"
// log; the "position" of the state itself.
type Range struct {
	Name  string `json:"name"`
	Items uint64 `json:"items"`
	Hash  string `json:"hash"` // SHA-256, hex
}

// MaxRanges is how many ranges a Sum has at most. Beyond it the last one holds all that is left.
const MaxRanges = 2048

// sumChunk is about how many bytes a Sum reads between two calls of pace.
const sumChunk = 256 << 10

// classNames name the classes in the name of a range.
var classNames = map[byte]string{ClassRecord: "record", ClassCell: "cell", ClassStamp: "stamp", ClassPlain: "plain"}

// Sum returns the hashes of the state by range. Equal states have equal sums, whatever they are made of on disk. It reads
// all of Pebble, from disk and not through what is hot, but of the audit log only where it stands: its chain covers the
// rest. It calls pace with the bytes read since the last call, now and then, and ends with an error of it.
func (v *View) Sum(pace func(bytes int) error) ([]Range, error) {
	s := summing{ranges: v.positions()}
	var failed error
	err := v.scan(nil, nil, func(key, item []byte) bool {
		if key[0] == classMeta {
			return true
		}
		s.add(key, item)
		if s.read >= sumChunk {
			failed = pace(s.read)
			s.read = 0
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		err = pace(s.read)
	}
	if err != nil {
		return nil, fmt.Errorf("hash the state as of index %d: %w", v.at.applied, err)
	}
	s.end()
	return s.ranges, nil
}

// summing is a Sum that is being made. A range's hash is SHA-256 over key length (2) ‖ key ‖ item length (4) ‖ item, for
// each of its items in order.
type summing struct {
	ranges []Range
	prefix string // class and space of the range that hash is over
	name   string
	hash   hash.Hash
	items  uint64
	read   int // bytes
	head   []byte
}

// entryRead is what an item counts beyond its bytes.
const entryRead = 16

func (s *summing) add(key, item []byte) {
	prefix := key[:min(len(key), spaceKey)]
	if key[0] == ClassPlain {
		prefix = key[:1]
	}
	if s.hash == nil || s.prefix != string(prefix) && len(s.ranges) < MaxRanges-1 {
		s.end()
		s.prefix, s.hash, s.items = string(prefix), sha256.New(), 0
		s.name = classNames[key[0]]
		if len(prefix) == spaceKey {
			s.name += fmt.Sprintf("/%d", binary.BigEndian.Uint64(prefix[1:]))
		}
		if len(s.ranges) == MaxRanges-1 {
			s.name = "rest"
		}
	}
	s.head = append(binary.BigEndian.AppendUint16(s.head[:0], uint16(len(key))), key...)
	s.hash.Write(binary.BigEndian.AppendUint32(s.head, uint32(len(item))))
	s.hash.Write(item)
	s.items++
	s.read += entryRead + len(key) + len(item)
}

// end ends a range.
func (s *summing) end() {
	if s.hash != nil {
		s.ranges = append(s.ranges, Range{Name: s.name, Items: s.items, Hash: hex.EncodeToString(s.hash.Sum(nil))})
		s.hash = nil
	}
}

// positions are the ranges of what isn't an item: where the state and the audit log stand. How the audit log is laid out
// in files is left out, and so is the applied index, since one of Raft's own entries changes it on no node or only later.
func (v *View) positions() []Range {
	at, log := &v.at, &v.at.audit
	b := binary.BigEndian.AppendUint32(nil, at.format)
	b = binary.BigEndian.AppendUint64(b, uint64(at.time))
	position := sha256.Sum256(binary.BigEndian.AppendUint64(b, at.opened))
	root := log.Root()
	b = append(append([]byte(nil), log.Head[:]...), root[:]...)
	for _, n := range [...]uint64{log.Epoch, log.Seq, log.EpochSeq} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	audit := sha256.Sum256(b)
	return []Range{{"position", 1, hex.EncodeToString(position[:])}, {"audit", log.Seq, hex.EncodeToString(audit[:])}}
}
