package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"conclave/cmd/conclave/client"
	"conclave/internal/process"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

// upTimeout is when `up` gives up.
const upTimeout = 90 * time.Second

func (l *lab) upCommand() *cobra.Command {
	var nodes, shares, threshold int
	cmd := &cobra.Command{
		Use: "up", Short: "Start a new cluster, initialised and open", Args: cobra.NoArgs,
		Long: "Start a new cluster of real servers on loopback, initialise and open it, mount kv version 2 at secret/, and print the lines that\n" +
			"make a shell talk to it: eval \"$(conclave local up)\". Servers go on when the command ends; `conclave local down` ends them.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case nodes < 1 || nodes > maxNodes:
				return client.Usagef("-nodes is from 1 to %d", maxNodes)
			case shares < 1 || shares > maxShares || threshold < 1 || threshold > shares || threshold == 1 && shares > 1:
				return client.Usagef("-shares is from 1 to %d, -threshold from 2 to that (1 of 1 is possible too)", maxShares)
			}
			return l.up(cmd.Context(), nodes, shares, threshold)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 3, "`number` of nodes")
	cmd.Flags().IntVar(&shares, "shares", 5, "`number` of unseal shares")
	cmd.Flags().IntVar(&threshold, "threshold", 3, "`number` of shares that open the vault")
	return cmd
}

func (l *lab) up(ctx context.Context, nodes, shares, threshold int) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	began := time.Now()
	if err := l.makeRoom(); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start servers with it: %w", err)
	}
	c, err := lay(l.dir, program, nodes, began)
	if err != nil {
		return err
	}
	c.Threshold, c.Groups = threshold, ownGroups(nodes)
	// What was started is to be found and ended, whatever happens from here on.
	children := make([]*child, nodes)
	for i := range nodes {
		if children[i], err = c.spawn(i + 1); err != nil {
			break
		}
	}
	if err := errors.Join(err, c.save(l.dir)); err != nil {
		return errors.Join(err, c.killAll(context.WithoutCancel(ctx)))
	}
	l.say("started %d servers in %s", nodes, l.dir)
	if err := l.form(ctx, c, children, shares); err != nil {
		l.say("the servers are ended; their logs stay in %s", l.dir)
		return errors.Join(err, c.killAll(context.WithoutCancel(ctx)))
	}
	l.say("the cluster is open, after %.1f s\n", time.Since(began).Seconds())
	l.exports(c)
	return nil
}

// makeRoom refuses a directory with a cluster that runs, and clears one whose cluster doesn't. Of a directory that isn't
// a lab it touches nothing.
func (l *lab) makeRoom() error {
	c, err := load(l.dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if names := entries(l.dir); names != "" {
			return client.Usagef("%s isn't a lab and holds %s: a lab wants a directory to itself. Move that away, or name another directory with -dir", l.dir, names)
		}
		return nil
	case err != nil:
		return err
	}
	for n := range c.Addrs {
		if c.running(n + 1) {
			return client.Usagef("the lab in %s is running: `conclave local status` shows it, `conclave local down` ends it, -dir names another directory", l.dir)
		}
	}
	l.say("clearing the lab in %s, which isn't running", l.dir)
	if err := c.wipe(l.dir); err != nil {
		return err
	}
	return l.makeRoom() // there may be what the lab didn't make
}

// maxNamed bounds how many files of a directory are named.
const maxNamed = 5

// entries names what is in a directory; it is empty if nothing is.
func entries(dir string) string {
	found, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var names []string
	for _, entry := range found[:min(len(found), maxNamed)] {
		names = append(names, entry.Name())
	}
	text := strings.Join(names, ", ")
	if more := len(found) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// form waits until the nodes have found each other, initialises the vault, opens it and gives it its first mount.
func (l *lab) form(ctx context.Context, c *Cluster, children []*child, shares int) error {
	clients := make([]*api.Client, len(c.Addrs))
	for i := range clients {
		var err error
		if clients[i], err = c.client(i + 1); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i, p := range children {
		go func() { // ends with the child or with form
			select {
			case <-p.ended:
				cancel(fmt.Errorf("node %d has ended; its log %s ends so:\n%s", i+1, c.LogFiles[i], c.tail(i+1)))
			case <-ctx.Done():
			}
		}()
	}
	if err := c.initialise(ctx, clients[0], shares); err != nil {
		return err
	}
	if err := c.save(l.dir); err != nil {
		return err
	}
	l.say("the nodes have found each other; initialised with %d shares, of which %d open the vault", shares, c.Threshold)
	if err := c.unseal(ctx, clients[0]); err != nil {
		return err
	}
	for i := range clients {
		clients[i].SetToken(c.RootToken)
		if err := c.serving(ctx, i+1, clients[i]); err != nil {
			return err
		}
	}
	if err := c.enableAudit(ctx, clients); err != nil {
		return err
	}
	return patiently(ctx, "mount kv at secret/", func() error {
		return clients[0].Sys().MountWithContext(ctx, "secret", &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}, Description: "secrets of the lab"})
	})
}

