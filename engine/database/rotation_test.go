package database

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/internal/dbserver"
)

// staticCreds reads a static role's login.
func staticCreds(t testing.TB, h *enginetest.Harness, role string) (password string, ttl int64) {
	t.Helper()
	data := h.Data(conclave.Read, "static-creds/"+role, nil)
	ttl, err := data["ttl"].(json.Number).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return data["password"].(string), ttl
}

func TestStaticRolesRotate(t *testing.T) {
	each(t, func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server) {
		k.make(t, s, "app-static", "old-password")
		h.Data(conclave.Update, "static-roles/app", fields{"db_name": "db", "username": "app-static", "rotation_period": "1h"})
		works := func(when, password string) {
			t.Helper()
			if got := k.whoami(t, s, "app-static", password); got != "app-static" {
				t.Fatalf("%s: the password that is answered doesn't work", when)
			}
		}
		imported, ttl := staticCreds(t, h, "app")
		works("after the import", imported)
		if ttl != 3600 || k.whoami(t, s, "app-static", "old-password") != "" {
			t.Errorf("ttl is %d, want 3600; or the old password works", ttl)
		}
		h.Data(conclave.Update, "rotate-role/app", nil)
		manual, _ := staticCreds(t, h, "app")
		works("after a rotation by hand", manual)
		if manual == imported || k.whoami(t, s, "app-static", imported) != "" {
			t.Error("the password wasn't changed, or the one before works")
		}
		h.Advance(time.Hour - time.Second)
		if names, err := h.RunDue(h.Now()); len(names) != 0 || err != nil {
			t.Errorf("before its time %v is due, %v", names, err)
		}
		if _, err := h.RunDue(h.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		period, ttl := staticCreds(t, h, "app")
		works("after a period", period)
		if period == manual || ttl != 3600 {
			t.Errorf("the password wasn't changed when it was due, or is due again in %d", ttl)
		}
		h.Data(conclave.Update, "static-roles/app", fields{"rotation_period": "2h"})
		if same, ttl := staticCreds(t, h, "app"); same != period || ttl != 7200 {
			t.Errorf("a change of the role changes the password, or it is due in %d", ttl)
		}
		h.Data(conclave.Delete, "static-roles/app", nil)
		if len(h.Woken()) != 0 {
			t.Errorf("work is left: %v", h.Woken())
		}
	})
}

// Whoever goes on after a crash finds the password that was being set.
func TestNoPasswordIsLostByANodeThatDies(t *testing.T) {
	each(t, func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server) {
		k.make(t, s, "app-static", "old-password")
		h.Data(conclave.Update, "static-roles/app", fields{"db_name": "db", "username": "app-static", "rotation_period": "1h"})
		before, _ := staticCreds(t, h, "app")
		for _, stage := range []enginetest.Stage{enginetest.AfterIntend, enginetest.AfterPrepare} {
			if err := h.Interrupt(stage, conclave.Update, "rotate-role/app", nil); err != nil {
				t.Fatal(err)
			}
			if _, err := h.RunDue(h.Now().Add(settleAfter)); err != nil {
				t.Fatal(err)
			}
			now, _ := staticCreds(t, h, "app")
			if now == before || k.whoami(t, s, "app-static", now) != "app-static" {
				t.Error("what was begun wasn't brought to its end")
			}
			before = now
		}
		h.Advance(time.Hour)
		if err := h.LoseWork("static/app"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.RunDue(h.Now()); err != nil {
			t.Fatal(err)
		}
		if now, _ := staticCreds(t, h, "app"); now == before || k.whoami(t, s, "app-static", now) != "app-static" {
			t.Error("what was begun wasn't brought to its end")
		}
		if err := h.Interrupt(enginetest.AfterPrepare, conclave.Update, "static-roles/other", fields{"db_name": "db", "username": "app-static", "rotation_period": "1h"}); err != nil {
			t.Fatal(err)
		}
		h.Data(conclave.Update, "static-roles/other", fields{"db_name": "db", "username": "app-static", "rotation_period": "1h"})
		if now, _ := staticCreds(t, h, "other"); k.whoami(t, s, "app-static", now) != "app-static" {
			t.Error("an import that is repeated doesn't know the password")
		}
		if len(h.Stored()[importDir+"other"]) != 0 {
			t.Error("the import's record is left")
		}
	})
}

