package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"conclave/fsm"
)

// cpuTime is what this process has used, user and system.
func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// benchmarkCommit runs callers over all three nodes; make is what each of them commits.
func benchmarkCommit(b *testing.B, callers int, make func(n *labNode, caller int) *fsm.Transaction, change ...func(*Config)) {
	l, nodes := three(b, change...)
	for i := range callers {
		n := nodes[i%3]
		mustCommit(b, n, func() *fsm.Transaction { return writing(n, uint64(i), "to be read") })
	}
	leader := l.leader()
	for _, n := range nodes {
		if err := n.state.WaitApplied(context.Background(), leader.state.Applied()); err != nil {
			b.Fatal(err)
		}
	}
	var left, conflicts atomic.Int64
	left.Store(int64(b.N))
	before := leader.Stats()
	b.ResetTimer()
	cpu, began := cpuTime(b), time.Now()
	var done sync.WaitGroup
	for i := range callers {
		done.Go(func() {
			n := nodes[i%3]
			for left.Add(-1) >= 0 {
				o, err := n.Commit(context.Background(), make(n, i))
				if err != nil {
					b.Error(err)
					return
				}
				if o.Verdict != fsm.Committed {
					conflicts.Add(1)
					if err := n.state.WaitApplied(context.Background(), o.Index); err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	done.Wait()
	elapsed := time.Since(began)
	b.StopTimer()
	after := leader.Stats()
	entries := after.Entries - before.Entries
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "ops/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/float64(max(entries, 1)), "ops/entry")
	b.ReportMetric(float64(conflicts.Load())/float64(b.N), "conflicts/op")
	b.ReportMetric(float64(after.CommitTime.Quantile(0.5)), "p50-µs")
	b.ReportMetric(float64(after.CommitTime.Quantile(0.99)), "p99-µs")
}

// BenchmarkCommitReading is the promise of speed: 64 callers, read-only, with a record of 700 bytes.
func BenchmarkCommitReading(b *testing.B) {
	benchmarkCommit(b, 64, func(n *labNode, caller int) *fsm.Transaction { return reading(n, uint64(caller)) })
}

// BenchmarkCommitWriting has each caller replace a record of its own.
func BenchmarkCommitWriting(b *testing.B) {
	benchmarkCommit(b, 64, func(n *labNode, caller int) *fsm.Transaction { return writing(n, uint64(caller), "0123456789abcdef") })
}

// BenchmarkCommitAlone is the latency of one caller.
func BenchmarkCommitAlone(b *testing.B) {
	benchmarkCommit(b, 1, func(n *labNode, caller int) *fsm.Transaction { return reading(n, uint64(caller)) })
}

// BenchmarkPipeline is what the number of entries under way and the commit timeout were chosen by.
func BenchmarkPipeline(b *testing.B) {
	for _, entries := range []int{1, 2, 4, 8} {
		for _, late := range []time.Duration{time.Millisecond, 5 * time.Millisecond} {
			b.Run(fmt.Sprintf("entries=%d/commit-timeout=%v", entries, late), func(b *testing.B) {
				benchmarkCommit(b, 64, func(n *labNode, caller int) *fsm.Transaction { return writing(n, uint64(caller), "0123456789abcdef") },
					func(c *Config) { c.Pipeline, c.CommitTimeout = entries, late })
			})
		}
	}
}
