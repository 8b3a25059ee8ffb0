package database

import (
	"regexp"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/internal/dbserver"
)

// trial is one kind of database with what tests need of it.
type trial struct {
	name      string
	configure func(testing.TB, *enginetest.Harness, string, fields) *dbserver.Server
	creation  any
	login     *regexp.Regexp
	// whoami logs in and returns who that is.
	whoami func(t testing.TB, s *dbserver.Server, name, password string) string
	// make makes a login for a static role; change sets its password.
	make func(t testing.TB, s *dbserver.Server, name, password string)
	// count is how many logins of a name there are.
	count func(t testing.TB, s *dbserver.Server, name string) int
}

func trials() []trial {
	return []trial{
		{"postgres", real.configurePostgres, postgresCreation, regexp.MustCompile(`^v-tester-app-[A-Za-z0-9]{20}-[0-9]{10}$`),
			func(t testing.TB, s *dbserver.Server, name, password string) string {
				return first(s.PostgresQuery(t.Context(), name, password, "SELECT current_user"))
			},
			func(t testing.TB, s *dbserver.Server, name, password string) {
				asRoot(t, s, `DROP ROLE IF EXISTS "`+name+`"; CREATE ROLE "`+name+`" LOGIN PASSWORD '`+password+`'`)
			},
			func(t testing.TB, s *dbserver.Server, name string) int {
				return len(asRoot(t, s, "SELECT 1 FROM pg_roles WHERE rolname = '"+name+"'"))
			}},
		{"mariadb", real.configureMariaDB, []string{"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "GRANT SELECT ON *.* TO '{{name}}'@'%'"},
			regexp.MustCompile(`^v-tester-app-[A-Za-z0-9-]{19}$`),
			func(t testing.TB, s *dbserver.Server, name, password string) string {
				who := first(s.MariaDBQuery(t.Context(), name, password, "SELECT CURRENT_USER()"))
				return who[:max(0, strings.LastIndexByte(who, '@'))]
			},
			func(t testing.TB, s *dbserver.Server, name, password string) {
				mariaRoot(t, s, "CREATE OR REPLACE USER '"+name+"'@'%' IDENTIFIED BY '"+password+"'")
			},
			func(t testing.TB, s *dbserver.Server, name string) int {
				return len(mariaRoot(t, s, "SELECT Host FROM mysql.user WHERE User = '"+name+"'"))
			}},
		{"redis", real.configureRedis, `["~app:*", "+@read", "+acl|whoami"]`, regexp.MustCompile(`^V_TESTER_APP_[A-Z0-9]{20}_[0-9]{10}$`),
			func(t testing.TB, s *dbserver.Server, name, password string) string {
				got, _ := s.RedisQuery(t.Context(), name, password, "ACL", "WHOAMI")
				who, _ := got.(string)
				return who
			},
			func(t testing.TB, s *dbserver.Server, name, password string) {
				redisRoot(t, s, "ACL", "SETUSER", name, "reset", "on", ">"+password, "+acl|whoami")
			},
			func(t testing.TB, s *dbserver.Server, name string) int {
				if redisRoot(t, s, "ACL", "GETUSER", name) == nil {
					return 0
				}
				return 1
			}},
	}
}

func first(column []string, err error) string {
	if err != nil || len(column) != 1 {
		return ""
	}
	return column[0]
}

func mariaRoot(t testing.TB, s *dbserver.Server, text string) []string {
	t.Helper()
	got, err := s.MariaDBQuery(t.Context(), s.User, s.Password, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return got
}

func redisRoot(t testing.TB, s *dbserver.Server, command ...any) any {
	t.Helper()
	got, err := s.RedisQuery(t.Context(), s.User, s.Password, command...)
	if err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	return got
}

// each runs a test with each kind of database.
func each(t *testing.T, test func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server)) {
	for _, k := range trials() {
		t.Run(k.name, func(t *testing.T) {
			h := newHarness(t)
			s := k.configure(t, h, "db", nil)
			test(t, k, h, s)
		})
	}
}

func TestCredentialsWorkUntilTheirLeaseEnds(t *testing.T) {
	each(t, func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server) {
		h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": k.creation, "default_ttl": "1h", "max_ttl": "24h"})
		c, other := issue(t, h, "app"), issue(t, h, "app")
		if !k.login.MatchString(c.name) || len(c.password) != 20 || c.name == other.name || c.password == other.password {
			t.Errorf("logins are %q and %q, with passwords of %d characters", c.name, other.name, len(c.password))
		}
		if got := k.whoami(t, s, c.name, c.password); got != c.name {
			t.Fatalf("logged in as %q, want %q", got, c.name)
		}
		if got := k.whoami(t, s, c.name, other.password); got != "" {
			t.Error("another's password works")
		}
		if err := h.EndLease(c.lease); err != nil {
			t.Fatal(err)
		}
		if got := k.whoami(t, s, c.name, c.password); got != "" || k.count(t, s, c.name) != 0 {
			t.Error("the login works, or is there, although its lease has ended")
		}
		if got := k.whoami(t, s, other.name, other.password); got != other.name {
			t.Error("the end of one lease has ended another's login")
		}
		if err := h.EndLease(other.lease); err != nil {
			t.Fatal(err)
		}
	})
}

