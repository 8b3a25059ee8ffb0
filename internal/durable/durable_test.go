package durable

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestWhatWasWrittenIsThereAfterACrash(t *testing.T) {
	disk := vfs.NewCrashableMem()
	if err := errors.Join(MakeDir(disk, "dir"), WriteFile(disk, "dir/file", []byte("old")), WriteFile(disk, "dir/file", []byte("new"))); err != nil {
		t.Fatal(err)
	}
	disk = disk.CrashClone(vfs.CrashCloneCfg{})
	if b, err := ReadFile(disk, "dir/file", 3); err != nil || string(b) != "new" {
		t.Errorf("after a crash the file is %q, %v, want new", b, err)
	}
	if _, err := ReadFile(disk, "dir/file", 2); err == nil {
		t.Error("a file above the limit was read")
	}
	if err := WriteFile(disk, "dir/other", nil); err != nil {
		t.Fatal(err)
	}
	if err := RemoveOthers(disk, "dir", "file"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(disk, "dir/other", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed file is read with %v, want %v", err, fs.ErrNotExist)
	}
	if names, err := disk.List("dir"); err != nil || len(names) != 1 {
		t.Errorf("the directory holds %v, %v, want the file alone", names, err)
	}
}
