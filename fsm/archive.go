package fsm

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"conclave/internal/chainlog"
)

// A snapshot travels as a tar of plain files: manifest.json, the files in the manifest's order, and SHA256SUMS, which
// sha256sum -c reads. The archive is made while it is read, so it costs no disk, and its size is known beforehand.
const (
	manifestName = "manifest.json"
	sumsName     = "SHA256SUMS"
	tarBlock     = 512
	sumLine      = 64 + 2 + 1 // without the name
)

// archive is the reading end.
type archive struct {
	fs       vfs.FS
	dir      string
	manifest *manifest
	encoded  []byte

	next int         // member: 0 the manifest, then files, then sums, then the end
	now  io.Reader   // rest of the current part
	todo []io.Reader // parts after it
	sum  hash.Hash   // over the current file
	sums bytes.Buffer
	file vfs.File
}

func newArchive(fs vfs.FS, dir string, m *manifest) (*archive, error) {
	encoded, err := m.encode()
	return &archive{fs: fs, dir: dir, manifest: m, encoded: encoded}, err
}

// size is how many bytes the archive has.
func (a *archive) size() int64 {
	member := func(n int64) int64 { return tarBlock + (n+tarBlock-1)/tarBlock*tarBlock }
	total, sums := member(int64(len(a.encoded)))+2*tarBlock, int64(0)
	for _, f := range a.manifest.Files {
		total += member(f.Size)
		sums += sumLine + int64(len(f.Name))
	}
	return total + member(sums)
}

// Read implements io.Reader.
func (a *archive) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if a.now == nil {
			if err := a.advance(); err != nil {
				return 0, err
			}
		}
		n, err := a.now.Read(p)
		if err == io.EOF {
			a.now, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// advance sets up the next part.
func (a *archive) advance() error {
	if len(a.todo) > 0 {
		a.now, a.todo = a.todo[0], a.todo[1:]
		return nil
	}
	if err := a.endFile(); err != nil {
		return err
	}
	i := a.next
	a.next++
	files := a.manifest.Files
	switch {
	case i == 0:
		return a.begin(manifestName, int64(len(a.encoded)), bytes.NewReader(a.encoded))
	case i <= len(files):
		return a.beginFile(files[i-1])
	case i == len(files)+1:
		return a.begin(sumsName, int64(a.sums.Len()), &a.sums)
	case i == len(files)+2:
		a.now = bytes.NewReader(make([]byte, 2*tarBlock))
		return nil
	}
	return io.EOF
}

func (a *archive) begin(name string, size int64, body io.Reader) error {
	var head bytes.Buffer
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, Format: tar.FormatUSTAR}
	if err := tar.NewWriter(&head).WriteHeader(h); err != nil {
		return err
	}
	pad := (tarBlock - size%tarBlock) % tarBlock
	a.now, a.todo = &head, []io.Reader{body, bytes.NewReader(make([]byte, pad))}
	return nil
}

func (a *archive) beginFile(f chainlog.File) (err error) {
	part, name := splitName(f.Name)
	if a.file, err = a.fs.Open(a.fs.PathJoin(a.dir, part, name), vfs.SequentialReadsOption); err != nil {
		return err
	}
	a.sum = sha256.New()
	return a.begin(f.Name, f.Size, io.TeeReader(&exactly{a.file, f.Size}, a.sum))
}

// endFile notes the checksum of the file that was read last.
func (a *archive) endFile() error {
	if a.file == nil {
		return nil
	}
	fmt.Fprintf(&a.sums, "%x  %s\n", a.sum.Sum(nil), a.manifest.Files[a.next-2].Name)
	err := a.file.Close()
	a.file = nil
	return err
}

// Close closes what is open.
func (a *archive) Close() error {
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	return err
}

