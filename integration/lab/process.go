package lab

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

// process is one server process. born tells it from a later one with the same number.
type process struct {
	pid  int
	born uint64        // clock ticks from the machine's start; 0 where /proc is missing
	done chan struct{} // closed when a child of ours has ended; nil for others'
}

// adopt takes note of a process that another one started for us. It returns nil if there is none.
func adopt(pid int) *process {
	p := &process{pid: pid}
	if pid <= 1 || syscall.Kill(pid, 0) != nil {
		return nil
	}
	if stat, err := readStat(pid); err == nil {
		p.born = stat.born
	}
	if !p.alive() {
		return nil
	}
	return p
}

// spawn starts a child and reaps it when it ends.
func spawn(command *exec.Cmd) (*process, error) {
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{pid: command.Process.Pid, done: make(chan struct{})}
	if stat, err := readStat(p.pid); err == nil {
		p.born = stat.born
	}
	go func() { // ends with the process
		defer close(p.done)
		_ = command.Wait() // how a server ended, its log says
	}()
	return p, nil
}

// alive reports whether the process runs, paused or not. One that has ended and whom nobody has reaped does not.
func (p *process) alive() bool {
	if p.done != nil {
		select {
		case <-p.done:
			return false
		default:
			return true
		}
	}
	stat, err := readStat(p.pid)
	if errors.Is(err, errNoProc) {
		return syscall.Kill(p.pid, 0) == nil
	}
	if err != nil || stat.born != p.born || stat.state == 'X' {
		return false
	}
	return stat.state != 'Z' || p.threads() > 1
}

// threads is how many threads the process has left. Killed, its first one may be gone while others still end: until
// then its files are locked.
func (p *process) threads() int {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(p.pid) + "/task")
	if err != nil {
		return 0
	}
	return len(threads)
}

func (p *process) signal(s syscall.Signal) error {
	if !p.alive() {
		if s == syscall.SIGKILL || s == syscall.SIGTERM || s == syscall.SIGQUIT {
			return nil
		}
		return fmt.Errorf("process %d has ended", p.pid)
	}
	if err := syscall.Kill(p.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// gone waits until the process has ended.
func (p *process) gone(ctx context.Context) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for p.alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
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
	stat, err := readStat(p.pid)
	if err != nil {
		return Usage{}, err
	}
	return Usage{CPU: time.Duration(stat.cpu) * time.Second / ticksPerSecond, RSS: stat.rss * int64(os.Getpagesize())}, nil
}

// ticksPerSecond is USER_HZ, 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// errNoProc means that this system has no /proc.
var errNoProc = errors.New("no /proc here")

// stat is what proc(5) says in /proc/PID/stat.
type stat struct {
	state byte
	cpu   uint64 // utime + stime, in ticks
	born  uint64 // starttime, in ticks
	rss   int64  // pages
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if _, self := os.Stat("/proc/self/stat"); self != nil {
			return stat{}, errNoProc
		}
		return stat{}, err
	}
	// The command's name, in parentheses, may hold spaces and parentheses itself.
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	if end < 0 || len(fields) < 22 {
		return stat{}, fmt.Errorf("process %d: malformed stat", pid)
	}
	number := func(field int) uint64 { // numbered as in proc(5)
		n, _ := strconv.ParseUint(fields[field-3], 10, 64)
		return n
	}
	return stat{state: fields[0][0], cpu: number(14) + number(15), born: number(22), rss: int64(number(24))}, nil
}

// Peak is the most memory that node n has had resident, in bytes; with reset, what it has now, from which its peak is
// counted anew. It needs Linux's /proc.
func (l *Lab) Peak(n int, reset bool) (int64, error) {
	p := l.process(n)
	if p == nil {
		return 0, fmt.Errorf("node %d is down", n)
	}
	dir := "/proc/" + strconv.Itoa(p.pid)
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
		return 0, fmt.Errorf("process %d: no peak in its status", p.pid)
	}
	kilobytes, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return kilobytes << 10, err
}
