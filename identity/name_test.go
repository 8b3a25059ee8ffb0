package identity

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"conclave"
)

// confusing maps names that could be taken for "admin" or for nothing → why they are refused.
var confusing = map[string]string{
	" admin": "blanks", "admin ": "blanks", "admin\n": "blanks", "\u00a0admin": "blanks", "ad\x00min": "can't be seen", "admin\u200b": "can't be seen",
	"\u202eadmin": "can't be seen", "ad\u00admin": "can't be seen", "admin\ufe0f": "can't be seen", "ad\u034fmin": "can't be seen", "ad\u115fmin": "can't be seen",
	"admin\u2028x": "can't be seen", "ad\u00a0min": "can't be seen", "admin\x7f": "can't be seen", "adm\ufffdin": "can't be seen", "admin\ue000": "can't be seen",
	"ad\tmin": "can't be seen", "admin\U000e0041": "can't be seen", "admin\U0001fbff\U0003fffe": "can't be seen",
	"ａｄｍｉｎ": "look like", "𝐚dmin": "look like", "ⓐdmin": "look like", "ﬁ": "look like", "admin²": "look like", "ſ": "look like",
	"ad\xffmin": "UTF-8", "": "missing",
}

func TestConfusingNamesAreRefused(t *testing.T) {
	b := newBench(t)
	id := b.entity("Ann-Märie O'Neil +*{x}")
	for name, why := range confusing {
		if name == "" {
			continue
		}
		for _, path := range []string{"entity", "group", "entity/id/" + id, "lookup/entity", "lookup/group"} {
			b.fails(conclave.Update, path, object{"name": name}, conclave.Invalid, why)
		}
		b.fails(conclave.Read, "entity/name/"+name, nil, conclave.Invalid, "")
		b.fails(conclave.Update, "entity-alias", object{"name": name, "mount_accessor": userpass}, conclave.Invalid, why)
		b.fails(conclave.Update, "group-alias", object{"name": name, "mount_accessor": ldap}, conclave.Invalid, why)
		if _, err := b.login(userpass, name); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), why) {
			t.Errorf("login of %q: %v, want %q", name, err, why)
		}
	}
	for _, name := range []string{"a//b", "/a", "a/", "a/./b", "..", "a/.."} {
		b.fails(conclave.Update, "entity", object{"name": name}, conclave.Invalid, "empty segment")
		b.fails(conclave.Update, "group", object{"name": name}, conclave.Invalid, "empty segment")
		b.mustLogin(userpass, name)
	}
	b.fails(conclave.Update, "entity", object{"name": strings.Repeat("a", MaxName+1)}, conclave.Invalid, "at most 256")
	b.fails(conclave.Update, "entity-alias", object{"name": strings.Repeat("a", MaxAliasName+1), "mount_accessor": userpass}, conclave.Invalid, "at most 1024")
	b.entity(strings.Repeat("%", MaxName))
	b.mustLogin(userpass, strings.Repeat("/", MaxAliasName))
}

func TestOneNameHasOneSpelling(t *testing.T) {
	b := newBench(t)
	composed, typed := "Andr\u00e9", "Andre\u0301"
	id := b.entity(composed)
	b.access = allowing{"identity/entity/name/" + composed}
	if got := b.must(conclave.Read, "entity/name/"+typed, nil); got["id"] != id || got["name"] != composed {
		t.Errorf("%q reads as %v", typed, got)
	}
	if b.mustLogin(userpass, composed).EntityID != b.mustLogin(userpass, typed).EntityID {
		t.Error("an accent typed after its letter is somebody else")
	}
	if b.mustLogin(userpass, "Admin").EntityID != b.mustLogin(userpass, "aDMIN").EntityID {
		t.Error("case makes somebody else, unlike in Vault")
	}
	admin := b.mustLogin(userpass, "admin").EntityID
	for _, other := range []string{"adm\u0130n", "adm\u0131n", "\u0430dmin", "admin.", "ad min", "admin/", "admin%2F"} {
		if b.mustLogin(userpass, other).EntityID == admin {
			t.Errorf("%q is taken for admin", other)
		}
	}
	if b.mustLogin(ldap, "admin").EntityID == admin {
		t.Error("a name means the same in another mount")
	}
}

// Each letter of the first two planes that is allowed is compared alike with the other one of its pair, and with no third.
func TestNoTwoLettersAreOneButForTheirCase(t *testing.T) {
	from := map[string]rune{}
	pairs := 0
	for r := rune(1); r < 0x20000; r++ {
		if unicode.In(r, unicode.Han, unicode.Hangul) {
			continue // no cases, and very many
		}
		name, err := spell("x", string(r), MaxName)
		if err != nil || !utf8.ValidRune(r) {
			continue
		}
		if norm.NFC.String(string(r)) != string(r) {
			continue // another spelling of what is met too
		}
		key := keyOf(name)
		if again := keyOf(key); again != key {
			t.Errorf("the key of %U is %q, whose key is %q", r, key, again)
		}
		other, met := from[key]
		if !met {
			from[key] = r
			continue
		}
		pairs++
		if unicode.ToLower(r) != unicode.ToLower(other) {
			t.Errorf("%U and %U are taken for each other", r, other)
		}
	}
	if pairs < 1000 {
		t.Errorf("only %d pairs of cases", pairs)
	}
}

func FuzzSpell(f *testing.F) {
	for name := range confusing {
		f.Add(name)
	}
	f.Add("Andre\u0301")
	f.Fuzz(func(t *testing.T, name string) {
		spelled, err := spell("x", name, MaxAliasName)
		if err != nil {
			return
		}
		if again, err := spell("x", spelled, MaxAliasName); err != nil || again != spelled {
			t.Errorf("%q is spelled %q, which is spelled %q, %v", name, spelled, again, err)
		}
		key := keyOf(spelled)
		if keyOf(key) != key || keyOf(strings.ToUpper(key)) == "" {
			t.Errorf("the key of %q is %q, whose key is %q", spelled, key, keyOf(key))
		}
		if s := segment(key); s == "" || strings.Contains(s, "/") {
			t.Errorf("the segment of %q is %q", key, s)
		}
	})
}

func TestMetadataIsBounded(t *testing.T) {
	b := newBench(t)
	many := object{}
	for n := range maxMetadata + 1 {
		many[string(rune('a'+n%26))+strings.Repeat("x", n)] = "v"
	}
	for _, metadata := range []object{many, {"": "v"}, {strings.Repeat("k", maxMetaKey+1): "v"}, {"k": strings.Repeat("v", maxMetaValue+1)}, {"a\nb": "v"}, {"k": "\xff"}} {
		b.fails(conclave.Update, "entity", object{"metadata": metadata}, conclave.Invalid, "metadata")
		b.fails(conclave.Update, "group", object{"metadata": metadata}, conclave.Invalid, "metadata")
		b.fails(conclave.Update, "entity-alias", object{"name": "a", "mount_accessor": userpass, "custom_metadata": metadata}, conclave.Invalid, "metadata")
	}
	b.fails(conclave.Update, "entity", object{"policies": list(strings.Repeat("p", 257))}, conclave.Invalid, "at most 256")
	policies := make([]any, MaxPolicies+1)
	for n := range policies {
		policies[n] = strings.Repeat("p", n%250+1) + string(rune('a'+n/250))
	}
	b.fails(conclave.Update, "entity", object{"policies": policies}, conclave.Invalid, "at most 256 policies")
}
