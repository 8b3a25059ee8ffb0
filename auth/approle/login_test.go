package approle

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func TestLoginSaysWhoAndOnWhatTerms(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/Web", fields{"role_id": "web-id", "token_policies": "web", "token_ttl": 60, "token_num_uses": 9, "alias_metadata": fields{"team": "a", "role_name": "lie"}})
	secret := h.Data(conclave.Update, "role/web/secret-id", fields{"metadata": `{"env":"prod","role_name":"lie"}`, "token_bound_cidrs": "192.0.2.0/24"})["secret_id"]
	for _, spelling := range []string{"%s", " %s", "%s\n"} {
		got := logIn(t, h, fmt.Sprintf(spelling, "web-id"), fmt.Sprintf(spelling, secret))
		var internal remembered
		if err := json.Unmarshal(got.Internal, &internal); err != nil || internal.Role != "web" || internal.UID == "" {
			t.Errorf("internal is %s, %v", got.Internal, err)
		}
		got.Internal = nil
		metadata := map[string]string{"env": "prod", "role_name": "web"}
		want := &conclave.Login{Alias: conclave.Alias{Name: "web-id", Metadata: map[string]string{"env": "prod", "role_name": "web", "team": "a"}},
			Metadata: metadata, Role: "web", Renewable: true,
			Terms: conclave.TokenTerms{Policies: []string{"web"}, TTL: 60, NumUses: 9, Type: "default", BoundCIDRs: []string{"192.0.2.0/24"}}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("login is\n%+v, want\n%+v", got, want)
		}
	}
}

func TestFailedLoginsAnswerAlike(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	h.Data(conclave.Update, "role/other", fields{"role_id": "other"})
	h.Data(conclave.Update, "role/open", fields{"role_id": "open", "bind_secret_id": false, "token_bound_cidrs": "198.51.100.0/24"})
	secret := h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id"].(string)
	accessor := h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id_accessor"]
	expired := h.Data(conclave.Update, "role/a/secret-id", fields{"ttl": 60})["secret_id"]
	destroyed := h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id"]
	h.Data(conclave.Update, "role/a/secret-id/destroy", fields{"secret_id": destroyed})
	h.Advance(time.Minute)
	logIn(t, h, "a", secret)
	h.Fails(conclave.Update, "login", fields{"secret_id": secret}, conclave.Invalid, "missing role_id")
	h.Fails(conclave.Update, "login", fields{"role_id": " ", "secret_id": secret}, conclave.Invalid, "missing role_id")
	for _, row := range []fields{
		{"role_id": "a", "secret_id": "wrong"},
		{"role_id": "a", "secret_id": ""},
		{"role_id": "a"},
		{"role_id": "a", "secret_id": accessor},
		{"role_id": "a", "secret_id": expired},
		{"role_id": "a", "secret_id": destroyed},
		{"role_id": "a", "secret_id": strings.ToUpper(secret)},
		{"role_id": "a", "secret_id": secret + "\u200b"},
		{"role_id": "a", "secret_id": secret[:35]},
		{"role_id": "a", "secret_id": strings.Repeat("x", maxSecretID+1)},
		{"role_id": "other", "secret_id": secret},
		{"role_id": "A", "secret_id": secret},
		{"role_id": "a\x00", "secret_id": secret},
		{"role_id": "none", "secret_id": secret},
		{"role_id": "none"},
		{"role_id": "open"},
		{"role_id": "open", "secret_id": secret},
		{"role_id": strings.Repeat("x", 5000), "secret_id": secret},
	} {
		failure := h.Fails(conclave.Update, "login", row, conclave.Invalid, "invalid role or secret ID")
		if failure.Error() != "invalid role or secret ID" || failure.Data != nil {
			t.Errorf("%v: the answer is %q", row, failure)
		}
	}
}

