package chainlog

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"
)

var update = flag.Bool("update", false, "write the golden files of the current format")

const testSegment = segmentHeader + frameMax

// fixture is a log in memory and what was appended to it.
type fixture struct {
	tb    testing.TB
	disk  *vfs.MemFS
	log   *Log
	boxes []string
}

func newFixture(tb testing.TB) *fixture {
	fx := &fixture{tb: tb, disk: vfs.NewCrashableMem()}
	fx.open(State{})
	return fx
}

func (fx *fixture) open(at State) {
	fx.tb.Helper()
	l, err := OpenLog("log", at, LogOptions{FS: fx.disk, SegmentSize: testSegment})
	if err != nil {
		fx.tb.Fatalf("OpenLog: %v", err)
	}
	fx.log = l
}

func must[T any](tb testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

// append adds n records of 60 KB, so that five make more than a segment.
func (fx *fixture) append(n int) {
	fx.tb.Helper()
	for range n {
		i := len(fx.boxes)
		box := fmt.Sprintf("%060000d", i)
		fx.boxes = append(fx.boxes, box)
		must[uint64](fx.tb)(fx.log.Append(uint64(i+10), int64(i), Sealed{Digest: sha256.Sum256([]byte(box[1:])), Box: []byte(box)}))
	}
	fx.flush()
}

func (fx *fixture) rotate() {
	fx.tb.Helper()
	must[uint64](fx.tb)(fx.log.Rotate(1, 1, "a test"))
	fx.boxes = append(fx.boxes, "")
	fx.flush()
}

func (fx *fixture) flush() {
	fx.tb.Helper()
	if err := fx.log.Flush(); err != nil {
		fx.tb.Fatal(err)
	}
}

func (fx *fixture) read(from uint64) (seqs []uint64) {
	fx.tb.Helper()
	err := fx.log.Read(context.Background(), from, func(f Frame) bool {
		if box := fx.boxes[f.Seq]; box != "" && box != string(f.Box) {
			fx.tb.Fatalf("record %d has another box", f.Seq)
		}
		if f.Start != (fx.boxes[f.Seq] == "") {
			fx.tb.Fatalf("record %d: start %v", f.Seq, f.Start)
		}
		seqs = append(seqs, f.Seq)
		return true
	})
	if err != nil {
		fx.tb.Fatal(err)
	}
	return seqs
}

func (fx *fixture) verify(expect *State) Report {
	fx.tb.Helper()
	return must[Report](fx.tb)(VerifyDir(context.Background(), "log", VerifyOptions{FS: fx.disk, Expect: expect}))
}

func TestWhatWasFlushedIsRead(t *testing.T) {
	fx := newFixture(t)
	if got := fx.read(0); len(got) != 0 {
		t.Fatalf("read %v of an empty log", got)
	}
	fx.append(12)
	fx.rotate()
	fx.append(3)
	if s := fx.log.State(); s.Segment < 3 {
		t.Fatalf("only %d segments, so nothing was tried", s.Segment)
	}
	for _, from := range []uint64{0, 0, 5, 11, 12, 15, 16, 17} {
		got := fx.read(from)
		if want := max(0, 16-int(from)); len(got) != want || want > 0 && got[0] != from {
			t.Errorf("Read from %d: %v", from, got)
		}
	}
	// Reading on from where a Read stopped sees what came since.
	fx.append(2)
	if got := fx.read(16); len(got) != 2 {
		t.Errorf("read on: %v", got)
	}
	r := must[Report](t)(fx.log.Verify(context.Background(), 0, nil))
	if r.Fault != nil || r.Records != 18 || !r.TailChecked || len(r.Epochs) != 2 || r.Epochs[1].Start.Reason != "a test" {
		t.Errorf("report %+v", r)
	}
}

func TestTreeIsThatOfRFC6962(t *testing.T) {
	var s State
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			found[i] = hashes[x]
		}
		return found, nil
	})
	for n := range int64(70) {
		digest, box := sha256.Sum256([]byte{1, byte(n)}), sha256.Sum256([]byte{byte(n)})
		leaf := tlog.RecordHash(append(digest[:], box[:]...))
		if leaf != LeafHash(&digest, box) {
			t.Fatal("the leaf isn't tlog's")
		}
		hashes = append(hashes, must[[]tlog.Hash](t)(tlog.StoredHashesForRecordHash(n, leaf, reader))...)
		s.Extend(1, 2, leaf)
		if want := must[tlog.Hash](t)(tlog.TreeHash(n+1, reader)); s.Root() != want {
			t.Fatalf("root of %d records is %v, want %v", n+1, s.Root(), want)
		}
		var again State
		if err := again.UnmarshalBinary(must[[]byte](t)(s.AppendBinary(nil))); err != nil || !again.Equal(&s) {
			t.Fatalf("state of %d records doesn't survive: %v", n+1, err)
		}
	}
}

