package chainlog

import (
	"errors"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// cutAlone cuts a file that has no other name, such as a snapshot's, to its first bytes, and syncs it. It reports false, and
// has done nothing, if it has another name or that can't be told.
func cutAlone(fs vfs.FS, path string, size int64) (done bool, err error) {
	file, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	stat, known := info.Sys().(*syscall.Stat_t)
	if fd := file.Fd(); known && stat.Nlink == 1 && fd != vfs.InvalidFd {
		return true, errors.Join(unix.Ftruncate(int(fd), size), file.Sync())
	}
	return false, nil
}
