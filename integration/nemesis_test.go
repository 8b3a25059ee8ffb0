package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"conclave/integration/lab"
)

// nemesis does harm to a cluster and always mends it in the end. What it does follows from its seed; when, from the
// time that mending takes.
type nemesis struct {
	lab      *lab.Lab
	random   *rand.Rand
	started  time.Time
	timeline []string
	counts   map[string]int // fault → how often
}

// fault is one kind of harm.
type fault struct {
	name   string
	weight int
	do     func(n *nemesis, ctx context.Context) error
}

// faults are what a nemesis chooses from.
var faults = []fault{
	{"kill a node", 4, (*nemesis).killAny},
	{"kill the leader", 4, (*nemesis).killLeader},
	{"kill a majority", 1, (*nemesis).killMajority},
	{"kill all nodes", 1, (*nemesis).killAll},
	{"pause the leader", 4, (*nemesis).pauseLeader},
	{"pause a node", 2, (*nemesis).pauseAny},
	{"step down", 3, (*nemesis).stepDown},
}

func newNemesis(l *lab.Lab, seed uint64) *nemesis {
	return &nemesis{lab: l, random: rand.New(rand.NewPCG(seed, 1)), started: time.Now(), counts: make(map[string]int)}
}

// mendTimeout bounds how long a cluster may take to be whole after a fault.
const mendTimeout = time.Minute

// run does harm until ctx ends. Each fault is mended before it returns, even then.
func (n *nemesis) run(ctx context.Context) error {
	for n.pause(ctx, 500*time.Millisecond, 2*time.Second) {
		f := n.choose()
		n.counts[f.name]++
		n.log("%s", f.name)
		mend, cancel := context.WithTimeout(context.WithoutCancel(ctx), mendTimeout)
		err := f.do(n, mend)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		n.log("mended")
	}
	return nil
}

func (n *nemesis) choose() fault {
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	at := n.random.IntN(sum)
	for _, f := range faults {
		if at -= f.weight; at < 0 {
			return f
		}
	}
	return faults[0]
}

func (n *nemesis) log(format string, args ...any) {
	n.timeline = append(n.timeline, fmt.Sprintf("%7.2fs %s", time.Since(n.started).Seconds(), fmt.Sprintf(format, args...)))
}

// pause waits for a random time between the two, and reports whether ctx still runs.
func (n *nemesis) pause(ctx context.Context, least, most time.Duration) bool {
	timer := time.NewTimer(least + time.Duration(n.random.Int64N(int64(most-least))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (n *nemesis) any() int { return 1 + n.random.IntN(n.lab.Nodes()) }

// kill ends these nodes, leaves them down for a while, and has them serve again.
func (n *nemesis) kill(ctx context.Context, nodes ...int) error {
	n.log("  nodes %v", nodes)
	for _, node := range nodes {
		if err := n.lab.Kill(node); err != nil {
			return err
		}
	}
	n.pause(ctx, 100*time.Millisecond, 3*time.Second)
	return n.lab.Start(ctx, nodes...)
}

func (n *nemesis) killAny(ctx context.Context) error { return n.kill(ctx, n.any()) }

func (n *nemesis) killLeader(ctx context.Context) error {
	leader, err := n.lab.Leader(ctx)
	if err != nil {
		return err
	}
	return n.kill(ctx, leader)
}

func (n *nemesis) killMajority(ctx context.Context) error {
	order := n.random.Perm(n.lab.Nodes())
	var nodes []int
	for _, i := range order[:n.lab.Nodes()/2+1] {
		nodes = append(nodes, i+1)
	}
	return n.kill(ctx, nodes...)
}

func (n *nemesis) killAll(ctx context.Context) error {
	var nodes []int
	for _, i := range n.random.Perm(n.lab.Nodes()) {
		nodes = append(nodes, i+1)
	}
	return n.kill(ctx, nodes...)
}

func (n *nemesis) freeze(ctx context.Context, node int) error {
	n.log("  node %d", node)
	if err := n.lab.Pause(node); err != nil {
		return err
	}
	n.pause(ctx, time.Second, 5*time.Second)
	if err := n.lab.Resume(node); err != nil {
		return err
	}
	return n.lab.WaitServing(ctx)
}

func (n *nemesis) pauseAny(ctx context.Context) error { return n.freeze(ctx, n.any()) }

func (n *nemesis) pauseLeader(ctx context.Context) error {
	leader, err := n.lab.Leader(ctx)
	if err != nil {
		return err
	}
	return n.freeze(ctx, leader)
}

func (n *nemesis) stepDown(ctx context.Context) error {
	leader, err := n.lab.Leader(ctx)
	if err != nil {
		return err
	}
	n.log("  node %d", leader)
	// A leader whose followers lag refuses; one that was deposed meanwhile need not step down any more.
	attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for err := n.lab.StepDown(attempt, leader); err != nil; err = n.lab.StepDown(attempt, leader) {
		if !n.pause(attempt, 20*time.Millisecond, 50*time.Millisecond) {
			n.log("  %v", err)
			break
		}
	}
	return n.lab.WaitServing(ctx)
}