func TestOpenCutsBackToTheState(t *testing.T) {
	fx := newFixture(t)
	fx.append(2)
	at := fx.log.State()
	fx.append(9)
	want := fx.log.State()
	fx.open(at)
	if got := fx.read(0); len(got) != 2 {
		t.Fatalf("after cutting back: %v", got)
	}
	if r := fx.verify(nil); r.Fault != nil || r.Records != 2 || r.TailChecked {
		t.Fatalf("report %+v", r)
	}
	fx.boxes = fx.boxes[:2]
	fx.append(9)
	if got := fx.log.State(); !got.Equal(&want) {
		t.Fatalf("appended again: %+v, want %+v", got, want)
	}
}

func TestOpenRefusesALogThatLostWhatWasSynced(t *testing.T) {
	fx := newFixture(t)
	fx.append(7)
	at := fx.log.State()
	for _, spoil := range []func() error{
		func() error { return CopyPart(fx.disk, "log/"+SegmentName(1), "log/x", 500) },
		func() error { return fx.disk.Rename("log/x", "log/"+SegmentName(1)) },
		func() error { return fx.disk.Remove("log/" + SegmentName(0)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenLog("log", at, LogOptions{FS: fx.disk, SegmentSize: testSegment}); err == nil {
		t.Fatal("a log with a hole was opened")
	}
}

func TestSyncedRecordsSurviveACrash(t *testing.T) {
	fx := newFixture(t)
	fx.append(7)
	if err := fx.log.Sync(); err != nil {
		t.Fatal(err)
	}
	at := fx.log.State()
	fx.append(7)
	fx.disk = fx.disk.CrashClone(vfs.CrashCloneCfg{})
	fx.open(at)
	if got := fx.read(0); len(got) != 7 {
		t.Fatalf("after the crash: %v", got)
	}
}

func TestCapacityIsReported(t *testing.T) {
	fx := newFixture(t)
	fx.log.options.Capacity = 100_000
	fx.append(1)
	if fx.log.Full() {
		t.Error("full too early")
	}
	if fx.append(1); !fx.log.Full() {
		t.Errorf("not full at %d bytes", fx.log.Bytes())
	}
}

func TestPruneKeepsLaterEpochs(t *testing.T) {
	fx := newFixture(t)
	fx.append(6)
	head := fx.log.State().Head
	fx.rotate()
	fx.append(6)
	if fx.log.Prune(0, [32]byte{}) || fx.log.Prune(1, fx.log.State().Head) {
		t.Fatal("pruned without the head of a closed epoch")
	}
	if !fx.log.Prune(0, head) {
		t.Fatal("not pruned")
	}
	if err := fx.log.RemovePruned(); err != nil {
		t.Fatal(err)
	}
	if err := fx.log.Read(context.Background(), 3, func(Frame) bool { return true }); !errors.Is(err, ErrPruned) {
		t.Errorf("Read of what was pruned: %v", err)
	}
	if got := fx.read(6); len(got) != 7 {
		t.Errorf("left: %v", got)
	}
	at := fx.log.State()
	if r := fx.verify(&at); r.Fault != nil || r.Records != 7 || r.From.Seq != 6 {
		t.Errorf("report %+v", r)
	}
	fx.open(at)
	if got := fx.read(6); len(got) != 7 {
		t.Errorf("opened again: %v", got)
	}
}

// TestGoldenSegment holds format 1 of segments and frames.
func TestGoldenSegment(t *testing.T) {
	fx := newFixture(t)
	for i := range 3 {
		must[uint64](t)(fx.log.Append(uint64(i), int64(i), Sealed{Digest: [32]byte{byte(i)}, Box: fmt.Appendf(nil, "box %d", i)}))
	}
	must[uint64](t)(fx.log.Rotate(4, 5, "golden"))
	fx.flush()
	for n := range uint64(2) {
		data := must[[]byte](t)(fx.disk.UnsafeGetFileDataBuffer("log/" + SegmentName(n)))
		path := filepath.Join("testdata", "format1", SegmentName(n))
		if *update {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if want := must[[]byte](t)(os.ReadFile(path)); string(want) != string(data) {
			t.Errorf("segment %d isn't as it was", n)
		}
	}
	r := must[Report](t)(VerifyDir(context.Background(), filepath.Join("testdata", "format1"), VerifyOptions{}))
	if r.Fault != nil || r.Records != 4 || r.Epochs[1].Start.Reason != "golden" {
		t.Errorf("report %+v", r)
	}
}

func BenchmarkAppend700(b *testing.B) {
	l, err := OpenLog(b.TempDir(), State{}, LogOptions{})
	if err != nil {
		b.Fatal(err)
	}
	r := Sealed{Box: make([]byte, 700)}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := l.Append(1, 2, r); err != nil {
			b.Fatal(err)
		}
		if i%64 == 0 {
			if err := l.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
