package cluster

import (
	"context"
	"time"

	"conclave/cluster/wire"
)

// Timings of beats.
const (
	beatInterval     = time.Second
	fastBeatInterval = 100 * time.Millisecond // until the node votes and knows the time
	lookInterval     = 250 * time.Millisecond // between looks at this node's disk
	beatTimeout      = 500 * time.Millisecond // a longer round trip says too little about the time
)

// beat tells the leader how this node is, and hears from it what time it is.
func (n *Node) beat(ctx context.Context) {
	for {
		pause := beatInterval
		news := n.leaderNews()
		full := n.guard.Check() != nil
		if leader := n.leaderID(); leader != "" && leader != n.id.NodeID && n.clusterID() != "" {
			began := n.mono()
			e, err := n.pulseTimeout(ctx, leader, full)
			if err == nil && e.GetLeader() && e.GetTime() != 0 {
				n.clock.Hear(e.GetTime(), n.mono()-began)
			} else {
				pause = fastBeatInterval
			}
		}
		if _, known := n.clock.Now(); !known || !n.votes() {
			pause = fastBeatInterval
		}
		if n.untilBeat(ctx, pause, news, full); ctx.Err() != nil {
			return
		}
	}
}

// untilBeat waits for that time, but no longer than until there is news of a leader, or this node's disk fills up or has
// room again.
func (n *Node) untilBeat(ctx context.Context, pause time.Duration, news <-chan struct{}, full bool) {
	due := time.NewTimer(pause)
	defer due.Stop()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
			return
		case <-due.C:
			return
		case <-look.C:
			if now := n.guard.Check() != nil; now != full {
				return
			}
		}
	}
}

func (n *Node) pulseTimeout(ctx context.Context, to string, full bool) (*wire.Echo, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	return n.pulse(ctx, to, &wire.Beat{Wall: n.config.Wall().UnixNano(), Ready: n.ready.Load(), Full: full,
		Applied: n.fsm.Applied(), Term: n.raft.CurrentTerm(), LastIndex: n.raft.LastIndex(), Version: n.config.Version})
}

func (n *Node) pulse(ctx context.Context, to string, b *wire.Beat) (*wire.Echo, error) {
	client, err := n.peers.Client(to)
	if err != nil {
		return nil, err
	}
	return client.Pulse(n.outgoing(ctx), b)
}

// pulsed answers a beat.
func (n *Node) pulsed(from string, b *wire.Beat) *wire.Echo {
	term, _ := n.order.OpenTerm()
	if !b.GetAsk() {
		n.health.Note(from, b, n.fsm.Applied(), n.raft.CommitIndex())
	}
	e := &wire.Echo{Leader: term != 0, Wall: n.config.Wall().UnixNano()}
	if now, known := n.clock.Now(); known {
		e.Time = now
	}
	return e
}
