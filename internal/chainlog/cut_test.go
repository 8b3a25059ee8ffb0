package chainlog

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestOnlyWhatSnapshotsShareIsWrittenAnew: a segment is cut where it is, unless it has another name, under which it keeps what
// it has.
func TestOnlyWhatSnapshotsShareIsWrittenAnew(t *testing.T) {
	for _, shared := range []bool{false, true} {
		dir := t.TempDir()
		file, snapshot := filepath.Join(dir, SegmentName(0)), filepath.Join(dir, "snapshot")
		fx := &fixture{tb: t}
		open := func(at State) {
			fx.log = must[*Log](t)(OpenLog(dir, at, LogOptions{FS: vfs.Default, SegmentSize: testSegment}))
		}
		open(State{})
		fx.append(1)
		at := fx.log.State()
		fx.append(1)
		if err := fx.log.Close(); err != nil {
			t.Fatal(err)
		}
		if shared {
			if err := os.Link(file, snapshot); err != nil {
				t.Fatal(err)
			}
		}
		before := must[os.FileInfo](t)(os.Stat(file))
		open(at)
		after := must[os.FileInfo](t)(os.Stat(file))
		if same := os.SameFile(before, after); same == shared || after.Size() != at.Offset {
			t.Errorf("shared %t: the same file %t, of %d bytes; want %d", shared, same, after.Size(), at.Offset)
		}
		if got := fx.read(0); len(got) != 1 {
			t.Errorf("shared %t: records %v after cutting back, want one", shared, got)
		}
		if shared && must[os.FileInfo](t)(os.Stat(snapshot)).Size() != before.Size() {
			t.Error("what a snapshot shares was cut")
		}
		if err := fx.log.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
