package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Receiver takes an archive apart as it is written to it, into a directory. It takes nothing but what Reader makes.
type Receiver struct {
	fs    vfs.FS
	dir   string
	list  func(head []byte) ([]File, error)
	head  []byte
	files []File

	next  int    // member, as in Reader
	block []byte // of a header or of the end, as far as it has come
	left  int64  // of the body
	pad   int64  // after it
	inner bool   // within body or pad
	text  bytes.Buffer
	file  vfs.File
	dirs  []string // that were made
	sum   hash.Hash
	sums  bytes.Buffer
	ended bool
	err   error // the first, which stays
}

// NewReceiver takes an archive apart into dir, which must exist. list says which files a head names, and is to refuse
// names that it wouldn't have made itself: a name is a directory of dir, a slash, and a file.
func NewReceiver(fs vfs.FS, dir string, list func(head []byte) ([]File, error)) *Receiver {
	return &Receiver{fs: fs, dir: dir, list: list}
}

// ErrArchive is in the chain of every error about what was received.
var ErrArchive = errors.New("not a snapshot, or a damaged one")

// Write implements io.Writer.
func (r *Receiver) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 && r.err == nil {
		var n int
		n, r.err = r.step(p)
		p = p[n:]
	}
	return total - len(p), r.err
}

// step consumes at least one byte.
func (r *Receiver) step(p []byte) (n int, err error) {
	switch {
	case r.ended:
		return 0, ErrArchive
	case !r.inner:
		n = min(tarBlock-len(r.block), len(p))
		if r.block = append(r.block, p[:n]...); len(r.block) == tarBlock {
			err = r.header()
			r.block = r.block[:0]
		}
		return n, err
	case r.left > 0:
		n = int(min(r.left, int64(len(p))))
		if err = r.body(p[:n]); err != nil {
			return n, err
		}
		r.left -= int64(n)
	default:
		n = int(min(r.pad, int64(len(p))))
		if len(bytes.Trim(p[:n], "\x00")) > 0 {
			return n, ErrArchive
		}
		r.pad -= int64(n)
	}
	if r.left == 0 && r.pad == 0 {
		err = r.endMember()
	}
	return n, err
}

// header takes a whole block that begins a member, or one of the two at the end.
func (r *Receiver) header() error {
	if r.next >= 2 && r.next >= len(r.files)+2 {
		if !bytes.Equal(r.block, make([]byte, tarBlock)) {
			return ErrArchive
		}
		r.next++
		r.ended = r.next == len(r.files)+4
		return nil
	}
	h, err := tar.NewReader(bytes.NewReader(r.block)).Next()
	if err != nil || h.Typeflag != tar.TypeReg {
		return ErrArchive
	}
	if ours, err := header(h.Name, h.Size); err != nil || !bytes.Equal(ours, r.block) {
		return ErrArchive
	}
	r.left, r.pad, r.inner = h.Size, (tarBlock-h.Size%tarBlock)%tarBlock, true
	switch {
	case r.next == 0:
		if h.Name != headName || h.Size == 0 || h.Size > MaxHead {
			return ErrArchive
		}
	case r.next <= len(r.files):
		if err := r.beginFile(h, r.files[r.next-1]); err != nil {
			return err
		}
	case h.Name != sumsName || h.Size != int64(r.sums.Len()):
		return ErrArchive
	}
	if r.left == 0 && r.pad == 0 {
		return r.endMember()
	}
	return nil
}

func (r *Receiver) beginFile(h *tar.Header, f File) (err error) {
	if h.Name != f.Name || h.Size != f.Size {
		return ErrArchive
	}
	r.sum = sha256.New()
	dir := r.fs.PathJoin(r.dir, r.fs.PathDir(f.Name))
	if err := r.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if !slices.Contains(r.dirs, dir) {
		r.dirs = append(r.dirs, dir)
	}
	r.file, err = r.fs.Create(r.fs.PathJoin(dir, r.fs.PathBase(f.Name)), vfs.WriteCategoryUnspecified)
	return err
}

func (r *Receiver) body(p []byte) error {
	if r.file == nil {
		_, err := r.text.Write(p)
		return err
	}
	_, _ = r.sum.Write(p) // never fails
	_, err := r.file.Write(p)
	return err
}

// endMember finishes the member whose body and padding are in.
func (r *Receiver) endMember() (err error) {
	i := r.next
	r.next++
	r.inner = false
	switch {
	case i == 0:
		r.head = bytes.Clone(r.text.Bytes())
		writeSum(&r.sums, sha256.Sum256(r.head), headName)
		r.text.Reset()
		r.files, err = r.list(r.head)
		return err
	case i <= len(r.files):
		writeSum(&r.sums, [32]byte(r.sum.Sum(nil)), r.files[i-1].Name)
		err = errors.Join(r.file.Sync(), r.file.Close())
		r.file = nil
		return err
	}
	if !bytes.Equal(r.text.Bytes(), r.sums.Bytes()) {
		return fmt.Errorf("%w: a checksum doesn't match", ErrArchive)
	}
	return nil
}

// Finish reports whether all of the archive came, and makes the directory's entries durable.
func (r *Receiver) Finish() error {
	if r.file != nil {
		r.err = errors.Join(r.err, r.file.Close())
		r.file = nil
	}
	if r.err == nil && !r.ended {
		r.err = fmt.Errorf("%w: it ends too early", ErrArchive)
	}
	if r.err != nil {
		return r.err
	}
	for _, dir := range append(r.dirs, r.dir) {
		d, err := r.fs.OpenDir(dir)
		if err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
