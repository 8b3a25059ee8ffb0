package fsm

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/go-hclog"
)

// trouble makes operations on a disk fail.
type trouble struct {
	hit chan struct{} // gets one, if there is room, for each failure

	mu   sync.Mutex
	err  error // nil: all is well
	kind func(errorfs.Op) bool
}

func newTrouble() *trouble { return &trouble{hit: make(chan struct{}, 64)} }

func (d *trouble) begin(err error, kind func(errorfs.Op) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.kind = err, kind
}

func (d *trouble) end() { d.begin(nil, nil) }

func (d *trouble) fs(inner vfs.FS) vfs.FS {
	return errorfs.Wrap(inner, errorfs.InjectorFunc(func(op errorfs.Op) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.err == nil || !d.kind(op) {
			return nil
		}
		select {
		case d.hit <- struct{}{}:
		default:
		}
		return &fs.PathError{Op: "write", Path: op.Path, Err: d.err}
	}))
}

func anyWrite(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt || op.Kind == errorfs.OpCreate
}

func tableWrite(op errorfs.Op) bool { return anyWrite(op) && strings.HasSuffix(op.Path, ".sst") }

// expectHits waits for n failures.
func (d *trouble) expectHits(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range n {
		select {
		case <-d.hit:
		case <-ctx.Done():
			t.Fatal("the disk was not written to")
		}
	}
}

func TestFullDiskIsWaitedFor(t *testing.T) {
	for name, kind := range map[string]func(errorfs.Op) bool{"every file": anyWrite, "tables": tableWrite} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(7)
			w.grow(300)
			disk := newTrouble()
			var said bytes.Buffer
			o := smallOptions(disk.fs(vfs.NewMem()))
			o.RoomPause = time.Millisecond
			o.Logger = hclog.New(&hclog.LoggerOptions{Output: &said, Level: hclog.Warn})
			o.Fatal = func(err error) { panic(err) }
			f := open(t, o)
			results := apply(f, w.logs[:100], w.rng)
			before := endOf(t, f)

			disk.begin(syscall.ENOSPC, kind)
			done := make(chan struct{})
			go func() {
				defer close(done)
				results = append(results, apply(f, w.logs[100:], rand.New(rand.NewPCG(1, 2)))...)
			}()
			disk.expectHits(t, 5)
			v := f.View() // reads go on
			if v.Index() < before.Index {
				t.Errorf("a View on a full disk shows index %d, want at least %d", v.Index(), before.Index)
			}
			if err := v.Scan("p", "p", func(Key, uint64, []byte) bool { return true }); err != nil {
				t.Errorf("Scan on a full disk: %v", err)
			}
			v.Release()

			disk.end()
			<-done
			w.checkModel(t, f, results)
			verified(t, f, false)
			end := endOf(t, f)
			closing(t, f)
			if n := strings.Count(said.String(), "the disk is full"); n != 1 {
				t.Errorf("it was said %d times that the disk is full, want once:\n%s", n, said.String())
			}
			f = open(t, o)
			wantEnd(t, "after the disk was full", f, end)
			closing(t, f)
		})
	}
}

func TestStoragesOtherFailuresAreFatal(t *testing.T) {
	background := func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") }
	sync := func(op errorfs.Op) bool {
		return op.Kind == errorfs.OpFileSync && strings.Contains(op.Path, auditDir)
	}
	for name, test := range map[string]struct {
		err  error
		kind func(errorfs.Op) bool
	}{
		"a flush in a directory that has vanished": {fs.ErrNotExist, background},
		"a flush that can't write":                 {syscall.EIO, background},
		"an fsync of the audit log":                {syscall.EIO, sync},
		"an fsync for which there was no room":     {syscall.ENOSPC, sync},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(8)
			w.grow(300)
			disk := newTrouble()
			fatal := make(chan error, 100)
			o := smallOptions(disk.fs(vfs.NewMem()))
			o.Fatal = func(err error) {
				fatal <- err
				runtime.Goexit() // as good as the end of the process; this FSM is never closed
			}
			f := open(t, o)
			apply(f, w.logs[:100], w.rng)
			disk.begin(test.err, test.kind)
			go apply(f, w.logs[100:], rand.New(rand.NewPCG(1, 2)))
			select {
			case err := <-fatal:
				if !errors.Is(err, test.err) {
					t.Errorf("Fatal got %v, want %v", err, test.err)
				}
			case <-time.After(20 * time.Second):
				t.Error("Fatal was not called")
			}
		})
	}
}

func TestStopWaitingEndsTheWaitForRoom(t *testing.T) {
	w := newWorld(9)
	w.grow(300)
	disk := newTrouble()
	fatal := make(chan error, 100)
	o := smallOptions(disk.fs(vfs.NewMem()))
	o.RoomPause = time.Hour
	o.Fatal = func(err error) {
		fatal <- err
		runtime.Goexit()
	}
	f := open(t, o)
	apply(f, w.logs[:100], w.rng)
	disk.begin(syscall.EDQUOT, anyWrite)
	go apply(f, w.logs[100:], rand.New(rand.NewPCG(1, 2)))
	disk.expectHits(t, 1)
	f.StopWaiting()
	if err := <-fatal; !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("Fatal got %v, want %v", err, syscall.EDQUOT)
	}
}

func TestSnapshotOnAFullDiskFailsAndLeavesNothing(t *testing.T) {
	w := newWorld(10)
	w.grow(100)
	disk := newTrouble()
	f := open(t, smallOptions(disk.fs(vfs.NewMem())))
	apply(f, w.logs, w.rng)
	end := endOf(t, f)
	disk.begin(syscall.ENOSPC, func(op errorfs.Op) bool { return anyWrite(op) && strings.Contains(op.Path, "snapshots") })
	if _, err := f.Snapshot(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Snapshot on a full disk: %v, want %v", err, syscall.ENOSPC)
	}
	disk.end()
	wantEnd(t, "after a snapshot that failed", f, end)
	if list, err := f.Snapshots().List(); err != nil || len(list) != 0 {
		t.Errorf("Snapshots are %v, %v, want none", list, err)
	}
	persist(t, f)
	closing(t, f)
}
