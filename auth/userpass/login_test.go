package userpass

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"conclave"
	"conclave/engine/enginetest"
)

func TestLoginSaysWhoAndOnWhatTerms(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "users/Ann", fields{"password": "pass word ", "token_policies": "dev", "token_ttl": 60, "alias_metadata": fields{"team": "a", "username": "lie"}})
	for _, name := range []string{"ann", "Ann", "ANN"} {
		got := logIn(t, h, name, "pass word ")
		var internal remembered
		if err := json.Unmarshal(got.Internal, &internal); err != nil || internal.Name != "ann" || internal.UID == "" {
			t.Errorf("internal is %s, %v", got.Internal, err)
		}
		got.Internal = nil
		want := &conclave.Login{Alias: conclave.Alias{Name: "ann", Metadata: map[string]string{"team": "a", "username": "ann"}}, DisplayName: "ann",
			Metadata: map[string]string{"username": "ann"}, Renewable: true, Terms: conclave.TokenTerms{Policies: []string{"dev"}, TTL: 60, Type: "default", BoundCIDRs: []string{}}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("login is\n%+v, want\n%+v", got, want)
		}
	}
}

func TestFailedLoginsAnswerAlike(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "users/ann", fields{"password": "right"})
	h.Data(conclave.Update, "users/bound", fields{"password": "right", "token_bound_cidrs": "198.51.100.0/24"})
	logIn(t, h, "ann", "right")
	logIn(t, h.With(enginetest.Remote(netip.MustParseAddr("198.51.100.9"))), "bound", "right")
	for _, row := range []struct{ name, password string }{
		{"ann", "wrong"}, {"ann", "Right"}, {"ann", "right "}, {"ann", " right"}, {"ann", "right\u200b"}, {"ann", "right\n"}, {"bound", "right"}, {"bound", "wrong"},
		{"bob", "right"}, {"ann ", "right"}, {"ann\u200b", "right"}, {"änn", "right"}, {strings.Repeat("a", 1000), "right"}, {"users", "right"},
	} {
		failure := h.Fails(conclave.Update, "login/"+row.name, fields{"password": row.password}, conclave.Invalid, "invalid username or password")
		if failure.Error() != "invalid username or password" || failure.Data != nil {
			t.Errorf("%v: the answer is %q", row, failure)
		}
	}
	for _, name := range []string{"ann", "bob"} {
		h.Fails(conclave.Update, "login/"+name, nil, conclave.Invalid, "missing password")
		h.Fails(conclave.Update, "login/"+name, fields{"password": strings.Repeat("x", 73)}, conclave.Invalid, "at most 72 bytes")
	}
}

