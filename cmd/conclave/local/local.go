// Package local is a lab on one machine: clusters of real server processes on loopback, with TLS and audit files, to
// try things on, to rehearse what docs/operations.md says, and to test with.
//
// It signals only processes that it started: one is known by the configuration file on its command line, which lies in
// the lab's directory. A process that merely has the same number is left alone.
package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
)

// Limits of a lab.
const (
	maxNodes  = 9
	maxShares = 255
)

// lab is the lab in one directory, and the run of the program that works on it.
type lab struct {
	s   *client.Session
	dir string
}

// Command is the group.
func Command(s *client.Session) *cobra.Command {
	l := &lab{s: s}
	group := &cobra.Command{Use: "local", Short: "Run a cluster on this machine, to try things on",
		Long: "Run a cluster on this machine: real server processes on loopback, with TLS and audit files. Nodes are numbered from 1.\n" +
			"The lab's keys and root token lie in its directory, in cluster.json: it is for trying out, not for secrets."}
	group.PersistentFlags().StringVar(&l.dir, "dir", "", "`directory` of the lab (default ~/.local/state/conclave/local)")
	group.AddCommand(l.upCommand(), l.statusCommand(), l.tourCommand(), l.downCommand(),
		l.nodeCommand("kill", "End a node at once, as a crash would (SIGKILL)", l.kill),
		l.nodeCommand("start", "Start a node that is down, and open it", l.start),
		l.nodeCommand("pause", "Stop a node where it is, as if it hung (SIGSTOP)", l.pause),
		l.nodeCommand("resume", "Let a paused node go on (SIGCONT)", l.resume),
		l.nodeCommand("partition", "Cut a node off from the others (root and iptables are needed)", l.partition),
		l.nodeCommand("heal", "End a partition", l.heal))
	group.PersistentPreRunE = func(*cobra.Command, []string) error { return l.chooseDir() }
	return group
}

// chooseDir makes the directory absolute, for paths in it go into configurations.
func (l *lab) chooseDir() error {
	if l.dir == "" {
		state := l.s.Getenv("XDG_STATE_HOME")
		if state == "" {
			home := l.s.Getenv("HOME")
			if home == "" {
				return client.Usagef("there is no home directory: name one for the lab with -dir")
			}
			state = filepath.Join(home, ".local", "state")
		}
		l.dir = filepath.Join(state, "conclave", "local")
	}
	dir, err := filepath.Abs(l.dir)
	l.dir = dir
	return err
}

// nodeCommand is a command on one node of the lab.
func (l *lab) nodeCommand(name, short string, run func(cmd *cobra.Command, c *Cluster, n int) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " N", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := l.load()
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 || n > len(c.Addrs) {
				return client.Usagef("%q is not the number of a node: the lab has nodes 1 to %d", args[0], len(c.Addrs))
			}
			return run(cmd, c, n)
		},
	}
}

func (l *lab) load() (*Cluster, error) {
	c, err := load(l.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, client.Usagef("there is no lab in %s: start one with `conclave local up`", l.dir)
	}
	return c, err
}

// say shows progress; it goes to standard error, for standard output is for what a shell may evaluate.
func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.s.Err, format+"\n", args...) }
