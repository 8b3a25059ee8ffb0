package pipeline

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"conclave"
	"conclave/identity"
	"conclave/mount"
)

// residents tells second factors about those who log in.
type residents struct{}

func (residents) Entity(view conclave.View, id string) (bool, error) {
	who, err := identity.Of(view, id)
	return who != nil && who.ID == id, err
}

func (residents) Group(view conclave.View, id string) (bool, error) {
	return identity.HasGroup(view, id)
}

func (residents) AuthMount(view conclave.View, accessor, kind string) (bool, error) {
	table, err := mount.Load(view, mount.Defaults{})
	for _, e := range table.Entries() {
		if e.Auth() && (e.Accessor == accessor || e.Kind == kind) {
			return true, err
		}
	}
	return false, err
}

// phone is somebody's authenticator.
type phone struct {
	method string
	seed   string
}

// code is the passcode of now, or of some hours later: the tests' passcodes are good for an hour, and for one before and after.
func (p *phone) code(t *testing.T, hours int) string {
	t.Helper()
	code, err := totp.GenerateCodeCustom(p.seed, time.Now().Add(time.Duration(hours)*time.Hour), totp.ValidateOpts{Period: 3600, Digits: 6})
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// wrong is a passcode that no hour around now has.
func (p *phone) wrong(t *testing.T) string {
	t.Helper()
	good := p.code(t, -1) + p.code(t, 0) + p.code(t, 1) + p.code(t, 2)
	for _, code := range []string{"000000", "111111", "222222", "333333", "444444"} {
		if !strings.Contains(good, code) {
			return code
		}
	}
	t.Fatal("no passcode is wrong")
	return ""
}

// method makes a method in a namespace.
func (h *house) method(t *testing.T, at, name string) string {
	t.Helper()
	resp := h.must(t, at, conclave.Update, "identity/mfa/method/totp", h.root, map[string]any{"issuer": "x", "method_name": name, "period": "3600", "qr_size": "0"})
	return field(t, resp, "method_id")
}

func field(t *testing.T, resp *conclave.Response, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(data(t, resp)), &fields); err != nil {
		t.Fatal(err)
	}
	text, _ := fields[name].(string)
	return text
}

// phone sets up an authenticator of an entity.
func (h *house) phone(t *testing.T, at, method, entity string) *phone {
	t.Helper()
	resp := h.must(t, at, conclave.Update, "identity/mfa/method/totp/admin-generate", h.root, map[string]any{"method_id": method, "entity_id": entity})
	set, err := url.Parse(field(t, resp, "url"))
	if err != nil {
		t.Fatal(err)
	}
	return &phone{method, set.Query().Get("secret")}
}

// guardedDoor is a house where logins at the door need a passcode of ann's phone.
func guardedDoor(t *testing.T) (h *house, ann string, p *phone) {
	t.Helper()
	h = newHouse(t)
	ann = h.must(t, "", conclave.Update, "auth/door/login/ann", conclave.Secret{}, nil).Auth.EntityID
	method := h.method(t, "", "phone")
	p = h.phone(t, "", method, ann)
	h.must(t, "", conclave.Update, "identity/mfa/login-enforcement/door", h.root, map[string]any{"mfa_method_ids": method, "auth_method_types": "knock"})
	return h, ann, p
}

// login logs in with values of the header X-Vault-MFA.
func (h *house) login(t *testing.T, path string, header ...string) (*conclave.Response, error) {
	t.Helper()
	req := &conclave.Request{ID: "r", Operation: conclave.Update, Path: path}
	for _, value := range header {
		req.MFA = append(req.MFA, conclave.NewSecret(value))
	}
	return h.Handle(t.Context(), req)
}

// pend logs in without a passcode and returns the id to finish with.
func (h *house) pend(t *testing.T, path string) string {
	t.Helper()
	resp, err := h.login(t, path)
	if err != nil || resp.Auth == nil || resp.Auth.MFARequirement == nil || !resp.Auth.ClientToken.Empty() || len(resp.Warnings) != 1 {
		t.Fatalf("a login without its second factor: %+v, %v", resp, err)
	}
	return resp.Auth.MFARequirement.RequestID
}

