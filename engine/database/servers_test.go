package database

import (
	"context"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"conclave"
	"conclave/engine/database/driver"
	"conclave/engine/enginetest"
	"conclave/internal/dbserver"
)

// servers are started once for all tests of the package, when the first one wants them.
type servers struct {
	postgres, mariadb, redis func() (*dbserver.Server, error)
	close                    []func()
}

var real servers

func TestMain(m *testing.M) {
	once := func(start func() (*dbserver.Server, error)) func() (*dbserver.Server, error) {
		return sync.OnceValues(func() (*dbserver.Server, error) {
			s, err := start()
			if err == nil {
				real.close = append(real.close, s.Close)
			}
			return s, err
		})
	}
	real.postgres, real.mariadb, real.redis = once(dbserver.Postgres), once(dbserver.MariaDB), once(dbserver.Redis)
	code := m.Run()
	for _, end := range real.close {
		end()
	}
	os.Exit(code)
}

// need is a server that runs. Without one installed the test is skipped; in continuous integration it fails.
func need(t testing.TB, start func() (*dbserver.Server, error)) *dbserver.Server {
	t.Helper()
	s, err := start()
	switch {
	case dbserver.IsMissing(err) && os.Getenv("CI") != "true":
		t.Skip(err.Error())
	case err != nil:
		t.Fatal(err)
	}
	return s
}

// postgresURL has TLS required; who signs is in tls_ca.
func postgresURL(s *dbserver.Server) string {
	return "postgresql://{{username}}:{{password}}@" + s.Address + "/postgres?sslmode=verify-full"
}

// fields are those of a request.
type fields = map[string]any

func (f servers) configurePostgres(t testing.TB, h *enginetest.Harness, name string, more fields) *dbserver.Server {
	t.Helper()
	s := need(t, f.postgres)
	given := fields{"plugin_name": "postgresql-database-plugin", "connection_url": postgresURL(s), "username": s.User, "password": s.Password,
		"tls_ca": s.CA, "allowed_roles": "*"}
	maps.Copy(given, more)
	h.Data(conclave.Update, "config/"+name, given)
	return s
}

func (f servers) configureMariaDB(t testing.TB, h *enginetest.Harness, name string, more fields) *dbserver.Server {
	t.Helper()
	s := need(t, f.mariadb)
	given := fields{"plugin_name": "mysql-database-plugin", "connection_url": "{{username}}:{{password}}@tcp(" + s.Address + ")/", "username": s.User, "password": s.Password,
		"allowed_roles": []string{"*"}}
	maps.Copy(given, more)
	h.Data(conclave.Update, "config/"+name, given)
	return s
}

func (f servers) configureRedis(t testing.TB, h *enginetest.Harness, name string, more fields) *dbserver.Server {
	t.Helper()
	s := need(t, f.redis)
	given := fields{"plugin_name": "redis-database-plugin", "host": "127.0.0.1", "port": s.Port(), "username": s.User, "password": s.Password, "allowed_roles": "*", "persistence_mode": "aclfile"}
	maps.Copy(given, more)
	h.Data(conclave.Update, "config/"+name, given)
	return s
}

const postgresCreation = `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";`

// creds are those that a role gives, with the lease's id.
type creds struct{ name, password, lease string }

func issue(t testing.TB, h *enginetest.Harness, role string) creds {
	t.Helper()
	resp, err := h.Do(conclave.Read, "creds/"+role, nil)
	if err != nil {
		t.Fatalf("creds/%s: %v", role, err)
	}
	data := enginetest.Decode(t, resp.Data)
	c := creds{data["username"].(string), data["password"].(string), resp.Lease.ID}
	if c.name == "" || c.password == "" || c.lease == "" {
		t.Fatalf("creds/%s = %+v", role, c)
	}
	return c
}

// canLogIn tries to log in to PostgreSQL.
func canLogIn(t testing.TB, s *dbserver.Server, name, password string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := s.PostgresQuery(ctx, name, password, "SELECT current_user")
	return err == nil && len(got) == 1 && got[0] == name
}

// asRoot does something to PostgreSQL, and returns the first column.
func asRoot(t testing.TB, s *dbserver.Server, text string) []string {
	t.Helper()
	got, err := s.PostgresQuery(t.Context(), s.User, s.Password, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return got
}

// newHarness stands at the time of now, since databases judge the ends of logins by their own clocks.
func newHarness(t testing.TB) *enginetest.Harness {
	h := enginetest.New(t, open(t))
	h.Advance(time.Since(h.Now()))
	return h
}

func open(t testing.TB) *Engine {
	t.Helper()
	engine, err := Plugin().Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.(*Engine)
	t.Cleanup(e.pools.closeAll)
	return e
}

// closeAll forgets all connections; those in use end with their users.
func (p *pools) closeAll() {
	var over []driver.Driver
	p.mu.Lock()
	for at, e := range p.all {
		over = append(over, p.endLocked(at, e))
	}
	p.mu.Unlock()
	for _, d := range over {
		end(d)
	}
}
