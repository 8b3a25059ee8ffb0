package token

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

func batchFields(more map[string]any) map[string]any {
	fields := map[string]any{"type": "batch", "policies": list("a"), "ttl": "1h"}
	for name, value := range more {
		fields[name] = value
	}
	return fields
}

func TestBatchTokenIsStoredNowhere(t *testing.T) {
	b := newBench(t)
	b.create(b.root, batchFields(nil)) // makes the key
	before := len(b.Values())
	auth := b.create(b.root, batchFields(map[string]any{"meta": map[string]any{"who": "ann"}, "display_name": "ann"}))
	if len(b.Values()) != before {
		t.Error("a batch token was stored")
	}
	if auth.TokenType != "batch" || auth.Accessor != "" || auth.Renewable || auth.TTL != time.Hour || !strings.HasPrefix(auth.ClientToken.Reveal(), "hvb.") {
		t.Errorf("%+v", auth)
	}
	caller, record, err := Authenticate(b, b.Namespace(), auth.ClientToken)
	if err != nil || caller.Type != "batch" || !slices.Equal(caller.Policies, []string{"a", "default"}) || caller.DisplayName != "token-ann" ||
		caller.Metadata["who"] != "ann" || record.Owner() != NameOf(b.root) {
		t.Fatalf("%+v, %v", caller, err)
	}
	for _, path := range []string{"lookup", "lookup-self"} {
		got := members(t, b.must(auth.ClientToken, conclave.Read, path, nil))
		if got["type"] != "batch" || got["accessor"] != "" || got["ttl"] != 3600.0 || got["orphan"] != false || got["renewable"] != false || got["id"] != auth.ClientToken.Reveal() {
			t.Errorf("%s: %v", path, got)
		}
	}
	if got := members(t, b.must(b.root, conclave.Update, "lookup", map[string]any{"token": auth.ClientToken.Reveal()})); got["type"] != "batch" {
		t.Errorf("looked up by another: %v", got)
	}
}

func TestBatchTokenEndsWithItsTimeAndItsParent(t *testing.T) {
	for _, end := range []string{"time", "revoke", "revoke-orphan", "grandparent"} {
		b := newBench(t)
		above := b.create(b.root, map[string]any{"policies": list("a"), "ttl": "9h"}).ClientToken
		parent := b.create(above, map[string]any{"ttl": "9h"}).ClientToken
		secret := b.create(parent, batchFields(nil)).ClientToken
		orphan := b.must(b.root, conclave.Update, "create-orphan", batchFields(map[string]any{"ttl": "9h"})).Auth.ClientToken
		b.Advance(time.Hour - time.Second)
		if !lives(b.Memory, secret) {
			t.Fatal("it doesn't live")
		}
		switch end {
		case "time":
			b.Advance(time.Second)
		case "grandparent":
			b.must(b.root, conclave.Update, "revoke", map[string]any{"token": above.Reveal()})
		default:
			b.must(b.root, conclave.Update, end, map[string]any{"token": parent.Reveal()})
		}
		if lives(b.Memory, secret) {
			t.Errorf("%s: it lives on", end)
		}
		if !lives(b.Memory, orphan) {
			t.Errorf("%s: the orphan died", end)
		}
	}
}

