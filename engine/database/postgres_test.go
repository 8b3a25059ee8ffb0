package database

import (
	"regexp"
	"testing"

	"conclave"
)

func TestCredentialsWorkUntilTheirLeaseEnds(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": postgresCreation, "default_ttl": "1h", "max_ttl": "24h"})
	c := issue(t, h, "app")
	if want := regexp.MustCompile(`^v-tester-app-[A-Za-z0-9]{20}-[0-9]{10}$`); !want.MatchString(c.name) || len(c.password) != 20 {
		t.Errorf("login is %q with a password of %d characters", c.name, len(c.password))
	}
	if !canLogIn(t, s, c.name, c.password) || canLogIn(t, s, c.name, c.password+"x") {
		t.Fatal("the issued login can't log in, or can with another password")
	}
	if err := h.EndLease(c.lease); err != nil {
		t.Fatal(err)
	}
	if canLogIn(t, s, c.name, c.password) {
		t.Error("the login works although its lease has ended")
	}
	if left := asRoot(t, s, "SELECT rolname FROM pg_roles WHERE rolname = '"+c.name+"'"); len(left) > 0 {
		t.Errorf("the role %s is still there", left)
	}
}
