package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"conclave/audit"
	"conclave/fsm"
)

func open(t *testing.T) *fsm.FSM {
	t.Helper()
	f, err := fsm.Open(fsm.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// put has n entries with an audit record each applied.
func put(f *fsm.FSM, n int) {
	for range n {
		index := f.Applied() + 1
		key := fsm.Key(fmt.Sprintf("pitem %d", index))
		tx := &fsm.Transaction{Snapshot: index - 1, NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny, Reads: []fsm.Read{{Key: key}},
			Writes: []fsm.Write{{Op: fsm.Create, Key: key, Version: index, Value: []byte("value")}}, Record: fsm.AuditRecord{Box: []byte("record")}}
		f.Apply(&raft.Log{Index: index, Term: 2, Type: raft.LogCommand, Data: fsm.EncodeBatch(nil, 2, int64(index), fsm.ProposalID{}, []*fsm.Transaction{tx})})
	}
}

// saved is a snapshot as a person gets it.
func saved(t *testing.T, f *fsm.FSM) []byte {
	t.Helper()
	cut, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Release()
	var b bytes.Buffer
	if err := cut.Persist(sink{&b}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func stream(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }

func sum(t *testing.T, f *fsm.FSM) []fsm.Range {
	t.Helper()
	v := f.View()
	defer v.Release()
	ranges, err := v.Sum(func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}

func TestAStateThatIsPutBackBeginsAnEpochThatNamesWhatItReplaces(t *testing.T) {
	running := open(t)
	put(running, 10)
	old := saved(t, running)
	then := sum(t, running)
	put(running, 5)
	replaced := running.Head()

	dir := filepath.Join(t.TempDir(), "scratch")
	r := Rebase{Dir: dir, Replaced: replaced, Time: 1000, Reason: "the batch job of Monday was wrong"}
	var b bytes.Buffer
	index, err := r.Write(&b, stream(old))
	if err != nil || index != 11 {
		t.Fatalf("Write = %d, %v, want 11", index, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scratch directory is left: %v", err)
	}

	var ends []audit.State
	for _, f := range []*fsm.FSM{running, open(t)} {
		if err := f.Restore(stream(bytes.Clone(b.Bytes()))); err != nil {
			t.Fatal(err)
		}
		for i, now := range sum(t, f) {
			if same := now == then[i]; same != (now.Name != "audit" && now.Name != "position") {
				t.Errorf("range %s is as it was: %v", now.Name, same)
			}
		}
		if f.Applied() != 11 || f.Time() != 1000 {
			t.Errorf("the state is of index %d and time %d, want 11 and 1000", f.Applied(), f.Time())
		}
		ends = append(ends, f.Head())
		if report, err := f.Audit().Verify(context.Background(), 0, nil); err != nil || report.Fault != nil || report.Records != 11 {
			t.Errorf("Verify: %d records, %v, %v", report.Records, report.Fault, err)
		}
		var first audit.Frame
		if err := f.Audit().Read(context.Background(), 10, func(x audit.Frame) bool {
			first = x
			return false
		}); err != nil {
			t.Fatal(err)
		}
		start, err := audit.ParseEpochStart(first.Box)
		if err != nil || start.PreviousSeq != 10 || start.Epoch != 1 {
			t.Fatalf("the record after the old ones is %+v, %v", start, err)
		}
		for _, part := range []string{"the batch job of Monday was wrong", "15 records", fmt.Sprintf("%x", replaced.Head)} {
			if !strings.Contains(start.Reason, part) {
				t.Errorf("the epoch's reason is %q, want it to name %q", start.Reason, part)
			}
		}
		put(f, 2) // and it goes on
	}
	if !ends[0].Equal(&ends[1]) {
		t.Error("nodes that restored the same differ")
	}
}

func TestWhatCanNotBePutBackIsRefused(t *testing.T) {
	f := open(t)
	put(f, 3)
	good := saved(t, f)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		r      Rebase
		source []byte
	}{
		"no reason":           {Rebase{}, good},
		"a reason of lines":   {Rebase{Reason: "a\nb"}, good},
		"a long reason":       {Rebase{Reason: strings.Repeat("x", MaxReason+1)}, good},
		"a used directory":    {Rebase{Reason: "why", Dir: full}, good},
		"a cut snapshot":      {Rebase{Reason: "why"}, good[:len(good)/2]},
		"something different": {Rebase{Reason: "why"}, []byte("snapshot")},
	}
	for name, row := range rows {
		if row.r.Dir == "" {
			row.r.Dir = filepath.Join(t.TempDir(), "scratch")
		}
		if _, err := row.r.Write(io.Discard, stream(row.source)); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	if _, err := os.Stat(filepath.Join(full, "precious")); err != nil {
		t.Errorf("a directory that was in use: %v", err)
	}
	longest := Rebase{Reason: strings.Repeat("x", MaxReason), Dir: filepath.Join(t.TempDir(), "scratch"), Replaced: audit.State{Seq: 1<<64 - 1}}
	if _, err := longest.Write(io.Discard, stream(good)); err != nil {
		t.Errorf("the longest reason: %v", err)
	}
}
