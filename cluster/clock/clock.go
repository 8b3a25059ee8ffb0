// Package clock keeps cluster time on one node.
package clock

import (
	"slices"
	"sync"
	"time"
)

// Limits of cluster time.
const (
	// slewPPM is how much faster or slower than the leader's own clock, cluster time runs at most, to come closer to the
	// median of the wall clocks: half a millisecond per second.
	slewPPM = 500
	// slewIdle is the difference from the median that isn't worth slewing.
	slewIdle = 2 * time.Millisecond
)

// Clock is cluster time on one node. It runs by the node's own monotonic clock from an anchor: a cluster time that was
// heard from the leader, or that the leader itself continues. A wall clock enters only as one voice of a median.
//
// It is safe for concurrent use.
type Clock struct {
	mono func() time.Duration

	mu       sync.Mutex // guards what follows
	anchored bool
	stamp    int64         // cluster time at the anchor, Unix nanoseconds
	at       time.Duration // monotonic time at the anchor
	drift    int64         // slewing, in parts per million: -slewPPM … slewPPM
	last     int64         // newest stamp given out
}

// New makes a clock that doesn't know the time yet; mono is a clock that nobody sets.
func New(mono func() time.Duration) *Clock {
	return &Clock{mono: mono}
}

// Now returns cluster time, and whether this node knows it.
func (c *Clock) Now() (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked(), c.anchored
}

func (c *Clock) nowLocked() int64 {
	elapsed := int64(c.mono() - c.at)
	return c.stamp + elapsed + elapsed/1_000_000*c.drift
}

// Next returns the stamp for a new entry: never less than one before.
func (c *Clock) Next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, c.nowLocked())
	return c.last
}

// Hear takes the leader's time: what it was when half of the round trip had passed.
func (c *Clock) Hear(stamp int64, roundTrip time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.anchored, c.stamp, c.at, c.drift = true, stamp+int64(roundTrip/2), c.mono(), 0
}

// Lead makes this node's time start a term: at the given cluster time, but not before the newest stamp in the log.
func (c *Clock) Lead(stamp, floor int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.anchored, c.stamp, c.at, c.drift = true, max(stamp, floor), c.mono(), 0
	c.last = max(c.last, floor)
}

// Steer slews towards the median of the wall clocks of voters, this node's included. All are taken as of now.
// Without a majority of the voters' clocks it goes on as it was.
func (c *Clock) Steer(walls []int64, voters int) {
	if len(walls) <= voters/2 {
		return
	}
	target := Median(walls)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.nowLocked()
	c.stamp, c.at = now, c.mono()
	c.drift = 0
	switch off := target - now; {
	case off > int64(slewIdle):
		c.drift = slewPPM
	case off < -int64(slewIdle):
		c.drift = -slewPPM
	}
}

// Median returns the middle value, the lower one of two: with two clocks, none can push time ahead. times isn't empty.
func Median(times []int64) int64 {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)-1)/2]
}
