package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"conclave/audit"
)

var _ raft.BatchingFSM = (*FSM)(nil)

// BatchResult is Apply's response to a command: an outcome for each transaction of a batch, one for rotate and prune.
type BatchResult struct {
	Index    uint64
	Outcomes []Outcome
}

// applier is what applying needs beyond the FSM's shared state. It belongs to the one goroutine that applies, which
// FSM.applying makes sure of.
type applier struct {
	epoch    *epoch
	versions *versions
	decoder  decoder
	batch    *pebble.Batch // pending; nil outside ApplyBatch
	next     position      // as of the pending batch
	settled  []settlement  // outcomes to deliver when the pending batch is in
	metaKey  []byte
	meta     []byte // scratch
	item     []byte // scratch
	unsynced int    // estimated bytes in Pebble's memtable
	prune    bool   // Prune moved the log's base in the pending batch
}

// settlement is an outcome on its way to a Waiter.
type settlement struct {
	id      ProposalID
	outcome Outcome
}

// Apply applies one entry.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries in order, in one Pebble batch unless they are very large. The response to a command is a
// *BatchResult, or nil if the command was applied before. It is fatal where going on would let replicas diverge: storage
// that fails, a malformed entry, a format that is too new.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	f.applying.Lock()
	defer f.applying.Unlock()
	a := &f.applier
	results := make([]any, len(logs))
	for i, l := range logs {
		if l.Index <= a.next.applied {
			f.stats.skipped.Add(1)
			continue
		}
		f.cutBefore(a, l.Index)
		if a.batch == nil {
			a.batch = a.epoch.db.NewBatch()
			a.epoch.hot.Begin()
		}
		if l.Type == raft.LogCommand {
			results[i] = f.applyCommand(a, l)
		}
		a.next.applied = l.Index
		f.stats.entries.Add(1)
		if a.batch.Len() >= maxPending {
			f.commit(a)
		}
	}
	f.commit(a)
	return results
}

// maxPending is the size of a pending Pebble batch, in bytes, from which on it isn't held back for more entries.
const maxPending = 4 << 20

// applyCommand applies one command. Its time is the entry's stamp, unless that goes back.
func (f *FSM) applyCommand(a *applier, l *raft.Log) *BatchResult {
	c, err := a.decoder.command(l.Data)
	if err != nil {
		a.must(err, fmt.Sprintf("apply entry %d", l.Index))
	}
	result := &BatchResult{Index: l.Index}
	if c.term != 0 && c.term != l.Term {
		f.dropCommand(a, &c, result)
		return result
	}
	a.next.time = max(a.next.time, c.stamp)
	switch c.kind {
	case kindBatch:
		f.applyTransactions(a, &c, result)
	case kindTerm:
		a.next.opened = max(a.next.opened, c.term)
	case kindFormat:
		if c.format > FormatVersion {
			a.must(&FormatError{Needed: c.format}, fmt.Sprintf("apply entry %d", l.Index))
		}
		a.next.format = max(a.next.format, c.format)
	case kindRotate:
		seq, err := a.epoch.log.Rotate(l.Index, a.next.time, c.reason)
		a.must(err, "begin an epoch of the audit log")
		result.Outcomes = []Outcome{{Verdict: Committed, Index: l.Index, Seq: seq}}
	case kindPrune:
		result.Outcomes = []Outcome{{Verdict: Refused, Index: l.Index}}
		if a.epoch.log.Prune(c.epoch, c.head) {
			a.prune, result.Outcomes[0].Verdict = true, Committed
		}
	}
	return result
}

// dropCommand settles a command that landed in another term than it was proposed in.
func (f *FSM) dropCommand(a *applier, c *command, result *BatchResult) {
	f.stats.dropped.Add(1)
	for range c.count {
		t, err := a.decoder.transaction(false)
		a.must(err, "apply a batch")
		f.settle(a, t.id, result, Outcome{Verdict: Dead, Index: result.Index})
	}
}

