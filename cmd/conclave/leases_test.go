package main

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/access"
	"conclave/engine/enginetest"
	"conclave/mount"
	"conclave/pipeline"
	"conclave/policy"
	"conclave/revoke"
	"conclave/store"
)

// lodge is a vault with an engine at rooms/ that makes accounts outside, and at dead/ one whose outside never answers.
type lodge struct {
	*vault
	outside, dead *enginetest.Outside
}

// openLodge starts the vault and, if reaping, what ends leases.
func openLodge(t *testing.T, reaping bool) *lodge {
	t.Helper()
	l := &lodge{openVault(t), enginetest.NewOutside(), enginetest.NewOutside()}
	l.reaper = revoke.New(revoke.Config{Store: l.store, Engines: engines{l.daemon}, Logger: hclog.NewNullLogger(), Pause: 5 * time.Millisecond})
	policies := policy.NewCache()
	config := l.requests(policies, access.New(policies, auditRecords{l.daemon}, mountRoles{l.daemon}))
	config.Plugins = append(config.Plugins, l.outside.Plugin("lodging"), l.dead.Plugin("ruin"))
	l.pipeline = pipeline.New(config)
	l.mount(t, "", "rooms/", "lodging")
	l.mount(t, "", "dead/", "ruin")
	if !reaping {
		return l
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.reaper.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the reaper: %v", err)
		}
	})
	return l
}