// TestBcryptsOtherSpellingsDontLogIn: for bcrypt a password ends at 72 bytes and repeats after a NUL byte.
func TestBcryptsOtherSpellingsDontLogIn(t *testing.T) {
	h := mounted(t)
	long := strings.Repeat("0123456789ab", 6)
	h.Data(conclave.Update, "users/long", fields{"password": long})
	h.Data(conclave.Update, "users/short", fields{"password": "a"})
	logIn(t, h, "long", long)
	logIn(t, h, "short", "a")
	h.Fails(conclave.Update, "login/long", fields{"password": long + "x"}, conclave.Invalid, "at most 72 bytes")
	h.Fails(conclave.Update, "login/short", fields{"password": "a\x00a"}, conclave.Invalid, "NUL")
	hash, err := bcrypt.GenerateFromPassword([]byte("a"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if bcrypt.CompareHashAndPassword(hash, []byte("a\x00a")) != nil {
		t.Error("bcrypt tells the two apart: the refusal isn't needed any more")
	}
}

func TestImportedHashes(t *testing.T) {
	h := mounted(t)
	for cost, version := range map[int]string{4: "2y", 5: "2b", 6: "2a"} {
		hash, err := bcrypt.GenerateFromPassword([]byte("imported"), cost)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("user%d", cost)
		h.Data(conclave.Update, "users/"+name, fields{"password_hash": strings.Replace(string(hash), "2a", version, 1)})
		logIn(t, h, name, "imported")
		h.Fails(conclave.Update, "login/"+name, fields{"password": "other"}, conclave.Invalid, "invalid username or password")
		h.Fails(conclave.Update, "login/"+name, fields{"password": string(hash)}, conclave.Invalid, "invalid username or password")
	}
	if _, there := h.Stored()[costPath]; there {
		t.Error("hashes of a low cost raised that of logins")
	}
	h.Data(conclave.Update, "users/user4/password", fields{"password_hash": string(unmatched(maxCost))})
	for _, name := range []string{"user4", "nobody"} {
		k, err := open(bcrypt.MinCost).loginRoute().Gather(h.View(), &loginIn{Name: name})
		if err != nil || k.(known).cost != maxCost {
			t.Errorf("a login of %s costs %+v, %v; want %d like all", name, k, err, maxCost)
		}
	}
}

// TestHashesThatNothingMatches are compared in full: a hash that bcrypt refuses would take no time.
func TestHashesThatNothingMatches(t *testing.T) {
	for cost := bcrypt.MinCost; cost <= maxCost; cost++ {
		if got, err := checkHash(string(unmatched(cost))); err != nil || got != cost {
			t.Errorf("the one of cost %d: %d, %v", cost, got, err)
		}
	}
	if err := bcrypt.CompareHashAndPassword(unmatched(bcrypt.MinCost), []byte("x")); err != bcrypt.ErrMismatchedHashAndPassword {
		t.Errorf("comparing gives %v", err)
	}
	for _, hash := range []string{"", "x", string(unmatched(4))} {
		if matches([]byte(hash), "x", 5) {
			t.Errorf("%q matches", hash)
		}
	}
}

func TestPasswordIsComparedAgainWhenItChanges(t *testing.T) {
	h := mounted(t)
	route := cheap().loginRoute()
	gather := func() any {
		k, err := route.Gather(h.View(), &loginIn{Name: "Ann"})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	h.Data(conclave.Update, "users/ann", fields{"password": "one"})
	before := gather()
	h.Data(conclave.Update, "users/ann", fields{"token_ttl": 60})
	if !reflect.DeepEqual(gather(), before) {
		t.Error("settings that aren't the password have it compared again")
	}
	h.Data(conclave.Update, "users/ann/password", fields{"password": "two"})
	if reflect.DeepEqual(gather(), before) {
		t.Error("a comparison with the old password still counts")
	}
}

func TestGuessesAreOfTheNameInOneSpelling(t *testing.T) {
	guess := cheap().loginRoute().Guess
	for given, want := range map[string]string{"ann": "ann", "ANN": "ann", "a-b.c_1": "a-b.c_1", "ann ": "", "": "", "ann\u200b": "", "Änn": "", strings.Repeat("x", maxName+1): ""} {
		if got := guess(nil, &loginIn{Name: given}); got != want {
			t.Errorf("Guess(%q) = %q, want %q", given, got, want)
		}
	}
	if !cheap().loginRoute().Public {
		t.Error("a login is public")
	}
}

func TestRenewalFollowsTheUser(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "users/ann", fields{"password": "x", "token_ttl": 60, "token_policies": "b,a"})
	login := logIn(t, h, "ann", "x")
	login.Terms.Policies = []string{"a", "b", "default"} // as the token has them
	renew := func() (*conclave.TokenTerms, error) {
		return cheap().RenewLogin(context.Background(), h.View(), login)
	}
	h.Data(conclave.Update, "users/ann", fields{"token_ttl": 120, "token_period": 30, "password": "y"})
	for range 2 {
		terms, err := renew()
		if err != nil || terms.TTL != 120 || terms.Period != 30 {
			t.Fatalf("terms are %+v, %v; want those that hold now", terms, err)
		}
		terms.TTL = 0 // whoever gets them may change them
	}
	h.Data(conclave.Update, "users/ann/policies", fields{"policies": "a"})
	if _, err := renew(); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "policies have changed") {
		t.Errorf("renewal with other policies: %v", err)
	}
	h.Data(conclave.Delete, "users/ann", nil)
	if _, err := renew(); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), "not exist") {
		t.Errorf("renewal without the user: %v", err)
	}
	h.Data(conclave.Update, "users/ann", fields{"password": "x", "token_policies": "a,b"})
	if _, err := renew(); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("renewal with another user of the same name: %v", err)
	}
	login.Internal = json.RawMessage("{")
	if _, err := renew(); !conclave.Is(err, conclave.Internal) {
		t.Errorf("renewal of a damaged login: %v", err)
	}
}

// BenchmarkCompare shows what a login costs, and that it costs the same for who isn't there and for imported hashes.
func BenchmarkCompare(b *testing.B) {
	for name, hash := range map[string][]byte{"known": unmatched(hashCost), "imported-5": unmatched(5), "unknown": nil} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				matches(hash, "password", hashCost)
			}
		})
	}
}
