package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"conclave/integration/lab"
	"conclave/internal/dbserver"
)

const databasePath = "bench-database"

// askCreds asks for a login of a database.
func (t *target) askCreds(dst []byte, _ *rand.Rand) []byte {
	return appendRequest(dst, "GET", databasePath+"/creds/bench", t.token, nil)
}

// connect starts PostgreSQL and has the cluster make logins there, if that is measured. Its CPU time isn't the cluster's.
func (t *target) connect(ctx context.Context, root *lab.Client, o options) error {
	if !slices.Contains(o.workloads, "creds") {
		return nil
	}
	var err error
	if t.database, err = dbserver.Postgres(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	answer, err := root.Do(ctx, "POST", "sys/mounts/"+databasePath, map[string]string{"type": "database"})
	if err == nil {
		err = answer.Want(200, 204, 400) // 400: it is there from an earlier run
	}
	if err != nil {
		return fmt.Errorf("mount database: %w", err)
	}
	config := map[string]any{"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": t.database.User, "password": t.database.Password, "max_open_connections": 8,
		"connection_url": "postgresql://{{username}}:{{password}}@" + t.database.Address + "/postgres?sslmode=require"}
	if err := root.Write(ctx, databasePath+"/config/bench", config, nil); err != nil {
		return err
	}
	return root.Write(ctx, databasePath+"/roles/bench", map[string]any{"db_name": "bench", "default_ttl": "1h", "max_ttl": "24h", "creation_statements": []string{
		`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`, `GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"`}}, nil)
}

// close ends what was started for the measurement.
func (t *target) close() {
	if t.database != nil {
		t.database.Close()
	}
}
