package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"conclave/cluster/clock"
	"conclave/cluster/disk"
	"conclave/cluster/wire"
	"conclave/fsm"
)

// Limits of leading.
const (
	termOpenTimeout  = 5 * time.Second
	tendInterval     = 100 * time.Millisecond
	steerInterval    = time.Second
	askTimeout       = 300 * time.Millisecond // for peers to tell a new leader the time
	handoverInterval = 30 * time.Second       // between attempts of a leader that is sealed or has no room
	roomInterval     = time.Second            // between questions of a leader without room whether others have some
	stallLimit       = 2 * time.Second        // of the state machine, until its leader steps down
	stallInterval    = 250 * time.Millisecond
	stuckLimit       = 2 * time.Second       // of an entry that too few voters have room for, until it is given up
	caughtUp         = 64                    // entries that a node may lack, at its beat, to be promoted or given leadership
	routePause       = 20 * time.Millisecond // between looks for a leader or attempts to open a term
	minTaskPause     = 100 * time.Millisecond
	maxTaskPause     = 30 * time.Second
	changeTimeout    = 10 * time.Second // of a Raft configuration change
)

// chore is a task for the leader.
type chore struct {
	name string
	task func(context.Context) error
}

// termWork is the running chores of a term.
type termWork struct {
	ctx  context.Context
	done sync.WaitGroup
}

// WhileLeader has task run on this node while it leads, now and in every later term, until Shutdown. Its context ends
// when leadership is lost, and the next term waits for it to return. If it returns earlier it is started again after a
// pause that grows from 100 ms to 30 s.
func (n *Node) WhileLeader(name string, task func(ctx context.Context) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := chore{name, task}
	n.chores = append(n.chores, c)
	if n.term != nil {
		n.startLocked(n.term, c)
	}
}

func (n *Node) startLocked(w *termWork, c chore) {
	w.done.Add(1)
	go func() { // ends with the term
		defer w.done.Done()
		pause := minTaskPause
		for w.ctx.Err() == nil {
			began := time.Now()
			if err := c.task(w.ctx); err != nil && w.ctx.Err() == nil {
				n.logger.Error("task of the leader failed", "task", c.name, "error", err)
			}
			if time.Since(began) > maxTaskPause {
				pause = minTaskPause
			}
			select {
			case <-w.ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, maxTaskPause)
		}
	}()
}

// watchLeadership leads while Raft says so.
func (n *Node) watchLeadership(ctx context.Context) {
	stop := func() {}
	ended := make(chan struct{})
	close(ended)
	for {
		select {
		case <-ctx.Done():
			stop()
			<-ended
			return
		case leads := <-n.notify:
			stop()
			n.order.Shut()
			if !leads {
				continue
			}
			term, cancel := context.WithCancel(ctx)
			stop = cancel
			before, after := ended, make(chan struct{})
			ended = after
			n.spawn(func() {
				defer close(after)
				<-before
				if err := n.lead(term); err != nil && term.Err() == nil {
					n.logger.Error("leading failed", "error", err)
				}
			})
		}
	}
}

// lead opens the term, orders, and runs the leader's tasks until ctx ends.
func (n *Node) lead(ctx context.Context) error {
	term, err := n.openTerm(ctx)
	if err != nil {
		return err
	}
	n.order.Open(term)
	defer n.order.Shut()
	n.logger.Info("leading", "term", term)
	w := &termWork{ctx: ctx}
	n.mu.Lock()
	n.term = w
	own := []chore{{"members", n.tendMembers}, {"clock", n.steerClock}, {"handover", n.handOver}, {"stall", n.watchStall}, {"room", n.watchRoom}, {"state hashes", n.checker.WhileLeader}}
	for _, c := range append(own, n.chores...) {
		n.startLocked(w, c)
	}
	n.mu.Unlock()
	<-ctx.Done()
	n.order.Shut()
	n.mu.Lock()
	n.term = nil
	n.mu.Unlock()
	w.done.Wait()
	return nil
}