func TestBatchTokenCanNotDoWhatNeedsARecord(t *testing.T) {
	b := newBench(t)
	secret := b.create(b.root, batchFields(nil)).ClientToken
	named := map[string]any{"token": secret.Reveal()}
	for _, test := range []struct {
		by     conclave.Secret
		path   string
		fields map[string]any
		want   string
	}{
		{secret, "create", map[string]any{"policies": list("a")}, "batch tokens cannot create more tokens"},
		{secret, "renew-self", nil, "batch tokens cannot be renewed"},
		{b.root, "renew", named, "batch tokens cannot be renewed"},
		{secret, "revoke-self", nil, "batch tokens cannot be revoked"},
		{b.root, "revoke", named, "batch tokens cannot be revoked"},
		{b.root, "revoke-orphan", named, "batch tokens cannot be revoked"},
		{b.root, "create", batchFields(map[string]any{"policies": list("root")}), "batch tokens cannot be root tokens"},
		{b.root, "create", batchFields(map[string]any{"policies": nil}), "batch tokens cannot be root tokens"},
		{b.root, "create", batchFields(map[string]any{"num_uses": 2}), "num_uses"},
		{b.root, "create", batchFields(map[string]any{"period": "1h"}), "period"},
		{b.root, "create", batchFields(map[string]any{"explicit_max_ttl": "1h"}), "explicit_max_ttl"},
		{b.root, "create", batchFields(map[string]any{"id": "x"}), "id"},
		{b.root, "create", batchFields(map[string]any{"meta": big()}), "8192 bytes"},
		{b.root, "create", map[string]any{"type": "bath"}, "type"},
	} {
		if n, ok := test.fields["num_uses"]; ok {
			test.fields["num_uses"] = json.Number(fmt.Sprint(n))
		}
		if _, err := b.as(test.by, conclave.Update, test.path, test.fields); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %v: %v, want %q", test.path, test.fields, err, test.want)
		}
	}
	if !lives(b.Memory, secret) {
		t.Error("it died of it")
	}
	if _, err := b.as(b.root, conclave.Update, "revoke", map[string]any{"token": "hvb.unknown"}); err != nil {
		t.Errorf("revoking what is no token: %v", err)
	}
}

func big() map[string]any {
	fields := map[string]any{}
	for i := range maxMetadata {
		fields[fmt.Sprint(i)] = strings.Repeat("x", maxText)
	}
	return fields
}

func TestBatchTokenHasOneSpelling(t *testing.T) {
	b := newBench(t)
	good := b.create(b.root, batchFields(nil)).ClientToken.Reveal()
	if !lives(b.Memory, conclave.NewSecret(good)) {
		t.Fatal("it doesn't live")
	}
	bad := []string{"hvb.", "hvb.AAAA", good + ".", good + ".team", good + "=", good + "\n", good[:len(good)-1], "hvb" + good[3:] + "A",
		"hvb." + base64.RawURLEncoding.EncodeToString([]byte{2, 0, 0, 0, 1}), strings.Replace(good, "hvb.", "hvs.", 1), "hvb." + strings.Repeat("A", MaxBatch)}
	for i := len(BatchPrefix); i < len(good); i += 7 {
		other := []byte(good)
		other[i] ^= 1
		bad = append(bad, string(other))
	}
	for _, text := range bad {
		if lives(b.Memory, conclave.NewSecret(text)) {
			t.Errorf("%q is taken for a token", text)
		}
	}
	other := newBench(t)
	other.create(other.root, batchFields(nil))
	if lives(other.Memory, conclave.NewSecret(good)) {
		t.Error("another namespace takes the token")
	}
}

