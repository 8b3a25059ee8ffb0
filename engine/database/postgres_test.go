package database

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/internal/dbserver"
)

// session logs in with TLS and stays.
func session(t *testing.T, s *dbserver.Server, c creds) *pgconn.PgConn {
	t.Helper()
	config, err := pgconn.ParseConfig("postgres://" + s.Address + "/postgres?sslmode=verify-full&sslrootcert=" + s.Dir + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	config.User, config.Password = c.name, c.password
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

func TestSessionsEndWithTheirLogin(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": postgresCreation})
	c := issue(t, h, "app")
	conn := session(t, s, c)
	if err := h.EndLease(c.lease); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err == nil {
		t.Error("a session goes on after its login has ended")
	}
}

// What a login has been granted is taken back. What it owns isn't dropped with it: it is locked, and its lease waits.
func TestWhatALoginOwnsIsNotDropped(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", nil)
	asRoot(t, s, `DROP SCHEMA IF EXISTS things CASCADE; CREATE SCHEMA things; CREATE TABLE things.t (a int); CREATE SEQUENCE things.s; CREATE FUNCTION things.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": postgresCreation + `; GRANT ALL ON SCHEMA things TO "{{name}}"; GRANT SELECT (a) ON things.t TO "{{name}}";
		GRANT USAGE ON SEQUENCE things.s TO "{{name}}"; GRANT EXECUTE ON FUNCTION things.f() TO "{{name}}"; GRANT CREATE ON DATABASE postgres TO "{{name}}";
		ALTER DEFAULT PRIVILEGES IN SCHEMA things GRANT SELECT ON TABLES TO "{{name}}"; GRANT pg_read_all_data TO "{{name}}"`})
	c := issue(t, h, "app")
	if err := h.EndLease(c.lease); err != nil {
		t.Fatalf("a login with privileges: %v", err)
	}
	c = issue(t, h, "app")
	if _, err := session(t, s, c).Exec(t.Context(), "CREATE TABLE things.mine (a int)").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if err := h.EndLease(c.lease); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "cannot be dropped") {
		t.Fatalf("a login that owns a table: %v", err)
	}
	if canLogIn(t, s, c.name, c.password) || len(asRoot(t, s, "SELECT 1 FROM pg_tables WHERE tablename = 'mine'")) != 1 {
		t.Error("the login isn't locked, or its table is gone")
	}
	h.Data(conclave.Update, "roles/app", fields{"revocation_statements": []string{`REASSIGN OWNED BY "{{name}}" TO CURRENT_USER`, `DROP OWNED BY "{{name}}"`, `DROP ROLE "{{name}}"`}})
	if err := h.EndLease(c.lease); err != nil {
		t.Fatalf("with the role's own statements: %v", err)
	}
	if len(asRoot(t, s, "SELECT 1 FROM pg_tables WHERE tablename = 'mine'")) != 1 || len(asRoot(t, s, "SELECT 1 FROM pg_roles WHERE rolname = '"+c.name+"'")) != 0 {
		t.Error("the role's statements weren't followed")
	}
}

// The vault's own user needs no more than CREATEROLE.
func TestAUserThatIsNoSuperuserIsEnough(t *testing.T) {
	h := newHarness(t)
	s := need(t, real.postgres)
	asRoot(t, s, `DROP TABLE IF EXISTS public.books; DROP ROLE IF EXISTS maker; CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'maker-secret'; GRANT ALL ON SCHEMA public TO maker; SET ROLE maker; CREATE TABLE public.books (a int)`)
	defer func() { asRoot(t, s, "REASSIGN OWNED BY maker TO CURRENT_USER; DROP OWNED BY maker; DROP ROLE maker") }()
	real.configurePostgres(t, h, "pg", fields{"username": "maker", "password": "maker-secret"})
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": strings.Replace(postgresCreation, "ALL TABLES IN SCHEMA public", "public.books", 1)})
	c := issue(t, h, "app")
	conn := session(t, s, c)
	if err := h.EndLease(c.lease); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err == nil || canLogIn(t, s, c.name, c.password) {
		t.Error("the login or its session goes on")
	}
	h.Data(conclave.Update, "rotate-root/pg", nil)
	if err := h.EndLease(issue(t, h, "app").lease); err != nil {
		t.Error(err)
	}
}

func TestRevocationByTheRolesStatements(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`, "revocation_statements": `DROP ROLE "{{name}}"`})
	c, gone, kept := issue(t, h, "app"), issue(t, h, "app"), issue(t, h, "app")
	asRoot(t, s, `DROP ROLE "`+gone.name+`"`)
	if err := h.EndLease(gone.lease); err != nil {
		t.Errorf("a login that is gone already: %v", err)
	}
	if err := h.EndLease(c.lease); err != nil || canLogIn(t, s, c.name, c.password) {
		t.Errorf("the login works on, or %v", err)
	}
	h.Data(conclave.Delete, "roles/app", nil)
	if err := h.EndLease(kept.lease); err != nil || canLogIn(t, s, kept.name, kept.password) {
		t.Errorf("without its role the login works on, or %v", err)
	}
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": `CREATE ROLE "{{name}}" LOGIN; COMMIT; SELECT 1/0`, "rollback_statements": `CREATE ROLE "rolled-back"; DROP ROLE "{{name}}"`})
	h.Fails(conclave.Read, "creds/app", nil, conclave.Invalid, "division by zero (22012)")
	if got := asRoot(t, s, `SELECT rolname FROM pg_roles WHERE rolname = 'rolled-back' OR rolname LIKE 'v-%'`); len(got) != 1 || got[0] != "rolled-back" {
		t.Errorf("after the rollback there are %v", got)
	}
	asRoot(t, s, `DROP ROLE "rolled-back"`)
}

func TestPasswordsThatTheDatabaseNeverSees(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", fields{"password_authentication": "scram-sha-256"})
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'; CREATE TABLE IF NOT EXISTS public.seen (a text); INSERT INTO public.seen VALUES ('{{password}}')`})
	c := issue(t, h, "app")
	seen := asRoot(t, s, "SELECT a FROM public.seen")
	asRoot(t, s, "DROP TABLE public.seen")
	if !canLogIn(t, s, c.name, c.password) || len(seen) != 1 || !strings.HasPrefix(seen[0], "SCRAM-SHA-256$4096:") {
		t.Errorf("the login doesn't work, or the database saw %q", seen)
	}
	if stored := asRoot(t, s, "SELECT rolpassword FROM pg_authid WHERE rolname = '"+c.name+"'"); len(stored) != 1 || stored[0] != seen[0] {
		t.Error("the database has made a verifier of its own")
	}
	if err := h.EndLease(c.lease); err != nil {
		t.Error(err)
	}
}

// The end that the database knows is the last one possible, so that renewals need nothing of it.
func TestRenewals(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": postgresCreation, "default_ttl": "1h", "max_ttl": "3h"})
	c := issue(t, h, "app")
	until := asRoot(t, s, "SELECT extract(epoch FROM rolvaliduntil)::bigint::text FROM pg_roles WHERE rolname = '"+c.name+"'")
	if want := h.Now().Add(3*time.Hour + slack).Unix(); len(until) != 1 || until[0] != itoa(want) {
		t.Errorf("the database ends the login at %v, want %d", until, want)
	}
	for _, row := range []struct{ after, increment, want time.Duration }{{0, 0, time.Hour}, {0, 30 * time.Minute, 30 * time.Minute}, {0, 10 * time.Hour, 3 * time.Hour}, {150 * time.Minute, 0, 30 * time.Minute}} {
		h.Advance(row.after)
		got, err := h.RenewLease(c.lease, row.increment)
		if err != nil || got.TTL > row.want || got.TTL < row.want-time.Second || !got.Renewable {
			t.Errorf("%+v: %+v, %v", row, got, err)
		}
	}
	h.Advance(31 * time.Minute)
	if _, err := h.RenewLease(c.lease, time.Hour); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("past its end: %v", err)
	}
	h.Data(conclave.Delete, "roles/app", nil)
	if _, err := h.RenewLease(c.lease, time.Hour); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "could not find role") {
		t.Errorf("without its role: %v", err)
	}
	if err := h.EndLease(c.lease); err != nil {
		t.Error(err)
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestNamesByATemplateAreReserved(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", fields{"username_template": `{{.DisplayName | uppercase | truncate 3}}_{{random 12}}`})
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": postgresCreation})
	c := issue(t, h, "app")
	if !strings.HasPrefix(c.name, "TES_") || len(c.name) != 16 || !canLogIn(t, s, c.name, c.password) {
		t.Errorf("the login is %q, or doesn't work", c.name)
	}
	if len(h.Stored()[reservation("pg", c.name)]) == 0 {
		t.Error("the name isn't reserved")
	}
	if err := h.EndLease(c.lease); err != nil {
		t.Fatal(err)
	}
	if len(h.Stored()[reservation("pg", c.name)]) != 0 {
		t.Error("the name is reserved for ever")
	}
}

func TestStaticLoginsThatChangeTheirOwnPassword(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", nil)
	h.Data(conclave.Update, "config/own", fields{"plugin_name": "postgresql-database-plugin", "connection_url": postgresURL(s), "tls_ca": s.CA, "allowed_roles": "*", "self_managed": true})
	asRoot(t, s, "DROP ROLE IF EXISTS selfmade; CREATE ROLE selfmade LOGIN PASSWORD 'mine'")
	given := fields{"db_name": "own", "username": "selfmade", "rotation_period": "1h"}
	h.Fails(conclave.Update, "static-roles/own", given, conclave.Invalid, "self_managed_password")
	given["self_managed_password"] = "mine"
	if err := h.Interrupt(enginetest.AfterPrepare, conclave.Update, "static-roles/own", given); err != nil {
		t.Fatal(err)
	}
	if canLogIn(t, s, "selfmade", "mine") {
		t.Error("the password wasn't changed: nothing is tested")
	}
	h.Data(conclave.Update, "static-roles/own", given) // nobody saw what came of the first
	password, _ := staticCreds(t, h, "own")
	if !canLogIn(t, s, "selfmade", password) {
		t.Fatal("the password that is answered doesn't work")
	}
	h.Advance(time.Hour)
	if err := h.LoseWork("static/own"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RunDue(h.Now()); err != nil {
		t.Fatal(err)
	}
	if now, _ := staticCreds(t, h, "own"); now == password || !canLogIn(t, s, "selfmade", now) {
		t.Error("what was begun wasn't brought to its end")
	}
	h.Fails(conclave.Update, "rotate-root/own", nil, conclave.Invalid, "no username")
}
