package integration

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conclave/integration/lab"
)

// Where things are in a segment of the audit log; package chainlog draws it.
const (
	segmentHead   = 76 // bytes before the first record
	frameChecksum = 4  // bytes before a record's checksum, which says what the others are
	frameSeq      = 8
	frameStamp    = 24
	frameBox      = 96
)

// alterRecord changes one record in the first segment of node n's audit log, behind its back, and returns what undoes it.
func alterRecord(t *testing.T, l *lab.Lab, n int, seq uint64, change func(frame []byte)) (undo func()) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(l.DataDirs[n-1], "audit", "*", "seg-0000000000000000.log"))
	if err != nil || len(found) != 1 {
		t.Fatalf("node %d has the first segments %q, %v", n, found, err)
	}
	before, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte) {
		file, err := os.OpenFile(found[0], os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(text, 0); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	after := append([]byte(nil), before...)
	for at := segmentHead; at < len(after); {
		frame := after[at : at+8+int(binary.BigEndian.Uint32(after[at:]))]
		if binary.BigEndian.Uint64(frame[frameSeq:]) == seq {
			change(frame)
			write(after)
			return func() { write(before) }
		}
		at += len(frame)
	}
	t.Fatalf("node %d has no record %d in its first segment", n, seq)
	return nil
}

// forge moves a record to another time, and makes its checksum right again.
func forge(frame []byte) {
	frame[frameStamp+7] ^= 1
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.BigEndian.PutUint32(frame[frameChecksum:], crc32.Update(crc32.Checksum(frame[:4], table), table, frame[8:]))
}

// damage flips a bit of what a record holds.
func damage(frame []byte) { frame[frameBox+7] ^= 1 }

// wantFault fails the test unless `conclave audit verify`, asked at node 1, says that the log of node n is wrong, and where.
func wantFault(t *testing.T, l *lab.Lab, n int, where string) {
	t.Helper()
	out, err := cli(within(t, time.Minute), l, 1, "audit", "verify")
	if err == nil {
		t.Fatalf("conclave audit verify finds nothing wrong:\n%s", out)
	}
	said := string(out)
	at := strings.LastIndex(said, "NOT whole")
	if at < 0 || !strings.Contains(said[at:], l.Addrs[n-1]) || !strings.Contains(said[at:], where) {
		t.Errorf("conclave audit verify: %v\n%s\nwant that it names %s and %q", err, out, l.Addrs[n-1], where)
	}
}

// TestAlteredAuditRecordIsNamed changes records in the files of one node, while it runs and while it doesn't. Whoever walks
// over the logs of the cluster is told which node it is, and which record.
func TestAlteredAuditRecordIsNamed(t *testing.T) {
	l := startLab(t, 3)
	for i := range 10 {
		mustPut(t, l, 1+i%3, fmt.Sprint("a", i), "true")
	}
	if err := l.Client(1).Write(within(t, time.Minute), "sys/audit-rotate", map[string]any{"reason": "test"}, nil); err != nil {
		t.Fatal(err)
	}
	mustPut(t, l, 2, "b", "true")
	wantVerified(t, l)

	const seq = 5
	undo := alterRecord(t, l, 2, seq, forge)
	wantFault(t, l, 2, fmt.Sprintf("record %d: the record isn't the one that was linked here", seq))
	undo()
	wantVerified(t, l)

	undo = alterRecord(t, l, 2, seq, damage)
	wantFault(t, l, 2, fmt.Sprintf("audit record %d (seg-0000000000000000.log", seq))
	undo()

	if err := l.Terminate(3); err != nil {
		t.Fatal(err)
	}
	alterRecord(t, l, 3, seq+1, damage)
	if err := l.Start(within(t, time.Minute), 3); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitServing(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	mustRead(t, l, 3, "b", "true") // the state doesn't depend on it
	wantFault(t, l, 3, fmt.Sprintf("audit record %d (seg-0000000000000000.log", seq+1))
}
