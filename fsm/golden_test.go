package fsm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// update makes the golden files anew. Files of a format that was released are never made anew.
var update = flag.Bool("update", false, "write the golden files of the current format")

// goldenLog is a file of Raft entries: for each, type 1 ‖ term 8 ‖ length 4 ‖ data; and what they come to, as text.
func TestGoldenLogOfFormat1Replays(t *testing.T) {
	log, result := filepath.Join("testdata", "format1.log"), filepath.Join("testdata", "format1.txt")
	if *update {
		w := newWorld(20)
		w.grow(300)
		var b []byte
		for _, l := range w.logs {
			b = binary.BigEndian.AppendUint64(append(b, byte(l.Type)), l.Term)
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(l.Data))), l.Data...)
		}
		golden(t, log, b)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var logs []*raft.Log
	for len(b) > 0 {
		l := &raft.Log{Index: uint64(len(logs) + 1), Type: raft.LogType(b[0]), Term: binary.BigEndian.Uint64(b[1:])}
		n := binary.BigEndian.Uint32(b[9:])
		l.Data, b = b[13:13+n], b[13+n:]
		logs = append(logs, l)
	}
	f := open(t, smallOptions(vfs.NewMem()))
	defer closing(t, f)
	apply(f, logs, rand.New(rand.NewPCG(1, 1)))
	e := endOf(t, f)
	root, s := e.Head.Root(), f.Stats()
	text := fmt.Sprintf("index %d\ntime %d\nterm %d\nstate %x\nrecords %d\nepoch %d\nsegment %d\noffset %d\nhead %x\nroot %x\nverdicts %d committed, %d conflicts, %d refused, %d dead, %d recorded\n",
		e.Index, e.Time, e.Opened, e.Hash, e.Head.Seq, e.Head.Epoch, e.Head.Segment, e.Head.Offset, e.Head.Head, root[:],
		s.Committed, s.Conflicts, s.Refused, s.Dead, s.Recorded)
	if *update {
		golden(t, result, []byte(text))
	}
	want, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Fatalf("the log came to\n%swant\n%s", text, want)
	}
}

