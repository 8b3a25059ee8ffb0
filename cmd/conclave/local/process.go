package local

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cleared are variables that would make all nodes of a lab alike, or are secrets that servers have no use for.
var cleared = []string{"API_ADDR", "CLUSTER_ADDR", "RAFT_NODE_ID", "RAFT_PATH", "JOIN", "BOOTSTRAP_EXPECT", "GOSSIP_ADDR", "CLUSTER_SECRET_FILE", "TOKEN"}

func environment(more []string) []string {
	kept := slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		for _, prefix := range []string{"CONCLAVE_", "VAULT_"} {
			if rest, ok := strings.CutPrefix(name, prefix); ok && slices.Contains(cleared, rest) {
				return true
			}
		}
		return false
	})
	return append(kept, more...)
}

// child is a node's process that this run of the program started; ended is closed when it has ended.
type child struct {
	pid   int
	ended chan struct{}
}

// spawn starts node n in a session of its own, so that it outlives this program and its terminal.
func (c *Cluster) spawn(n int) (*child, error) {
	start := c.StartCmds[n-1]
	log, err := os.OpenFile(c.LogFiles[n-1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of node %d: %w", n, err)
	}
	defer log.Close()
	cmd := exec.Command(start.Argv[0], start.Argv[1:]...)
	cmd.Dir, cmd.Env = start.Dir, environment(start.Env)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if len(c.Groups) == len(c.Addrs) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(c.Groups[n-1]), Groups: groups()}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node %d: %w", n, err)
	}
	c.PIDs[n-1] = cmd.Process.Pid
	p := &child{cmd.Process.Pid, make(chan struct{})}
	go func() { // ends with the process, or with this program, which the process outlives
		_ = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func groups() []uint32 {
	list, err := os.Getgroups()
	if err != nil {
		return nil
	}
	ids := make([]uint32, len(list))
	for i, id := range list {
		ids[i] = uint32(id)
	}
	return ids
}

// configOf is the argument that tells a node's process from every other: its configuration file.
func (c *Cluster) configOf(n int) string {
	argv := c.StartCmds[n-1].Argv
	return argv[len(argv)-1]
}

// running reports whether node n has a process, paused or not. The number alone proves nothing.
func (c *Cluster) running(n int) bool {
	pid := c.PIDs[n-1]
	if pid <= 1 {
		return false
	}
	args, err := commandLine(pid)
	return err == nil && slices.Contains(args, "server") && slices.Contains(args, c.configOf(n))
}

// commandLine returns the arguments of a process: from /proc, or where there is none from ps, which separates them by
// blanks. A process that has ended, reaped or not, has none.
func commandLine(pid int) ([]string, error) {
	if _, self := os.Stat("/proc/self/cmdline"); self == nil {
		return arguments(func() ([]byte, error) { return os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline") }, func() bool { return ended(pid) })
	}
	text, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil, os.ErrProcessDone
	}
	return strings.Fields(string(text)), nil
}

// For execGrace at most an empty command line is taken for that of a process whose program is being loaded, looked at
// every execPoll. Threads of the kernel never have one.
const (
	execGrace = 2 * time.Second
	execPoll  = time.Millisecond
)

// arguments parses what read gets from /proc/PID/cmdline. That is empty when the process has ended, but for an instant
// also when it begins: the kernel lets go of the parent before it has laid the arguments of the new program.
func arguments(read func() ([]byte, error), ended func() bool) ([]string, error) {
	for range execGrace / execPoll {
		text, err := read()
		switch {
		case err != nil:
			return nil, os.ErrProcessDone
		case len(text) > 0:
			return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
		case ended():
			return nil, os.ErrProcessDone
		}
		<-time.After(execPoll)
	}
	return nil, os.ErrProcessDone
}

// state is the letter of a process's state in proc(5); 0 if there is none.
func state(pid int) byte {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, ok := bytes.Cut(text[max(bytes.LastIndexByte(text, ')'), 0):], []byte(") "))
	if err != nil || !ok || len(rest) == 0 {
		return 0
	}
	return rest[0]
}

// ended reports whether a process is no more, or nothing but its number, which its parent hasn't taken yet.
func ended(pid int) bool { return strings.IndexByte("\x00ZXx", state(pid)) >= 0 }

// paused reports whether the process of node n is stopped; where /proc is missing it can't be told.
func (c *Cluster) paused(n int) bool { return state(c.PIDs[n-1]) == 'T' }

// signal sends s to node n, if its process is ours.
func (c *Cluster) signal(n int, s syscall.Signal) error {
	if !c.running(n) {
		return errDown
	}
	if err := syscall.Kill(c.PIDs[n-1], s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal node %d: %w", n, err)
	}
	return nil
}

var errDown = errors.New("the node is not running")

// maxTail bounds what is shown of a log, in bytes.
const maxTail = 2 << 10

// tail is the end of node n's log.
func (c *Cluster) tail(n int) string {
	f, err := os.Open(c.LogFiles[n-1])
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxTail {
		if _, err := f.Seek(-maxTail, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, _ := io.ReadAll(io.LimitReader(f, maxTail))
	return strings.TrimSpace(string(text))
}
