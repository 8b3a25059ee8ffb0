package main

import (
	"fmt"
	"strings"
	"testing"

	"conclave"
)

// everything starts a job and returns its report.
func (l *lodge) everything(t *testing.T, with conclave.Secret, fields map[string]any) map[string]any {
	t.Helper()
	resp, err := l.do(with, conclave.Update, "sys/revoke-everything", fields)
	if err != nil {
		t.Fatal(err)
	}
	job := "sys/revoke-everything/" + dataOf(t, resp)["id"].(string)
	waitFor(t, "the report", func() bool { return l.must(conclave.Read, job, nil)["done"] == true })
	return l.must(conclave.Read, job, nil)
}

// wantReport compares numbers of a report.
func wantReport(t *testing.T, what string, report map[string]any, tokens, leases, failed int, taken map[string]any) {
	t.Helper()
	back, _ := report["taken_back"].(map[string]any)
	if report["tokens"] != float64(tokens) || report["leases"] != float64(leases) || report["failed"] != float64(failed) || fmt.Sprint(back) != fmt.Sprint(taken) {
		t.Errorf("%s: %v; want %d tokens, %d leases, %d failures, and taken back %v", what, report, tokens, leases, failed, taken)
	}
}

func TestEverythingOfAMountIsRevoked(t *testing.T) {
	l := openLodge(t, true)
	for range 3 {
		l.creds(t, l.root, "rooms/creds/app", nil)
	}
	l.creds(t, l.root, "rooms/suites/app", nil)
	l.creds(t, l.root, "dead/creds/app", nil)
	for _, name := range []string{"a", "b", "stuck", "z"} {
		l.must(conclave.Update, "rooms/chores/"+name, map[string]any{"after": "1h"})
	}
	chores := map[string]any{"chore": 4.0}
	wantReport(t, "dry run", l.everything(t, l.root, map[string]any{"mount": "rooms/"}), 0, 4, 0, chores)
	if got := len(l.outside.Accounts()); got != 4 {
		t.Fatalf("after a dry run there are %d accounts, want 4", got)
	}
	dryPath := l.everything(t, l.root, map[string]any{"path": "rooms/creds"})
	wantReport(t, "dry run of a path", dryPath, 0, 3, 0, map[string]any{})

	report := l.everything(t, l.root, map[string]any{"mount": "rooms", "dry_run": false, "reason": "leaked"})
	wantReport(t, "run", report, 0, 4, 1, map[string]any{"chore": 3.0})
	if report["reason"] != "leaked" || !strings.Contains(fmt.Sprint(report["failures"]), "rooms/stuck") || !strings.Contains(fmt.Sprint(report["items"]), "rooms/a") {
		t.Errorf("reported as %v", report)
	}
	waitFor(t, "the accounts to be gone", func() bool { return len(l.outside.Accounts()) == 0 })
	if len(l.dead.Accounts()) != 1 {
		t.Error("another mount's account is gone")
	}
	l.startWork(t)
	waitFor(t, "the chores to be done", func() bool {
		return l.outside.Chores("a") == 1 && l.outside.Chores("b") == 1 && l.outside.Chores("z") == 1 && l.outside.Chores("stuck") == 0
	})
}

// All of a token's is over when the revocation is answered, whoever comes to clear it away.
func TestEverythingOfATokenIsRevokedAtOnce(t *testing.T) {
	l := openLodge(t, true)
	resp, err := l.do(l.root, conclave.Update, "auth/token/create", map[string]any{"policies": []any{"root"}})
	if err != nil {
		t.Fatal(err)
	}
	top, accessor := resp.Auth.ClientToken, resp.Auth.Accessor
	resp, err = l.do(top, conclave.Update, "auth/token/create", map[string]any{"policies": []any{"root"}})
	if err != nil {
		t.Fatal(err)
	}
	child := resp.Auth.ClientToken
	l.creds(t, top, "rooms/creds/app", nil)
	l.creds(t, child, "rooms/creds/app", nil)
	wantReport(t, "dry run", l.everything(t, l.root, map[string]any{"accessor": accessor}), 2, 2, 0, map[string]any{})
	if _, err := l.do(child, conclave.Read, "auth/token/lookup-self", nil); err != nil {
		t.Fatalf("after a dry run: %v", err)
	}
	// Whoever asks is spared.
	report := l.everything(t, top, map[string]any{"accessor": accessor, "dry_run": false})
	if report["tokens"] != 0.0 || !strings.Contains(fmt.Sprint(report["kept"]), accessor) {
		t.Errorf("who revokes himself: %v", report)
	}
	if _, err := l.do(l.root, conclave.Update, "sys/revoke-everything", map[string]any{"accessor": accessor, "dry_run": false}); err != nil {
		t.Fatal(err)
	}
	for _, token := range []conclave.Secret{top, child} {
		if _, err := l.do(token, conclave.Read, "auth/token/lookup-self", nil); !conclave.Is(err, conclave.Denied) {
			t.Errorf("after it was answered: %v", err)
		}
	}
	if err := l.inNamespace(t.Context(), conclave.Namespace{}, clearTokens); err != nil { // the child
		t.Fatal(err)
	}
	waitFor(t, "the accounts to be gone", func() bool { return len(l.outside.Accounts()) == 0 })
}

