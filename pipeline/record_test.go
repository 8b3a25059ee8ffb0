package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"conclave"
)

// Whatever a client puts into fields that are recorded as they are, its request is executed and recorded.
func TestLargeRequestIsRecorded(t *testing.T) {
	route := conclave.WriteRoute(conclave.Update, "probe", "Takes anything.",
		func(context.Context, conclave.Tx, *conclave.None) (*conclave.None, error) { return nil, nil })
	route.ClearRequest = []string{"options"}
	b := newBench(t, route)
	options := map[string]any{}
	for i := range 50 {
		options[fmt.Sprint(i, strings.Repeat("\x01", 1000))] = strings.Repeat("\x02", 1000)
	}
	fields := map[string]any{"options": options}
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.pipeline.Handle(t.Context(), &conclave.Request{ID: "large", Operation: conclave.Update, Path: "sys/probe",
		Token: b.root, Fields: fields, Body: body})
	if err != nil {
		t.Fatalf("a body of %d bytes: %v", len(body), err)
	}
	list := b.records(b.store)
	if len(list) != 1 || list[0].Request.ID != "large" {
		t.Fatalf("records = %+v, want one", list)
	}
	if whole, _ := list[0].Request.Data["whole"].(string); !strings.HasPrefix(whole, "hmac-sha256:") {
		t.Errorf("the record says %v of the data, want its hash", list[0].Request.Data)
	}
}

// A refusal that carries data gives it away like any answer: the record has it.
func TestDataOfARefusalIsRecorded(t *testing.T) {
	route := conclave.ReadRoute(conclave.Read, "probe", "Is gone.", func(context.Context, conclave.View, *conclave.None) (*conclave.None, error) {
		return nil, &conclave.Error{Kind: conclave.NotFound, Data: map[string]any{"version": 7}}
	})
	b := newBench(t, route)
	_, err := b.pipeline.Handle(t.Context(), &conclave.Request{ID: "gone", Operation: conclave.Read, Path: "sys/probe", Token: b.root})
	if !conclave.Is(err, conclave.NotFound) {
		t.Fatal(err)
	}
	list := b.records(b.store)
	if len(list) != 1 || !strings.Contains(list[0].Response, `"version":"hmac-sha256:`) {
		t.Errorf("records = %+v, want one with the hash of the version", list)
	}
}
