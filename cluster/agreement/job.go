package agreement

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"conclave"
	"conclave/fsm"
)

// job is a comparison that the leader has asked for.
type job struct {
	index uint64
	cut   *fsm.Cut
	view  *fsm.View // the cut's, if it was there at once
}

func (j *job) drop() {
	if j.view != nil {
		j.view.Release()
	}
	j.cut.Forget()
}

// cut takes the state as of an index, now or when it comes, and hashes it in the background. What was being hashed before
// is given up.
func (c *Checker) cut(_ context.Context, body []byte) ([]byte, error) {
	if len(body) != 8 {
		return nil, conclave.Errorf(conclave.Invalid, "malformed call")
	}
	j := &job{index: binary.BigEndian.Uint64(body)}
	j.cut = c.State.CutAt(j.index)
	select {
	case j.view = <-j.cut.View():
		if j.view == nil {
			return nil, conclave.Errorf(conclave.Precondition, "index %d has passed", j.index)
		}
	default:
	}
	c.mu.Lock()
	old := c.pending
	c.pending, c.last = j, &sum{index: j.index}
	c.due = time.Since(c.began) + c.Interval
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	if old != nil {
		old.drop()
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil, nil
}

// sum gives this node's hashes as of an index.
func (c *Checker) sum(_ context.Context, body []byte) ([]byte, error) {
	if len(body) != 8 {
		return nil, conclave.Errorf(conclave.Invalid, "malformed call")
	}
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	switch {
	case last == nil || last.index != binary.BigEndian.Uint64(body):
		return nil, conclave.Errorf(conclave.NotFound, "this node has no hashes as of that index")
	case last.ranges == nil:
		return nil, conclave.Errorf(conclave.Unavailable, "this node is not done")
	}
	return json.Marshal(last.ranges)
}

// Run does what is asked for until ctx ends.
func (c *Checker) Run(ctx context.Context) {
	defer func() {
		c.mu.Lock()
		j := c.pending
		c.pending = nil
		c.mu.Unlock()
		if j != nil {
			j.drop()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		j := c.pending
		c.pending = nil
		work, cancel := context.WithCancel(ctx)
		c.cancel = cancel
		c.mu.Unlock()
		if j != nil {
			if err := c.do(work, j); err != nil && work.Err() == nil {
				c.Logger.Warn("comparing states was given up", "index", j.index, "error", err)
			}
		}
		cancel()
	}
}

var errNotReached = errors.New("the index was not reached in time")

// do hashes and compares.
func (c *Checker) do(ctx context.Context, j *job) error {
	defer j.cut.Forget()
	view := j.view
	if view == nil {
		timer := time.NewTimer(2 * reachLimit)
		defer timer.Stop()
		select {
		case view = <-j.cut.View():
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if view == nil {
		c.fail(j.index)
		return errNotReached
	}
	c.show(Status{Index: j.index, Result: Hashing})
	ranges, err := view.Sum(func(bytes int) error {
		if view.Stale() {
			return errors.New("the state was replaced by a snapshot")
		}
		return pause(ctx, time.Duration(bytes)*time.Second/time.Duration(c.Rate))
	})
	view.Release()
	if err != nil {
		c.fail(j.index)
		return err
	}
	c.mu.Lock()
	if c.last != nil && c.last.index == j.index {
		c.last = &sum{j.index, ranges}
	}
	c.mu.Unlock()
	return c.compare(ctx, j.index, ranges)
}

// fail notes that there will be no hashes as of an index.
func (c *Checker) fail(index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil && c.last.index == index {
		c.last = nil
	}
}

// show replaces the status.
func (c *Checker) show(s Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Differs = c.status.Differs
	c.status = s
}

// compare asks the voters until all have answered, or won't.
func (c *Checker) compare(ctx context.Context, index uint64, own []fsm.Range) error {
	limit, cancel := context.WithTimeout(ctx, compareLimit)
	defer cancel()
	sums := map[string][]fsm.Range{c.NodeID: own}
	denials := map[string]int{} // node → how often it said that it has no hashes; it may only not have heard of the index yet
	reported := false
	for wait := minPause; ; wait = min(2*wait, maxPause) {
		voters, missing := c.Voters(), 0
		for _, id := range voters {
			if sums[id] == nil && denials[id] < maxDenials {
				var err error
				if sums[id], err = c.ask(limit, id, index); err != nil {
					missing++
					if conclave.Is(err, conclave.NotFound) {
						denials[id]++
					}
				}
			}
		}
		found := judge(voters, sums)
		result := Comparing
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case found.majority != nil && len(differing(own, found.majority)) > 0:
			c.tell(mark{Index: index, Ranges: some(differing(own, found.majority))}, true)
			result = Differs
		case found.majority != nil:
			result = Agrees
		case missing == 0 || limit.Err() != nil:
			result = Undecided
		}
		c.show(Status{Index: index, Result: result, Nodes: found.nodes, Ranges: some(found.ranges)})
		ended := missing == 0 || limit.Err() != nil
		if !reported && (ended || found.majority != nil && len(found.ranges) > 0) {
			reported = true
			c.report(index, found)
		}
		if ended {
			return nil
		}
		if err := pause(limit, wait); err != nil && ctx.Err() != nil {
			return err
		}
	}
}

// ask gets a voter's hashes.
func (c *Checker) ask(ctx context.Context, id string, index uint64) ([]fsm.Range, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	b, err := c.Call(ctx, id, callSum, binary.BigEndian.AppendUint64(nil, index))
	if err != nil {
		return nil, err
	}
	return decodeRanges(b)
}

// report says in the log what a comparison came to.
func (c *Checker) report(index uint64, found verdict) {
	agree := 0
	for _, how := range found.nodes {
		if how == Agrees {
			agree++
		}
	}
	switch {
	case len(found.ranges) == 0:
		c.Logger.Debug("states were compared: those heard agree", "index", index, "nodes", maps.Clone(found.nodes))
	case found.majority == nil:
		c.Logger.Error("the states of nodes differ, and no majority agrees: whose is right can't be told; "+
			"compare them with a copy, or the audit log with its exports", "index", index, "ranges", some(found.ranges))
	default:
		c.Logger.Error("the state of a node differs from that of the majority", "index", index, "nodes", found.nodes, "ranges", some(found.ranges))
	}
}

// maxNamed bounds how many ranges are named to people.
const maxNamed = 16

func some(names []string) []string {
	if len(names) > maxNamed {
		return append(names[:maxNamed:maxNamed], "and others")
	}
	return names
}

// pause waits, or ends with ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
