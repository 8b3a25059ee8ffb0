package rotate

import (
	"testing"

	"conclave"
)

// In an emergency entries get new values at once, and what was valid before isn't any more.
func TestEmergencyRotatesAllEntries(t *testing.T) {
	s := newSource(t)
	h := mounted(t, s, fields{"rotation_period": "24h", "grace_period": "1h"})
	runDue(t, h, 0)
	before, _ := s.password()
	if items := h.TakeBack(conclave.Exposure{Path: "creds/other"}); len(items) != 0 {
		t.Errorf("of another path: %v", items)
	}
	if items := h.TakeBack(conclave.Exposure{Path: "creds/app"}); len(items) != 1 || items[0].Name != "app" {
		t.Fatalf("taken back: %v", items)
	}
	runDue(t, h, 0)
	if now, _ := s.password(); now == before || creds(h)["value"] != now {
		t.Errorf("the source has %q still, the vault %v", now, creds(h)["value"])
	}
}
