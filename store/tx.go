package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"conclave"
	"conclave/crypto"
	"conclave/fsm"
)

// maxReads bounds what one transaction may read: beyond it the request is too large, not slow.
const maxReads = 65_536

// smallReads is how many reads are searched one by one before an index is made.
const smallReads = 24

// Tx is one transaction: a consistent snapshot, what was read of it, and what is to be written. It belongs to one
// goroutine. Close releases the snapshot.
type Tx struct {
	store     *Store
	unlocked  *unlocked
	view      *fsm.View
	ring      *ring
	snapshot  uint64
	began     time.Time
	request   *conclave.Request
	caller    *conclave.Caller
	namespace conclave.Namespace

	reads     []fsm.Read
	readAt    map[fsm.Key]int // index into reads, once there are many
	writes    []fsm.Write
	writeAt   map[fsm.Key]int  // index into writes
	plain     map[fsm.Key]leaf // what was written, in clear, for reading it back
	emptied   []dirOf          // directories that were left empty, though they may have been filled again since
	refusals  map[int]error    // index into writes → what a refused AddCell means
	size      int              // bytes to be written
	notBefore int64
	notAfter  int64
	urgent    bool
	events    []conclave.Occurrence
	eventSize int   // bytes, as conclave.Occurrence.Size counts
	failed    error // the first error; the transaction can't commit after it
}

// leaf is a value that this transaction has written.
type leaf struct {
	space *openSpace
	dir   crypto.Token
	name  string
	value []byte
	gone  bool
}

// dirOf names a directory of a space.
type dirOf struct {
	space uint64
	dir   crypto.Token
}

// Snapshot is the index of the state that the transaction is executed on.
func (tx *Tx) Snapshot() uint64 { return tx.snapshot }

// Keyring is the open keyring. It must not be changed.
func (tx *Tx) Keyring() *crypto.Keyring { return tx.ring.keyring }

// Cluster is the id that ciphertexts are bound to.
func (tx *Tx) Cluster() [16]byte { return tx.unlocked.cluster }

// SetRequest says for whom the transaction runs, and where; handlers see it in their views.
func (tx *Tx) SetRequest(request *conclave.Request, caller *conclave.Caller, namespace conclave.Namespace) {
	tx.request, tx.caller, tx.namespace = request, caller, namespace
}

// SetUrgent has the transaction commit in the urgent lane.
func (tx *Tx) SetUrgent() { tx.urgent = true }

// Close releases the snapshot. It may be called more than once.
func (tx *Tx) Close() {
	if tx.view != nil {
		tx.view.Release()
		tx.view = nil
	}
}

func (tx *Tx) sawNothing(key fsm.Key) bool {
	if tx.readAt != nil {
		i, seen := tx.readAt[key]
		return seen && tx.reads[i].Version == 0
	}
	for i := range tx.reads {
		if tx.reads[i].Version == 0 && tx.reads[i].Key == key {
			return true
		}
	}
	return false
}

// note remembers that key was seen at version. A second look at a snapshot sees the same.
func (tx *Tx) note(key fsm.Key, version uint64) {
	if tx.readAt == nil {
		for i := range tx.reads {
			if tx.reads[i].Key == key {
				return
			}
		}
		if len(tx.reads) == smallReads {
			tx.readAt = make(map[fsm.Key]int, 4*smallReads)
			for i := range tx.reads {
				tx.readAt[tx.reads[i].Key] = i
			}
		}
	}
	if tx.readAt != nil {
		if _, seen := tx.readAt[key]; seen {
			return
		}
		tx.readAt[key] = len(tx.reads)
	}
	if len(tx.reads) == maxReads {
		_ = tx.fail(conclave.Errorf(conclave.TooLarge, "the request reads more than %d items", maxReads))
		return
	}
	tx.reads = append(tx.reads, fsm.Read{Key: key, Version: version})
}

// fail keeps the first error: a handler that swallows it still can't commit.
func (tx *Tx) fail(err error) error {
	if tx.failed == nil {
		tx.failed = err
	}
	return err
}

