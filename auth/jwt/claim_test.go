package jwt

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"conclave/internal/jws"
)

func parse(t testing.TB, text string) jws.Claims {
	t.Helper()
	claims, err := jws.ParseClaims([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// TestClaimAt has the examples of RFC 6901 section 5.
func TestClaimAt(t *testing.T) {
	claims := parse(t, `{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8,"~1":9,"null":null}`)
	for pointer, want := range map[string]any{"/foo/0": "bar", "/": json.Number("0"), "/a~1b": json.Number("1"), "/c%d": json.Number("2"), "/e^f": json.Number("3"),
		"/g|h": json.Number("4"), `/i\j`: json.Number("5"), `/k"l`: json.Number("6"), "/ ": json.Number("7"), "/m~0n": json.Number("8"), "/~01": json.Number("9"),
		"/foo": []any{"bar", "baz"}, "/foo/2": nil, "/foo/-": nil, "/foo/00": nil, "/foo/+1": nil, "/foo/-1": nil, "/foo/0/x": nil, "/absent": nil, "/null": nil, "/null/x": nil,
		"a/b": json.Number("1"), "": json.Number("0"), "foo/0": nil} {
		if got := claimAt(claims, pointer); !reflect.DeepEqual(got, want) {
			t.Errorf("claimAt(%q) = %v, want %v", pointer, got, want)
		}
	}
}

// FuzzClaimAt looks for panics, and goes back from what a pointer made of names finds.
func FuzzClaimAt(f *testing.F) {
	f.Add(`{"a":{"b~/":["x"]}}`, "/a/b~0~1/0", "a", "b~/")
	f.Fuzz(func(t *testing.T, text, pointer, outer, inner string) {
		if claims, err := jws.ParseClaims([]byte(text)); err == nil {
			claimAt(claims, pointer)
		}
		escape := strings.NewReplacer("~", "~0", "/", "~1").Replace
		claims := jws.Claims{outer: map[string]any{inner: []any{"found"}}}
		if got := claimAt(claims, "/"+escape(outer)+"/"+escape(inner)+"/0"); got != "found" {
			t.Errorf("%q in %q isn't found, but %v", inner, outer, got)
		}
	})
}

// FuzzBoundClaims looks for panics, and for matches that aren't symmetric where they have to be.
func FuzzBoundClaims(f *testing.F) {
	f.Add(`{"a":["x",1,true,null,{}]}`, `{"a":"x"}`, false)
	f.Add(`{"a":"xyz"}`, `{"a":["x*"]}`, true)
	f.Add(`{"a":{"b":{}}}`, `{"/a/b":[{}]}`, false)
	f.Fuzz(func(t *testing.T, text, bound string, globs bool) {
		claims, err := jws.ParseClaims([]byte(text))
		if err != nil {
			return
		}
		wanted, err := jws.ParseClaims([]byte(bound))
		if err != nil {
			return
		}
		r := &role{BoundClaims: wanted, BoundClaimsType: "string", GroupsClaim: "a", UserClaim: "a"}
		if globs {
			r.BoundClaimsType = "glob"
		}
		matched := r.checkBound(claims) == nil
		_, _ = r.identify(claims, "role")
		if matched && len(wanted) > 0 && len(claims) == 0 {
			t.Errorf("nothing matches %s", bound)
		}
	})
}

// TestStoredFormatsStillLoad has what earlier versions have written.
func TestStoredFormatsStillLoad(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	loaded, err := decodeRole(read("role.json"))
	if err != nil {
		t.Fatal(err)
	}
	r := loaded.(*role)
	if r.Type != "jwt" || r.TTL != 3600 || r.BoundClaims["level"] != json.Number("3") || r.ClaimMappings["/a"] != "b" || r.SkewLeeway != -1 || r.check() != nil {
		t.Errorf("role is %+v", r)
	}
	cfg := &config{}
	if err := json.Unmarshal(read("config.json"), cfg); err != nil || cfg.parseKeys() != nil || len(cfg.keys) != 1 || cfg.ClientSecret != "secret" || !cfg.NamespaceInState {
		t.Errorf("configuration is %+v, %v", cfg, err)
	}
	a := &attempt{}
	if err := json.Unmarshal(read("attempt.json"), a); err != nil || a.Verifier != "verifier" || a.Expires.Unix() != 1767323645 || !a.Posted {
		t.Errorf("attempt is %+v, %v", a, err)
	}
	found, err := decodeProvider(read("provider.json"), "https://issuer.example")
	if err != nil || found.KeysURL != "https://issuer.example/keys" || len(found.TokenAuth) != 2 {
		t.Errorf("provider is %+v, %v", found, err)
	}
}

func FuzzDecodeRole(f *testing.F) {
	f.Add([]byte(`{"role_type":"jwt","bound_claims":{"a":[1]},"token_ttl":3600}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if loaded, err := decodeRole(data); err == nil {
			r := loaded.(*role)
			_ = r.check()
			_ = r.checkBound(jws.Claims{"a": "b"})
		}
	})
}

func FuzzDecodeProvider(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if found, err := decodeProvider(data, "https://issuer.example"); err == nil && !strings.HasPrefix(found.KeysURL, "http") {
			t.Errorf("%s is taken", data)
		}
	})
}
