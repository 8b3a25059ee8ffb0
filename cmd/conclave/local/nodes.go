package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"conclave/cmd/conclave/client"

	"github.com/spf13/cobra"
)

// startTimeout is when `start` gives up waiting for its node to serve.
const startTimeout = 60 * time.Second

func (l *lab) kill(cmd *cobra.Command, c *Cluster, n int) error {
	if err := c.kill(cmd.Context(), n); err != nil {
		return err
	}
	l.say("node %d is killed; `conclave local start %d` starts it again", n, n)
	return c.save(l.dir)
}

// kill ends node n at once and waits until it is gone: its files are locked until then.
func (c *Cluster) kill(ctx context.Context, n int) error {
	ending, _ := c.process(n)
	if err := c.signal(n, syscall.SIGKILL); err != nil {
		return fmt.Errorf("node %d: %w", n, err)
	}
	ctx, cancel := context.WithTimeout(ctx, downGrace)
	defer cancel()
	if err := ending.Gone(ctx); err != nil {
		return fmt.Errorf("node %d doesn't end: process %d: %w", n, ending.PID, err)
	}
	c.PIDs[n-1] = 0
	return nil
}

func (l *lab) start(cmd *cobra.Command, c *Cluster, n int) error {
	if c.running(n) {
		return client.Usagef("node %d is running, process %d", n, c.PIDs[n-1])
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), startTimeout)
	defer cancel()
	p, err := c.spawn(n)
	if err != nil {
		return err
	}
	err = c.save(l.dir)
	if err == nil {
		err = l.await(ctx, c, n, p)
	}
	if err != nil && cmd.Context().Err() != nil {
		l.say("interrupted: node %d is ended", n)
		return errors.Join(err, c.kill(context.WithoutCancel(ctx), n), c.save(l.dir))
	}
	return err
}

// await opens node n, whose process has just begun, and waits until it serves.
func (l *lab) await(ctx context.Context, c *Cluster, n int, p *child) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // ends with the process or with await
		select {
		case <-p.ended:
			stop(fmt.Errorf("node %d has ended; its log %s ends so:\n%s", n, c.LogFiles[n-1], c.tail(n)))
		case <-ctx.Done():
		}
	}()
	node, err := c.client(n)
	if err != nil {
		return err
	}
	if c.runningNodes()*2 <= len(c.Addrs) {
		l.say("node %d is started (process %d); it waits for a majority of the %d nodes", n, p.pid, len(c.Addrs))
		return nil
	}
	if err := l.open(ctx, c, n); err != nil {
		return err
	}
	if err := c.serving(ctx, n, node); err != nil {
		return err
	}
	l.say("node %d is started (process %d) and serves", n, p.pid)
	return nil
}

// open submits shares to node n if it doesn't open by itself, with those that the open nodes hold.
func (l *lab) open(ctx context.Context, c *Cluster, n int) error {
	node, err := c.client(n)
	if err != nil {
		return err
	}
	return patiently(ctx, fmt.Sprintf("open node %d", n), func() error {
		status, err := node.Sys().SealStatusWithContext(ctx)
		if err != nil {
			return err
		}
		if !status.Initialized {
			return errors.New("the node doesn't know the vault's seal yet")
		}
		if !status.Sealed {
			return nil
		}
		return c.unseal(ctx, node)
	})
}

func (c *Cluster) runningNodes() int {
	count := 0
	for n := range c.Addrs {
		if c.running(n+1) && !c.paused(n+1) {
			count++
		}
	}
	return count
}

func (l *lab) pause(_ *cobra.Command, c *Cluster, n int) error {
	if err := c.signal(n, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("node %d: %w", n, err)
	}
	l.say("node %d is paused; `conclave local resume %d` lets it go on", n, n)
	return nil
}

func (l *lab) resume(_ *cobra.Command, c *Cluster, n int) error {
	if err := c.signal(n, syscall.SIGCONT); err != nil {
		return fmt.Errorf("node %d: %w", n, err)
	}
	l.say("node %d goes on", n)
	return nil
}

// nodeStatus is a line of `status`.
type nodeStatus struct {
	Node    int    `json:"node"`
	State   string `json:"state"` // down, paused, starting, sealed, open, cut off
	Leader  bool   `json:"leader"`
	Address string `json:"address"`
	PID     int    `json:"pid"`
}

// askTimeout is how long `status` waits for one node.
const askTimeout = 2 * time.Second

func (l *lab) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the nodes of the lab", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := l.load()
			if err != nil {
				return err
			}
			list := make([]nodeStatus, len(c.Addrs))
			for i := range list {
				list[i] = c.status(cmd.Context(), i+1)
			}
			return l.s.Print(list, func(w io.Writer) {
				rows := make([][]string, len(list))
				for i, s := range list {
					rows[i] = []string{strconv.Itoa(s.Node), s.State, strconv.FormatBool(s.Leader), s.Address, strconv.Itoa(s.PID), c.LogFiles[i]}
				}
				client.WriteTable(w, []string{"Node", "State", "Leader", "Address", "Process", "Log"}, rows)
			})
		},
	}
}

func (c *Cluster) status(ctx context.Context, n int) nodeStatus {
	s := nodeStatus{Node: n, State: "down", Address: c.Addrs[n-1]}
	if !c.running(n) {
		return s
	}
	s.PID = c.PIDs[n-1]
	if c.paused(n) {
		s.State = "paused"
		return s
	}
	s.State = "starting"
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	node, err := c.client(n)
	if err != nil {
		return s
	}
	status, err := node.Sys().SealStatusWithContext(ctx)
	switch {
	case err != nil:
		return s
	case status.Sealed:
		s.State = "sealed"
	default:
		s.State = "open"
		if resp, err := node.RawRequestWithContext(ctx, node.NewRequest(http.MethodGet, "/v1/sys/health")); err != nil {
			s.State = "cut off"
		} else {
			resp.Body.Close()
		}
	}
	if leader, err := node.Sys().LeaderWithContext(ctx); err == nil {
		s.Leader = leader.IsSelf
	}
	return s
}
