package disk

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave/fsm"
)

func openLog(t *testing.T, dir, kind string) *Log {
	t.Helper()
	l, err := OpenLog(dir, kind, hclog.NewNullLogger(), func(err error) { t.Errorf("fatal: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func entries(first uint64, n int) []*raft.Log {
	var logs []*raft.Log
	for i := range n {
		logs = append(logs, &raft.Log{Index: first + uint64(i), Term: 3, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d", i), AppendedAt: time.Unix(1, 0)})
	}
	return logs
}

func TestLogKeepsWhatItStored(t *testing.T) {
	for _, kind := range []string{"wal", "bolt"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir, kind)
			if err := l.StoreLogs(entries(1, 10)); err != nil {
				t.Fatal(err)
			}
			if got, want := l.IsMonotonic(), kind == "wal"; got != want {
				t.Errorf("IsMonotonic() = %v, want %v", got, want)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = openLog(t, dir, kind)
			defer l.Close()
			first, _ := l.FirstIndex()
			last, err := l.LastIndex()
			if first != 1 || last != 10 || err != nil {
				t.Errorf("log holds %d to %d, %v; want 1 to 10", first, last, err)
			}
			var got raft.Log
			if err := l.GetLog(4, &got); err != nil || string(got.Data) != "entry 3" || len(got.Extensions) != trailerBytes {
				t.Errorf("GetLog(4) = %q with %d bytes of trailer, %v", got.Data, len(got.Extensions), err)
			}
			if err := l.GetLog(11, &got); !errors.Is(err, raft.ErrLogNotFound) {
				t.Errorf("GetLog(11): %v, want ErrLogNotFound", err)
			}
			if err := l.DeleteRange(1, 5); err != nil {
				t.Fatal(err)
			}
			if first, _ := l.FirstIndex(); first != 6 {
				t.Errorf("after deleting up to 5 the log starts at %d", first)
			}
		})
	}
}

func TestDamagedEntryIsNeitherStoredNorSent(t *testing.T) {
	inner := raft.NewInmemStore()
	l := newLog(struct {
		*raft.InmemStore
		closer
	}{InmemStore: inner}, func(err error) { t.Errorf("fatal: %v", err) })
	if err := l.StoreLogs(entries(1, 3)); err != nil {
		t.Fatal(err)
	}
	var sent raft.Log
	if err := l.GetLog(3, &sent); err != nil {
		t.Fatal(err)
	}
	damage := map[string]func(*raft.Log){
		"data":    func(l *raft.Log) { l.Data = append(bytes.Clone(l.Data), 0) },
		"term":    func(l *raft.Log) { l.Term++ },
		"index":   func(l *raft.Log) { l.Index++ },
		"type":    func(l *raft.Log) { l.Type = raft.LogConfiguration },
		"trailer": func(l *raft.Log) { l.Extensions = l.Extensions[:4] },
		"format":  func(l *raft.Log) { l.Extensions = append([]byte{2}, l.Extensions[1:]...) },
	}
	for name, f := range damage {
		bad := sent
		f(&bad)
		other := newLog(struct {
			*raft.InmemStore
			closer
		}{InmemStore: raft.NewInmemStore()}, func(err error) { t.Errorf("fatal: %v", err) })
		if err := other.StoreLogs([]*raft.Log{&bad}); !errors.Is(err, errDamaged) {
			t.Errorf("storing an entry with another %s: %v, want %v", name, err, errDamaged)
		}
		if name == "index" {
			continue // it would be found under another
		}
		if err := inner.StoreLog(&bad); err != nil {
			t.Fatal(err)
		}
		l.cache = nil
		var got raft.Log
		if err := l.GetLog(3, &got); !errors.Is(err, errDamaged) {
			t.Errorf("reading an entry with another %s: %v, want %v", name, err, errDamaged)
		}
	}
}

type closer struct{}

func (closer) Close() error { return nil }

type failing struct {
	*raft.InmemStore
	closer
}

func (failing) StoreLogs([]*raft.Log) error { return errors.New("the disk is gone") }

func TestFailedWriteIsFatal(t *testing.T) {
	var fatal error
	l := newLog(failing{InmemStore: raft.NewInmemStore()}, func(err error) { fatal = err })
	if err := l.StoreLogs(entries(1, 1)); err == nil || fatal == nil {
		t.Errorf("a failed write gave %v, fatal %v", err, fatal)
	}
}

func TestWithoutRoomEntriesOfOthersAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	for _, kind := range []string{"wal", "bolt"} {
		t.Run(kind, func(t *testing.T) {
			l := openLog(t, t.TempDir(), kind) // which fails the test if anything is fatal
			defer l.Close()
			noRoom, full := errors.New("no room"), false
			l.KeepRoom(func(int) error {
				if full {
					return noRoom
				}
				return nil
			})
			foreign := func(first uint64, count int) []*raft.Log {
				logs := entries(first, count)
				for _, e := range logs {
					e.Data = make([]byte, openingBytes+1)
					e.Extensions = sealEntry(e)
				}
				return logs
			}
			want := func(last uint64) {
				t.Helper()
				if got, err := l.LastIndex(); err != nil || got != last {
					t.Errorf("the last entry is %d, %v; want %d", got, err, last)
				}
			}
			if err := l.StoreLogs(foreign(1, 9)); err != nil {
				t.Fatal(err)
			}
			full = true
			if err := l.StoreLogs(foreign(10, 1)); !errors.Is(err, noRoom) {
				t.Errorf("storing another node's entry: %v, want %v", err, noRoom)
			}
			if err := l.DeleteRange(8, 9); !errors.Is(err, noRoom) {
				t.Errorf("dropping a suffix: %v, want %v", err, noRoom)
			}
			want(9)
			opening := &raft.Log{Index: 10, Term: 2, Type: raft.LogCommand, Data: fsm.EncodeTermOpen(2, 1)}
			noop := &raft.Log{Index: 11, Term: 2, Type: raft.LogNoop}
			for _, e := range []*raft.Log{opening, noop} {
				e.Extensions = sealEntry(e)
				if err := l.StoreLog(e); err != nil {
					t.Errorf("storing what a new leader needs: %v", err)
				}
			}
			full = false
			if err := l.DeleteRange(10, 11); err != nil {
				t.Fatal(err)
			}
			if err := l.StoreLogs(foreign(10, 1)); err != nil {
				t.Fatal(err)
			}
			full = true
			if err := l.DeleteRange(1, 2); err != nil {
				t.Errorf("dropping the oldest: %v; that makes room", err)
			}
			if err := l.StoreLogs(entries(11, 1)); err != nil {
				t.Errorf("storing an entry of this node: %v", err)
			}
			full = false
			if err := l.DeleteRange(8, 11); err != nil {
				t.Fatal(err)
			}
			full = true
			if err := l.StoreLogs(foreign(8, 1)); err != nil {
				t.Errorf("storing what takes a dropped suffix's place: %v; Raft can't do without", err)
			}
			if err := l.StoreLogs(foreign(9, 1)); !errors.Is(err, noRoom) {
				t.Errorf("storing what comes after: %v, want %v", err, noRoom)
			}
			full = false
			if err := l.StoreLogs(foreign(9, 1)); err != nil {
				t.Errorf("with room again: %v", err)
			}
			want(9)
		})
	}
}

func TestRememberedEntriesAreBounded(t *testing.T) {
	l := newLog(struct {
		*raft.InmemStore
		closer
	}{InmemStore: raft.NewInmemStore()}, nil)
	for i := range 3 * cachedLogEntries {
		if err := l.StoreLogs(entries(uint64(1+i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.cache); n != cachedLogEntries {
		t.Errorf("%d entries are remembered, want %d", n, cachedLogEntries)
	}
	big := entries(uint64(3*cachedLogEntries+1), 3)
	for _, e := range big {
		e.Data = make([]byte, cachedLogBytes/2+1)
	}
	if err := l.StoreLogs(big); err != nil {
		t.Fatal(err)
	}
	if l.bytes > cachedLogBytes {
		t.Errorf("%d bytes are remembered, want at most %d", l.bytes, cachedLogBytes)
	}
	var got raft.Log
	if !l.cached(big[2].Index, &got) || got.Index != big[2].Index {
		t.Errorf("the newest entry isn't remembered")
	}
}

func TestIdentityStays(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(&Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(&Options{Dir: dir}); err == nil {
		t.Error("a data directory was opened twice")
	}
	first.Close()
	second, err := Open(&Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if second.NodeID != first.NodeID || second.ServerID() != first.ServerID() || second.SPKI != first.SPKI {
		t.Errorf("opened again as %s, %x; was %s, %x", second.ServerID(), second.SPKI, first.ServerID(), first.SPKI)
	}
	if NodeOf(first.ServerID()) != first.NodeID {
		t.Errorf("NodeOf(%q) = %q, want %q", first.ServerID(), NodeOf(first.ServerID()), first.NodeID)
	}
	info, err := os.Stat(filepath.Join(dir, "node.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("node.pem: %v, %v; want mode 0600", info.Mode(), err)
	}
	before := second.ServerID()
	if err := second.RenameDisk(); err != nil || second.ServerID() == before {
		t.Errorf("renamed disk: %s was %s, %v", second.ServerID(), before, err)
	}
	if _, err := tls.X509KeyPair(mustRead(t, dir), mustRead(t, dir)); err != nil {
		t.Error(err)
	}
}

func mustRead(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "node.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOriginStays(t *testing.T) {
	dir := t.TempDir()
	if o, err := LoadOrigin(dir); err != nil || o != (Origin{}) {
		t.Errorf("a new directory has origin %+v, %v", o, err)
	}
	want := Origin{ClusterID: NewClusterID(), Founding: true}
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	if o, err := LoadOrigin(dir); err != nil || o != want {
		t.Errorf("loaded %+v, %v; want %+v", o, err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.json"), []byte(`{"cluster_id":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrigin(dir); err == nil {
		t.Error("a damaged origin was loaded")
	}
}

func TestGuardRefusesBelowTheReserve(t *testing.T) {
	free := uint64(100 << 20)
	now, asked := time.Duration(0), 0
	g := NewGuard("/", 0, func(string) (uint64, error) { asked++; return free, nil }, func() time.Duration { return now })
	if err := g.Check(); err != nil {
		t.Errorf("with 100 MiB free: %v", err)
	}
	free = 40 << 20
	if err := g.Check(); err != nil || asked != 1 {
		t.Errorf("within the interval: %v, asked %d times", err, asked)
	}
	now += guardInterval
	if err := g.Check(); err == nil {
		t.Error("40 MiB is above the reserve")
	}
	for bytes, refused := range map[int]bool{0: false, 8 << 20: false, 8<<20 + 1: true} {
		if err := g.Room(bytes); (err != nil) != refused {
			t.Errorf("room for %d bytes with 40 MiB free: %v", bytes, err)
		}
	}
}
