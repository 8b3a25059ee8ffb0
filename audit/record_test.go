package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

// fullEntry has every member set, with the word "canary" in each that must not be readable.
func fullEntry() *Entry {
	auth := &conclave.Auth{ClientToken: conclave.NewSecret("canary-token"), Accessor: "canary-accessor", Policies: []string{"default", `quo"te`},
		TokenPolicies: []string{"default"}, Metadata: map[string]string{"username": "ann", "a": "b"}, EntityID: "entity-1", TokenType: "service",
		TTL: time.Hour, NumUses: 3, DisplayName: "userpass-ann"}
	at := time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)
	return &Entry{
		Time: at, RequestID: "id-1", Attempt: 2, Node: "node-1", NamespaceID: "root", Operation: conclave.Update, Path: "secret/data/app",
		Mount:  &conclave.Mount{Path: "secret/", Kind: "kv", Accessor: "kv_12345678"},
		Remote: netip.MustParseAddrPort("[::ffff:192.0.2.1]:4711"), Certificate: "0a:1b", WrapTTL: time.Minute,
		Header: map[string][]string{"User-Agent": {"curl"}, "X-Secret": {"canary-header"}},
		Token:  conclave.NewSecret("canary-token"), Auth: auth, TokenIssued: at.Add(-time.Minute),
		Data: []byte(`{"data":{"password":"canary"},"options":{"cas":1}}`), Clear: []string{"options"},
		Answer: &Answer{Data: []byte(`{"version":2,"created_time":"canary"}`), Clear: []string{"version"}, Auth: auth,
			Lease: &conclave.Lease{ID: "secret/app/1"}, Warnings: []string{"careful"},
			Wrap: &conclave.Wrap{Token: conclave.NewSecret("canary-wrap"), Accessor: "canary-wrapping", TTL: time.Minute, CreationTime: at,
				CreationPath: "secret/data/app", WrappedAccessor: "canary-wrapped"}},
		Err: conclave.Errorf(conclave.Denied, "permission denied"),
	}
}

// TestRecordGolden holds the stored format still: testdata has the bytes of a record of format 1, and the lines that it must give for ever.
func TestRecordGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/record-1.hex")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if got := Encode(nil, fullEntry(), testHasher()); !bytes.Equal(got, stored) {
		t.Errorf("Encode made %q, want %q", got, stored)
	}
	record, err := DecodeRecord(stored)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/record-1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if got := record.AppendLines(nil); !bytes.Equal(got, want) {
		t.Errorf("AppendLines made\n%s, want\n%s", got, want)
	}
}

// eventEntry is the entry of a request that made two things happen.
func eventEntry() *Entry {
	e := fullEntry()
	e.Err = nil
	root := conclave.Namespace{ID: conclave.RootNamespace}
	e.Events = []conclave.Occurrence{
		{Event: conclave.Event{Type: "kv-v2/data-write", Path: `data/a"pp`, Metadata: map[string]string{"operation": "data-write", "current_version": "2"}},
			Namespace: conclave.Namespace{ID: "abcde", Path: "team/"},
			Mount:     &conclave.Mount{Path: "secret/", Kind: "kv", Accessor: "kv_12345678", Options: map[string]string{"version": "2"}}},
		{Event: conclave.Event{Type: "conclave/login-locked", Path: "sys/locked-users"}, Namespace: root},
	}
	return e
}

// Records with events have format 2. It stays what it is here for ever.
func TestEventRecordGolden(t *testing.T) {
	got := Encode(nil, eventEntry(), testHasher())
	record, err := DecodeRecord(got)
	if err != nil {
		t.Fatal(err)
	}
	for name, made := range map[string][]byte{"testdata/record-2.hex": append([]byte(hex.EncodeToString(got)), '\n'), "testdata/record-2.jsonl": record.AppendLines(nil)} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(made, want) {
			t.Errorf("%s: made\n%s, want\n%s", name, made, want)
		}
	}
	events, err := DecodeEvents(record.Events)
	if err != nil || !reflect.DeepEqual(events, eventEntry().Events) {
		t.Errorf("DecodeEvents = %+v, %v, want %+v", events, err, eventEntry().Events)
	}
}

