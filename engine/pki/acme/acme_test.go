package acme

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) {
	plugin := conclave.Plugin{Kind: "acme", Doc: "ACME alone.", Open: func(map[string]string) (conclave.Engine, error) {
		return engine{New(&issuer{key: newKey(t), base: baseURL})}, nil
	}}
	enginetest.Conformance(t, plugin)
}

func TestDirectoriesSayWhereThingsAre(t *testing.T) {
	m := newMount(t, map[string]any{"eab_policy": "new-account-required"})
	for _, place := range []string{"", "roles/web/", "issuer/main/", "issuer/main/roles/web/"} {
		var d directory
		r := m.reads(place + "acme/directory")
		r.decode(t, &d)
		if d.NewOrder != baseURL+"/"+place+"acme/new-order" || !d.Meta.ExternalAccountRequired || len(r.header["Link"]) != 1 {
			t.Errorf("%q: %+v, %v", place, d, r.header)
		}
	}
	for _, place := range []string{"roles/none/", "issuer/none/"} {
		if r := m.reads(place + "acme/directory"); r.status != 400 || r.kind != "malformed" {
			t.Errorf("%q: %d %s", place, r.status, r.body)
		}
	}
	m.Data(conclave.Update, "config/acme", map[string]any{"allowed_roles": "other", "allowed_issuers": "main", "default_directory_policy": "forbid"})
	for place, status := range map[string]int{"": 403, "roles/web/": 403, "roles/other/": 200, "issuer/main/": 403, "issuer/main/roles/other/": 200} {
		if r := m.reads(place + "acme/directory"); r.status != status && (status != 200 || r.status != 0) {
			t.Errorf("%q: %d %s, want %d", place, r.status, r.body, status)
		}
	}
	m.Data(conclave.Update, "config/acme", map[string]any{"allowed_issuers": "another"})
	if r := m.reads("roles/other/acme/directory"); r.status != 403 {
		t.Errorf("with another issuer allowed: %d", r.status)
	}
	m.Data(conclave.Update, "config/acme", map[string]any{"enabled": false})
	if r := m.reads("acme/directory"); r.status != 404 {
		t.Errorf("not enabled: %d", r.status)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	m := newMount(t, nil)
	for _, fields := range []map[string]any{{"allowed_roles": []string{}}, {"allowed_issuers": []string{}}, {"eab_policy": "x"}, {"max_ttl": 0}, {"max_ttl": "100000h"}, {"default_directory_policy": "x"},
		{"default_directory_policy": "role:none"}, {"default_directory_policy": "role:web", "allowed_roles": "other"}, {"dns_resolver": "host"}, {"challenge_permitted_ip_ranges": "x"}} {
		m.Fails(conclave.Update, "config/acme", fields, conclave.Invalid, "")
	}
	m.Data(conclave.Update, "config/acme", map[string]any{"default_directory_policy": "role:web", "max_ttl": "1h"})
	got := m.Data(conclave.Read, "config/acme", nil)
	if got["enabled"] != true || got["default_directory_policy"] != "role:web" || got["max_ttl"] != json.Number("3600") || got["eab_policy"] != "not-required" {
		t.Errorf("settings are %v", got)
	}
	m.authority.base = ""
	m.Fails(conclave.Update, "config/acme", map[string]any{"enabled": true}, conclave.Invalid, "config/cluster")
}

func TestNoncesAreGoodOnce(t *testing.T) {
	m := newMount(t, nil)
	c := m.client("").register()
	nonce := c.nonce
	c.must(c.kid, nil, 200)
	for name, how := range map[string]sealed{"used": {nonce: nonce}, "forged": {nonce: strings.Repeat("A", 54)}, "garbage": {nonce: "x"}, "changed": {nonce: flip(c.nonce)}, "none": {nonce: "none"},
		"of another mount": {nonce: newMount(t, nil).reads("acme/new-nonce").header["Replay-Nonce"][0]}} {
		if r := c.post(c.kid, nil, how); r.kind != "badNonce" || len(r.header["Replay-Nonce"]) != 1 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	// A refused request uses its nonce up, too.
	nonce = c.nonce
	c.refused("acme/new-order", dnsNames(), "malformed")
	if r := c.post(c.kid, nil, sealed{nonce: nonce}); r.kind != "badNonce" {
		t.Errorf("the nonce of a request that was refused: %d %s", r.status, r.body)
	}
	old := m.reads("acme/new-nonce").header["Replay-Nonce"][0]
	c.must(c.kid, nil, 200)
	m.Advance(nonceLife)
	if r := c.post(c.kid, nil, sealed{nonce: old}); r.kind != "badNonce" {
		t.Errorf("an old nonce: %d %s", r.status, r.body)
	}
	// What was used is cleared away once none of that time is good.
	used := func() (n int) {
		for path := range m.Stored() {
			if strings.HasPrefix(path, usedDir) || strings.HasPrefix(path, periodDir) {
				n++
			}
		}
		return n
	}
	if used() == 0 {
		t.Error("no used nonce is stored")
	}
	for range 3 {
		if _, err := m.RunDue(m.Now().Add(3 * nonceLife)); err != nil {
			t.Fatal(err)
		}
	}
	if n := used(); n != 0 {
		t.Errorf("%d used nonces are left", n)
	}
}

// flip changes one letter in the middle.
func flip(text string) string {
	b := []byte(text)
	if b[20]++; b[20] > 'z' || b[20] > 'Z' && b[20] < 'a' {
		b[20] = 'A'
	}
	return string(b)
}

func TestRequestsAreSignedAsTheyMustBe(t *testing.T) {
	m := newMount(t, nil)
	c := m.client("").register()
	other := m.client("").register()
	elsewhere := m.client("roles/web/").register()
	for name, row := range map[string]struct {
		path string
		how  sealed
		kid  string
		kind string
	}{
		"right":                      {c.kid, sealed{}, c.kid, ""},
		"for another url":            {c.kid, sealed{url: baseURL + "/acme/new-order"}, c.kid, "unauthorized"},
		"by another key":             {c.kid, sealed{key: newKey(t)}, c.kid, "malformed"},
		"as another account":         {other.kid, sealed{}, c.kid, "unauthorized"},
		"of another account":         {c.kid, sealed{}, other.kid, "malformed"},
		"of another directory":       {c.kid, sealed{}, elsewhere.kid, "accountDoesNotExist"},
		"of no account":              {c.kid, sealed{}, baseURL + "/acme/account/" + strings.Repeat("a", 36), "accountDoesNotExist"},
		"of a strange account":       {c.kid, sealed{}, "https://evil.example/acme/account/1", "accountDoesNotExist"},
		"by its own key":             {c.kid, sealed{withKey: true}, c.kid, "malformed"},
		"with a secret":              {c.kid, sealed{key: []byte(strings.Repeat("k", 32)), algorithm: jose.HS256}, c.kid, "badSignatureAlgorithm"},
		"with what it must not know": {c.kid, sealed{header: map[string]any{"crit": []string{"x"}, "x": 1}}, c.kid, "malformed"},
		"with key and account":       {c.kid, sealed{withKey: true, header: map[string]any{"kid": c.kid}}, c.kid, "malformed"},
		"an account with an account": {"acme/new-account", sealed{}, c.kid, "malformed"},
	} {
		sender := *c
		sender.kid, sender.nonce = row.kid, ""
		if r := sender.post(row.path, nil, row.how); r.kind != row.kind {
			t.Errorf("%s: %d %s, want %q", name, r.status, r.body, row.kind)
		}
	}
	body := c.sign(c.kid, nil, sealed{})
	path := strings.TrimPrefix(c.kid, baseURL+"/")
	for name, change := range map[string]func(map[string]any){
		"no signature":    func(b map[string]any) { b["signature"] = "" },
		"no header":       func(b map[string]any) { b["protected"] = "" },
		"another payload": func(b map[string]any) { b["payload"] = "e30" },
		"too large":       func(b map[string]any) { b["payload"] = strings.Repeat("A", maxPayload+1) },
		"not base64":      func(b map[string]any) { b["protected"] = "%" },
		"none as algorithm": func(b map[string]any) {
			b["protected"] = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
		},
	} {
		changed := map[string]any{"protected": body["protected"], "payload": body["payload"], "signature": body["signature"]}
		change(changed)
		response, err := m.Do(conclave.Update, path, changed)
		if err != nil {
			t.Fatal(err)
		}
		if r := answered(t, response); r.status < 400 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
}

func TestAccountsHaveKeysThatAreGood(t *testing.T) {
	m := newMount(t, nil)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	large, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	round, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		key       any
		algorithm jose.SignatureAlgorithm
		kind      string
	}{{edwards, jose.EdDSA, ""}, {large, jose.ES512, ""}, {round, jose.RS256, ""}, {round, jose.PS256, "badSignatureAlgorithm"}, {weak, jose.RS256, "badPublicKey"}} {
		if r := m.client("").post("acme/new-account", map[string]any{}, sealed{key: row.key, algorithm: row.algorithm}); r.kind != row.kind {
			t.Errorf("%T with %s: %d %s, want %q", row.key, row.algorithm, r.status, r.body, row.kind)
		}
	}
}

func TestAccountsAreMadeChangedAndGivenUp(t *testing.T) {
	m := newMount(t, nil)
	c := m.client("")
	c.refused("acme/new-account", map[string]any{"onlyReturnExisting": true}, "accountDoesNotExist")
	c.refused("acme/new-account", map[string]any{"contact": []string{"tel:1"}}, "unsupportedContact")
	c.refused("acme/new-account", map[string]any{"contact": []string{"mailto:a@example.com,b@example.com"}}, "invalidContact")
	c.register()
	again := *c
	again.kid, again.nonce = "", ""
	if got := again.must("acme/new-account", map[string]any{"onlyReturnExisting": true}, 200).location(); got != c.kid {
		t.Errorf("the key's account is %q, want %q", got, c.kid)
	}
	var shown shownAccount
	c.must(c.kid, map[string]any{"contact": []string{"mailto:new@example.com"}}, 200).decode(t, &shown)
	if !slices.Equal(shown.Contact, []string{"mailto:new@example.com"}) || shown.Status != "valid" {
		t.Errorf("the account is %+v", shown)
	}
	// Another key, which then is the only one.
	old := *c
	fresh := newKey(t)
	inner := func(key any, account string, oldKey any) map[string]any {
		other := *c
		other.kid = ""
		body := other.sign(baseURL+"/acme/key-change", map[string]any{"account": account, "oldKey": jose.JSONWebKey{Key: oldKey}}, sealed{nonce: "none", key: key})
		return body
	}
	c.refused("acme/key-change", inner(fresh, c.kid+"x", c.key.Public()), "malformed")
	c.refused("acme/key-change", inner(fresh, c.kid, fresh.Public()), "malformed")
	taken := m.client("").register()
	if r := c.post("acme/key-change", inner(taken.key, c.kid, c.key.Public()), sealed{}); r.status != 409 || r.location() != taken.kid {
		t.Errorf("a key that has an account: %d %s", r.status, r.body)
	}
	c.must("acme/key-change", inner(fresh, c.kid, c.key.Public()), 200)
	old.nonce, c.nonce = "", ""
	old.refused(c.kid, nil, "malformed")
	c.key = fresh
	c.must(c.kid, nil, 200)
	c.must(c.kid, map[string]any{"status": "deactivated"}, 200)
	c.refused(c.kid, nil, "unauthorized")
	again = *c
	again.kid, again.nonce = "", ""
	again.refused("acme/new-account", map[string]any{}, "unauthorized")
}

func TestAccountsWithoutOrdersGo(t *testing.T) {
	m := newMount(t, nil)
	idle, busy := m.client("").register(), m.client("").register()
	busy.orderOf("a.example.com")
	m.Advance(accountLife - time.Hour)
	busy.nonce = ""
	busy.orderOf("a.example.com")
	for range 2 {
		if _, err := m.RunDue(m.Now().Add(2 * time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	idle.nonce, busy.nonce = "", ""
	idle.refused(idle.kid, nil, "accountDoesNotExist")
	busy.must(busy.kid, nil, 200)
	idle.kid, idle.nonce = "", ""
	idle.register()
}

func TestExternalAccountsAreBoundOnce(t *testing.T) {
	m := newMount(t, map[string]any{"eab_policy": "always-required"})
	m.client("").refused("acme/new-account", map[string]any{}, "externalAccountRequired")
	made := m.Data(conclave.Update, "roles/web/acme/new-eab", nil)
	secret, err := base64.RawURLEncoding.DecodeString(made["key"].(string))
	if err != nil || made["acme_directory"] != "roles/web/acme/directory" {
		t.Fatalf("the binding is %v, %v", made, err)
	}
	bind := func(c *client, kid any, secret []byte, key any) map[string]any {
		url := baseURL + "/" + c.place + "acme/new-account"
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, (&jose.SignerOptions{}).WithHeader("url", url).WithHeader("kid", kid))
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(jose.JSONWebKey{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]any{"externalAccountBinding": json.RawMessage(jws.FullSerialize())}
	}
	web, plain := m.client("roles/web/"), m.client("")
	id := made["id"]
	web.refused("roles/web/acme/new-account", bind(web, id, []byte(strings.Repeat("x", 32)), web.key.Public()), "unauthorized")
	web.refused("roles/web/acme/new-account", bind(web, strings.Repeat("a", 36), secret, web.key.Public()), "unauthorized")
	web.refused("roles/web/acme/new-account", bind(web, id, secret, newKey(t).Public()), "unauthorized")
	plain.refused("acme/new-account", bind(plain, id, secret, plain.key.Public()), "unauthorized")
	web.kid = web.must("roles/web/acme/new-account", bind(web, id, secret, web.key.Public()), 201).location()
	second := m.client("roles/web/")
	second.refused("roles/web/acme/new-account", bind(second, id, secret, second.key.Public()), "unauthorized")
	web.orderOf("a.example.com")
	for range 2 {
		m.Data(conclave.Update, "acme/new-eab", nil)
	}
	list := m.Data(conclave.List, "eab", nil)["keys"].([]any)
	if len(list) != 2 {
		t.Fatalf("unused bindings are %v", list)
	}
	m.Data(conclave.Delete, "eab/"+list[0].(string), nil)
	// An account from before is of no use where all need a binding.
	m.Data(conclave.Update, "config/acme", map[string]any{"eab_policy": "not-required"})
	free := m.client("").register()
	m.Data(conclave.Update, "config/acme", map[string]any{"eab_policy": "always-required"})
	free.nonce = ""
	free.refused("acme/new-order", dnsNames("a.example.com"), "unauthorized")
	m.Data(conclave.Update, "config/acme", map[string]any{"eab_policy": "new-account-required"})
	free.orderOf("a.example.com")
}
