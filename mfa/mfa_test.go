package mfa

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// town is a directory of a few.
type town struct{}

func (town) Entity(_ conclave.View, id string) (bool, error) { return id == "ann" || id == "bob", nil }
func (town) Group(_ conclave.View, id string) (bool, error)  { return id == "staff", nil }
func (town) AuthMount(_ conclave.View, accessor, kind string) (bool, error) {
	return accessor == "auth_userpass_1" || kind == "userpass", nil
}

// desk serves the routes on a memory.
type desk struct {
	*enginetest.Memory
	router *conclave.Router
}

func newDesk(t *testing.T) *desk {
	d := &desk{enginetest.NewMemory(t), conclave.NewRouter(Routes(Setup{Directory: town{}, Random: rand.Reader}))}
	d.SetCaller(&conclave.Caller{EntityID: "ann", Home: d.Namespace()})
	return d
}

func (d *desk) do(t *testing.T, op conclave.Operation, path string, fields map[string]any) (*conclave.Response, error) {
	t.Helper()
	route, params, err := d.router.Find(op, path)
	if err != nil {
		return nil, err
	}
	decoded := map[string]any{}
	for name, value := range fields {
		if n, ok := value.(int); ok {
			value = json.Number(strconv.Itoa(n)) // as the edge has it
		}
		decoded[name] = value
	}
	in, err := route.Bind(params, decoded)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if route.Gather != nil {
		gathered, err := route.Gather(d, in)
		if err != nil {
			return nil, d.End(err)
		}
		ctx = conclave.WithGathered(ctx, gathered)
	}
	if route.Prepare != nil {
		prepared, err := route.Prepare(ctx, nil, in)
		if err != nil {
			return nil, d.End(err)
		}
		ctx = conclave.WithPrepared(ctx, prepared)
	}
	resp, err := route.Handle(ctx, d, in)
	return resp, d.End(err)
}

func (d *desk) must(t *testing.T, op conclave.Operation, path string, fields map[string]any) *conclave.Response {
	t.Helper()
	resp, err := d.do(t, op, path, fields)
	if err != nil {
		t.Fatalf("%s %s: %v", op, path, err)
	}
	return resp
}

func (d *desk) fails(t *testing.T, kind conclave.Kind, op conclave.Operation, path string, fields map[string]any) {
	t.Helper()
	if resp, err := d.do(t, op, path, fields); !conclave.Is(err, kind) {
		t.Errorf("%s %s %v: %+v, %v, want %v", op, path, fields, resp, err, kind)
	}
}

// method makes a method and returns it.
func (d *desk) method(t *testing.T, fields map[string]any) *Method {
	t.Helper()
	all := map[string]any{"issuer": "Conclave Inc"}
	maps.Copy(all, fields)
	id := d.must(t, conclave.Update, "mfa/method/totp", all).Data.(*createOutput).ID
	m, err := Lookup(d, id)
	if err != nil || m == nil {
		t.Fatalf("the method that was made: %v, %v", m, err)
	}
	return m
}

func (d *desk) spend(t *testing.T, m *Method, entityID, passcode string) bool {
	t.Helper()
	ok, err := m.Spend(d, entityID, passcode)
	if err := d.End(err); err != nil {
		t.Fatal(err)
	}
	return ok
}

