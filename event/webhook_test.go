package event

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// hall is webhooks on storage in memory, whose leaders come and go.
type hall struct {
	t        *testing.T
	log      *fakeLog
	stream   *Stream
	webhooks *Webhooks
	look     chan struct{} // has the leader look which webhooks there are

	mu     sync.Mutex // guards all below
	memory *enginetest.Memory
	now    time.Time
	waits  []time.Duration // between attempts
}

func newHall(t *testing.T) *hall {
	h := &hall{t: t, log: newFakeLog(), look: make(chan struct{}), memory: enginetest.NewMemory(t), now: time.Unix(1_800_000_000, 0)}
	h.stream = running(t, h.log)
	h.webhooks = NewWebhooks(WebhooksConfig{Stream: h.stream, Spaces: h, Source: func() string { return "conclave://test" }, Random: rand.Reader,
		Now: h.clock, Pause: h.pause, Report: func(msg string, args ...any) { t.Log(msg, args) }})
	return h
}

// clock goes on by a minute with each look at it: whatever is to be written down now and then is so each time.
func (h *hall) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(time.Minute)
	return h.now
}

func (h *hall) pause(ctx context.Context, d time.Duration) error {
	if d == webhookPoll {
		select {
		case <-h.look:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waits = append(h.waits, d)
	return ctx.Err()
}

func (h *hall) Look(_ context.Context, _ uint64, visit func(conclave.Namespace, conclave.View) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return visit(conclave.Namespace{ID: conclave.RootNamespace}, h.memory)
}

func (h *hall) Change(_ context.Context, _ conclave.Namespace, change func(conclave.Tx) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.memory.End(change(h.memory))
}

// do makes a request to the routes of webhooks.
func (h *hall) do(op conclave.Operation, name string, fields map[string]any) (map[string]any, error) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	route, params, err := conclave.NewRouter(h.webhooks.routes()).Find(op, "events/webhooks/"+name)
	if err != nil {
		return nil, err
	}
	if len(fields) > 0 {
		fields = enginetest.Decode(h.t, fields) // numbers as the edge has them
	}
	in, err := route.Bind(params, fields)
	if err != nil {
		return nil, err
	}
	ctx := h.t.Context()
	if route.Prepare != nil {
		prepared, err := route.Prepare(ctx, nil, in)
		if err != nil {
			return nil, err
		}
		ctx = conclave.WithPrepared(ctx, prepared)
	}
	response, err := route.Handle(ctx, h.memory, in)
	if err := h.memory.End(err); err != nil {
		return nil, err
	}
	if response.Data == nil {
		return nil, nil
	}
	return enginetest.Decode(h.t, response.Data), nil
}

func (h *hall) must(op conclave.Operation, name string, fields map[string]any) map[string]any {
	h.t.Helper()
	data, err := h.do(op, name, fields)
	if err != nil {
		h.t.Fatalf("%s %s: %v", op, name, err)
	}
	return data
}

// lead has a leader send; what it returns ends that.
func (h *hall) lead() (resign func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.webhooks.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run = %v", err)
		}
	})
	h.t.Cleanup(stop)
	return stop
}

// delivery is what a receiver got.
type delivery struct {
	id, kind string
	ids      []string // of the events
	paths    []string
	lists    bool
}