// exports prints what makes a shell talk to the lab.
func (l *lab) exports(c *Cluster) {
	for _, line := range [][2]string{{"CONCLAVE_ADDR", c.Addrs[0]}, {"CONCLAVE_CACERT", c.CA}, {"CONCLAVE_TOKEN", c.RootToken},
		{"VAULT_ADDR", c.Addrs[0]}, {"VAULT_CACERT", c.CA}, {"VAULT_TOKEN", c.RootToken}} {
		fmt.Fprintf(l.s.Out, "export %s=%s\n", line[0], shellQuote(line[1]))
	}
}

func (l *lab) downCommand() *cobra.Command {
	var wipe bool
	cmd := &cobra.Command{
		Use: "down", Short: "End all servers of the lab", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := l.load()
			if err != nil {
				return err
			}
			if err := l.down(cmd.Context(), c); err != nil {
				return err
			}
			if !wipe {
				l.say("the servers are ended; what they stored stays in %s (-wipe removes it, `conclave local start N` goes on)", l.dir)
				return nil
			}
			if err := c.wipe(l.dir); err != nil {
				return err
			}
			if names := entries(l.dir); names != "" {
				l.say("the servers are ended and the lab is removed; %s stays, for it holds what the lab didn't make: %s. Move that away before the next `conclave local up` there", l.dir, names)
				return nil
			}
			l.say("the servers are ended and %s is removed", l.dir)
			return nil
		},
	}
	cmd.Flags().BoolVar(&wipe, "wipe", false, "remove all that the lab has stored")
	return cmd
}

// downGrace is how long servers may take to leave before they are killed.
const downGrace = 10 * time.Second

func (l *lab) down(ctx context.Context, c *Cluster) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	var errs []error
	if c.anyPartition() {
		errs = append(errs, c.healAll(ctx))
	}
	leaving := c.processes()
	for n := range leaving {
		for _, s := range []syscall.Signal{syscall.SIGCONT, syscall.SIGTERM} {
			if err := c.signal(n, s); err != nil && !errors.Is(err, errDown) {
				errs = append(errs, err)
			}
		}
	}
	graceful, cancel := context.WithTimeout(ctx, downGrace)
	defer cancel()
	for n, p := range leaving {
		if p.Gone(graceful) != nil {
			l.say("node %d takes too long: it is killed", n)
		}
	}
	errs = append(errs, c.killAll(ctx))
	if err := c.save(l.dir); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// processes are those of the nodes that have one: node → process.
func (c *Cluster) processes() map[int]process.Process {
	found := make(map[int]process.Process)
	for n := 1; n <= len(c.Addrs); n++ {
		if p, ok := c.process(n); ok {
			found[n] = p
		}
	}
	return found
}

// killAll ends all processes of the lab at once, and waits until they are gone.
func (c *Cluster) killAll(ctx context.Context) error {
	var errs []error
	ending := c.processes()
	for n := range ending {
		if err := c.signal(n, syscall.SIGKILL); err != nil && !errors.Is(err, errDown) {
			errs = append(errs, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, downGrace)
	defer cancel()
	for n := 1; n <= len(c.Addrs); n++ {
		if p, ok := ending[n]; ok && p.Gone(ctx) != nil {
			errs = append(errs, fmt.Errorf("node %d doesn't end: process %d", n, p.PID))
			continue
		}
		c.PIDs[n-1] = 0
	}
	return errors.Join(errs...)
}

// wipe removes what a lab consists of, and the directory if nothing else is in it.
func (c *Cluster) wipe(dir string) error {
	names := []string{"ca.pem", "cluster.secret"}
	for n := range c.Addrs {
		names = append(names, nodeName(n+1))
	}
	for _, name := range append(names, clusterFile) { // the description last: a lab half removed can be removed again
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if entries(dir) == "" {
		return os.Remove(dir)
	}
	return nil
}
