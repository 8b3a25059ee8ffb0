// Package enginetest is the conformance kit for secrets engines and auth methods. A [Harness] runs an engine's routes on
// storage in memory, in the order of the pipeline: find the route, bind, prepare, then in one transaction authorise,
// handle and commit. [Conformance] checks what every plug-in promises. [Memory] is the same storage for tests of what is
// no engine: of packages that are given a transaction.
//
// The kit has no encryption, no audit log and no concurrency. It stops a test where an engine breaks the contract: a
// reading handler that writes, a handler that isn't pure, a value of Get that is changed.
package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
)

// start is when the clock of a harness stands at first.
var start = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)

// Harness runs requests against one mount of an engine.
type Harness struct {
	setting
	engine        conclave.Engine
	router        *conclave.Router
	header        map[string][]string
	change        func(*conclave.Request)
	remote        netip.AddrPort
	authorize     func(op conclave.Operation, path string) bool
	answersAbsent []string // patterns
	leasing       func(h *Harness) (conclave.Operation, string, map[string]any)
	state         *state
}

// state is what harnesses of one mount share.
type state struct {
	requests int
	events   []conclave.Event // emitted by what was committed
	shared   *space
	callers  map[string]*space // token id → the caller's part, for engines that are PerCaller
	leases   map[string]*conclave.GrantedLease
}

func (s *state) part(h *Harness) *space {
	if _, divided := h.engine.(conclave.PerCaller); !divided {
		return s.shared
	}
	if s.callers[h.caller.TokenID] == nil {
		s.callers[h.caller.TokenID] = newSpace()
	}
	return s.callers[h.caller.TokenID]
}

// Option changes how a harness is set up.
type Option func(*Harness)

// Mount changes the mount that the routes see.
func Mount(change func(*conclave.Mount)) Option { return func(h *Harness) { change(h.mount) } }

// MountOptions sets the mount's options, with which Conformance opens the engine.
func MountOptions(options map[string]string) Option {
	return func(h *Harness) { h.mount.Options = options }
}

// Authorize decides instead of policies; the default allows everything. Paths are relative to the mount.
func Authorize(allow func(op conclave.Operation, path string) bool) Option {
	return func(h *Harness) { h.authorize = allow }
}

// PasswordPolicies sets the namespace's password policies: name → text.
func PasswordPolicies(policies map[string]string) Option {
	return func(h *Harness) { h.passwordPolicies = policies }
}

// Header sets the request headers that routes see.
func Header(header map[string][]string) Option { return func(h *Harness) { h.header = header } }

// Remote sets the address that requests come from; without it they come from none.
func Remote(address netip.Addr) Option {
	return func(h *Harness) { h.remote = netip.AddrPortFrom(address, 50000) }
}

// Request changes each request before the engine sees it: where it comes from, which certificates it presents.
func Request(change func(*conclave.Request)) Option {
	return func(h *Harness) { h.change = change }
}

// Fast leaves out the checks that cost time: purity and unchanged values. It is for benchmarks.
func Fast() Option { return func(h *Harness) { h.fast = true } }

// New mounts the engine on empty storage, at "test/", called by a token with the policy default.
func New(t testing.TB, engine conclave.Engine, options ...Option) *Harness {
	t.Helper()
	now := start
	h := &Harness{
		setting: setting{t: t, now: &now,
			mount: &conclave.Mount{UUID: "3b0d3c0e-0000-4000-8000-000000000001", Path: "test/", Kind: engine.Kind(), Accessor: engine.Kind() + "_01234567",
				DefaultTTL: 768 * time.Hour, MaxTTL: 768 * time.Hour},
			caller: &conclave.Caller{TokenID: "token-1", Accessor: "accessor-1", DisplayName: "tester", EntityID: "entity-1", Policies: []string{"default"}, Type: "service"}},
		engine: engine, router: conclave.NewRouter(engine.Routes()),
		authorize: func(conclave.Operation, string) bool { return true },
		state:     &state{shared: newSpace(), callers: map[string]*space{}, leases: map[string]*conclave.GrantedLease{}},
	}
	for _, option := range options {
		option(h)
	}
	return h
}

// As returns a harness on the same storage and clock for another caller.
func (h *Harness) As(caller *conclave.Caller) *Harness {
	other := *h
	other.caller = caller
	return &other
}

// With returns a harness on the same storage and clock with other options.
func (h *Harness) With(options ...Option) *Harness {
	other := *h
	mount := *h.mount
	other.mount = &mount
	for _, option := range options {
		option(&other)
	}
	return &other
}

