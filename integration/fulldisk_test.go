//go:build torture && linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"conclave/integration/lab"
)

// diskSize is that of each node's file system: two segments of Raft's log and a little.
const diskSize = "size=768m"

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
	lab     *lab.Lab
	written map[string]string
	next    int
}

const ledgerValue = 64 << 10

// write writes a value through node n, and takes note if it was acknowledged.
func (b *ledger) write(ctx context.Context, n int) (*lab.Answer, error) {
	b.next++
	name := fmt.Sprintf("secret/data/full/%04d", b.next)
	value := strings.Repeat(fmt.Sprintf("%08d", b.next), ledgerValue/8)
	answer, err := b.lab.Client(n).Do(ctx, "POST", name, map[string]any{"data": map[string]string{"value": value}})
	if err == nil && answer.Status == 200 {
		b.written[name] = value
	}
	return answer, err
}

// check reads all that was acknowledged through node n.
func (b *ledger) check(ctx context.Context, n int) error {
	for name, value := range b.written {
		var got struct{ Data struct{ Value string } }
		if err := b.lab.Client(n).Read(ctx, name, &got); err != nil {
			return fmt.Errorf("node %d: read %s: %w", n, name, err)
		}
		if got.Data.Value != value {
			return fmt.Errorf("node %d: %s holds something else than was acknowledged", n, name)
		}
	}
	return nil
}

func TestTortureExplore(t *testing.T) {
	l := startLab(t, 3)
	onSmallDisks(t, l)
	book := &ledger{lab: l, written: map[string]string{}}
	start := time.Now()
	logf := func(f string, a ...any) { t.Logf("%6.2fs "+f, append([]any{time.Since(start).Seconds()}, a...)...) }
	try := func(n int) string {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		began := time.Now()
		a, err := book.write(ctx, n)
		if err != nil {
			return fmt.Sprint(time.Since(began), err)
		}
		return fmt.Sprint(time.Since(began), a.Status, string(a.Body[:min(300, len(a.Body))]))
	}
	read := func(n int) string {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		began := time.Now()
		a, err := l.Client(n).Do(ctx, "GET", "secret/data/full/0001", nil)
		if err != nil {
			return fmt.Sprint(time.Since(began), err)
		}
		return fmt.Sprint(time.Since(began), a.Status, string(a.Body[:min(200, len(a.Body))]))
	}
	status := func() {
		for n := 1; n <= 3; n++ {
			logf("  node %d running=%v", n, l.Running(n))
		}
	}
	phase := func(name string, nodes ...int) {
		logf("--- %s %v", name, nodes)
		defer func() { logf("end %s", name) }()
		for _, n := range nodes {
			fillDisk(t, l, n)
		}
		<-time.After(time.Second)
		for n := 1; n <= 3; n++ {
			logf("write %d: %s", n, try(n))
			logf("read %d: %s", n, read(n))
		}
		ok, bad := 0, 0
		for i := 0; i < 1500; i++ {
			if s := try(1 + i%3); strings.Contains(s, "200") {
				ok++
			} else {
				bad++
				if bad%10 == 1 {
					logf("bad %s", s)
				}
				if bad > 20 {
					break
				}
			}
		}
		logf("ok %d bad %d", ok, bad)
		for n := 1; n <= 3; n++ {
			logf("write %d: %s", n, try(n))
			logf("read %d: %s", n, read(n))
		}
		status()
		for _, n := range nodes {
			if _, err := os.Stat(filepath.Join(l.DataDirs[n-1], "ballast")); err == nil {
				freeDisk(t, l, n)
			}
		}
		for n := 1; n <= 3; n++ {
			if !l.Running(n) {
				logf("restart %d: %v", n, l.Start(within(t, time.Minute), n))
			}
		}
		for n := 1; n <= 3; n++ {
			began := time.Now()
			var err error
			for time.Since(began) < 30*time.Second {
				if err = book.check(within(t, 20*time.Second), n); err == nil {
					break
				}
			}
			logf("check %d (%d): %v after %v", n, len(book.written), err, time.Since(began))
		}
	}
	logf("write 1: %s", try(1))
	lead, err := l.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	phase("follower", lead%3+1)
	if lead, err = l.Leader(t.Context()); err != nil {
		t.Fatal(err)
	}
	phase("leader", lead)
	phase("all", 1, 2, 3)
	for n := 1; n <= 3; n++ {
		b, _ := os.ReadFile(l.LogFiles[n-1])
		os.WriteFile(fmt.Sprintf("/tmp/fdt/node%d.log", n), b, 0o600)
	}
}