func (h *house) validate(t *testing.T, at, id, method, code string) (*conclave.Response, error) {
	t.Helper()
	return h.in(t, at, conclave.Update, "sys/mfa/validate", conclave.Secret{},
		map[string]any{"mfa_request_id": id, "mfa_payload": map[string]any{method: []any{code}}})
}

func TestLoginInTwoSteps(t *testing.T) {
	h, ann, p := guardedDoor(t)
	resp, err := h.login(t, "auth/door/login/ann")
	if err != nil {
		t.Fatal(err)
	}
	need := resp.Auth.MFARequirement
	if len(need.Constraints) != 1 || need.Constraints[0].Name != "door" || len(need.Constraints[0].Any) != 1 ||
		need.Constraints[0].Any[0] != (conclave.MFAMethod{Type: "totp", ID: p.method, Name: "phone", UsesPasscode: true}) {
		t.Errorf("the login needs %+v", need)
	}
	if _, err := h.validate(t, "", need.RequestID, p.method, p.wrong(t)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("a wrong passcode: %v", err)
	}
	done, err := h.validate(t, "", need.RequestID, p.method, " "+p.code(t, 0))
	if err != nil {
		t.Fatalf("after a wrong passcode the right one: %v", err)
	}
	if auth := done.Auth; auth.EntityID != ann || auth.DisplayName != "door-ann" || auth.TTL != time.Minute || auth.MFARequirement != nil {
		t.Errorf("the token is %+v", auth)
	}
	looked := h.must(t, "", conclave.Read, "auth/token/lookup-self", done.Auth.ClientToken, nil)
	if got := field(t, looked, "path"); got != "auth/door/login/ann" {
		t.Errorf("the token's path is %s", got)
	}
	if _, err := h.do(t, conclave.Update, "auth/token/renew-self", done.Auth.ClientToken); err != nil {
		t.Errorf("the token can't be renewed: %v", err)
	}
	if _, err := h.validate(t, "", need.RequestID, p.method, p.code(t, 1)); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("finished twice: %v", err)
	}
}

func TestLoginInOneStep(t *testing.T) {
	h, _, p := guardedDoor(t)
	for _, wrong := range []string{"phone", "phone:" + p.wrong(t), p.method + ":abcdef", "other:" + p.code(t, 0)} {
		if resp, err := h.login(t, "auth/door/login/ann", wrong); !conclave.Is(err, conclave.Denied) {
			t.Errorf("with %.6s…: %+v, %v", wrong, resp, err)
		}
	}
	for hours, name := range []string{"phone", p.method} {
		resp, err := h.login(t, "auth/door/login/ann", name+":"+p.code(t, hours))
		if err != nil || resp.Auth.ClientToken.Empty() {
			t.Errorf("with the right passcode: %+v, %v", resp, err)
		}
		if resp, err := h.login(t, "auth/door/login/ann", name+":\t"+p.code(t, hours)+" "); !conclave.Is(err, conclave.Denied) {
			t.Errorf("with the same again: %+v, %v", resp, err)
		}
	}
	if _, err := h.login(t, "auth/door/login/ann", "phone:1", "phone:2"); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("two passcodes at once: %v", err)
	}
	h.must(t, "", conclave.Delete, "identity/mfa/login-enforcement/door", h.root, nil)
	resp, err := h.login(t, "auth/door/login/ann", "phone:1")
	if err != nil || len(resp.Warnings) != 1 || resp.Auth.ClientToken.Empty() {
		t.Errorf("without an enforcement: %+v, %v", resp, err)
	}
}

func TestAPasscodeUsedInParallelLetsOneIn(t *testing.T) {
	h, _, p := guardedDoor(t)
	ids := []string{h.pend(t, "auth/door/login/ann"), h.pend(t, "auth/door/login/ann"), h.pend(t, "auth/door/login/ann"), h.pend(t, "auth/door/login/ann")}
	code := p.code(t, 0)
	var wait sync.WaitGroup
	var in, out atomic.Int64
	count := func(resp *conclave.Response, err error) {
		switch {
		case err == nil && !resp.Auth.ClientToken.Empty():
			in.Add(1)
		case conclave.Is(err, conclave.Denied), conclave.Is(err, conclave.Invalid):
			out.Add(1)
		default:
			t.Errorf("%+v, %v", resp, err)
		}
	}
	for i := range 24 {
		wait.Go(func() { count(h.validate(t, "", ids[i%len(ids)], p.method, strings.Repeat(" ", i)+code)) })
	}
	for range 8 {
		wait.Go(func() { count(h.login(t, "auth/door/login/ann", "phone:"+code)) })
	}
	wait.Wait()
	if in.Load() != 1 || out.Load() != 31 {
		t.Errorf("%d got in and %d didn't, want 1 and 31", in.Load(), out.Load())
	}
}

