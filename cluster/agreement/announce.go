package agreement

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"conclave"
)

// WhileLeader has all compare when the interval is over, until ctx ends. It runs on the leader; all nodes keep count, so
// that a change of leadership neither delays nor repeats a comparison.
func (c *Checker) WhileLeader(ctx context.Context) error {
	for {
		c.mu.Lock()
		wait := c.due - time.Since(c.began)
		c.mu.Unlock()
		if wait <= 0 {
			if _, err := c.announce(ctx); err != nil && ctx.Err() == nil {
				c.Logger.Warn("states could not be compared", "error", err)
				c.mu.Lock()
				c.due = time.Since(c.began) + c.Interval/firstPart
				c.mu.Unlock()
			}
			continue
		}
		if pause(ctx, wait) != nil {
			return nil
		}
	}
}

// announce names an index to all members, as the leader: the present one, or under load, where some have passed that
// already, one that is far enough ahead.
func (c *Checker) announce(ctx context.Context) (uint64, error) {
	if s := c.Status(); s.Result == Hashing {
		return 0, conclave.Errorf(conclave.Unavailable, "this node still hashes its state as of index %d", s.Index)
	}
	margin := uint64(0)
	for range attempts {
		index := c.State.Applied() + margin
		passed, taken := c.announceAt(ctx, index)
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		voters := c.Voters()
		enough := 0
		for _, id := range voters {
			if slices.Contains(taken, id) {
				enough++
			}
		}
		switch {
		case passed:
			margin = max(firstMargin, marginStep*margin)
		case enough <= len(voters)/2:
			return 0, conclave.Errorf(conclave.Unavailable, "too few nodes can be reached to compare states")
		case c.reached(ctx, index):
			return index, nil
		default:
			margin = 0 // the load has ended
		}
	}
	return 0, conclave.Errorf(conclave.Unavailable, "no index was found that all nodes could compare their states at: try again")
}

// announceAt tells all members an index, and returns who took it, and whether somebody had passed it.
func (c *Checker) announceAt(ctx context.Context, index uint64) (passed bool, taken []string) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	body := binary.BigEndian.AppendUint64(nil, index)
	var mu sync.Mutex // guards passed and taken
	var asked sync.WaitGroup
	for _, id := range c.Members() {
		asked.Go(func() {
			_, err := c.Call(ctx, id, callCut, body)
			mu.Lock()
			defer mu.Unlock()
			passed = passed || conclave.Is(err, conclave.Precondition)
			if err == nil {
				taken = append(taken, id)
			}
		})
	}
	asked.Wait()
	return passed, taken
}

// reached waits a while for this node's state to reach index.
func (c *Checker) reached(ctx context.Context, index uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	return c.State.WaitApplied(ctx, index) == nil
}
