package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// row is one measurement.
type row struct {
	Cluster   string  `json:"cluster"`
	Workload  string  `json:"workload"`
	Nodes     int     `json:"nodes"`
	Clients   int     `json:"clients"`
	OpsPerSec float64 `json:"ops_per_s"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	P999      float64 `json:"p999_ms"`
	CPU       float64 `json:"server_cpu_us_per_op"` // of all nodes together
	Client    float64 `json:"client_cpu_us_per_op"`
	RSS       float64 `json:"rss_mb"` // of the largest node
	Ops       int     `json:"ops"`
	Errors    int     `json:"errors"`
}

func (r row) summary() string {
	text := fmt.Sprintf("%.0f ops/s, p50 %.2f ms, p99 %.2f ms, server %.0f µs/op", r.OpsPerSec, r.P50, r.P99, r.CPU)
	if r.Errors > 0 {
		text += fmt.Sprintf(", %d errors", r.Errors)
	}
	return text
}

// drainTime is how long after the end the last answers may take.
const drainTime = 30 * time.Second

// What a client does about errors. A cluster that changes its leader may refuse for a second.
const (
	patience   = 15 * time.Second // without a success until the measurement is given up
	errorPause = 20 * time.Millisecond
)

// client is one closed loop. It sends to all nodes in turn, over a connection each.
type client struct {
	target    *target
	conns     []*conn
	deadline  time.Time
	random    *rand.Rand
	request   []byte
	latencies []time.Duration
	errors    int
	first     error
	good      time.Time // of the last success
}

// run measures a workload with this many clients.
func (t *target) run(ctx context.Context, w workload, clients int, warmUp, length time.Duration) (row, error) {
	all := make([]*client, clients)
	deadline := time.Now().Add(warmUp + length + drainTime)
	defer func() {
		for _, c := range all {
			c.close()
		}
	}()
	for i := range all {
		all[i] = &client{target: t, conns: make([]*conn, len(t.addrs)), deadline: deadline, random: rand.New(rand.NewPCG(uint64(i), 7))}
	}
	for _, c := range all {
		if err := c.dial(); err != nil {
			return row{}, err
		}
	}
	begin := time.Now().Add(warmUp)
	end := begin.Add(length)
	var group errgroup.Group
	for i, c := range all {
		group.Go(func() error { return c.loop(ctx, w, i, begin, end) })
	}
	var before, after usage
	group.Go(func() (err error) {
		if before, err = t.usageAt(ctx, begin); err == nil {
			after, err = t.usageAt(ctx, end)
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return row{}, err
	}
	return summarize(all, length, before, after)
}

func summarize(all []*client, length time.Duration, before, after usage) (row, error) {
	var r row
	var latencies []time.Duration
	for _, c := range all {
		latencies = append(latencies, c.latencies...)
		r.Errors += c.errors
		if c.first != nil && r.Errors == c.errors {
			progress("an error: %v", c.first)
		}
	}
	if len(latencies) == 0 {
		return r, errors.New("nothing was answered in time")
	}
	slices.Sort(latencies)
	at := func(q float64) float64 {
		i := min(int(q*float64(len(latencies))), len(latencies)-1)
		return float64(latencies[i]) / float64(time.Millisecond)
	}
	r.Ops = len(latencies)
	r.OpsPerSec = float64(r.Ops) / length.Seconds()
	r.P50, r.P99, r.P999 = at(0.5), at(0.99), at(0.999)
	perOp := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(r.Ops) }
	r.CPU, r.Client, r.RSS = perOp(after.servers-before.servers), perOp(after.self-before.self), float64(after.rss)/1e6
	return r, nil
}

func (c *client) dial() error {
	for i, open := range c.conns {
		if open != nil {
			continue
		}
		fresh, err := dial(c.target.addrs[i], c.target.config)
		if err != nil {
			return err
		}
		if err := fresh.deadline(c.deadline); err != nil {
			return err
		}
		c.conns[i] = fresh
	}
	return nil
}

func (c *client) close() {
	for _, open := range c.conns {
		if open != nil {
			open.close()
		}
	}
}

// loop sends requests until the end; those that begin and end between begin and end count.
func (c *client) loop(ctx context.Context, w workload, first int, begin, end time.Time) error {
	c.good = time.Now()
	for i := first; ctx.Err() == nil; i++ {
		c.request = w(c.request[:0], c.random)
		node := i % len(c.conns)
		sent := time.Now()
		err := c.conns[node].exchange(c.request)
		now := time.Now()
		if !now.Before(end) {
			return nil
		}
		if err != nil {
			if err := c.failed(ctx, node, err); err != nil {
				return err
			}
			continue
		}
		c.good = now
		if !sent.Before(begin) {
			c.latencies = append(c.latencies, now.Sub(sent))
		}
	}
	return ctx.Err()
}

// failed counts an error and makes good what it broke.
func (c *client) failed(ctx context.Context, node int, err error) error {
	if c.errors++; c.first == nil {
		c.first = err
	}
	if time.Since(c.good) > patience {
		return fmt.Errorf("nothing but errors for %v, the first: %w", patience, c.first)
	}
	pause := time.NewTimer(errorPause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
	}
	if _, whole := errors.AsType[*statusError](err); whole {
		return nil
	}
	c.conns[node].close()
	c.conns[node] = nil
	return c.dial()
}

// usage is what was used up to a moment.
type usage struct {
	servers time.Duration
	self    time.Duration
	rss     int64
}

// usageAt waits for a moment and takes stock. Clusters whose processes aren't known have used nothing.
func (t *target) usageAt(ctx context.Context, at time.Time) (usage, error) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return usage{}, ctx.Err()
	case <-timer.C:
	}
	var u usage
	for n := 1; n <= t.lab.Nodes(); n++ {
		if !t.lab.Running(n) {
			continue
		}
		node, err := t.lab.Usage(n)
		if err != nil {
			return u, fmt.Errorf("what node %d uses: %w", n, err)
		}
		u.servers += node.CPU
		u.rss = max(u.rss, node.RSS)
	}
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return u, err
	}
	u.self = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	return u, nil
}
