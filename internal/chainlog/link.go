package chainlog

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// File is one file of a copy of the log: the first Size bytes count.
type File struct {
	Name string
	Size int64
}

// LinkTo makes a copy of the log in dir, which must exist, by hard links, and returns its files. The last one goes on
// growing as the log does. The caller appends nothing meanwhile and has called Flush.
func (l *Log) LinkTo(dir string) ([]File, error) {
	l.mu.Lock()
	files := make([]File, len(l.segments))
	for i, s := range l.segments {
		files[i] = File{SegmentName(s.Number), s.size}
	}
	l.mu.Unlock()
	for _, f := range files {
		if err := l.fs.Link(l.fs.PathJoin(l.dir, f.Name), l.fs.PathJoin(dir, f.Name)); err != nil {
			return nil, fmt.Errorf("link audit segment: %w", err)
		}
	}
	return files, syncDir(l.fs, dir)
}

// CopyPart writes the first size bytes of a file to a new one and syncs it.
func CopyPart(fs vfs.FS, from, to string, size int64) (err error) {
	in, err := fs.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := fs.Create(to, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = io.CopyN(out, in, size); err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