func (l *lodge) mount(t *testing.T, namespace, path, kind string) {
	t.Helper()
	err := l.inNamespace(t.Context(), conclave.Namespace{Path: namespace}, func(_ *store.Tx, system conclave.System) error {
		return mount.Add(system, path, kind, nil, "", rand.Reader)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// creds gets an account and returns its lease.
func (l *lodge) creds(t *testing.T, with conclave.Secret, path string, fields map[string]any) *conclave.Lease {
	t.Helper()
	resp, err := l.do(with, conclave.Read, path, fields)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Lease == nil || !strings.HasPrefix(resp.Lease.ID, path+"/") || resp.Lease.Data != nil {
		t.Fatalf("%s answers with lease %+v", path, resp.Lease)
	}
	return resp.Lease
}

func (l *lodge) refuses(t *testing.T, kind conclave.Kind, text string, op conclave.Operation, path string, fields map[string]any) {
	t.Helper()
	if _, err := l.do(l.root, op, path, fields); !conclave.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s %s: %v, want %v with %q", op, path, err, kind, text)
	}
}

func id(lease *conclave.Lease) map[string]any { return map[string]any{"lease_id": lease.ID} }

func TestLeasesLastUntilRevoked(t *testing.T) {
	l := openLodge(t, true)
	lease := l.creds(t, l.root, "rooms/creds/app", map[string]any{"ttl": "1h", "max_ttl": "2h"})
	if lease.TTL != time.Hour || !lease.Renewable {
		t.Errorf("granted %v, renewable %v", lease.TTL, lease.Renewable)
	}
	if out := l.must(conclave.Update, "sys/leases/lookup", id(lease)); out["id"] != lease.ID || out["last_renewal"] != nil || out["renewable"] != true {
		t.Errorf("looked up as %v", out)
	}
	if out := l.must(conclave.List, "sys/leases/lookup/rooms/creds/", nil); len(out["keys"].([]any)) != 1 {
		t.Errorf("listed as %v", out)
	}
	resp, err := l.do(l.root, conclave.Update, "sys/leases/renew", map[string]any{"lease_id": lease.ID, "increment": "3h"})
	if err != nil || resp.Lease == nil || resp.Lease.ID != lease.ID || resp.Lease.TTL <= time.Hour || resp.Lease.TTL > 3*time.Hour {
		t.Fatalf("renewed as %+v, %v", resp, err)
	}
	for _, bogus := range []string{"rooms/creds/app/nothing", "a//b", strings.Repeat("a/", 70) + "b", lease.ID + ".other"} {
		l.refuses(t, conclave.Invalid, "lease not found", conclave.Update, "sys/leases/renew", map[string]any{"lease_id": bogus})
		l.refuses(t, conclave.Invalid, "invalid lease", conclave.Update, "sys/leases/lookup", map[string]any{"lease_id": bogus})
		l.must(conclave.Update, "sys/leases/revoke", map[string]any{"lease_id": bogus, "sync": true})
	}
	l.refuses(t, conclave.Invalid, "sys/leases/revoke-prefix/rooms/", conclave.Delete, "sys/mounts/rooms", nil)
	l.must(conclave.Update, "sys/leases/revoke", id(lease))
	l.refuses(t, conclave.Invalid, "lease not found", conclave.Update, "sys/leases/renew", id(lease))
	waitFor(t, "the account to be gone", func() bool { return len(l.outside.Accounts()) == 0 })
	waitFor(t, "the mount to have no lease", func() bool {
		_, err := l.do(l.root, conclave.Delete, "sys/mounts/rooms", nil)
		return err == nil
	})
}

func TestLeasesEndWithTheirTokens(t *testing.T) {
	l := openLodge(t, true)
	parent := l.token(map[string]any{"policies": []any{"root"}})
	resp, err := l.do(parent, conclave.Update, "auth/token/create", map[string]any{"policies": []any{"root"}})
	if err != nil {
		t.Fatal(err)
	}
	child := resp.Auth.ClientToken
	kept := l.creds(t, l.root, "rooms/creds/app", nil)
	var leases []*conclave.Lease
	for range 5 {
		leases = append(leases, l.creds(t, parent, "rooms/creds/app", nil), l.creds(t, child, "rooms/creds/app", nil))
	}
	if _, err := l.do(parent, conclave.Update, "auth/token/revoke-self", nil); err != nil {
		t.Fatal(err)
	}
	for _, lease := range leases { // at once, whether or not somebody has come to clear away
		l.refuses(t, conclave.Invalid, "lease not found", conclave.Update, "sys/leases/renew", id(lease))
	}
	if err := l.inNamespace(t.Context(), conclave.Namespace{}, clearTokens); err != nil { // the child
		t.Fatal(err)
	}
	waitFor(t, "the accounts to be gone", func() bool { return len(l.outside.Accounts()) == 1 })
	l.must(conclave.Update, "sys/leases/lookup", id(kept))
}

func TestPrefixIsOverAtOnce(t *testing.T) {
	l := openLodge(t, false)
	var leases []*conclave.Lease
	for range 3 {
		leases = append(leases, l.creds(t, l.root, "rooms/creds/app", nil))
	}
	other := l.creds(t, l.root, "rooms/creds/apple", nil)
	l.must(conclave.Update, "sys/leases/revoke-prefix/rooms/creds/app", nil)
	for _, lease := range leases { // nobody reaps
		l.refuses(t, conclave.Invalid, "lease not found", conclave.Update, "sys/leases/renew", id(lease))
	}
	later := l.creds(t, l.root, "rooms/creds/app", nil)
	l.must(conclave.Update, "sys/leases/renew", id(other))
	l.must(conclave.Update, "sys/leases/renew", id(later))
	if got := len(l.outside.Accounts()); got != 5 {
		t.Fatalf("%d accounts, want 5", got)
	}
	l.must(conclave.Update, "sys/leases/revoke-prefix/rooms", map[string]any{"sync": true})
	if got := l.outside.Accounts(); len(got) != 0 {
		t.Errorf("after a revocation that was waited for, accounts %v are there", got)
	}
}

func TestFailedRevocationsStayInTheQueue(t *testing.T) {
	l := openLodge(t, true)
	l.outside.Fail(conclave.Errorf(conclave.Unavailable, "the inn is closed"))
	lease := l.creds(t, l.root, "rooms/creds/app", nil)
	key := lease.ID[strings.LastIndexByte(lease.ID, '/')+1:]
	l.refuses(t, conclave.Invalid, "the inn is closed", conclave.Update, "sys/leases/revoke", map[string]any{"lease_id": lease.ID, "sync": true})
	out := l.must(conclave.Read, "sys/leases/queue/"+key, nil)
	if out["error"] != "the inn is closed" || out["attempts"] != 1.0 || out["next_attempt"] == "" {
		t.Errorf("queued as %v", out)
	}
	l.refuses(t, conclave.Invalid, "reason", conclave.Update, "sys/leases/queue/"+key+"/abandon", nil)
	l.must(conclave.Update, "sys/leases/queue/"+key+"/abandon", map[string]any{"reason": "it burned down"})
	if out := l.must(conclave.Read, "sys/leases/count", map[string]any{"type": "irrevocable"}); out["lease_count"] != 1.0 {
		t.Errorf("abandoned: %v", out)
	}
	l.outside.Fail(nil)
	l.must(conclave.Update, "sys/leases/queue/"+key+"/retry", nil)
	waitFor(t, "the account to be gone", func() bool { return len(l.outside.Accounts()) == 0 })
	waitFor(t, "the queue to be empty", func() bool {
		_, err := l.do(l.root, conclave.Read, "sys/leases/queue/"+key, nil)
		return conclave.Is(err, conclave.NotFound)
	})
}

func TestForceAbandonsWhatCantBeEnded(t *testing.T) {
	l := openLodge(t, true)
	l.outside.Fail(conclave.Errorf(conclave.Unavailable, "the inn is closed"))
	l.creds(t, l.root, "rooms/creds/app", nil)
	if out := l.must(conclave.Update, "sys/leases/revoke-force/rooms", map[string]any{"reason": "moved"}); out["lease_count"] != 1.0 || out["ended"] != 0.0 {
		t.Errorf("answered %v", out)
	}
	if out := l.must(conclave.Read, "sys/leases", map[string]any{"type": "irrevocable"}); out["lease_count"] != 1.0 {
		t.Errorf("abandoned when it was answered: %v", out)
	}
	if _, err := l.do(l.root, conclave.Delete, "sys/mounts/rooms", nil); err != nil {
		t.Errorf("the mount can't go: %v", err)
	}
}

func TestDeadMountHoldsUpNobody(t *testing.T) {
	l := openLodge(t, true)
	l.dead.Hang(true)
	for range 2 * 32 {
		l.creds(t, l.root, "dead/creds/app", nil)
	}
	l.creds(t, l.root, "rooms/creds/app", nil)
	l.must(conclave.Update, "sys/leases/revoke-prefix/dead", nil)
	waitFor(t, "the dead mount to be tried", func() bool { return l.dead.Attempts() > 0 })
	l.must(conclave.Update, "sys/leases/revoke-prefix/rooms", nil)
	waitFor(t, "the other mount's account to be gone", func() bool { return len(l.outside.Accounts()) == 0 })
	if got := l.dead.Attempts(); got > 8 {
		t.Errorf("a mount that doesn't answer was tried %d times meanwhile", got)
	}
}

func TestLeasesAreTheirNamespaces(t *testing.T) {
	l := openLodge(t, true)
	l.must(conclave.Update, "sys/namespaces/team", nil)
	l.mount(t, "team/", "rooms/", "lodging")
	in := func(op conclave.Operation, path string, with conclave.Secret, fields map[string]any) (*conclave.Response, error) {
		return l.pipeline.Handle(t.Context(), &conclave.Request{ID: "r", Operation: op, Namespace: "team/", Path: path, Token: with, Fields: fields})
	}
	above := l.token(map[string]any{"policies": []any{"root"}})
	resp, err := in(conclave.Read, "rooms/creds/app", above, nil)
	if err != nil || resp.Lease == nil {
		t.Fatalf("%+v, %v", resp, err)
	}
	l.refuses(t, conclave.Invalid, "lease not found", conclave.Update, "sys/leases/renew", id(resp.Lease))
	l.must(conclave.Update, "sys/leases/revoke", map[string]any{"lease_id": resp.Lease.ID, "sync": true})
	l.must(conclave.Update, "sys/leases/revoke-prefix/rooms", map[string]any{"sync": true})
	if _, err := in(conclave.Update, "sys/leases/renew", above, id(resp.Lease)); err != nil {
		t.Errorf("in its own namespace: %v", err)
	}
	l.refuses(t, conclave.Invalid, "outstanding leases", conclave.Delete, "sys/namespaces/team", nil)
	if _, err := l.do(above, conclave.Update, "auth/token/revoke-self", nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the lease of a token from above to end", func() bool { return len(l.outside.Accounts()) == 0 })
	waitFor(t, "the namespace to be empty", func() bool {
		_, err := l.do(l.root, conclave.Delete, "sys/namespaces/team", nil)
		return err == nil
	})
}

func TestLeaseOfARefusedRequestIsNone(t *testing.T) {
	l := openLodge(t, false)
	l.creds(t, l.root, "rooms/creds/app", nil)
	if _, err := l.do(conclave.NewSecret("hvs.none"), conclave.Read, "rooms/creds/app", nil); !conclave.Is(err, conclave.Denied) {
		t.Errorf("a token that is none: %v", err)
	}
	if out := l.must(conclave.Read, "sys/leases/count", nil); out["lease_count"] != 1.0 {
		t.Errorf("counted %v, want 1", out)
	}
}

func TestLeaseThatCantBeForgottenHoldsUpNoOther(t *testing.T) {
	l := openLodge(t, false)
	first := l.creds(t, l.root, "rooms/creds/app", nil)
	l.creds(t, l.root, "rooms/creds/app", nil)
	l.outside.Cling(l.outside.Accounts()[0])
	l.refuses(t, conclave.Invalid, "can't be forgotten", conclave.Update, "sys/leases/revoke-prefix/rooms", map[string]any{"sync": true})
	out := l.must(conclave.List, "sys/leases/queue", nil)
	if keys, _ := out["keys"].([]any); len(keys) != 1 || !strings.HasSuffix(first.ID, keys[0].(string)) {
		t.Errorf("queued: %v, want %s alone", out, first.ID)
	}
}
