package integration

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"conclave/integration/lab"
	"conclave/internal/dbserver"
)

// startPostgres starts a real PostgreSQL, which ends with the test.
func startPostgres(t *testing.T) *dbserver.Server {
	t.Helper()
	s, err := dbserver.Postgres()
	switch {
	case dbserver.IsMissing(err) && os.Getenv("CI") != "true":
		t.Skip(err.Error())
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

const makeLogin = `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`

// mountDatabase has the cluster make logins in a database.
func mountDatabase(t *testing.T, ctx context.Context, client *api.Client, s *dbserver.Server) {
	t.Helper()
	if err := client.Sys().MountWithContext(ctx, "database", &api.MountInput{Type: "database"}); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, ctx, client, "database/config/pg", map[string]any{"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": s.User, "password": s.Password,
		"connection_url": "postgresql://{{username}}:{{password}}@" + s.Address + "/postgres", "tls_ca": s.CA})
	mustWrite(t, ctx, client, "database/roles/app", map[string]any{"db_name": "pg", "creation_statements": makeLogin, "default_ttl": "1h", "max_ttl": "24h"})
	mustWrite(t, ctx, client, "database/roles/brief", map[string]any{"db_name": "pg", "creation_statements": makeLogin, "default_ttl": "5s", "max_ttl": "5s"})
}

// login is what a client was given.
type login struct{ name, password, lease string }

func askLogin(ctx context.Context, client *api.Client, role string) (login, error) {
	secret, err := client.Logical().ReadWithContext(ctx, "database/creds/"+role)
	if err != nil {
		return login{}, err
	}
	name, _ := secret.Data["username"].(string)
	password, _ := secret.Data["password"].(string)
	return login{name, password, secret.LeaseID}, nil
}

func mustLogin(t *testing.T, ctx context.Context, s *dbserver.Server, client *api.Client, role string) login {
	t.Helper()
	l, err := askLogin(ctx, client, role)
	if err != nil {
		t.Fatalf("creds/%s: %v", role, err)
	}
	if err := works(ctx, s, l); err != nil {
		t.Fatalf("the login of creds/%s: %v", role, err)
	}
	return l
}

func works(ctx context.Context, s *dbserver.Server, l login) error {
	got, err := s.PostgresQuery(ctx, l.name, l.password, "SELECT current_user")
	if err == nil && !slices.Equal(got, []string{l.name}) {
		err = fmt.Errorf("logged in as %v", got)
	}
	return err
}

// roles are the logins of the database that the vault has made.
func roles(ctx context.Context, s *dbserver.Server) ([]string, error) {
	return s.PostgresQuery(ctx, s.User, s.Password, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1")
}

// wantRoles waits until the database has exactly these logins.
func wantRoles(t *testing.T, s *dbserver.Server, d time.Duration, want ...string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, d, func(ctx context.Context) error {
		got, err := roles(ctx, s)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("the database has the logins %v, want %v", got, want)
		}
		return err
	})
}

// TestLoginsOfADatabaseEndWithTheirLeases has logins of a real PostgreSQL end by revocation, by time, with their token, and
// while the node that issued them is dead.
func TestLoginsOfADatabaseEndWithTheirLeases(t *testing.T) {
	s := startPostgres(t)
	l := startLab(t, 3)
	ctx := within(t, 4*time.Minute)
	mountDatabase(t, ctx, sdk(t, l, 1), s)

	kept := mustLogin(t, ctx, s, sdk(t, l, 2), "app")
	revoked := mustLogin(t, ctx, s, sdk(t, l, 3), "app")
	if renewed, err := sdk(t, l, 1).Sys().RenewWithContext(ctx, kept.lease, 7200); err != nil || renewed.LeaseDuration != 7200 || !renewed.Renewable {
		t.Errorf("a renewal: %+v, %v", renewed, err)
	}
	if err := sdk(t, l, 1).Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: revoked.lease, Sync: true}); err != nil {
		t.Fatal(err)
	}
	if works(ctx, s, revoked) == nil {
		t.Error("a login works after its lease was revoked")
	}

	token, err := l.Client(1).Token(ctx, map[string]any{"policies": []string{"root"}, "ttl": "1h"})
	if err != nil {
		t.Fatal(err)
	}
	holder := sdk(t, l, 2)
	holder.SetToken(token)
	ofToken := mustLogin(t, ctx, s, holder, "app")
	brief := mustLogin(t, ctx, s, sdk(t, l, 3), "brief")
	wantRoles(t, s, time.Minute, kept.name, ofToken.name) // brief is over
	if works(ctx, s, brief) == nil {
		t.Error("a login works although its time is over")
	}
	if err := sdk(t, l, 3).Auth().Token().RevokeTreeWithContext(ctx, token); err != nil {
		t.Fatal(err)
	}
	wantRoles(t, s, time.Minute, kept.name)

	brief = mustLogin(t, ctx, s, sdk(t, l, 3), "brief")
	long := mustLogin(t, ctx, s, sdk(t, l, 3), "app")
	if err := l.Kill(3); err != nil {
		t.Fatal(err)
	}
	wantRoles(t, s, time.Minute, kept.name, long.name)
	if works(ctx, s, brief) == nil || works(ctx, s, long) != nil {
		t.Error("after its node has died, a login works that is over, or doesn't that isn't")
	}
	eventually(t, time.Minute, func(ctx context.Context) error {
		return sdk(t, l, 1).Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: long.lease, Sync: true})
	})
	wantRoles(t, s, time.Minute, kept.name)
}