func TestALoginIsFinishedOnceInParallel(t *testing.T) {
	h, ann, p := guardedDoor(t)
	second := h.phone(t, "", h.method(t, "", "key"), ann)
	h.must(t, "", conclave.Update, "identity/mfa/login-enforcement/door", h.root, map[string]any{"mfa_method_ids": p.method + "," + second.method, "auth_method_types": "knock"})
	id := h.pend(t, "auth/door/login/ann")
	var wait sync.WaitGroup
	var in atomic.Int64
	for i, with := range []*phone{p, second, p, second} { // each passcode is right, and another
		wait.Go(func() {
			if _, err := h.validate(t, "", id, with.method, with.code(t, i/2)); err == nil {
				in.Add(1)
			} else if !conclave.Is(err, conclave.Invalid) && !conclave.Is(err, conclave.Denied) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if in.Load() != 1 {
		t.Errorf("%d tokens of one login", in.Load())
	}
}

func TestWrongPasscodesLockExactly(t *testing.T) {
	h, ann, p := guardedDoor(t)
	id := h.pend(t, "auth/door/login/ann")
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if _, err := h.validate(t, "", id, p.method, p.wrong(t)); !conclave.Is(err, conclave.Denied) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if _, err := h.validate(t, "", id, p.method, p.code(t, 0)); err != nil {
		t.Fatalf("after four wrong ones the right one: %v", err)
	}
	id = h.pend(t, "auth/door/login/ann")
	for range 20 {
		wait.Go(func() {
			if _, err := h.validate(t, "", id, p.method, p.wrong(t)); !conclave.Is(err, conclave.Denied) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if _, err := h.validate(t, "", id, p.method, p.code(t, 1)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("after five wrong ones the right one: %v", err)
	}
	if resp, err := h.login(t, "auth/door/login/ann", "phone:"+p.code(t, 1)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("locked, in one step: %+v, %v", resp, err)
	}
	tx, err := h.store.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	settings, ok, err := LockoutSettings(tx.System(), factorAccount+p.method)
	if err != nil || !ok || settings.Threshold != 5 {
		t.Errorf("the settings are %+v, %v, %v", settings, ok, err)
	}
	if _, ok, err := LockoutSettings(tx.System(), factorAccount+ann); ok || err != nil {
		t.Errorf("settings of no method: %v, %v", ok, err)
	}
}

func TestASecondFactorThatFailsIsNoWrongPassword(t *testing.T) {
	h := newHouse(t)
	method := h.method(t, "", "phone")
	var p *phone
	for _, path := range []string{"knock", "open"} { // looked at within the transaction, and before it
		right := map[string]any{"password": "right", "alias": "ann"}
		send := func(password string, header string) error {
			_, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "auth/door/" + path + "/" + path,
				Fields: map[string]any{"password": password, "alias": "ann"}, MFA: []conclave.Secret{conclave.NewSecret(header)}})
			return err
		}
		h.must(t, "", conclave.Delete, "identity/mfa/login-enforcement/door", h.root, nil)
		entity := h.must(t, "", conclave.Update, "auth/door/"+path+"/"+path, conclave.Secret{}, right).Auth.EntityID
		if p == nil {
			p = h.phone(t, "", method, entity)
		}
		h.must(t, "", conclave.Update, "identity/mfa/login-enforcement/door", h.root, map[string]any{"mfa_method_ids": method, "auth_method_types": "knock"})
		for range 7 { // more than would lock the password
			if err := send("right", "phone:"+p.wrong(t)); !conclave.Is(err, conclave.Denied) {
				t.Errorf("%s: a wrong passcode: %v", path, err)
			}
		}
		if resp := h.must(t, "", conclave.Update, "auth/door/"+path+"/"+path, conclave.Secret{}, right); resp.Auth.MFARequirement == nil {
			t.Errorf("%s: the right password: %+v", path, resp.Auth)
		}
		for range 5 {
			if err := send("guess", "phone:"+p.wrong(t)); !conclave.Is(err, conclave.Invalid) {
				t.Errorf("%s: a wrong password: %v", path, err)
			}
		}
		if err := send("right", "phone:"+p.wrong(t)); !conclave.Is(err, conclave.Denied) {
			t.Errorf("%s: a locked password: %v", path, err)
		}
	}
}

func TestAllEnforcementsMustBeMet(t *testing.T) {
	h, ann, p := guardedDoor(t)
	second := h.phone(t, "", h.method(t, "", "key"), ann)
	inner := field(t, h.must(t, "", conclave.Update, "identity/group", h.root, map[string]any{"name": "inner", "member_entity_ids": ann}), "id")
	outer := field(t, h.must(t, "", conclave.Update, "identity/group", h.root, map[string]any{"name": "outer", "member_group_ids": inner}), "id")
	h.must(t, "", conclave.Update, "identity/mfa/login-enforcement/group", h.root, map[string]any{"mfa_method_ids": second.method, "identity_group_ids": outer})
	if resp, err := h.login(t, "auth/door/login/ann", "phone:"+p.code(t, 0)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("with one of two: %+v, %v", resp, err)
	}
	// The passcode that was right isn't spent by a login that failed.
	resp, err := h.login(t, "auth/door/login/ann", "phone:"+p.code(t, 0), "key:"+second.code(t, 0))
	if err != nil || resp.Auth.ClientToken.Empty() {
		t.Fatalf("with both: %+v, %v", resp, err)
	}
	// One passcode meets all enforcements that its method is one of.
	h.must(t, "", conclave.Update, "identity/mfa/login-enforcement/group", h.root, map[string]any{"mfa_method_ids": p.method + "," + second.method, "identity_group_ids": outer})
	if _, err := h.login(t, "auth/door/login/ann", "phone:"+p.code(t, 1)); err != nil {
		t.Errorf("one passcode for both: %v", err)
	}
}

func TestWhatHasChangedMeanwhileCounts(t *testing.T) {
	h, ann, p := guardedDoor(t)
	id := h.pend(t, "auth/door/login/ann")
	h.must(t, "", conclave.Update, "identity/entity/id/"+ann, h.root, map[string]any{"name": "ann", "disabled": true})
	if _, err := h.validate(t, "", id, p.method, p.code(t, 0)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("of a disabled entity: %v", err)
	}
	h.must(t, "", conclave.Update, "identity/entity/id/"+ann, h.root, map[string]any{"name": "ann", "disabled": false})
	second := h.phone(t, "", h.method(t, "", "key"), ann)
	h.must(t, "", conclave.Update, "identity/mfa/login-enforcement/more", h.root, map[string]any{"mfa_method_ids": second.method, "identity_entity_ids": ann})
	if _, err := h.validate(t, "", id, p.method, p.code(t, 0)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("with an enforcement that came later: %v", err)
	}
	h.must(t, "", conclave.Delete, "identity/mfa/login-enforcement/more", h.root, nil)
	if _, err := h.validate(t, "", id, p.method, p.code(t, 0)); err != nil {
		t.Fatal(err)
	}
	id = h.pend(t, "auth/door/login/ann")
	h.must(t, "", conclave.Delete, "identity/entity/id/"+ann, h.root, nil)
	if _, err := h.validate(t, "", id, p.method, p.code(t, 1)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("of a deleted entity: %v", err)
	}
	// Who comes again is another, without a key.
	if _, err := h.login(t, "auth/door/login/ann", "phone:"+p.code(t, 1)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("with the key of a deleted entity: %v", err)
	}
	id = h.pend(t, "auth/door/login/bob")
	h.must(t, "", conclave.Delete, "sys/auth/door", h.root, nil)
	if _, err := h.validate(t, "", id, p.method, p.code(t, 1)); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("of a mount that is gone: %v", err)
	}
}

func TestNobodyFinishesAnothersLogin(t *testing.T) {
	h, _, p := guardedDoor(t)
	bob := h.pend(t, "auth/door/login/bob")
	if _, err := h.validate(t, "", bob, p.method, p.code(t, 0)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("bob's login with ann's passcode: %v", err)
	}
	for _, id := range []string{"", "x", "00000000-0000-4000-8000-000000000000", "../" + bob, strings.ToUpper(bob) + " ", " " + bob} {
		if _, err := h.validate(t, "", id, p.method, p.code(t, 0)); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("the id %q: %v", id, err)
		}
	}
	if _, err := h.in(t, "", conclave.Update, "sys/mfa/validate", conclave.Secret{}, map[string]any{"mfa_request_id": bob}); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("without a payload: %v", err)
	}
	nobody, err := h.login(t, "auth/door/knock/none")
	if err == nil {
		t.Errorf("a login that fails its first factor: %+v", nobody)
	}
}

func TestSecondFactorsOfOneNamespaceMeanNothingInAnother(t *testing.T) {
	h, ann, p := guardedDoor(t)
	for _, name := range []string{"team", "other"} {
		h.must(t, "", conclave.Update, "sys/namespaces/"+name, h.root, nil)
	}
	h.fails(t, conclave.NotFound, "team/", conclave.Read, "identity/mfa/method/totp/"+p.method, h.root, nil)
	h.fails(t, conclave.NotFound, "team/", conclave.Read, "identity/mfa/login-enforcement/door", h.root, nil)
	h.fails(t, conclave.Invalid, "team/", conclave.Update, "identity/mfa/login-enforcement/x", h.root, map[string]any{"mfa_method_ids": p.method, "auth_method_types": "token"})
	h.fails(t, conclave.Invalid, "team/", conclave.Update, "identity/mfa/method/totp/admin-generate", h.root, map[string]any{"method_id": p.method, "entity_id": ann})
	method := h.method(t, "team/", "phone")
	h.fails(t, conclave.Invalid, "team/", conclave.Update, "identity/mfa/method/totp/admin-generate", h.root, map[string]any{"method_id": method, "entity_id": ann})
	resp, err := h.login(t, "auth/door/login/ann", "phone:"+p.code(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	h.must(t, "team/", conclave.Update, "sys/policies/acl/self", h.root, map[string]any{"policy": `path "*" { capabilities = ["update"] }`})
	h.must(t, "", conclave.Update, "sys/policies/acl/dev", h.root, map[string]any{"policy": `path "team/*" { capabilities = ["update"] }`})
	h.fails(t, conclave.Invalid, "team/", conclave.Update, "identity/mfa/method/totp/generate", resp.Auth.ClientToken, map[string]any{"method_id": method})
	id := h.pend(t, "auth/door/login/ann")
	if _, err := h.validate(t, "team/", id, p.method, p.code(t, 1)); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("finished in another namespace: %v", err)
	}
	if _, err := h.validate(t, "", id, p.method, p.code(t, 1)); err != nil {
		t.Errorf("and where it began: %v", err)
	}
}

func TestAFinishedLoginCanBeWrapped(t *testing.T) {
	h, _, p := guardedDoor(t)
	id := h.pend(t, "auth/door/login/ann")
	resp, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/mfa/validate", WrapTTL: time.Minute,
		Fields: map[string]any{"mfa_request_id": id, "mfa_payload": map[string]any{p.method: []any{p.code(t, 0)}}}})
	if err != nil || resp.Wrap == nil || resp.Auth != nil || resp.Wrap.WrappedAccessor == "" {
		t.Fatalf("a wrapped token: %+v, %v", resp, err)
	}
	pending, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "auth/door/login/ann", WrapTTL: time.Minute})
	if err != nil || pending.Wrap == nil || pending.Auth != nil {
		t.Errorf("a wrapped requirement: %+v, %v", pending, err)
	}
}

