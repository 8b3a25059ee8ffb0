package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
)

// firstGroup is the group id of node 1 in a lab that root starts: each node has one of its own, by which the firewall
// knows what it sends. It is beyond what systems give out.
const firstGroup = 64_100

// ownGroups are group ids for the nodes, none where the lab may not choose or nothing could use them.
func ownGroups(nodes int) []int {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return nil
	}
	list := make([]int, nodes)
	for i := range list {
		list[i] = firstGroup + i
	}
	return list
}

// rules drop what node n sends to the others' cluster and gossip ports, and what is sent to its own. Clients still
// reach it. Each has a comment by which it is found again.
func (c *Cluster) rules(n int) [][]string {
	mark := []string{"-m", "comment", "--comment", c.mark(n), "-j", "DROP"}
	var rules [][]string
	for _, protocol := range []string{"tcp", "udp"} {
		for i := range c.Addrs {
			for _, port := range []int{c.ClusterPorts[i], c.GossipPorts[i]} {
				rule := []string{"OUTPUT", "-o", "lo", "-p", protocol, "--dport", strconv.Itoa(port)}
				if i != n-1 {
					rule = append(rule, "-m", "owner", "--gid-owner", strconv.Itoa(c.Groups[n-1]))
				} else {
					rule = append(rule, "-m", "owner", "!", "--gid-owner", strconv.Itoa(c.Groups[n-1]))
				}
				rules = append(rules, append(rule, mark...))
			}
		}
	}
	return rules
}

// mark names the rules of a node: ports tell labs apart.
func (c *Cluster) mark(n int) string { return fmt.Sprintf("conclave-local-%d", c.ClusterPorts[n-1]) }

func iptables(ctx context.Context, args ...string) error {
	text, err := exec.CommandContext(ctx, "iptables", append([]string{"-w"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("iptables: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

// canPartition says what is missing.
func (c *Cluster) canPartition() error {
	_, err := exec.LookPath("iptables")
	switch {
	case runtime.GOOS != "linux" || os.Geteuid() != 0 || err != nil:
		return client.Usagef("to cut nodes off takes Linux, root and iptables; `conclave local pause N` and `kill N` work for everybody")
	case len(c.Groups) != len(c.Addrs):
		return client.Usagef("this lab wasn't started by root, so that the firewall can't tell its nodes apart: start it again")
	}
	return nil
}

func (l *lab) partition(cmd *cobra.Command, c *Cluster, n int) error {
	if err := c.canPartition(); err != nil {
		return err
	}
	if c.partitioned(n) {
		return client.Usagef("node %d is cut off already", n)
	}
	for _, rule := range c.rules(n) {
		if err := iptables(cmd.Context(), append([]string{"-A"}, rule...)...); err != nil {
			return errors.Join(err, c.drop(context.WithoutCancel(cmd.Context()), n))
		}
	}
	l.say("node %d is cut off from the others; clients still reach it. `conclave local heal %d` ends it", n, n)
	return nil
}

func (l *lab) heal(cmd *cobra.Command, c *Cluster, n int) error {
	if err := c.canPartition(); err != nil {
		return err
	}
	if !c.partitioned(n) {
		return client.Usagef("node %d is not cut off", n)
	}
	if err := c.drop(cmd.Context(), n); err != nil {
		return err
	}
	l.say("node %d is connected again", n)
	return nil
}

// partitioned reports whether the firewall has rules for node n.
func (c *Cluster) partitioned(n int) bool {
	text, err := exec.Command("iptables", "-w", "-S", "OUTPUT").Output()
	return err == nil && strings.Contains(string(text), c.mark(n)+" ") // the mark is followed by -j
}

func (c *Cluster) anyPartition() bool {
	if c.canPartition() != nil {
		return false
	}
	for n := range c.Addrs {
		if c.partitioned(n + 1) {
			return true
		}
	}
	return false
}

func (c *Cluster) healAll(ctx context.Context) error {
	var errs []error
	for n := range c.Addrs {
		if c.partitioned(n + 1) {
			errs = append(errs, c.drop(ctx, n+1))
		}
	}
	return errors.Join(errs...)
}

// drop removes the rules of node n that are there.
func (c *Cluster) drop(ctx context.Context, n int) error {
	var errs []error
	for _, rule := range c.rules(n) {
		if iptables(ctx, append([]string{"-C"}, rule...)...) == nil {
			errs = append(errs, iptables(ctx, append([]string{"-D"}, rule...)...))
		}
	}
	return errors.Join(errs...)
}
