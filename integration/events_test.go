package integration

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// happened is what a subscriber gets of an event.
type happened struct {
	ID     string
	Cursor string
	Data   struct {
		Event struct{ Metadata map[string]string }
		Type  string `json:"event_type"`
	}
}

func (h *happened) what() string {
	return h.Data.Type + " " + h.Data.Event.Metadata["path"] + " " + h.Data.Event.Metadata["current_version"]
}

// dial subscribes on a node. The answer is that to a subscription that was refused.
func dial(ctx context.Context, l *lab.Lab, n int, token, types, since string) (*websocket.Conn, *http.Response, error) {
	config := l.TLS().Clone()
	config.NextProtos = []string{"http/1.1"}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}}
	address := strings.Replace(l.Addrs[n-1], "https", "wss", 1) + "/v1/sys/events/subscribe/" + types + "?json=true&since=" + url.QueryEscape(since)
	return websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: client, HTTPHeader: http.Header{"X-Vault-Token": {token}}})
}

func receive(ctx context.Context, conn *websocket.Conn) (h happened, err error) {
	_, raw, err := conn.Read(ctx)
	if err == nil {
		err = json.Unmarshal(raw, &h)
	}
	return h, err
}

// subscribed is dial on a node that must let the token subscribe.
func subscribed(t *testing.T, ctx context.Context, l *lab.Lab, n int, token, types, since string) *websocket.Conn {
	t.Helper()
	conn, _, err := dial(ctx, l, n, token, types, since)
	if err != nil {
		t.Fatalf("subscribe to %s on node %d: %v", types, n, err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func mustReceive(t *testing.T, ctx context.Context, conn *websocket.Conn) happened {
	t.Helper()
	h, err := receive(ctx, conn)
	if err != nil {
		t.Fatalf("no event came: %v", err)
	}
	return h
}

// eventDesk is one node whose subscribers have different policies.
type eventDesk struct {
	l    *lab.Lab
	root *lab.Client
}

func (d *eventDesk) put(t *testing.T, ctx context.Context, path string) {
	t.Helper()
	if err := d.root.Write(ctx, "secret/data/"+path, map[string]any{"data": map[string]any{"x": 1}}, nil); err != nil {
		t.Fatal(err)
	}
}

func (d *eventDesk) policy(t *testing.T, ctx context.Context, name, text string) {
	t.Helper()
	if err := d.root.Write(ctx, "sys/policies/acl/"+name, map[string]any{"policy": text}, nil); err != nil {
		t.Fatal(err)
	}
}

func (d *eventDesk) token(t *testing.T, ctx context.Context, policy string) string {
	t.Helper()
	made, err := d.root.Token(ctx, map[string]any{"policies": []string{policy}})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// maySubscribe is the part of a policy that lets its holders ask for events.
const maySubscribe = `path "sys/events/subscribe/*" { capabilities = ["read"] }` + "\n"

// TestEventsGoToThoseWhoMayKnow is about who gets which events, and who gets none.
func TestEventsGoToThoseWhoMayKnow(t *testing.T) {
	l := startLab(t, 1)
	d := &eventDesk{l, l.Client(1)}
	ctx := within(t, time.Minute)
	d.policy(t, ctx, "reader", maySubscribe+`path "secret/data/team/*" { capabilities = ["read"] }`)
	d.policy(t, ctx, "watcher", maySubscribe+`path "secret/*" { capabilities = ["subscribe"] subscribe_event_types = ["kv-v2/data-delete"] }`)
	d.policy(t, ctx, "blind", `path "secret/*" { capabilities = ["read"] }`)
	t.Run("refused", d.refused)
	t.Run("filtered by policy", d.filtered)
	t.Run("in the same words", d.repeated)
}

func (d *eventDesk) refused(t *testing.T) {
	ctx := within(t, time.Minute)
	for name, c := range map[string]struct {
		token, types, since string
		status              int
	}{
		"no token":          {"", "*", "", http.StatusForbidden},
		"no such token":     {"hvs.none", "*", "", http.StatusForbidden},
		"no capability":     {d.token(t, ctx, "blind"), "*", "", http.StatusForbidden},
		"no such cursor":    {d.l.RootToken, "*", "c1-AAAA", http.StatusBadRequest},
		"a cursor to come":  {d.l.RootToken, "*", "c1-AAAAAAAAAAAAAAAAAAAAAAAB", http.StatusBadRequest},
		"too many stars":    {d.l.RootToken, "*a*a*a*a*a*a*a*a*a", "", http.StatusBadRequest},
		"a type without /":  {d.l.RootToken, "kv", "", http.StatusBadRequest},
		"a very long type":  {d.l.RootToken, strings.Repeat("a", 500) + "*", "", http.StatusBadRequest},
		"nothing to follow": {d.l.RootToken, "", "", http.StatusNotFound},
	} {
		conn, answer, err := dial(ctx, d.l, 1, c.token, c.types, c.since)
		if err == nil {
			_ = conn.CloseNow()
			t.Errorf("%s: a subscription was opened", name)
			continue
		}
		if answer == nil || answer.StatusCode != c.status {
			t.Errorf("%s: %v, want status %d", name, err, c.status)
		}
	}
	for _, address := range []string{"http://127.0.0.1:1/", "https://u:p@127.0.0.1/", "ftp://127.0.0.1/"} {
		answer, err := d.root.Do(ctx, "POST", "sys/events/webhooks/bad", map[string]any{"url": address})
		if err != nil || answer.Status != http.StatusBadRequest {
			t.Errorf("a webhook at %s: %v, %v, want 400", address, answer, err)
		}
	}
	answer, err := d.root.With(d.token(t, ctx, "reader")).Do(ctx, "POST", "sys/events/webhooks/mine", map[string]any{"url": "https://127.0.0.1/"})
	if err != nil || answer.Status != http.StatusForbidden {
		t.Errorf("a webhook of whoever has no sudo: %v, %v, want 403", answer, err)
	}
}

func (d *eventDesk) filtered(t *testing.T) {
	ctx := within(t, time.Minute)
	reads, watches := d.token(t, ctx, "reader"), d.token(t, ctx, "watcher")
	reader, watcher, all := subscribed(t, ctx, d.l, 1, reads, "*", ""), subscribed(t, ctx, d.l, 1, watches, "*", ""), subscribed(t, ctx, d.l, 1, d.l.RootToken, "kv-v2/*", "")
	d.put(t, ctx, "other")
	d.put(t, ctx, "team/a")
	if _, err := d.root.Do(ctx, "DELETE", "secret/data/other", nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kv-v2/data-write secret/data/other 1", "kv-v2/data-write secret/data/team/a 1", "kv-v2/data-delete secret/data/other 1"} {
		if got := mustReceive(t, ctx, all); got.what() != want {
			t.Errorf("root got %q, want %q", got.what(), want)
		}
	}
	if got := mustReceive(t, ctx, reader); got.what() != "kv-v2/data-write secret/data/team/a 1" {
		t.Errorf("the reader got %q", got.what())
	}
	if got := mustReceive(t, ctx, watcher); got.what() != "kv-v2/data-delete secret/data/other 1" {
		t.Errorf("the watcher got %q", got.what())
	}

	// Policies hold as they are when an event is sent.
	d.policy(t, ctx, "reader", maySubscribe+`path "secret/data/other" { capabilities = ["read"] }`)
	d.put(t, ctx, "team/b")
	d.put(t, ctx, "other")
	if got := mustReceive(t, ctx, reader); got.what() != "kv-v2/data-write secret/data/other 2" {
		t.Errorf("under its new policy the reader got %q", got.what())
	}

	// A token that is gone gets nothing more, and is told.
	if err := d.root.Write(ctx, "auth/token/revoke", map[string]any{"token": reads}, nil); err != nil {
		t.Fatal(err)
	}
	d.put(t, ctx, "other")
	_, err := receive(ctx, reader)
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation || !strings.Contains(closed.Reason, "since=c1-") {
		t.Errorf("after its token was revoked the reader got %v", err)
	}
	d.policy(t, ctx, "watcher", `path "secret/*" { capabilities = ["subscribe"] subscribe_event_types = ["*"] }`)
	if _, err := receive(ctx, watcher); !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation {
		t.Errorf("without the right to subscribe the watcher got %v", err)
	}
	if got := mustReceive(t, ctx, all); got.what() != "kv-v2/data-write secret/data/team/b 1" {
		t.Errorf("root got %q", got.what())
	}
}

func (d *eventDesk) repeated(t *testing.T) {
	ctx := within(t, time.Minute)
	conn := subscribed(t, ctx, d.l, 1, d.l.RootToken, "*", "")
	d.put(t, ctx, "audited")
	h := mustReceive(t, ctx, conn)
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("closing a subscription: %v", err)
	}
	// What a client has seen, it sees again in the same words.
	again := subscribed(t, ctx, d.l, 1, d.l.RootToken, "*", "oldest")
	for {
		if next := mustReceive(t, ctx, again); next.ID == h.ID {
			if next.Cursor != h.Cursor {
				t.Errorf("the cursor of %s is %s, was %s", h.ID, next.Cursor, h.Cursor)
			}
			break
		}
	}
}

// inbox is a webhook's receiver.
type inbox struct {
	*httptest.Server
	mu   sync.Mutex // guards ids
	ids  []string   // in the order in which they first came
	seen map[string]bool
}

func newInbox(t *testing.T) *inbox {
	b := &inbox{seen: map[string]bool{}}
	b.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var list []happened
		if err != nil || json.Unmarshal(body, &list) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, h := range list {
			if !b.seen[h.ID] {
				b.seen[h.ID] = true
				b.ids = append(b.ids, h.ID)
			}
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *inbox) list() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.ids)
}

// follower collects events from whichever node serves it, and goes on where it was when it loses one.
type follower struct {
	l     *lab.Lab
	node  int // that it prefers
	since string

	mu     sync.Mutex // guards all below
	events []happened
	lost   int // connections
}

func (f *follower) run(ctx context.Context) error {
	for ; ctx.Err() == nil; f.node = f.node%f.l.Nodes() + 1 {
		conn, answer, err := dial(ctx, f.l, f.node, f.l.RootToken, "kv-v2/*", f.since)
		if err != nil {
			if answer != nil && answer.StatusCode == http.StatusBadRequest {
				return fmt.Errorf("node %d refuses the cursor %s: %w", f.node, f.since, err)
			}
			continue
		}
		for {
			h, err := receive(ctx, conn)
			if err != nil {
				break
			}
			f.since = h.Cursor
			f.mu.Lock()
			f.events = append(f.events, h)
			f.mu.Unlock()
		}
		_ = conn.CloseNow()
		f.mu.Lock()
		f.lost++
		f.mu.Unlock()
	}
	return nil
}

func (f *follower) has(want map[string]bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := 0
	for i := range f.events {
		if want[f.events[i].what()] {
			found++
		}
	}
	return found >= len(want)
}

// TestEventsSurviveTheLeader writes through all nodes while the leader, to which a subscriber and the webhooks' deliveries
// are bound, is killed. Every write that was acknowledged is told once to the subscriber, which goes on with its cursor on
// another node, in one order everywhere, and at least once to the webhook.
func TestEventsSurviveTheLeader(t *testing.T) {
	const writers, each = 3, 60
	l := startLab(t, 3)
	ctx := within(t, 4*time.Minute)
	box := newInbox(t)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: box.Certificate().Raw}))
	if err := l.Client(2).Write(ctx, "sys/events/webhooks/box", map[string]any{"url": box.URL, "ca_cert": ca, "event_type": "kv-v2/*", "max_batch": 10}, nil); err != nil {
		t.Fatal(err)
	}
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var start struct{ Cursor string }
	if err := l.Client(leader).Read(ctx, "sys/events/subscribe/*", &start); err != nil {
		t.Fatal(err)
	}
	f := &follower{l: l, node: leader, since: start.Cursor}
	following, stop := context.WithCancel(ctx)
	defer stop()
	var group, follow errgroup.Group
	follow.Go(func() error { return f.run(following) })

	var mu sync.Mutex
	acknowledged := map[string]bool{} // what subscribers are to be told
	half := make(chan struct{}, writers)
	for w := range writers {
		group.Go(func() error {
			for i := range each {
				if i == each/3 {
					half <- struct{}{}
				}
				path := fmt.Sprintf("secret/data/w%d/%d", w, i)
				for n := w; ; n++ { // until some node has done it
					var out struct{ Version int }
					err := l.Client(n%3+1).Write(ctx, path, map[string]any{"data": map[string]any{"i": i}}, &out)
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if err == nil {
						mu.Lock()
						acknowledged[fmt.Sprintf("kv-v2/data-write %s %d", path, out.Version)] = true
						mu.Unlock()
						break
					}
				}
			}
			return nil
		})
	}
	for range writers {
		<-half
	}
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func(context.Context) error {
		if !f.has(acknowledged) {
			return errors.New("the subscriber wasn't told everything that was acknowledged")
		}
		return nil
	})
	stop()
	if err := follow.Wait(); err != nil {
		t.Fatal(err)
	}
	ids := wantOnce(t, f, acknowledged)
	if f.lost < 2 { // by the kill, and at the end
		t.Errorf("the subscriber never lost its connection: the test shows nothing")
	}
	wantSameEverywhere(t, ctx, l, leader, start.Cursor, ids)
	eventually(t, time.Minute, func(context.Context) error {
		if got := box.list(); len(got) < len(ids) {
			return fmt.Errorf("the webhook got %d events of %d", len(got), len(ids))
		}
		return nil
	})
	if got := box.list(); !slices.Equal(got, ids) {
		t.Errorf("the webhook got other events, or in another order, than the subscriber")
	}
}

// wantOnce checks what a subscriber got, and returns the ids in order.
func wantOnce(t *testing.T, f *follower, acknowledged map[string]bool) (ids []string) {
	t.Helper()
	seen, told := map[string]bool{}, map[string]int{}
	for i := range f.events {
		h := &f.events[i]
		if seen[h.ID] {
			t.Errorf("event %s (%s) came twice", h.ID, h.what())
		}
		seen[h.ID] = true
		told[h.what()]++
		ids = append(ids, h.ID)
	}
	for what := range acknowledged {
		if told[what] != 1 {
			t.Errorf("%s was told %d times, want once", what, told[what])
		}
	}
	return ids
}

// wantSameEverywhere checks that every node that runs tells the same events in the same order.
func wantSameEverywhere(t *testing.T, ctx context.Context, l *lab.Lab, down int, since string, ids []string) {
	t.Helper()
	for n := 1; n <= l.Nodes(); n++ {
		if n == down {
			continue
		}
		conn := subscribed(t, ctx, l, n, l.RootToken, "kv-v2/*", since)
		for i, want := range ids {
			if h := mustReceive(t, ctx, conn); h.ID != want {
				t.Fatalf("event %d on node %d is %s, want %s", i, n, h.ID, want)
			}
		}
	}
}
