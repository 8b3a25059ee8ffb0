package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/pquerna/otp/totp"
	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// hourly is the passcode of an authenticator whose passcodes are good for an hour, some hours from now.
func hourly(t *testing.T, seed string, hours int) string {
	t.Helper()
	code, err := totp.GenerateCodeCustom(seed, time.Now().Add(time.Duration(hours)*time.Hour), totp.ValidateOpts{Period: 3600, Digits: 6})
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// guardLogins has ann's logins by userpass need a passcode, and returns the method, her entity and her authenticator.
func guardLogins(t *testing.T, ctx context.Context, l *lab.Lab) (method, entity, seed string) {
	t.Helper()
	root := []*api.Client{sdk(t, l, 1), sdk(t, l, 2), sdk(t, l, 3)}
	enableAuth(t, root[0], "userpass")
	mustWrite(t, ctx, root[0], "auth/userpass/users/ann", map[string]any{"password": "first"})
	method = mustWrite(t, ctx, root[1], "identity/mfa/method/totp", map[string]any{"issuer": "Inc", "method_name": "phone", "period": 3600})["method_id"].(string)
	answer, err := anonymous(t, l, 3).Logical().WriteWithContext(ctx, "auth/userpass/login/ann", map[string]any{"password": "first"})
	if err != nil {
		t.Fatal(err)
	}
	entity = answer.Auth.EntityID
	made := mustWrite(t, ctx, root[2], "identity/mfa/method/totp/admin-generate", map[string]any{"method_id": method, "entity_id": entity})
	set, err := url.Parse(made["url"].(string))
	if err != nil || made["barcode"] == "" {
		t.Fatal(err, made)
	}
	mustWrite(t, ctx, root[0], "identity/mfa/login-enforcement/all", map[string]any{"mfa_method_ids": []string{method}, "auth_method_types": []string{"userpass"}})
	return method, entity, set.Query().Get("secret")
}

// TestAPasscodeWorksOnceOverTheCluster begins a login on a node that is killed, finishes it on the others at once, and tries
// its passcode again on the node that was killed.
func TestAPasscodeWorksOnceOverTheCluster(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 3*time.Minute)
	method, entity, seed := guardLogins(t, ctx, l)
	login := loginFields{"auth/userpass/login/ann", map[string]any{"password": "first"}}
	killed, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := anonymous(t, l, killed).Auth().MFALogin(ctx, login)
	if err != nil || begun.Auth.ClientToken != "" || begun.Auth.MFARequirement.MFAConstraints["all"].Any[0].ID != method {
		t.Fatalf("a login without its second factor: %+v, %v", begun, err)
	}
	if err := l.Kill(killed); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	code, others := hourly(t, seed, -1), []int{killed%3 + 1, (killed+1)%3 + 1}
	var in atomic.Int64
	var group errgroup.Group
	for i := range 40 {
		client := anonymous(t, l, others[i%2])
		spelled := strings.Repeat(" ", i%3) + code + strings.Repeat(" ", i%5)
		group.Go(func() error {
			var err error
			if i%4 < 2 {
				_, err = client.Sys().MFAValidateWithContext(ctx, begun.Auth.MFARequirement.MFARequestID, map[string]any{method: []string{spelled}})
			} else {
				_, err = client.Auth().MFALogin(ctx, login, "phone:"+spelled)
			}
			if err == nil {
				in.Add(1)
				return nil
			}
			failure, ok := errors.AsType[*api.ResponseError](err)
			if ok && (failure.StatusCode == http.StatusForbidden || failure.StatusCode == http.StatusBadRequest) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if in.Load() != 1 {
		t.Fatalf("one passcode let %d in", in.Load())
	}
	if err := l.Start(ctx, killed); err != nil {
		t.Fatal(err)
	}
	account := "sys/locked-users/mfa_totp_" + method + "/unlock/" + entity // the used passcode was tried more than five times
	for n := 1; n <= 3; n++ {
		mustWrite(t, ctx, sdk(t, l, n), account, nil)
		_, err := anonymous(t, l, n).Auth().MFALogin(ctx, login, "phone:"+code)
		wantRefusal(t, err, http.StatusForbidden, "failed to satisfy enforcement all")
	}
	mustWrite(t, ctx, sdk(t, l, 1), account, nil)
	client := anonymous(t, l, killed)
	if answer, err := client.Auth().MFALogin(ctx, login, "phone:"+hourly(t, seed, 0)); err != nil || answer.Auth.EntityID != entity {
		t.Fatalf("the next passcode: %+v, %v", answer, err)
	}
	if _, err := client.Auth().Token().LookupSelfWithContext(ctx); err != nil {
		t.Errorf("the token doesn't work: %v", err)
	}
}

// TestWrongPasscodesLockOverTheCluster guesses on all nodes at once.
func TestWrongPasscodesLockOverTheCluster(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 3*time.Minute)
	method, _, seed := guardLogins(t, ctx, l)
	login := loginFields{"auth/userpass/login/ann", map[string]any{"password": "first"}}
	wrong := "000000"
	for hours := -1; hours <= 1; hours++ {
		if wrong == hourly(t, seed, hours) {
			t.Skip("one in three hundred thousand")
		}
	}
	var group errgroup.Group
	for i := range 30 {
		client := anonymous(t, l, i%3+1)
		group.Go(func() error {
			_, err := client.Auth().MFALogin(ctx, login, method+":"+wrong)
			if failure, ok := errors.AsType[*api.ResponseError](err); ok && failure.StatusCode == http.StatusForbidden {
				return nil
			}
			return fmt.Errorf("a wrong passcode: %w", err)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		_, err := anonymous(t, l, n).Auth().MFALogin(ctx, login, method+":"+hourly(t, seed, 0))
		wantRefusal(t, err, http.StatusForbidden, "failed to satisfy enforcement all")
		client := anonymous(t, l, n)
		begun, err := client.Auth().MFALogin(ctx, login) // the password isn't locked by it
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Auth().MFAValidate(ctx, begun, map[string]any{method: []string{hourly(t, seed, 0)}})
		wantRefusal(t, err, http.StatusForbidden, "failed to satisfy enforcement all")
	}
}
