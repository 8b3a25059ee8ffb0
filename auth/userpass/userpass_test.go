package userpass

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"conclave"
	"conclave/engine/enginetest"
)

// cheap is the method with hashes that cost little, so that tests are quick.
func cheap() *Engine { return open(bcrypt.MinCost) }

func TestConformance(t *testing.T) { enginetest.Conformance(t, plugin(bcrypt.MinCost)) }

type fields = map[string]any

func mounted(t testing.TB, options ...enginetest.Option) *enginetest.Harness {
	return enginetest.New(t, cheap(), append([]enginetest.Option{enginetest.Remote(netip.MustParseAddr("192.0.2.7"))}, options...)...)
}

func logIn(t testing.TB, h *enginetest.Harness, name, password string) *conclave.Login {
	t.Helper()
	response, err := h.Do(conclave.Update, "login/"+name, fields{"password": password})
	if err != nil || response.Login == nil {
		t.Fatalf("login: %+v, %v", response, err)
	}
	return response.Login
}

func TestUserKeepsWhatIsNotGiven(t *testing.T) {
	h := mounted(t)
	h.Fails(conclave.Read, "users/ann", nil, conclave.NotFound, "")
	h.Data(conclave.Update, "users/Ann", fields{"password": "one two", "token_policies": "Dev, ops", "token_ttl": "10m"})
	h.Data(conclave.Update, "users/ANN", fields{"token_max_ttl": 3600, "alias_metadata": "team=a"})
	want := enginetest.Decode(t, fields{"token_bound_cidrs": []string{}, "token_explicit_max_ttl": 0, "token_max_ttl": 3600, "token_no_default_policy": false,
		"token_num_uses": 0, "token_period": 0, "token_policies": []string{"dev", "ops"}, "token_ttl": 600, "token_type": "default", "alias_metadata": fields{"team": "a"}})
	if got := h.Data(conclave.Read, "users/ann", nil); !reflect.DeepEqual(got, want) {
		t.Errorf("user is\n%v, want\n%v", got, want)
	}
	logIn(t, h, "ann", "one two")
	for path, value := range h.Stored() {
		if bytes.Contains(value, []byte("one two")) {
			t.Errorf("%s holds the password", path)
		}
	}
}

func TestOldNamesAreTakenUnlessTodaysAreGiven(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "users/a", fields{"password": "x", "policies": "old", "ttl": "1m", "max_ttl": "1h", "bound_cidrs": "192.0.2.0/24"})
	h.Data(conclave.Update, "users/b", fields{"password": "x", "policies": "old", "token_policies": "new"})
	a, b := h.Data(conclave.Read, "users/a", nil), h.Data(conclave.Read, "users/b", nil)
	for _, row := range []struct{ got, want any }{
		{a["token_policies"], []any{"old"}}, {a["token_ttl"], json.Number("60")}, {a["token_max_ttl"], json.Number("3600")},
		{a["token_bound_cidrs"], []any{"192.0.2.0/24"}}, {b["token_policies"], []any{"new"}},
	} {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("got %v, want %v", row.got, row.want)
		}
	}
}

func TestUsersThatCannotBe(t *testing.T) {
	h := mounted(t)
	hash := "$2y$05$/Hk9H/XYMFQeTH5.Dl6EjOtSlDnnGQGkLBOmiNmFTpRFtLAZkAaDO"
	for _, row := range []struct {
		fields fields
		text   string
	}{
		{nil, "missing password"},
		{fields{"password": ""}, "missing password"},
		{fields{"password": strings.Repeat("x", maxPassword+1)}, "at most 72 bytes"},
		{fields{"password": strings.Repeat("é", 37)}, "at most 72 bytes"},
		{fields{"password": "a\x00a"}, "NUL"},
		{fields{"password": "x", "password_hash": hash}, "only one of"},
		{fields{"password_hash": "x"}, "not a valid bcrypt hash"},
		{fields{"password_hash": hash[:59]}, "not a valid bcrypt hash"},
		{fields{"password_hash": hash + "x"}, "not a valid bcrypt hash"},
		{fields{"password_hash": strings.Replace(hash, "2y", "2x", 1)}, "not a valid bcrypt hash"},
		{fields{"password_hash": strings.Replace(hash, "05", "03", 1)}, "not a valid bcrypt hash"},
		{fields{"password_hash": strings.Replace(hash, "05", "+5", 1)}, "not a valid bcrypt hash"},
		{fields{"password_hash": strings.Replace(hash, "05", "13", 1)}, "exceeds maximum cost"},
		{fields{"password_hash": strings.Replace(hash, "O", "!", 1)}, "not a valid bcrypt hash"},
		{fields{"password": "x", "token_policies": []string{" Root"}}, "root"},
		{fields{"password": "x", "token_bound_cidrs": "nonsense"}, "neither an address"},
		{fields{"password": "x", "token_ttl": -1}, "negative"},
		{fields{"password": "x", "alias_metadata": fields{"k": strings.Repeat("x", maxText+1)}}, "metadata"},
	} {
		h.Fails(conclave.Update, "users/a", row.fields, conclave.Invalid, row.text)
	}
	for _, name := range []string{"a b", "ann ", " ann", "änn", "ann\u200b", "-a", "a.", "a*", "a+", "a\x00", strings.Repeat("a", maxName+1)} {
		h.Fails(conclave.Update, "users/"+name, fields{"password": "x"}, conclave.Invalid, "a user's name")
		h.Fails(conclave.Read, "users/"+name, nil, conclave.NotFound, "")
		h.Fails(conclave.Update, "users/"+name+"/password", fields{"password": "x"}, conclave.NotFound, "username does not exist")
		h.Data(conclave.Delete, "users/"+name, nil)
	}
	if stored := h.Stored(); len(stored) != 0 {
		t.Errorf("stored is %v", stored)
	}
}

