package kv

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

// FuzzKV sends any body to every route, one after the other on one secret. Errors must be the client's, answers must be
// JSON, and the secret must stay readable as far as its metadata says.
func FuzzKV(f *testing.F) {
	for _, body := range []string{
		`{}`, `null`, `{"data":{"a":1},"options":{"cas":1}}`, `{"data":{"a":{"b":null}},"version":"1","depth":1}`, `{"versions":[1,"2",3],"after":"a","limit":1}`,
		`{"max_versions":1,"cas_required":"true","delete_version_after":"1h","custom_metadata":{"a":"b"}}`, `{"custom_metadata":null,"max_versions":null}`,
		`{"destination":"b/c","force":true}`, `{"destination":"a"}`, `{"data":{"` + strings.Repeat("k", 2*inlineBudget) + `":1}}`, `{"ttl":"1h"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, engine := range []conclave.Engine{plain{}, versioned{}} {
			h := enginetest.New(t, engine)
			for _, route := range engine.Routes() {
				for _, rest := range []string{"a", "b/c"} {
					response, err := h.DoJSON(route.Operation, strings.ReplaceAll(route.Pattern, "{path...}", rest), body)
					if failure, ok := errors.AsType[*conclave.Error](err); err != nil && (!ok || failure.Kind == conclave.Internal) {
						t.Errorf("%s %s: internal error %v", route.Operation, route.Pattern, err)
					}
					if err != nil {
						continue
					}
					if _, err := json.Marshal(response.Data); err != nil {
						t.Errorf("%s %s: %v", route.Operation, route.Pattern, err)
					}
				}
			}
			for path, value := range h.Stored() {
				if name, ok := strings.CutPrefix(path, secretsDir); ok && isVersioned(value) {
					checkReadable(t, h, name, value)
				}
			}
		}
	})
}

// checkReadable reads every version of a secret that is neither deleted nor destroyed.
func checkReadable(t *testing.T, h *enginetest.Harness, path string, value []byte) {
	t.Helper()
	s, err := decodeSecret(value)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for i := range s.versions {
		if s.versions[i].deleted || s.versions[i].destroyed || !s.versions[i].deletion.IsZero() {
			continue
		}
		if _, err := h.Do(conclave.Read, "data/"+path, fields{"version": s.first() + uint64(i)}); err != nil {
			t.Errorf("%s: version %d: %v", path, s.first()+uint64(i), err)
		}
	}
}

// payload is a secret of about 300 bytes, as in the table of speeds.
func payload(i int) []byte {
	return fmt.Appendf(nil, `{"data":{"username":"service-%d","password":%q,"host":"db.internal.example","port":5432,"notes":%q}}`, i, strings.Repeat("p", 40), strings.Repeat("n", 140))
}

func benchmark(b *testing.B, op conclave.Operation, versions int) {
	h := newVersioned(b, enginetest.Fast())
	const secrets = 1000
	paths, bodies := make([]string, secrets), make([][]byte, secrets)
	for i := range secrets {
		paths[i], bodies[i] = fmt.Sprintf("data/team-%d/app-%d", i%10, i), payload(i)
		for range versions {
			if _, err := h.DoJSON(conclave.Update, paths[i], bodies[i]); err != nil {
				b.Fatal(err)
			}
		}
		if op == conclave.Read {
			bodies[i] = []byte(`{}`)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := h.DoJSON(op, paths[i%secrets], bodies[i%secrets]); err != nil {
			b.Fatal(err)
		}
	}
}

// The benchmarks run whole requests through the harness: decoding the body, routing, binding, the handler.
func BenchmarkRead(b *testing.B)            { benchmark(b, conclave.Read, 1) }
func BenchmarkReadTenVersions(b *testing.B) { benchmark(b, conclave.Read, 10) }
func BenchmarkWrite(b *testing.B)           { benchmark(b, conclave.Update, 10) }

func BenchmarkDecode(b *testing.B) {
	s := &secret{created: early, updated: early, current: 10}
	for i := range 10 {
		s.versions = append(s.versions, version{created: early, inline: true, data: payload(i)})
	}
	value := s.encode()
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeSecret(value); err != nil {
			b.Fatal(err)
		}
	}
}