func (d *desk) passcode(t *testing.T, m *Method, entityID string, steps int64) string {
	t.Helper()
	s, err := loadSecret(d, entityID, m.ID)
	if err != nil || s == nil {
		t.Fatalf("no key: %v, %v", s, err)
	}
	code, err := s.parameters().Code(d.Now().Unix()/int64(s.Period) + steps)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func TestPasscodesAreThoseOfRFC6238(t *testing.T) {
	const seed = "1234567890123456789012345678901234567890123456789012345678901234"
	for algorithm, row := range map[string]struct {
		length int
		codes  []string
	}{
		"SHA1":   {20, []string{"94287082", "07081804", "14050471", "89005924", "69279037", "65353130"}},
		"SHA256": {32, []string{"46119246", "68084774", "67062674", "91819424", "90698825", "77737706"}},
		"SHA512": {64, []string{"90693936", "25091201", "99943326", "93441116", "38618901", "47863826"}},
	} {
		s := &secret{Key: []byte(seed[:row.length]), Algorithm: algorithm, Digits: 8, Period: 30}
		for i, at := range []int64{59, 1111111109, 1111111111, 1234567890, 2000000000, 20000000000} {
			if got, err := s.parameters().Code(at / 30); err != nil || got != row.codes[i] {
				t.Errorf("%s at %d: %s, %v, want %s", algorithm, at, got, err, row.codes[i])
			}
		}
	}
}

func TestAPasscodeIsGoodOnceInAnySpelling(t *testing.T) {
	d := newDesk(t)
	m := d.method(t, nil)
	d.must(t, conclave.Update, "mfa/method/totp/generate", map[string]any{"method_id": m.ID})
	code := d.passcode(t, m, "ann", 0)
	wide := strings.Map(func(r rune) rune { return r - '0' + '０' }, code)
	arabic := strings.Map(func(r rune) rune { return r - '0' + '٠' }, code)
	for _, wrong := range []string{"", " ", wide, arabic, "+" + code[1:], "0" + code, code + "0", code[:3] + " " + code[3:], code + "\u00a0", "-" + code, code[1:]} {
		if d.spend(t, m, "ann", wrong) {
			t.Errorf("%q is taken", wrong)
		}
	}
	if d.spend(t, m, "bob", code) {
		t.Error("somebody without a key gets in")
	}
	if !d.spend(t, m, "ann", " "+code+"\n") {
		t.Fatal("the right passcode with blanks around it isn't taken")
	}
	for _, again := range []string{code, code + " ", "\t" + code} {
		if d.spend(t, m, "ann", again) {
			t.Errorf("%q is taken a second time", again)
		}
	}
	d.Advance(30 * time.Second)
	if d.spend(t, m, "ann", code) {
		t.Error("the passcode before is taken a second time")
	}
	if !d.spend(t, m, "ann", d.passcode(t, m, "ann", 1)) {
		t.Error("the next passcode isn't taken, though the skew is 1")
	}
	if d.spend(t, m, "ann", d.passcode(t, m, "ann", 0)) {
		t.Error("a passcode older than the last one is taken")
	}
}

func TestSkewBoundsWhatIsTaken(t *testing.T) {
	d := newDesk(t)
	strict, loose := d.method(t, map[string]any{"skew": 0, "method_name": "strict"}), d.method(t, map[string]any{"method_name": "loose"})
	for _, m := range []*Method{strict, loose} {
		d.must(t, conclave.Update, "mfa/method/totp/generate", map[string]any{"method_id": m.ID})
		for _, steps := range []int64{-2, -1, 1, 2} {
			want := steps*steps <= m.Skew
			if steps == 1 {
				continue // would spend the earlier ones
			}
			if got := d.spend(t, m, "ann", d.passcode(t, m, "ann", steps)); got != want {
				t.Errorf("skew %d: %d steps away: %v, want %v", m.Skew, steps, got, want)
			}
		}
		if !d.spend(t, m, "ann", d.passcode(t, m, "ann", 0)) {
			t.Errorf("skew %d: the present passcode isn't taken", m.Skew)
		}
	}
}

func TestAnAuthenticatorStaysAsItWasSetUp(t *testing.T) {
	d := newDesk(t)
	m := d.method(t, map[string]any{"method_name": "phone", "digits": 8, "algorithm": "SHA256", "period": 60})
	answer := d.must(t, conclave.Update, "mfa/method/totp/admin-generate", map[string]any{"method_id": m.ID, "entity_id": "bob"}).Data.(*keyOutput)
	set, err := url.Parse(answer.URL)
	if err != nil || set.Scheme != "otpauth" || set.Host != "totp" || set.Path != "/Conclave Inc:bob" || set.Query().Get("period") != "60" ||
		set.Query().Get("digits") != "8" || set.Query().Get("algorithm") != "SHA256" || set.Query().Get("issuer") != "Conclave Inc" || set.Query().Get("secret") == "" {
		t.Fatalf("the URL is %s, %v", answer.URL, err)
	}
	if png, err := base64.StdEncoding.DecodeString(answer.Barcode); err != nil || !strings.HasPrefix(string(png), "\x89PNG") {
		t.Errorf("the picture is %.20q, %v", png, err)
	}
	d.must(t, conclave.Update, "mfa/method/totp/"+m.ID, map[string]any{"issuer": "Other", "qr_size": 0})
	changed, err := Lookup(d, m.ID)
	if err != nil || changed.Digits != 6 || changed.Name != "phone" {
		t.Fatalf("changed to %+v, %v", changed, err)
	}
	if !d.spend(t, changed, "bob", d.passcode(t, changed, "bob", 0)) {
		t.Error("the authenticator doesn't work any more")
	}
	again := d.must(t, conclave.Update, "mfa/method/totp/admin-generate", map[string]any{"method_id": m.ID, "entity_id": "bob"})
	if again.Data != nil || len(again.Warnings) != 1 {
		t.Errorf("a second key: %+v", again)
	}
	d.must(t, conclave.Update, "mfa/method/totp/admin-destroy", map[string]any{"method_id": m.ID, "entity_id": "bob"})
	if anew := d.must(t, conclave.Update, "mfa/method/totp/admin-generate", map[string]any{"method_id": m.ID, "entity_id": "bob"}).Data.(*keyOutput); anew.URL == answer.URL || anew.Barcode != "" {
		t.Errorf("after destruction: %+v", anew)
	}
}

func TestKeysAreForThoseWhoAreThere(t *testing.T) {
	d := newDesk(t)
	m := d.method(t, nil)
	const admin = "mfa/method/totp/admin-generate"
	for _, fields := range []map[string]any{{"entity_id": "ann"}, {"method_id": m.ID}, {"method_id": m.ID, "entity_id": "eve"},
		{"method_id": "x", "entity_id": "ann"}, {"method_id": m.ID, "entity_id": "../ann"}} {
		d.fails(t, conclave.Invalid, conclave.Update, admin, fields)
	}
	for _, caller := range []*conclave.Caller{nil, {Home: d.Namespace()}, {EntityID: "ann", Home: conclave.Namespace{ID: "other"}}} {
		d.SetCaller(caller)
		d.fails(t, conclave.Invalid, conclave.Update, "mfa/method/totp/generate", map[string]any{"method_id": m.ID})
	}
	d.SetCaller(&conclave.Caller{EntityID: "ann", Home: d.Namespace()})
	d.must(t, conclave.Update, "mfa/method/totp/generate", map[string]any{"method_id": m.ID, "entity_id": "bob"})
	if s, err := loadSecret(d, "bob", m.ID); err != nil || s != nil {
		t.Errorf("ann made bob's key: %v, %v", s, err)
	}
}

func TestMethodsAreChecked(t *testing.T) {
	d := newDesk(t)
	for _, wrong := range []map[string]any{{"issuer": ""}, {"digits": 7}, {"algorithm": "MD5"}, {"period": 0}, {"period": 7200}, {"skew": 2}, {"skew": -1},
		{"key_size": 15}, {"key_size": 129}, {"qr_size": -1}, {"qr_size": 4096}, {"max_validation_attempts": -1}, {"method_name": "a\x00b"}} {
		fields := map[string]any{"issuer": "x"}
		maps.Copy(fields, wrong)
		d.fails(t, conclave.Invalid, conclave.Update, "mfa/method/totp", fields)
	}
	m := d.method(t, map[string]any{"method_name": "phone"})
	if want := (Method{m.ID, "phone", "Conclave Inc", 30, 20, 200, "SHA1", 6, 1, 5}); *m != want {
		t.Errorf("the defaults are %+v, want %+v", *m, want)
	}
	if same := d.method(t, map[string]any{"method_name": "phone", "digits": 8}); same.ID != m.ID || same.Digits != 8 {
		t.Errorf("the same name gives %+v", same)
	}
	other := d.method(t, map[string]any{"method_name": "key"})
	d.fails(t, conclave.Invalid, conclave.Update, "mfa/method/totp/"+other.ID, map[string]any{"method_name": "phone", "issuer": "x"})
	d.fails(t, conclave.NotFound, conclave.Update, "mfa/method/totp/nothing", map[string]any{"issuer": "x"})
	d.fails(t, conclave.NotFound, conclave.Read, "mfa/method/totp/nothing", nil)
	for _, path := range []string{"mfa/method/", "mfa/method/totp/"} {
		keys := d.must(t, conclave.List, path, nil).Data.(*conclave.Keys)
		if !slices.Equal(keys.Keys, []string{m.ID, other.ID}) || keys.KeyInfo[m.ID].(*methodOutput).Type != "totp" {
			t.Errorf("%s: %+v", path, keys)
		}
	}
}

func TestEnforcementsConcernWhomTheyName(t *testing.T) {
	d := newDesk(t)
	m := d.method(t, nil)
	for name, list := range map[string]string{"auth_method_accessors": "auth_userpass_1", "auth_method_types": "userpass", "identity_group_ids": "staff", "identity_entity_ids": "ann"} {
		d.must(t, conclave.Update, "mfa/login-enforcement/"+name, map[string]any{"mfa_method_ids": m.ID, name: list})
		d.fails(t, conclave.Invalid, conclave.Update, "mfa/login-enforcement/wrong", map[string]any{"mfa_method_ids": m.ID, name: "misspelled"})
	}
	d.fails(t, conclave.Invalid, conclave.Update, "mfa/login-enforcement/wrong", map[string]any{"mfa_method_ids": m.ID})
	d.fails(t, conclave.Invalid, conclave.Update, "mfa/login-enforcement/wrong", map[string]any{"mfa_method_ids": "x", "identity_entity_ids": "ann"})
	d.fails(t, conclave.Invalid, conclave.Update, "mfa/login-enforcement/wrong", map[string]any{"identity_entity_ids": "ann"})
	for _, row := range []struct {
		who  Who
		want []string
	}{
		{Who{Accessor: "auth_userpass_1", Kind: "other"}, []string{"auth_method_accessors"}},
		{Who{Accessor: "other", Kind: "userpass"}, []string{"auth_method_types"}},
		{Who{GroupIDs: []string{"other", "staff"}}, []string{"identity_group_ids"}},
		{Who{EntityID: "ann", GroupIDs: []string{"staff"}}, []string{"identity_entity_ids", "identity_group_ids"}},
		{Who{EntityID: "bob", FormerIDs: []string{"eve", "ann"}}, []string{"identity_entity_ids"}},
		{Who{Accessor: "other", Kind: "other", EntityID: "bob", FormerIDs: []string{"eve"}, GroupIDs: []string{"other"}}, nil},
		{Who{}, nil},
	} {
		demands, err := Required(d, row.who)
		var names []string
		for _, demand := range demands {
			names = append(names, demand.Name)
			if len(demand.Methods) != 1 || demand.Methods[0].ID != m.ID {
				t.Errorf("%s takes %v", demand.Name, demand.Methods)
			}
		}
		if slices.Sort(names); err != nil || !slices.Equal(names, row.want) {
			t.Errorf("%+v: %v, %v, want %v", row.who, names, err, row.want)
		}
	}
	d.fails(t, conclave.Invalid, conclave.Delete, "mfa/method/totp/"+m.ID, nil)
	for _, name := range d.must(t, conclave.List, "mfa/login-enforcement/", nil).Data.(*conclave.Keys).Keys {
		read := d.must(t, conclave.Read, "mfa/login-enforcement/"+name, nil).Data.(*enforcementOutput)
		if !slices.Equal(read.Methods, []string{m.ID}) {
			t.Errorf("%s is %+v", name, read)
		}
		d.must(t, conclave.Delete, "mfa/login-enforcement/"+name, nil)
	}
	d.must(t, conclave.Delete, "mfa/method/totp/"+m.ID, nil)
	d.fails(t, conclave.NotFound, conclave.List, "mfa/method/", nil)
	d.fails(t, conclave.NotFound, conclave.List, "mfa/login-enforcement/", nil)
}

func TestGivenPasscodes(t *testing.T) {
	secrets := func(texts ...string) (list []conclave.Secret) {
		for _, text := range texts {
			list = append(list, conclave.NewSecret(text))
		}
		return list
	}
	given, err := ParseHeader(secrets("phone:123456", "id-2:passcode=654321", "push", "", "team/key:111111"))
	if err != nil {
		t.Fatal(err)
	}
	team := conclave.Namespace{ID: "t", Path: "team/"}
	for want, m := range map[string]*Method{"123456": {ID: "id-1", Name: "phone"}, "654321": {ID: "id-2", Name: "other"}, "111111": {ID: "id-3", Name: "key"}, "": {ID: "id-4"}} {
		if got := given.For(m, team); got != want {
			t.Errorf("for %+v: %q, want %q", m, got, want)
		}
	}
	if got := given.For(&Method{ID: "push"}, team); got != "" {
		t.Errorf("for a method without a passcode: %q", got)
	}
	for _, wrong := range [][]conclave.Secret{secrets(":1"), secrets("a:"), secrets("a:1", "a:2"), secrets(":"), secrets("a:" + strings.Repeat("1", 2000))} {
		if given, err := ParseHeader(wrong); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("a wrong header gives %d, %v", len(given), err)
		}
	}
	payload, err := ParsePayload(map[string]any{"a": []any{"1"}, "b": []any{}, "c": nil, "d": "4"})
	if want := (Given{"a": "1", "b": "", "c": "", "d": "4"}); err != nil || !reflect.DeepEqual(payload, want) {
		t.Errorf("the payload is %v, %v", payload, err)
	}
	for _, wrong := range []any{[]any{"1", "2"}, []any{json.Number("123456")}, map[string]any{}, true} {
		if given, err := ParsePayload(map[string]any{"a": wrong}); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%v gives %v, %v", wrong, given, err)
		}
	}
}
