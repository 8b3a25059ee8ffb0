package token

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// sudoOn answers for policies in tests: the paths on which a caller that isn't root has sudo.
type sudoOn []string

func (s sudoOn) Sudo(_ context.Context, path string) bool {
	return slices.Contains(s, path)
}

type bench struct {
	t testing.TB
	*enginetest.Memory
	sudo sudoOn
	root conclave.Secret
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, Memory: newMemory(t)}
	b.SetMount(&conclave.Mount{Path: "auth/token/", DefaultTTL: 24 * time.Hour, MaxTTL: 240 * time.Hour})
	b.root = makeRoot(t, b.Memory)
	return b
}

// as runs a route in a transaction as the pipeline would for the holder of a token. What a refused request wrote can be
// seen until the next one.
func (b *bench) as(secret conclave.Secret, op conclave.Operation, path string, fields map[string]any) (*conclave.Response, error) {
	b.t.Helper()
	b.Rollback()
	b.SetRequest(&conclave.Request{Operation: op, Path: "auth/token/" + path, Token: secret, Fields: fields})
	caller, record, err := Authenticate(b, b.Namespace(), secret)
	if err != nil {
		return nil, err
	}
	b.SetCaller(caller)
	route, params, err := conclave.NewRouter(Routes(b.sudo, noLogins{}, rand.Reader)).Find(op, path)
	if err != nil {
		return nil, err
	}
	in, err := route.Bind(params, fields)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	needsNone := false
	if route.Gather != nil {
		gathered, err := route.Gather(b, in)
		if err != nil {
			return nil, err
		}
		_, needsNone = gathered.(conclave.NoPreparation)
	}
	if route.Prepare != nil && !needsNone {
		prepared, err := route.Prepare(ctx, b.Request(), in)
		if err != nil {
			return nil, err
		}
		ctx = conclave.WithPrepared(ctx, prepared)
	}
	if err := Spend(b, record); err != nil {
		return nil, err
	}
	response, err := route.Handle(ctx, b, in)
	if err != nil {
		return nil, err
	}
	return response, b.Commit()
}

func (b *bench) must(secret conclave.Secret, op conclave.Operation, path string, fields map[string]any) *conclave.Response {
	b.t.Helper()
	response, err := b.as(secret, op, path, fields)
	if err != nil {
		b.t.Fatalf("%v %s: %v", op, path, err)
	}
	return response
}

func (b *bench) create(by conclave.Secret, fields map[string]any) *conclave.Auth {
	b.t.Helper()
	return b.must(by, conclave.Update, "create", fields).Auth
}

