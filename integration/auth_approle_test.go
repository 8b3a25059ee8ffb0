package integration

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// loginFields are a login with Vault's Go client: what an auth method of the client does.
type loginFields struct {
	path   string
	fields map[string]any
}

// Login writes to the login's path, without a token.
func (l loginFields) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	return client.Logical().WriteWithContext(ctx, l.path, l.fields)
}

// anonymous is a client of Vault's SDK for node n without a token, and without retries.
func anonymous(t *testing.T, l *lab.Lab, n int) *api.Client {
	t.Helper()
	client := sdk(t, l, n)
	client.ClearToken()
	client.SetMaxRetries(0)
	return client
}

// enableAuth mounts an auth method as Vault's SDK does.
func enableAuth(t *testing.T, client *api.Client, kind string) {
	t.Helper()
	if err := client.Sys().EnableAuthWithOptions(kind, &api.EnableAuthOptions{Type: kind}); err != nil {
		t.Fatalf("enable %s: %v", kind, err)
	}
}

// mustWrite is a write by Vault's SDK that must succeed.
func mustWrite(t *testing.T, ctx context.Context, client *api.Client, path string, fields map[string]any) map[string]any {
	t.Helper()
	answer, err := client.Logical().WriteWithContext(ctx, path, fields)
	if err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
	if answer == nil {
		return nil
	}
	return answer.Data
}

// wantRefusal wants an error of Vault's SDK with a status and a text.
func wantRefusal(t *testing.T, err error, status int, text string) {
	t.Helper()
	failure, ok := errors.AsType[*api.ResponseError](err)
	if !ok || failure.StatusCode != status || !strings.Contains(err.Error(), text) {
		t.Fatalf("the answer is %v, want status %d with %q", err, status, text)
	}
}

// TestSecretIDsLogInExactly has many clients on all nodes race for secret-ids of few uses.
func TestSecretIDsLogInExactly(t *testing.T) {
	const racers = 50
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "approle")
	mustWrite(t, ctx, root, "auth/approle/role/Web", map[string]any{"token_ttl": "10m", "role_id": "web", "token_policies": []string{"web"}})
	clients := []*api.Client{anonymous(t, l, 1), anonymous(t, l, 2), anonymous(t, l, 3)}
	for _, uses := range []int{1, 1, 1, 2, 7} {
		made := mustWrite(t, ctx, root, "auth/approle/role/web/secret-id", map[string]any{"num_uses": uses})
		var good, bad atomic.Int64
		var group errgroup.Group
		begin := make(chan struct{})
		for i := range racers {
			group.Go(func() error {
				<-begin
				answer, err := clients[i%3].Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{"role_id": "web", "secret_id": made["secret_id"]})
				if err == nil && answer.Auth != nil && answer.Auth.ClientToken != "" {
					good.Add(1)
					return nil
				}
				failure, ok := errors.AsType[*api.ResponseError](err)
				if !ok || failure.StatusCode != http.StatusBadRequest || !strings.Contains(err.Error(), "invalid role or secret ID") {
					return err
				}
				bad.Add(1)
				return nil
			})
		}
		close(begin)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if good.Load() != int64(uses) || bad.Load() != int64(racers-uses) {
			t.Fatalf("a secret-id of %d uses logged in %d times and was refused %d times", uses, good.Load(), bad.Load())
		}
	}
}

