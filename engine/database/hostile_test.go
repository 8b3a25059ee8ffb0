package database

import (
	"fmt"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/internal/dbserver"
)

// hostileNames are display names as somebody may choose who wants to be more than a reader.
var hostileNames = []string{`"; DROP ROLE victim; --`, `'; DROP ROLE victim; --`, `\'; DROP ROLE victim; --`, "`; x", "$$; DROP ROLE victim; $$", "/* ", "-- ", "# ", "\x00", "a\nb", "Ünï", strings.Repeat("x", 500),
	`" SUPERUSER PASSWORD 'x' --`, "%", "default", "{{password}}", ">pw ~* +@all"}

func TestDisplayNamesChangeNoStatement(t *testing.T) {
	each(t, func(t *testing.T, k trial, h *enginetest.Harness, s *dbserver.Server) {
		k.make(t, s, "victim", "victim-secret")
		h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": k.creation})
		for _, name := range hostileNames {
			other := h.As(&conclave.Caller{TokenID: "t", DisplayName: name, Type: "service"})
			c := issue(t, other, "app")
			if k.whoami(t, s, c.name, c.password) != c.name || strings.ContainsAny(c.name, "\"'`\\;$#/* \x00\n%") {
				t.Errorf("%q gets the login %q, or can't log in", name, c.name)
			}
			if err := h.EndLease(c.lease); err != nil || k.count(t, s, c.name) != 0 {
				t.Errorf("%q: the login %q isn't ended: %v", name, c.name, err)
			}
			if k.count(t, s, "victim") != 1 {
				t.Fatalf("%q has removed another login", name)
			}
		}
		for _, name := range []string{`a"b`, "a'b", "a;b", "a b", "a`b", `a\b`, "a\x00b", "a*b", "a#b"} {
			h.Fails(conclave.Update, "roles/"+name, fields{"db_name": "db", "creation_statements": k.creation}, conclave.Invalid, "")
		}
	})
}

// hostilePolicy makes passwords of what quotes and ends quotes.
const hostilePolicy = `length = 24
rule "charset" { charset = "'\"\\;-#/*$%{} ` + "`" + `" min-chars = 16 }
rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz0123456789" min-chars = 4 }`

func TestPasswordsChangeNoStatement(t *testing.T) {
	for _, k := range trials() {
		t.Run(k.name, func(t *testing.T) {
			h := enginetest.New(t, open(t), enginetest.PasswordPolicies(map[string]string{"hostile": hostilePolicy}))
			h.Advance(newHarness(t).Now().Sub(h.Now()))
			s := k.configure(t, h, "db", fields{"password_policy": "hostile"})
			h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": k.creation})
			k.make(t, s, "app-static", "old-password")
			h.Data(conclave.Update, "static-roles/static", fields{"db_name": "db", "username": "app-static", "rotation_period": "1h"})
			for range 20 {
				c := issue(t, h, "app")
				if k.whoami(t, s, c.name, c.password) != c.name {
					t.Fatalf("can't log in with the password %q", c.password)
				}
				if err := h.EndLease(c.lease); err != nil {
					t.Fatal(err)
				}
				h.Data(conclave.Update, "rotate-role/static", nil)
				if password, _ := staticCreds(t, h, "static"); k.whoami(t, s, "app-static", password) != "app-static" {
					t.Fatalf("can't log in with the password %q", password)
				}
			}
			h.Data(conclave.Update, "roles/none", fields{"db_name": "db", "creation_statements": k.creation, "credential_config": fields{"password_policy": "absent"}})
			h.Fails(conclave.Read, "creds/none", nil, conclave.Invalid, `there is no password policy "absent"`)
		})
	}
}

// Names of logins that are there can be anything. Who may write static roles chooses which one, and no more.
func TestNamesOfStaticLoginsChangeNoStatement(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", nil)
	m := real.configureMariaDB(t, h, "my", nil)
	asRoot(t, s, "DROP ROLE IF EXISTS victim; CREATE ROLE victim")
	for i, name := range []string{`o'b"r\ien`, `"; DROP ROLE victim; --`, `'; DROP ROLE victim; --`, "a`b", "a -- b /* c # d", "$$x$$"} {
		asRoot(t, s, fmt.Sprintf(`CREATE ROLE "%s" LOGIN PASSWORD 'old'`, strings.ReplaceAll(name, `"`, `""`)))
		mariaRoot(t, m, fmt.Sprintf(`CREATE OR REPLACE USER '%s'@'%%' IDENTIFIED BY 'old'`, strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(name)))
		for _, db := range []string{"pg", "my"} {
			role := fmt.Sprintf("%s-%d", db, i)
			h.Data(conclave.Update, "static-roles/"+role, fields{"db_name": db, "username": name, "rotation_period": "1h"})
			password, _ := staticCreds(t, h, role)
			if db == "pg" && !canLogIn(t, s, name, password) || db == "my" && first(m.MariaDBQuery(t.Context(), name, password, "SELECT 1")) != "1" {
				t.Errorf("%s: %q can't log in", db, name)
			}
		}
		asRoot(t, s, fmt.Sprintf(`DROP ROLE "%s"`, strings.ReplaceAll(name, `"`, `""`)))
	}
	for _, statement := range []string{"ALTER ROLE {{username}} PASSWORD '{{password}}'", `DO $$ BEGIN EXECUTE 'ALTER ROLE "{{username}}" PASSWORD ''{{password}}'''; END $$`} {
		h.Fails(conclave.Update, "static-roles/x", fields{"db_name": "pg", "username": `x"; DROP ROLE victim; --`, "rotation_period": "1h", "rotation_statements": statement}, conclave.Invalid, "can't be where")
	}
	for _, name := range []string{"a\x00b", "a\nb", "\x1b[0m"} {
		h.Fails(conclave.Update, "static-roles/y", fields{"db_name": "pg", "username": name, "rotation_period": "1h"}, conclave.Invalid, "control characters")
	}
	if left := asRoot(t, s, "SELECT 1 FROM pg_roles WHERE rolname = 'victim'"); len(left) != 1 {
		t.Error("another role was removed")
	}
	h.Fails(conclave.Update, "static-roles/absent", fields{"db_name": "pg", "username": "nobody-there", "rotation_period": "1h"}, conclave.Invalid, "does not exist")
}
