package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"conclave"
)

// followed is a log that a sink follows. idle gets the record number that the sink waits for.
type followed struct {
	*Log
	idle chan uint64
}

func (f *followed) Wait(ctx context.Context, seq uint64) error {
	if f.Shown().Seq > seq {
		return nil
	}
	select {
	case f.idle <- seq:
	case <-ctx.Done():
	}
	<-ctx.Done()
	return ctx.Err()
}

// sinkTest is a log with a sink behind it.
type sinkTest struct {
	t      *testing.T
	source *followed
	config FileSinkConfig
}

func newSinkTest(t *testing.T) *sinkTest {
	dir := t.TempDir()
	folders, err := NewFolders([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	s := &sinkTest{t: t}
	s.replaceLog(State{})
	s.config = FileSinkConfig{Path: filepath.Join(dir, "audit.log"), Folders: folders, Source: s.source, Every: time.Hour,
		Open: func(context.Context, uint64) (*Opener, error) { return testOpener(t), nil }}
	return s
}

func (s *sinkTest) replaceLog(at State) {
	s.t.Helper()
	log, err := OpenLog("log", at, LogOptions{FS: vfs.NewMem()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.source = &followed{log, make(chan uint64)}
	s.config.Source = s.source
}

// add appends the records of requests for the paths from to to, with stamps equal to their numbers.
func (s *sinkTest) add(from, to int) {
	s.t.Helper()
	sealer := testSealers(s.t)[0]
	for i := from; i <= to; i++ {
		digest, box, err := sealer.Seal(Encode(nil, &Entry{Operation: conclave.Read, Path: fmt.Sprint("p", i)}, testHasher()))
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := s.source.Append(uint64(i), int64(i), Sealed{Digest: digest, Box: box}); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.source.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a sink until it waits for what isn't there, calls during, and ends it.
func (s *sinkTest) run(during func(sink *FileSink)) error {
	s.t.Helper()
	sink, err := NewFileSink(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-s.source.idle:
	}
	if during != nil {
		during(sink)
	}
	cancel()
	return <-done
}

func (s *sinkTest) mustRun(during func(sink *FileSink)) {
	s.t.Helper()
	if err := s.run(during); !errors.Is(err, context.Canceled) {
		s.t.Fatalf("Run = %v, want canceled", err)
	}
}

// want checks that a file has the lines of requests for the paths from to to, once and in order.
func (s *sinkTest) want(path string, from, to int) {
	s.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	lines := strings.SplitAfter(string(content), "\n")
	if len(lines)-1 != 2*(to-from+1) {
		s.t.Fatalf("%d lines, want %d:\n%s", len(lines)-1, 2*(to-from+1), content)
	}
	for i, line := range lines[:len(lines)-1] {
		kind := []string{"request", "response"}[i%2]
		if !strings.Contains(line, fmt.Sprintf(`"type":"%s"`, kind)) || !strings.Contains(line, fmt.Sprintf(`"path":"p%d"}`, from+i/2)) {
			s.t.Fatalf("line %d is %s, want the %s for p%d", i, line, kind, from+i/2)
		}
	}
}

func TestSinkWritesEachLineOnce(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 100)
	s.mustRun(nil)
	s.want(s.config.Path, 1, 100)
	s.add(101, 120)
	s.mustRun(nil)
	s.want(s.config.Path, 1, 120)
	if info, err := os.Stat(s.config.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
}

func TestSinkAfterACrashCutsAndGoesOn(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 10)
	s.mustRun(nil)
	for _, beyond := range []string{"", `{"time":"half a li`, strings.Repeat("x\n", 5000)} {
		file, err := os.OpenFile(s.config.Path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = file.WriteString(beyond)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		s.mustRun(nil)
		s.want(s.config.Path, 1, 10)
	}
}

// TestSinkBeforeItsFirstCheckpoint takes the state after a crash in the first second: a cursor that says 0, and lines.
func TestSinkBeforeItsFirstCheckpoint(t *testing.T) {
	s := newSinkTest(t)
	s.mustRun(nil)
	s.add(1, 3)
	if err := os.WriteFile(s.config.Path, []byte(`{"time":"2026-03-04T05:06:07Z","type":"request","request":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.mustRun(nil)
	s.want(s.config.Path, 1, 3)
}

func TestSinkReopensAfterRotation(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 5)
	s.mustRun(func(sink *FileSink) {
		if err := os.Rename(s.config.Path, s.config.Path+".1"); err != nil {
			t.Fatal(err)
		}
		sink.Reopen()
		<-s.source.idle
		s.add(6, 9)
		sink.Reopen()
		<-s.source.idle
	})
	s.want(s.config.Path+".1", 1, 5)
	s.want(s.config.Path, 6, 9)
}

func TestSinkGoesOnAfterTheFileWasCutFromOutside(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 5)
	s.mustRun(nil)
	if err := os.Truncate(s.config.Path, 0); err != nil {
		t.Fatal(err)
	}
	s.add(6, 7)
	s.mustRun(nil)
	s.want(s.config.Path, 6, 7)
}

func TestSinkLeavesOutWhatWasBefore(t *testing.T) {
	s := newSinkTest(t)
	s.config.Since = time.Unix(0, 4)
	s.add(1, 6)
	s.mustRun(nil)
	s.want(s.config.Path, 4, 6)
}

func TestSinkPassesOverEpochStarts(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 3)
	if _, err := s.source.Rotate(9, 9, "test"); err != nil {
		t.Fatal(err)
	}
	s.add(4, 5)
	s.mustRun(nil)
	s.want(s.config.Path, 1, 5)
}

func TestSinkAfterARestoreBeginsWithTheNewEpoch(t *testing.T) {
	for _, after := range []int{0, 3} { // the restored log is shorter, or longer, than the cursor
		s := newSinkTest(t)
		s.add(1, 5)
		s.mustRun(nil)
		s.replaceLog(State{})
		s.add(101, 102)
		if _, err := s.source.Rotate(9, 9, "restore"); err != nil {
			t.Fatal(err)
		}
		s.add(6, 6+after)
		s.mustRun(nil)
		s.want(s.config.Path, 1, 6+after)
	}
}

func TestSinkChecksTheChain(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 3)
	s.config.Source = brokenSource{s.source}
	if err := s.run(nil); !conclave.Is(err, conclave.Precondition) || !strings.Contains(err.Error(), "record 1 ") {
		t.Errorf("Run = %v, want that record 1 doesn't continue the chain", err)
	}
	s.config.Source = s.source
	s.mustRun(nil)
	s.want(s.config.Path, 1, 3)
}

// brokenSource has another stamp in record 1.
type brokenSource struct{ *followed }

func (b brokenSource) Read(ctx context.Context, from uint64, visit func(Frame) bool) error {
	return b.followed.Read(ctx, from, func(f Frame) bool {
		if f.Seq == 1 {
			f.Stamp++
		}
		return visit(f)
	})
}

func TestSinkSaysWhenRecordsWereDropped(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 3)
	s.mustRun(nil)
	s.add(4, 5)
	if _, err := s.source.Rotate(9, 9, "test"); err != nil {
		t.Fatal(err)
	}
	state := s.source.State()
	start := EpochStart{}
	if err := s.source.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.source.Read(t.Context(), state.EpochSeq, func(f Frame) bool { start, _ = ParseEpochStart(f.Box); return false }); err != nil {
		t.Fatal(err)
	}
	if !s.source.Prune(0, start.PreviousHead) {
		t.Fatal("Prune did nothing")
	}
	if err := s.run(nil); !conclave.Is(err, conclave.Precondition) || !strings.Contains(err.Error(), "3 to 4") {
		t.Errorf("Run = %v, want that records 3 to 4 are gone", err)
	}
}

func TestSinkRefusesADamagedCursor(t *testing.T) {
	s := newSinkTest(t)
	s.mustRun(nil)
	if err := os.WriteFile(s.config.Path+cursorExtension, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.run(nil); !conclave.Is(err, conclave.Precondition) {
		t.Errorf("Run = %v, want that the cursor is damaged", err)
	}
}

func TestSinkLeavesForeignFilesAlone(t *testing.T) {
	s := newSinkTest(t)
	next := s.config.Path + cursorExtension + nextExtension
	if err := os.WriteFile(next, []byte(cursorStart[:7]), 0o600); err != nil { // as a crash leaves it
		t.Fatal(err)
	}
	s.mustRun(nil)
	if err := os.WriteFile(next, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.run(nil); !conclave.Is(err, conclave.Precondition) {
		t.Errorf("Run = %v, want that a file is not ours", err)
	}
	if content, err := os.ReadFile(next); err != nil || string(content) != "mine" {
		t.Errorf("the foreign file holds %q, %v", content, err)
	}
}

func TestOneFileHasOneSink(t *testing.T) {
	s := newSinkTest(t)
	other := filepath.Join(t.TempDir(), "other")
	if err := os.Symlink(filepath.Dir(s.config.Path), other); err != nil {
		t.Fatal(err)
	}
	s.mustRun(func(*FileSink) {
		config := s.config
		config.Path = filepath.Join(other, "audit.log")
		second, err := NewFileSink(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Run(t.Context()); !conclave.Is(err, conclave.Precondition) {
			t.Errorf("Run of a second sink = %v, want that the file is being written", err)
		}
	})
}

func TestCursorIsRead(t *testing.T) {
	golden := `{"format":"conclave audit cursor 1","seq":7,"head":"` + strings.Repeat("0a", 32) + `","offset":4711,"tail":"` + strings.Repeat("0b", 32) + `"}` + "\n"
	c, err := decodeCursor([]byte(golden))
	if err != nil || c.Seq != 7 || c.Offset != 4711 || c.head != [32]byte(bytes.Repeat([]byte{10}, 32)) || string(c.encode()) != golden {
		t.Errorf("decodeCursor = %+v, %v", c, err)
	}
}

func FuzzDecodeCursor(f *testing.F) {
	f.Add(cursor{Seq: 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeCursor(b); err == nil && !bytes.Equal(c.encode(), b) {
			t.Fatalf("decoded and encoded again: %q, want %q", c.encode(), b)
		}
	})
}

// A record of a key that the sink doesn't have yet makes it ask for the keyring, once.
func TestSinkAsksForKeysThatItLacks(t *testing.T) {
	s := newSinkTest(t)
	s.add(0, 2)
	empty, err := NewOpener([16]byte{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var asked []uint64
	s.config.Open = func(_ context.Context, index uint64) (*Opener, error) {
		if asked = append(asked, index); len(asked) == 1 {
			return empty, nil
		}
		return testOpener(t), nil
	}
	if err := s.run(nil); err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("without the key: %v, want an error", err)
	}
	sink, err := NewFileSink(s.config)
	if err != nil {
		t.Fatal(err)
	}
	sink.opener = empty // of before the rotation
	var next cursor
	err = s.source.Read(t.Context(), 0, func(f Frame) bool { err = sink.append(t.Context(), &f, &next); return err == nil })
	if err != nil || len(asked) != 2 || next.Seq != 3 {
		t.Errorf("asked for the keyring at %v, stands at record %d, %v; want one more question and record 3", asked, next.Seq, err)
	}
}