func TestRecordHoldsNoSecret(t *testing.T) {
	record := Encode(nil, fullEntry(), testHasher())
	if bytes.Contains(record, []byte("canary")) {
		t.Errorf("record has a secret: %q", record)
	}
	for _, want := range []string{"canary-token", "canary-accessor", "canary-wrap", "canary-header"} {
		if !bytes.Contains(record, []byte(hashed(want))) {
			t.Errorf("record lacks the hash of %s", want)
		}
	}
}

func TestDenialIsRecordedWithWho(t *testing.T) {
	e := fullEntry()
	e.Denial = &Denial{Reason: "unlisted_field", Capabilities: []string{"update"}, Path: "team/secret/data/app", NamespaceID: "root", Pattern: "team/*",
		Rules: []string{"dev:3", "ops:1"}, Unlisted: "canary-field"}
	record, err := DecodeRecord(Encode(nil, e, testHasher()))
	if err != nil {
		t.Fatal(err)
	}
	want := `"policy_results":{"allowed":false,"reason":"unlisted_field","capabilities":["update"],"path":"team/secret/data/app",` +
		`"namespace_id":"root","pattern":"team/*","rules":["dev:3","ops:1"],"unlisted_field":"` + hashed("canary-field") + `"}}`
	if !strings.HasSuffix(string(record.Auth), want) || !json.Valid(record.Auth) {
		t.Errorf("auth = %s, want it to end in %s", record.Auth, want)
	}
}

func TestLinesAreJSON(t *testing.T) {
	bare := &Entry{Time: time.Unix(0, 0), Operation: conclave.Read, Path: "a\"\n\xff"}
	failed := &Entry{Operation: conclave.List, Path: "p/", Answer: &Answer{Raw: &conclave.Raw{ContentType: "text/plain", Body: []byte("canary")}, Status: 200},
		Err: errors.New(strings.Repeat("é", maxMessage))}
	for _, entry := range []*Entry{bare, failed, fullEntry()} {
		record, err := DecodeRecord(Encode(nil, entry, testHasher()))
		if err != nil {
			t.Fatal(err)
		}
		lines := slices.Collect(bytes.Lines(record.AppendLines(nil)))
		if len(lines) != 2 {
			t.Fatalf("%d lines, want 2", len(lines))
		}
		for i, kind := range []string{"request", "response"} {
			var line struct {
				Type    string
				Error   string
				Request struct{ Path string }
			}
			if err := json.Unmarshal(lines[i], &line); err != nil {
				t.Fatalf("%s: %v", lines[i], err)
			}
			if want := strings.ToValidUTF8(entry.Path, "\ufffd"); line.Type != kind || line.Request.Path != want {
				t.Errorf("line %d says %q about %q, want %q about %q", i, line.Type, line.Request.Path, kind, want)
			}
			if wantError := entry.Err != nil && (kind == "response" || record.Denied); (line.Error != "") != wantError {
				t.Errorf("%s line has error %q, want one: %v", kind, line.Error, wantError)
			}
		}
		if bytes.Contains(lines[1], []byte("canary")) {
			t.Errorf("line has a secret: %s", lines[1])
		}
	}
}

// largestEntry has as much in every member as clients and engines can put there, of what takes most room.
func largestEntry() *Entry {
	long := strings.Repeat("\x01", 8<<10)
	e := fullEntry()
	metadata := map[string]string{}
	for i := range 256 {
		e.Auth.Policies = append(e.Auth.Policies, fmt.Sprint(i, long))
		metadata[fmt.Sprint(i, long)] = long
	}
	e.Auth.TokenPolicies, e.Auth.Metadata, e.Auth.DisplayName, e.Auth.EntityID = e.Auth.Policies, metadata, long, long
	e.RequestID, e.Node, e.NamespaceID, e.NamespacePath, e.Path, e.Certificate = long, long, long, long, long, long
	e.Mount = &conclave.Mount{Path: long, Kind: long, Accessor: long}
	e.Header = map[string][]string{"User-Agent": {long[:1024], long}, long: e.Auth.Policies}
	members := map[string]string{}
	for i := range MaxFields - 1 {
		members[fmt.Sprint(i, long[:1000])] = long[:1024]
	}
	e.Data, _ = json.Marshal(map[string]any{"given": members})
	e.Clear = []string{"given"}
	e.Answer.Data, e.Answer.Clear, e.Answer.Warnings = e.Data, e.Clear, e.Auth.Policies
	e.Answer.Lease.ID, e.Answer.Wrap.CreationPath, e.Err = long, long, errors.New(long)
	for e.Events = nil; len(e.Events) < conclave.MaxEvents; {
		e.Events = append(e.Events, conclave.Occurrence{Event: conclave.Event{Type: "a/b", Path: long[:conclave.MaxEventBytes/conclave.MaxEvents]},
			Namespace: conclave.Namespace{ID: "root"}, Mount: &conclave.Mount{Kind: "kv"}})
	}
	e.Denial = &Denial{Reason: long, Capabilities: e.Auth.Policies, Path: long, NamespaceID: long, Pattern: long, Rules: e.Auth.Policies, Field: long, Unlisted: long}
	return e
}

