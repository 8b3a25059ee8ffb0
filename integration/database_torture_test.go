//go:build torture

package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"conclave/internal/dbserver"
)

// holders are clients that get logins and end some.
type holders struct {
	database *dbserver.Server

	mu     sync.Mutex // guards all below
	held   map[string]login
	issued int
	wrong  []error
}

// use gets logins through a node until ctx ends, and ends every second.
func (h *holders) use(ctx context.Context, client *api.Client, random *rand.Rand) {
	for ctx.Err() == nil {
		got, err := askLogin(ctx, client, "app")
		if err != nil {
			breathe(ctx)
			continue
		}
		err = works(ctx, h.database, got)
		h.mu.Lock()
		if err != nil && ctx.Err() == nil {
			h.wrong = append(h.wrong, fmt.Errorf("a login that was answered doesn't work: %w", err))
		}
		h.issued++
		h.held[got.lease] = got
		h.mu.Unlock()
		if random.IntN(2) == 0 && client.Sys().RevokeWithContext(ctx, got.lease) == nil {
			h.mu.Lock()
			delete(h.held, got.lease)
			h.mu.Unlock()
		}
	}
}

// TestTortureLogins has clients of all nodes get logins, and end some, while nodes are killed. Afterwards the database has the
// logins of the leases that there are, and no other; all end with a prefix.
func TestTortureLogins(t *testing.T) {
	const clients, length = 12, 90 * time.Second
	s := startPostgres(t)
	l := startLab(t, 3)
	ctx := within(t, 10*time.Minute)
	mountDatabase(t, ctx, sdk(t, l, 1), s)
	busy, stop := context.WithTimeout(ctx, length)
	defer stop()
	h := &holders{database: s, held: map[string]login{}}
	var group errgroup.Group
	for n := range clients {
		client := sdk(t, l, n%3+1)
		client.SetMaxRetries(0)
		group.Go(func() error { h.use(busy, client, rand.New(rand.NewPCG(uint64(n), 7))); return nil })
	}
	random := rand.New(rand.NewPCG(1, 2))
	kills := 0
	for ; busy.Err() == nil; kills++ {
		n := 1 + random.IntN(3)
		if err := l.Kill(n); err != nil {
			t.Fatal(err)
		}
		breathe(busy)
		if err := l.Start(ctx, n); err != nil {
			t.Fatal(err)
		}
		if err := l.WaitServing(ctx); err != nil {
			t.Fatal(err)
		}
	}
	_ = group.Wait() // they return nil
	t.Logf("%d nodes were killed, %d logins were issued, %d are held", kills, h.issued, len(h.held))
	if h.issued == 0 || len(h.wrong) > 0 {
		t.Fatalf("%d logins were issued; %v", h.issued, h.wrong)
	}
	client := sdk(t, l, 1)
	eventually(t, 4*time.Minute, func(ctx context.Context) error { // intents live for two minutes
		leases, err := leasesOf(ctx, client)
		if err != nil {
			return err
		}
		logins, err := roles(ctx, s)
		if err == nil && len(logins) != leases {
			err = fmt.Errorf("there are %d leases and %d logins", leases, len(logins))
		}
		return err
	})
	for _, one := range h.held {
		if err := works(ctx, s, one); err != nil {
			if _, err := client.Sys().LookupWithContext(ctx, one.lease); err == nil {
				t.Errorf("the login %s has a lease and doesn't work", one.name)
			}
		}
	}
	if err := client.Sys().RevokePrefixWithContext(ctx, "database/creds"); err != nil {
		t.Fatal(err)
	}
	wantRoles(t, s, 3*time.Minute)
}

// leasesOf is how many leases there are.
func leasesOf(ctx context.Context, client *api.Client) (int, error) {
	secret, err := client.Logical().ReadWithContext(ctx, "sys/leases/count")
	if err != nil {
		return 0, err
	}
	var n int
	_, err = fmt.Sscan(fmt.Sprint(secret.Data["lease_count"]), &n)
	return n, err
}
