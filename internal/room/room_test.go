package room

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
)

// narrow is a file system that takes a few bytes with each write, and then is full as often as it was told.
type narrow struct {
	vfs.FS
	full int // how many attempts still fail
}

type narrowFile struct {
	vfs.File
	disk *narrow
}

func (n *narrow) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := n.FS.Create(name, category)
	return &narrowFile{file, n}, err
}

func (f *narrowFile) Write(b []byte) (int, error) {
	if f.disk.full == 0 {
		return f.File.Write(b)
	}
	f.disk.full--
	written, err := f.File.Write(b[:min(3, len(b))])
	return written, errors.Join(err, fmt.Errorf("write: %w", syscall.ENOSPC))
}

func (f *narrowFile) WriteAt(b []byte, offset int64) (int, error) {
	if f.disk.full == 0 {
		return f.File.WriteAt(b, offset)
	}
	f.disk.full--
	written, err := f.File.WriteAt(b[:min(3, len(b))], offset)
	return written, errors.Join(err, fmt.Errorf("write: %w", syscall.ENOSPC))
}

func contents(t *testing.T, fs vfs.FS, name string) string {
	t.Helper()
	file, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, _ := file.ReadAt(b, 0) // io.EOF
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestWritesGoOnBehindWhatWasWritten(t *testing.T) {
	r := New(Options{Logger: hclog.NewNullLogger(), Pause: time.Microsecond})
	disk := &narrow{FS: vfs.NewMem()}
	if err := disk.MkdirAll("dir", 0o700); err != nil {
		t.Fatal(err)
	}
	r.Begin()
	fs := r.FS(disk, "dir")
	file, err := fs.Create("dir/log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	disk.full = 2
	if n, err := file.Write([]byte("0123456789")); n != 10 || err != nil {
		t.Errorf("Write on a full disk = %d, %v, want 10 in the end", n, err)
	}
	disk.full = 2
	if n, err := file.WriteAt([]byte("abcdefgh"), 10); n != 8 || err != nil {
		t.Errorf("WriteAt on a full disk = %d, %v, want 8 in the end", n, err)
	}
	if got, want := contents(t, disk, "dir/log"), "0123456789abcdefgh"; got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
}

func TestThereIsPatienceFromBeginToStopOnlyAndForItsDirectories(t *testing.T) {
	write := func(what string, r *Room, name string, want error) {
		t.Helper()
		disk := &narrow{FS: vfs.NewMem()}
		if err := errors.Join(disk.MkdirAll("dir", 0o700), disk.MkdirAll("dirt", 0o700)); err != nil {
			t.Fatal(err)
		}
		file, err := r.FS(disk, "dir").Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		disk.full = 1
		if _, err := file.Write([]byte("0123456789")); !errors.Is(err, want) {
			t.Errorf("%s: Write(%s) = %v, want %v", what, name, err, want)
		}
	}
	r := New(Options{Logger: hclog.NewNullLogger(), Pause: time.Microsecond})
	write("before Begin", r, "dir/log", syscall.ENOSPC)
	r.Begin()
	write("after Begin", r, "dir/log", nil)
	write("after Begin", r, "dirt/log", syscall.ENOSPC)
	write("after Begin", r, "dir/1.sst", syscall.ENOSPC)
	if !r.Failed(syscall.ENOSPC) || r.Failed(syscall.EIO) {
		t.Error("Failed must tell a full disk from others")
	}
	r.Stop()
	r.Stop()
	write("after Stop", r, "dir/log", syscall.ENOSPC)
	if r.Failed(syscall.ENOSPC) {
		t.Error("Failed says that waiting helps after Stop")
	}
}
