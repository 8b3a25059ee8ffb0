//go:build unix

package fsm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

// benchState makes a state on disk with n records of 400 bytes, all at version 1.
func benchState(b *testing.B, n int) *FSM {
	b.Helper()
	f, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < n; i += 1000 {
		tx := &Transaction{NotAfter: NotAfterAny}
		for j := i; j < i+1000; j++ {
			k := benchKey(j)
			tx.Reads = append(tx.Reads, Read{k, 0})
			tx.Writes = append(tx.Writes, Write{Op: Create, Key: k, Version: 1, Value: make([]byte, 400)})
		}
		r := f.Apply(&raft.Log{Index: uint64(i/1000 + 1), Term: 1, Data: EncodeBatch(nil, 1, 0, ProposalID{}, []*Transaction{tx})}).(*BatchResult)
		if r.Outcomes[0].Verdict != Committed {
			b.Fatal(r.Outcomes[0])
		}
	}
	// Nothing is left to do in the background, which would be counted.
	if err := errors.Join(f.epoch.db.Flush(), f.epoch.db.Compact(context.Background(), []byte("a"), []byte("z"), false)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	return f
}

// cpu reports the process's CPU time per op, which other load on the machine disturbs less than the clock's. Call it
// before the loop, and what it returns after.
func cpu(b *testing.B) (report func()) {
	used := func() int64 {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return r.Utime.Nano() + r.Stime.Nano()
	}
	from := used()
	return func() { b.ReportMetric(float64(used()-from)/float64(b.N), "cpu-ns/op") }
}

func benchKey(i int) Key { return testKey(ClassRecord, i%7, i/1000, i) }

func benchBox() AuditRecord {
	r := AuditRecord{Box: make([]byte, 700)}
	_, _ = rand.Read(r.Box)
	return r
}

// benchRecords fit into the block cache.
const benchRecords = 20_000

// BenchmarkApplyRead applies entries of transactions with 5 reads and a 700-byte box, as the leader does. An op is a
// transaction.
func BenchmarkApplyRead(b *testing.B) {
	for _, size := range []int{16, 64} {
		b.Run(fmt.Sprint("entry", size), func(b *testing.B) {
			f := benchState(b, benchRecords)
			box := benchBox()
			txs := make([]*Transaction, size)
			for i := range txs {
				txs[i] = &Transaction{NotBefore: NotBeforeAny, NotAfter: NotAfterAny, Record: box}
				binary.BigEndian.PutUint64(txs[i].ID[:], uint64(i))
				for j := range 5 {
					txs[i].Reads = append(txs[i].Reads, Read{benchKey((i*5 + j) * 997 % benchRecords), 1})
				}
			}
			index := f.Applied()
			b.ReportAllocs()
			defer cpu(b)()
			for i := 0; b.Loop(); i++ {
				if i%size != 0 {
					continue
				}
				for _, t := range txs {
					t.Snapshot = index
				}
				index++
				var id ProposalID
				binary.BigEndian.PutUint64(id[:], index)
				forget := f.Expect(id, txs)
				r := f.ApplyBatch([]*raft.Log{{Index: index, Term: 1, Data: EncodeBatch(nil, 1, 0, id, txs)}})
				forget()
				if o := r[0].(*BatchResult).Outcomes[size-1]; o.Verdict != Committed {
					b.Fatal(o)
				}
			}
		})
	}
}

// BenchmarkApplyWrite applies entries of 16 transactions with 6 reads, 2 of which they write with 400 bytes, and a
// 700-byte box. An op is a transaction. With cold keys every read misses the map of known versions; with warm ones the
// four that aren't written are shared.
func BenchmarkApplyWrite(b *testing.B) {
	for _, warm := range []bool{true, false} {
		name := "cold"
		if warm {
			name = "warm"
		}
		b.Run(name, func(b *testing.B) {
			const size = 16
			f := benchState(b, benchRecords)
			box := benchBox()
			versions := map[int]uint64{}
			index := f.Applied()
			txs := make([]*Transaction, size)
			next := 0
			b.ReportAllocs()
			defer cpu(b)()
			for i := 0; b.Loop(); i++ {
				if i%size != 0 {
					continue
				}
				for k := range txs {
					t := &Transaction{Snapshot: index, NotBefore: NotBeforeAny, NotAfter: NotAfterAny, Record: box}
					for j := range 6 {
						next += 7919
						n := next % benchRecords
						if j < 4 && warm {
							n = j
						}
						v := max(versions[n], 1)
						t.Reads = append(t.Reads, Read{benchKey(n), v})
						if j >= 4 {
							t.Writes = append(t.Writes, Write{Op: Replace, Key: benchKey(n), Version: index + 1, Value: box.Box[:400]})
							versions[n] = index + 1
						}
					}
					txs[k] = t
				}
				data := EncodeBatch(nil, 1, 0, ProposalID{}, txs)
				index++
				r := f.ApplyBatch([]*raft.Log{{Index: index, Term: 1, Data: data}})
				if o := r[0].(*BatchResult).Outcomes[size-1]; o.Verdict != Committed {
					b.Fatal(o)
				}
			}
		})
	}
}

// BenchmarkView takes and returns a view with 5 reads of 400 bytes.
func BenchmarkView(b *testing.B) {
	f := benchState(b, benchRecords)
	b.ReportAllocs()
	defer cpu(b)()
	for i := 0; b.Loop(); i++ {
		v := f.View()
		for j := range 5 {
			if _, value, err := v.Get(benchKey((i*5 + j) * 997 % benchRecords)); err != nil || value == nil {
				b.Fatal(err)
			}
		}
		v.Release()
	}
}

// BenchmarkGet reads keys that are read again and again, and others.
func BenchmarkGet(b *testing.B) {
	const items = 20_000
	f := benchState(b, items)
	v := f.View()
	defer v.Release()
	for name, n := range map[string]int{"hot": 8, "cold": items} {
		keys := make([]Key, n)
		for i := range keys {
			keys[i] = benchKey(i)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 1) % len(keys)
				if _, value, err := v.Get(keys[i]); err != nil || value == nil {
					b.Fatalf("Get = %v, %v", value, err)
				}
			}
		})
	}
}