func TestEverythingOfAnEntityIsRevoked(t *testing.T) {
	l := openLodge(t, true)
	l.must(conclave.Update, "sys/auth/userpass", map[string]any{"type": "userpass"})
	l.must(conclave.Update, "sys/policies/acl/rooms", map[string]any{"policy": `path "rooms/*" { capabilities = ["read"] }`})
	var tokens []conclave.Secret
	entity := ""
	for _, user := range []string{"ann", "ann", "bob"} {
		l.must(conclave.Update, "auth/userpass/users/"+user, map[string]any{"password": "pw", "token_policies": "rooms"})
		resp, err := l.do(conclave.Secret{}, conclave.Update, "auth/userpass/login/"+user, map[string]any{"password": "pw"})
		if err != nil {
			t.Fatal(err)
		}
		if user == "ann" {
			entity = resp.Auth.EntityID
		}
		tokens = append(tokens, resp.Auth.ClientToken)
		l.creds(t, resp.Auth.ClientToken, "rooms/creds/app", nil)
	}
	wantReport(t, "dry run", l.everything(t, l.root, map[string]any{"entity": entity}), 2, 2, 0, map[string]any{})
	wantReport(t, "dry run of a login path", l.everything(t, l.root, map[string]any{"mount": "auth/userpass"}), 3, 3, 0, map[string]any{})
	if _, err := l.do(l.root, conclave.Update, "sys/revoke-everything", map[string]any{"entity": entity, "dry_run": false}); err != nil {
		t.Fatal(err)
	}
	for i, token := range tokens {
		if _, err := l.do(token, conclave.Read, "rooms/creds/app", nil); (i < 2) != conclave.Is(err, conclave.Denied) {
			t.Errorf("token %d after it was answered: %v", i, err)
		}
	}
	if _, err := l.do(conclave.Secret{}, conclave.Update, "auth/userpass/login/ann", map[string]any{"password": "pw"}); err == nil {
		t.Error("a disabled entity logs in")
	}
	waitFor(t, "the accounts of the entity to be gone", func() bool { return len(l.outside.Accounts()) == 2 }) // bob's
	wantReport(t, "run of a login path", l.everything(t, l.root, map[string]any{"path": "auth/userpass/login/bob", "dry_run": false}), 1, 2, 0, map[string]any{})
	waitFor(t, "all accounts to be gone", func() bool { return len(l.outside.Accounts()) == 0 })
}

func TestEverythingIsRefused(t *testing.T) {
	l := openLodge(t, false)
	for _, fields := range []map[string]any{nil, {"entity": "x", "path": "y"}, {"entity": "nobody"}, {"accessor": "nobody"}, {"mount": "nowhere"}, {"mount": "rooms/creds"}, {"path": "/"},
		{"path": "a//b"}, {"path": "rooms", "reason": strings.Repeat("x", 600)}} {
		l.refuses(t, conclave.Invalid, "", conclave.Update, "sys/revoke-everything", fields)
	}
	l.must(conclave.Update, "sys/policies/acl/almost", map[string]any{"policy": `path "sys/revoke-everything*" { capabilities = ["create", "read", "update", "delete", "list"] }`})
	almost := l.token(map[string]any{"policies": []any{"almost"}})
	for _, op := range []conclave.Operation{conclave.Update, conclave.List} {
		if _, err := l.do(almost, op, "sys/revoke-everything", map[string]any{"path": "rooms"}); !conclave.Is(err, conclave.Denied) {
			t.Errorf("%s without sudo: %v", op, err)
		}
	}
	for _, op := range []conclave.Operation{conclave.Read, conclave.Delete} {
		if _, err := l.do(almost, op, "sys/revoke-everything/x", nil); !conclave.Is(err, conclave.Denied) {
			t.Errorf("%s without sudo: %v", op, err)
		}
	}
}

// Jobs are kept in bounded number, and a stopped one leaves its leases to the reaper.
func TestJobsOfEverythingAreBounded(t *testing.T) {
	l := openLodge(t, false)
	lease := l.creds(t, l.root, "rooms/creds/app", nil)
	first := ""
	for i := range 32 {
		out := l.must(conclave.Update, "sys/revoke-everything", map[string]any{"path": "rooms", "dry_run": i > 0})
		if i == 0 {
			first = out["id"].(string)
		}
	}
	l.refuses(t, conclave.Limited, "run already", conclave.Update, "sys/revoke-everything", map[string]any{"path": "rooms"})
	l.refuses(t, conclave.Invalid, "lease not found", conclave.Update, "sys/leases/renew", id(lease)) // nobody has come
	l.must(conclave.Delete, "sys/revoke-everything/"+first, nil)
	l.refuses(t, conclave.NotFound, "", conclave.Read, "sys/revoke-everything/"+first, nil)
	l.refuses(t, conclave.Invalid, "lease not found", conclave.Update, "sys/leases/renew", id(lease))
	l.must(conclave.Update, "sys/revoke-everything", map[string]any{"path": "rooms"})
}
