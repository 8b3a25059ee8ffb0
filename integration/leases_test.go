package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"conclave/integration/lab"
)

// leases asks a node to look up a lease, and wants it to run or not.
func wantLease(t *testing.T, l *lab.Lab, n int, id string, runs bool) *api.Secret {
	t.Helper()
	var found *api.Secret
	eventually(t, time.Minute, func(ctx context.Context) error {
		secret, err := sdk(t, l, n).Sys().LookupWithContext(ctx, id)
		gone := err != nil && strings.Contains(err.Error(), "invalid lease")
		if err != nil && !gone || gone == runs {
			return fmt.Errorf("node %d says of a lease: %+v, %v", n, secret, err)
		}
		found = secret
		return nil
	})
	return found
}

// TestLeasesOutliveTheirLeader kills the leader right after leases were renewed and revoked, and when others fall due.
func TestLeasesOutliveTheirLeader(t *testing.T) {
	s := startPostgres(t)
	l := startLab(t, 3)
	ctx := within(t, 5*time.Minute)
	mountDatabase(t, ctx, sdk(t, l, 1), s)
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	other := leader%3 + 1
	kept, queued := mustLogin(t, ctx, s, sdk(t, l, other), "app"), mustLogin(t, ctx, s, sdk(t, l, leader), "app")
	brief := mustLogin(t, ctx, s, sdk(t, l, other), "brief")
	if _, err := sdk(t, l, leader).Sys().RenewWithContext(ctx, kept.lease, 7200); err != nil {
		t.Fatal(err)
	}
	if err := sdk(t, l, leader).Sys().RevokeWithContext(ctx, queued.lease); err != nil { // over; its engine is asked later
		t.Fatal(err)
	}
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	if ttl, err := wantLease(t, l, other, kept.lease, true).Data["ttl"].(json.Number).Int64(); err != nil || ttl <= 3600 {
		t.Errorf("a renewal that was acknowledged is lost: %d s are left, %v", ttl, err)
	}
	wantLease(t, l, other, queued.lease, false)
	wantRoles(t, s, time.Minute, kept.name)
	wantLease(t, l, other, brief.lease, false)
	if _, err := sdk(t, l, other).Sys().RenewWithContext(ctx, brief.lease, 60); err == nil {
		t.Error("a lease was renewed after its time")
	}
	if err := l.Start(ctx, leader); err != nil {
		t.Fatal(err)
	}
	wantLease(t, l, leader, kept.lease, true)
	wantLease(t, l, leader, queued.lease, false)
	if err := sdk(t, l, leader).Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: "database/creds", Prefix: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	wantRoles(t, s, 20*time.Second)
}

// TestLeaseCommands works off by hand what a database refuses to end.
func TestLeaseCommands(t *testing.T) {
	s := startPostgres(t)
	l := startLab(t, 1)
	ctx := within(t, 4*time.Minute)
	client := sdk(t, l, 1)
	mountDatabase(t, ctx, client, s)
	retried, given := mustLogin(t, ctx, s, client, "app"), mustLogin(t, ctx, s, client, "app")
	run := func(ok bool, args ...string) string {
		t.Helper()
		out, err := cli(ctx, l, 1, append([]string{"lease"}, args...)...)
		if (err == nil) != ok {
			t.Fatalf("lease %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	contains := func(out string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%q isn't in\n%s", text, out)
			}
		}
	}
	contains(run(true, "list", "database/creds"), "app/")
	contains(run(true, "renew", "-increment=2h", retried.lease), "2h0m0s")
	contains(run(true, "count"), "all", "2")
	const broken = `SELECT no_such_function('{{name}}')`
	mustWrite(t, ctx, client, "database/roles/app", map[string]any{"db_name": "pg", "creation_statements": makeLogin, "revocation_statements": broken})
	key := func(lease string) string { return lease[strings.LastIndexByte(lease, '/')+1:] }
	for _, of := range []login{retried, given} {
		run(false, "revoke", "-sync", of.lease)
	}
	contains(run(true, "queue", "list"), retried.lease, given.lease, "attempts")
	var table map[string]map[string]any
	if err := json.Unmarshal([]byte(run(true, "queue", "list", "-format=json")), &table); err != nil || table[key(given.lease)]["why"] != "revoked" {
		t.Errorf("the queue is %v, %v", table, err)
	}
	contains(run(true, "queue", "read", key(given.lease)), "revoked", given.lease)
	run(false, "queue", "abandon", key(given.lease))
	run(true, "queue", "abandon", "-reason=it moved", key(given.lease))
	contains(run(true, "irrevocable", "list"), given.lease, "it moved")
	contains(run(true, "irrevocable", "list", "-format=json"), `"lease_count": 1`)
	contains(run(true, "count", "-type=irrevocable"), "database/")
	mustWrite(t, ctx, client, "database/roles/app", map[string]any{"db_name": "pg", "creation_statements": makeLogin, "revocation_statements": ""})
	run(true, "queue", "retry", key(retried.lease))
	wantRoles(t, s, time.Minute, given.name)
	run(true, "queue", "retry", key(given.lease))
	wantRoles(t, s, time.Minute)
	contains(run(true, "tidy"), "nothing to tidy")
}