// openTerm continues cluster time and commits the opening of the present term.
func (n *Node) openTerm(ctx context.Context) (uint64, error) {
	for ctx.Err() == nil {
		term := n.raft.CurrentTerm()
		stamp, err := n.startTime(ctx)
		if err == nil {
			n.clock.Lead(stamp, n.fsm.Time())
			err = n.raft.Apply(fsm.EncodeTermOpen(term, n.clock.Next()), termOpenTimeout).Error()
		}
		if err == nil && n.fsm.OpenedTerm() == term {
			n.clock.Lead(n.clock.Next(), n.fsm.Time()) // Apply may have taken a later time that was in the log before
			return term, nil
		}
		n.logger.Debug("opening the term failed", "term", term, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(routePause):
		}
	}
	return 0, ctx.Err()
}

// startTime is what a new leader takes for cluster time: the median of what a majority of voters know, this node
// included; if none knows it, all were down, and it is the median of their wall clocks.
func (n *Node) startTime(ctx context.Context) (int64, error) {
	var voters []string
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			voters = append(voters, disk.NodeOf(string(s.ID)))
		}
	}
	if len(voters) == 0 {
		return 0, errors.New("there are no voters")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	type told struct {
		time, wall int64
		known, ok  bool
	}
	answers := make(chan told, len(voters))
	for _, id := range voters {
		go func() { // ends with ctx, and has room to answer
			if id == n.id.NodeID {
				t, known := n.clock.Now()
				answers <- told{t, n.config.Wall().UnixNano(), known, true}
				return
			}
			began := n.mono()
			e, err := n.pulse(ctx, id, &wire.Beat{Ask: true})
			half := int64(n.mono()-began) / 2
			answers <- told{e.GetTime() + half, e.GetWall() + half, e.GetTime() != 0, err == nil}
		}()
	}
	var times, walls []int64
	heard := 0
	for range voters {
		a := <-answers
		if !a.ok {
			continue
		}
		heard++
		walls = append(walls, a.wall)
		if a.known {
			times = append(times, a.time)
		}
		if len(times) > len(voters)/2 {
			break
		}
	}
	switch {
	case len(times) > 0:
		return clock.Median(times), nil
	case heard <= len(voters)/2:
		return 0, errors.New("too few voters tell the time")
	}
	if seed := n.seed.Load(); seed != nil {
		return (*seed)(), nil
	}
	return clock.Median(walls), nil
}

// steerClock slews cluster time towards the median of the voters' wall clocks.
func (n *Node) steerClock(ctx context.Context) error {
	return every(ctx, steerInterval, func() error {
		voters := 0
		var walls []int64
		for _, s := range n.servers() {
			if s.Suffrage != raft.Voter {
				continue
			}
			voters++
			if id := disk.NodeOf(string(s.ID)); id == n.id.NodeID {
				walls = append(walls, n.config.Wall().UnixNano())
			} else if r, fresh := n.health.Of(id); fresh {
				walls = append(walls, r.WallLead+int64(n.mono()))
			}
		}
		n.clock.Steer(walls, voters)
		return nil
	})
}

// handOver gives leadership to a voter that has room while this node has none, and to a ready one while this is sealed.
// Beats are too old to tell who has room when disks fill up together, and a leader that stays refuses at least, which one that
// can't open its term does not: so it is asked again, and a majority must have some.
func (n *Node) handOver(ctx context.Context) error {
	var tried, asked time.Time
	return every(ctx, tendInterval, func() error {
		full, sealed := n.guard.Check() != nil, !n.ready.Load()
		if !full && !sealed || !tried.IsZero() && time.Since(tried) < handoverInterval {
			return nil
		}
		to, ok := n.successor(true)
		if !ok && (full || n.Refused() != nil) {
			to, ok = n.successor(false)
		}
		if !ok {
			return nil
		}
		if full {
			if time.Since(asked) < roomInterval {
				return nil
			}
			if asked = time.Now(); !n.othersHaveRoom(ctx, to.ID) {
				return nil
			}
		}
		tried = time.Now()
		n.logger.Info("handing leadership over", "to", to.ID, "sealed", sealed, "no_room", full)
		return n.raft.LeadershipTransferToServer(to.ID, to.Address).Error()
	})
}

// successor is the voter best fit to lead next: caught up, with room on its disk, and ready if that is asked for.
func (n *Node) successor(ready bool) (best raft.Server, ok bool) {
	var index uint64
	for _, s := range n.servers() {
		id := disk.NodeOf(string(s.ID))
		r, fresh := n.health.Of(id)
		if s.Suffrage != raft.Voter || id == n.id.NodeID || !fresh || r.Full || ready && !r.Ready {
			continue
		}
		if r.Behind <= caughtUp && (!ok || r.Applied > index) {
			best, index, ok = s, r.Applied, true
		}
	}
	return best, ok
}

