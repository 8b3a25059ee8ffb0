package enginetest

import (
	"fmt"
	"testing"

	"conclave"
)

func TestHarnessTakesBack(t *testing.T) {
	h, outside := lodgingOf(t)
	for i := range 5 {
		h.Data(conclave.Update, fmt.Sprintf("chores/%d", i), map[string]any{"after": "1h"})
	}
	if items := h.TakeBack(conclave.Exposure{Path: "chores/3"}); len(items) != 1 || items[0].Name != "3" {
		t.Errorf("taken back: %v", items)
	}
	if items := h.TakeBack(conclave.Exposure{}); len(items) != 5 {
		t.Errorf("taken back: %v", items)
	}
	if names, err := h.RunDue(h.Now()); err != nil || len(names) != 5 || outside.Chores("4") != 1 {
		t.Errorf("%v were due, %v", names, err)
	}
}
