// Package process knows a process of this machine from a later one with the same number, and knows when one is really
// gone. Where there is no /proc it asks ps and kill(2), and takes a number for the process.
//
// It starts, signals and ends nothing.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is one process. Two are the same if they are equal.
type Process struct {
	PID  int
	Born uint64 // clock ticks from the machine's start to its own; 0 where there is no /proc
}

// Find returns the process that has the number pid now; false if there is none, or only one that nobody has reaped.
func Find(pid int) (Process, bool) {
	if pid <= 1 {
		return Process{}, false
	}
	p := Process{PID: pid}
	if stat, err := ReadStat(pid); err == nil {
		p.Born = stat.Born
	}
	return p, p.Alive()
}

// Alive reports whether the process runs, paused or not, or is still ending: killed, its first thread may be gone while
// others still end, and until the last one has its files are locked.
func (p Process) Alive() bool {
	stat, err := ReadStat(p.PID)
	switch {
	case errors.Is(err, ErrNoProc):
		return p.PID > 1 && syscall.Kill(p.PID, 0) == nil
	case err != nil || stat.Born != p.Born || stat.State == 'X':
		return false
	}
	return stat.State != 'Z' || threads(p.PID) > 1
}

// pollEvery is how often a process is looked at that ends or begins.
const pollEvery = time.Millisecond

// Gone waits until the process isn't alive, or ctx ends.
func (p Process) Gone(ctx context.Context) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for p.Alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// Paused reports whether the process is stopped; where there is no /proc it can't be told.
func (p Process) Paused() bool {
	stat, err := ReadStat(p.PID)
	return err == nil && stat.Born == p.Born && stat.State == 'T'
}

func threads(pid int) int {
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return 0
	}
	return len(entries)
}

// Arguments returns the command line of the process that has the number pid, from /proc, or else from ps, which
// separates arguments by blanks. The error is os.ErrProcessDone if there is no process, or only what is left of one.
func Arguments(pid int) ([]string, error) {
	if _, self := os.Stat("/proc/self/cmdline"); self == nil {
		return arguments(func() ([]byte, error) { return os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline") }, func() bool {
			stat, err := ReadStat(pid)
			return err != nil || stat.State == 'Z' || stat.State == 'X'
		})
	}
	text, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil, os.ErrProcessDone
	}
	return strings.Fields(string(text)), nil
}

// execGrace is how long at most an empty command line is taken for that of a process whose program is being loaded.
// Threads of the kernel never have one.
const execGrace = 2 * time.Second

// arguments parses what read gets from /proc/PID/cmdline. That is empty when the process has ended, but for an instant
// also when it begins: the kernel lets go of the parent before it has laid the arguments of the new program.
func arguments(read func() ([]byte, error), ended func() bool) ([]string, error) {
	for range execGrace / pollEvery {
		text, err := read()
		switch {
		case err != nil:
			return nil, os.ErrProcessDone
		case len(text) > 0:
			return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
		case ended():
			return nil, os.ErrProcessDone
		}
		<-time.After(pollEvery)
	}
	return nil, os.ErrProcessDone
}

// ErrNoProc means that this system has no /proc.
var ErrNoProc = errors.New("no /proc here")

// Stat is what proc(5) says in /proc/PID/stat.
type Stat struct {
	State byte   // 'T' is stopped, 'Z' ended but not reaped
	CPU   uint64 // user and system time, in ticks
	Born  uint64 // ticks from the machine's start
	RSS   int64  // resident pages
}

// ReadStat reads that of the process that has the number pid now.
func ReadStat(pid int) (Stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if _, self := os.Stat("/proc/self/stat"); self != nil {
			return Stat{}, ErrNoProc
		}
		return Stat{}, err
	}
	stat, err := parseStat(text)
	if err != nil {
		return Stat{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return stat, nil
}

func parseStat(text []byte) (Stat, error) {
	// The command's name, in parentheses, may hold spaces and parentheses itself.
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	if end < 0 || len(fields) < 22 {
		return Stat{}, errors.New("malformed stat")
	}
	number := func(field int) uint64 { // numbered as in proc(5)
		n, _ := strconv.ParseUint(fields[field-3], 10, 64)
		return n
	}
	return Stat{State: fields[0][0], CPU: number(14) + number(15), Born: number(22), RSS: int64(number(24))}, nil
}
