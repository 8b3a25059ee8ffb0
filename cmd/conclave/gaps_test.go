package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/gap"
)

// What a node refused while it was sealed is in the log after it was opened, over a restart too.
func TestRefusalsOfASealedNodeAreRecordedOnceItIsOpen(t *testing.T) {
	d := startVault(t, t.TempDir(), nil)
	file := filepath.Join(d.settings.Storage.Path, gapFile)
	for range 3 {
		if _, err := d.do(conclave.NewSecret("any"), conclave.Read, "sys/mounts", nil); !conclave.Is(err, conclave.Sealed) {
			t.Fatalf("before init: %v", err)
		}
	}
	d.closeGaps()
	if kept, err := os.ReadFile(file); err != nil || !bytes.Contains(kept, []byte(`"counts":{"sealed":3}`)) {
		t.Fatalf("%s holds %s, %v", gapFile, kept, err)
	}

	d.gaps = gap.New(d.cluster.Now) // as in a process that has just started
	opened, err := d.openDev(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	d.opened, d.root = opened, conclave.NewSecret(opened.RootToken)
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error { return d.followGaps(ctx) })
	defer func() {
		cancel()
		_ = group.Wait() // it has no error
	}()
	waitFor(t, "a gap record", func() bool { return d.gaps.Recorded() == 1 })
	found := 0
	for _, record := range d.records(0) {
		if bytes.Contains(record.Request, []byte(`"path":"sys/audit-gap"`)) && bytes.Contains(record.Request, []byte(`"counts":{"sealed":3}`)) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d gap records of 3 refusals, want 1", found)
	}
	waitFor(t, "the file to go", func() bool { _, err := os.Stat(file); return os.IsNotExist(err) })
}
