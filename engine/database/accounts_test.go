package database

import (
	"database/sql"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"conclave"
	"conclave/internal/dbserver"
)

// mariaSession logs in and stays.
func mariaSession(t *testing.T, s *dbserver.Server, name, password string) *sql.Conn {
	t.Helper()
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr, config.Logger = name, password, "tcp", s.Address, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestMariaDBEndsSessionsAndAllHosts(t *testing.T) {
	h := newHarness(t)
	s := real.configureMariaDB(t, h, "db", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; CREATE USER '{{name}}'@'10.0.0.1' IDENTIFIED BY '{{password}}';"})
	c := issue(t, h, "app")
	conn := mariaSession(t, s, c.name, c.password)
	if err := h.EndLease(c.lease); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "SELECT 1"); err == nil {
		t.Error("a session goes on after its login has ended")
	}
	if left := mariaRoot(t, s, "SELECT Host FROM mysql.user WHERE User = '"+c.name+"'"); len(left) != 0 {
		t.Errorf("the login is left at %v", left)
	}
}

// Who may not read which logins there are has them dropped at "%", and takes one that isn't there for ended.
func TestMariaDBWithFewPrivileges(t *testing.T) {
	h := newHarness(t)
	s := need(t, real.mariadb)
	mariaRoot(t, s, "CREATE OR REPLACE USER 'few'@'127.0.0.1' IDENTIFIED BY 'few-secret'")
	mariaRoot(t, s, "GRANT CREATE USER ON *.* TO 'few'@'127.0.0.1'")
	real.configureMariaDB(t, h, "db", fields{"username": "few", "password": "few-secret", "plugin_name": "mysql-legacy-database-plugin"})
	for _, revocation := range []any{nil, "DROP USER '{{name}}'@'%'"} {
		h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "revocation_statements": revocation})
		c, gone := issue(t, h, "app"), issue(t, h, "app")
		if len(c.name) != 16 || !strings.HasPrefix(c.name, "v-app-") {
			t.Errorf("the login is %q", c.name)
		}
		mariaRoot(t, s, "DROP USER '"+gone.name+"'@'%'")
		for _, lease := range []string{c.lease, gone.lease} {
			if err := h.EndLease(lease); err != nil {
				t.Error(err)
			}
		}
		if left := mariaRoot(t, s, "SELECT Host FROM mysql.user WHERE User = '"+c.name+"'"); len(left) != 0 {
			t.Error("the login is left")
		}
	}
}

// Of an account, MySQL undoes nothing by itself.
func TestMariaDBRollsBackByStatements(t *testing.T) {
	h := newHarness(t)
	s := real.configureMariaDB(t, h, "db", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": []string{"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "CREATE USER 'extra-{{name}}'@'%'", "FAIL '{{password}}'"},
		"rollback_statements": "DROP USER 'extra-{{name}}'@'%'"})
	err := h.Fails(conclave.Read, "creds/app", nil, conclave.Invalid, "(1064)")
	if !strings.Contains(err.Error(), "[redacted]") {
		t.Errorf("the error may show the password: %v", err)
	}
	if left := mariaRoot(t, s, "SELECT User FROM mysql.user WHERE User LIKE '%v-tester-app-%'"); len(left) != 0 {
		t.Errorf("logins are left: %v", left)
	}
}

func TestRedisLoginsOutliveARestart(t *testing.T) {
	h := newHarness(t)
	s := real.configureRedis(t, h, "db", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db"})
	redisRoot(t, s, "SET", "key", "value")
	c, over := issue(t, h, "app"), issue(t, h, "app")
	if err := h.EndLease(over.lease); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if err := h.EndLease(c.lease); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("the end of a lease without its database: %v", err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	redisRoot(t, s, "SET", "key", "value")
	if got, err := s.RedisQuery(t.Context(), c.name, c.password, "GET", "key"); err != nil || got != "value" {
		t.Errorf("after a restart: %v, %v", got, err)
	}
	if _, err := s.RedisQuery(t.Context(), c.name, c.password, "SET", "key", "other"); err == nil {
		t.Error("without rules a login may write")
	}
	if _, err := s.RedisQuery(t.Context(), over.name, over.password, "GET", "key"); err == nil {
		t.Error("a login is there again that was ended")
	}
	if err := h.EndLease(c.lease); err != nil {
		t.Error(err)
	}
}

func TestRedisRulesGiveNoOtherWayIn(t *testing.T) {
	h := newHarness(t)
	s := real.configureRedis(t, h, "db", nil)
	for _, rules := range []any{`["nopass"]`, `["on", ">other"]`, `["+@all", "#` + strings.Repeat("0", 64) + `"]`, "RESET", "off", `["<x"]`, `["resetpass"]`} {
		h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": rules})
		h.Fails(conclave.Read, "creds/app", nil, conclave.Invalid, "can't have rules about passwords")
	}
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": []string{"~a* +get", `["~c*", "(+set ~d*)"]`}})
	c := issue(t, h, "app")
	if _, err := s.RedisQuery(t.Context(), c.name, c.password, "GET", "b"); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("a key beyond the rules: %v", err)
	}
	for _, command := range [][]any{{"GET", "a1"}, {"GET", "c1"}, {"SET", "d1", "x"}} {
		if _, err := s.RedisQuery(t.Context(), c.name, c.password, command...); err != nil {
			t.Errorf("%v: %v", command, err)
		}
	}
	if err := h.EndLease(c.lease); err != nil {
		t.Error(err)
	}
	for _, config := range []fields{{"host": ""}, {"host": "a/b"}, {"host": "user@h"}, {"port": 70000}, {"persistence_mode": "x"}} {
		h.Fails(conclave.Update, "config/db", config, conclave.Invalid, "")
	}
	h.Data(conclave.Update, "config/db", fields{"host": "redis://127.0.0.1"})
}

// What the database has been sent it gives up by itself, so that nothing is made when nobody waits any more.
func TestTheDatabaseKnowsWhenToGiveUp(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "db", nil)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": postgresCreation + ` CREATE TABLE public.bounds AS
		SELECT unnest(ARRAY[current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')]) AS b`})
	c := issue(t, h, "app")
	if got := asRoot(t, s, "SELECT b FROM public.bounds"); !slices.Equal(got, []string{"8s", "8s", "8s"}) {
		t.Errorf("bounds are %v", got)
	}
	asRoot(t, s, "DROP TABLE public.bounds")
	if err := h.EndLease(c.lease); err != nil {
		t.Error(err)
	}
}

func TestRedisWithTLS(t *testing.T) {
	h := newHarness(t)
	s := need(t, real.redis)
	_, port, err := net.SplitHostPort(s.Encrypted)
	if err != nil {
		t.Fatal(err)
	}
	real.configureRedis(t, h, "db", fields{"port": port, "tls": true, "ca_cert": s.CA})
	h.Fails(conclave.Update, "config/db", fields{"ca_cert": need(t, real.postgres).CA}, conclave.Invalid, "certificate is not trusted")
	h.Fails(conclave.Update, "config/db", fields{"tls": false, "ca_cert": ""}, conclave.Invalid, "the database")
	h.Data(conclave.Update, "config/db", fields{"insecure_tls": true, "ca_cert": ""})
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db"})
	if err := h.EndLease(issue(t, h, "app").lease); err != nil {
		t.Error(err)
	}
}
