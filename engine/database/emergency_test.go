package database

import (
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/internal/dbserver"
)

// In an emergency static passwords are changed at once, long before they are due.
func TestEmergencyRotatesStaticRoles(t *testing.T) {
	each(t, func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server) {
		k.make(t, s, "app-static", "old-password")
		h.Data(conclave.Update, "static-roles/app", fields{"db_name": "db", "username": "app-static", "rotation_period": "24h"})
		leaked, _ := staticCreds(t, h, "app")
		if items := h.TakeBack(conclave.Exposure{Path: "static-creds/other"}); len(items) != 0 {
			t.Errorf("of another path: %v", items)
		}
		if items := h.TakeBack(conclave.Exposure{Path: "static-creds"}); len(items) != 1 || items[0].Name != "app" {
			t.Fatalf("taken back: %v", items)
		}
		if names, err := h.RunDue(h.Now()); len(names) != 1 || err != nil {
			t.Fatalf("%v was due, %v", names, err)
		}
		now, _ := staticCreds(t, h, "app")
		if now == leaked || k.whoami(t, s, "app-static", leaked) != "" || k.whoami(t, s, "app-static", now) != "app-static" {
			t.Error("the password that leaked is good still, or the new one isn't")
		}
	})
}