// exactly reads n bytes; a file that has fewer is an error, what it has beyond isn't read.
type exactly struct {
	in io.Reader
	n  int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.in.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	if err == io.EOF && e.n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// receiver takes an archive apart as it is written to it, into a directory. It takes nothing but what archive makes.
type receiver struct {
	fs       vfs.FS
	dir      string
	manifest manifest

	next  int    // member, as in archive
	block []byte // of a header or of the end, as far as it has come
	left  int64  // of the body
	pad   int64  // after it
	inner bool   // within body or pad
	text  bytes.Buffer
	file  vfs.File
	sum   hash.Hash
	sums  bytes.Buffer
	ended bool
	err   error // the first, which stays
}

func newReceiver(fs vfs.FS, dir string) *receiver { return &receiver{fs: fs, dir: dir} }

var errArchive = errors.New("not a snapshot, or a damaged one")

// Write implements io.Writer.
func (r *receiver) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 && r.err == nil {
		var n int
		n, r.err = r.step(p)
		p = p[n:]
	}
	return total - len(p), r.err
}

// step consumes at least one byte.
func (r *receiver) step(p []byte) (n int, err error) {
	switch {
	case r.ended:
		return 0, errArchive
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
			return n, errArchive
		}
		r.pad -= int64(n)
	}
	if r.left == 0 && r.pad == 0 {
		err = r.endMember()
	}
	return n, err
}

// header takes a whole block that begins a member, or one of the two at the end.
func (r *receiver) header() error {
	files := r.manifest.Files
	if r.next >= 2 && r.next >= len(files)+2 {
		if !bytes.Equal(r.block, make([]byte, tarBlock)) {
			return errArchive
		}
		r.next++
		r.ended = r.next == len(files)+4
		return nil
	}
	h, err := tar.NewReader(bytes.NewReader(r.block)).Next()
	if err != nil || h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR {
		return errArchive
	}
	r.left, r.pad, r.inner = h.Size, (tarBlock-h.Size%tarBlock)%tarBlock, true
	switch {
	case r.next == 0:
		if h.Name != manifestName || h.Size == 0 || h.Size > maxManifest {
			return errArchive
		}
	case r.next <= len(files):
		if err := r.beginFile(h, files[r.next-1]); err != nil {
			return err
		}
	case h.Name != sumsName || h.Size != int64(r.sums.Len()):
		return errArchive
	}
	if r.left == 0 && r.pad == 0 {
		return r.endMember()
	}
	return nil
}

func (r *receiver) beginFile(h *tar.Header, f chainlog.File) (err error) {
	if h.Name != f.Name || h.Size != f.Size {
		return errArchive
	}
	part, name := splitName(f.Name)
	r.sum = sha256.New()
	r.file, err = r.fs.Create(r.fs.PathJoin(r.dir, part, name), vfs.WriteCategoryUnspecified)
	return err
}

func (r *receiver) body(p []byte) error {
	if r.file == nil {
		_, err := r.text.Write(p)
		return err
	}
	_, _ = r.sum.Write(p) // never fails
	// A copy, since a file system may scribble on what it is given, and p is the caller's.
	_, err := r.file.Write(bytes.Clone(p))
	return err
}

// endMember finishes the member whose body and padding are in.
func (r *receiver) endMember() (err error) {
	i := r.next
	r.next++
	r.inner = false
	switch {
	case i == 0:
		if r.manifest, err = decodeManifest(r.text.Bytes()); err != nil {
			return err
		}
		r.text.Reset()
		return errors.Join(r.fs.MkdirAll(r.fs.PathJoin(r.dir, stateDir), 0o700), r.fs.MkdirAll(r.fs.PathJoin(r.dir, auditDir), 0o700))
	case i <= len(r.manifest.Files):
		fmt.Fprintf(&r.sums, "%x  %s\n", r.sum.Sum(nil), r.manifest.Files[i-1].Name)
		err = errors.Join(r.file.Sync(), r.file.Close())
		r.file = nil
		return err
	}
	if !bytes.Equal(r.text.Bytes(), r.sums.Bytes()) {
		return fmt.Errorf("%w: a checksum doesn't match", errArchive)
	}
	return nil
}

// finish reports whether all of the archive came, and makes the directory's entries durable.
func (r *receiver) finish() error {
	if r.file != nil {
		r.err = errors.Join(r.err, r.file.Close())
		r.file = nil
	}
	if r.err == nil && !r.ended {
		r.err = fmt.Errorf("%w: it ends too early", errArchive)
	}
	if r.err != nil {
		return r.err
	}
	return errors.Join(syncDir(r.fs, r.fs.PathJoin(r.dir, stateDir)), syncDir(r.fs, r.fs.PathJoin(r.dir, auditDir)), syncDir(r.fs, r.dir))
}
