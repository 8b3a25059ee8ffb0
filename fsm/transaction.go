package fsm

import "math"

// Key names one item of replicated state. Its first byte is the class:
//
//	'r' ‖ space (8) ‖ directory (16) ‖ child (16)   a record: ciphertext
//	'c' ‖ space (8) ‖ directory (16) ‖ child (16)   a cell: a plaintext counter
//	's' ‖ space (8) ‖ directory (16)                the stamp of a directory: index of its last create or delete
//	's' ‖ space (8) ‖ first bytes of a child (2)    the loss of such children: index of the last delete; never in a transaction
//	'p' ‖ name                                      a plain item that must be readable while sealed (seal blob, members)
//	'm' ‖ name                                      the state machine's own (applied index, audit frontier); never in a transaction
//
// Space, directory and child are big-endian or opaque bytes; see package store for how paths become tokens.
type Key string

// The classes of keys.
const (
	ClassRecord = 'r'
	ClassCell   = 'c'
	ClassStamp  = 's'
	ClassPlain  = 'p'
	classMeta   = 'm'
)

// MaxKey is the length limit of a key in bytes.
const MaxKey = 64

// A stored item is version (8, big-endian) ‖ value. For a stamp the version is the stamp and the value is empty; for a
// cell the version is its counter, as two's complement, and the value is empty. Version 0 is absence for records, plain
// items and stamps; the absence of a cell is NoCell, since a counter may well be 0.

// NoCell is the version of a cell that isn't there. No counter ever has this value.
const NoCell uint64 = 1 << 63

// Read is one thing that a transaction has read: the key and the version that it saw, 0 if nothing was there.
type Read struct {
	Key     Key
	Version uint64
}

// Op is what a write does.
type Op uint8

// The operations. Create, Replace and Delete need their key in the transaction's reads: Create with version 0, the
// others with the version that is there. Create and Delete of a record set its directory's stamp to the entry's index,
// and so does Replace after a DropSpace of its space in the same transaction. Writes happen in their order, and no two of
// a transaction have the same Key, but that a DropSpace may come before others.
const (
	Create    Op = iota + 1 // put a record or plain item where none was
	Replace                 // put a record or plain item over another
	Delete                  // remove a record or plain item
	SetCell                 // set a counter to Delta, blindly
	DropCell                // remove a counter, blindly
	AddCell                 // add Delta to a counter that exists, if the result is >= Floor; else the verdict is Refused
	DropSpace               // remove every record, cell and stamp of a space; Key is 'r' ‖ space
	DropStamp               // remove the stamp of a directory that is empty; Key is the stamp's and needs to be in the reads
)

// Write is one change.
type Write struct {
	Op      Op
	Key     Key
	Version uint64 // of the new item: the transaction's snapshot + 1
	Value   []byte
	Delta   int64
	Floor   int64
}

// ProposalID names one proposal of one node: node instance (8, random per process) ‖ counter (8).
type ProposalID [16]byte

// AuditRecord is what a transaction adds to the audit log: Digest is SHA-256(salt ‖ record), Box is the ciphertext of
// salt ‖ record. A transaction without one has an empty Box (the vault's own bookkeeping).
type AuditRecord struct {
	Digest [32]byte
	Box    []byte
}

// Transaction is what a node proposes for one request: what was read, what is to be written, and the audit record.
type Transaction struct {
	ID ProposalID
	// Snapshot is the applied index that the transaction was executed on.
	Snapshot uint64
	// NotBefore and NotAfter bound the cluster time, in Unix nanoseconds, at which its decisions hold:
	// NotBefore <= time < NotAfter.
	NotBefore, NotAfter int64
	Reads               []Read
	Writes              []Write
	Record              AuditRecord
}

// AnyTime is the interval of a transaction that decided nothing by time.
const (
	NotBeforeAny = math.MinInt64
	NotAfterAny  = math.MaxInt64
)

// Writing reports whether the transaction changes state beyond the audit log. The reads of a transaction that doesn't
// are judged by the leader alone and are not in the log.
func (t *Transaction) Writing() bool { return len(t.Writes) > 0 }

// Verdict is how a transaction was judged.
type Verdict uint8

// The verdicts. The zero Verdict is an outcome that can't be known here: this node's state was replaced by a snapshot
// while a Waiter was waiting.
const (
	// Committed: nothing it read had changed; its writes, if any, and its record are in.
	Committed Verdict = iota + 1
	// Conflict: something it read has changed, or its time interval has passed, or it makes a record that may have been
	// made and deleted since its snapshot. A writing transaction left no trace; the
	// record of one that only read is in the log, and the request runs again on a state at or after Outcome.Index.
	Conflict
	// Refused: the AddCell at Outcome.Write would have gone below its floor. It left no trace.
	Refused
	// Dead: the proposal was never and will never be applied; it may be sent again under a new id.
	Dead
	// Recorded: the record is in, but the verdict on its reads is not known here (leadership changed on the way). Only for
	// transactions that don't write. The request runs again, as after Conflict.
	Recorded
)

// Outcome is a verdict and where it fell.
type Outcome struct {
	Verdict Verdict
	Index   uint64 // of the Raft entry
	Write   int    // for Refused: which of Writes
	Seq     uint64 // of the audit record
}
