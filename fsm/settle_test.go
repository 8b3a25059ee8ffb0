package fsm

import (
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestLessIsReplayedAfterACrashOnceItHasSettled(t *testing.T) {
	w := newWorld(1)
	w.grow(60)
	disk := vfs.NewCrashableMem()
	f := open(t, Options{Dir: "data", FS: disk, AuditSegment: 300 << 10})
	defer closing(t, f)
	apply(f, w.logs, w.rng)
	survived := func() uint64 {
		g := open(t, Options{Dir: "data", FS: disk.CrashClone(vfs.CrashCloneCfg{}), AuditSegment: 300 << 10})
		defer closing(t, g)
		return g.Applied()
	}
	f.Settle(16 << 20)
	if at := survived(); at != 0 {
		t.Errorf("%d entries are durable though they are few", at)
	}
	f.Settle(1)
	deadline := time.Now().Add(10 * time.Second)
	for survived() != f.Applied() { // Pebble writes in the background
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d entries are durable", survived(), f.Applied())
		}
		runtime.Gosched()
	}
	if f.applier.unsynced != 0 {
		t.Errorf("%d bytes still count as not durable", f.applier.unsynced)
	}
}
