package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"conclave/integration/lab"
)

// sdk is the public SDK's client of node n, as an application would make it.
func sdk(t *testing.T, l *lab.Lab, n int) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	if config.Error != nil {
		t.Fatal(config.Error)
	}
	config.Address = l.Addrs[n-1]
	if err := config.ConfigureTLS(&api.TLSConfig{CACert: l.CA}); err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(l.RootToken)
	return client
}

func wantSecret(ctx context.Context, client *api.Client, path, member, want string) error {
	secret, err := client.KVv2("job").Get(ctx, path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if got := secret.Data[member]; got != want {
		return fmt.Errorf("%s has %s = %v, want %q", path, member, got, want)
	}
	return nil
}

// TestMainJob is what Conclave is for, from end to end: a secret put in through one node is read from another, and
// again when the leader is dead, and the audit log of all that is whole and the same everywhere.
func TestMainJob(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	clients := []*api.Client{sdk(t, l, 1), sdk(t, l, 2), sdk(t, l, 3)}
	err := clients[0].Sys().MountWithContext(ctx, "job", &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clients[0].KVv2("job").Put(ctx, "db/prod", map[string]any{"password": "correct horse"}); err != nil {
		t.Fatalf("put through node 1: %v", err)
	}
	if err := wantSecret(ctx, clients[1], "db/prod", "password", "correct horse"); err != nil {
		t.Fatalf("node 2: %v", err)
	}
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		if n == leader {
			continue
		}
		eventually(t, 20*time.Second, func(ctx context.Context) error {
			return wantSecret(ctx, clients[n-1], "db/prod", "password", "correct horse")
		})
	}
	survivor := leader%3 + 1
	if _, err := clients[survivor-1].KVv2("job").Put(ctx, "db/prod", map[string]any{"password": "battery staple"}); err != nil {
		t.Fatalf("put while node %d is dead: %v", leader, err)
	}
	if err := l.StartByCommand(ctx, leader); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	if err := wantSecret(ctx, clients[leader-1], "db/prod", "password", "battery staple"); err != nil {
		t.Fatalf("node %d after its return: %v", leader, err)
	}
	wantHeadsAgree(t, l)
	wantVerified(t, l)
}
