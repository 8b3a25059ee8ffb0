package token

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func mint(t testing.TB) Minted {
	t.Helper()
	minted, err := Mint(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return minted
}

// newMemory is storage whose clock stands at a round number of seconds.
func newMemory(t testing.TB) *enginetest.Memory {
	m := enginetest.NewMemory(t)
	m.SetNow(time.Unix(1_700_000_000, 0))
	return m
}

// issued makes a token with the given parent, "" for none.
func issued(t testing.TB, m *enginetest.Memory, parent string, change ...func(*Record)) (conclave.Secret, *Record) {
	t.Helper()
	minted := mint(t)
	r := &Record{Parent: parent, Policies: []string{"default"}, Path: "auth/token/create", DisplayName: "token", TTL: time.Hour, Renewable: true}
	for _, c := range change {
		c(r)
	}
	if err := m.End(Create(m, minted, r)); err != nil {
		t.Fatal(err)
	}
	return minted.Secret, r
}

func lives(m *enginetest.Memory, secret conclave.Secret) bool {
	_, _, err := Authenticate(m, m.Namespace(), secret)
	return err == nil
}

// makeRoot makes a root token in a transaction.
func makeRoot(t testing.TB, m *enginetest.Memory) conclave.Secret {
	t.Helper()
	minted := mint(t)
	_, err := CreateRoot(m, minted)
	if err := m.End(err); err != nil {
		t.Fatal(err)
	}
	return minted.Secret
}

// tidy is one step of Tidy in a transaction.
func tidy(m *enginetest.Memory, limit int) (done int, more bool, err error) {
	done, more, err = Tidy(m, limit)
	return done, more, m.End(err)
}

func TestMintedTokensAreLongAndDiffer(t *testing.T) {
	form := regexp.MustCompile(`^hvs\.[A-Za-z0-9_-]{95}$`)
	accessor := regexp.MustCompile(`^[A-Za-z0-9]{24}$`)
	seen := map[string]bool{}
	for range 200 {
		m := mint(t)
		if !form.MatchString(m.Secret.Reveal()) || !accessor.MatchString(m.Accessor) {
			t.Fatalf("token of %d characters, accessor %q", len(m.Secret.Reveal()), m.Accessor)
		}
		if seen[m.Secret.Reveal()] || seen[m.Accessor] {
			t.Fatal("a token or an accessor came twice")
		}
		seen[m.Secret.Reveal()], seen[m.Accessor] = true, true
	}
	if _, err := Mint(strings.NewReader("short")); err == nil {
		t.Error("a token was made of too little randomness")
	}
	if _, err := Mint(strings.NewReader(strings.Repeat("\xff", 4000))); err == nil {
		t.Error("an accessor was made of no usable randomness")
	}
}

func TestAuthenticateFindsTheCaller(t *testing.T) {
	m := newMemory(t)
	secret, r := issued(t, m, "", func(r *Record) { r.Policies = []string{" Ops ", "default", "ops"} })
	caller, got, err := Authenticate(m, m.Namespace(), secret)
	if err != nil || got.Name != r.Name || caller.TokenID != r.Name || caller.Accessor != r.Accessor || caller.Root || !caller.Orphan {
		t.Fatalf("Authenticate = %+v, %v", caller, err)
	}
	if !slices.Equal(caller.Policies, []string{"default", "ops"}) {
		t.Errorf("policies = %q", caller.Policies)
	}
	for path, value := range m.Values() {
		if strings.Contains(path+string(value), secret.Reveal()) {
			t.Errorf("the token is stored at %q", path)
		}
	}
}

func TestWhatIsNoTokenIsDeniedAlike(t *testing.T) {
	m := newMemory(t)
	expired, _ := issued(t, m, "", func(r *Record) { r.TTL = time.Nanosecond })
	bound, _ := issued(t, m, "", func(r *Record) { r.BoundCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	revoked, record := issued(t, m, "")
	good, _ := issued(t, m, "")
	if err := m.End(Revoke(m, record.Name)); err != nil {
		t.Fatal(err)
	}
	m.Advance(time.Second)
	request := &conclave.Request{Remote: netip.MustParseAddrPort("192.0.2.1:5")}
	m.SetRequest(request)
	if !lives(m, good) {
		t.Fatal("a good token was refused")
	}
	for name, secret := range map[string]conclave.Secret{"empty": {}, "unknown": mint(t).Secret, "expired": expired, "revoked": revoked,
		"bound elsewhere": bound, "huge": conclave.NewSecret(strings.Repeat("x", 1<<20)), "path": conclave.NewSecret("../../x")} {
		if _, _, err := Authenticate(m, m.Namespace(), secret); !conclave.Is(err, conclave.Denied) || err.Error() != "permission denied" {
			t.Errorf("%s: %v", name, err)
		}
	}
	request.Remote = netip.MustParseAddrPort("[::ffff:10.1.2.3]:5")
	if !lives(m, bound) {
		t.Error("a bound token was refused from its own network")
	}
}

func TestTreeDiesAtOnce(t *testing.T) {
	for _, end := range []string{"revoke", "expire"} {
		m := newMemory(t)
		top, root := issued(t, m, "", func(r *Record) { r.TTL = time.Minute })
		secrets, parent := []conclave.Secret{top}, root
		for range 5 {
			var s conclave.Secret
			s, parent = issued(t, m, parent.Name)
			secrets = append(secrets, s)
		}
		for i, s := range secrets {
			if !lives(m, s) {
				t.Fatalf("token %d doesn't live", i)
			}
		}
		if end == "expire" {
			m.Advance(time.Minute)
		} else if err := m.End(Revoke(m, root.Name)); err != nil {
			t.Fatal(err)
		}
		for i, s := range secrets {
			if lives(m, s) {
				t.Errorf("%s: token %d outlived its ancestor", end, i)
			}
		}
		if err := m.End(Create(m, mint(t), &Record{Parent: parent.Name})); !conclave.Is(err, conclave.Denied) {
			t.Errorf("a dead token got a child: %v", err)
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	m := newMemory(t)
	secret, r := issued(t, m, "")
	for range MaxDepth - 1 {
		secret, r = issued(t, m, r.Name)
	}
	if !lives(m, secret) {
		t.Error("the deepest token doesn't live")
	}
	if err := m.End(Create(m, mint(t), &Record{Parent: r.Name})); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("one deeper: %v", err)
	}
}

func TestTidyClearsATreeInBoundedSteps(t *testing.T) {
	m := newMemory(t)
	_, root := issued(t, m, "")
	other, _ := issued(t, m, "")
	for range 10 {
		_, child := issued(t, m, root.Name, func(r *Record) { r.NumUses = 3 })
		for range 3 {
			issued(t, m, child.Name)
		}
	}
	if err := m.End(Revoke(m, root.Name)); err != nil {
		t.Fatal(err)
	}
	steps := 0
	for more := true; more; steps++ {
		var done int
		var err error
		if done, more, err = tidy(m, 4); err != nil || done > 4 || steps > 100 {
			t.Fatalf("step %d: %d, %v", steps, done, err)
		}
	}
	if len(m.Values()) != 2 || len(m.Cells()) != 0 || !lives(m, other) { // the other's record and expiry
		t.Errorf("left after %d steps: %d values, %d cells", steps, len(m.Values()), len(m.Cells()))
	}
	if done, more, err := tidy(m, 4); done != 0 || more || err != nil {
		t.Errorf("nothing to do: %d, %v, %v", done, more, err)
	}
}

func TestRevokeOrphanSparesChildren(t *testing.T) {
	m := newMemory(t)
	top, root := issued(t, m, "", func(r *Record) { r.NumUses = 9 })
	var children []conclave.Secret
	for range 5 {
		s, r := issued(t, m, root.Name)
		below, _ := issued(t, m, r.Name)
		children = append(children, s, below)
	}
	if err := m.End(RevokeOrphan(m, root.Name)); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		if lives(m, top) {
			t.Errorf("%s: the revoked token lives", when)
		}
		for i, s := range children {
			if !lives(m, s) {
				t.Errorf("%s: child %d died", when, i)
			}
		}
	}
	check("before clearing")
	if err := m.End(Create(m, mint(t), &Record{Parent: root.Name})); !conclave.Is(err, conclave.Denied) {
		t.Errorf("the revoked token got a child: %v", err)
	}
	for more := true; more; {
		var err error
		if _, more, err = tidy(m, 2); err != nil {
			t.Fatal(err)
		}
		check("while clearing")
	}
	if m.Values()[idPath(root.Name)] != nil || len(m.Cells()) != 0 {
		t.Error("the bridge stayed")
	}
	if caller, _, _ := Authenticate(m, m.Namespace(), children[0]); !caller.Orphan {
		t.Error("the child isn't an orphan")
	}
}

func TestSpendTakesEachUseOnce(t *testing.T) {
	m := newMemory(t)
	_, r := issued(t, m, "", func(r *Record) { r.NumUses = 2 })
	_, unlimited := issued(t, m, "")
	for i, want := range []bool{true, true, false, false} {
		if err := m.End(Spend(m, r)); (err == nil) != want || err != nil && !conclave.Is(err, conclave.Denied) {
			t.Errorf("use %d: %v", i+1, err)
		}
		if err := m.End(Spend(m, unlimited)); err != nil {
			t.Errorf("unlimited: %v", err)
		}
	}
}

func TestExpiredTokensAreCleared(t *testing.T) {
	m := newMemory(t)
	for i := range 6 {
		issued(t, m, "", func(r *Record) { r.TTL = time.Duration(i+1) * 40 * time.Minute })
	}
	_, root := issued(t, m, "", func(r *Record) { r.TTL = 0 })
	if due, err := Due(m, 10); err != nil || len(due) != 0 {
		t.Fatalf("due at once: %v, %v", due, err)
	}
	m.Advance(24 * time.Hour)
	total := 0
	for range 10 {
		due, err := Due(m, 4)
		if err != nil || len(due) > 4 {
			t.Fatalf("due: %v, %v", due, err)
		}
		if len(due) == 0 {
			break
		}
		done, err := Expire(m, append(due, root.Name, "unknown"))
		if err := m.End(err); err != nil {
			t.Fatal(err)
		}
		total += done
	}
	if total != 6 || len(m.Values()) != 1 {
		t.Errorf("cleared %d, left %v", total, len(m.Values()))
	}
}

func TestDuplicatesAndLimitsAreRefused(t *testing.T) {
	m := newMemory(t)
	minted, chosen := mint(t), Minted{conclave.NewSecret("chosen"), mint(t).Accessor}
	for _, made := range []Minted{minted, chosen} {
		if err := m.End(Create(m, made, &Record{})); err != nil {
			t.Fatal(err)
		}
	}
	many := map[string]string{}
	for i := range maxMetadata + 1 {
		many[fmt.Sprint(i)] = "x"
	}
	long := strings.Repeat("x", maxText+1)
	for name, test := range map[string]struct {
		minted Minted
		record *Record
	}{
		"same accessor": {Minted{conclave.NewSecret("other"), chosen.Accessor}, &Record{}},
		"taken name":    {Minted{conclave.NewSecret("other"), NameOf(minted.Secret)}, &Record{}},
		"same choice":   {Minted{chosen.Secret, mint(t).Accessor}, &Record{}},
		"much metadata": {mint(t), &Record{Metadata: many}},
		"long metadata": {mint(t), &Record{Metadata: map[string]string{"k": long}}},
		"long name":     {mint(t), &Record{DisplayName: long}},
		"long policy":   {mint(t), &Record{Policies: []string{long}}},
	} {
		if err := m.End(Create(m, test.minted, test.record)); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.End(Create(m, minted, &Record{})); err == nil { // the storage's refusal: nobody looks whether it is there
		t.Error("the same randomness makes two tokens")
	}
}

func TestRootNeverEnds(t *testing.T) {
	m := newMemory(t)
	root := makeRoot(t, m)
	m.Advance(200 * 365 * 24 * time.Hour)
	caller, _, err := Authenticate(m, m.Namespace(), root)
	if err != nil || !caller.Root {
		t.Errorf("%+v, %v", caller, err)
	}
}

func TestAccessorTellsNothingOfAToken(t *testing.T) {
	m := newMemory(t)
	_, r := issued(t, m, "")
	if !isAccessor(r.Accessor) || r.Accessor != r.Name {
		t.Errorf("accessor %q of %q", r.Accessor, r.Name)
	}
	chosen := Minted{conclave.NewSecret("password1"), mint(t).Accessor}
	r = &Record{}
	if err := m.End(Create(m, chosen, r)); err != nil {
		t.Fatal(err)
	}
	if r.Accessor != chosen.Accessor || r.Accessor == AccessorOf(chosen.Secret) || strings.Contains(r.Name, AccessorOf(chosen.Secret)) {
		t.Error("the accessor of a token that can be guessed is made of the token")
	}
	if got, err := CallerByAccessor(m, r.Accessor); err != nil || got == nil || got.TokenID != r.Name {
		t.Errorf("found %+v, %v", got, err)
	}
	if got, err := CallerByAccessor(m, AccessorOf(chosen.Secret)); err != nil || got != nil {
		t.Errorf("found %+v, %v", got, err)
	}
	if got := AccessorOf(conclave.NewSecret("hvs.golden")); got != "eLAMpsvFB1Bek0DYY59lrYOf" {
		t.Errorf("AccessorOf = %q", got)
	}
}

// golden is a record as the first version wrote it.
const golden = `{"accessor":"AAAAAAAAAAAAAAAAAAAAAAAA","parent":"p","depth":1,"policies":["default","ops"],"path":"auth/token/create",` +
	`"meta":{"k":"v"},"display_name":"token-x","created":1700000000000000000,"renewed":1700000001000000000,"expires":1700003600000000000,` +
	`"ttl":3600000000000,"explicit_max_ttl":7200000000000,"period":60000000000,"num_uses":3,"renewable":true,"bound_cidrs":["10.0.0.0/8"]}`

func TestStoredFormStays(t *testing.T) {
	r, err := decode("n", []byte(golden))
	if err != nil || r.Parent != "p" || r.TTL != time.Hour || r.NumUses != 3 || r.Metadata["k"] != "v" || r.caller.TokenID != "n" {
		t.Fatalf("%+v, %v", r, err)
	}
	m := newMemory(t)
	if err := m.End(store(m, r)); err != nil || string(m.Values()["token/id/n"]) != golden {
		t.Errorf("%s, %v", m.Values()["token/id/n"], err)
	}
	if hour := hourOf(1700003600000000000); hour != "000000000007349f" {
		t.Errorf("hour = %s", hour)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(`{"created":1}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if r, err := decode("n", value); err == nil && r.caller == nil {
			t.Error("no caller")
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	for _, depth := range []int{0, 4} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			m := newMemory(b)
			secret, r := issued(b, m, "")
			for range depth {
				secret, r = issued(b, m, r.Name)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Authenticate(m, m.Namespace(), secret); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
