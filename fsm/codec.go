package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"conclave"
	"conclave/audit"
)

// The log holds commands. Numbers are big-endian and of fixed size; a command has exactly one encoding.
//
//	command   format 2 ‖ kind 1 ‖ term 8 ‖ stamp 8 ‖ body
//	          format is the lowest format version that can read the command; a command with term 0 holds in every term
//	batch     kind 1: id 16 ‖ count 4 ‖ transactions
//	term      kind 2: nothing; the term is open
//	format    kind 3: version 4
//	rotate    kind 4: reason, 1 to 256 bytes
//	prune     kind 5: epoch 8 ‖ head 32
//
//	transaction  flags 1 (1 writing, 2 with a record) ‖ id 16 ‖ judged ‖ writes ‖ record
//	judged       snapshot 8 ‖ not before 8 ‖ not after 8 ‖ count 4 ‖ reads; left out in a batch unless writing
//	read         key ‖ version 8
//	writes       if writing: count 4 (not 0) ‖ writes
//	write        op 1 ‖ key ‖ Create, Replace: value length 4, value; SetCell: delta 8; AddCell: delta 8, floor 8
//	record       if with one: digest 32 ‖ length 4 (not 0) ‖ box
//	key          length 1 ‖ bytes
//
// What a node forwards to its leader is transactions with their reads: format 2 ‖ count 4 ‖ transactions.

// FormatVersion is the newest format of commands and state that this version reads, and the one that it writes.
const FormatVersion = 1

// Limits of what may be proposed.
const (
	MaxValue        = conclave.MaxValue + 4096 // bytes of one item: a value and what sealing it and its name adds
	MaxWritten      = conclave.MaxTransaction  // bytes of the keys and values that one transaction writes
	MaxReads        = 65_536                   // of one transaction
	MaxWrites       = 65_536                   // of one transaction
	MaxTransactions = 4_096                    // of one batch
	MaxEntry        = 16 << 20                 // bytes of one command
)

type kind uint8

const (
	kindBatch kind = iota + 1
	kindTerm
	kindFormat
	kindRotate
	kindPrune
)

const (
	flagWriting = 1
	flagRecord  = 2
)

const headerSize = 2 + 1 + 8 + 8

func appendHeader(dst []byte, k kind, term uint64, stamp int64) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 1)
	dst = append(dst, byte(k))
	dst = binary.BigEndian.AppendUint64(dst, term)
	return binary.BigEndian.AppendUint64(dst, uint64(stamp))
}

// EncodeBatch appends the command that judges transactions. Apply drops it unless it lands in the log under term. It
// checks nothing: see CheckEntry.
func EncodeBatch(dst []byte, term uint64, stamp int64, batch ProposalID, txs []*Transaction) []byte {
	size := headerSize + len(batch) + 4
	for _, t := range txs {
		size += t.encodedSize(t.Writing())
	}
	dst = appendHeader(slices.Grow(dst, size), kindBatch, term, stamp)
	dst = append(dst, batch[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(txs)))
	for _, t := range txs {
		dst = t.append(dst, t.Writing())
	}
	return dst
}

// EncodeTermOpen is the first command of a leader's term: once it is applied, no proposal of an earlier term can be.
func EncodeTermOpen(term uint64, stamp int64) []byte {
	return appendHeader(nil, kindTerm, term, stamp)
}

// EncodeFormat is the command that raises the format of the state. Nodes that can't read it stop.
func EncodeFormat(version uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(nil, kindFormat, 0, 0), version)
}

// EncodeRotate is the command that begins a new epoch of the audit log; audit.CheckReason says what a reason may be.
// Its outcome is Committed.
func EncodeRotate(term uint64, stamp int64, reason string) []byte {
	return append(appendHeader(nil, kindRotate, term, stamp), reason...)
}

// EncodePrune is the command that drops the audit log up to the end of a closed epoch. Its outcome is Committed if head
// is how that epoch ended, else Refused.
func EncodePrune(term uint64, stamp int64, epoch uint64, head [32]byte) []byte {
	dst := binary.BigEndian.AppendUint64(appendHeader(nil, kindPrune, term, stamp), epoch)
	return append(dst, head[:]...)
}

