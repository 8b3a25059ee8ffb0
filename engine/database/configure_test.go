package database

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConnectionsAreShownWithoutSecrets(t *testing.T) {
	h := newHarness(t)
	s := real.configurePostgres(t, h, "pg", fields{"allowed_roles": "a, b", "max_open_connections": 5, "max_connection_lifetime": "5s", "private_key": "", "password_authentication": "password",
		"root_rotation_statements": []string{`ALTER USER "{{name}}" WITH PASSWORD '{{password}}', x`}, "plugin_version": "v1"})
	got := h.Data(conclave.Read, "config/pg", nil)
	details := got["connection_details"].(map[string]any)
	want := map[string]any{"connection_url": postgresURL(s), "username": s.User, "max_connection_lifetime": "5s", "tls_ca": s.CA, "password_authentication": "password", "max_open_connections": details["max_open_connections"]}
	if !reflect.DeepEqual(details, want) || details["max_open_connections"].(interface{ String() string }).String() != "5" {
		t.Errorf("connection_details = %v, want %v", details, want)
	}
	delete(got, "connection_details")
	wantRest := map[string]any{"plugin_name": "postgresql-database-plugin", "plugin_version": "v1", "verify_connection": true, "allowed_roles": []any{"a", "b"}, "password_policy": "",
		"root_credentials_rotate_statements": []any{`ALTER USER "{{name}}" WITH PASSWORD '{{password}}', x`}, "rotation_schedule": "", "disable_automated_rotation": false}
	for name, value := range wantRest {
		if !reflect.DeepEqual(got[name], value) {
			t.Errorf("%s = %v, want %v", name, got[name], value)
		}
	}
	h.Data(conclave.Update, "config/pg", fields{"allowed_roles": "c", "resets": 7, "root_statements": "x"})
	if c, _ := loadConnection(h.View(), "pg"); !reflect.DeepEqual(c.AllowedRoles, []string{"c"}) || c.MaxOpen != 5 || c.Resets != 0 || len(c.RootStatements) != 1 || c.RootStatements[0] == "x" {
		t.Errorf("after a change the connection is %+v", c)
	}
	if keys := h.Data(conclave.List, "config", nil)["keys"]; !reflect.DeepEqual(keys, []any{"pg"}) {
		t.Errorf("connections are %v", keys)
	}
	h.Data(conclave.Update, "reset/pg", nil)
	if got := h.Data(conclave.Update, "reload/postgresql-database-plugin", nil)["connections"]; !reflect.DeepEqual(got, []any{"pg"}) {
		t.Errorf("reload has reset %v", got)
	}
	if c, _ := loadConnection(h.View(), "pg"); c.Resets != 2 {
		t.Errorf("%d resets, want 2", c.Resets)
	}
	h.Data(conclave.Delete, "config/pg", nil)
	h.Fails(conclave.Read, "config/pg", nil, conclave.NotFound, "")
	if left := h.Stored(); len(left) != 0 {
		t.Errorf("%d records are left", len(left))
	}
}

func TestPasswordsInAddressesAreHidden(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u:s3cret@h/db":                                "postgres://u:*****@h/db",
		"postgres://u:s3c@ret@h:1/db":                             "postgres://u:*****@h:1/db",
		"u:s3cret@tcp(h:3306)/":                                   "u:*****@tcp(h:3306)/",
		"host=h password=s3cret user=u":                           "host=h password=*****",
		"postgres://{{username}}:{{password}}@h/db":               "postgres://{{username}}:{{password}}@h/db",
		"host=h user={{username}} password={{password}} dbname=d": "host=h user={{username}} password={{password}} dbname=d",
		"host=h password='{{password}}'":                          "host=h password='{{password}}'",
		"host=h password = s3cret":                                "host=h password = *****",
		"host=h password\t=s3cret":                                "host=h password\t=*****",
		"host=h password = {{password}}":                          "host=h password = {{password}}",
		"host=h password={{password}} password=s3cret":            "host=h password={{password}} password=*****",
		"tcp(h:3306)/":                                            "tcp(h:3306)/", "": "",
	} {
		if got, _ := hidePassword(text); got != want {
			t.Errorf("hidePassword(%s) = %s, want %s", text, got, want)
		}
	}
}