// applyTransactions judges the transactions of a batch, in order, each over what those before it did.
func (f *FSM) applyTransactions(a *applier, c *command, result *BatchResult) {
	expected := f.expectation(c.batch, c.count)
	result.Outcomes = make([]Outcome, 0, c.count)
	for i := range c.count {
		t, err := a.decoder.transaction(false)
		a.must(err, "apply a batch")
		outcome := Outcome{Verdict: Recorded, Index: result.Index}
		if t.writing {
			outcome.Verdict, outcome.Write = a.judge(t, result.Index)
			if outcome.Verdict == Committed {
				a.write(t, result.Index)
			}
		} else if expected != nil && expected[i].ID == t.id && !expected[i].Writing() {
			outcome.Verdict = a.judgeReads(expected[i], result.Index)
		}
		if len(t.box) > 0 && (!t.writing || outcome.Verdict == Committed) {
			outcome.Seq, err = a.epoch.log.Append(result.Index, a.next.time, audit.Sealed{Digest: t.digest, Box: t.box})
			a.must(err, "append to the audit log")
			a.unsynced += len(t.box)
		}
		f.settle(a, t.id, result, outcome)
	}
	a.must(a.decoder.end(), "apply a batch")
}

func (f *FSM) settle(a *applier, id ProposalID, result *BatchResult, o Outcome) {
	result.Outcomes = append(result.Outcomes, o)
	a.settled = append(a.settled, settlement{id, o})
	f.stats.verdicts[o.Verdict].Add(1)
}

// judge gives the verdict on a transaction that writes, which is the same on every node; for Refused, also which write.
func (a *applier) judge(t *rawTx, index uint64) (Verdict, int) {
	if a.next.time < t.notBefore || a.next.time >= t.notAfter || t.snapshot >= index {
		return Conflict, 0
	}
	for i := range t.reads {
		if a.version(t.reads[i].key) != t.reads[i].version {
			return Conflict, 0
		}
	}
	for i := range t.writes {
		if w := &t.writes[i]; w.op == Create && w.key[0] == ClassRecord && a.version(lossKey(w.key)) > t.snapshot {
			return Conflict, 0
		}
	}
	for i := range t.writes {
		if t.writes[i].op != AddCell {
			continue
		}
		if _, ok := a.add(&t.writes[i]); !ok {
			return Refused, i
		}
	}
	return Committed, 0
}

// judgeReads gives the verdict on a transaction that doesn't write. It is this node's alone and changes no state, so
// it may trust that the transaction's reads are what was there at its snapshot.
func (a *applier) judgeReads(t *Transaction, index uint64) Verdict {
	if a.next.time < t.NotBefore || a.next.time >= t.NotAfter || t.Snapshot >= index {
		return Conflict
	}
	for i := range t.Reads {
		r := &t.Reads[i]
		if len(r.Key) < 2 {
			return Conflict
		}
		current, known := a.versions.getKey(r.Key)
		if !known {
			if t.Snapshot >= a.versions.floor {
				continue // unchanged since
			}
			current = a.stored([]byte(r.Key))
		}
		if current != r.Version {
			return Conflict
		}
	}
	return Committed
}

// version returns the current version of a key, over what the pending batch did.
func (a *applier) version(key []byte) uint64 {
	version, known := a.versions.get(key)
	if !known {
		version = a.stored(key)
		a.versions.set(key, version)
	}
	return version
}

// stored returns the version of a key in Pebble, which the pending batch hasn't changed.
func (a *applier) stored(key []byte) uint64 {
	item, closer, err := a.epoch.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return absent(key[0])
	}
	a.must(err, "read state")
	version, _ := splitItem(item)
	a.must(closer.Close(), "read state")
	return version
}

// add returns the counter that an AddCell comes to, and whether it is allowed.
func (a *applier) add(w *rawWrite) (uint64, bool) {
	current := a.version(w.key)
	if current == NoCell {
		return 0, false
	}
	old := int64(current)
	sum := old + w.delta
	overflow := (w.delta > 0 && sum < old) || (w.delta < 0 && sum > old) || sum == math.MinInt64
	return uint64(sum), !overflow && sum >= w.floor
}

// write puts the writes of a committed transaction into the pending batch.
func (a *applier) write(t *rawTx, index uint64) {
	var dropped []uint64
	for i := range t.writes {
		w := &t.writes[i]
		switch w.op {
		case Create, Replace:
			a.put(w.key, t.snapshot+1, w.value)
			if w.op == Create || contains(dropped, w.key) {
				a.stamp(w.key, index)
			}
		case Delete:
			a.remove(w.key)
			a.stamp(w.key, index)
			if w.key[0] == ClassRecord {
				a.put(lossKey(w.key), index, nil)
			}
		case SetCell:
			a.put(w.key, uint64(w.delta), nil)
		case AddCell:
			if sum, ok := a.add(w); ok {
				a.put(w.key, sum, nil)
			}
		case DropCell, DropStamp:
			a.remove(w.key)
		case DropSpace:
			space := binary.BigEndian.Uint64(w.key[1:])
			a.dropSpace(space)
			dropped = append(dropped, space)
		}
	}
}

