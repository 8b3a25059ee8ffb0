package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// example is a directory of files, and its archive.
func example(tb testing.TB) (files []File, data []byte) {
	tb.Helper()
	disk := vfs.NewMem()
	files = []File{{"state/empty", 0}, {"state/block", 512}, {"audit/odd", 700}}
	for _, f := range files {
		if err := disk.MkdirAll("from/"+disk.PathDir(f.Name), 0o700); err != nil {
			tb.Fatal(err)
		}
		out, err := disk.Create("from/"+f.Name, vfs.WriteCategoryUnspecified)
		if err == nil {
			// What the file has beyond its listed size isn't sent.
			_, err = out.Write(bytes.Repeat([]byte{7}, int(f.Size)+9))
		}
		if err = errors.Join(err, out.Close()); err != nil {
			tb.Fatal(err)
		}
	}
	r := NewReader(disk, "from", []byte("head"), files)
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != r.Size() || r.Close() != nil {
		tb.Fatalf("read %d bytes of %d: %v", len(data), r.Size(), err)
	}
	return files, data
}

func receive(data []byte, step int, files []File) (*vfs.MemFS, error) {
	disk := vfs.NewMem()
	if err := disk.MkdirAll("to", 0o700); err != nil {
		return nil, err
	}
	data = bytes.Clone(data) // under the race detector MemFS scribbles on what it is given
	r := NewReceiver(disk, "to", func(head []byte) ([]File, error) {
		if string(head) != "head" {
			return nil, ErrArchive
		}
		return files, nil
	})
	for len(data) > 0 {
		n := min(step, len(data))
		if _, err := r.Write(data[:n]); err != nil {
			return nil, errors.Join(err, r.Finish())
		}
		data = data[n:]
	}
	return disk, r.Finish()
}

func TestArchiveArrivesAsItWasSent(t *testing.T) {
	files, data := example(t)
	for _, step := range []int{1, 511, 512, 513, 100_000} {
		disk, err := receive(data, step, files)
		if err != nil {
			t.Fatalf("in steps of %d: %v", step, err)
		}
		for _, f := range files {
			if got, err := disk.UnsafeGetFileDataBuffer("to/" + f.Name); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{7}, int(f.Size))) {
				t.Errorf("%s: %d bytes, %v", f.Name, len(got), err)
			}
		}
	}
}

func TestArchiveIsAPlainTar(t *testing.T) {
	_, data := example(t)
	in := tar.NewReader(bytes.NewReader(data))
	var names []string
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if len(names) != 5 || names[0] != headName || names[4] != sumsName {
		t.Fatalf("members %v", names)
	}
}

func TestEveryChangedByteIsNoticed(t *testing.T) {
	files, data := example(t)
	for at := range data {
		bad := bytes.Clone(data)
		bad[at] ^= 1
		if _, err := receive(bad, 4096, files); !errors.Is(err, ErrArchive) {
			t.Fatalf("byte %d changed: %v", at, err)
		}
		if _, err := receive(data[:at], 4096, files); !errors.Is(err, ErrArchive) {
			t.Fatalf("cut to %d: %v", at, err)
		}
	}
}

func TestFileThatShrankIsAnError(t *testing.T) {
	disk := vfs.NewMem()
	if err := disk.MkdirAll("from/a", 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := disk.Create("from/a/b", vfs.WriteCategoryUnspecified)
	if err = errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(NewReader(disk, "from", []byte("head"), []File{{"a/b", 1}})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
}

// FuzzReceiver: no stream makes it panic or write anything but the listed files.
func FuzzReceiver(f *testing.F) {
	files, data := example(f)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		disk, err := receive(data, 1000, files)
		if err != nil {
			return
		}
		if names, err := disk.List("to"); err != nil || len(names) != 2 {
			t.Fatalf("wrote %v, %v", names, err)
		}
	})
}
