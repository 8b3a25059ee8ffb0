package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"conclave/internal/process"
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

// process returns the process of node n, paused or not; false if it has none. The number alone proves nothing.
func (c *Cluster) process(n int) (process.Process, bool) {
	p, ok := process.Find(c.PIDs[n-1])
	if !ok {
		return p, false
	}
	args, err := process.Arguments(p.PID)
	return p, err == nil && slices.Contains(args, "server") && slices.Contains(args, c.configOf(n))
}

// running reports whether node n has a process.
func (c *Cluster) running(n int) bool {
	_, ok := c.process(n)
	return ok
}

// paused reports whether the process of node n is stopped.
func (c *Cluster) paused(n int) bool {
	p, ok := c.process(n)
	return ok && p.Paused()
}

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