// EncodeTransactions appends what a node forwards to the leader.
func EncodeTransactions(dst []byte, txs []*Transaction) []byte {
	size := 2 + 4
	for _, t := range txs {
		size += t.encodedSize(true)
	}
	dst = binary.BigEndian.AppendUint16(slices.Grow(dst, size), 1)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(txs)))
	for _, t := range txs {
		dst = t.append(dst, true)
	}
	return dst
}

// encodedSize is how many bytes append adds at most.
func (t *Transaction) encodedSize(judged bool) int {
	size := 1 + len(t.ID) + 32 + 4 + len(t.Record.Box)
	if judged {
		size += 3*8 + 4
		for i := range t.Reads {
			size += 1 + len(t.Reads[i].Key) + 8
		}
	}
	if t.Writing() {
		size += 4
	}
	for i := range t.Writes {
		size += 1 + 1 + len(t.Writes[i].Key) + 2*8 + len(t.Writes[i].Value)
	}
	return size
}

// append appends a transaction; judged says whether with what it is judged by.
func (t *Transaction) append(dst []byte, judged bool) []byte {
	var flags byte
	if t.Writing() {
		flags |= flagWriting
	}
	if len(t.Record.Box) > 0 {
		flags |= flagRecord
	}
	dst = append(dst, flags)
	dst = append(dst, t.ID[:]...)
	if judged {
		dst = binary.BigEndian.AppendUint64(dst, t.Snapshot)
		dst = binary.BigEndian.AppendUint64(dst, uint64(t.NotBefore))
		dst = binary.BigEndian.AppendUint64(dst, uint64(t.NotAfter))
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(t.Reads)))
		for i := range t.Reads {
			dst = appendKey(dst, t.Reads[i].Key)
			dst = binary.BigEndian.AppendUint64(dst, t.Reads[i].Version)
		}
	}
	if t.Writing() {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(t.Writes)))
	}
	for i := range t.Writes {
		w := &t.Writes[i]
		dst = append(dst, byte(w.Op))
		dst = appendKey(dst, w.Key)
		switch w.Op {
		case Create, Replace:
			dst = binary.BigEndian.AppendUint32(dst, uint32(len(w.Value)))
			dst = append(dst, w.Value...)
		case SetCell:
			dst = binary.BigEndian.AppendUint64(dst, uint64(w.Delta))
		case AddCell:
			dst = binary.BigEndian.AppendUint64(dst, uint64(w.Delta))
			dst = binary.BigEndian.AppendUint64(dst, uint64(w.Floor))
		}
	}
	if flags&flagRecord != 0 {
		dst = append(dst, t.Record.Digest[:]...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(t.Record.Box)))
		dst = append(dst, t.Record.Box...)
	}
	return dst
}

// appendKey cuts keys that are far too long, which no decoder takes then.
func appendKey(dst []byte, k Key) []byte {
	k = k[:min(len(k), 255)]
	return append(append(dst, byte(len(k))), k...)
}

// Batch is a decoded batch command.
type Batch struct {
	Term         uint64
	Stamp        int64
	ID           ProposalID
	Transactions []*Transaction // those that don't write have neither reads nor a snapshot
}

// DecodeBatch reads what EncodeBatch wrote. Values and boxes alias data.
func DecodeBatch(data []byte) (*Batch, error) {
	var d decoder
	c, err := d.command(data)
	if err != nil {
		return nil, err
	}
	if c.kind != kindBatch {
		return nil, errMalformed
	}
	b := &Batch{Term: c.term, Stamp: c.stamp, ID: c.batch}
	for range c.count {
		t, err := d.transaction(false)
		if err != nil {
			return nil, err
		}
		b.Transactions = append(b.Transactions, t.public())
	}
	return b, d.end()
}

