package audit

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// exportTest has a log of two epochs, with 5 and 3 records, and its export.
func exportTest(t *testing.T, opener *Opener) (export []byte, state State) {
	t.Helper()
	s := newSinkTest(t)
	s.add(1, 5)
	if _, err := s.source.Rotate(9, 9, "test"); err != nil {
		t.Fatal(err)
	}
	s.add(6, 7)
	return s.export(0, opener)
}

func (s *sinkTest) export(from uint64, opener *Opener) ([]byte, State) {
	s.t.Helper()
	var b bytes.Buffer
	state, err := Export(&b, func(visit func(Frame) bool) error { return s.source.Read(s.t.Context(), from, visit) }, opener)
	if err != nil {
		s.t.Fatal(err)
	}
	shown := s.source.Shown()
	if state.Head != shown.Head || state.Root() != shown.Root() {
		s.t.Fatalf("Export ended at %+v, want %+v", state, shown)
	}
	return b.Bytes(), shown
}

func TestExportVerifies(t *testing.T) {
	for _, opener := range []*Opener{testOpener(t), nil} {
		export, state := exportTest(t, opener)
		for _, expect := range []*State{nil, &state} {
			report, err := VerifyExport(bytes.NewReader(export), expect)
			wantWithheld := uint64(0)
			if opener == nil {
				wantWithheld = 7
			}
			if err != nil || report.Records != 8 || report.Withheld != wantWithheld || report.Expected != (expect != nil) || report.State.Head != state.Head {
				t.Errorf("VerifyExport = %+v, %v", report, err)
			}
		}
		if !bytes.Contains(export, []byte(`"start":"conclave audit epoch v1\u000a`)) || bytes.Contains(export, []byte(`"path":"p3"`)) != (opener != nil) {
			t.Errorf("export: %s", export)
		}
	}
}