func TestListAndDelete(t *testing.T) {
	h := mounted(t)
	h.Fails(conclave.List, "users", nil, conclave.NotFound, "")
	for _, name := range []string{"C", "a", "b"} {
		h.Data(conclave.Update, "users/"+name, fields{"password": "x"})
	}
	h.Data(conclave.Delete, "users/B", nil)
	h.Data(conclave.Delete, "users/b", nil)
	if keys := h.Data(conclave.List, "users", nil)["keys"]; !reflect.DeepEqual(keys, []any{"a", "c"}) {
		t.Errorf("users are %v", keys)
	}
	if keys := h.Data(conclave.List, "users", fields{"after": "a", "limit": 1})["keys"]; !reflect.DeepEqual(keys, []any{"c"}) {
		t.Errorf("the page is %v", keys)
	}
	h.Fails(conclave.Update, "login/b", fields{"password": "x"}, conclave.Invalid, "invalid username or password")
}

func TestPasswordAndPoliciesHaveTheirRoutes(t *testing.T) {
	h := mounted(t)
	h.Fails(conclave.Update, "users/a/password", fields{"password": "x"}, conclave.NotFound, "username does not exist")
	h.Fails(conclave.Update, "users/a/policies", fields{"policies": "x"}, conclave.NotFound, "username does not exist")
	h.Data(conclave.Update, "users/a", fields{"password": "one", "token_ttl": 60})
	h.Data(conclave.Update, "users/A/password", fields{"password": "two", "token_ttl": 5})
	h.Fails(conclave.Update, "login/a", fields{"password": "one"}, conclave.Invalid, "invalid username or password")
	logIn(t, h, "a", "two")
	h.Fails(conclave.Update, "users/a/password", nil, conclave.Invalid, "missing password")
	h.Fails(conclave.Update, "users/a/password", fields{"password": strings.Repeat("x", 73)}, conclave.Invalid, "at most 72 bytes")
	for _, name := range []string{"policies", "token_policies"} {
		h.Data(conclave.Update, "users/a/policies", fields{name: "p,Q", "token_ttl": 5})
		want := enginetest.Decode(t, fields{"p": []any{"p", "q"}, "ttl": 60})
		if got := h.Data(conclave.Read, "users/a", nil); !reflect.DeepEqual(got["token_policies"], want["p"]) || got["token_ttl"] != want["ttl"] {
			t.Errorf("user is %v", got)
		}
		h.Data(conclave.Update, "users/a/policies", fields{name: ""})
		if got := h.Data(conclave.Read, "users/a", nil)["token_policies"]; !reflect.DeepEqual(got, []any{}) {
			t.Errorf("policies are %v", got)
		}
	}
	h.Fails(conclave.Update, "users/a/policies", nil, conclave.Invalid, "missing token_policies")
	h.Fails(conclave.Update, "users/a/policies", fields{"policies": "root"}, conclave.Invalid, "root")
}

