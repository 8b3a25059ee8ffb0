package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"conclave"
)

// Folders are the directories in which audit devices may write, as the node's configuration names them.
type Folders struct {
	names    []string
	resolved []string // the same, without symbolic links
}

var _ Directories = (*Folders)(nil)

// NewFolders checks that each of directories is an absolute path to a directory that not everybody can write to. Symbolic links in them
// are the configuration's choice, and are resolved now.
func NewFolders(directories []string) (*Folders, error) {
	f := &Folders{names: slices.Clone(directories)}
	for _, name := range directories {
		if !filepath.IsAbs(name) {
			return nil, fmt.Errorf("audit directory %s: not an absolute path", name)
		}
		resolved, err := filepath.EvalSymlinks(name)
		if err != nil {
			return nil, fmt.Errorf("audit directory: %w", err)
		}
		info, err := os.Stat(resolved)
		if err != nil {
			return nil, fmt.Errorf("audit directory: %w", err)
		}
		if !info.IsDir() || info.Mode().Perm()&0o002 != 0 {
			return nil, fmt.Errorf("audit directory %s: not a directory, or everybody can write to it", name)
		}
		f.resolved = append(f.resolved, resolved)
	}
	return f, nil
}

// Names are the directories as they were configured.
func (f *Folders) Names() []string { return f.names }

// Check reports why a device could not write to path. It creates nothing. The error is of kind conclave.Invalid.
func (f *Folders) Check(path string) error {
	at, err := f.locate(path)
	if err != nil {
		return err
	}
	file, err := at.existing()
	if errors.Is(err, fs.ErrNotExist) {
		return at.close(nil)
	}
	if err != nil {
		return at.close(err)
	}
	return at.close(errors.Join(checkOurs(file, path), file.Close()))
}

// Written is how many records the device that writes to path has safely written on this machine, as its cursor says. It is
// of kind conclave.NotFound if there is no cursor.
func (f *Folders) Written(path string) (records uint64, err error) {
	at, err := f.locate(path)
	if err != nil {
		return 0, err
	}
	stored, err := at.read(at.name+cursorExtension, maxCursor)
	if err = at.close(err); err != nil {
		return 0, err
	}
	if stored == nil {
		return 0, conclave.Errorf(conclave.NotFound, "nothing was written yet")
	}
	c, err := decodeCursor(stored)
	if err != nil {
		return 0, conclave.Errorf(conclave.Precondition, "the cursor beside the file is damaged")
	}
	return c.Seq, nil
}

// logFile is a file's name in an open directory: nothing that happens to the path above it leads elsewhere.
type logFile struct {
	path   string // as it was given, for messages
	parent *os.Root
	name   string
}

// locate opens the directory that path is in, if it is one of the configured ones or below. Symbolic links are resolved before that is
// decided; what is outside isn't told apart from what isn't there.
func (f *Folders) locate(path string) (*logFile, error) {
	outside := conclave.Errorf(conclave.Invalid, "file_path %q is in none of the configured audit directories %q", path, f.names)
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, outside
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return nil, outside
	}
	for _, resolved := range f.resolved {
		below, err := filepath.Rel(resolved, dir)
		if err != nil || !filepath.IsLocal(below) {
			continue
		}
		top, err := os.OpenRoot(resolved)
		if err != nil {
			return nil, outside
		}
		parent, err := top.OpenRoot(below)
		if err := errors.Join(err, top.Close()); err != nil {
			return nil, outside
		}
		return &logFile{path, parent, filepath.Base(path)}, nil
	}
	return nil, outside
}

func (p *logFile) close(err error) error { return errors.Join(err, p.parent.Close()) }

// open opens the file for reading and appending, and makes it if it isn't there. It is locked until it is closed: two devices that reach
// one file by different paths would spoil it.
func (p *logFile) open() (*os.File, error) {
	file, err := p.existing()
	if errors.Is(err, fs.ErrNotExist) {
		if file, err = p.parent.OpenFile(p.name, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND|syscall.O_NOFOLLOW, 0o600); err != nil {
			return nil, fmt.Errorf("create audit file: %w", err)
		}
	}
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil, errors.Join(conclave.Errorf(conclave.Precondition, "%q is being written by another device or process", p.path), file.Close())
	}
	if err := checkOurs(file, p.path); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// existing opens a file that is there: a regular one with mode 0600 and no second name. Opening a pipe doesn't wait for a reader.
func (p *logFile) existing() (*os.File, error) {
	before, err := p.parent.Lstat(p.name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, conclave.Errorf(conclave.Invalid, "%q is not a regular file", p.path)
	}
	file, err := p.parent.OpenFile(p.name, os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open audit file: %w", err)
	}
	after, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if !os.SameFile(before, after) { // a symbolic link that took its place meanwhile
		return nil, errors.Join(conclave.Errorf(conclave.Invalid, "%q is not a regular file", p.path), file.Close())
	}
	if stat, ok := after.Sys().(*syscall.Stat_t); after.Mode().Perm() != 0o600 || !ok || stat.Nlink != 1 {
		return nil, errors.Join(conclave.Errorf(conclave.Invalid, "%q exists with mode %04o; an audit file has 0600, and one name", p.path,
			after.Mode().Perm()), file.Close())
	}
	return file, nil
}

// sync makes the names in the directory durable.
func (p *logFile) sync() error {
	dir, err := p.parent.Open(".")
	if err != nil {
		return fmt.Errorf("sync audit directory: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// read returns the content of a small file beside, nil if there is none.
func (p *logFile) read(name string, limit int64) ([]byte, error) {
	beside := logFile{p.path, p.parent, name}
	file, err := beside.existing()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, limit))
	return content, errors.Join(err, file.Close())
}

// replace puts a new cursor in the place of another, whole or not at all. The name is durable after the next sync.
func (p *logFile) replace(name string, content []byte) error {
	next := name + nextExtension
	left, err := p.read(next, maxCursor)
	if err != nil {
		return err
	}
	if left != nil {
		// What a crash has left begins as every cursor does. Anything else isn't ours to remove.
		n := min(len(left), len(cursorStart))
		if string(left[:n]) != cursorStart[:n] {
			return conclave.Errorf(conclave.Precondition, "%q exists and is not ours; it stays as it is", filepath.Join(filepath.Dir(p.path), next))
		}
		if err := p.parent.Remove(next); err != nil {
			return err
		}
	}
	file, err := p.parent.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return p.parent.Rename(next, name)
}

// checkOurs reports that a file has content, and not that of an audit log. It looks at the first line.
func checkOurs(file *os.File, path string) error {
	var head [96]byte
	n, err := file.ReadAt(head[:], 0)
	if n == 0 && err == io.EOF {
		return nil
	}
	if err != nil && err != io.EOF {
		return fmt.Errorf("read audit file: %w", err)
	}
	ours := bytes.HasPrefix(head[:n], []byte(`{"time":"`)) &&
		(bytes.Contains(head[:n], []byte(`Z","type":"request",`)) || bytes.Contains(head[:n], []byte(`Z","type":"response",`)))
	if !ours {
		return conclave.Errorf(conclave.Invalid, "%q exists and is not an audit log; it stays as it is", path)
	}
	return nil
}
