package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestLoneNodeMakesItsClusterSecretOnce(t *testing.T) {
	dir := t.TempDir()
	made, err := clusterSecret("", dir)
	if err != nil || len(made) != 64 {
		t.Fatalf("clusterSecret = %d bytes, %v, want 64", len(made), err)
	}
	file := filepath.Join(dir, ownSecretFile)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat = %v, %v, want mode 0600", info, err)
	}
	if again, err := clusterSecret("", dir); err != nil || !bytes.Equal(again, made) {
		t.Errorf("the second time = %q, %v, want what was made", again, err)
	}
	// A node that is to join takes a copy.
	if copied, err := clusterSecret(file, t.TempDir()); err != nil || !bytes.Equal(copied, made) {
		t.Errorf("of its file = %q, %v, want what was made", copied, err)
	}
	if got, err := clusterSecret(filepath.Join(dir, "none"), dir); err == nil {
		t.Errorf("of a file that isn't there = %q, want an error", got)
	}
}