func TestWriteOfANewUserIsACreate(t *testing.T) {
	var ops []conclave.Operation
	h := mounted(t, enginetest.Fast(), enginetest.Authorize(func(op conclave.Operation, _ string) bool {
		ops = append(ops, op)
		return true
	}))
	h.Data(conclave.Update, "users/a", fields{"password": "x"})
	h.Data(conclave.Update, "users/A", nil)
	if want := []conclave.Operation{conclave.Create, conclave.Update}; !reflect.DeepEqual(ops, want) {
		t.Errorf("operations are %v, want %v", ops, want)
	}
}

func TestStoredFormatStaysReadable(t *testing.T) {
	want := &user{UID: "AAECAwQFBgcICQoLDA0ODw", Hash: "$2a$10$conclaveconclaveconcla.nobodynobodynobodynobodynobody",
		Settings: settings{AliasMetadata: map[string]string{"team": "a"}, TokenTerms: conclave.TokenTerms{BoundCIDRs: []string{"10.0.0.0/8"}, ExplicitMaxTTL: 5,
			MaxTTL: 4, NoDefaultPolicy: true, NumUses: 3, Period: 2, Policies: []string{"a", "b"}, TTL: 1, Type: "service"}}}
	value, err := os.ReadFile("testdata/user.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeUser(value)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decoded %+v, %v; want %+v", got, err, want)
	}
	if encoded, err := json.Marshal(want); err != nil || !bytes.Equal(encoded, bytes.TrimSpace(value)) {
		t.Errorf("written as\n%s, %v; was\n%s", encoded, err, value)
	}
	for _, bad := range []string{"", "{", "null", `{"uid":"a"}`, `{"hash":"a"}`} {
		if _, err := decodeUser([]byte(bad)); !conclave.Is(err, conclave.Internal) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	h := mounted(t)
	h.Store(costPath, []byte("99"))
	h.Fails(conclave.Update, "login/a", fields{"password": "x"}, conclave.Internal, "damaged")
}

func FuzzStored(f *testing.F) {
	f.Add([]byte(`{"settings":{"token_policies":["a"]},"uid":"a","hash":"$2a$10$x"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if got, err := decodeUser(value); err == nil {
			if u := got.(*user); u.UID == "" || u.Hash == "" || matches([]byte("x"+u.Hash), "password", bcrypt.MinCost) {
				t.Errorf("accepted %+v", u)
			}
		} else if !conclave.Is(err, conclave.Internal) {
			t.Error(err)
		}
	})
}

// FuzzRoutes sends any body to every route of a user. Errors must be the client's, answers must be JSON, and nobody logs
// in with what isn't the password.
func FuzzRoutes(f *testing.F) {
	for _, body := range []string{`{}`, `null`, `{"password":"x","token_policies":"a"}`, `{"password_hash":"$2y$05$/Hk9H/XYMFQeTH5.Dl6EjOtSlDnnGQGkLBOmiNmFTpRFtLAZkAaDO"}`,
		`{"policies":["a"],"ttl":"1h","alias_metadata":"a=b"}`, `{"password":["x"]}`, `{"password":1}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		h := mounted(t)
		h.Data(conclave.Update, "users/a", fields{"password": "the password"})
		routes := cheap().Routes()
		routes = append(routes[len(routes)-1:], routes[:len(routes)-1]...) // the login first, before the password is changed
		for i, route := range routes {
			response, err := h.DoJSON(route.Operation, strings.ReplaceAll(route.Pattern, "{username}", "a"), body)
			if failure, ok := errors.AsType[*conclave.Error](err); err != nil && (!ok || failure.Kind == conclave.Internal) {
				t.Errorf("%s %s: internal error %v", route.Operation, route.Pattern, err)
			}
			if err != nil {
				continue
			}
			if i == 0 && !bytes.Contains(body, []byte("the password")) && !bytes.Contains(body, []byte(`\u`)) {
				t.Errorf("logged in with %s", body)
			}
			if _, err := json.Marshal(response.Data); err != nil {
				t.Errorf("%s %s: %v", route.Operation, route.Pattern, err)
			}
		}
	})
}

func TestOnlySoManyHashAtOnce(t *testing.T) {
	turns := newTurns(1)
	done, err := turns.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.take(ended); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("whoever gives up waiting gets %v", err)
	}
	turns.waiting.Store(maxWaiting)
	if _, err := turns.take(t.Context()); !conclave.Is(err, conclave.Unavailable) {
		t.Errorf("with %d waiting: %v", maxWaiting, err)
	}
	turns.waiting.Store(0)
	done()
	done, err = turns.take(t.Context())
	if err != nil || turns.waiting.Load() != 0 {
		t.Fatalf("a free turn: %v; %d waiting", err, turns.waiting.Load())
	}
	done()
}
