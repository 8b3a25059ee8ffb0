package integration

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// useTokens makes tokens, uses each through all nodes at once, and revokes some meanwhile, until ctx ends.
func (w *world) useTokens(ctx context.Context, client int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, uint64(200+client)))
	for ctx.Err() == nil {
		in := tokenInput{verb: "create", uses: 0}
		if random.IntN(3) == 0 {
			in.uses = 1 + random.IntN(3)
		}
		call := w.history.now()
		answer, err := w.do(ctx, w.lab.Client(1+random.IntN(w.lab.Nodes())), "POST", "auth/token/create",
			map[string]any{"num_uses": in.uses, "ttl": "1h", "policies": []string{"default"}})
		if judge(answer, err) != done {
			breathe(ctx) // a token that nobody knows has no history
			continue
		}
		token, err := answer.Token()
		if err != nil {
			w.history.wrong("create a token: status %d: %v", answer.Status, err)
			return
		}
		in.token = int(w.tokens.Add(1))
		w.history.token(client, in, call, tokenOutput{good: true}, done)
		w.history.answered(answer, "POST", "auth/token/create")
		w.wearOut(ctx, client, in, token, random)
	}
}

// wearOut uses a token through all nodes at once, before, while and after it is revoked.
func (w *world) wearOut(ctx context.Context, client int, made tokenInput, token string, random *rand.Rand) {
	use := tokenInput{token: made.token, verb: "use"}
	for phase := range 3 {
		var group errgroup.Group
		for node := 1; node <= w.lab.Nodes(); node++ {
			group.Go(func() error {
				w.token(ctx, client*10+node, w.lab.Client(node).With(token), use, "GET", "auth/token/lookup-self", nil)
				return nil
			})
		}
		if phase == 1 && made.uses == 0 {
			node := 1 + random.IntN(w.lab.Nodes())
			w.token(ctx, client*10, w.lab.Client(node), tokenInput{token: made.token, verb: "revoke"}, "POST", "auth/token/revoke",
				map[string]string{"token": token})
		}
		_ = group.Wait() // they return nil
	}
}

// token does one operation on a token and notes it.
func (w *world) token(ctx context.Context, client int, through *lab.Client, in tokenInput, method, path string, body any) {
	call := w.history.now()
	answer, err := w.do(ctx, through, method, path, body)
	how := judge(answer, err)
	out := tokenOutput{}
	if how == done {
		switch {
		case answer.Status == 200 || answer.Status == 204:
			out.good = true
		case in.verb == "use" && answer.Status != 403:
			w.history.wrong("%+v: status %d: %s", in, answer.Status, answer.Body)
		}
	}
	w.history.token(client, in, call, out, how)
	if how == done {
		w.history.answered(answer, method, path)
	}
}

// do sends a request that the end of the history doesn't cut short.
func (w *world) do(ctx context.Context, client *lab.Client, method, path string, body any) (*lab.Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	return client.Do(ctx, method, path, body)
}

// TestOneUseTokenWorksOnce has many clients on all nodes race for tokens of one use.
func TestOneUseTokenWorksOnce(t *testing.T) {
	const racers, tokens = 50, 10
	l := startLab(t, 3)
	ctx := within(t, time.Minute)
	for range tokens {
		token, err := l.Client(1).Token(ctx, map[string]any{"num_uses": 1, "policies": []string{"default"}})
		if err != nil {
			t.Fatal(err)
		}
		var good, bad atomic.Int64
		var group errgroup.Group
		begin := make(chan struct{})
		for i := range racers {
			group.Go(func() error {
				<-begin
				answer, err := l.Client(1+i%3).With(token).Do(ctx, "GET", "auth/token/lookup-self", nil)
				if err != nil {
					return err
				}
				if answer.Status == 200 {
					good.Add(1)
					return nil
				}
				bad.Add(1)
				return answer.Want(403)
			})
		}
		close(begin)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if good.Load() != 1 || bad.Load() != racers-1 {
			t.Fatalf("a token of one use worked %d times and was refused %d times, want 1 and %d", good.Load(), bad.Load(), racers-1)
		}
	}
}

// TestRevokedTokenIsDeadOnEveryNode asks each node as soon as another has acknowledged the revocation.
func TestRevokedTokenIsDeadOnEveryNode(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, time.Minute)
	for i := range 30 {
		token, err := l.Client(1+i%3).Token(ctx, map[string]any{"policies": []string{"default"}})
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 3; n++ {
			if err := l.Client(n).With(token).Read(ctx, "auth/token/lookup-self", nil); err != nil {
				t.Fatalf("node %d: a token that is good: %v", n, err)
			}
		}
		if err := l.Client(1+(i+1)%3).Write(ctx, "auth/token/revoke", map[string]string{"token": token}, nil); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 3; n++ {
			answer, err := l.Client(n).With(token).Do(ctx, "GET", "auth/token/lookup-self", nil)
			if err == nil {
				err = answer.Want(403)
			}
			if err != nil {
				t.Fatalf("node %d: a token that is revoked: %v", n, err)
			}
		}
	}
}