func golden(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// examples are commands of every kind, by name.
func examples() map[string][]byte {
	k, c := testKey(ClassRecord, 1, 2, 3), testKey(ClassCell, 1, 2, 3)
	writing := &Transaction{ID: ProposalID{1}, Snapshot: 41, NotBefore: -1, NotAfter: 99,
		Reads: []Read{{k, 0}, {"pseal", 7}, {testKey(ClassStamp, 1, 2, 0), 5}, {c, NoCell}},
		Writes: []Write{{Op: DropSpace, Key: k[:9]}, {Op: Create, Key: k, Version: 42, Value: []byte("ciphertext")},
			{Op: Replace, Key: "pseal", Version: 42}, {Op: AddCell, Key: c, Delta: -1, Floor: 1},
			{Op: SetCell, Key: testKey(ClassCell, 1, 2, 4), Delta: 5}, {Op: DropCell, Key: testKey(ClassCell, 1, 2, 5)},
			{Op: DropStamp, Key: testKey(ClassStamp, 1, 2, 0)}},
		Record: AuditRecord{Digest: [32]byte{1, 2, 3}, Box: []byte("sealed record")}}
	reading := &Transaction{ID: ProposalID{2}, Snapshot: 40, NotBefore: NotBeforeAny, NotAfter: NotAfterAny, Reads: []Read{{k, 3}},
		Record: AuditRecord{Digest: [32]byte{4}, Box: []byte("another")}}
	txs := []*Transaction{writing, reading}
	return map[string][]byte{
		"batch": EncodeBatch(nil, 3, 1234567890, ProposalID{9}, txs), "term": EncodeTermOpen(3, 5), "format": EncodeFormat(1),
		"rotate": EncodeRotate(3, 5, "restored"), "prune": EncodePrune(3, 5, 2, [32]byte{7}), "forward": EncodeTransactions(nil, txs),
	}
}

func TestGoldenCommandsOfFormat1(t *testing.T) {
	for name, data := range examples() {
		path := filepath.Join("testdata", "format1-"+name+".hex")
		if *update {
			golden(t, path, []byte(hex.Dump(data)))
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if hex.Dump(data) != string(want) {
			t.Errorf("%s is encoded as\n%swant\n%s", name, hex.Dump(data), want)
		}
		if name != "forward" {
			err = CheckEntry(data)
		} else {
			_, err = DecodeTransactions(data)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryByteOfACommandCounts(t *testing.T) {
	for name, data := range examples() {
		if name == "forward" {
			continue
		}
		for n := range data {
			if name != "rotate" && CheckEntry(data[:n]) == nil {
				t.Errorf("%s cut to %d bytes was taken", name, n)
			}
		}
		if err := CheckEntry(append(bytes.Clone(data), 0)); err == nil {
			t.Errorf("%s with a byte more was taken", name)
		}
	}
}

func TestBadTransactionsAreRefused(t *testing.T) {
	k, c := testKey(ClassRecord, 1, 2, 3), testKey(ClassCell, 1, 2, 3)
	good := func() *Transaction {
		return &Transaction{Snapshot: 1, NotAfter: NotAfterAny, Reads: []Read{{k, 0}, {"pname", 1}}, Writes: []Write{{Op: Create, Key: k, Version: 2}}}
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	rows := map[string]func(t *Transaction){
		"create over something":     func(t *Transaction) { t.Reads[0].Version = 1 },
		"not read":                  func(t *Transaction) { t.Reads = t.Reads[1:] },
		"replace of nothing":        func(t *Transaction) { t.Writes[0].Op = Replace },
		"another version":           func(t *Transaction) { t.Writes[0].Version = 3 },
		"no operation":              func(t *Transaction) { t.Writes[0].Op = 0 },
		"unknown operation":         func(t *Transaction) { t.Writes[0].Op, t.Writes[0].Version = 9, 0 },
		"written twice":             func(t *Transaction) { t.Writes = append(t.Writes, t.Writes[0]) },
		"meta key read":             func(t *Transaction) { t.Reads[1].Key = "mstate" },
		"empty key":                 func(t *Transaction) { t.Reads[1].Key = "" },
		"short key":                 func(t *Transaction) { t.Reads[1].Key = k[:40] },
		"long name":                 func(t *Transaction) { t.Reads[1].Key = Key("p" + strings.Repeat("x", 64)) },
		"cell created":              func(t *Transaction) { t.Writes[0].Key, t.Reads[0].Key = c, c },
		"record counted":            func(t *Transaction) { t.Writes[0] = Write{Op: AddCell, Key: k} },
		"counter of the least int":  func(t *Transaction) { t.Writes[0] = Write{Op: SetCell, Key: c, Delta: NotBeforeAny} },
		"drop of a whole record":    func(t *Transaction) { t.Writes[0] = Write{Op: DropSpace, Key: k} },
		"value too large":           func(t *Transaction) { t.Writes[0].Value = make([]byte, MaxValue+1) },
		"record too large":          func(t *Transaction) { t.Record.Box = make([]byte, 256<<10+1) },
		"digest without record":     func(t *Transaction) { t.Record.Digest[0] = 1 },
		"too much in all":           func(t *Transaction) { t.fill(9, 1<<20) },
		"too many reads":            func(t *Transaction) { t.Reads = make([]Read, MaxReads+1) },
		"snapshot beyond all reach": func(t *Transaction) { t.Snapshot, t.Writes[0].Version = 1<<63, 1<<63+1 },
	}
	for name, spoil := range rows {
		tx := good()
		if spoil(tx); tx.Check() == nil {
			t.Errorf("%s: was taken", name)
		}
		if CheckEntry(EncodeBatch(nil, 1, 0, ProposalID{}, []*Transaction{tx})) == nil && tx.Writes[0].Version == 2 && tx.Record.Digest[0] == 0 {
			t.Errorf("%s: CheckEntry took it", name)
		}
	}
	full := good()
	if full.fill(7, 1<<20); full.Check() != nil {
		t.Error("seven values of 1 MiB were refused")
	}
}

// fill adds n new records of the given size.
func (t *Transaction) fill(n, size int) {
	for i := range n {
		k := testKey(ClassRecord, 9, 9, i)
		t.Reads = append(t.Reads, Read{k, 0})
		t.Writes = append(t.Writes, Write{Op: Create, Key: k, Version: t.Snapshot + 1, Value: make([]byte, size)})
	}
}