// TestAppRoleWithVaultsClient goes through what fleets do with approle, each step on another node.
func TestAppRoleWithVaultsClient(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := []*api.Client{sdk(t, l, 1), sdk(t, l, 2), sdk(t, l, 3)}
	enableAuth(t, root[0], "approle")
	mustWrite(t, ctx, root[1], "auth/approle/role/app", map[string]any{"token_ttl": 300, "token_max_ttl": 600, "policies": "app"})
	id, err := root[2].Logical().ReadWithContext(ctx, "auth/approle/role/app/role-id")
	if err != nil {
		t.Fatal(err)
	}
	made := mustWrite(t, ctx, root[0], "auth/approle/role/app/secret-id", map[string]any{"metadata": `{"host":"a"}`, "cidr_list": "127.0.0.0/8,::1"})
	client := anonymous(t, l, 2)
	login := loginFields{"auth/approle/login", map[string]any{"role_id": id.Data["role_id"], "secret_id": made["secret_id"]}}
	answer, err := client.Auth().Login(ctx, login)
	if err != nil {
		t.Fatal(err)
	}
	auth := answer.Auth
	if strings.Join(auth.Policies, ",") != "app,default" || auth.LeaseDuration != 300 || !auth.Renewable || auth.Metadata["role_name"] != "app" || auth.Metadata["host"] != "a" {
		t.Errorf("logged in as %+v", auth)
	}
	if _, err := client.Auth().Token().RenewSelfWithContext(ctx, 60); err != nil {
		t.Errorf("renew: %v", err)
	}
	found, err := root[1].Logical().WriteWithContext(ctx, "auth/approle/role/app/secret-id-accessor/lookup", map[string]any{"secret_id_accessor": made["secret_id_accessor"]})
	if err != nil || found.Data["secret_id_accessor"] != made["secret_id_accessor"] {
		t.Errorf("lookup: %+v, %v", found, err)
	}
	keys, err := root[2].Logical().ListWithContext(ctx, "auth/approle/role/app/secret-id")
	if err != nil || len(keys.Data["keys"].([]any)) != 1 {
		t.Errorf("accessors: %+v, %v", keys, err)
	}
	mustWrite(t, ctx, root[0], "auth/approle/role/app/secret-id/destroy", map[string]any{"secret_id": made["secret_id"]})
	for n := 1; n <= 3; n++ {
		_, err := anonymous(t, l, n).Auth().Login(ctx, login)
		wantRefusal(t, err, http.StatusBadRequest, "invalid role or secret ID")
	}
	if _, err := root[1].Logical().DeleteWithContext(ctx, "auth/approle/role/app"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Auth().Token().RenewSelfWithContext(ctx, 60); err == nil {
		t.Error("the token of a deleted role is renewed")
	}
	if _, err := root[2].Logical().WriteWithContext(ctx, "auth/approle/tidy/secret-id", nil); err != nil {
		t.Errorf("tidy: %v", err)
	}
}

// TestUserpassWithVaultsClient logs people in through every node.
func TestUserpassWithVaultsClient(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "userpass")
	mustWrite(t, ctx, root, "auth/userpass/users/Ann", map[string]any{"password": "first", "token_policies": "dev"})
	login := func(n int, name, password string) (*api.Secret, error) {
		return anonymous(t, l, n).Auth().Login(ctx, loginFields{"auth/userpass/login/" + name, map[string]any{"password": password}})
	}
	for n := 1; n <= 3; n++ {
		answer, err := login(n, "ann", "first")
		if err != nil || answer.Auth.Metadata["username"] != "ann" || strings.Join(answer.Auth.TokenPolicies, ",") != "default,dev" {
			t.Fatalf("node %d: %+v, %v", n, answer, err)
		}
		_, err = login(n, "ann", "wrong")
		wantRefusal(t, err, http.StatusBadRequest, "invalid username or password")
		_, err = login(n, "nobody", "first")
		wantRefusal(t, err, http.StatusBadRequest, "invalid username or password")
	}
	mustWrite(t, ctx, sdk(t, l, 2), "auth/userpass/users/ann/password", map[string]any{"password": "second"})
	for n := 1; n <= 3; n++ {
		_, err := login(n, "ann", "first")
		wantRefusal(t, err, http.StatusBadRequest, "invalid username or password")
		if _, err := login(n, "ANN", "second"); err != nil {
			t.Fatalf("node %d: the new password: %v", n, err)
		}
	}
}
