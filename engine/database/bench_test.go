package database

import (
	"syscall"
	"testing"
	"time"

	"conclave"
	"conclave/engine/database/driver"
	"conclave/engine/enginetest"
)

// BenchmarkCredentials makes logins of a real PostgreSQL. cpu-µs/op is what the engine and its connections take, without the
// database and without the vault around it.
func BenchmarkCredentials(b *testing.B) {
	h := enginetest.New(b, open(b), enginetest.Fast())
	h.Advance(time.Since(h.Now()))
	s := real.configurePostgres(b, h, "db", nil)
	defer asRoot(b, s, `DO $$ DECLARE r record; BEGIN FOR r IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' LOOP EXECUTE format('DROP ROLE %I', r.rolname); END LOOP; END $$`)
	h.Data(conclave.Update, "roles/app", fields{"db_name": "db", "creation_statements": `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`})
	before := cpu(b)
	for b.Loop() {
		if _, err := h.Do(conclave.Read, "creds/app", nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkRender(b *testing.B) {
	login := driver.Login{Name: "v-token-app-jNFRlKsZZMxJEx60o66i-1614294836", Password: "jNFRlKsZZMxJEx60o6-A", Until: time.Unix(1, 0)}
	for b.Loop() {
		if _, err := (driver.Dialect{Dollars: true}).Join([]string{postgresCreation}, login.Values()); err != nil {
			b.Fatal(err)
		}
	}
}
