package database

import (
	"maps"
	"slices"
	"strings"

	"conclave"
	"conclave/engine/database/driver"
	"conclave/engine/database/postgres"
)

// family is one kind of database.
type family struct {
	open      func(driver.Settings) (driver.Driver, error)
	nameLimit int    // characters of a login's name
	template  string // of names, if the connection has none
}

const (
	postgresNames = `{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}`
)

// families are those that Vault's names of plug-ins stand for.
var families = map[string]family{
	"postgresql-database-plugin": {postgres.Open, postgres.NameLimit, postgresNames},
}

func openDriver(s driver.Settings) (driver.Driver, error) {
	f, known := families[s.Plugin]
	if !known {
		return nil, conclave.Errorf(conclave.Invalid, "unknown plugin_name: there are %s", strings.Join(slices.Sorted(maps.Keys(families)), ", "))
	}
	return f.open(s)
}