func TestConnectionsAreTriedBeforeTheyAreStored(t *testing.T) {
	h := newHarness(t)
	s := need(t, real.postgres)
	good := fields{"plugin_name": "postgresql-database-plugin", "connection_url": postgresURL(s), "username": s.User, "password": s.Password, "tls_ca": s.CA}
	with := func(more fields) fields {
		all := fields{}
		for name, value := range good {
			all[name] = value
		}
		for name, value := range more {
			all[name] = value
		}
		return all
	}
	other := need(t, real.mariadb).CA // another authority
	refusals := []struct {
		more fields
		kind conclave.Kind
		text string
	}{
		{fields{"password": "wrong"}, conclave.Invalid, "refuses the connection's own user"},
		{fields{"tls_ca": other}, conclave.Invalid, "certificate is not trusted"},
		{fields{"tls_server_name": "db.example"}, conclave.Invalid, "certificate is not trusted"},
		{fields{"connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/postgres"}, conclave.Invalid, "can't be reached"},
		{fields{"connection_url": postgresURL(s) + "&sslrootcert=/etc/passwd"}, conclave.Invalid, "can't have sslrootcert"},
		{fields{"connection_url": strings.Replace(postgresURL(s), "verify-full", "disable", 1)}, conclave.Invalid, "sslmode=disable"},
		{fields{"connection_url": "::"}, conclave.Invalid, "can't be read"},
		{fields{"connection_url": ""}, conclave.Invalid, "connection_url is missing"},
		{fields{"tls_ca": "x"}, conclave.Invalid, "no certificate in PEM"},
		{fields{"tls_certificate": s.CA, "private_key": "x"}, conclave.Invalid, "no pair"},
		{fields{"plugin_name": "oracle-database-plugin"}, conclave.Invalid, "unknown plugin_name"},
		{fields{"plugin_name": ""}, conclave.Invalid, "plugin_name is missing"},
		{fields{"username_template": "{{.RoleName}}"}, conclave.Invalid, "makes the same name again"},
		{fields{"rotation_period": "1h", "rotation_schedule": "0 0 * * *"}, conclave.Invalid, "mutually exclusive"},
		{fields{"rotation_schedule": "not cron"}, conclave.Invalid, "rotation_schedule"},
		{fields{"rotation_period": "1s"}, conclave.Invalid, "rotation_period"},
		{fields{"max_open_connections": 1000}, conclave.Invalid, "max_open_connections"},
		{fields{"password_authentication": "md5"}, conclave.Invalid, "password_authentication"},
	}
	for _, row := range refusals {
		err := h.Fails(conclave.Update, "config/pg", with(row.more), row.kind, row.text)
		if strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), s.Password) {
			t.Errorf("an error shows too much: %v", err)
		}
	}
	if len(h.Stored()) != 0 {
		t.Error("a configuration that was refused is stored")
	}
	h.Data(conclave.Update, "config/pg", with(fields{"password": "wrong", "verify_connection": false}))
	h.Data(conclave.Update, "config/pg", with(fields{"verify_connection": true}))
	h.Fails(conclave.Update, "config/a%2fb", good, conclave.Invalid, "a name has letters")

	files := map[string]string{}
	for _, name := range []string{"cert.pem", "key.pem"} {
		text, err := os.ReadFile(s.Dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	h.Data(conclave.Update, "config/shows", with(fields{"tls_certificate": files["cert.pem"], "private_key": files["key.pem"]}))
	h.Data(conclave.Update, "config/keywords", with(fields{"connection_url": "host=127.0.0.1 port=" + s.Address[len("127.0.0.1:"):] + " user={{username}} password={{password}} dbname=postgres sslmode=require"}))
	if resp, err := h.Do(conclave.Update, "config/plain", with(fields{"connection_url": strings.NewReplacer("{{username}}", s.User, "{{password}}", s.Password).Replace(postgresURL(s))})); err != nil || len(resp.Warnings) != 1 {
		t.Errorf("a password in the URL: %v, warnings %v", err, resp)
	}
	h.Fails(conclave.Update, "rotate-root/plain", nil, conclave.Invalid, "has no {{password}}")
}

func TestMariaDBWithTLS(t *testing.T) {
	h := newHarness(t)
	s := real.configureMariaDB(t, h, "db", fields{"tls_ca": need(t, real.mariadb).CA})
	h.Fails(conclave.Update, "config/db", fields{"tls_ca": need(t, real.postgres).CA}, conclave.Invalid, "certificate is not trusted")
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' REQUIRE SSL"})
	c := issue(t, h, "app")
	if err := h.EndLease(c.lease); err != nil {
		t.Fatal(err)
	}
	if left := mariaRoot(t, s, "SELECT Host FROM mysql.user WHERE User = '"+c.name+"'"); len(left) != 0 {
		t.Error("the login is left")
	}
}

func TestRolesUseTheConnectionsThatAllowThem(t *testing.T) {
	h := newHarness(t)
	real.configurePostgres(t, h, "pg", fields{"allowed_roles": "read-*,exact"})
	for role, good := range map[string]bool{"read-a": true, "exact": true, "write": false, "exactly": false} {
		h.Data(conclave.Update, "roles/"+role, fields{"db_name": "pg", "creation_statements": postgresCreation})
		if !good {
			h.Fails(conclave.Read, "creds/"+role, nil, conclave.Denied, "is not an allowed role")
			h.Fails(conclave.Update, "static-roles/s"+role, fields{"db_name": "pg", "username": "x", "rotation_period": "1h"}, conclave.Denied, "is not an allowed role")
			continue
		}
		if err := h.EndLease(issue(t, h, role).lease); err != nil {
			t.Error(err)
		}
	}
	h.Data(conclave.Update, "config/pg", fields{"allowed_roles": ""})
	h.Fails(conclave.Read, "creds/exact", nil, conclave.Denied, "is not an allowed role")
	h.Fails(conclave.Read, "creds/nothing", nil, conclave.Invalid, "unknown role: nothing")
	h.Data(conclave.Update, "roles/lost", fields{"db_name": "nowhere", "creation_statements": "x"})
	h.Fails(conclave.Read, "creds/lost", nil, conclave.Invalid, "failed to find entry for connection")
	h.Fails(conclave.Update, "static-roles/exact", fields{"db_name": "pg", "username": "x", "rotation_period": "1h"}, conclave.Invalid, "must be unique")
}

func TestRolesAreShownAsTheyWereWritten(t *testing.T) {
	h := enginetest.New(t, open(t))
	statements := []string{`CREATE ROLE "{{name}}"`, "GRANT a, b TO c"}
	h.Data(conclave.Update, "roles/app", fields{"db_name": "pg", "creation_statements": statements, "revocation_statements": "DROP, it", "default_ttl": "1h", "max_ttl": 7200,
		"credential_config": fields{"password_policy": "long"}})
	h.Data(conclave.Update, "roles/app", fields{"default_ttl": 60})
	got := h.Data(conclave.Read, "roles/app", nil)
	for name, want := range map[string]any{"db_name": "pg", "creation_statements": []any{statements[0], statements[1]}, "revocation_statements": []any{"DROP, it"}, "rollback_statements": []any{},
		"renew_statements": []any{}, "credential_type": "password", "credential_config": map[string]any{"password_policy": "long"}} {
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
	if got["default_ttl"].(interface{ String() string }).String() != "60" || got["max_ttl"].(interface{ String() string }).String() != "7200" {
		t.Errorf("times are %v and %v", got["default_ttl"], got["max_ttl"])
	}
	for _, bad := range []fields{{"db_name": "a/b"}, {"default_ttl": "3h"}, {"max_ttl": -1}, {"creation_statements": fields{"a": 1}}, {"creation_statements": []any{1}}, {"credential_type": "rsa_private_key"},
		{"credential_config": fields{"key_bits": 2048}}, {"creation_statements": strings.Repeat("x", maxText+1)}} {
		h.Fails(conclave.Update, "roles/app", bad, conclave.Invalid, "")
	}
	resp, err := h.Do(conclave.Update, "roles/app", fields{"renew_statements": "ALTER x"})
	if err != nil || len(resp.Warnings) != 1 {
		t.Errorf("renew_statements: %v, %v; a warning is wanted", resp, err)
	}
	h.Data(conclave.Delete, "roles/app", nil)
	h.Fails(conclave.Read, "roles/app", nil, conclave.NotFound, "")
	if len(h.Stored()) != 0 {
		t.Error("records are left")
	}
}