func TestUsesAreTakenExactly(t *testing.T) {
	for _, uses := range []int{1, 2, 5} {
		h := mounted(t)
		h.Data(conclave.Update, "role/a", fields{"role_id": "a", "secret_id_num_uses": 5, "secret_id_bound_cidrs": "192.0.2.0/24"})
		made := h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": uses})
		elsewhere := h.With(enginetest.Remote(netip.MustParseAddr("198.51.100.1")))
		for range 10 { // what fails takes none
			elsewhere.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": made["secret_id"]}, conclave.Invalid, "source address unauthorized by CIDR restrictions on the role")
		}
		good := 0
		for n := range 3 * uses {
			_, err := h.Do(conclave.Update, "login", fields{"role_id": "a", "secret_id": made["secret_id"]})
			if err == nil {
				good++
			}
			if err == nil && n+1 < uses {
				left := h.Data(conclave.Update, "role/a/secret-id/lookup", fields{"secret_id": made["secret_id"]})["secret_id_num_uses"]
				if fmt.Sprint(left) != fmt.Sprint(uses-n-1) {
					t.Errorf("%v uses are left after %d of %d", left, n+1, uses)
				}
			}
		}
		if good != uses {
			t.Errorf("a secret-id of %d uses logged in %d times", uses, good)
		}
		response, err := h.Do(conclave.Update, "role/a/secret-id/lookup", fields{"secret_id": made["secret_id"]})
		if err != nil || response.Data != nil {
			t.Errorf("lookup of a used-up secret-id: %v, %v; want an empty answer", response, err)
		}
		h.Fails(conclave.Update, "role/a/secret-id-accessor/lookup", fields{"secret_id_accessor": made["secret_id_accessor"]}, conclave.NotFound, "failed to find accessor entry")
	}
}

// TestLoginsTakeUsesByTheCounter: what a login with limited uses writes is one conditional addition, judged when the
// transaction is, so that rivals for the last use neither share it nor wait for each other; without a limit, nothing.
func TestLoginsTakeUsesByTheCounter(t *testing.T) {
	for uses, want := range map[int]int{0: 0, 1: 1, 2: 1} {
		h := mounted(t)
		h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
		made := h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": uses})
		spied := &spy{View: h.View(), request: &conclave.Request{Remote: netip.MustParseAddrPort("192.0.2.1:1")}}
		if _, err := login(context.Background(), spied, &loginIn{RoleID: "a", SecretID: conclave.NewSecret(made["secret_id"].(string))}); err != nil {
			t.Fatal(err)
		}
		if spied.taken != want || spied.written != 0 || spied.loaded != 2 {
			t.Errorf("%d uses: a login took %d, wrote %d and read %d records; want %d, 0 and 2", uses, spied.taken, spied.written, spied.loaded, want)
		}
	}
}

// spy counts what a handler does.
type spy struct {
	conclave.View
	request                *conclave.Request
	loaded, written, taken int
}

func (s *spy) Request() *conclave.Request { return s.request }
func (s *spy) Load(path string, decode func([]byte) (any, error)) (any, error) {
	s.loaded++
	return s.View.Load(path, decode)
}
func (s *spy) Put(string, []byte) error          { s.written++; return nil }
func (s *spy) PutNew(string, []byte) error       { s.written++; return nil }
func (s *spy) Delete(string) error               { s.written++; return nil }
func (s *spy) SetCell(string, int64, bool) error { s.written++; return nil }
func (s *spy) Wake(string, time.Time) error      { s.written++; return nil }
func (s *spy) Emit(conclave.Event) error         { s.written++; return nil }
func (s *spy) AddCell(_ string, delta, floor int64, refusal error) error {
	if delta != -1 || floor != 0 || refusal == nil {
		s.written++
	}
	s.taken++
	return nil
}