// No request is so large that it can't be recorded.
func TestEveryRecordFits(t *testing.T) {
	raw := largestEntry()
	raw.Answer.Raw = &conclave.Raw{ContentType: strings.Repeat("\x01", 8<<10), Body: make([]byte, 1<<20)}
	for _, entry := range []*Entry{largestEntry(), raw} {
		encoded := Encode([]byte("before"), entry, testHasher())[len("before"):]
		if len(encoded) > MaxRecord {
			t.Fatalf("the record has %d bytes, at most %d fit", len(encoded), MaxRecord)
		}
		record, err := DecodeRecord(encoded)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(record.AppendLines(nil)) {
			var said struct {
				Request struct {
					Operation string
					Data      map[string]string
					Path      string
				}
			}
			if err := json.Unmarshal(line, &said); err != nil {
				t.Fatalf("%v in %.200s", err, line)
			}
			if said.Request.Operation != "update" || said.Request.Path != hashed(entry.Path) || said.Request.Data["whole"] != hashed(string(entry.Data)) {
				t.Errorf("the reduced record says %+v", said)
			}
		}
		if bytes.Contains(encoded, []byte("canary")) {
			t.Error("the reduced record has a secret")
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(Encode(nil, fullEntry(), testHasher()))
	f.Add(Encode(nil, eventEntry(), testHasher()))
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		record, err := DecodeRecord(b)
		if err != nil {
			return
		}
		if again := record.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("decoded and encoded again: %q, want %q", again, b)
		}
		record.AppendLines(nil)
	})
}

func FuzzDecodeEvents(f *testing.F) {
	f.Add(appendEvents(nil, eventEntry().Events))
	f.Add([]byte(`[{"type":"a/b","path":"p","namespace":{"id":"root"},"mount":{}}]`))
	f.Add([]byte(`[{"type":"a","namespace":{"id":"root"}}]`))
	f.Fuzz(func(t *testing.T, part []byte) {
		events, err := DecodeEvents(part)
		if err != nil || len(part) == 0 {
			return
		}
		again, err := DecodeEvents(appendEvents(nil, events))
		if err != nil || len(again) != len(events) {
			t.Fatalf("decoded, encoded and decoded again: %+v, %v, want %+v", again, err, events)
		}
	})
}

func FuzzEncode(f *testing.F) {
	f.Add("secret/a", "msg", "User-Agent", []byte(`{"a":1}`))
	h := testHasher()
	f.Fuzz(func(t *testing.T, path, message, header string, data []byte) {
		e := &Entry{Path: path, Header: map[string][]string{header: {message}}, Data: data, Err: errors.New(message),
			Auth:   &conclave.Auth{Metadata: map[string]string{path: message}},
			Answer: &Answer{Data: data, Warnings: []string{message}}}
		record, err := DecodeRecord(Encode(nil, e, h))
		if err != nil {
			t.Fatal(err)
		}
		lines := record.AppendLines(nil)
		if bytes.Count(lines, []byte("\n")) != 2 {
			t.Fatalf("not two lines: %q", lines)
		}
		for line := range bytes.Lines(lines) {
			if !json.Valid(line) {
				t.Fatalf("not JSON: %q", line)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e, h, dst := fullEntry(), testHasher(), make([]byte, 0, 8192)
	e.Data, e.Err, e.Answer = body300(), nil, &Answer{Data: []byte(`{"version":2,"created_time":"2026-03-04T05:06:07Z","destroyed":false}`)}
	b.ReportAllocs()
	for b.Loop() {
		dst = Encode(dst[:0], e, h)
	}
}