// watchStall steps down when the state machine doesn't get on with what is committed.
func (n *Node) watchStall(ctx context.Context) error {
	return every(ctx, stallInterval, func() error {
		if n.order.StalledFor(time.Now()) < stallLimit || n.raft.CommitIndex() <= n.fsm.Applied() {
			return nil
		}
		n.stalls.Add(1)
		n.logger.Error("the state machine has stalled, stepping down")
		return n.raft.LeadershipTransfer().Error()
	})
}

// every calls f at once and then at the interval, until ctx ends or f fails.
func every(ctx context.Context, interval time.Duration, f func() error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := f(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// TransferLeadership has the leader give up leadership to a voter that has caught up, preferably one that is ready. A
// leader that has just been elected waits up to two seconds to hear from one.
func (n *Node) TransferLeadership(ctx context.Context) error {
	if !n.IsLeader() {
		_, err := n.callLeader(ctx, callTransfer, nil)
		return err
	}
	to, ok := n.awaitSuccessor(ctx)
	if !ok {
		return unavailable("no other voter has caught up and has room on its disk", busyRetry)
	}
	if err := n.raft.LeadershipTransferToServer(to.ID, to.Address).Error(); err != nil {
		n.logger.Warn("transfer of leadership failed", "error", err)
		return unavailable("leadership couldn't be transferred", busyRetry)
	}
	return nil
}

// awaitSuccessor waits for a voter that could lead next. One that isn't ready will do if this node isn't either, or if
// no ready one is heard of in time.
func (n *Node) awaitSuccessor(ctx context.Context) (raft.Server, bool) {
	patience, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	for {
		to, ok := n.successor(true)
		if !ok && (!n.ready.Load() || patience.Err() != nil) {
			to, ok = n.successor(false)
		}
		if ok || patience.Err() != nil {
			return to, ok
		}
		select {
		case <-patience.Done():
		case <-time.After(tendInterval):
		}
	}
}

// keepLogShort takes a snapshot when enough has been logged since the last one, and keeps about as much log behind it
// for followers that lag.
func (n *Node) keepLogShort(ctx context.Context) {
	err := every(ctx, snapshotInterval, func() error {
		bytes, entries := n.logs.Counted()
		if bytes < snapshotBytes && entries < snapshotEntries {
			return nil
		}
		reload := n.raft.ReloadableConfig()
		reload.TrailingLogs = uint64(max(minTrailing, min(maxTrailing, entries*trailingBytes/max(bytes, 1))))
		if err := n.raft.ReloadConfig(reload); err != nil {
			return fmt.Errorf("set how much log is kept: %w", err)
		}
		if err := n.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			n.logger.Error("snapshot failed", "error", err)
			return nil // what is counted stays, so it is tried again
		}
		n.logs.ResetCount()
		return nil
	})
	if err != nil {
		n.logger.Error("snapshots have stopped", "error", err)
	}
}

// settleWhenQuiet has the state flushed after a time with little to do, so that a crash leaves little to be replayed.
func (n *Node) settleWhenQuiet(ctx context.Context) {
	var before int64
	quiet := time.Duration(0)
	_ = every(ctx, snapshotInterval, func() error { // it never fails
		bytes, _ := n.logs.Counted()
		if quiet += snapshotInterval; bytes-before > quietBytes || bytes < before || n.guard.Check() != nil {
			quiet = 0
		}
		if before = bytes; quiet >= quietTime {
			n.fsm.Settle(settleBytes)
			quiet = 0
		}
		return nil
	})
}

// Limits of the log between snapshots. Replay after a crash, and the log on disk, follow from them.
const (
	snapshotInterval = time.Second
	snapshotBytes    = 48 << 20
	snapshotEntries  = 64 << 10
	trailingBytes    = 48 << 20
	minTrailing      = 16
	maxTrailing      = 64 << 10
	quietTime        = 5 * time.Second
	quietBytes       = 64 << 10 // logged within snapshotInterval
	settleBytes      = 1 << 20  // worth a flush
)
