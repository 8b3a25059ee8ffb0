package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/engine/cubbyhole"
	"conclave/engine/kv"
	"conclave/fsm"
	"conclave/identity"
	"conclave/mfa"
	"conclave/mount"
	"conclave/policy"
	"conclave/store"
	"conclave/token"
)

// knocker is an auth method that lets in who knocks, until the door is shut.
type knocker struct{ opened *atomic.Int64 }

type passwordInput struct {
	knockInput
	Password string `json:"password" doc:"The password."`
	Alias    string `json:"alias" doc:"As whom the identity store knows who knocks."`
}

// guessed are two routes for passwords: one looks at them within the transaction, one before it.
func (k knocker) guessed() []conclave.Route {
	judge := func(_ context.Context, _ conclave.Tx, in *passwordInput) (*conclave.Response, error) {
		if in.Password != "right" {
			return nil, conclave.Errorf(conclave.Invalid, "wrong")
		}
		return &conclave.Response{Login: &conclave.Login{DisplayName: in.Name, Alias: conclave.Alias{Name: in.Alias}}}, nil
	}
	name := func(_ *conclave.Request, in any) string { return in.(*passwordInput).Name }
	inside := conclave.WriteRoute(conclave.Update, "knock/{name}", "Say a password.", judge).With(conclave.Public)
	before := conclave.WriteRoute(conclave.Update, "open/{name}", "Say a password, which is slow to look at.", judge).With(conclave.Public)
	inside.Guess, before.Guess = name, name
	before.Prepare = func(context.Context, *conclave.Request, any) (any, error) {
		k.opened.Add(1)
		return nil, nil
	}
	return []conclave.Route{inside, before}
}

type knockInput struct {
	Name string `path:"name" doc:"Who knocks."`
}

type doorKey struct {
	Key string `json:"key" doc:"The key."`
}

func (doorKey) AccessorOf() string { return "its-number" }

func (knocker) Kind() string { return "knock" }

func (k knocker) Routes() []conclave.Route {
	return append(k.guessed(), conclave.WriteRoute(conclave.Update, "login/{name}", "Knock.",
		func(_ context.Context, tx conclave.Tx, in *knockInput) (*conclave.Response, error) {
			if in.Name == "stranger" {
				return nil, conclave.Errorf(conclave.Invalid, "nobody knows you")
			}
			terms := conclave.TokenTerms{Policies: []string{"dev"}, TTL: 60, MaxTTL: 100}
			var groups []string
			if in.Name == "member" {
				groups = []string{"club"}
			}
			if in.Name == "neighbour" {
				terms.BoundCIDRs = []string{"192.0.2.0/24"}
			}
			return &conclave.Response{Login: &conclave.Login{Alias: conclave.Alias{Name: in.Name}, Groups: groups,
				DisplayName: in.Name, Renewable: true, Terms: terms}}, nil
		}).With(conclave.Public),
		conclave.ReadRoute(conclave.Read, "key", "A key to the door.", func(context.Context, conclave.View, *conclave.None) (*doorKey, error) { return &doorKey{"k3y"}, nil }),
		conclave.WriteRoute(conclave.Update, "shut", "Shut the door.", func(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.None, error) {
			return nil, tx.Put("shut", []byte("yes"))
		}))
}

// GatherRenewal has the neighbours asked who belongs to a club, about those who belong to one.
func (knocker) GatherRenewal(view conclave.View, login *conclave.Login) (any, error) {
	if login.Alias.Name != "member" {
		return nil, nil
	}
	shut, err := view.Get("shut")
	return "member" + string(shut), err
}

func (knocker) AskRenewal(_ context.Context, gathered any) (any, error) {
	if gathered != "member" {
		return nil, conclave.Errorf(conclave.Unavailable, "nobody answers")
	}
	return []string{}, nil
}

func (knocker) RenewLogin(ctx context.Context, view conclave.View, login *conclave.Login) (*conclave.TokenTerms, error) {
	login.Groups, _ = conclave.Prepared[[]string](ctx)
	if shut, err := view.Get("shut"); err != nil || shut != nil {
		return nil, conclave.Errorf(conclave.Denied, "the door is shut")
	}
	terms := login.Terms
	terms.TTL = 80
	return &terms, nil
}

type noSudo struct{}

func (noSudo) Sudo(context.Context, string) bool { return false }

func (noSudo) Allows(conclave.View, conclave.Operation, string) (bool, error) { return false, nil }

// doorOnly knows one mount that an alias could be of.
type doorOnly struct{}

func (doorOnly) ByAccessor(_ conclave.View, accessor string) (path, kind string, local, ok bool, err error) {
	return "auth/door/", "knock", false, strings.HasPrefix(accessor, "auth_knock_"), nil
}

