// Package durable makes small files and directories that are there, whole, after a crash.
//
// It retries nothing: a sync that failed may have lost what was written.
package durable

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ReadFile reads a small file; one of more than limit bytes is an error.
func ReadFile(fs vfs.FS, path string, limit int64) ([]byte, error) {
	file, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is too large", path)
	}
	return b, errors.Join(err, file.Close())
}

// WriteFile replaces a small file, so that after a crash it is either the old or the new one.
func WriteFile(fs vfs.FS, path string, data []byte) error {
	file, err := fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return errors.Join(fs.Rename(path+".new", path), SyncDir(fs, fs.PathDir(path)))
}

// MakeDir makes a directory, for its owner only.
func MakeDir(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return SyncDir(fs, fs.PathDir(dir))
}

// SyncDir makes durable what names are in a directory.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RemoveOthers removes everything in dir but one entry.
func RemoveOthers(fs vfs.FS, dir, keep string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != keep {
			err = errors.Join(err, fs.RemoveAll(fs.PathJoin(dir, name)))
		}
	}
	return err
}
