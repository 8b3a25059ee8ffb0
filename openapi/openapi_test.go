package openapi

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"conclave"
)

type roomInput struct {
	Name string          `path:"name" doc:"The room."`
	TTL  time.Duration   `json:"ttl" doc:"For how long."`
	Key  conclave.Secret `json:"key" doc:"Its key."`
}

type roomOutput struct {
	Beds []int `json:"beds" doc:"Their widths."`
}

// A route becomes a path with its parameters, body and answer, as it has always been written.
func TestRouteGolden(t *testing.T) {
	doc := New()
	route := conclave.WriteRoute(conclave.Update, "rooms/{name...}", "Let a room.\n\nIt is warm.",
		func(context.Context, conclave.Tx, *roomInput) (*roomOutput, error) { return nil, nil }).With(conclave.Sudo)
	doc.Add("inn/", &route)
	list := conclave.ReadRoute(conclave.List, "rooms", "List rooms.", func(context.Context, conclave.View, *conclave.None) (*conclave.Keys, error) { return nil, nil })
	doc.Add("inn/", &list)
	got, err := json.Marshal(doc.Paths["/inn/rooms/{name}"]["post"])
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"summary":"Let a room.","description":"It is warm.","operationId":"inn-update-rooms-name","tags":["inn"],"x-vault-sudo":true,` +
		`"parameters":[{"name":"name","in":"path","description":"The room.","required":true,"schema":{"type":"string"}}],` +
		`"requestBody":{"content":{"application/json":{"schema":{"type":"object","properties":{"key":{"type":"string","format":"password","description":"Its key."},` +
		`"ttl":{"type":"string","format":"duration","description":"For how long."}}}}}},` +
		`"responses":{"200":{"description":"OK","content":{"application/json":{"schema":{"type":"object","properties":{"beds":{"type":"array","description":"Their widths.","items":{"type":"integer"}}}}}}}}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, ok := doc.Paths["/inn/rooms/"]["get"]; !ok {
		t.Errorf("a listing has no path of its own: %v", doc.Paths)
	}
}
