package database

import (
	"encoding/json"
	"reflect"
	"testing"

	"conclave"
	"conclave/engine/database/driver"
)

// What was stored by any version is read by all later ones.
func TestStoredFormats(t *testing.T) {
	for _, row := range []struct {
		text   string
		record any
	}{
		{`{"plugin_name":"postgresql-database-plugin","plugin_version":"","verify_connection":true,"allowed_roles":["a"],"password_policy":"p","connection_url":"u","username":"n","max_open_connections":5,` +
			`"max_idle_connections":-1,"max_connection_lifetime":5000000000,"username_template":"t","disable_escaping":true,"password_authentication":"scram-sha-256","tls_ca":"ca","tls_certificate":"c",` +
			`"tls_server_name":"s","tls_skip_verify":true,"host":"h","port":1,"tls":true,"insecure_tls":true,"ca_cert":"cc","persistence_mode":"rewrite","self_managed":true,"root_statements":["r"],` +
			`"tls_certificate_key":"ck","private_key":"k","resets":3,"rotation_period":60,"rotation_schedule":"* * * * *","rotation_window":3600,"disable_automated_rotation":true}`,
			&connection{PluginName: "postgresql-database-plugin", Verify: true, AllowedRoles: []string{"a"}, PasswordPolicy: "p", RootStatements: []string{"r"}, TLSCertificateKey: "ck", PrivateKey: "k", Resets: 3,
				rotation: rotation{60, "* * * * *", 3600}, NoRotation: true, details: details{URL: "u", Username: "n", MaxOpen: 5, MaxIdle: -1, MaxLifetime: 5e9, Template: "t", NoEscaping: true,
					Authentication: "scram-sha-256", TLSCA: "ca", TLSCertificate: "c", TLSServerName: "s", TLSSkipVerify: true, Host: "h", Port: 1, TLS: true, InsecureTLS: true, CACert: "cc",
					Persistence: "rewrite", SelfManaged: true}}},
		{`{"password":"a","pending":"b","since":5,"failures":2}`, &root{"a", "b", 5, 2}},
		{`{"db_name":"d","creation":["c"],"revocation":["r"],"rollback":["b"],"renew":["n"],"default_ttl":1,"max_ttl":2,"credential_config":{"password_policy":"p"}}`,
			&role{"d", []string{"c"}, []string{"r"}, []string{"b"}, []string{"n"}, 1, 2, map[string]string{"password_policy": "p"}}},
		{`{"db_name":"d","username":"u","statements":["s"],"rotation_period":0,"rotation_schedule":"0 0 * * *","rotation_window":3600,"skip_import_rotation":true,"credential_config":{"a":"b"},"current":"c",` +
			`"pending":"p","since":6,"rotated":true,"failures":1}`, &static{"d", "u", []string{"s"}, rotation{0, "0 0 * * *", 3600}, true, map[string]string{"a": "b"}, "c", "p", 6, true, 1}},
		{`{"db":"d","name":"n","role":"r","until":7,"drop":["x"],"reserved":true}`, &leased{"d", "n", "r", 7, []string{"x"}, true}},
	} {
		read := reflect.New(reflect.TypeOf(row.record).Elem()).Interface()
		if err := json.Unmarshal([]byte(row.text), read); err != nil || !reflect.DeepEqual(read, row.record) {
			t.Errorf("%s is read as\n%+v, %v, want\n%+v", row.text, read, err, row.record)
		}
		if text, err := json.Marshal(row.record); err != nil || string(text) != row.text {
			t.Errorf("%+v is stored as\n%s, want\n%s", row.record, text, row.text)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"db":"d","name":"n","role":"r","until":7}`))
	f.Add([]byte(`{"db_name":"d","rotation_schedule":"* * * * *","since":-1}`))
	f.Add([]byte(`{"plugin_name":"mysql-database-plugin","connection_url":"u:p@tcp(h)/"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if l, err := decodeLeased(value); err == nil && (l.Name == "" || l.Connection == "") {
			t.Errorf("a lease without a login: %+v", l)
		}
		for _, record := range []any{&root{}, &role{}} {
			_ = json.Unmarshal(value, record)
		}
		var s static
		if json.Unmarshal(value, &s) == nil {
			s.next(unixNano(s.Since))
		}
		var c connection
		if json.Unmarshal(value, &c) == nil {
			if c.check() == nil {
				c.source(&root{Password: "p"})
			}
			c.shown()
		}
	})
}

func FuzzHidePassword(f *testing.F) {
	for _, text := range []string{"postgres://u:p@h", "u:p@tcp(h)/", "password=x", "//@", "@", ":@", "//:@"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, hidden := hidePassword(text); !hidden && got != text {
			t.Errorf("hidePassword(%q) = %q, and says that it had none", text, got)
		}
	})
}

// A role as in Terraform's and the command line's requests: statements are lists, texts, or nothing.
func TestStatementsOf(t *testing.T) {
	for _, row := range []struct {
		raw  any
		want []string
	}{{nil, []string{}}, {"a, b", []string{"a, b"}}, {[]any{"a", "", "b"}, []string{"a", "b"}}, {"", []string{}}} {
		if got, err := statementsOf("x", row.raw); err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("statementsOf(%v) = %v, %v, want %v", row.raw, got, err, row.want)
		}
	}
	for _, raw := range []any{1, []any{1}, map[string]any{}, true} {
		if _, err := statementsOf("x", raw); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("statementsOf(%v): %v, want Invalid", raw, err)
		}
	}
}

func TestFamilies(t *testing.T) {
	for name, f := range families {
		template, err := (&templates{}).of(&connection{PluginName: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := template.Differ(random()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if f.nameLimit < 16 {
			t.Errorf("%s: names of %d characters", name, f.nameLimit)
		}
	}
	if _, err := openDriver(driver.Settings{Plugin: "x"}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("an unknown plug-in: %v", err)
	}
}
