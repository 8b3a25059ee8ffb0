package integration

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// What the clients of a history do. Keys change every roundTime, so that each key's history stays short enough to be
// judged: each operation with an unknown outcome doubles the orders to try.
const (
	secretClients = 9
	tokenClients  = 3
	keysPerRound  = 6
	roundTime     = 2 * time.Second
	answerTimeout = 5 * time.Second
	shortHistory  = 10 * time.Second
	longHistory   = 60 * time.Second
)

var historyTime = flag.Duration("history", 0, "how long a history is; default 60s, or 10s with -short")

// TestLinearizable60s holds concurrent clients on every node to account while nodes are killed and paused and leaders
// step down: whatever they were told has an order in which it is right.
func TestLinearizable60s(t *testing.T) {
	length := longHistory
	if testing.Short() {
		length = shortHistory
	}
	if *historyTime > 0 {
		length = *historyTime
	}
	runHistory(t, pickSeed(t), length)
}

func pickSeed(t *testing.T) uint64 {
	t.Helper()
	chosen := *seed
	if chosen == 0 {
		chosen = rand.Uint64()
	}
	t.Logf("seed %d: -seed %d makes the same choices again", chosen, chosen)
	return chosen
}

// runHistory makes a history of this length and checks everything about it.
func runHistory(t *testing.T, seed uint64, length time.Duration) {
	l := startLab(t, 3)
	mountKV(t, l, "lin")
	w := &world{lab: l, history: newHistory()}
	harm := newNemesis(l, seed)
	var group errgroup.Group
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	for client := range secretClients {
		group.Go(func() error { w.useSecrets(ctx, client, seed); return nil })
	}
	for client := range tokenClients {
		group.Go(func() error { w.useTokens(ctx, secretClients+client, seed); return nil })
	}
	group.Go(func() error { return harm.run(ctx) })
	err := group.Wait()
	t.Logf("what was done to the cluster: %v\n%s", harm.counts, strings.Join(harm.timeline, "\n"))
	if err != nil {
		t.Fatalf("the cluster could not be mended: %v", err)
	}
	if err := l.WaitServing(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	w.readAll(t, length)
	w.history.check(t)
	wantAudited(t, l, w.history.ids, w.history.counts)
	wantHeadsAgree(t, l)
	wantStatesAgree(t, l)
	wantVerified(t, l)
}

// world is the cluster and what is known about it.
type world struct {
	lab     *lab.Lab
	history *history
	tokens  atomic.Int64 // how many were made
}

func key(round, i int) string { return fmt.Sprintf("r%d/k%d", round, i) }

// useSecrets reads and writes secrets, each time through another node, until ctx ends.
func (w *world) useSecrets(ctx context.Context, client int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, uint64(100+client)))
	versions := make(map[string]int) // key → version that this client last saw
	for number := 0; ctx.Err() == nil; number++ {
		k := key(int(time.Since(w.history.start)/roundTime), random.IntN(keysPerRound))
		in := secretInput{key: k, verb: "read"}
		switch dice := random.IntN(100); {
		case dice < 30:
			in.verb, in.cas, in.value = "cas", versions[k], fmt.Sprintf("c%d-%d", client, number)
		case dice < 42:
			in.verb, in.value = "write", fmt.Sprintf("w%d-%d", client, number)
		case dice < 52:
			in.verb = "delete"
		case dice < 55:
			in.verb = "purge"
		}
		out, how := w.secret(ctx, client, 1+random.IntN(w.lab.Nodes()), in)
		if how == done && (in.verb == "read" || out.state == "done" && out.version > 0) {
			versions[k] = out.version
		}
		if how != done {
			breathe(ctx)
		}
	}
}

// breathe keeps a client from asking a dead node as fast as it can.
func breathe(ctx context.Context) {
	timer := time.NewTimer(5 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// secret does one operation through a node and notes it.
func (w *world) secret(ctx context.Context, client, node int, in secretInput) (secretOutput, outcome) {
	// The end of the history doesn't cut an operation short.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	method, path, body := "GET", "lin/data/"+in.key, any(nil)
	switch in.verb {
	case "cas":
		method, body = "POST", map[string]any{"data": map[string]string{"v": in.value}, "options": map[string]int{"cas": in.cas}}
	case "write":
		method, body = "POST", map[string]any{"data": map[string]string{"v": in.value}}
	case "delete":
		method = "DELETE"
	case "purge":
		method, path = "DELETE", "lin/metadata/"+in.key
	}
	call := w.history.now()
	answer, err := w.lab.Client(node).Do(ctx, method, path, body)
	out, how := w.judgeSecret(in, answer, err)
	w.history.secret(client, in, call, out, how)
	if how == done {
		w.history.answered(answer, method, path)
	}
	return out, how
}

// judgeSecret says what a client may conclude from an answer. A read without one tells nothing and changes nothing.
func (w *world) judgeSecret(in secretInput, answer *lab.Answer, err error) (secretOutput, outcome) {
	how := judge(answer, err)
	if how == unknown && in.verb == "read" {
		how = refused
	}
	if how != done {
		return secretOutput{}, how
	}
	var data struct {
		Data     map[string]string `json:"data"`
		Version  int               `json:"version"`
		Metadata struct {
			Version int `json:"version"`
		} `json:"metadata"`
	}
	if len(answer.Data) > 0 {
		if err := json.Unmarshal(answer.Data, &data); err != nil {
			w.history.wrong("%+v: %v: %s", in, err, answer.Body)
		}
	}
	switch {
	case in.verb == "read" && answer.Status == 200:
		return secretOutput{"found", data.Metadata.Version, data.Data["v"]}, done
	case in.verb == "read" && answer.Status == 404 && data.Metadata.Version > 0:
		return secretOutput{state: "deleted", version: data.Metadata.Version}, done
	case in.verb == "read" && answer.Status == 404:
		return secretOutput{state: "absent"}, done
	case in.verb == "cas" && answer.Status == 400 && strings.Contains(strings.Join(answer.Errors, " "), "check-and-set"):
		return secretOutput{state: "refused"}, done
	case in.verb != "read" && (answer.Status == 200 || answer.Status == 204):
		return secretOutput{state: "done", version: data.Version}, done
	}
	w.history.wrong("%+v: status %d: %s", in, answer.Status, answer.Body)
	return secretOutput{}, unknown
}

// judge sorts answers by what their status promises: 503 that nothing was done, other 5xx and silence nothing at all.
func judge(answer *lab.Answer, err error) outcome {
	switch {
	case errors.Is(err, lab.ErrNotSent):
		return refused
	case err != nil:
		return unknown
	case answer.Status == 503 || answer.Status == 429:
		return refused
	case answer.Status >= 500:
		return unknown
	}
	return done
}

// readAll reads every secret through every node, so that each acknowledged write has a later read.
func (w *world) readAll(t *testing.T, length time.Duration) {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	var group errgroup.Group
	for node := 1; node <= w.lab.Nodes(); node++ {
		group.Go(func() error {
			for round := range int(length/roundTime) + 1 {
				for i := range keysPerRound {
					in := secretInput{key: key(round, i), verb: "read"}
					if _, how := w.secret(ctx, 1000+node, node, in); how != done {
						return fmt.Errorf("node %d, with nothing wrong any more, did not answer a read of %s", node, in.key)
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
