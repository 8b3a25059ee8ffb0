package kv

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

var (
	early = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	late  = time.Date(2318, 1, 2, 3, 4, 5, 0, time.UTC) // beyond what fits nanoseconds since 1970
)

// records are one of each kind of what is stored. The files in testdata hold the bytes of the format as first shipped.
var records = map[string]secret{
	"empty": {created: early, updated: early, versions: []version{}},
	"full": {created: early, updated: late, current: 4, maxVersions: 300, deleteAfter: -time.Second, casRequired: true,
		custom: map[string]string{"owner": "team", "é": "v"}, versions: []version{
			{created: early, destroyed: true},
			{created: early, deletion: late, inline: true, data: []byte(`{"a":1}`)},
			{created: early, deletion: early, deleted: true},
			{created: late, inline: true, data: []byte(`{}`)},
		}},
	"evicted": {created: early, updated: early, current: 1000, oldest: 999, versions: []version{{created: early}, {created: early, inline: true, data: []byte(`{}`)}}},
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFormatIsAsShipped(t *testing.T) {
	for name, want := range records {
		if got := want.encode(); !bytes.Equal(got, golden(t, name)) {
			t.Errorf("%s encodes as\n%x, want\n%x", name, got, golden(t, name))
		}
		if got, err := decodeSecret(golden(t, name)); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s decodes as\n%+v, %v, want\n%+v", name, got, err, want)
		}
	}
	want := plainRecord{written: early, hasLease: true, lease: time.Hour, data: []byte(`{"ttl":"1h"}`)}
	if got := want.encode(); !bytes.Equal(got, golden(t, "plain")) {
		t.Errorf("plain encodes as\n%x, want\n%x", got, golden(t, "plain"))
	}
	if got, err := decodePlain(golden(t, "plain")); err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("plain decodes as %+v, %v", got, err)
	}
}

func TestCutRecordsAreErrors(t *testing.T) {
	for name := range records {
		whole := golden(t, name)
		for n := range whole {
			if _, err := decodeSecret(whole[:n]); err == nil {
				t.Errorf("%s cut to %d bytes decodes", name, n)
			}
		}
		if _, err := decodeSecret(append(whole, 0)); err == nil {
			t.Errorf("%s with a byte more decodes", name)
		}
	}
}

func TestDamageIsAnInternalErrorAndNoPanic(t *testing.T) {
	for _, damaged := range [][]byte{{}, {tagVersioned}, {tagPlain}, {9, 9}, golden(t, "full")[:20]} {
		for _, version := range []string{"1", "2"} {
			engine, err := open(map[string]string{"version": version})
			if err != nil {
				t.Fatal(err)
			}
			h := enginetest.New(t, engine)
			h.Store("secrets/a", damaged)
			path := map[string]string{"1": "a", "2": "data/a"}[version]
			if _, err := h.Do(conclave.Read, path, nil); err == nil || conclave.Is(err, conclave.NotFound) {
				t.Errorf("read of %x by version %s: %v, want an error", damaged, version, err)
			}
		}
	}
	h := newVersioned(t)
	h.Store("config", []byte("{"))
	if _, err := h.Do(conclave.Read, "config", nil); err == nil {
		t.Error("a damaged config reads")
	}
	put(newVersioned(t), "a", 1)
	h = newVersioned(t)
	put(h, "a", strings.Repeat("x", inlineBudget))
	h.Store("secrets/b", h.Stored()["secrets/a"]) // whose data is elsewhere
	if _, err := h.Do(conclave.Read, "data/b", nil); !conclave.Is(err, conclave.Internal) {
		t.Errorf("read of missing data: %v, want Internal", err)
	}
}

func FuzzDecode(f *testing.F) {
	for name := range records {
		record := records[name]
		f.Add(record.encode())
	}
	plain := plainRecord{written: early, hasLease: true, lease: time.Hour, data: []byte(`{}`)}
	f.Add(plain.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePlain(b)
		if err == nil {
			if again, err := decodePlain(p.encode()); err != nil || !reflect.DeepEqual(again, p) {
				t.Errorf("%x: decodes as %+v, its encoding as %+v, %v", b, p, again, err)
			}
		}
		s, err := decodeSecret(b)
		if err != nil {
			return
		}
		again, err := decodeSecret(s.encode())
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%x: decodes as %+v, its encoding as %+v, %v", b, s, again, err)
		}
	})
}