func (noSudo) Touches(context.Context, string) bool { return false }

// anyKV knows one engine and one auth method.
type anyKV struct{}

func (anyKV) Plugin(_ string, auth bool) (conclave.Plugin, bool) {
	if auth {
		return knockPlugin(nil), true
	}
	return kv.Plugin(), true
}

func knockPlugin(opened *atomic.Int64) conclave.Plugin {
	return conclave.Plugin{Kind: "knock", Auth: true, Open: func(map[string]string) (conclave.Engine, error) { return knocker{opened}, nil }}
}

// house is a pipeline with the auth method mounted at auth/door/.
type house struct {
	*Pipeline
	root   conclave.Secret
	opened *atomic.Int64 // passwords that were looked at before the transaction
}

func newHouse(t *testing.T) *house {
	t.Helper()
	d := newDuo(t)
	s := store.New(d.follower, d, time.Now)
	opened := &atomic.Int64{}
	plugin := knockPlugin(opened)
	p := New(Config{Store: s, Recorder: NewRecorder("n1"), Gate: &Gate{}, Policies: policy.NewCache(), Plugins: []conclave.Plugin{plugin, kv.Plugin(), cubbyhole.Plugin()},
		System: slices.Concat(policy.Routes(), namespaceRoutes(), mount.Routes(mount.Setup{Plugins: anyKV{}, Access: noSudo{}, Namespaces: namespaceAt, Random: rand.Reader}),
			[]conclave.Route{conclave.ReadRoute(conclave.Read, "cluster-wide", "Is the root namespace's.",
				func(context.Context, conclave.View, *conclave.None) (*conclave.None, error) { return nil, nil }).With(conclave.OfCluster)}),
		Token: func(l token.Logins) []conclave.Route { return token.Routes(noSudo{}, l, rand.Reader) },
		Identity: slices.Concat(identity.Routes(identity.Setup{Mounts: doorOnly{}, Access: noSudo{}, Random: rand.Reader}),
			mfa.Routes(mfa.Setup{Directory: residents{}, Random: rand.Reader})),
		Random: rand.Reader, Envelope: func(resp *conclave.Response) ([]byte, error) { return json.Marshal(map[string]any{"data": resp.Data}) },
		Logger: hclog.NewNullLogger()})
	root := d.found(s)
	tx, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if err := mount.Add(tx.System(), "auth/door/", "knock", nil, "", rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context(), fsm.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
	return &house{p, root, opened}
}

func (h *house) do(t *testing.T, op conclave.Operation, path string, with conclave.Secret) (*conclave.Response, error) {
	t.Helper()
	return h.Handle(t.Context(), &conclave.Request{ID: "r1", Operation: op, Path: path, Token: with})
}

func TestLoginMakesAToken(t *testing.T) {
	h := newHouse(t)
	resp, err := h.do(t, conclave.Update, "auth/door/login/ann", conclave.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	auth := resp.Auth
	if auth == nil || auth.ClientToken.Empty() || auth.DisplayName != "door-ann" || auth.TTL != time.Minute || !auth.Orphan ||
		!slices.Equal(auth.Policies, []string{"default", "dev"}) || resp.Login != nil {
		t.Fatalf("the login answers %+v", auth)
	}
	if _, err := h.do(t, conclave.Read, "auth/token/lookup-self", auth.ClientToken); err != nil {
		t.Errorf("the token can't look itself up: %v", err)
	}
	resp, err = h.do(t, conclave.Update, "auth/token/renew-self", auth.ClientToken)
	if err != nil || resp.Auth.TTL != 80*time.Second {
		t.Errorf("renewed to %+v, %v, want what the method says now", resp, err)
	}
	if _, err := h.do(t, conclave.Update, "auth/door/shut", h.root); err != nil {
		t.Fatal(err)
	}
	if _, err := h.do(t, conclave.Update, "auth/token/renew-self", auth.ClientToken); !conclave.Is(err, conclave.Denied) {
		t.Errorf("renewed past a shut door: %v", err)
	}
}

func TestRenewalAsksOutsideAndFollowsTheGroups(t *testing.T) {
	h := newHouse(t)
	accessor := map[string]struct{ Accessor string }{}
	if err := json.Unmarshal([]byte(data(t, h.must(t, "", conclave.Read, "sys/auth", h.root, nil))), &accessor); err != nil {
		t.Fatal(err)
	}
	group := data(t, h.must(t, "", conclave.Update, "identity/group", h.root, map[string]any{"name": "club", "type": "external", "policies": "club"}))
	var made struct{ ID string }
	if err := json.Unmarshal([]byte(group), &made); err != nil {
		t.Fatal(err)
	}
	h.must(t, "", conclave.Update, "identity/group-alias", h.root, map[string]any{"name": "club", "mount_accessor": accessor["door/"].Accessor, "canonical_id": made.ID})
	auth := h.must(t, "", conclave.Update, "auth/door/login/member", conclave.Secret{}, nil).Auth
	if !slices.Contains(auth.Policies, "club") {
		t.Fatalf("policies %q", auth.Policies)
	}
	for path, by := range map[string]conclave.Secret{"renew-self": auth.ClientToken, "renew": h.root, "renew-accessor": h.root} {
		fields := map[string]any{"accessor": auth.Accessor, "token": auth.ClientToken.Reveal()}
		renewed := h.must(t, "", conclave.Update, "auth/token/"+path, by, fields).Auth
		if slices.Contains(renewed.Policies, "club") || renewed.TTL != 80*time.Second {
			t.Errorf("%s: policies %q, %v, after the group was left", path, renewed.Policies, renewed.TTL)
		}
	}
	if _, err := h.do(t, conclave.Update, "auth/door/shut", h.root); err != nil {
		t.Fatal(err)
	}
	if _, err := h.do(t, conclave.Update, "auth/token/renew-self", auth.ClientToken); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("renewed though nobody could be asked: %v", err)
	}
}

func TestFailedLoginMakesNone(t *testing.T) {
	h := newHouse(t)
	if resp, err := h.do(t, conclave.Update, "auth/door/login/stranger", conclave.Secret{}); !conclave.Is(err, conclave.Invalid) || resp != nil {
		t.Errorf("a stranger gets %+v, %v", resp, err)
	}
	keys, err := h.do(t, conclave.List, "auth/token/accessors/", h.root)
	if err != nil {
		t.Fatal(err)
	}
	var listed struct{ Keys []string }
	if data, ok := keys.Data.(json.RawMessage); !ok || json.Unmarshal(data, &listed) != nil || len(listed.Keys) != 1 {
		t.Errorf("accessors after a failed login: %s, want the root token's alone", keys.Data)
	}
}

func TestLoginHasWhatItsIdentityHas(t *testing.T) {
	h := newHouse(t)
	h.must(t, "", conclave.Update, "sys/mounts/secret", h.root, map[string]any{"type": "kv"})
	h.must(t, "", conclave.Update, "sys/policies/acl/own", h.root, map[string]any{
		"policy": `path "secret/{{identity.entity.name}}/*" { capabilities = ["create", "update", "read"] }`})
	auth := h.must(t, "", conclave.Update, "auth/door/login/ann", conclave.Secret{}, nil).Auth
	if auth.EntityID == "" {
		t.Fatal("the login has no entity")
	}
	h.fails(t, conclave.Denied, "", conclave.Update, "secret/ann/x", auth.ClientToken, map[string]any{"a": "b"})
	entity := map[string]any{"name": "ann", "policies": []any{"own", "root", " ROOT"}}
	h.fails(t, conclave.Invalid, "", conclave.Update, "identity/entity/id/"+auth.EntityID, h.root, entity)
	h.must(t, "", conclave.Update, "identity/entity/id/"+auth.EntityID, h.root, map[string]any{"name": "ann", "policies": "own"})
	h.must(t, "", conclave.Update, "secret/ann/x", auth.ClientToken, map[string]any{"a": "b"})
	h.fails(t, conclave.Denied, "", conclave.Update, "secret/bob/x", auth.ClientToken, map[string]any{"a": "b"})
	h.fails(t, conclave.Denied, "", conclave.Read, "sys/policies/acl/own", auth.ClientToken, nil)

	again := h.must(t, "", conclave.Update, "auth/door/login/ann", conclave.Secret{}, nil).Auth
	if again.EntityID != auth.EntityID || !slices.Equal(again.Policies, []string{"default", "dev", "own"}) || !slices.Equal(again.TokenPolicies, []string{"default", "dev"}) {
		t.Errorf("logged in again as %+v", again)
	}
	h.must(t, "", conclave.Update, "identity/entity/id/"+auth.EntityID, h.root, map[string]any{"name": "ann", "disabled": true})
	h.fails(t, conclave.Denied, "", conclave.Read, "auth/token/lookup-self", auth.ClientToken, nil)
	h.fails(t, conclave.Denied, "", conclave.Update, "auth/door/login/ann", conclave.Secret{}, nil)
	h.must(t, "", conclave.Delete, "identity/entity/id/"+auth.EntityID, h.root, nil)
	h.fails(t, conclave.Denied, "", conclave.Read, "auth/token/lookup-self", again.ClientToken, nil)
}
