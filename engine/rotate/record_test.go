package rotate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// TestStoredFormats loads what was stored in the first form, and wants it written as it was.
func TestStoredFormats(t *testing.T) {
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return []byte(strings.TrimSpace(string(text)))
	}
	same := func(name string, value any) {
		got, err := json.Marshal(value)
		if want := read(name); err != nil || string(got) != string(want) {
			t.Errorf("%s is written as\n%s, %v\nwant\n%s", name, got, err, want)
		}
	}
	en, err := decodeEntry(read("entry-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	same("entry-1.json", en)
	st, err := decodeState(read("state-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	same("state-1.json", st)
	lines, err := decodeHistory(read("history-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	same("history-1.json", lines)

	h := enginetest.New(t, engineWith(nil))
	h.Store("entry/app", read("entry-1.json"))
	h.Store("state/app", read("state-1.json"))
	h.Store("history/app", read("history-1.json"))
	got := creds(h)
	previous, _ := got["previous"].(map[string]any)
	want(t, "creds", row(got["version"], got["value"], previous["version"], previous["value"], got["metadata"]), "7 seven 6 six map[user:admin]")
	want(t, "status", row(status(h)["pending_version"], status(h)["attempts"], status(h)["failures"], status(h)["paused_by"], status(h)["retiring"]), "8 2 2 ann 1")
	want(t, "lines", len(h.Data(conclave.Read, "history/app", nil)["history"].([]any)), 2)
	want(t, "settings", h.Data(conclave.Read, "entries/app", nil)["rotation_schedule"], "0 3 * * *")
}

func TestDamagedRecordsAreErrors(t *testing.T) {
	for _, folder := range []string{entries, states, histories} {
		s := newSource(t)
		h := mounted(t, s, nil)
		h.Store(folder+"app", []byte(`{"last":`))
		if _, err := h.Do(conclave.Read, "history/app", nil); !conclave.Is(err, conclave.Internal) {
			t.Errorf("damaged %s: %v", folder, err)
		}
	}
}

// TestPausesDouble up to the longest.
func TestPausesDouble(t *testing.T) {
	st, en := &state{}, &entry{}
	now := time.Unix(1_800_000_000, 0)
	for n := range 100 {
		st.fail(en, now, "x")
		if pause := st.Retry.Sub(now); pause < firstPause || pause > maxPause || n > 10 && pause != maxPause {
			t.Fatalf("pause %d is %v", n, pause)
		}
	}
}

// TestValuesThatWaitToBeEndedAreBounded: a source that is away for ever fills no storage.
func TestValuesThatWaitToBeEndedAreBounded(t *testing.T) {
	st, en := &state{}, &entry{shown: shown{Retire: true}}
	for n := range 100 {
		st.drop(&held{Version: n}, en)
	}
	if len(st.Retiring) != maxRetiring || st.Retiring[maxRetiring-1].Version != 99 {
		t.Errorf("waiting: %v", st.Retiring)
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"entry-1.json", "state-1.json", "history-1.json"} {
		if text, err := os.ReadFile(filepath.Join("testdata", name)); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if _, err := decodeEntry(value); err != nil && !conclave.Is(err, conclave.Internal) {
			t.Errorf("entry: %v", err)
		}
		st, err := decodeState(value)
		if err != nil {
			if !conclave.Is(err, conclave.Internal) {
				t.Errorf("state: %v", err)
			}
		} else if _, err := json.Marshal(st); err == nil {
			st.next(time.Unix(1_800_000_000, 0), &entry{})
		}
		if lines, err := decodeHistory(value); err == nil && len(lines) > maxHistory {
			t.Errorf("%d lines", len(lines))
		}
	})
}

func BenchmarkReadCreds(b *testing.B) {
	s := newSource(b)
	h := mounted(b, s, nil).With(enginetest.Fast())
	for b.Loop() {
		if _, err := h.Do(conclave.Read, "creds/app", nil); err != nil {
			b.Fatal(err)
		}
	}
}