// members are a response's data as a client sees them.
func members(t testing.TB, response *conclave.Response) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(response.Data)
	var m map[string]any
	if err == nil {
		err = json.Unmarshal(encoded, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func list(names ...string) []any {
	var items []any
	for _, name := range names {
		items = append(items, name)
	}
	return items
}

func TestLookupAnswersAsVaultDoes(t *testing.T) {
	b := newBench(t)
	got := members(t, b.must(b.root, conclave.Read, "lookup-self", nil))
	want := map[string]any{"creation_time": 1.7e9, "creation_ttl": 0.0, "display_name": "root", "entity_id": "", "expire_time": nil,
		"explicit_max_ttl": 0.0, "id": b.root.Reveal(), "meta": nil, "num_uses": 0.0, "orphan": true, "path": "auth/token/root",
		"policies": list("root"), "renewable": false, "ttl": 0.0, "type": "service", "accessor": got["accessor"]}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("root: %v, want %v", got, want)
	}
	auth := b.create(b.root, map[string]any{"policies": list("ops"), "ttl": "1h", "meta": map[string]any{"who": "ann"}, "display_name": "ann@host", "num_uses": json.Number("5"), "explicit_max_ttl": "2h"})
	b.Advance(10 * time.Second)
	want = map[string]any{"creation_time": 1.7e9, "creation_ttl": 3600.0, "display_name": "token-ann-host", "entity_id": "",
		"expire_time": "2023-11-14T23:13:20Z", "issue_time": "2023-11-14T22:13:20Z", "explicit_max_ttl": 7200.0, "id": "", "meta": map[string]any{"who": "ann"},
		"num_uses": 5.0, "orphan": false, "path": "auth/token/create", "policies": list("default", "ops"), "renewable": true,
		"ttl": 3590.0, "type": "service", "accessor": auth.Accessor}
	for path, id := range map[string]string{"lookup": auth.ClientToken.Reveal(), "lookup-accessor": ""} {
		want["id"] = id
		got := members(t, b.must(b.root, conclave.Update, path, map[string]any{"token": auth.ClientToken.Reveal(), "accessor": auth.Accessor}))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	for _, path := range []string{"lookup", "lookup-self"} {
		got := members(t, b.must(auth.ClientToken, conclave.Read, path, nil))
		if got["id"] != auth.ClientToken.Reveal() || got["num_uses"].(float64) > 4 {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestLookupTellsTheNamespace(t *testing.T) {
	b := newBench(t)
	_, r := issued(t, b.Memory, "")
	b.SetRequest(&conclave.Request{Namespace: "team/"})
	out, err := (&routes{logins: noLogins{}}).describe(b, r, "")
	if err != nil || out.NamespacePath != "team/" {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestChildGetsNoMoreThanItsParent(t *testing.T) {
	b := newBench(t)
	parent := b.create(b.root, map[string]any{"policies": list("a", "b")}).ClientToken
	bare := b.create(b.root, map[string]any{"policies": list("a"), "no_default_policy": true}).ClientToken
	tests := []struct {
		by     conclave.Secret
		fields map[string]any
		want   []string // nil is refused
	}{
		{parent, nil, []string{"a", "b", "default"}},
		{parent, map[string]any{"policies": list("a")}, []string{"a", "default"}},
		{parent, map[string]any{"policies": list("A ", "a")}, []string{"a", "default"}},
		{parent, map[string]any{"policies": "a,b", "no_default_policy": true}, []string{"a", "b"}},
		{parent, map[string]any{"policies": list("c")}, nil},
		{parent, map[string]any{"policies": list("root")}, nil},
		{parent, map[string]any{"policies": list(" ROOT ")}, nil},
		{bare, nil, []string{"a"}},
		{bare, map[string]any{"policies": list("a")}, []string{"a"}},
		{bare, map[string]any{"policies": list("default")}, nil},
		{b.root, nil, []string{"root"}},
		{b.root, map[string]any{"policies": list("z")}, []string{"default", "z"}},
		{b.root, map[string]any{"policies": list("root", "z")}, []string{"root"}},
		{b.root, map[string]any{"policies": list("response-wrapping")}, nil},
	}
	for _, test := range tests {
		response, err := b.as(test.by, conclave.Update, "create", test.fields)
		if test.want == nil {
			if !conclave.Is(err, conclave.Invalid) {
				t.Errorf("%v: %v, want a refusal", test.fields, err)
			}
			continue
		}
		if err != nil || !slices.Equal(response.Auth.Policies, test.want) {
			t.Errorf("%v: %v, %v, want %v", test.fields, response, err, test.want)
		}
	}
	b.sudo = sudoOn{"auth/token/create"}
	if auth := b.create(parent, map[string]any{"policies": list("c")}); !slices.Equal(auth.Policies, []string{"c", "default"}) {
		t.Errorf("with sudo: %v", auth.Policies)
	}
	if _, err := b.as(parent, conclave.Update, "create", map[string]any{"policies": list("root")}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("sudo made root: %v", err)
	}
}

func TestSomeOptionsNeedSudo(t *testing.T) {
	for name, fields := range map[string]map[string]any{"id": {"id": "my-own"}, "no_parent": {"no_parent": true}, "period": {"period": "1h"}} {
		b := newBench(t)
		by := b.create(b.root, map[string]any{"policies": list("a")}).ClientToken
		if _, err := b.as(by, conclave.Update, "create", fields); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s without sudo: %v", name, err)
		}
		b.sudo = sudoOn{"auth/token/create"}
		if _, err := b.as(by, conclave.Update, "create", fields); err != nil {
			t.Errorf("%s with sudo: %v", name, err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	b := newBench(t)
	limited := b.create(b.root, map[string]any{"policies": list("a"), "num_uses": "3"}).ClientToken
	mortal := b.create(b.root, map[string]any{"ttl": "1h"}).ClientToken
	taken := b.create(b.root, map[string]any{"id": "taken"}).ClientToken
	if taken.Reveal() != "taken" {
		t.Fatal("the id wasn't used")
	}
	tests := []struct {
		by     conclave.Secret
		fields map[string]any
		want   string
	}{
		{limited, nil, "restricted use token"},
		{mortal, nil, "expiring root tokens"},
		{b.root, map[string]any{"id": "taken"}, "duplicate"},
		{b.root, map[string]any{"id": "hvs.x"}, "token id"},
		{b.root, map[string]any{"id": "a b"}, "token id"},
		{b.root, map[string]any{"id": "ä"}, "ASCII"},
		{b.root, map[string]any{"type": "default-service"}, "service"},
		{b.root, map[string]any{"type": "batch"}, "root"},
		{b.root, map[string]any{"ttl": "-1h"}, "positive"},
		{b.root, map[string]any{"ttl": "200000d"}, ""},
		{b.root, map[string]any{"ttl": "40000d"}, "hundred years"},
		{b.root, map[string]any{"period": "-1h"}, "positive"},
		{b.root, map[string]any{"explicit_max_ttl": "-1h"}, "positive"},
		{b.root, map[string]any{"num_uses": "-1"}, "negative"},
		{b.root, map[string]any{"entity_alias": "x"}, "role"},
		{b.root, map[string]any{"ttl": "soon"}, "ttl"},
	}
	for _, test := range tests {
		before := len(b.Values())
		_, err := b.as(test.by, conclave.Update, "create", test.fields)
		if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want %q", test.fields, err, test.want)
		}
		if len(b.Values()) != before {
			t.Errorf("%v wrote", test.fields)
		}
	}
}

func TestLifetimesAreBounded(t *testing.T) {
	day, hour := 24*time.Hour, time.Hour
	tests := []struct {
		fields map[string]any
		want   time.Duration
		warns  bool
	}{
		{nil, day, false},
		{map[string]any{"ttl": "1h"}, hour, false},
		{map[string]any{"lease": "1h"}, hour, false},
		{map[string]any{"ttl": "1000h"}, 240 * hour, true},
		{map[string]any{"ttl": "10h", "explicit_max_ttl": "2h"}, 2 * hour, true},
		{map[string]any{"explicit_max_ttl": "2h"}, 2 * hour, false},
		{map[string]any{"explicit_max_ttl": "1000h"}, day, true},
		{map[string]any{"period": "3h", "ttl": "1h"}, 3 * hour, false},
		{map[string]any{"period": "1000h"}, 240 * hour, true},
		{map[string]any{"period": "3h", "explicit_max_ttl": "2h"}, 2 * hour, true},
	}
	for _, test := range tests {
		b := newBench(t)
		fields := map[string]any{"policies": list("a")}
		for k, v := range test.fields {
			fields[k] = v
		}
		response := b.must(b.root, conclave.Update, "create", fields)
		if response.Auth.TTL != test.want || len(response.Warnings) > 0 != test.warns {
			t.Errorf("%v: %v, warnings %q; want %v", test.fields, response.Auth.TTL, response.Warnings, test.want)
		}
		b.Advance(test.want - time.Second)
		if !lives(b.Memory, response.Auth.ClientToken) {
			t.Errorf("%v: ended early", test.fields)
		}
		b.Advance(time.Second)
		if lives(b.Memory, response.Auth.ClientToken) {
			t.Errorf("%v: lives after its end", test.fields)
		}
	}
}

func TestRenewProlongsWithinTheMaximum(t *testing.T) {
	b := newBench(t)
	auth := b.create(b.root, map[string]any{"policies": list("a"), "ttl": "2h", "explicit_max_ttl": "5h"})
	self, hour := auth.ClientToken, time.Hour
	b.Advance(hour)
	for _, step := range []struct {
		path   string
		fields map[string]any
		by     conclave.Secret
		want   time.Duration
	}{
		{"renew-self", nil, self, 2 * hour},
		{"renew-self", map[string]any{"increment": "3h"}, self, 3 * hour},
		{"renew", map[string]any{"token": self.Reveal(), "increment": "9h"}, b.root, 4 * hour},
		{"renew", nil, self, 2 * hour},
		{"renew-accessor", map[string]any{"accessor": auth.Accessor, "increment": json.Number("60")}, b.root, time.Minute},
	} {
		got := b.must(step.by, conclave.Update, step.path, step.fields).Auth
		if got.TTL != step.want || got.Accessor != auth.Accessor || (step.path == "renew-accessor") != got.ClientToken.Empty() {
			t.Errorf("%s %v: %v, want %v", step.path, step.fields, got.TTL, step.want)
		}
	}
	count := 0
	for path := range b.Values() {
		if strings.HasPrefix(path, expiryDir) {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d entries in the index of expiry, want 1", count)
	}
	b.Advance(time.Minute)
	if _, err := b.as(self, conclave.Update, "renew-self", nil); !conclave.Is(err, conclave.Denied) {
		t.Errorf("an expired token was renewed: %v", err)
	}
	periodic := b.create(b.root, map[string]any{"policies": list("a"), "period": "1h"}).ClientToken
	for range 500 { // beyond the mount's maximum
		b.Advance(59 * time.Minute)
		if got := b.must(periodic, conclave.Update, "renew-self", map[string]any{"increment": "5h"}).Auth; got.TTL != hour {
			t.Fatalf("periodic: %v", got.TTL)
		}
	}
}

func TestRenewRefuses(t *testing.T) {
	b := newBench(t)
	fixed := b.create(b.root, map[string]any{"policies": list("a"), "renewable": false})
	good := b.create(b.root, map[string]any{"policies": list("a")})
	for _, test := range []struct {
		path   string
		fields map[string]any
		want   conclave.Kind
	}{
		{"renew-self", nil, conclave.Invalid}, // root has no end
		{"renew", map[string]any{"token": fixed.ClientToken.Reveal()}, conclave.Invalid},
		{"renew", map[string]any{"token": "hvs.unknown"}, conclave.Denied},
		{"renew-accessor", map[string]any{"accessor": fixed.Accessor}, conclave.Invalid},
		{"renew-accessor", map[string]any{"accessor": "unknown"}, conclave.Denied},
		{"renew-accessor", nil, conclave.Invalid},
		{"renew", map[string]any{"token": good.ClientToken.Reveal(), "increment": "-5"}, conclave.Invalid},
	} {
		if _, err := b.as(b.root, conclave.Update, test.path, test.fields); !conclave.Is(err, test.want) {
			t.Errorf("%s %v: %v, want %v", test.path, test.fields, err, test.want)
		}
	}
}

func TestRevokeRoutes(t *testing.T) {
	for _, path := range []string{"revoke", "revoke-self", "revoke-accessor", "revoke-orphan"} {
		b := newBench(t)
		auth := b.create(b.root, map[string]any{"policies": list("a")})
		child := b.create(auth.ClientToken, nil).ClientToken
		by, fields := b.root, map[string]any{"token": auth.ClientToken.Reveal(), "accessor": auth.Accessor}
		if path == "revoke-self" {
			by, fields = auth.ClientToken, nil
		}
		if response := b.must(by, conclave.Update, path, fields); response.Data != nil || response.Auth != nil {
			t.Errorf("%s answered %+v", path, response)
		}
		if lives(b.Memory, auth.ClientToken) || lives(b.Memory, child) != (path == "revoke-orphan") {
			t.Errorf("%s: token %v, child %v", path, lives(b.Memory, auth.ClientToken), lives(b.Memory, child))
		}
		if path == "revoke-orphan" {
			if got := members(t, b.must(child, conclave.Read, "lookup-self", nil)); got["orphan"] != true {
				t.Error("the child isn't told to be an orphan")
			}
		}
		for look, kind := range map[string]conclave.Kind{"lookup": conclave.Denied, "lookup-accessor": conclave.Denied} {
			_, err := b.as(b.root, conclave.Update, look, map[string]any{"token": auth.ClientToken.Reveal(), "accessor": auth.Accessor})
			if !conclave.Is(err, kind) || look == "lookup" && err.Error() != "bad token" {
				t.Errorf("%s after %s: %v", look, path, err)
			}
		}
	}
}

func TestRevokeRefuses(t *testing.T) {
	b := newBench(t)
	for _, test := range []struct {
		path   string
		fields map[string]any
		want   conclave.Kind
	}{
		{"revoke", nil, conclave.Invalid},
		{"revoke-orphan", nil, conclave.Invalid},
		{"revoke-orphan", map[string]any{"token": "unknown"}, conclave.Invalid},
		{"revoke-accessor", nil, conclave.Invalid},
		{"revoke-accessor", map[string]any{"accessor": "../id/x"}, conclave.Denied},
		{"lookup-accessor", map[string]any{"accessor": strings.Repeat("a", 25)}, conclave.Denied},
		{"lookup-accessor", map[string]any{"accessor": strings.Repeat("/", 24)}, conclave.Denied},
		{"lookup-accessor", nil, conclave.Invalid},
		{"lookup", map[string]any{"token": strings.Repeat("a", 1000)}, conclave.Denied},
	} {
		if _, err := b.as(b.root, conclave.Update, test.path, test.fields); !conclave.Is(err, test.want) {
			t.Errorf("%s %v: %v, want %v", test.path, test.fields, err, test.want)
		}
	}
	if _, err := b.as(b.root, conclave.Update, "revoke", map[string]any{"token": "unknown"}); err != nil {
		t.Errorf("revoking an unknown token: %v", err)
	}
	if _, err := b.as(b.root, conclave.Delete, "revoke", nil); !conclave.Is(err, conclave.Unsupported) {
		t.Errorf("DELETE revoke: %v", err)
	}
}

func TestOrphansOutliveTheirMaker(t *testing.T) {
	b := newBench(t)
	maker := b.create(b.root, map[string]any{"policies": list("a")})
	orphan := b.must(maker.ClientToken, conclave.Update, "create-orphan", nil).Auth
	if !orphan.Orphan {
		t.Error("not an orphan")
	}
	b.must(b.root, conclave.Update, "revoke", map[string]any{"token": maker.ClientToken.Reveal()})
	if !lives(b.Memory, orphan.ClientToken) {
		t.Error("the orphan died with its maker")
	}
}

func TestLastUseCanRevokeItself(t *testing.T) {
	b := newBench(t)
	auth := b.create(b.root, map[string]any{"policies": list("a"), "num_uses": "1"})
	b.must(auth.ClientToken, conclave.Update, "revoke-self", nil)
	if _, more, err := tidy(b.Memory, 10); err != nil || more || len(b.Cells()) != 0 {
		t.Errorf("left: %v, %v", b.Cells(), err)
	}
	used := b.create(b.root, map[string]any{"policies": list("a"), "num_uses": "1"})
	b.must(used.ClientToken, conclave.Read, "lookup-self", nil)
	if _, err := b.as(b.root, conclave.Update, "lookup", map[string]any{"token": used.ClientToken.Reveal()}); !conclave.Is(err, conclave.Denied) {
		t.Errorf("a used-up token is shown: %v", err)
	}
}

func TestAccessorsAreListed(t *testing.T) {
	b := newBench(t)
	auth := b.create(b.root, map[string]any{"policies": list("a")})
	keys := members(t, b.must(b.root, conclave.List, "accessors/", nil))["keys"].([]any)
	if len(keys) != 2 || !slices.Contains(keys, any(auth.Accessor)) {
		t.Errorf("keys = %v", keys)
	}
	page := members(t, b.must(b.root, conclave.List, "accessors/", map[string]any{"after": keys[0], "limit": "5"}))["keys"].([]any)
	if len(page) != 1 {
		t.Errorf("page = %v", page)
	}
}

func TestWhichRoutesNeedSudo(t *testing.T) {
	for _, route := range Routes(sudoOn{}, noLogins{}, rand.Reader) {
		want := route.Pattern == "accessors" || route.Pattern == "revoke-orphan"
		if route.Sudo != want || route.Public {
			t.Errorf("%s: sudo %v, public %v", route.Pattern, route.Sudo, route.Public)
		}
	}
}

func TestNoRandomnessNoToken(t *testing.T) {
	for _, route := range Routes(sudoOn{}, noLogins{}, strings.NewReader("")) {
		if route.Prepare == nil {
			continue
		}
		if _, err := route.Prepare(context.Background(), nil, nil); err == nil {
			t.Errorf("%s was prepared", route.Pattern)
		}
	}
}

// noLogins is a vault whose tokens come from no auth method.
type noLogins struct{}

func (noLogins) EntityOf(_ conclave.Tx, alias string) (string, error) {
	return "entity-of-" + alias, nil
}

func (noLogins) PoliciesOf(_ conclave.View, entityID string) ([]string, error) {
	return []string{"of-" + entityID}, nil
}

func (noLogins) RenewLogin(context.Context, conclave.Tx, string, *conclave.Login) (*conclave.TokenTerms, *conclave.Mount, error) {
	return nil, nil, conclave.Errorf(conclave.Invalid, "there are no auth methods")
}

func (noLogins) GatherRenewal(conclave.View, string, *conclave.Login) (any, error) { return nil, nil }

func (noLogins) AskRenewal(context.Context, any) (any, error) {
	return nil, conclave.Errorf(conclave.Internal, "nobody is to be asked")
}

func TestAccessorsAreListedInPages(t *testing.T) {
	b := newBench(t)
	var want []string
	for i := range 9 {
		fields := map[string]any{"policies": list("a")}
		if i%3 == 0 {
			fields["id"] = "chosen-" + strings.Repeat("x", i)
		}
		want = append(want, b.create(b.root, fields).Accessor)
	}
	want = append(want, members(t, b.must(b.root, conclave.Read, "lookup-self", nil))["accessor"].(string))
	slices.Sort(want)
	for _, limit := range []int{0, 1, 3, 10, 20} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page, err := listAccessors(b, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, page...); limit == 0 || len(page) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %d: %q, want %q", limit, got, want)
		}
	}
}

func TestTidyDoesAStepAtOnce(t *testing.T) {
	b := newBench(t)
	parent := b.create(b.root, map[string]any{"ttl": "1h"}).ClientToken
	for range tidyStep + 1 {
		b.create(parent, map[string]any{"policies": list("a")})
	}
	b.must(b.root, conclave.Update, "revoke", map[string]any{"token": parent.Reveal()})
	before := len(b.Values())
	for _, want := range []string{"in the background", "nothing more"} {
		response := b.must(b.root, conclave.Update, "tidy", nil)
		if response.Status != 202 || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], want) {
			t.Errorf("%d, %q, want %q", response.Status, response.Warnings, want)
		}
	}
	if after := len(b.Values()); after > before-3*(tidyStep+1) {
		t.Errorf("%d of %d values are left", after, before)
	}
}

func TestLoginGetsNoPolicyOfTheVaultsOwn(t *testing.T) {
	b := newBench(t)
	mount := &conclave.Mount{Path: "auth/door/", UUID: "u"}
	for policy, want := range map[string]bool{"dev": true, "Response-Wrapping ": false, "control-group": false, " ROOT": false} {
		for _, login := range []*conclave.Login{{Policies: []string{policy}}, {Terms: conclave.TokenTerms{Policies: []string{policy}}}} {
			_, err := Login(b, mint(t), login, Granted{}, mount, "auth/door/login")
			if (b.End(err) == nil) != want || err != nil && !conclave.Is(err, conclave.Invalid) {
				t.Errorf("%q: %v", policy, err)
			}
		}
	}
}

func TestTypeOfALoginsToken(t *testing.T) {
	for _, test := range []struct{ mount, terms, want string }{
		{"", "default", service}, {"", "batch", batch}, {"", "default-batch", batch}, {"default-service", "default", service}, {"default-service", "batch", batch},
		{"default-batch", "default", batch}, {"default-batch", "service", service}, {"default-batch", "default-service", service},
		{"service", "batch", service}, {"batch", "service", batch},
	} {
		if got := typeOf(test.terms, &conclave.Mount{TokenType: test.mount}); got != test.want {
			t.Errorf("mount %q, terms %q: %s, want %s", test.mount, test.terms, got, test.want)
		}
	}
}