// receiver is a server that webhooks send to. It answers with the statuses that it is given, then with 204.
type receiver struct {
	*httptest.Server
	t      *testing.T
	secret string
	got    chan delivery // of what was taken

	mu       sync.Mutex // guards statuses
	statuses []int
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	r := &receiver{t: t, got: make(chan delivery, 100), statuses: statuses}
	r.secret = secretPrefix + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	r.Server = httptest.NewTLSServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}))
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	at, timeErr := strconv.ParseInt(req.Header.Get("Webhook-Timestamp"), 10, 64)
	key, keyErr := secretKey(r.secret)
	if err != nil || timeErr != nil || keyErr != nil || sign(key, req.Header.Get("Webhook-Id"), time.Unix(at, 0), body) != req.Header.Get("Webhook-Signature") {
		r.t.Errorf("a delivery isn't signed: %v", req.Header)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.statuses) > 0 {
		w.WriteHeader(r.statuses[0])
		r.statuses = r.statuses[1:]
		return
	}
	d := delivery{id: req.Header.Get("Webhook-Id"), kind: req.Header.Get("Content-Type"), lists: body[0] == '['}
	var list []message
	if !d.lists {
		body = append(append([]byte{'['}, body...), ']')
	}
	if err := json.Unmarshal(body, &list); err != nil {
		r.t.Errorf("a delivery is not JSON: %v", err)
	}
	for _, m := range list {
		d.ids, d.paths = append(d.ids, m.ID), append(d.paths, m.Data.Event.Metadata["path"])
	}
	r.got <- d
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) next() delivery {
	r.t.Helper()
	select {
	case d := <-r.got:
		return d
	case <-time.After(10 * time.Second):
		r.t.Fatal("nothing was delivered")
	}
	return delivery{}
}

func (r *receiver) fields(more map[string]any) map[string]any {
	fields := map[string]any{"url": r.URL, "ca_cert": r.ca(), "secret": r.secret}
	for name, value := range more {
		fields[name] = value
	}
	return fields
}

// status waits until a webhook's status is as wanted.
func (h *hall) status(name string, ok func(status map[string]any) bool) map[string]any {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		status, _ := h.must(conclave.Read, name, nil)["status"].(map[string]any)
		if ok(status) {
			return status
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the status stays %v", status)
		}
	}
}

func TestWebhooksDeliverInOrderUntilTaken(t *testing.T) {
	h, r := newHall(t), newReceiver(t, 500, 301, 404)
	h.must(conclave.Update, "a", r.fields(map[string]any{"path": "m/*"}))
	h.lead()
	h.log.add(1, 0, 2)
	var paths []string
	for len(paths) < 3 {
		d := r.next()
		if d.lists || len(d.ids) != 1 || d.id != d.ids[0] || !strings.HasPrefix(d.kind, "application/cloudevents+json") {
			t.Errorf("delivery %+v, want one event with its own id", d)
		}
		paths = append(paths, d.paths...)
	}
	wantPaths(t, paths, "m/p0/0", "m/p2/0", "m/p2/1")
	h.mu.Lock()
	if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(h.waits, want) {
		t.Errorf("waited %v between attempts, want %v", h.waits, want)
	}
	h.mu.Unlock()
	status := h.status("a", func(s map[string]any) bool { return s["sent"] == json.Number("3") })
	if status["failing_since"] != "" || status["last_error"] != "" {
		t.Errorf("the status is %v", status)
	}
	if got := h.webhooks.Counters().Failures.Load(); got != 3 {
		t.Errorf("%d failures are counted, want 3", got)
	}
}

// A new leader goes on where the last one was: what was taken and noted isn't sent again, and nothing is left out.
func TestNewLeadersGoOn(t *testing.T) {
	h, r := newHall(t), newReceiver(t)
	h.must(conclave.Update, "a", r.fields(map[string]any{"max_batch": 10, "since": Oldest}))
	resign := h.lead()
	h.log.add(1, 1)
	var paths []string
	for len(paths) < 2 {
		d := r.next()
		if !d.lists || d.id != d.ids[0] || !strings.HasPrefix(d.kind, "application/cloudevents-batch+json") {
			t.Errorf("delivery %+v, want a list", d)
		}
		paths = append(paths, d.paths...)
	}
	h.status("a", func(s map[string]any) bool { return s["sent"] == json.Number("2") })
	resign()
	h.log.add(1, 1)
	h.lead()
	for len(paths) < 4 {
		paths = append(paths, r.next().paths...)
	}
	wantPaths(t, paths, "m/p0/0", "m/p1/0", "m/p2/0", "m/p3/0")
}