// Reopen returns a harness on the same storage and clock with another engine, as after a change of mount options.
func (h *Harness) Reopen(engine conclave.Engine) *Harness {
	other := *h
	other.engine, other.router = engine, conclave.NewRouter(engine.Routes())
	return &other
}

// Now is the cluster time of the next request.
func (h *Harness) Now() time.Time { return *h.now }

// Advance lets cluster time pass.
func (h *Harness) Advance(d time.Duration) { *h.now = h.now.Add(d) }

// Stored returns what is stored for the mount, or for the caller's part of it: path → value.
func (h *Harness) Stored() map[string][]byte { return maps.Clone(h.state.part(h).values) }

// View is the storage as the vault's own work sees it, such as the renewal of a login. What happens later isn't in it.
func (h *Harness) View() conclave.View { return h.begin(nil, false) }

func (h *Harness) begin(request *conclave.Request, writable bool) *tx {
	return newTx(&h.setting, h.state.part(h), request, writable, &progress{})
}

// RenewLogin has an auth method look at a login again, in a request to renew the login's token.
func (h *Harness) RenewLogin(login *conclave.Login) (*conclave.TokenTerms, error) {
	h.t.Helper()
	renewer, ok := h.engine.(conclave.Renewer)
	if !ok {
		h.t.Fatalf("%s has no say in renewals", h.engine.Kind())
	}
	request := &conclave.Request{ID: "renewal", Operation: conclave.Update, Path: "auth/token/renew-self", Header: h.header}
	if h.change != nil {
		h.change(request)
	}
	ctx := context.Background()
	if asker, ok := h.engine.(conclave.RenewalAsker); ok {
		before := h.begin(request, false)
		gathered, err := asker.GatherRenewal(before, login)
		before.checkLent()
		if err != nil {
			return nil, err
		}
		if gathered != nil {
			prepared, err := asker.AskRenewal(ctx, gathered)
			if err != nil {
				return nil, err
			}
			ctx = conclave.WithPrepared(ctx, prepared)
		}
	}
	view := h.begin(request, false)
	defer view.checkLent()
	return renewer.RenewLogin(ctx, view, login)
}

// Store puts a value into storage, past the engine: old formats, damage.
func (h *Harness) Store(path string, value []byte) {
	h.t.Helper()
	t := h.begin(nil, true)
	if err := t.Put(path, value); err != nil {
		h.t.Fatalf("Store(%q): %v", path, err)
	}
	if err := t.commit(); err != nil {
		h.t.Fatalf("Store(%q): %v", path, err)
	}
}

// Do runs one request. Fields are what a client would send as JSON, so that numbers reach the engine as json.Number.
func (h *Harness) Do(op conclave.Operation, path string, fields map[string]any) (*conclave.Response, error) {
	h.t.Helper()
	body, err := json.Marshal(fields)
	if err != nil {
		h.t.Fatalf("fields for %s %s: %v", op, path, err)
	}
	return h.DoJSON(op, path, body)
}

// DoJSON is Do with a body. A body that is no object is refused, as the edge does.
func (h *Harness) DoJSON(op conclave.Operation, path string, body []byte) (*conclave.Response, error) {
	h.t.Helper()
	return h.run(op, path, body, answered)
}

// run is one request, until a stage.
func (h *Harness) run(op conclave.Operation, path string, body []byte, until Stage) (*conclave.Response, error) {
	h.t.Helper()
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "body is not a JSON object")
	}
	h.state.requests++
	ctx := context.Background()
	route, params, err := h.router.Find(op, path)
	if err != nil {
		return nil, err
	}
	in, err := route.Bind(params, fields)
	if err != nil {
		return nil, err
	}
	request := &conclave.Request{ID: fmt.Sprintf("request-%d", h.state.requests), Operation: op, Path: h.mount.Path + path, Fields: fields, Body: body, Header: h.header, Remote: h.remote}
	if h.change != nil {
		h.change(request)
	}
	prepares := route.Prepare != nil
	if route.Gather != nil {
		first := h.begin(request, false)
		gathered, err := route.Gather(first, in)
		first.checkLent()
		if err != nil {
			return nil, err
		}
		ctx = conclave.WithGathered(ctx, gathered)
		if _, needless := gathered.(conclave.NoPreparation); needless {
			prepares = false
		}
	}
	with := &intended{request: request}
	if prepares {
		if ctx, with, err = h.intend(ctx, route, request, in); err != nil || until == AfterIntend {
			return nil, err
		}
		prepared, err := route.Prepare(ctx, request, in)
		if err != nil {
			h.settle(with, nil, err)
			return nil, err
		}
		if until == AfterPrepare {
			return nil, nil
		}
		ctx = conclave.WithPrepared(ctx, prepared)
	}
	t := h.begin(request, route.Writes())
	response, err := h.answer(ctx, route, t, in, params, path)
	h.settle(with, response, err)
	return response, err
}