// What is exported of a record with events is the record, so that its digest can be checked.
func TestExportShowsEvents(t *testing.T) {
	s := newSinkTest(t)
	digest, box, err := testSealers(t)[0].Seal(Encode(nil, eventEntry(), testHasher()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.source.Append(1, 1, Sealed{Digest: digest, Box: box}); err != nil {
		t.Fatal(err)
	}
	if err := s.source.Flush(); err != nil {
		t.Fatal(err)
	}
	export, state := s.export(0, testOpener(t))
	if report, err := VerifyExport(bytes.NewReader(export), &state); err != nil || report.Records != 1 {
		t.Errorf("VerifyExport = %+v, %v", report, err)
	}
	if !bytes.Contains(export, []byte(`"events":[{"type":"kv-v2/data-write"`)) {
		t.Errorf("export: %s", export)
	}
	forged := bytes.Replace(export, []byte(`"current_version":"2"`), []byte(`"current_version":"3"`), 1)
	if _, err := VerifyExport(bytes.NewReader(forged), nil); err == nil {
		t.Error("an export with another event passes")
	}
}

func TestExportOfOneEpochVerifies(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 5)
	if _, err := s.source.Rotate(9, 9, "test"); err != nil {
		t.Fatal(err)
	}
	s.add(6, 7)
	export, state := s.export(5, testOpener(t))
	if report, err := VerifyExport(bytes.NewReader(export), &state); err != nil || report.First != 5 || report.Records != 3 {
		t.Errorf("VerifyExport = %+v, %v", report, err)
	}
	err := s.source.Read(t.Context(), 6, func(f Frame) bool {
		_, err := Export(new(bytes.Buffer), func(visit func(Frame) bool) error { visit(f); return nil }, nil)
		if err == nil {
			t.Error("an export that begins within an epoch is no error")
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestExportFaultIsNamed(t *testing.T) {
	export, state := exportTest(t, testOpener(t))
	lines := strings.SplitAfter(strings.TrimSuffix(string(export), "\n"), "\n")
	lines[len(lines)-1] += "\n"
	without := func(i int) []string { return append(append([]string{}, lines[:i]...), lines[i+1:]...) }
	with := func(i int, old, new string) []string {
		changed := append([]string{}, lines...)
		if changed[i] = strings.Replace(lines[i], old, new, 1); changed[i] == lines[i] {
			t.Fatalf("line %d has no %s", i+1, old)
		}
		return changed
	}
	rows := []struct {
		name  string
		lines []string
		line  uint64 // that is named
	}{
		{"record changed", with(3, `"path":"p3"`, `"path":"p4"`), 4},
		{"stamp changed", with(3, `"stamp":3`, `"stamp":4`), 4},
		{"index changed", with(3, `"index":3`, `"index":4`), 4},
		{"digest changed", with(3, `"digest":"`, `"digest":"0`), 4},
		{"denied changed", with(3, `"denied":false`, `"denied":true`), 4},
		{"white space", with(3, `,"index"`, `, "index"`), 4},
		{"member twice", with(3, `,"request":{`, `,"request":{},"request":{`), 4},
		{"unknown member", with(3, `}`+"\n", `,"x":1}`+"\n"), 4},
		{"reason changed", with(6, "reason test", "reason best"), 7},
		{"record left out", without(3), 4},
		{"first left out", without(1), 2},
		{"epoch's first left out", without(6), 7},
		{"last left out", without(len(lines) - 2), uint64(len(lines) - 1)},
		{"cut", lines[:len(lines)-1], uint64(len(lines))},
		{"no head", lines[1:], 1},
		{"head changed", with(0, `"head":"0`, `"head":"1`), 1},
		{"end twice", append(append([]string{}, lines...), lines[len(lines)-1]), uint64(len(lines) + 1)},
		{"root changed", with(len(lines)-1, `"root":"`, `"root":"0`), uint64(len(lines))},
		{"nothing", nil, 1},
	}
	for _, row := range rows {
		_, err := VerifyExport(strings.NewReader(strings.Join(row.lines, "")), nil)
		var fault *ExportFault
		if !errors.As(err, &fault) || fault.Line != row.line {
			t.Errorf("%s: %v, want a fault in line %d", row.name, err, row.line)
		}
	}
	other := state.Clone()
	other.Head[0] ^= 1
	if _, err := VerifyExport(bytes.NewReader(export), &other); err == nil {
		t.Error("another expected head is no error")
	}
	other = state.Clone()
	other.Seq++
	if _, err := VerifyExport(bytes.NewReader(export), &other); err == nil {
		t.Error("an expected state after the end is no error")
	}
}

func TestNoChangedBytePasses(t *testing.T) {
	export, state := exportTest(t, testOpener(t))
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		changed := bytes.Clone(export)
		at := random.IntN(len(changed))
		changed[at] ^= 1 << random.IntN(8)
		if _, err := VerifyExport(bytes.NewReader(changed), &state); err == nil {
			t.Fatalf("byte %d changed from %q to %q: no error", at, export[at], changed[at])
		}
	}
}

// TestExportGolden verifies an export that an earlier version wrote.
func TestExportGolden(t *testing.T) {
	export, err := os.ReadFile("testdata/export-1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if report, err := VerifyExport(bytes.NewReader(export), nil); err != nil || report.Records != 8 {
		t.Errorf("VerifyExport = %+v, %v, want 8 records", report, err)
	}
}

func FuzzVerifyExport(f *testing.F) {
	export, err := os.ReadFile("testdata/export-1.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	report, err := VerifyExport(bytes.NewReader(export), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(export)
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := VerifyExport(bytes.NewReader(b), &report.State); err == nil && !bytes.Equal(b, export) && got.Withheld == 0 {
			t.Fatalf("another export verifies against the same state: %s", b)
		}
	})
}

// An export shows how an epoch ended only if it holds the end: what its first record says is of before.
func TestExportShowsWhichEpochItHoldsTheEndOf(t *testing.T) {
	s := newSinkTest(t)
	s.add(1, 5)
	closed := func(from uint64) *EpochStart {
		t.Helper()
		export, _ := s.export(from, testOpener(t))
		report, err := VerifyExport(bytes.NewReader(export), nil)
		if err != nil {
			t.Fatal(err)
		}
		return report.Closed
	}
	if c := closed(0); c != nil {
		t.Errorf("an open epoch is closed by %+v", c)
	}
	head := s.source.Shown().Head
	begin, err := s.source.Rotate(9, 9, "test")
	if err != nil {
		t.Fatal(err)
	}
	s.add(6, 7)
	if c := closed(0); c == nil || c.Epoch != 1 || c.PreviousHead != head {
		t.Errorf("closed by %+v, want the start of epoch 1", c)
	}
	if c := closed(begin); c != nil {
		t.Errorf("the open epoch alone is closed by %+v", c)
	}
}