func TestFailingWebhooksSaySo(t *testing.T) {
	h := newHall(t)
	r := newReceiver(t)
	r.Close() // nobody is there
	h.must(conclave.Update, "a", r.fields(nil))
	h.lead()
	h.log.add(1)
	status := h.status("a", func(s map[string]any) bool { return s["last_error"] != "" })
	if status["failing_since"] == "" || strings.Contains(status["last_error"].(string), "127.0.0.1") {
		t.Errorf("the status is %v, want since when it fails, and no address", status)
	}
	if got := h.webhooks.Counters().Failing.Load(); got != 1 {
		t.Errorf("%d webhooks are counted as failing, want 1", got)
	}
	h.must(conclave.Delete, "a", nil)
	h.look <- struct{}{}
	h.look <- struct{}{}
	for h.webhooks.Counters().Failing.Load() != 0 {
		h.look <- struct{}{}
	}
}

// What was dropped from the log before it could be sent is passed over, and the webhook says so.
func TestWebhooksPassOverWhatIsNoLongerKept(t *testing.T) {
	h, r := newHall(t), newReceiver(t)
	h.log.add(1, 1, 1)
	h.must(conclave.Update, "a", r.fields(map[string]any{"since": Oldest}))
	h.log.prune(2)
	h.lead()
	wantPaths(t, r.next().paths, "m/p2/0")
	h.status("a", func(s map[string]any) bool { return s["lost_at"] != "" })
}

func TestWebhooksThatCanNotBeAreRefused(t *testing.T) {
	h, r := newHall(t), newReceiver(t)
	for name, fields := range map[string]map[string]any{
		"no url":            {"url": nil},
		"http":              {"url": "http://127.0.0.1:1/"},
		"http elsewhere":    {"url": "http://example.com/"},
		"a file":            {"url": "file:///etc/passwd"},
		"a password in it":  {"url": "https://a:b@example.com/"},
		"a long url":        {"url": "https://example.com/" + strings.Repeat("x", 3000)},
		"a short secret":    {"secret": "whsec_YWJj"},
		"no secret's form":  {"secret": "password"},
		"no certificate":    {"ca_cert": "x"},
		"no batch":          {"max_batch": 0},
		"a huge batch":      {"max_batch": 1000},
		"no type":           {"event_type": "kv"},
		"a bad filter":      {"filter": "x"},
		"a bad cursor":      {"since": "x"},
		"too many stars":    {"path": strings.Repeat("*", 9)},
		"an odd namespace":  {"namespaces": []any{""}},
		"long certificates": {"ca_cert": strings.Repeat(r.ca(), 100)},
	} {
		all := r.fields(fields)
		if all["url"] == nil {
			delete(all, "url")
		}
		if _, err := h.do(conclave.Update, "a", all); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
	if _, err := h.do(conclave.Update, "a b", r.fields(nil)); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("an odd name: %v, want Invalid", err)
	}
	if _, err := h.do(conclave.Read, "a", nil); !conclave.Is(err, conclave.NotFound) {
		t.Errorf("what was refused is there: %v", err)
	}
	for i := range MaxWebhooks {
		h.must(conclave.Update, "w"+strconv.Itoa(i), r.fields(nil))
	}
	if _, err := h.do(conclave.Update, "a", r.fields(nil)); !conclave.Is(err, conclave.Limited) {
		t.Errorf("one more: %v, want Limited", err)
	}
	h.must(conclave.Update, "w1", r.fields(map[string]any{"event_type": "kv*"})) // that is there already
}

func TestSecretsOfWebhooksAreShownOnce(t *testing.T) {
	h, r := newHall(t), newReceiver(t)
	fields := r.fields(nil)
	delete(fields, "secret")
	made, _ := h.must(conclave.Update, "a", fields)["secret"].(string)
	if _, err := secretKey(made); err != nil {
		t.Fatalf("the new secret is %q", made)
	}
	for _, answer := range []map[string]any{h.must(conclave.Read, "a", nil), h.must(conclave.Update, "a", map[string]any{"max_batch": 2})} {
		if text, _ := json.Marshal(answer); strings.Contains(string(text), "whsec_") {
			t.Errorf("an answer shows the secret: %s", text)
		}
	}
	if _, given := h.must(conclave.Update, "b", r.fields(nil))["secret"]; given {
		t.Error("a secret that was given is answered")
	}
	if data := h.must(conclave.List, "", nil); len(data["keys"].([]any)) != 2 {
		t.Errorf("listed are %v, want two", data)
	}
}

