package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"conclave/internal/process"
)

// occupancyFile is the file in the data directory that the server which uses it holds locked. It holds the server's
// process, as "PID BORN\n": its number, and the clock ticks from the machine's start to its own.
const occupancyFile = "process"

// moveOut is how long a server waits for another one to leave its data directory: one that was killed leaves it some
// time after it is gone for whoever killed it.
const moveOut = 5 * time.Second

// occupancy is a data directory that this process has taken.
type occupancy struct{ file *os.File }

// occupy takes the data directory for this process. Whoever holds it is named, since what its files say otherwise,
// "resource temporarily unavailable", helps nobody.
func occupy(ctx context.Context, dir string, wait time.Duration) (_ *occupancy, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, occupancyFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the data directory: %w", err)
	}
	err = lock(ctx, f)
	if err == nil {
		// Its last thread closes files one after the other: the lock may be free before the state is.
		err = predecessor(f).Gone(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = inUse(dir, predecessor(f).PID)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// Who holds it is good to know, but no reason not to start: the disk may be full.
	self, _ := process.Find(os.Getpid())
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d %d\n", os.Getpid(), self.Born), 0)
	}
	return &occupancy{f}, nil
}

// leave lets another process have the directory.
func (o *occupancy) leave() error {
	return errors.Join(o.file.Truncate(0), o.file.Close())
}

func inUse(dir string, pid int) error {
	holder := "another process"
	if pid > 0 {
		holder += " (" + strconv.Itoa(pid) + ", as it says)"
	}
	return fmt.Errorf("%s uses the data directory %s, which belongs to one server alone: end that process, or give this server a directory of its own (path in storage \"raft\")", holder, dir)
}

// lock takes the file's lock as soon as it is free.
func lock(ctx context.Context, f *os.File) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// predecessor is the process that the file names. It is the zero Process, which isn't alive, if the file names none, or
// none that could be told from a later one, or this one: a sealed server executes itself anew, under its old number.
func predecessor(f *os.File) process.Process {
	text := make([]byte, 64)
	n, _ := f.ReadAt(text, 0)
	first, second, ok := strings.Cut(strings.TrimSpace(string(text[:n])), " ")
	pid, err1 := strconv.Atoi(first)
	born, err2 := strconv.ParseUint(second, 10, 64)
	if !ok || err1 != nil || err2 != nil || pid < 1 || born == 0 || pid == os.Getpid() {
		return process.Process{}
	}
	return process.Process{PID: pid, Born: born}
}