func TestRootPasswordsRotate(t *testing.T) {
	each(t, func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server) {
		makeAdmin(t, k, s)
		h.Data(conclave.Update, "config/db", fields{"username": "admin", "password": "admin-secret"})
		h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": k.creation})
		use := func(when string) {
			t.Helper()
			c := issue(t, h, "app")
			if k.whoami(t, s, c.name, c.password) != c.name {
				t.Fatalf("%s: the login doesn't work", when)
			}
			if err := h.EndLease(c.lease); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		}
		use("at first")
		h.Data(conclave.Update, "rotate-root/db", nil)
		if k.whoami(t, s, "admin", "admin-secret") != "" {
			t.Error("the password that people know still works")
		}
		use("after the rotation")
		for _, stage := range []enginetest.Stage{enginetest.AfterIntend, enginetest.AfterPrepare} {
			if err := h.Interrupt(stage, conclave.Update, "rotate-root/db", nil); err != nil {
				t.Fatal(err)
			}
			use("while nobody knows which password holds")
			again := h.Reopen(open(t)) // a node without connections
			c := issue(t, again, "app")
			if err := again.EndLease(c.lease); err != nil {
				t.Fatal(err)
			}
			if _, err := h.RunDue(h.Now().Add(settleAfter)); err != nil {
				t.Fatal(err)
			}
			if r, err := loadRoot(h.View(), "db"); err != nil || r.Pending != "" || k.whoami(t, s, "admin", r.Password) != "admin" {
				t.Errorf("the rotation wasn't brought to its end: %v", err)
			}
			use("after it was brought to its end")
		}
		h.Data(conclave.Update, "config/db", fields{"rotation_schedule": "0 3 * * *", "rotation_window": "1h"})
		was, _ := loadRoot(h.View(), "db")
		at := h.Woken()["root/db"]
		if at.Hour() != 3 || at.Minute() != 0 {
			t.Fatalf("the password is due at %s", at)
		}
		if _, err := h.RunDue(at); err != nil {
			t.Fatal(err)
		}
		if now, _ := loadRoot(h.View(), "db"); now.Password == was.Password {
			t.Error("the password wasn't changed by schedule")
		}
		use("after the scheduled rotation")
		missed := h.Woken()["root/db"].Add(90 * time.Minute)
		was, _ = loadRoot(h.View(), "db")
		if _, err := h.RunDue(missed); err != nil {
			t.Fatal(err)
		}
		if now, _ := loadRoot(h.View(), "db"); now.Password != was.Password || !h.Woken()["root/db"].After(missed) {
			t.Error("the password was changed outside of the window, or is never due again")
		}
		h.Data(conclave.Update, "config/db", fields{"disable_automated_rotation": true})
		if len(h.Woken()) != 0 {
			t.Errorf("work is left: %v", h.Woken())
		}
	})
}

// makeAdmin makes a user that may do what the vault does, and isn't the server's own.
func makeAdmin(t testing.TB, k trial, s *dbserver.Server) {
	t.Helper()
	switch k.name {
	case "postgres":
		asRoot(t, s, "DROP ROLE IF EXISTS admin; CREATE ROLE admin LOGIN SUPERUSER PASSWORD 'admin-secret'")
	case "mariadb":
		mariaRoot(t, s, "CREATE OR REPLACE USER 'admin'@'127.0.0.1' IDENTIFIED BY 'admin-secret'")
		mariaRoot(t, s, "GRANT ALL ON *.* TO 'admin'@'127.0.0.1' WITH GRANT OPTION")
	default:
		redisRoot(t, s, "ACL", "SETUSER", "admin", "reset", "on", ">admin-secret", "~*", "&*", "+@all")
	}
}