// answer executes a request and commits it.
func (h *Harness) answer(ctx context.Context, route *conclave.Route, t *tx, in any, params map[string]string, path string) (*conclave.Response, error) {
	response, err := h.execute(ctx, route, t, in, path)
	if err != nil {
		return nil, err
	}
	if !h.fast {
		h.again(ctx, route, t, params, path)
	}
	if err := t.commit(); err != nil {
		return nil, err
	}
	h.emitted(t)
	return response, nil
}

// execute authorises and runs the handler, as the pipeline does within a transaction.
func (h *Harness) execute(ctx context.Context, route *conclave.Route, t *tx, in any, path string) (*conclave.Response, error) {
	op := t.request.Operation
	if op == conclave.Update && route.Exists != nil {
		exists, err := route.Exists(t, in)
		if err != nil {
			return nil, err
		}
		if !exists {
			op = conclave.Create
		}
	}
	needs := []conclave.Access{{Operation: op, Path: path}}
	if route.Needs != nil {
		needs = append(needs, route.Needs(in)...)
	}
	for _, need := range needs {
		if !route.Public && !h.authorize(need.Operation, need.Path) {
			return nil, conclave.Errorf(conclave.Denied, "permission denied")
		}
	}
	response, err := route.Handle(ctx, t, in)
	t.checkLent()
	if err == nil && t.failed != nil {
		h.t.Errorf("%s %s: the handler went on after an error of its Tx: %v", t.request.Operation, path, t.failed)
		err = t.failed
	}
	if err == nil && response == nil {
		h.t.Errorf("%s %s: the handler gave neither response nor error", t.request.Operation, path)
		response = &conclave.Response{}
	}
	return response, err
}

// again runs the handler once more from the same state, as after a conflict, and compares what it writes.
func (h *Harness) again(ctx context.Context, route *conclave.Route, first *tx, params map[string]string, path string) {
	in, err := route.Bind(params, first.request.Fields)
	if err != nil {
		h.t.Errorf("%s %s: bound once, then not: %v", first.request.Operation, path, err)
		return
	}
	second := h.begin(first.request, first.writable)
	if _, err := h.execute(ctx, route, second, in, path); err != nil {
		h.t.Errorf("%s %s: succeeded, then failed from the same state: %v", first.request.Operation, path, err)
		return
	}
	if !reflect.DeepEqual(first.writes, second.writes) || !reflect.DeepEqual(first.cells, second.cells) || !reflect.DeepEqual(first.wakes, second.wakes) || len(first.adds) != len(second.adds) ||
		!reflect.DeepEqual(first.events, second.events) {
		h.t.Errorf("%s %s: run twice from the same state, the handler wrote different things", first.request.Operation, path)
	}
}

// emitted keeps the events of a committed transaction. Those of one that wrote nothing are dropped, as the store does.
func (h *Harness) emitted(t *tx) {
	if len(t.writes)+len(t.cells)+len(t.adds) > 0 {
		h.state.events = append(h.state.events, t.events...)
	}
}

// TakeEvents returns the events that were emitted since it was last called.
func (h *Harness) TakeEvents() []conclave.Event {
	events := h.state.events
	h.state.events = nil
	return events
}

// Data runs a request that must succeed and returns its data as a client decodes it; nil for an empty answer.
func (h *Harness) Data(op conclave.Operation, path string, fields map[string]any) map[string]any {
	h.t.Helper()
	response, err := h.Do(op, path, fields)
	if err != nil {
		h.t.Fatalf("%s %s: %v", op, path, err)
	}
	return Decode(h.t, response.Data)
}

// Fails runs a request that must fail with an error of the kind, whose message contains text, and returns the error.
func (h *Harness) Fails(op conclave.Operation, path string, fields map[string]any, kind conclave.Kind, text string) *conclave.Error {
	h.t.Helper()
	_, err := h.Do(op, path, fields)
	failure, ok := errors.AsType[*conclave.Error](err)
	if !ok || failure.Kind != kind || !strings.Contains(failure.Error(), text) {
		h.t.Fatalf("%s %s: error is %v, want %s containing %q", op, path, err, kind, text)
	}
	return failure
}

// Decode gives an answer's data as a client decodes it, numbers as json.Number.
func Decode(t testing.TB, data any) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(data)
	if err != nil {
		t.Fatalf("answer can't be JSON: %v", err)
	}
	var decoded map[string]any
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	if err := decoder.Decode(&decoded); err != nil {
		t.Fatalf("answer is not an object: %s", encoded)
	}
	return decoded
}