// A node may die after it wrote down what it will do, and after it has done it.
func TestNoLoginIsLeftByANodeThatDies(t *testing.T) {
	each(t, func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server) {
		h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": k.creation})
		for stage, made := range map[enginetest.Stage]int{enginetest.AfterIntend: 0, enginetest.AfterPrepare: 1} {
			if err := h.Interrupt(stage, conclave.Read, "creds/app", nil); err != nil {
				t.Fatal(err)
			}
			leases := h.Leases()
			if len(leases) != 1 {
				t.Fatalf("%d leases, want that of the intent", len(leases))
			}
			l, err := decodeLeased(leases[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			if got := k.count(t, s, l.Name); got != made {
				t.Errorf("%d logins of the name before the intent's lease ends, want %d", got, made)
			}
			for range 2 { // a second time is a success as well
				if err := h.EndLease(leases[0].ID); err != nil {
					t.Fatal(err)
				}
				if got := k.count(t, s, l.Name); got != 0 {
					t.Errorf("%d logins are left", got)
				}
				if len(h.Leases()) == 0 {
					break
				}
			}
		}
	})
}

func TestARequestThatFailsLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server) {
		bad := map[string]any{"postgres": postgresCreation + ` GRANT SELECT ON nothing TO "{{name}}";`,
			"mariadb": []string{"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "GRANT SELECT ON nothing.nothing TO 'nobody-there'@'%'", "SELEKT '{{password}}'"},
			"redis":   `["+@nosuchcategory"]`}[k.name]
		h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": bad})
		err := h.Fails(conclave.Read, "creds/app", nil, conclave.Invalid, "the database refuses")
		if strings.Contains(err.Error(), s.Address) || strings.Contains(err.Error(), s.Password) {
			t.Errorf("the error shows too much: %v", err)
		}
		if leases := h.Leases(); len(leases) != 0 {
			t.Errorf("%d leases are left", len(leases))
		}
		left := map[string]func() int{
			"postgres": func() int { return len(asRoot(t, s, "SELECT 1 FROM pg_roles WHERE rolname LIKE 'v-tester-app-%'")) },
			"mariadb": func() int {
				return len(mariaRoot(t, s, "SELECT User FROM mysql.user WHERE User LIKE 'v-tester-app-%'"))
			},
			"redis": func() int {
				n := 0
				for _, name := range redisRoot(t, s, "ACL", "USERS").([]any) {
					if strings.HasPrefix(name.(string), "V_TESTER") {
						n++
					}
				}
				return n
			}}[k.name]()
		if left != 0 {
			t.Errorf("%d logins are left", left)
		}
	})
}