func TestBatchTokenIsBoundToAddresses(t *testing.T) {
	b := newBench(t)
	secret, err := sealBatch(b, &Record{Policies: []string{"a"}, TTL: time.Hour, BoundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err := b.End(err); err != nil {
		t.Fatal(err)
	}
	request := &conclave.Request{Remote: netip.MustParseAddrPort("10.1.1.1:5")}
	b.SetRequest(request)
	if !lives(b.Memory, secret) {
		t.Error("refused from its own network")
	}
	request.Remote = netip.MustParseAddrPort("192.0.2.1:5")
	if lives(b.Memory, secret) {
		t.Error("taken from another network")
	}
}

func TestKeysOfBatchTokensAreReplacedAndOutliveTheirTokens(t *testing.T) {
	b := newBench(t)
	long := b.create(b.root, batchFields(map[string]any{"ttl": "200h"})).ClientToken
	keys := func() []batchKey {
		k, err := loadBatchKeys(b)
		if err != nil || k == nil {
			t.Fatal(k, err)
		}
		return k.Keys
	}
	b.Advance(150 * time.Hour)
	b.create(b.root, batchFields(nil))
	if len(keys()) != 1 {
		t.Fatal("the key was replaced early")
	}
	b.SetNow(time.Unix(0, keys()[0].Made).Add(batchKeyLife))
	late := b.create(b.root, batchFields(map[string]any{"ttl": "100h"})).ClientToken
	if k := keys(); len(k) != 2 || k[1].Number != 2 || lives(b.Memory, long) || !lives(b.Memory, late) {
		t.Fatalf("%d keys", len(k))
	}
	for range 3 {
		b.Advance(batchKeyLife)
		b.create(b.root, batchFields(nil))
	}
	if k := keys(); k[0].Number < 2 || len(k) > 4 || k[len(k)-1].Number != 5 {
		t.Errorf("old keys stay: %+v", len(k))
	}
}

// goldenKeys and goldenBatch are as the first version wrote them.
const (
	goldenKeys  = `{"keys":[{"number":7,"key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","made":1700000000000000000,"until":1800000000000000000}]}`
	goldenBatch = "hvb.AQAAAAe0Or9iWZdLShjYR_wWjXQRrVVZH0CWMncaZkd5CCcm27IetZsU5Um7yBYPAnlp4ibxOs9BnWsSoxzUYGtyCk8fat2R62bGXPC4tZCDOP6op1iD" +
		"0P0XCJ-FEnGUltGz43dFv3HxJGy1IYpACLJw-3umK9Ym1GZvMPC76QswH9Y_yRT6qyAM5Sugyo7XfFR44ElR8XQ19lFzSaDaJZ1CgsH5IZeKnvTRsBAWcdpRresIEf8EfkX014zlS0qc" +
		"kYq4mAaxdIFq-BWx9LdmsXV-IijnsvlbB8qAhPUD7_UPVnFpKzkzTqI"
	goldenPlain = `{"policies":["default","ops"],"path":"auth/token/create","meta":{"k":"v"},"name":"token-x","entity":"e","role":"r",` +
		`"cidrs":["10.0.0.0/8"],"created":1700000000000000000,"ttl":3600000000000}`
)

func TestFormOfBatchTokensStays(t *testing.T) {
	m := newMemory(t)
	if err := m.End(m.Put(batchKeysPath, []byte(goldenKeys))); err != nil {
		t.Fatal(err)
	}
	r, err := openBatch(m, conclave.NewSecret(goldenBatch))
	if err != nil || r == nil {
		t.Fatalf("%v, %v", r, err)
	}
	if r.Role != "r" || r.TTL != time.Hour || r.EntityID != "e" || r.DisplayName != "token-x" || r.Metadata["k"] != "v" || len(r.BoundCIDRs) != 1 {
		t.Errorf("%+v", r)
	}
	payload, err := unsealBatch(m, conclave.NewSecret(goldenBatch))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(payload); err != nil || string(again) != goldenPlain {
		t.Errorf("%s, %v", again, err)
	}
	keys, err := loadBatchKeys(m)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(keys); err != nil || string(again) != goldenKeys {
		t.Errorf("%s, %v", again, err)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(goldenBatch, []byte(goldenPlain), []byte(goldenKeys))
	f.Add("hvb.AQAAAAc.ns", []byte(`{}`), []byte(`{"keys":[]}`))
	m := newMemory(f)
	if err := m.End(m.Put(batchKeysPath, []byte(goldenKeys))); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string, plain, keys []byte) {
		if r, err := openBatch(m, conclave.NewSecret(BatchPrefix+text)); err != nil || r != nil && BatchPrefix+text != goldenBatch {
			t.Errorf("%v, %v", r, err)
		}
		if p := decodeBatch(plain, ""); p != nil && (p.TTL <= 0 || p.NamespaceID != "") {
			t.Errorf("%+v", p)
		}
		if got, err := decodeBatchKeys(keys); err == nil && got.(*batchKeys).Keys[0].aead == nil {
			t.Error("a key that can't open")
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	bench := newBench(b)
	secret := bench.create(bench.root, batchFields(nil)).ClientToken
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Authenticate(bench, bench.Namespace(), secret); err != nil {
			b.Fatal(err)
		}
	}
}
