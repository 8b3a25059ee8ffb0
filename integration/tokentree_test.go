package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// grove is a tree of tokens, in whose top all others end.
type grove struct {
	top   string
	names []string
	below []string // tokens, by the same index as names
}

// plant makes a token with a child, and of that a grandchild, a batch token, and tokens in a namespace.
func plant(t *testing.T, root *api.Client) *grove {
	t.Helper()
	create := func(by *api.Client, request *api.TokenCreateRequest) string {
		t.Helper()
		made, err := by.Auth().Token().CreateWithContext(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		return made.Auth.ClientToken
	}
	with := func(token, namespace string) *api.Client {
		t.Helper()
		client, err := root.Clone()
		if err != nil {
			t.Fatal(err)
		}
		client.SetToken(token)
		return client.WithNamespace(namespace)
	}
	mighty := &api.TokenCreateRequest{Policies: []string{"root"}, TTL: "1h"}
	plain := &api.TokenCreateRequest{Policies: []string{"default"}, TTL: "1h"}
	batch := &api.TokenCreateRequest{Policies: []string{"default"}, TTL: "1h", Type: "batch"}
	g := &grove{top: create(root, mighty)}
	child := create(with(g.top, ""), mighty)
	for name, token := range map[string]string{
		"top": g.top, "child": child,
		"grandchild":       create(with(child, ""), plain),
		"batch":            create(with(child, ""), batch),
		"in a namespace":   create(with(child, "grove"), plain),
		"batch down there": create(with(child, "grove"), batch),
	} {
		g.names, g.below = append(g.names, name), append(g.below, token)
	}
	return g
}

// TestRevokedTreeStaysDeadThoughTheLeaderDies revokes a tree on the leader, kills that at once, and asks all others, and the
// killed one when it is back.
func TestRevokedTreeStaysDeadThoughTheLeaderDies(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 3*time.Minute)
	mustWrite(t, ctx, sdk(t, l, 1), "sys/namespaces/grove", nil)
	look := func(n int, token string) int {
		client := l.Client(n).With(token)
		path := "auth/token/lookup-self"
		if strings.Count(token, ".") == 2 {
			path = "grove/" + path
		}
		for {
			answer, err := client.Do(ctx, "GET", path, nil)
			if ctx.Err() != nil {
				t.Fatalf("node %d doesn't answer: %v", n, err)
			}
			if err == nil && answer.Status < 500 {
				return answer.Status
			}
		}
	}
	for round := range 3 {
		leader, err := l.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		g := plant(t, sdk(t, l, 1+round%3))
		all := func(want int, nodes ...int) {
			t.Helper()
			for _, n := range nodes {
				for i, token := range g.below {
					if got := look(n, token); got != want {
						t.Fatalf("round %d, node %d: the token %s is answered with %d, want %d", round, n, g.names[i], got, want)
					}
				}
			}
		}
		all(http.StatusOK, 1, 2, 3)
		if err := l.Client(leader).With(g.top).Write(ctx, "auth/token/revoke-self", nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := l.Kill(leader); err != nil {
			t.Fatal(err)
		}
		all(http.StatusForbidden, 1+leader%3, 1+(leader+1)%3)
		if err := l.Start(ctx, leader); err != nil {
			t.Fatal(err)
		}
		if err := l.Unseal(ctx, leader); err != nil {
			t.Fatal(err)
		}
		if err := l.WaitServing(ctx); err != nil {
			t.Fatal(err)
		}
		all(http.StatusForbidden, 1, 2, 3)
	}
}

// TestTokenRolesWithVaultsClient makes tokens by roles, of both types, and uses them on other nodes.
func TestTokenRolesWithVaultsClient(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, time.Minute)
	root := sdk(t, l, 1)
	if err := root.Sys().PutPolicyWithContext(ctx, "ci", `path "auth/token/create/deploy" { capabilities = ["update"] }`); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, ctx, root, "auth/token/roles/deploy", map[string]any{"allowed_policies_glob": "deploy-*", "orphan": true, "renewable": false,
		"token_type": "default-batch", "allowed_entity_aliases": "ci-*"})
	role, err := root.Logical().ReadWithContext(ctx, "auth/token/roles/deploy")
	if err != nil || role.Data["token_type"] != "default-batch" || fmt.Sprint(role.Data["allowed_policies_glob"]) != "[deploy-*]" {
		t.Fatalf("%+v, %v", role, err)
	}
	ci, err := root.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"ci"}})
	if err != nil {
		t.Fatal(err)
	}
	caller := sdk(t, l, 2)
	caller.SetToken(ci.Auth.ClientToken)
	for kind, prefix := range map[string]string{"": "hvb.", "batch": "hvb.", "service": "hvs."} {
		made, err := caller.Auth().Token().CreateWithRoleWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"deploy-web"}, Type: kind, EntityAlias: "ci-1"}, "deploy")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(made.Auth.ClientToken, prefix) || !made.Auth.Orphan || made.Auth.EntityID == "" || made.Auth.Renewable {
			t.Errorf("type %q: %+v", kind, made.Auth)
		}
		other := sdk(t, l, 3)
		other.SetToken(made.Auth.ClientToken)
		self, err := other.Auth().Token().LookupSelfWithContext(ctx)
		if err != nil || self.Data["role"] != "deploy" || self.Data["path"] != "auth/token/create/deploy" || self.Data["entity_id"] != made.Auth.EntityID {
			t.Errorf("type %q: %+v, %v", kind, self, err)
		}
	}
	if _, err := caller.Auth().Token().CreateWithRoleWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"root"}}, "deploy"); status(err) != http.StatusBadRequest {
		t.Errorf("root by a role: %v", err)
	}
	if _, err := caller.Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"deploy-web"}}); status(err) != http.StatusForbidden {
		t.Errorf("without the role: %v", err)
	}
}
