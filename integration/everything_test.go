package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// TestEverythingIsRevokedThoughTheLeaderDies has all that a database mount has given out revoked, and kills the leader right
// after that was acknowledged.
func TestEverythingIsRevokedThoughTheLeaderDies(t *testing.T) {
	s := startPostgres(t)
	l := startLab(t, 3)
	ctx := within(t, 5*time.Minute)
	mountDatabase(t, ctx, sdk(t, l, 1), s)
	if _, err := s.PostgresQuery(ctx, s.User, s.Password, `CREATE ROLE "app-static" WITH LOGIN PASSWORD 'first'`); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, ctx, sdk(t, l, 1), "database/static-roles/fixed", map[string]any{"db_name": "pg", "username": "app-static", "rotation_period": "24h"})
	secret, err := sdk(t, l, 2).Logical().ReadWithContext(ctx, "database/static-creds/fixed")
	if err != nil {
		t.Fatal(err)
	}
	leaked := login{name: "app-static", password: secret.Data["password"].(string)}
	if err := works(ctx, s, leaked); err != nil {
		t.Fatal(err)
	}
	var names []string
	var one login
	for n := range 6 {
		one = mustLogin(t, ctx, s, sdk(t, l, n%3+1), "app")
		names = append(names, one.name)
	}
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	other := leader%3 + 1
	out, err := cli(ctx, l, other, "revoke-everything", "-mount=database")
	if err != nil {
		t.Fatalf("a dry run: %v\n%s", err, out)
	}
	wantRoles(t, s, 20*time.Second, names...) // nothing was changed

	started := mustWrite(t, ctx, sdk(t, l, other), "sys/revoke-everything", map[string]any{"mount": "database", "dry_run": false})
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	wantLease(t, l, other, one.lease, false)
	var report map[string]any
	eventually(t, time.Minute, func(ctx context.Context) error {
		secret, err := sdk(t, l, other).Logical().ReadWithContext(ctx, "sys/revoke-everything/"+started["id"].(string))
		if err != nil || secret == nil || secret.Data["done"] != true {
			return fmt.Errorf("the report is %+v, %v", secret, err)
		}
		report = secret.Data
		return nil
	})
	taken, _ := report["taken_back"].(map[string]any)
	if report["leases"] != json.Number("6") || taken["static role"] != json.Number("1") || report["failed"] != json.Number("0") {
		t.Errorf("reported as %v", report)
	}
	wantRoles(t, s, time.Minute)
	eventually(t, time.Minute, func(ctx context.Context) error {
		if works(ctx, s, leaked) == nil {
			return fmt.Errorf("the static password that leaked works still")
		}
		secret, err := sdk(t, l, other).Logical().ReadWithContext(ctx, "database/static-creds/fixed")
		if err != nil {
			return err
		}
		return works(ctx, s, login{name: "app-static", password: secret.Data["password"].(string)})
	})
	if out, err := cli(ctx, l, other, "revoke-everything", "-mount=database", "-yes", "-format=json"); err != nil {
		t.Errorf("once more: %v\n%s", err, out)
	}
}
