// Package archive sends a directory of plain files as a tar and takes it apart again: a head, whose meaning is the
// caller's, the files in the order that the head gives, and SHA256SUMS, which sha256sum -c reads. The tar is made while
// it is read, so it costs no disk, and its size is known beforehand.
//
// What it will not do: take any other tar; files by other names or of other sizes than the head says; links, directories
// or extensions.
package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// File is one file; its name has two parts, "state/000007.sst".
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// Limits of an archive.
const (
	MaxHead = 32 << 20  // bytes
	MaxSize = 8<<30 - 1 // bytes of one file: what a tar header without extensions can say
)

const (
	headName = "manifest.json"
	sumsName = "SHA256SUMS"
	tarBlock = 512
	sumLine  = 64 + 2 + 1 // without the name
)

// Reader is the archive of a directory, as it is sent.
type Reader struct {
	fs    vfs.FS
	dir   string
	head  []byte
	files []File

	next int         // member: 0 the manifest, then files, then sums, then the end
	now  io.Reader   // rest of the current part
	todo []io.Reader // parts after it
	sum  hash.Hash   // over the current file
	sums bytes.Buffer
	file vfs.File
}

// NewReader returns the archive of files in dir.
func NewReader(fs vfs.FS, dir string, head []byte, files []File) *Reader {
	return &Reader{fs: fs, dir: dir, head: head, files: files}
}

// Size is how many bytes the archive has.
func (a *Reader) Size() int64 {
	member := func(n int64) int64 { return tarBlock + (n+tarBlock-1)/tarBlock*tarBlock }
	total, sums := member(int64(len(a.head)))+2*tarBlock, int64(sumLine+len(headName))
	for _, f := range a.files {
		total += member(f.Size)
		sums += sumLine + int64(len(f.Name))
	}
	return total + member(sums)
}

// Read implements io.Reader.
func (a *Reader) Read(p []byte) (int, error) {
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
func (a *Reader) advance() error {
	if len(a.todo) > 0 {
		a.now, a.todo = a.todo[0], a.todo[1:]
		return nil
	}
	if err := a.endFile(); err != nil {
		return err
	}
	i := a.next
	a.next++
	switch {
	case i == 0:
		writeSum(&a.sums, sha256.Sum256(a.head), headName)
		return a.begin(headName, int64(len(a.head)), bytes.NewReader(a.head))
	case i <= len(a.files):
		return a.beginFile(a.files[i-1])
	case i == len(a.files)+1:
		return a.begin(sumsName, int64(a.sums.Len()), &a.sums)
	case i == len(a.files)+2:
		a.now = bytes.NewReader(make([]byte, 2*tarBlock))
		return nil
	}
	return io.EOF
}

func (a *Reader) begin(name string, size int64, body io.Reader) error {
	head, err := header(name, size)
	if err != nil {
		return err
	}
	pad := (tarBlock - size%tarBlock) % tarBlock
	a.now, a.todo = bytes.NewReader(head), []io.Reader{body, bytes.NewReader(make([]byte, pad))}
	return nil
}

// header is the one block that begins a file.
func header(name string, size int64) ([]byte, error) {
	var b bytes.Buffer
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, Format: tar.FormatUSTAR}
	err := tar.NewWriter(&b).WriteHeader(h)
	return b.Bytes(), err
}

func (a *Reader) beginFile(f File) (err error) {
	if a.file, err = a.fs.Open(a.fs.PathJoin(a.dir, f.Name), vfs.SequentialReadsOption); err != nil {
		return err
	}
	a.sum = sha256.New()
	return a.begin(f.Name, f.Size, io.TeeReader(&exactly{a.file, f.Size}, a.sum))
}

// endFile notes the checksum of the file that was read last.
func (a *Reader) endFile() error {
	if a.file == nil {
		return nil
	}
	writeSum(&a.sums, [32]byte(a.sum.Sum(nil)), a.files[a.next-2].Name)
	err := a.file.Close()
	a.file = nil
	return err
}

// Close closes what is open.
func (a *Reader) Close() error {
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

// writeSum adds a line to SHA256SUMS.
func writeSum(sums *bytes.Buffer, sum [32]byte, name string) {
	fmt.Fprintf(sums, "%x  %s\n", sum, name)
}