// get returns the stored item, and notes it. What was seen not to be there isn't looked for again: a key that is made is
// looked at by who makes sure of that and by who writes it.
func (tx *Tx) get(key fsm.Key) (version uint64, value []byte, err error) {
	if tx.sawNothing(key) {
		return 0, nil, nil
	}
	version, value, err = tx.view.Get(key)
	if err != nil {
		return 0, nil, tx.fail(fmt.Errorf("read state: %w", err))
	}
	tx.note(key, version)
	return version, value, nil
}

// write adds a change, or changes an earlier one of the same key into what both come to.
func (tx *Tx) write(w fsm.Write) error {
	if tx.writeAt == nil {
		tx.writeAt = map[fsm.Key]int{}
	}
	if i, again := tx.writeAt[w.Key]; again {
		tx.size -= len(tx.writes[i].Value)
		tx.writes[i] = w
	} else {
		tx.writeAt[w.Key] = len(tx.writes)
		tx.writes = append(tx.writes, w)
		tx.size += len(w.Key)
	}
	if tx.size += len(w.Value); tx.size > conclave.MaxTransaction {
		return tx.fail(conclave.Errorf(conclave.TooLarge, "the request writes more than %d bytes", conclave.MaxTransaction))
	}
	return nil
}

// Reached reports whether cluster time has reached at, and binds the transaction to that.
func (tx *Tx) Reached(at time.Time) bool {
	nanos := at.UnixNano()
	if tx.began.UnixNano() >= nanos {
		tx.notBefore = max(tx.notBefore, nanos)
		return true
	}
	tx.notAfter = min(tx.notAfter, nanos)
	return false
}

// Now is cluster time when the transaction began.
func (tx *Tx) Now() time.Time { return tx.began }

// Plain returns a plain item, readable while the vault is sealed; nil if there is none.
func (tx *Tx) Plain(name string) ([]byte, error) {
	key := PlainKey(name)
	if i, ok := tx.writeAt[key]; ok {
		return tx.writes[i].Value, nil
	}
	_, value, err := tx.get(key)
	return value, err
}

// NextVersion is the version of whatever this transaction writes.
func (tx *Tx) NextVersion() uint64 { return tx.snapshot + 1 }

// PutPlain stores a plain item. What it holds is readable by whoever reads the disk.
func (tx *Tx) PutPlain(name string, value []byte) error {
	key := PlainKey(name)
	version, _, err := tx.get(key)
	if err != nil {
		return err
	}
	op := fsm.Replace
	if version == 0 {
		op = fsm.Create
	}
	return tx.write(fsm.Write{Op: op, Key: key, Version: tx.NextVersion(), Value: value})
}

// Writing reports whether there is anything to write.
func (tx *Tx) Writing() bool { return len(tx.writes) > 0 }

// Failed is the first error of a View or write, which ends the transaction even if the handler went on.
func (tx *Tx) Failed() error { return tx.failed }

// Discard drops all writes, and with them what Failed tells: a request that failed leaves only its record. What was read
// stays noted.
func (tx *Tx) Discard() {
	tx.failed = nil
	tx.writes, tx.writeAt, tx.plain, tx.emptied, tx.refusals, tx.size = nil, nil, nil, nil, nil, 0
	tx.events, tx.eventSize = nil, 0
}

// Committed is the outcome of a commit that took effect.
type Committed struct{ Index uint64 }

// ErrConflict means that what the transaction read has changed: run the request again on a state at or after Index.
type ErrConflict struct{ Index uint64 }

// Error names the index.
func (e *ErrConflict) Error() string {
	return fmt.Sprintf("state has changed up to index %d since the request was executed", e.Index)
}

