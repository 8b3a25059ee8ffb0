// Package room lets what writes to a full disk wait until there is room again, instead of failing for good or trying
// over and over.
//
// It makes no room and refuses nothing: that is for those who look at the free space before they propose. A failed
// fsync is never tried again, since a second one may lie; whoever gets its error must stop.
package room

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
)

// DefaultPause is the time between two attempts to write to a full disk.
const DefaultPause = time.Second

// reportInterval is the least time between two messages about the same trouble.
const reportInterval = 10 * time.Second

// Options of a Room. The zero value is right but for the Logger.
type Options struct {
	Logger hclog.Logger  // required
	Pause  time.Duration // default DefaultPause
}

// Room watches the writes of one owner. Its file system waits where a failure would be for good, such as Pebble's
// MANIFEST and the audit log. Tables fail: Pebble removes what it wrote of one, which makes room for others, and writes
// it again, for which it waits a pause if Failed was called since the last Done.
//
// There is patience from Begin to Stop only: a node that finds no room while it starts had better say so and end.
type Room struct {
	options Options
	begun   atomic.Bool
	stopped chan struct{} // closed by Stop

	mu       sync.Mutex // guards what follows; not held over I/O
	failed   bool
	reported time.Time // when it was last said that the disk is full
	slow     time.Time // when it was last said that the disk is slow
	isClosed bool
}

// New returns a Room without patience yet.
func New(options Options) *Room {
	if options.Pause == 0 {
		options.Pause = DefaultPause
	}
	return &Room{options: options, stopped: make(chan struct{})}
}

// IsFull reports whether an error says that the disk, or the owner's share of it, is full.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Begin makes what finds no room wait for it.
func (r *Room) Begin() { r.begun.Store(true) }

// Failed notes that work which will be tried again failed with err. It reports whether waiting may help: the disk was
// full, and there is patience. It doesn't block.
func (r *Room) Failed(err error) (mayWait bool) {
	if !IsFull(err) || !r.begun.Load() {
		return false
	}
	select {
	case <-r.stopped:
		return false
	default:
	}
	r.mu.Lock()
	r.failed = true
	r.mu.Unlock()
	r.report(err)
	return true
}

// Done notes that such work has succeeded.
func (r *Room) Done() {
	r.mu.Lock()
	was := r.failed
	r.failed = false
	r.mu.Unlock()
	if was {
		r.options.Logger.Info("the disk has room again")
	}
}

func (r *Room) hasFailed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Slow says that the disk is slow, now and then.
func (r *Room) Slow(info vfs.DiskSlowInfo) {
	if r.due(&r.slow) {
		r.options.Logger.Warn("the disk is slow", "detail", info.String())
	}
}

// Stop ends all waiting: from here on, what finds no room fails. It may be called more than once.
func (r *Room) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isClosed {
		r.isClosed = true
		close(r.stopped)
	}
}

func (r *Room) report(err error) {
	if r.due(&r.reported) {
		r.options.Logger.Error("the disk is full: this node's state waits for room", "error", err)
	}
}

func (r *Room) due(last *time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !last.IsZero() && time.Since(*last) < reportInterval {
		return false
	}
	*last = time.Now()
	return true
}

// pause waits for one pause, and reports whether it came to its end.
func (r *Room) pause() bool {
	timer := time.NewTimer(r.options.Pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.stopped:
	}
	select {
	case <-r.stopped: // also when the pause was over at the same time
		return false
	default:
		return true
	}
}

// patiently calls attempt until it returns something else than that the disk is full, or Stop is called.
func (r *Room) patiently(attempt func() error) error {
	waited := false
	for {
		err := attempt()
		if !IsFull(err) || !r.begun.Load() {
			if waited && err == nil {
				r.options.Logger.Info("the disk has room again")
			}
			return err
		}
		waited = true
		r.report(err)
		if !r.pause() {
			return err
		}
	}
}

// isTable reports whether Pebble gives this name to a file that it writes once and would write anew after a failure.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

// FS returns inner with the Room's patience for what is written under dirs.
func (r *Room) FS(inner vfs.FS, dirs ...string) vfs.FS {
	return &patientFS{FS: inner, room: r, dirs: dirs}
}

// patientFS waits where its Room says so.
type patientFS struct {
	vfs.FS
	room *Room
	dirs []string // without a separator at the end
}

func (p *patientFS) covers(name string) bool {
	return slices.ContainsFunc(p.dirs, func(dir string) bool {
		return strings.HasPrefix(name, dir) && len(name) > len(dir) && os.IsPathSeparator(name[len(dir)])
	})
}

// patiently makes a file, waiting if it is covered.
func (p *patientFS) patiently(name string, open func() (vfs.File, error)) (vfs.File, error) {
	if !p.covers(name) {
		return open()
	}
	var file vfs.File
	err := p.room.patiently(func() (err error) {
		file, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &patientFile{File: file, room: p.room}, nil
}

// Create makes a file. A table is made after a pause if others found no room lately.
func (p *patientFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if isTable(name) {
		if p.room.hasFailed() {
			p.room.pause()
		}
		return p.FS.Create(name, category)
	}
	return p.patiently(name, func() (vfs.File, error) { return p.FS.Create(name, category) })
}

// OpenReadWrite opens a file for writing.
func (p *patientFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return p.patiently(name, func() (vfs.File, error) { return p.FS.OpenReadWrite(name, category, options...) })
}

// ReuseForWrite renames a file and opens it for writing.
func (p *patientFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return p.patiently(name, func() (vfs.File, error) { return p.FS.ReuseForWrite(old, name, category) })
}

// Rename renames a file.
func (p *patientFS) Rename(old, name string) error {
	if !p.covers(name) {
		return p.FS.Rename(old, name)
	}
	return p.room.patiently(func() error { return p.FS.Rename(old, name) })
}

// Unwrap returns the file system inside.
func (p *patientFS) Unwrap() vfs.FS { return p.FS }

// patientFile waits for room when it is written to.
type patientFile struct {
	vfs.File
	room *Room
}

// Write writes all of b; after a part, it goes on behind it.
func (f *patientFile) Write(b []byte) (written int, err error) {
	err = f.room.patiently(func() error {
		n, err := f.File.Write(b[written:])
		written += n
		return err
	})
	return written, err
}

// WriteAt writes all of b.
func (f *patientFile) WriteAt(b []byte, offset int64) (written int, err error) {
	err = f.room.patiently(func() error {
		n, err := f.File.WriteAt(b[written:], offset+int64(written))
		written += n
		return err
	})
	return written, err
}