func contains(spaces []uint64, key []byte) bool {
	for _, s := range spaces {
		if key[0] == ClassRecord && binary.BigEndian.Uint64(key[1:]) == s {
			return true
		}
	}
	return false
}

// entryCost estimates what an item costs in Pebble's memtable beyond its bytes.
const entryCost = 64

func (a *applier) put(key []byte, version uint64, value []byte) {
	d := a.batch.SetDeferred(len(key), 8+len(value))
	copy(d.Key, key)
	binary.BigEndian.PutUint64(d.Value, version)
	copy(d.Value[8:], value)
	a.must(d.Finish(), "write state")
	a.epoch.hot.Drop(key)
	a.versions.set(key, version)
	a.unsynced += entryCost + len(key) + 8 + len(value)
}

func (a *applier) remove(key []byte) {
	a.must(a.batch.Delete(key, nil), "write state")
	a.epoch.hot.Drop(key)
	a.versions.set(key, absent(key[0]))
	a.unsynced += entryCost + len(key)
}

// stamp notes in a record's directory that its children have changed.
func (a *applier) stamp(key []byte, index uint64) {
	if key[0] != ClassRecord {
		return
	}
	var k [stampKey]byte
	copy(k[:], key)
	k[0] = ClassStamp
	a.put(k[:], index, nil)
}

// lossKey names the loss that counts for a record: the index of the last deletion among those of its space whose child
// tokens begin alike. Absence is all the same to a read, so a record that was made and deleted since a transaction's
// snapshot would be made again by it under the version that it had before. 65,536 losses a space are few enough to keep
// for ever, and enough that a deletion seldom stands in the way of another record's creation.
func lossKey(record []byte) []byte {
	k := make([]byte, 0, lossSize)
	k = append(append(k, ClassStamp), record[1:spaceKey]...)
	return append(k, record[childKey-16:childKey-14]...)
}

func (a *applier) dropSpace(space uint64) {
	for _, class := range []byte{ClassRecord, ClassCell, ClassStamp} {
		from := binary.BigEndian.AppendUint64([]byte{class}, space)
		a.must(a.batch.DeleteRange(from, prefixEnd(from), nil), "write state")
		a.unsynced += entryCost + 2*len(from)
	}
	a.epoch.hot.DropAll(func(key string) bool { return key[0] != ClassPlain && len(key) > 8 && spaceOf(Key(key)) == space })
	a.versions.drop(space)
}

// splitItem takes a stored item apart.
func splitItem(item []byte) (version uint64, value []byte) {
	if len(item) < 8 {
		panic("a stored item is shorter than its version")
	}
	return binary.BigEndian.Uint64(item), item[8:]
}

// prefixEnd is the first key after all that begin with prefix; nil if there is none.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func (a *applier) must(err error, what string) { a.epoch.options.must(err, what) }

// commit puts the pending batch in, shows the new state to readers and delivers the outcomes. The order matters: audit
// frames are written before Pebble learns of them, and are synced before Pebble is flushed.
func (f *FSM) commit(a *applier) {
	if a.batch == nil {
		return
	}
	a.must(a.epoch.log.Flush(), "write the audit log")
	a.next.audit = a.epoch.log.State()
	a.meta = a.next.append(a.meta[:0])
	a.must(a.batch.Set(positionKey, a.meta, nil), "write state")
	a.unsynced += entryCost + len(a.meta)
	if a.unsynced >= f.options.FlushBytes {
		a.must(a.epoch.flush(), "flush state")
		a.unsynced = a.batch.Len()
	}
	f.publish(a)
	a.batch, a.settled = nil, a.settled[:0]
	if a.prune {
		a.prune, a.unsynced = false, 0
		a.must(a.epoch.log.Sync(), "sync the audit log")
		a.must(a.epoch.db.Flush(), "flush state")
		a.must(a.epoch.log.RemovePruned(), "prune the audit log")
	}
	a.versions.rotate(a.next.applied)
}