// Commit proposes the transaction with its audit record and returns when it is judged. Events that it has are in that
// record; without one, what the vault's own work emits gets a record of its own. The error is an *ErrConflict
// when it must run again, the refusal of an AddCell when that was refused, or what the cluster says.
func (tx *Tx) Commit(ctx context.Context, record fsm.AuditRecord) (Committed, error) {
	if tx.failed == nil {
		tx.dropStamps()
	}
	if tx.failed != nil {
		return Committed{}, tx.failed
	}
	if len(record.Box) == 0 && len(tx.Occurrences()) > 0 {
		own, err := tx.ownRecord()
		if err != nil {
			return Committed{}, err
		}
		record = own
	}
	return tx.propose(ctx, &fsm.Transaction{Snapshot: tx.snapshot, NotBefore: tx.notBefore, NotAfter: tx.notAfter,
		Reads: tx.reads, Writes: tx.writes, Record: record})
}

// dropStamps removes the stamps of directories that go, or every directory that ever was would leave one for good. A stamp
// is among what was read when its directory was found to be empty, so whoever makes a child there conflicts; and a
// directory that is made again gets a stamp that it never had before, so whoever listed the old one conflicts too.
func (tx *Tx) dropStamps() {
	if len(tx.emptied) == 0 {
		return
	}
	filled := make(map[dirOf]struct{}) // since it was emptied, or there besides
	for _, w := range tx.plain {
		if !w.gone {
			filled[dirOf{w.space.id, w.dir}] = struct{}{}
		}
	}
	for _, e := range tx.emptied {
		key := dirPrefix(fsm.ClassStamp, e.space, e.dir)
		version, _, err := tx.get(key)
		if err != nil {
			return
		}
		if _, again := filled[e]; !again && version != 0 {
			_ = tx.write(fsm.Write{Op: fsm.DropStamp, Key: key}) // an error makes the transaction fail
		}
	}
}

// CommitRecord proposes the audit record alone. It is for a read that ran again, on a snapshot taken after the request
// began and at or after the index that refused it the first time: that is right by itself.
func (tx *Tx) CommitRecord(ctx context.Context, record fsm.AuditRecord) (Committed, error) {
	if tx.Writing() {
		return Committed{}, errors.New("a transaction that writes can't skip judgement")
	}
	return tx.propose(ctx, &fsm.Transaction{Snapshot: tx.snapshot, NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny,
		Record: record})
}

func (tx *Tx) propose(ctx context.Context, proposal *fsm.Transaction) (Committed, error) {
	if tx.view.Stale() {
		return Committed{}, &ErrConflict{}
	}
	if tx.store.unlocked.Load() != tx.unlocked {
		return Committed{}, conclave.Errorf(conclave.Sealed, "Vault is sealed")
	}
	commit := tx.store.commit.Commit
	if tx.urgent {
		commit = tx.store.commit.CommitUrgent
	}
	outcome, err := commit(ctx, proposal)
	if err != nil {
		return Committed{}, err
	}
	switch outcome.Verdict {
	case fsm.Committed:
		return Committed{outcome.Index}, nil
	case fsm.Refused:
		if refusal := tx.refusals[outcome.Write]; refusal != nil {
			return Committed{outcome.Index}, refusal
		}
		return Committed{outcome.Index}, conclave.Errorf(conclave.Limited, "a limit was reached")
	case fsm.Conflict, fsm.Recorded:
		return Committed{}, &ErrConflict{outcome.Index}
	}
	return Committed{}, fmt.Errorf("commit was answered with verdict %d", outcome.Verdict)
}

// packRecord joins a sealed name and a sealed value.
func packRecord(name, value []byte) []byte {
	b := make([]byte, 0, 2+len(name)+len(value))
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	return append(append(b, name...), value...)
}

var errDamaged = errors.New("stored record is damaged")

// unpackRecord is the reverse of packRecord; the parts alias item.
func unpackRecord(item []byte) (name, value []byte, err error) {
	if len(item) < 2 || len(item)-2 < int(binary.BigEndian.Uint16(item)) {
		return nil, nil, errDamaged
	}
	n := 2 + int(binary.BigEndian.Uint16(item))
	return item[2:n], item[n:], nil
}