func TestAddressesBindLogins(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a", "secret_id_bound_cidrs": "192.0.2.0/24", "token_bound_cidrs": "192.0.2.0/25,10.0.0.0/8"})
	plain := h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id"]
	narrow := h.Data(conclave.Update, "role/a/secret-id", fields{"cidr_list": "192.0.2.7", "token_bound_cidrs": "192.0.2.0/28"})["secret_id"]
	for _, row := range []struct {
		from   string
		secret any
		text   string // of the refusal, "" if it logs in
	}{
		{"192.0.2.9", plain, ""}, {"::ffff:192.0.2.9", plain, ""}, {"192.0.2.200", plain, "on the token"}, {"10.0.0.1", plain, "on the role"}, {"2001:db8::1", plain, "on the role"},
		{"192.0.2.7", narrow, ""}, {"192.0.2.8", narrow, "on the secret ID"},
	} {
		_, err := h.With(enginetest.Remote(netip.MustParseAddr(row.from))).Do(conclave.Update, "login", fields{"role_id": "a", "secret_id": row.secret})
		if (err == nil) != (row.text == "") || err != nil && !strings.HasSuffix(err.Error(), row.text) {
			t.Errorf("from %s: %v, want %q", row.from, err, row.text)
		}
		if err != nil && strings.Contains(err.Error(), row.from) {
			t.Errorf("the error shows the address: %v", err)
		}
	}
	if got := logIn(t, h, "a", narrow).Terms.BoundCIDRs; !reflect.DeepEqual(got, []string{"192.0.2.0/28"}) {
		t.Errorf("the token is bound to %v", got)
	}
	// What the role narrows afterwards holds for secret-ids that were made before.
	h.Data(conclave.Update, "role/a", fields{"token_bound_cidrs": "192.0.2.4/30"})
	if got := logIn(t, h, "a", narrow).Terms.BoundCIDRs; !reflect.DeepEqual(got, []string{"192.0.2.4/30"}) {
		t.Errorf("the token is bound to %v", got)
	}
	h.Data(conclave.Update, "role/a", fields{"token_bound_cidrs": "198.51.100.0/24"})
	h.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": narrow}, conclave.Invalid, "on the token")
	nowhere := h.With(enginetest.Remote(netip.Addr{}))
	nowhere.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": plain}, conclave.Invalid, "on the role")
}

func TestRoleWithoutSecretIDsNeedsItsAddress(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a", "bind_secret_id": false, "secret_id_bound_cidrs": "192.0.2.0/24"})
	logIn(t, h, "a", "")
	logIn(t, h, "a", "whatever")
	elsewhere := h.With(enginetest.Remote(netip.MustParseAddr("198.51.100.1")))
	elsewhere.Fails(conclave.Update, "login", fields{"role_id": "a"}, conclave.Invalid, "invalid role or secret ID")
	h.Fails(conclave.Update, "role/a/secret-id", nil, conclave.Invalid, "bind_secret_id is not set on the role")
	h.Fails(conclave.Delete, "role/a/secret-id-bound-cidrs", nil, conclave.Invalid, "at least one constraint")
	h.Data(conclave.Update, "role/a/bind-secret-id", fields{"bind_secret_id": true})
	h.Fails(conclave.Update, "login", fields{"role_id": "a"}, conclave.Invalid, "invalid role or secret ID")
}

func TestNobodyLocksAFleetOut(t *testing.T) {
	if route := loginRoute(); !route.Public || route.Prepare != nil || route.Guess != nil {
		t.Error("a login is public, prepares nothing and locks nobody")
	}
}

func TestRenewalFollowsTheRole(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a", "token_ttl": 60})
	secret := h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id"]
	login := logIn(t, h, "a", secret)
	renew := func() (*conclave.TokenTerms, error) {
		return Engine{}.RenewLogin(context.Background(), h.View(), login)
	}
	h.Data(conclave.Update, "role/a", fields{"token_ttl": 120, "token_period": 30})
	for range 2 {
		terms, err := renew()
		if err != nil || terms.TTL != 120 || terms.Period != 30 {
			t.Fatalf("terms are %+v, %v; want those that hold now", terms, err)
		}
		terms.TTL = 0 // whoever gets them may change them
	}
	h.Data(conclave.Delete, "role/a", nil)
	if _, err := renew(); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "does not exist during renewal") {
		t.Errorf("renewal without the role: %v", err)
	}
	h.Data(conclave.Update, "role/a", fields{"role_id": "a", "token_ttl": 3600})
	if _, err := renew(); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("renewal with another role of the same name: %v", err)
	}
	login.Internal = json.RawMessage("{")
	if _, err := renew(); !conclave.Is(err, conclave.Internal) {
		t.Errorf("renewal of a damaged login: %v", err)
	}
}

func BenchmarkLogin(b *testing.B) {
	for _, uses := range []int{0, 1 << 30} {
		b.Run(fmt.Sprintf("uses=%d", uses), func(b *testing.B) {
			h := mounted(b, enginetest.Fast())
			h.Data(conclave.Update, "role/a", fields{"role_id": "a", "token_policies": "a,b"})
			secret := h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": uses, "metadata": "env=prod"})["secret_id"]
			view := &spy{View: h.View(), request: &conclave.Request{Remote: netip.MustParseAddrPort("192.0.2.1:1")}}
			in := &loginIn{RoleID: "a", SecretID: conclave.NewSecret(secret.(string))}
			for b.Loop() {
				if _, err := login(context.Background(), view, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