func TestAFinishedLoginComesFromWhereItMay(t *testing.T) {
	h, _, p := guardedDoor(t)
	id := h.pend(t, "auth/door/login/neighbour")
	tx, err := h.store.Begin()
	if err != nil {
		t.Fatal(err)
	}
	table, err := mount.Load(tx.System(), mount.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	accessor := table.Entries()[slices.IndexFunc(table.Entries(), func(e *mount.Entry) bool { return e.Kind == "knock" })].Accessor
	tx.Close()
	entity := field(t, h.must(t, "", conclave.Update, "identity/lookup/entity", h.root, map[string]any{"alias_name": "neighbour", "alias_mount_accessor": accessor}), "id")
	p = h.phone(t, "", p.method, entity)
	for _, from := range []string{"198.51.100.1:1", "192.0.2.1:1"} {
		_, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "sys/mfa/validate", Remote: netip.MustParseAddrPort(from),
			Fields: map[string]any{"mfa_request_id": id, "mfa_payload": map[string]any{p.method: []any{p.code(t, 0)}}}})
		if near := strings.HasPrefix(from, "192."); near != (err == nil) || !near && !conclave.Is(err, conclave.Denied) {
			t.Errorf("from %s: %v", from, err)
		}
	}
}

func TestBatchTokensNeedSecondFactorsToo(t *testing.T) {
	h, _, p := guardedDoor(t)
	h.must(t, "", conclave.Update, "sys/auth/door/tune", h.root, map[string]any{"token_type": "batch"})
	id := h.pend(t, "auth/door/login/ann")
	resp, err := h.validate(t, "", id, p.method, p.code(t, 0))
	if err != nil || resp.Auth.TokenType != "batch" {
		t.Fatalf("%+v, %v", resp, err)
	}
	if _, err := h.do(t, conclave.Read, "auth/token/lookup-self", resp.Auth.ClientToken); err != nil {
		t.Errorf("the token doesn't work: %v", err)
	}
	resp, err = h.login(t, "auth/door/login/ann", "phone:"+p.code(t, 1))
	if err != nil || resp.Auth.TokenType != "batch" {
		t.Errorf("in one step: %+v, %v", resp, err)
	}
}

