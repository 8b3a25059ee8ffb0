package integration

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"conclave/integration/lab"
)

// eachNode logs in on each node with Vault's client, and has another node look the token up, another renew it and another
// revoke it; then no node takes it any more. at is a client for a node that may log in.
func eachNode(t *testing.T, ctx context.Context, l *lab.Lab, at func(n int) *api.Client, login api.AuthMethod, policies ...string) {
	t.Helper()
	for n := 1; n <= l.Nodes(); n++ {
		first, second, third := at(n), at(n%3+1), at((n+1)%3+1)
		answer, err := first.Auth().Login(ctx, login)
		if err != nil {
			t.Fatalf("log in on node %d: %v", n, err)
		}
		if !slices.Equal(answer.Auth.Policies, policies) || !answer.Auth.Renewable {
			t.Fatalf("node %d: logged in as %+v, want the policies %v", n, answer.Auth, policies)
		}
		for _, client := range []*api.Client{second, third} {
			client.SetToken(answer.Auth.ClientToken)
		}
		found, err := second.Auth().Token().LookupSelfWithContext(ctx)
		if err != nil || found.Data["accessor"] != answer.Auth.Accessor {
			t.Errorf("node %d's token elsewhere: looked up as %+v, %v", n, found, err)
		}
		renewed, err := third.Auth().Token().RenewSelfWithContext(ctx, 30)
		if err != nil || renewed.Auth.LeaseDuration != 30 {
			t.Errorf("node %d's token elsewhere: renewed as %+v, %v", n, renewed, err)
		}
		if err := second.Auth().Token().RevokeSelfWithContext(ctx, ""); err != nil {
			t.Errorf("revoke node %d's token: %v", n, err)
		}
		for _, client := range []*api.Client{first, second, third} {
			_, err := client.Auth().Token().LookupSelfWithContext(ctx)
			wantRefusal(t, err, http.StatusForbidden, "permission denied")
		}
	}
}

// nodesOf are clients without tokens.
func nodesOf(t *testing.T, l *lab.Lab) func(n int) *api.Client {
	return func(n int) *api.Client { return anonymous(t, l, n) }
}

// TestPasswordsAndSecretIDsOnEachNode has people and machines log in everywhere.
func TestPasswordsAndSecretIDsOnEachNode(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "userpass")
	mustWrite(t, ctx, root, "auth/userpass/users/ann", map[string]any{"password": "correct horse", "token_policies": "dev", "token_ttl": "10m"})
	eachNode(t, ctx, l, nodesOf(t, l), loginFields{"auth/userpass/login/ann", map[string]any{"password": "correct horse"}}, "default", "dev")
	enableAuth(t, root, "approle")
	mustWrite(t, ctx, root, "auth/approle/role/web", map[string]any{"token_policies": "web", "role_id": "web", "token_ttl": "10m"})
	made := mustWrite(t, ctx, sdk(t, l, 2), "auth/approle/role/web/secret-id", nil)
	eachNode(t, ctx, l, nodesOf(t, l), loginFields{"auth/approle/login", map[string]any{"role_id": "web", "secret_id": made["secret_id"]}}, "default", "web")
}
