package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	log "conclave/audit"
	"conclave/cmd/conclave/client"
)

// node is a log that answers as a server's does.
func node(t *testing.T, name string, records ...string) source {
	t.Helper()
	dir := t.TempDir()
	l, err := log.OpenLog(dir, log.State{}, log.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for i, text := range records {
		if _, err := l.Append(uint64(i+7), int64(i), log.Sealed{Digest: sha256.Sum256([]byte(text)), Box: []byte("box of " + text)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	return source{name, func(_ context.Context, from uint64, limit int) (page, error) {
		text := new(bytes.Buffer)
		state, err := log.Export(text, func(visit func(log.Frame) bool) error { return l.Read(t.Context(), 0, visit) }, nil)
		if err != nil {
			return page{}, err
		}
		root := state.Root()
		p := page{Head: head{Epoch: state.Epoch, Seq: state.Seq, Head: hex.EncodeToString(state.Head[:]), Root: hex.EncodeToString(root[:])}}
		lines := strings.SplitAfter(text.String(), "\n")
		for _, line := range lines[1 : len(lines)-2] {
			p.Frames = append(p.Frames, json.RawMessage(strings.TrimSpace(line)))
		}
		p.Frames = p.Frames[min(int(from), len(p.Frames)):]
		p.Frames = p.Frames[:min(limit, len(p.Frames), small)]
		return p, nil
	}}
}

// small is how many records the nodes of these tests answer with at a time.
const small = 7

func records(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint("record ", i)
	}
	return list
}

func TestNodesThatAgreeAreWhole(t *testing.T) {
	found, err := compare(t.Context(), []source{node(t, "a", records(20)...), node(t, "b", records(23)...), node(t, "c", records(18)...)})
	if err != nil || !found.Whole || found.Records != 18 || len(found.Nodes) != 3 {
		t.Errorf("compare = %+v, %v, want a whole log of 18 records in common", found, err)
	}
}

func TestDisagreementIsNamed(t *testing.T) {
	for _, at := range []int{0, 1, 11, 19} {
		other := records(23)
		other[at] = "something else"
		found, err := compare(t.Context(), []source{node(t, "a", records(20)...), node(t, "b", other...)})
		want := fmt.Sprintf("a and b disagree from record %d on", at)
		if err != nil || found.Whole || found.Fault != want {
			t.Errorf("compare = %+v, %v, want %q", found, err, want)
		}
	}
}

func TestFirstBadRecordIsNamed(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(p *page, from uint64)
		says  string
	}{
		{"changed", func(p *page, from uint64) {
			for i, frame := range p.Frames {
				p.Frames[i] = bytes.Replace(frame, []byte(`"stamp":8,`), []byte(`"stamp":9,`), 1)
			}
		}, "record 8:"},
		{"left out", func(p *page, from uint64) {
			if from == 7 {
				p.Frames = p.Frames[1:]
			}
		}, "record 7:"},
		{"cut off", func(p *page, from uint64) {
			if from >= 14 {
				p.Frames = nil
			}
		}, "record 14: the log ends here"},
		{"another head is stated", func(p *page, _ uint64) { p.Head.Head = strings.Repeat("0", 64) }, "the head of the chain after 20 records"},
		{"another root is stated", func(p *page, _ uint64) { p.Head.Root = strings.Repeat("0", 64) }, "the root of the tree after 20 records"},
		{"damaged on disk", func(p *page, from uint64) {
			if from == 7 {
				p.Frames, p.Fault = p.Frames[:2], "audit record 9 (seg-0000000000000000.log, offset 1234): checksum: it doesn't match"
			}
		}, "audit record 9 (seg"},
		{"damaged from the start", func(p *page, _ uint64) { p.Frames, p.Fault = nil, "audit record 0: checksum" }, "audit record 0:"},
		{"not a record", func(p *page, from uint64) { p.Frames[0] = json.RawMessage(`[]`) }, "can't be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			whole := node(t, "a", records(20)...)
			bad := source{"a", func(ctx context.Context, from uint64, limit int) (page, error) {
				p, err := whole.fetch(ctx, from, limit)
				tc.spoil(&p, from)
				return p, err
			}}
			found, err := compare(t.Context(), []source{bad})
			if err != nil || found.Whole || !strings.Contains(found.Fault, tc.says) {
				t.Errorf("compare = %+v, %v, want a fault that says %q", found, err, tc.says)
			}
		})
	}
}

func TestExportOfANodeVerifies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	s := &client.Session{Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }}
	if err := exportTo(t.Context(), s, node(t, "a", records(20)...), file); err != nil {
		t.Fatal(err)
	}
	if err := verifyExport(s, file); err != nil {
		t.Error(err)
	}
	if err := exportTo(t.Context(), s, node(t, "a", records(20)...), file); err == nil {
		t.Error("an export replaces a file that is there")
	}
	if err := verifyExport(s, file); err != nil {
		t.Errorf("after a refused export: %v", err)
	}
}

func TestSegmentsAreFoundBelowADataDirectory(t *testing.T) {
	data := t.TempDir()
	for _, generation := range []string{"0000000000000001", "0000000000000002"} {
		if err := os.MkdirAll(filepath.Join(data, "audit", generation), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, "audit", generation, "seg-0000000000000000.log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := filepath.Join(data, "audit", "0000000000000002")
	for _, dir := range []string{data, filepath.Join(data, "audit"), want} {
		if got, err := segments(dir); got != want || err != nil {
			t.Errorf("segments(%s) = %s, %v, want %s", dir, got, err, want)
		}
	}
	if got, err := segments(filepath.Join(data, "none")); err == nil {
		t.Errorf("segments of nothing = %s, want an error", got)
	}
}

func FuzzFirstLine(f *testing.F) {
	f.Add([]byte(`{"seq":0}`))
	f.Add([]byte(`{"seq":3,"start":"conclave audit epoch v1\n"}`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		line, err := firstLine(frame)
		if err == nil && !json.Valid(line) {
			t.Errorf("firstLine(%q) = %q, which isn't JSON", frame, line)
		}
	})
}
