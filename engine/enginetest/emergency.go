package enginetest

import (
	"testing"

	"conclave"
)

// TakeBack has an engine take back all that is exposed, a few items at a time and each twice, as after a crash. It returns the
// items.
func (h *Harness) TakeBack(exposure conclave.Exposure) (all []conclave.Exposed) {
	h.t.Helper()
	engine, ok := h.engine.(conclave.Emergency)
	if !ok {
		h.t.Fatalf("%s takes nothing back", h.engine.Kind())
	}
	for after := ""; ; {
		t := h.begin(nil, true)
		items, next, err := engine.Exposed(t, exposure, after, 2)
		if err != nil {
			h.t.Fatalf("Exposed: %v", err)
		}
		if len(items) > 2 || next == after && next != "" {
			h.t.Fatalf("Exposed goes on from %q to %q with %d items of 2", after, next, len(items))
		}
		for range 2 {
			for _, item := range items {
				if err := engine.TakeBack(t, item); err != nil {
					h.t.Fatalf("TakeBack(%v): %v", item, err)
				}
			}
		}
		t.checkLent()
		if err := t.commit(); err != nil {
			h.t.Fatal(err)
		}
		all = append(all, items...)
		if after = next; next == "" {
			return all
		}
	}
}

// checkEmergency wants an engine that has given out nothing to have nothing to take back.
func checkEmergency(t testing.TB, engine conclave.Engine, fresh func(testing.TB) *Harness) {
	able, ok := engine.(conclave.Emergency)
	if !ok {
		return
	}
	h := fresh(t)
	for _, exposure := range []conclave.Exposure{{}, {Path: "absent/thing"}, {EntityID: "nobody"}, {Accessor: "nothing"}} {
		items, next, err := able.Exposed(h.begin(nil, false), exposure, "", 10)
		if err != nil || len(items) > 0 || next != "" {
			t.Errorf("Exposed(%+v) where nothing is: %v, %q, %v", exposure, items, next, err)
		}
	}
	checkQuiet(t, "TakeBack", func() error {
		if err := able.TakeBack(h.begin(nil, true), conclave.Exposed{Kind: "x", Name: "gone"}); err != nil {
			t.Errorf("TakeBack of what is gone: %v", err)
		}
		return nil
	})
}
