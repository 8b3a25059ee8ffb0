package conclave

import (
	"strings"
	"testing"
)

func TestEventTypesAreBounded(t *testing.T) {
	for text, want := range map[string]bool{
		"kv-v2/data-write": true, "a/b/c_d.e": true, "Database/rotate": true,
		"": false, "kv": false, "/kv": false, "kv/": false, "kv//x": false, "kv/*": false, "kv/a b": false, "kv/é": false,
		"kv/" + strings.Repeat("x", MaxEventType): false,
	} {
		if got := IsEventType(text); got != want {
			t.Errorf("IsEventType(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestEventsThatSayTooMuchAreRefused(t *testing.T) {
	event := Event{Type: "kv-v2/data-write", Path: "data/app", Metadata: map[string]string{"operation": "data-write"}}
	if err := event.Check(); err != nil {
		t.Errorf("Check = %v, want nil", err)
	}
	for i := range MaxEventMetadata {
		event.Metadata[strings.Repeat("x", i+1)] = "y"
	}
	if err := event.Check(); !Is(err, Internal) {
		t.Errorf("Check of an event with %d metadata = %v, want Internal", len(event.Metadata), err)
	}
}