func TestADatabaseThatIsDownMakesRotationWait(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "db", nil)
	asRoot(t, s, "DROP ROLE IF EXISTS waits; CREATE ROLE waits LOGIN PASSWORD 'old-password'")
	h.Data(conclave.Update, "static-roles/app", fields{"db_name": "db", "username": "waits", "rotation_period": "1h"})
	before, _ := staticCreds(t, h, "app")
	s.Stop()
	h.Fails(conclave.Update, "rotate-role/app", nil, conclave.Unavailable, "the database")
	pauses := []time.Duration{firstWait, 2 * firstWait, 4 * firstWait}
	h.Advance(settleAfter)
	for _, pause := range pauses {
		if _, err := h.RunDue(h.Now()); err != nil {
			t.Fatal(err)
		}
		if at := h.Woken()["static/app"]; !at.Equal(h.Now().Add(pause)) {
			t.Errorf("it is tried again in %s, want %s", at.Sub(h.Now()), pause)
		}
		h.Advance(pause)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RunDue(h.Now()); err != nil {
		t.Fatal(err)
	}
	if now, _ := staticCreds(t, h, "app"); now == before || !canLogIn(t, s, "waits", now) {
		t.Error("the rotation wasn't brought to its end when the database was there again")
	}
}

func TestADatabaseThatIsDownMakesRevocationWait(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "db", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": postgresCreation})
	c := issue(t, h, "app")
	s.Stop()
	if err := h.EndLease(c.lease); !conclave.Is(err, conclave.Unavailable) || len(h.Leases()) != 1 {
		t.Errorf("the end of a lease without its database: %v, want Unavailable, and %d leases are left", err, len(h.Leases()))
	}
	h.Fails(conclave.Read, "creds/app", nil, conclave.Unavailable, "the database can't be reached")
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if !canLogIn(t, s, c.name, c.password) {
		t.Error("the login is gone by itself")
	}
	for _, l := range h.Leases() { // the failed request's as well
		if err := h.EndLease(l.ID); err != nil {
			t.Fatal(err)
		}
	}
	if canLogIn(t, s, c.name, c.password) {
		t.Error("the login works although its lease has ended")
	}
}

// overtaken is an engine whose work is slow: before it sets a password, other things happen.
type overtaken struct {
	*Engine
	meanwhile func()
}

func (o *overtaken) Work(ctx context.Context, name string, begun any) (any, error) {
	if then := o.meanwhile; then != nil {
		o.meanwhile = nil
		then()
	}
	return o.Engine.Work(ctx, name, begun)
}

// A rotation may come to its end when others have brought later ones to theirs: what it has set holds then, or not.
func TestARotationThatIsOvertakenIsSetOnceMore(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "db", nil)
	makeAdmin(t, trials()[0], s)
	asRoot(t, s, "DROP ROLE IF EXISTS slow; CREATE ROLE slow LOGIN PASSWORD 'old'")
	h.Data(conclave.Update, "config/db", fields{"username": "admin", "password": "admin-secret"})
	h.Data(conclave.Update, "static-roles/app", fields{"db_name": "db", "username": "slow", "rotation_period": "1h"})
	overtake := func(rotate string) {
		t.Helper()
		h.Advance(time.Hour)
		slow := &overtaken{Engine: open(t), meanwhile: func() {
			h.Data(conclave.Update, rotate, nil)
			h.Data(conclave.Update, rotate, nil)
		}}
		if names, err := h.Reopen(slow).RunDue(h.Now()); len(names) != 1 || slow.meanwhile != nil || err != nil {
			t.Fatal(names, err)
		}
	}
	overtake("rotate-role/app")
	if password, _ := staticCreds(t, h, "app"); canLogIn(t, s, "slow", password) {
		t.Error("what was slow has set no password: nothing is tested")
	}
	if _, err := h.RunDue(h.Now()); err != nil {
		t.Fatal(err)
	}
	if password, _ := staticCreds(t, h, "app"); !canLogIn(t, s, "slow", password) {
		t.Error("the static login's password isn't the one that is answered")
	}
	h.Data(conclave.Delete, "static-roles/app", nil)
	h.Data(conclave.Update, "config/db", fields{"rotation_period": "1h"})
	overtake("rotate-root/db") // it finds out that neither of the passwords that it knows is right
	if r, err := loadRoot(h.View(), "db"); err != nil || !canLogIn(t, s, "admin", r.Password) {
		t.Errorf("the root password isn't the one that is known: %v", err)
	}
	h.Fails(conclave.Update, "static-roles/root", fields{"db_name": "db", "username": "admin", "rotation_period": "1h"}, conclave.Invalid, "connection's own user")
}
