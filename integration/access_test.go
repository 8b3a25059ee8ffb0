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
)

// status is the HTTP status of an error of Vault's SDK, 0 if it is none.
func status(err error) int {
	if failure, ok := errors.AsType[*api.ResponseError](err); ok {
		return failure.StatusCode
	}
	return 0
}

// TestOneOfManyUnwraps has many clients on all nodes race for wrapped answers.
func TestOneOfManyUnwraps(t *testing.T) {
	const racers = 50
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := []*api.Client{sdk(t, l, 1), sdk(t, l, 2), sdk(t, l, 3)}
	mustWrite(t, ctx, root[0], "secret/data/wrapped", map[string]any{"data": map[string]any{"a": "b"}})
	for round := range 4 {
		wrapping, err := root[round%3].Clone()
		if err != nil {
			t.Fatal(err)
		}
		wrapping.SetToken(root[0].Token())
		wrapping.SetWrappingLookupFunc(func(string, string) string { return "1m" })
		wrapped, err := wrapping.Logical().ReadWithContext(ctx, "secret/data/wrapped")
		if err != nil || wrapped.WrapInfo == nil || wrapped.Data != nil {
			t.Fatalf("a wrapped read answers %+v, %v", wrapped, err)
		}
		var won atomic.Int64
		var group errgroup.Group
		begin := make(chan struct{})
		for i := range racers {
			group.Go(func() error {
				<-begin
				client, given := root[i%3], wrapped.WrapInfo.Token
				if i%2 == 0 { // the wrapping token is the caller's own
					client = anonymous(t, l, 1+i%3)
					client.SetToken(given)
					given = ""
				}
				answer, err := client.Logical().UnwrapWithContext(ctx, given)
				if err != nil {
					if status(err) != http.StatusBadRequest {
						return err
					}
					return nil
				}
				if data, ok := answer.Data["data"].(map[string]any); !ok || data["a"] != "b" {
					t.Errorf("unwrapped %+v", answer)
				}
				won.Add(1)
				return nil
			})
		}
		close(begin)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if won.Load() != 1 {
			t.Fatalf("round %d: %d of %d unwraps won, want 1", round, won.Load(), racers)
		}
	}
}

// TestGuessesAreExactOverTheCluster has a hundred wrong passwords tried at once on all nodes, for an account that there is
// and for one that there isn't.
func TestGuessesAreExactOverTheCluster(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 3*time.Minute)
	root := sdk(t, l, 1)
	enableAuth(t, root, "userpass")
	mustWrite(t, ctx, root, "auth/userpass/users/ann", map[string]any{"password": "correct horse"})
	clients := []*api.Client{anonymous(t, l, 1), anonymous(t, l, 2), anonymous(t, l, 3)}
	login := func(ctx context.Context, n int, name, password string) error {
		_, err := clients[n].Logical().WriteWithContext(ctx, "auth/userpass/login/"+name, map[string]any{"password": password})
		return err
	}
	if err := login(ctx, 1, "ann", "correct horse"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ann", "nobody"} {
		var wrong, refused atomic.Int64
		var group errgroup.Group
		for i := range 100 {
			spelled := name
			if i%4 == 0 {
				spelled = strings.ToUpper(name)
			}
			group.Go(func() error {
				switch err := login(ctx, i%3, spelled, "a guess"); status(err) {
				case http.StatusBadRequest:
					wrong.Add(1)
				case http.StatusForbidden, http.StatusTooManyRequests:
					refused.Add(1)
				default:
					return err
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if wrong.Load() != 5 || refused.Load() != 95 {
			t.Errorf("%s: %d guesses were evaluated and %d refused, want 5 and 95", name, wrong.Load(), refused.Load())
		}
	}
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	other := leader % 3 // as an index: the node after the leader
	for again := true; again; {
		err := login(ctx, other, "ann", "correct horse")
		if again = status(err) >= 500 || status(err) == 0 && ctx.Err() == nil && err != nil; !again && status(err) != http.StatusForbidden {
			t.Errorf("a locked account after the leader was killed: %v, want 403", err)
		}
	}
}

// TestNamespacesWithVaultsClient keeps two teams apart on all nodes.
func TestNamespacesWithVaultsClient(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 2*time.Minute)
	root := []*api.Client{sdk(t, l, 1), sdk(t, l, 2), sdk(t, l, 3)}
	for i, team := range []string{"red", "blue"} {
		mustWrite(t, ctx, root[i], "sys/namespaces/"+team, nil)
		within := root[2-i].WithNamespace(team)
		if err := within.Sys().MountWithContext(ctx, "kv", &api.MountInput{Type: "kv-v2"}); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, ctx, within, "kv/data/x", map[string]any{"data": map[string]any{"of": team}})
		if err := within.Sys().PutPolicyWithContext(ctx, "reader", `path "kv/data/*" { capabilities = ["read"] }`); err != nil {
			t.Fatal(err)
		}
	}
	made, err := root[0].WithNamespace("red").Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"reader"}})
	if err != nil {
		t.Fatal(err)
	}
	for n, client := range root {
		mine, err := client.Clone()
		if err != nil {
			t.Fatal(err)
		}
		mine.SetToken(made.Auth.ClientToken)
		for namespace, want := range map[string]int{"red": 0, "blue": http.StatusForbidden, "": http.StatusForbidden} {
			answer, err := mine.WithNamespace(namespace).Logical().ReadWithContext(ctx, "kv/data/x")
			if status(err) != want || want == 0 && answer.Data["data"].(map[string]any)["of"] != "red" {
				t.Errorf("node %d, namespace %q: %+v, %v, want status %d", n+1, namespace, answer, err, want)
			}
		}
		self, err := mine.WithNamespace("red").Auth().Token().LookupSelfWithContext(ctx)
		if err != nil || self.Data["namespace_path"] != "red/" {
			t.Errorf("node %d: looked up as %+v, %v", n+1, self, err)
		}
	}
	if _, err := root[1].Logical().DeleteWithContext(ctx, "sys/namespaces/red"); err != nil {
		t.Fatal(err)
	}
	for n, client := range root {
		if _, err := client.WithNamespace("red").Logical().ReadWithContext(ctx, "kv/data/x"); err == nil {
			if answer, _ := client.WithNamespace("red").Logical().ReadWithContext(ctx, "kv/data/x"); answer != nil {
				t.Errorf("node %d reads from a deleted namespace: %+v", n+1, answer)
			}
		}
		if answer, err := client.WithNamespace("blue").Logical().ReadWithContext(ctx, "kv/data/x"); err != nil || answer == nil {
			t.Errorf("node %d, the other namespace: %+v, %v", n+1, answer, err)
		}
	}
}
