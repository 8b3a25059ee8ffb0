//go:build torture && linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"conclave/integration/lab"
)

// diskSize is that of each node's file system.
const diskSize = "size=1g"

// onSmallDisks moves every node's data to a file system of its own.
func onSmallDisks(t *testing.T, l *lab.Lab) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting file systems takes root")
	}
	for n := 1; n <= l.Nodes(); n++ {
		if err := l.Terminate(n); err != nil {
			t.Fatal(err)
		}
	}
	for n, dir := range l.DataDirs {
		if err := errors.Join(os.Rename(dir, dir+".moved"), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, diskSize); err != nil {
			t.Skipf("mount a file system: %v", err)
		}
		t.Cleanup(func() {
			if l.Running(n + 1) {
				if err := l.Kill(n + 1); err != nil {
					t.Error(err)
				}
			}
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		if err := os.CopyFS(dir, os.DirFS(dir+".moved")); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Start(within(t, time.Minute), 1, 2, 3); err != nil {
		t.Fatal(err)
	}
}

// fillDisk leaves no byte of a node's disk free.
func fillDisk(t *testing.T, l *lab.Lab, n int) {
	t.Helper()
	file, err := os.Create(filepath.Join(l.DataDirs[n-1], "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, err = io.Copy(file, zeros{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk of node %d: %v, want %v", n, err, syscall.ENOSPC)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// freeDisk gives a node's disk its room back.
func freeDisk(t *testing.T, l *lab.Lab, n int) {
	t.Helper()
	if err := os.Remove(filepath.Join(l.DataDirs[n-1], "ballast")); err != nil {
		t.Fatal(err)
	}
}

// ledger is what the cluster has acknowledged.
type ledger struct {
	lab   *lab.Lab
	acked []int
	next  int
}

const (
	ledgerValue = 64 << 10 // bytes
	ledgerTime  = 20 * time.Second
)

func ledgerEntry(n int) (path, value string) {
	return fmt.Sprintf("secret/data/full/%05d", n), strings.Repeat(fmt.Sprintf("%08d", n), ledgerValue/8)
}

// write writes the next value through a node, and takes note if it is acknowledged.
func (b *ledger) write(ctx context.Context, node int) (*lab.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTime)
	defer cancel()
	b.next++
	path, value := ledgerEntry(b.next)
	answer, err := b.lab.Client(node).Do(ctx, http.MethodPost, path, map[string]any{"data": map[string]string{"value": value}})
	if err == nil && answer.Status == http.StatusOK {
		b.acked = append(b.acked, b.next)
	}
	return answer, err
}

// writeMany writes n values through these nodes, all of which must be acknowledged.
func (b *ledger) writeMany(t *testing.T, n int, nodes ...int) {
	t.Helper()
	for i := range n {
		answer, err := b.write(t.Context(), nodes[i%len(nodes)])
		if err == nil {
			err = answer.Want(http.StatusOK)
		}
		if err != nil {
			t.Fatalf("write %d of %d through node %d: %v", i+1, n, nodes[i%len(nodes)], err)
		}
	}
}

// wantNothingLost reads of what was acknowledged every seventh value and the latest through each node, from when it
// serves again.
func (b *ledger) wantNothingLost(t *testing.T) {
	t.Helper()
	for node := 1; node <= b.lab.Nodes(); node++ {
		latest := b.acked[len(b.acked)-1]
		eventually(t, time.Minute, func(ctx context.Context) error { return b.check(ctx, node, latest) })
		for i := 0; i < len(b.acked); i += 7 {
			if err := b.check(t.Context(), node, b.acked[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (b *ledger) check(ctx context.Context, node, n int) error {
	path, value := ledgerEntry(n)
	var got struct{ Data struct{ Value string } }
	if err := b.lab.Client(node).Read(ctx, path, &got); err != nil {
		return fmt.Errorf("read %s through node %d: %w", path, node, err)
	}
	if got.Data.Value != value {
		return fmt.Errorf("%s through node %d isn't what was acknowledged", path, node)
	}
	return nil
}

// refused waits until a node refuses a read and a write for want of room, which it must say.
func (b *ledger) refused(t *testing.T, node int) {
	t.Helper()
	path, _ := ledgerEntry(b.acked[0])
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		write, err := b.write(ctx, node)
		if err != nil {
			return err
		}
		read, err := b.lab.Client(node).Do(ctx, http.MethodGet, path, nil)
		if err != nil {
			return err
		}
		for what, answer := range map[string]*lab.Answer{"write": write, "read": read} {
			if answer.Status != http.StatusServiceUnavailable || !strings.Contains(string(answer.Body), "has no room") {
				return fmt.Errorf("a %s through node %d: status %d, %s; want 503 and why", what, node, answer.Status, answer.Body)
			}
		}
		return nil
	})
}

// revive starts nodes that have ended, as a service manager would.
func revive(t *testing.T, l *lab.Lab) {
	t.Helper()
	for n := 1; n <= l.Nodes(); n++ {
		if !l.Running(n) {
			t.Logf("node %d had ended and is started again", n)
			if err := l.Start(within(t, time.Minute), n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTortureFullDisk: no acknowledged write is lost when disks fill up, whoever has room goes on if it can, who can't says
// so, and all serve again when there is room. A read adds to the audit log, so it is refused where a write is.
func TestTortureFullDisk(t *testing.T) {
	l := startLab(t, 3)
	onSmallDisks(t, l)
	book := &ledger{lab: l}
	book.writeMany(t, 30, 1, 2, 3)
	leader, err := l.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	full := others(l, leader)[0]
	fillDisk(t, l, full)
	// More than the segments that the follower's log has made in advance.
	book.writeMany(t, 2500, others(l, full)...)
	if !l.Running(full) {
		t.Errorf("node %d, a follower, has ended for a full disk", full)
	}
	freeDisk(t, l, full)
	revive(t, l)
	book.wantNothingLost(t)

	if leader, err = l.Leader(t.Context()); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, l, leader)
	var now int
	eventually(t, 10*time.Second, func(ctx context.Context) (err error) {
		if now, err = l.Leader(ctx); err == nil && now == leader {
			err = fmt.Errorf("node %d still leads, whose disk is full", leader)
		}
		return err
	})
	eventually(t, 10*time.Second, func(ctx context.Context) error {
		answer, err := book.write(ctx, now)
		if err == nil {
			err = answer.Want(http.StatusOK)
		}
		return err
	})
	book.writeMany(t, 300, others(l, leader)...)
	if now, err = l.Leader(t.Context()); err != nil || now == leader {
		t.Errorf("node %d leads, whose disk is full: %v", now, err)
	}
	if !l.Running(leader) {
		t.Errorf("node %d has ended for a full disk while it led", leader)
	}
	freeDisk(t, l, leader)
	revive(t, l)
	book.wantNothingLost(t)

	for n := 1; n <= 3; n++ {
		fillDisk(t, l, n)
	}
	for n := 1; n <= 3; n++ {
		book.refused(t, n)
	}
	for n := 1; n <= 3; n++ {
		if !l.Running(n) {
			t.Errorf("node %d has ended for a full disk", n)
		}
		freeDisk(t, l, n)
	}
	revive(t, l)
	book.wantNothingLost(t)
	book.writeMany(t, 30, 1, 2, 3)
	book.wantNothingLost(t)
}
