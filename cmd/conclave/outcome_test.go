package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"conclave"
)

// What the storage refuses is a failed request like others: it is recorded before the client hears of it, and takes a
// use of the token.
func TestRefusalsOfTheStorageAreRecorded(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/mounts/flat", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	deep := "flat/" + strings.Repeat("d/", conclave.MaxDepth) + "x"
	rows := []struct {
		name   string
		op     conclave.Operation
		path   string
		fields map[string]any
		kind   conclave.Kind
	}{
		{"too deep to read", conclave.Read, deep, nil, conclave.Invalid},
		{"too deep to write", conclave.Update, deep, map[string]any{"a": "b"}, conclave.Invalid},
		{"segment too long", conclave.Read, "flat/" + strings.Repeat("n", conclave.MaxName+1), nil, conclave.Invalid},
		{"value too large", conclave.Update, "flat/x", map[string]any{"a": strings.Repeat("v", conclave.MaxValue)}, conclave.TooLarge},
	}
	for _, row := range rows {
		from := v.state.Audit().Shown().Seq
		once := v.token(map[string]any{"policies": []any{"root"}, "num_uses": json.Number("1")})
		_, err := v.do(once, row.op, row.path, row.fields)
		if conclave.KindOf(err) != row.kind {
			t.Errorf("%s: %v, want kind %v", row.name, err, row.kind)
		}
		records := v.records(from)
		if len(records) != 2 { // one of the token's creation
			t.Errorf("%s: %d records, want 2", row.name, len(records))
		} else if last := records[1]; len(last.Error) == 0 {
			t.Errorf("%s: record %s without an error", row.name, last.Request)
		}
		if _, err := v.do(once, conclave.Read, "auth/token/lookup-self", nil); !conclave.Is(err, conclave.Denied) {
			t.Errorf("%s: second use: %v, want denied", row.name, err)
		}
	}
}

// Who asks for a wrapped answer must not get it in clear, least of all where a policy demands the wrapping.
func TestAnswersThatShouldBeWrappedAreNotGivenInClear(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "secret/data/x", map[string]any{"data": map[string]any{"a": "b"}})
	v.must(conclave.Update, "sys/policies/acl/wrapped", map[string]any{
		"policy": `path "secret/data/*" { capabilities = ["read", "update", "create"] min_wrapping_ttl = "10s" }`})
	reader := v.token(map[string]any{"policies": []any{"wrapped"}})
	ask := func(op conclave.Operation, path string, wrap time.Duration) (*conclave.Response, error) {
		return v.pipeline.Handle(t.Context(), &conclave.Request{ID: "wrap", Operation: op, Path: path, Token: reader, WrapTTL: wrap,
			Fields: map[string]any{"data": map[string]any{"c": "d"}}})
	}
	if _, err := ask(conclave.Read, "secret/data/x", 0); !conclave.Is(err, conclave.Denied) {
		t.Errorf("without wrapping: %v, want denied", err)
	}
	if _, err := ask(conclave.Read, "secret/data/x", time.Second); !conclave.Is(err, conclave.Denied) {
		t.Errorf("wrapped for too short a time: %v, want denied", err)
	}
	from := v.state.Audit().Shown().Seq
	for _, op := range []conclave.Operation{conclave.Read, conclave.Update} {
		resp, err := ask(op, "secret/data/x", time.Minute)
		if err != nil || resp.Wrap == nil || resp.Data != nil || resp.Raw != nil {
			t.Errorf("%s with wrapping: %+v, %v, want a wrapping token alone", op, resp, err)
		}
	}
	if got := len(v.records(from)); got != 2 {
		t.Errorf("%d records, want 2", got)
	}
	data, _ := v.must(conclave.Read, "secret/data/x", nil)["metadata"].(map[string]any)
	if data["version"] != 2.0 {
		t.Errorf("the secret has version %v, want that of the wrapped write", data["version"])
	}
}
