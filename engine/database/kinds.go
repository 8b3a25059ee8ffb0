package database

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"conclave"
	"conclave/engine/database/driver"
	"conclave/engine/database/mysql"
	"conclave/engine/database/postgres"
	"conclave/engine/database/redis"
	"conclave/engine/database/username"
)

// family is one kind of database.
type family struct {
	open      func(driver.Settings) (driver.Driver, error)
	nameLimit int    // characters of a login's name
	template  string // of names, if the connection has none
}

const (
	postgresNames = `{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}`
	mysqlNames    = `{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 10) (.RoleName | truncate 10) (random 20) (unix_time) | truncate 32 }}`
	legacyNames   = `{{ printf "v-%s-%s" (.RoleName | truncate 4) (random 20) | truncate 16 }}`
	redisNames    = `{{ printf "V_%s_%s_%s_%s" (.DisplayName | uppercase | truncate 64) (.RoleName | uppercase | truncate 64) (random 20 | uppercase) (unix_time) | truncate 128 }}`
)

// families are those that Vault's names of plug-ins stand for.
var families = map[string]family{
	"postgresql-database-plugin":   {postgres.Open, postgres.NameLimit, postgresNames},
	"mysql-database-plugin":        {mysql.Open, mysql.NameLimit, mysqlNames},
	"mysql-aurora-database-plugin": {mysql.Open, mysql.LegacyNameLimit, legacyNames},
	"mysql-rds-database-plugin":    {mysql.Open, mysql.LegacyNameLimit, legacyNames},
	"mysql-legacy-database-plugin": {mysql.Open, mysql.LegacyNameLimit, legacyNames},
	"redis-database-plugin":        {redis.Open, redis.NameLimit, redisNames},
	"valkey-database-plugin":       {redis.Open, redis.NameLimit, redisNames},
}

// maxTemplates bounds the templates that are kept; beyond it all are forgotten.
const maxTemplates = 256

// templates keep what templates were read as.
type templates struct {
	mu   sync.Mutex                    // guards kept
	kept map[string]*username.Template // plug-in, a blank and text → template
}

// of is the template of a connection's names: its own, or that of its kind.
func (t *templates) of(c *connection) (*username.Template, error) {
	f := families[c.PluginName]
	text := c.Template
	if text == "" {
		text = f.template
	}
	key := c.PluginName + " " + text
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.kept[key]; known != nil {
		return known, nil
	}
	made, err := username.Parse(text, f.nameLimit)
	if err != nil {
		return nil, err
	}
	if len(t.kept) >= maxTemplates || t.kept == nil {
		t.kept = map[string]*username.Template{}
	}
	t.kept[key] = made
	return made, nil
}

func openDriver(s driver.Settings) (driver.Driver, error) {
	f, known := families[s.Plugin]
	if !known {
		return nil, conclave.Errorf(conclave.Invalid, "unknown plugin_name: there are %s", strings.Join(slices.Sorted(maps.Keys(families)), ", "))
	}
	return f.open(s)
}
