package mfa

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func full() *Pending {
	return &Pending{EntityID: "ann", MountUUID: "m-1", Path: "auth/userpass/login/ann", Login: &conclave.Login{
		Alias: conclave.Alias{Name: "ann", Metadata: map[string]string{"a": "b"}}, Groups: []string{"g"},
		Terms: conclave.TokenTerms{BoundCIDRs: []string{"192.0.2.0/24"}, ExplicitMaxTTL: 1, MaxTTL: 2, NoDefaultPolicy: true, NumUses: 3, Period: 4,
			Policies: []string{"p"}, TTL: 5, Type: "service"},
		Policies: []string{"q"}, Metadata: map[string]string{"c": "d"}, DisplayName: "Ann", Role: "r", Renewable: true, Internal: json.RawMessage(`{"x":1}`)}}
}

func keep(t *testing.T, m *enginetest.Memory, id string, p *Pending) {
	t.Helper()
	if err := m.End(Keep(m, id, p)); err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, m *enginetest.Memory, id string) *Pending {
	t.Helper()
	p, err := Take(m, id)
	if err := m.End(err); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAnUnfinishedLoginIsTakenOnceWithAllOfIt(t *testing.T) {
	m := enginetest.NewMemory(t)
	keep(t, m, "id-1", full())
	for _, wrong := range []string{"", "id-2", "../id-1", "ID-1", strings.Repeat("x", 5000)} {
		if p := take(t, m, wrong); p != nil {
			t.Errorf("%.20q leads to %+v", wrong, p)
		}
	}
	if p := take(t, m, "id-1"); !reflect.DeepEqual(p, full()) {
		t.Errorf("taken as %+v", p)
	}
	if p := take(t, m, "id-1"); p != nil {
		t.Errorf("taken again: %+v", p)
	}
	if left := m.Values(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestUnfinishedLoginsEnd(t *testing.T) {
	m := enginetest.NewMemory(t)
	keep(t, m, "id-1", full())
	m.Advance(PendingTime - time.Second)
	keep(t, m, "id-2", full())
	m.Advance(time.Second)
	if p := take(t, m, "id-1"); p != nil {
		t.Error("a login is finished after its time")
	}
	if p := take(t, m, "id-2"); p == nil {
		t.Error("a login isn't finished within its time")
	}
	keep(t, m, "id-3", full())
	m.Advance(PendingTime)
	next, err := Tidy(m, "", 10, func(string) (bool, error) { return true, nil })
	if err := m.End(err); err != nil || next != "ann/" {
		t.Fatalf("tidied to %q, %v", next, err)
	}
	if left := m.Values(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestUnfinishedLoginsAreBounded(t *testing.T) {
	m := enginetest.NewMemory(t)
	for i := range 3 * MaxPending {
		keep(t, m, fmt.Sprint("id-", i), full())
	}
	if got := len(m.Values()); got != MaxPending+1 {
		t.Errorf("%d values for one entity, want %d", got, MaxPending+1)
	}
	if p := take(t, m, fmt.Sprint("id-", 2*MaxPending)); p == nil {
		t.Error("the oldest of the newest is gone")
	}
	if p := take(t, m, fmt.Sprint("id-", 2*MaxPending-1)); p != nil {
		t.Error("more than the newest are kept")
	}
}

func TestTidyRemovesWhatBelongsToNobody(t *testing.T) {
	d := newDesk(t)
	kept, gone := d.method(t, map[string]any{"method_name": "kept"}), d.method(t, map[string]any{"method_name": "gone"})
	for _, m := range []*Method{kept, gone} {
		for _, entity := range []string{"ann", "bob"} {
			d.must(t, conclave.Update, "mfa/method/totp/admin-generate", map[string]any{"method_id": m.ID, "entity_id": entity})
		}
	}
	p := full()
	p.EntityID = "bob"
	keep(t, d.Memory, "id-b", p)
	keep(t, d.Memory, "id-a", full())
	d.must(t, conclave.Delete, "mfa/method/totp/"+gone.ID, nil)
	for after, steps := "", 0; after != "" || steps == 0; steps++ {
		next, err := Tidy(d, after, 1, func(id string) (bool, error) { return id == "ann", nil })
		if err := d.End(err); err != nil || steps > 5 {
			t.Fatal(err, steps)
		}
		after = next
	}
	var left []string
	for path := range d.Values() {
		left = append(left, path)
	}
	if want := 4; len(left) != want { // config, ann's key, ann's login and the list of it
		t.Errorf("left: %v", left)
	}
	if s, err := loadSecret(d, "ann", kept.ID); err != nil || s == nil {
		t.Errorf("ann's key: %v, %v", s, err)
	}
}

// What the first version wrote.
const (
	goldenConfig = `{"methods":[{"id":"m-1","name":"phone","issuer":"Inc","period":30,"key_size":20,"qr_size":200,"algorithm":"SHA1","digits":6,"skew":1,"max_validation_attempts":5}],` +
		`"enforcements":[{"id":"e-1","name":"all","mfa_method_ids":["m-1"],"auth_method_accessors":["x"],"auth_method_types":["userpass"],"identity_group_ids":["g"],"identity_entity_ids":["a"]}]}`
	goldenSecret  = `{"key":"MTIzNDU2Nzg5MDEyMzQ1Ng==","algorithm":"SHA256","digits":8,"period":60,"last":7}`
	goldenWaiting = `{"logins":[{"id":"id-1","until":5}]}`
	goldenPending = `{"until":5,"entity":"ann","mount":"m-1","path":"auth/userpass/login/ann","login":{"alias":"ann","alias_metadata":{"a":"b"},"groups":["g"],` +
		`"terms":{"token_bound_cidrs":["192.0.2.0/24"],"token_explicit_max_ttl":1,"token_max_ttl":2,"token_no_default_policy":true,"token_num_uses":3,"token_period":4,` +
		`"token_policies":["p"],"token_ttl":5,"token_type":"service"},"policies":["q"],"metadata":{"c":"d"},"display_name":"Ann","role":"r","renewable":true,"internal":{"x":1}}}`
)

func decodeAny(name string, value []byte) (any, error) {
	switch name {
	case "config":
		return decodeConfig(value)
	case "secret":
		return decodeSecret(value)
	case "waiting":
		return decodeWaiting(value)
	}
	return decodePending(value)
}

func TestFormatsAreReadAndWrittenAsEver(t *testing.T) {
	for name, golden := range map[string]string{"config": goldenConfig, "secret": goldenSecret, "waiting": goldenWaiting, "pending": goldenPending} {
		decoded, err := decodeAny(name, []byte(golden))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again, err := json.Marshal(decoded); err != nil || string(again) != golden {
			t.Errorf("%s is written as\n%s, %v, want\n%s", name, again, err, golden)
		}
	}
}

func TestDamagedValuesAreErrors(t *testing.T) {
	for name, values := range map[string][]string{
		"config":  {`{`, `{"methods":[null]}`, `{"methods":[{"id":"m"}]}`, `{"enforcements":[{"name":"a"}]}`, `{"enforcements":[{"name":"a","mfa_method_ids":["gone"]}]}`, `{"enforcements":[null]}`},
		"secret":  {``, `{}`, strings.Replace(goldenSecret, `"period":60`, `"period":0`, 1), strings.Replace(goldenSecret, `"last":7`, `"last":-7`, 1)},
		"waiting": {`[]`, `{"logins":[{"id":"a/b"}]}`}, "pending": {``, `{}`},
	} {
		for _, value := range values {
			if decoded, err := decodeAny(name, []byte(value)); !conclave.Is(err, conclave.Internal) {
				t.Errorf("%s %s is %+v, %v", name, value, decoded, err)
			}
		}
	}
}

func FuzzStored(f *testing.F) {
	for _, seed := range []string{goldenConfig, goldenSecret, goldenWaiting, goldenPending, `{}`} {
		f.Add([]byte(seed), "123456")
	}
	f.Fuzz(func(t *testing.T, value []byte, passcode string) {
		m := enginetest.NewMemory(t)
		for _, path := range []string{configPath, secretPath("ann", "m-1"), pendingPath("ann"), pendingDir + "id-1"} {
			if m.Put(path, value) != nil {
				t.Skip("no value")
			}
		}
		if m.End(nil) != nil {
			t.Skip("no value")
		}
		_, _ = Required(m, Who{Kind: "userpass"})
		_, _ = (&Method{ID: "m-1", Skew: 1}).Spend(m, "ann", passcode)
		_, _ = Take(m, "id-1")
		_ = Keep(m, "id-2", full())
	})
}

func FuzzGiven(f *testing.F) {
	f.Add("phone:123456", `{"a":["1"]}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		if given, err := ParseHeader([]conclave.Secret{conclave.NewSecret(header), conclave.NewSecret(payload)}); err == nil && len(given) > 2 {
			t.Errorf("two headers give %d", len(given))
		}
		var fields map[string]any
		if json.Unmarshal([]byte(payload), &fields) == nil {
			_, _ = ParsePayload(fields)
		}
	})
}