// DecodeTransactions reads what EncodeTransactions wrote. Values and boxes alias data.
func DecodeTransactions(data []byte) ([]*Transaction, error) {
	if len(data) > MaxEntry {
		return nil, errMalformed
	}
	d := decoder{rest: data}
	if format := d.uint16(); format > FormatVersion {
		return nil, &FormatError{Needed: uint32(format)}
	} else if format == 0 {
		return nil, errMalformed
	}
	count := d.count(MaxTransactions, 17)
	txs := make([]*Transaction, 0, count)
	for range count {
		t, err := d.transaction(true)
		if err != nil {
			return nil, err
		}
		txs = append(txs, t.public())
	}
	return txs, d.end()
}

// CheckEntry decodes a command as Apply will. Leaders call it before they propose, so that no entry that stops Apply
// is ever committed.
func CheckEntry(data []byte) error {
	var d decoder
	c, err := d.command(data)
	if err != nil {
		return err
	}
	for range c.count {
		if _, err := d.transaction(false); err != nil {
			return err
		}
	}
	return d.end()
}

// Check reports what is wrong with a transaction that is to be proposed: limits, keys that don't fit their operations,
// writes whose key wasn't read, versions other than Snapshot+1.
func (t *Transaction) Check() error {
	for i := range t.Writes {
		w := &t.Writes[i]
		if item := w.Op == Create || w.Op == Replace; (item && w.Version != t.Snapshot+1) || (!item && w.Version != 0) {
			return errors.New("a new item's version is the transaction's snapshot + 1")
		}
	}
	if len(t.Record.Box) == 0 && t.Record.Digest != [32]byte{} {
		return errors.New("a digest without an audit record")
	}
	if !t.Writing() {
		return t.checkReads()
	}
	d := decoder{rest: t.append(make([]byte, 0, t.encodedSize(true)), true)}
	if _, err := d.transaction(true); err != nil {
		return err
	}
	return d.end()
}

// checkReads is Check for a transaction without writes, which are most: what the decoder would say, without encoding.
func (t *Transaction) checkReads() error {
	if len(t.Reads) > MaxReads || t.Snapshot >= math.MaxInt64 || len(t.Record.Box) > audit.MaxBox {
		return errMalformed
	}
	for i := range t.Reads {
		if !readable(t.Reads[i].Key) {
			return errMalformed
		}
	}
	return nil
}

// FormatError is a command or state of a format that this version can't read.
type FormatError struct{ Needed uint32 }

// Error names the format that is needed.
func (e *FormatError) Error() string {
	return fmt.Sprintf("replicated state needs format %d, this version reads up to %d: a newer version of conclave is needed", e.Needed, FormatVersion)
}

// command is a decoded command, but for the transactions of a batch, which the decoder goes on with.
type command struct {
	kind   kind
	term   uint64
	stamp  int64
	batch  ProposalID
	count  int    // transactions that follow
	format uint32 // of kindFormat
	reason string // of kindRotate
	epoch  uint64 // of kindPrune
	head   [32]byte
}

// command begins decoding data.
func (d *decoder) command(data []byte) (command, error) {
	d.rest, d.bad = data, len(data) > MaxEntry
	var c command
	format := d.uint16()
	c.kind, c.term, c.stamp = kind(d.uint8()), d.uint64(), int64(d.uint64())
	if !d.bad && format > FormatVersion {
		return c, &FormatError{Needed: uint32(format)}
	}
	switch c.kind {
	case kindBatch:
		copy(c.batch[:], d.take(16))
		c.count = d.count(MaxTransactions, 17)
	case kindTerm:
		d.bad = d.bad || c.term == 0
	case kindFormat:
		c.format = d.uint32()
		d.bad = d.bad || c.format == 0
	case kindRotate:
		c.reason = string(d.take(len(d.rest)))
		d.bad = d.bad || audit.CheckReason(c.reason) != nil
	case kindPrune:
		c.epoch = d.uint64()
		copy(c.head[:], d.take(32))
	default:
		d.bad = true
	}
	if d.bad || format == 0 || (c.kind == kindBatch && c.term == 0) || (c.kind != kindBatch && len(d.rest) > 0) {
		return c, errMalformed
	}
	return c, nil
}
