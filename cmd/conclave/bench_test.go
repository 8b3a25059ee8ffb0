package main

import (
	"encoding/json"
	"strings"
	"testing"

	"conclave"
)

// BenchmarkKV is the whole way of a request but its HTTP edge, on a cluster of one with 64 clients.
func BenchmarkKV(b *testing.B) {
	v := openVault(b)
	body := map[string]any{"data": map[string]any{"value": strings.Repeat("s", 300)}}
	v.must(conclave.Update, "secret/data/app/db", body)
	raw, err := json.Marshal(body)
	if err != nil {
		b.Fatal(err)
	}
	run := func(name string, request conclave.Request) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req := request
					req.ID, req.Token = "bench", v.root
					if _, err := v.pipeline.Handle(b.Context(), &req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
	run("read", conclave.Request{Operation: conclave.Read, Path: "secret/data/app/db"})
	run("write", conclave.Request{Operation: conclave.Update, Path: "secret/data/app/hot", Fields: body, Body: raw})
	run("lookup-self", conclave.Request{Operation: conclave.Read, Path: "auth/token/lookup-self"})
	fields := map[string]any{"policies": []any{"default"}, "ttl": "1h"}
	run("token-create", conclave.Request{Operation: conclave.Update, Path: "auth/token/create", Fields: fields})
	run("token-create-orphan", conclave.Request{Operation: conclave.Update, Path: "auth/token/create-orphan", Fields: fields})
	batch := map[string]any{"policies": []any{"default"}, "ttl": "1h", "type": "batch"}
	run("token-create-batch", conclave.Request{Operation: conclave.Update, Path: "auth/token/create", Fields: batch})
}