// TestNoLoginIsLeftThatNoLeaseKnows kills the node that issues logins between what it has written down and what comes of it:
// while the database makes the login, and when it has made it.
func TestNoLoginIsLeftThatNoLeaseKnows(t *testing.T) {
	s := startPostgres(t)
	l := startLab(t, 3)
	ctx := within(t, 8*time.Minute)
	mountDatabase(t, ctx, sdk(t, l, 1), s)
	kept := mustLogin(t, ctx, s, sdk(t, l, 1), "app")
	for name, statements := range map[string]string{
		"while it is made":  makeLogin + "; SELECT pg_sleep(5)",
		"when it is there":  makeLogin + "; COMMIT; SELECT pg_sleep(5)", // and it is committed
		"before it is made": "SELECT pg_sleep(5); " + makeLogin,
	} {
		mustWrite(t, ctx, sdk(t, l, 1), "database/roles/slow", map[string]any{"db_name": "pg", "creation_statements": statements})
		killWhileIssuing(t, ctx, l, s, 3)
		if got, err := roles(ctx, s); err != nil || name == "when it is there" && len(got) < 2 {
			t.Errorf("%s: the logins are %v, %v: nothing is tested", name, got, err)
		}
		if err := l.Start(ctx, 3); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 4*time.Minute, func(ctx context.Context) error { // an intent lives for two minutes
		secret, err := sdk(t, l, 1).Logical().ReadWithContext(ctx, "sys/leases/count")
		if err != nil {
			return err
		}
		if got := fmt.Sprint(secret.Data["lease_count"]); got != "1" {
			return fmt.Errorf("%s leases are left", got)
		}
		return nil
	})
	wantRoles(t, s, time.Second, kept.name)
	if err := works(ctx, s, kept); err != nil {
		t.Errorf("a login that has its lease: %v", err)
	}
}

// killWhileIssuing asks node n for a slow login, and kills it when the database is at it.
func killWhileIssuing(t *testing.T, ctx context.Context, l *lab.Lab, s *dbserver.Server, n int) {
	t.Helper()
	client, asked := sdk(t, l, n), make(chan error, 1)
	client.SetMaxRetries(0)
	wantSleeping := func(count string) {
		eventually(t, 30*time.Second, func(ctx context.Context) error {
			got, err := s.PostgresQuery(ctx, s.User, s.Password, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'")
			if err == nil && !slices.Equal(got, []string{count}) {
				err = fmt.Errorf("the database is at %v logins, want %s", got, count)
			}
			return err
		})
	}
	wantSleeping("0") // it goes on with what it was sent although its client has died
	go func() {
		_, err := askLogin(ctx, client, "slow")
		asked <- err
	}()
	wantSleeping("1")
	if err := l.Kill(n); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err == nil {
		t.Error("a node that was killed has answered")
	}
}

// TestADatabaseThatIsDownHoldsUpNobodyElse has one database hang: logins of another are issued meanwhile, and what has to be
// ended waits in the queue until it is back.
func TestADatabaseThatIsDownHoldsUpNobodyElse(t *testing.T) {
	s, other := startPostgres(t), startPostgres(t)
	l := startLab(t, 1)
	ctx := within(t, 4*time.Minute)
	client := sdk(t, l, 1)
	client.SetMaxRetries(0)
	mountDatabase(t, ctx, client, s)
	mustWrite(t, ctx, client, "database/config/other", map[string]any{"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": other.User, "password": other.Password,
		"connection_url": "postgresql://{{username}}:{{password}}@" + other.Address + "/postgres", "tls_ca": other.CA})
	mustWrite(t, ctx, client, "database/roles/other", map[string]any{"db_name": "other", "creation_statements": makeLogin})
	over := mustLogin(t, ctx, s, client, "app")
	s.Stop()
	if err := client.Sys().RevokeWithContext(ctx, over.lease); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 20)
	for range cap(waits) {
		go func() {
			_, err := askLogin(ctx, client, "app")
			waits <- err
		}()
	}
	for range 5 {
		mustLogin(t, ctx, other, client, "other")
	}
	for range cap(waits) {
		if err := <-waits; err == nil || !strings.Contains(err.Error(), "database") {
			t.Errorf("a login of a database that is down: %v", err)
		}
	}
	if queue, err := client.Logical().ListWithContext(ctx, "sys/leases/queue"); err != nil || queue == nil {
		t.Errorf("what has to be ended isn't in the queue: %v", err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	wantRoles(t, s, 2*time.Minute)
}
