package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave"
)

// holders asks for all pages of a kind and returns "id capabilities" of each.
func (v *vault) holders(kind, path, capability string, limit int) []string {
	v.t.Helper()
	var all []string
	for after := ""; ; {
		got := v.must(conclave.Update, "sys/access/list", map[string]any{"kind": kind, "path": path, "capability": capability, "after": after, "limit": fmt.Sprint(limit)})
		results, _ := got["results"].([]any)
		for _, result := range results {
			h, _ := result.(map[string]any)
			all = append(all, strings.Join(append([]string{h["id"].(string)}, texts(h["capabilities"])...), " "))
		}
		if after, _ = got["next"].(string); after == "" {
			return all
		}
	}
}

func TestWhoHasAccess(t *testing.T) {
	v := openVault(t)
	for name, text := range map[string]string{
		"reads":  `path "secret/data/app/*" { capabilities = ["read"] }`,
		"writes": `path "secret/data/+/db" { capabilities = ["update", "create"] }` + "\n" + `path "secret/data/app/db" { capabilities = ["update"] }`,
		"closed": `path "secret/data/app/db" { capabilities = ["deny"] }`,
		"other":  `path "kv/*" { capabilities = ["read"] }`,
		"own":    `path "secret/data/app/{{identity.entity.metadata.db}}" { capabilities = ["list", "delete"] }`,
	} {
		v.must(conclave.Update, "sys/policies/acl/"+name, map[string]any{"policy": text})
	}
	v.must(conclave.Update, "sys/auth/people", map[string]any{"type": "userpass"})
	v.must(conclave.Update, "sys/auth/machines", map[string]any{"type": "approle"})
	v.must(conclave.Update, "auth/people/users/ann", map[string]any{"password": "opens", "token_policies": "reads"})
	v.must(conclave.Update, "auth/people/users/bob", map[string]any{"password": "opens", "token_policies": "other"})
	v.must(conclave.Update, "auth/machines/role/ci", map[string]any{"token_policies": "writes"})
	v.must(conclave.Update, "auth/machines/role/shut", map[string]any{"token_policies": "writes,closed"})
	resp, err := v.do(conclave.Secret{}, conclave.Update, "auth/people/login/bob", map[string]any{"password": "opens"})
	if err != nil {
		t.Fatal(err)
	}
	bob, entity := resp.Auth.Accessor, resp.Auth.EntityID
	v.must(conclave.Update, "identity/entity/id/"+entity, map[string]any{"policies": []any{"own"}, "metadata": map[string]any{"db": "db"}})
	made, err := v.do(v.root, conclave.Update, "auth/token/create", map[string]any{"policies": []any{"writes"}})
	if err != nil {
		t.Fatal(err)
	}
	rootAccessor, _ := v.must(conclave.Read, "auth/token/lookup-self", nil)["accessor"].(string)

	const path = "secret/data/app/db"
	tokens := []string{bob + " delete list", made.Auth.Accessor + " update", rootAccessor + " root"}
	slices.Sort(tokens)
	for _, row := range []struct {
		kind, capability string
		want             []string
	}{
		{"policies", "", []string{"reads read", "root root", "writes update"}},
		{"policies", "update", []string{"root root", "writes update"}},
		{"entities", "", []string{entity + " delete list"}},
		{"entities", "read", nil},
		{"roles", "", []string{"auth/machines/role/ci update", "auth/people/users/ann read"}},
		{"roles", "read", []string{"auth/people/users/ann read"}},
		{"tokens", "", tokens},
	} {
		for _, limit := range []int{1, 2, 0} {
			if got := v.holders(row.kind, path, row.capability, limit); !slices.Equal(got, row.want) {
				t.Errorf("%s with %q, %d a page: %q, want %q", row.kind, row.capability, limit, got, row.want)
			}
		}
	}
	if _, err := v.do(made.Auth.ClientToken, conclave.Update, "sys/access/list", map[string]any{"kind": "roles", "path": path}); !conclave.Is(err, conclave.Denied) {
		t.Errorf("without the capability: %v, want denied", err)
	}
	for name, fields := range map[string]map[string]any{"no path": {"kind": "roles"}, "no kind": {"path": "a"}, "bad capability": {"kind": "roles", "path": "a", "capability": "eat"}} {
		if _, err := v.do(v.root, conclave.Update, "sys/access/list", fields); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}

// What another namespace has isn't seen.
func TestWhoStaysInItsNamespace(t *testing.T) {
	v := openVault(t)
	v.must(conclave.Update, "sys/namespaces/team", nil)
	v.must(conclave.Update, "sys/policies/acl/outer", map[string]any{"policy": `path "secret/*" { capabilities = ["read"] }`})
	v.must(conclave.Update, "team/sys/policies/acl/inner", map[string]any{"policy": `path "secret/*" { capabilities = ["read"] }`})
	got := v.must(conclave.Update, "team/sys/access/list", map[string]any{"kind": "policies", "path": "secret/x"})
	text := fmt.Sprint(got)
	if !strings.Contains(text, "inner") || strings.Contains(text, "outer") {
		t.Errorf("policies in a namespace: %v", got)
	}
}
