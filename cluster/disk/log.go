package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// Limits of the log store.
const (
	walSegmentBytes  = 16 << 20 // made in advance, so much less than the reserve
	cachedLogBytes   = 16 << 20
	cachedLogEntries = 512
	// openingBytes is more than a leader's opening of its term, and less than any transaction.
	openingBytes = 32
)

// trailer is what the store puts in an entry's Extensions, once, on the leader; it travels with the entry and is
// verified before an entry is stored and after it is read:
//
//	1  CRC-32C over index (8) ‖ term (8) ‖ type (1) ‖ data, big-endian
//	↑ format byte
const (
	trailerFormat = 1
	trailerBytes  = 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is what a log entry with a wrong checksum gives.
var errDamaged = errors.New("log entry is damaged")

// innerLog is what the wrapper needs from raft-wal and raft-boltdb.
type innerLog interface {
	raft.LogStore
	Close() error
}

// Log is Raft's log. It verifies every entry on its way in and out, keeps the newest in memory (replication reads the entry before
// the next one each time), and counts bytes for the snapshot trigger.
type Log struct {
	inner     innerLog
	marker    string // a file that is there from the first start on
	fatal     func(error)
	room      func(bytes int) error // for entries of other nodes; nil: there always is
	monotonic bool
	truncated atomic.Bool  // Raft has dropped a suffix and goes on to store what belongs there
	stored    atomic.Int64 // bytes since ResetCount
	entries   atomic.Int64 // entries since ResetCount

	mu    sync.Mutex // guards what follows
	cache []*raft.Log
	first uint64 // index of cache[0]
	bytes int
}

var (
	_ raft.LogStore          = (*Log)(nil)
	_ raft.MonotonicLogStore = (*Log)(nil)
)

// OpenLog opens the log of the given kind ("wal" or "bolt") under dir.
func OpenLog(dir, kind string, logger hclog.Logger, fatal func(error)) (*Log, error) {
	path := filepath.Join(dir, kind)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	var inner innerLog
	var err error
	if kind == "bolt" {
		inner, err = raftboltdb.New(raftboltdb.Options{Path: filepath.Join(path, "log.db"), MsgpackUseNewTimeFormat: true})
	} else {
		inner, err = openWAL(path, logger)
	}
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	l := newLog(inner, fatal)
	l.marker = filepath.Join(path, "used")
	return l, nil
}

// Used reports whether this very directory was the log when the node was started before. An empty log that was used is
// what is left when a snapshot took the place of all entries; one that wasn't has been put in the place of another.
func (s *Log) Used() (bool, error) {
	_, err := os.Stat(s.marker)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Use has Used report true from now on.
func (s *Log) Use() error { return WriteFile(s.marker, nil) }

// walAndMeta closes what raft-wal's own Close leaves open: the database of its segments, which is locked.
type walAndMeta struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

func openWAL(path string, logger hclog.Logger) (innerLog, error) {
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(path, wal.WithSegmentSize(walSegmentBytes), wal.WithLogger(logger), wal.WithMetaStore(meta))
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return &walAndMeta{w, meta}, nil
}

// Close closes both.
func (w *walAndMeta) Close() error { return errors.Join(w.WAL.Close(), w.meta.Close()) }

func newLog(inner innerLog, fatal func(error)) *Log {
	m, ok := inner.(raft.MonotonicLogStore)
	return &Log{inner: inner, fatal: fatal, monotonic: ok && m.IsMonotonic()}
}

// KeepRoom has transactions that other nodes logged refused while room returns an error, before anything is written: a
// write that fails half done ends the process. Raft tells the leader, which sends them again later. What a new leader needs
// to open its term is taken, and what this node makes itself as a leader is for others to refuse. It is called before the
// log is used.
func (s *Log) KeepRoom(room func(bytes int) error) { s.room = room }

// IsMonotonic forwards what the inner store says: raft-wal must have no gaps.
func (s *Log) IsMonotonic() bool { return s.monotonic }

// FirstIndex is the oldest entry's index, 0 if there is none.
func (s *Log) FirstIndex() (uint64, error) { return s.inner.FirstIndex() }

// LastIndex is the newest entry's index, 0 if there is none.
func (s *Log) LastIndex() (uint64, error) { return s.inner.LastIndex() }

// GetLog reads and verifies an entry.
func (s *Log) GetLog(index uint64, log *raft.Log) error {
	if s.cached(index, log) {
		return nil
	}
	if err := s.inner.GetLog(index, log); err != nil {
		return err
	}
	return verifyEntry(log)
}

// StoreLog stores one entry; see StoreLogs.
func (s *Log) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs seals the entries that this node made, verifies the others, and stores them durably.
func (s *Log) StoreLogs(logs []*raft.Log) error {
	size, foreign := 0, false // foreign: transactions of others are among them
	for _, l := range logs {
		if len(l.Extensions) == 0 {
			l.Extensions = sealEntry(l)
		} else if err := verifyEntry(l); err != nil {
			return err
		} else if l.Type == raft.LogCommand && len(l.Data) > openingBytes {
			foreign = true
		}
		size += len(l.Data)
	}
	// Raft doesn't remember that it has dropped a suffix: what takes its place must be stored, or nothing more can be.
	if !s.truncated.Swap(false) && foreign && s.room != nil {
		if err := s.room(size); err != nil {
			return err
		}
	}
	if err := s.inner.StoreLogs(logs); err != nil {
		err = fmt.Errorf("write raft log: %w", err)
		s.fatal(err) // what reached the disk is not known, and a second fsync may lie
		return err
	}
	s.stored.Add(int64(size))
	s.entries.Add(int64(len(logs)))
	s.remember(logs)
	return nil
}

// DeleteRange forwards, and forgets what it remembered. A suffix isn't dropped while there is no room for what comes after.
func (s *Log) DeleteRange(low, high uint64) error {
	first, err := s.inner.FirstIndex()
	if err != nil {
		return err
	}
	if suffix := low > first; suffix && s.room != nil {
		if err := s.room(0); err != nil {
			return err
		}
		s.truncated.Store(true)
	}
	s.mu.Lock()
	if n := len(s.cache); n > 0 && low <= s.first+uint64(n)-1 && high >= s.first {
		s.cache, s.bytes = nil, 0
	}
	s.mu.Unlock()
	return s.inner.DeleteRange(low, high)
}

// Close closes the inner store.
func (s *Log) Close() error { return s.inner.Close() }

// Counted returns bytes and entries stored since ResetCount.
func (s *Log) Counted() (bytes, entries int64) { return s.stored.Load(), s.entries.Load() }

// ResetCount starts counting anew: a snapshot was taken.
func (s *Log) ResetCount() {
	s.stored.Store(0)
	s.entries.Store(0)
}

func (s *Log) cached(index uint64, log *raft.Log) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) == 0 || index < s.first || index-s.first >= uint64(len(s.cache)) {
		return false
	}
	*log = *s.cache[index-s.first]
	return true
}

func (s *Log) remember(logs []*raft.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		if len(s.cache) > 0 && l.Index != s.first+uint64(len(s.cache)) {
			s.cache, s.bytes = nil, 0
		}
		if len(s.cache) == 0 {
			s.first = l.Index
		}
		kept := *l
		s.cache = append(s.cache, &kept)
		s.bytes += len(l.Data)
	}
	drop := 0
	for len(s.cache)-drop > 1 && (s.bytes > cachedLogBytes || len(s.cache)-drop > cachedLogEntries) {
		s.bytes -= len(s.cache[drop].Data)
		s.cache[drop] = nil
		drop++
	}
	s.cache = s.cache[drop:]
	s.first += uint64(drop)
}

func entrySum(l *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
}

func sealEntry(l *raft.Log) []byte {
	return binary.BigEndian.AppendUint32([]byte{trailerFormat}, entrySum(l))
}

func verifyEntry(l *raft.Log) error {
	e := l.Extensions
	if len(e) != trailerBytes || e[0] != trailerFormat || binary.BigEndian.Uint32(e[1:]) != entrySum(l) {
		return fmt.Errorf("%w: index %d, term %d; a damaged log is mended by joining again with an empty data directory", errDamaged, l.Index, l.Term)
	}
	return nil
}