func TestWhoHasNoEntityHasNoSecondFactor(t *testing.T) {
	h, _, p := guardedDoor(t)
	right := map[string]any{"password": "right"}
	h.fails(t, conclave.Denied, "", conclave.Update, "auth/door/knock/ann", conclave.Secret{}, right)
	_, err := h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: conclave.Update, Path: "auth/door/knock/ann", Fields: right,
		MFA: []conclave.Secret{conclave.NewSecret("phone:" + p.code(t, 0))}})
	if !conclave.Is(err, conclave.Denied) {
		t.Errorf("with ann's passcode: %v", err)
	}
}

func TestAMergeLosesNoEnforcement(t *testing.T) {
	h, ann, p := guardedDoor(t)
	h.must(t, "", conclave.Update, "identity/mfa/login-enforcement/door", h.root, map[string]any{"mfa_method_ids": p.method, "auth_method_types": "", "identity_entity_ids": ann})
	survivor := field(t, h.must(t, "", conclave.Update, "identity/entity", h.root, map[string]any{"name": "survivor"}), "id")
	id := h.pend(t, "auth/door/login/ann")
	h.must(t, "", conclave.Update, "identity/entity/merge", h.root, map[string]any{"from_entity_ids": ann, "to_entity_id": survivor})
	for _, header := range []string{"phone", "phone:" + p.code(t, 0)} {
		if resp, err := h.login(t, "auth/door/login/ann", header); !conclave.Is(err, conclave.Denied) {
			t.Errorf("after the merge, with the key of one that is no more: %+v, %v", resp, err)
		}
	}
	if _, err := h.validate(t, "", id, p.method, p.code(t, 0)); !conclave.Is(err, conclave.Denied) {
		t.Errorf("a login that began before: %v", err)
	}
	p = h.phone(t, "", p.method, survivor)
	if resp, err := h.validate(t, "", id, p.method, p.code(t, 0)); err != nil || resp.Auth.EntityID != survivor {
		t.Errorf("with the survivor's key: %+v, %v", resp, err)
	}
	// What an enforcement names may be gone by the time it is written again.
	h.must(t, "", conclave.Update, "identity/mfa/login-enforcement/door", h.root, map[string]any{"mfa_method_ids": p.method, "auth_method_types": "knock"})
	if got := field(t, h.must(t, "", conclave.Read, "identity/mfa/login-enforcement/door", h.root, nil), "name"); got != "door" {
		t.Errorf("its name is %q", got)
	}
}
