package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"conclave/internal/dbserver"
)

// TestPasswordsOfADatabaseRotateByThemselves has a static login's password rotate every five seconds: what any node answers works,
// also after the leader has died, and when the database has been away.
func TestPasswordsOfADatabaseRotateByThemselves(t *testing.T) {
	s := startPostgres(t)
	l := startLab(t, 3)
	ctx := within(t, 4*time.Minute)
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	node := leader%3 + 1
	client := sdk(t, l, node)
	mountDatabase(t, ctx, client, s)
	if _, err := s.PostgresQuery(ctx, s.User, s.Password, "CREATE ROLE app LOGIN PASSWORD 'old'"); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, ctx, client, "database/static-roles/fixed", map[string]any{"db_name": "pg", "username": "app", "rotation_period": "5s"})
	before := wantAnother(t, client, s, "")
	before = wantAnother(t, client, s, before)
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	before = wantAnother(t, client, s, before)
	s.Stop()
	if _, err := client.Logical().WriteWithContext(ctx, "database/rotate-role/fixed", nil); err == nil {
		t.Error("a database that is down has taken a password")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	wantAnother(t, client, s, before)
}

// wantAnother waits until the static login has another password than before, and that one works.
func wantAnother(t *testing.T, client *api.Client, s *dbserver.Server, before string) (password string) {
	t.Helper()
	eventually(t, 2*time.Minute, func(ctx context.Context) error {
		secret, err := client.Logical().ReadWithContext(ctx, "database/static-creds/fixed")
		if err != nil {
			return err
		}
		password, _ = secret.Data["password"].(string)
		if password == before {
			return errors.New("the password isn't changed")
		}
		if got, err := s.PostgresQuery(ctx, "app", password, "SELECT current_user"); err != nil || len(got) != 1 {
			return fmt.Errorf("the password that is answered doesn't work: %w", err)
		}
		return nil
	})
	return password
}
