package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"conclave/internal/process"
)

// server is the process of a node.
type server struct {
	process.Process
	done chan struct{} // closed when a child of ours has ended; nil for others'
}

// adopt takes note of a process that another one started for us. It returns nil if there is none.
func adopt(pid int) *server {
	p, ok := process.Find(pid)
	if !ok {
		return nil
	}
	return &server{Process: p}
}

// spawn starts a child and reaps it when it ends.
func spawn(command *exec.Cmd) (*server, error) {
	if err := command.Start(); err != nil {
		return nil, err
	}
	p, _ := process.Find(command.Process.Pid)
	s := &server{Process: p, done: make(chan struct{})}
	go func() { // ends with the process
		defer close(s.done)
		_ = command.Wait() // how a server ended, its log says
	}()
	return s, nil
}

// alive reports whether the process runs, paused or not. One that has ended and whom nobody has reaped does not.
func (s *server) alive() bool {
	if s.done == nil {
		return s.Alive()
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

func (s *server) signal(how syscall.Signal) error {
	if !s.alive() {
		if how == syscall.SIGKILL || how == syscall.SIGTERM || how == syscall.SIGQUIT {
			return nil
		}
		return fmt.Errorf("process %d has ended", s.PID)
	}
	if err := syscall.Kill(s.PID, how); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", s.PID, err)
	}
	return nil
}

// gone waits until the process has ended.
func (s *server) gone(ctx context.Context) error {
	if s.done == nil {
		return s.Gone(ctx)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Usage is what a node has used and holds.
type Usage struct {
	CPU time.Duration // user and system time since its start, at 10 ms resolution
	RSS int64         // resident bytes
}

// Usage reads what node n uses. It needs Linux's /proc.
func (l *Lab) Usage(n int) (Usage, error) {
	p := l.process(n)
	if p == nil {
		return Usage{}, fmt.Errorf("node %d is down", n)
	}
	stat, err := process.ReadStat(p.PID)
	if err != nil {
		return Usage{}, err
	}
	return Usage{CPU: time.Duration(stat.CPU) * time.Second / ticksPerSecond, RSS: stat.RSS * int64(os.Getpagesize())}, nil
}

// ticksPerSecond is USER_HZ, 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// Peak is the most memory that node n has had resident, in bytes; with reset, what it has now, from which its peak is
// counted anew. It needs Linux's /proc.
func (l *Lab) Peak(n int, reset bool) (int64, error) {
	p := l.process(n)
	if p == nil {
		return 0, fmt.Errorf("node %d is down", n)
	}
	dir := "/proc/" + strconv.Itoa(p.PID)
	if reset {
		if err := os.WriteFile(dir+"/clear_refs", []byte("5"), 0); err != nil {
			return 0, err
		}
	}
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text, []byte("\nVmHWM:"))
	fields := bytes.Fields(rest)
	if len(fields) < 2 {
		return 0, fmt.Errorf("process %d: no peak in its status", p.PID)
	}
	kilobytes, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return kilobytes << 10, err
}