// A change holds for what is sent from then on, and loses nothing.
func TestWebhooksThatChangeGoOn(t *testing.T) {
	h, first := newHall(t), newReceiver(t)
	second := newReceiver(t)
	h.must(conclave.Update, "a", first.fields(nil))
	h.lead()
	h.log.add(1)
	wantPaths(t, first.next().paths, "m/p0/0")
	h.status("a", func(s map[string]any) bool { return s["sent"] == json.Number("1") })
	h.must(conclave.Update, "a", map[string]any{"url": second.URL, "ca_cert": second.ca()})
	h.look <- struct{}{}
	h.look <- struct{}{}
	h.log.add(1)
	wantPaths(t, second.next().paths, "m/p1/0")
	h.must(conclave.Update, "a", map[string]any{"since": Oldest})
	h.look <- struct{}{}
	var again []string
	for len(again) < 2 {
		again = append(again, second.next().paths...)
	}
	wantPaths(t, again, "m/p0/0", "m/p1/0")
}

// A webhook whose record is damaged holds up no other.
func TestDamagedWebhooksHoldUpNoOther(t *testing.T) {
	h, r := newHall(t), newReceiver(t)
	h.must(conclave.Update, "b", r.fields(nil))
	err := h.Change(t.Context(), conclave.Namespace{}, func(tx conclave.Tx) error { return tx.Put(webhookDir+"a", []byte("{")) })
	if err != nil {
		t.Fatal(err)
	}
	h.lead()
	h.log.add(1)
	wantPaths(t, r.next().paths, "m/p0/0")
	if _, err := h.do(conclave.Read, "a", nil); !conclave.Is(err, conclave.Internal) {
		t.Errorf("reading it: %v, want Internal", err)
	}
	h.must(conclave.Delete, "a", nil)
}

// What happened in a namespace that is gone isn't sent to one that has its name now.
func TestWebhooksKnowNamespacesByTheirID(t *testing.T) {
	h, r := newHall(t), newReceiver(t)
	h.log.add(1, 1)
	h.log.records[0].Events[0].Namespace = conclave.Namespace{ID: "gone", Path: ""}
	h.must(conclave.Update, "a", r.fields(map[string]any{"since": Oldest}))
	h.lead()
	wantPaths(t, r.next().paths, "m/p1/0")
}

// The signature is that of Standard Webhooks: the example of its specification.
func TestSignature(t *testing.T) {
	key, err := secretKey("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)); got != want {
		t.Errorf("sign = %s, want %s", got, want)
	}
}

// What is stored must be readable for ever.
func TestStoredWebhooksGolden(t *testing.T) {
	hook, err := decodeWebhook([]byte(`{"id":"0011223344556677","url":"https://example.com/x","types":"kv*","namespaces":["a"],"paths":"secret/*","filter":"operation == x","secret":"whsec_AA==","ca":"pem","batch":5}`))
	if w, ok := hook.(*webhook); err != nil || !ok || w.URL != "https://example.com/x" || w.Batch != 5 || w.Namespaces[0] != "a" || w.Filter != "operation == x" {
		t.Errorf("decodeWebhook = %+v, %v", hook, err)
	}
	stored, err := decodeProgress([]byte(`{"id":"0011223344556677","cursor":"c1-AAAAAAAAEmcAAgECAwQFBgcI","sent":7,"last_sent":"2026-01-02T03:04:05Z","failing":"2026-01-02T03:04:05Z","attempts":2,"error":"x","lost":"2026-01-02T03:04:05Z"}`))
	if p, ok := stored.(*progress); err != nil || !ok || p.Sent != 7 || p.Attempts != 2 || p.Failing.IsZero() || p.Lost.IsZero() {
		t.Errorf("decodeProgress = %+v, %v", stored, err)
	}
}

func FuzzStoredWebhook(f *testing.F) {
	f.Add([]byte(`{"id":"a","url":"https://example.com/","types":"*","secret":"whsec_AA==","batch":1}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if hook, err := decodeWebhook(value); err == nil {
			_ = hook.(*webhook).check()
		}
		_, _ = decodeProgress(value)
	})
}
