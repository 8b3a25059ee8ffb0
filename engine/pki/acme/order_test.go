package acme

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/pki/acme/validation"
)

func TestOrderGivesACertificate(t *testing.T) {
	for _, place := range []string{"", "roles/web/", "issuer/main/", "issuer/main/roles/web/"} {
		m := newMount(t, map[string]any{"max_ttl": "48h"})
		c := m.client(place).register()
		url, o := c.orderOf("A.example.com", "a.example.com", "*.example.com")
		if o.Status != "pending" || len(o.Identifiers) != 2 || len(o.Authorizations) != 2 {
			t.Fatalf("%q: the order is %+v", place, o)
		}
		c.refused(o.Finalize, csr(t, newKey(t), "", "a.example.com", "*.example.com"), "orderNotReady")
		c.refused(url+"/cert", nil, "orderNotReady")
		c.meet(o)
		c.must(url, nil, 200).decode(t, &o)
		if o.Status != "ready" {
			t.Fatalf("%q: with all authorizations the order is %s", place, o.Status)
		}
		c.must(o.Finalize, csr(t, newKey(t), "A.example.com", "*.example.com"), 200).decode(t, &o)
		if o.Status != "valid" || o.Certificate == "" {
			t.Fatalf("%q: the order is %+v", place, o)
		}
		if wanted := m.authority.issued[0]; wanted.MaxTTL != 48*time.Hour || !slices.Equal(wanted.DNS, []string{"a.example.com", "*.example.com"}) || wanted.Issuer+wanted.Role != strings.NewReplacer("issuer/", "", "roles/", "", "/", "").Replace(place) {
			t.Errorf("%q: issued was %+v", place, wanted)
		}
		r := c.must(o.Certificate, nil, 200)
		if !strings.HasPrefix(string(r.body), "-----BEGIN CERTIFICATE-----") {
			t.Errorf("%q: the certificate is %s", place, r.body)
		}
		var list struct{ Orders []string }
		c.must(c.place+"acme/orders", nil, 200).decode(t, &list)
		if !slices.Equal(list.Orders, []string{url}) {
			t.Errorf("%q: orders are %v, want %s", place, list.Orders, url)
		}
		c.refused(o.Finalize, csr(t, newKey(t), "", "a.example.com", "*.example.com"), "orderNotReady")
		// All of it goes when the certificate has ended, but the account.
		for range 3 {
			if _, err := m.RunDue(m.Now().Add(72 * time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		for path := range m.Stored() {
			if !strings.HasPrefix(path, accountDir) && !strings.HasPrefix(path, keyDir) && path != configPath {
				t.Errorf("%q: %s is left over", place, path)
			}
		}
	}
}

func TestOrdersAreForNamesAndAddresses(t *testing.T) {
	m := newMount(t, nil)
	c := m.client("").register()
	order := func(kind string, values ...string) map[string]any {
		var list []map[string]string
		for _, value := range values {
			list = append(list, map[string]string{"type": kind, "value": value})
		}
		return map[string]any{"identifiers": list}
	}
	for _, name := range []string{"", "a..b", "-a.b", "a_b.c", "a.b.", "*.*.a", "a.*.b", "*", "192.0.2.1", "a b", "a/b", "ex\u00e4mple.com", "a:80", strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 130) + "b", "localhost\n"} {
		c.refused("acme/new-order", order("dns", name), "rejectedIdentifier")
	}
	for _, address := range []string{"", "a", "1.2.3", "::1%lo", "192.0.2.1/32"} {
		c.refused("acme/new-order", order("ip", address), "malformed")
	}
	c.refused("acme/new-order", order("email", "a@b"), "unsupportedIdentifier")
	c.refused("acme/new-order", order("dns"), "malformed")
	c.refused("acme/new-order", map[string]any{"identifiers": order("dns", "a.b")["identifiers"], "notAfter": "2030-01-01T00:00:00Z"}, "malformed")
	var many []string
	for n := range maxIdentifiers + 1 {
		many = append(many, fmt.Sprintf("a%d.b", n))
	}
	c.refused("acme/new-order", order("dns", many...), "malformed")
	c.must("acme/new-order", order("dns", many[1:]...), 201)
	r := c.must("acme/new-order", order("ip", "::ffff:192.0.2.1", "192.0.2.1", "2001:DB8::1"), 201)
	var o shownOrder
	r.decode(t, &o)
	if want := []identifier{{"ip", "192.0.2.1"}, {"ip", "2001:db8::1"}}; !slices.Equal(o.Identifiers, want) {
		t.Errorf("identifiers are %v, want %v", o.Identifiers, want)
	}
	c.meet(o)
	c.must(o.Finalize, csr(t, newKey(t), "", "192.0.2.1", "2001:db8::1"), 200)
	if got := m.authority.issued[0].Addresses; len(got) != 2 {
		t.Errorf("issued was for %v", got)
	}
	m.client("roles/web/").register().refused("roles/web/acme/new-order", order("dns", "a.example.org"), "rejectedIdentifier")
	poor := m.client("").register()
	for range maxPending {
		poor.must("acme/new-order", order("dns", "a.b"), 201)
	}
	poor.refused("acme/new-order", order("dns", "a.b"), "rateLimited")
}

func TestCSRHasTheNamesOfTheOrder(t *testing.T) {
	m := newMount(t, nil)
	c := m.client("").register()
	_, o := c.orderOf("a.example.com", "b.example.com")
	c.meet(o)
	key := newKey(t)
	for why, in := range map[string]map[string]any{
		"one less":          csr(t, key, "", "a.example.com"),
		"one more":          csr(t, key, "", "a.example.com", "b.example.com", "c.example.com"),
		"another":           csr(t, key, "", "a.example.com", "c.example.com"),
		"a wildcard":        csr(t, key, "", "*.example.com", "b.example.com"),
		"an address":        csr(t, key, "", "a.example.com", "b.example.com", "192.0.2.1"),
		"mail":              csr(t, key, "", "a.example.com", "b.example.com", "x@example.com"),
		"another CN":        csr(t, key, "c.example.com", "a.example.com", "b.example.com"),
		"the account's key": csr(t, c.key, "", "a.example.com", "b.example.com"),
		"no CSR":            {"csr": "AAAA"},
		"no base64":         {"csr": "%"},
		"nothing":           {"csr": ""},
		"another's": {"csr": func() string {
			der, _ := base64.RawURLEncoding.DecodeString(csr(t, key, "", "a.example.com", "b.example.com")["csr"].(string))
			der[len(der)-1] ^= 1
			return base64.RawURLEncoding.EncodeToString(der)
		}()},
	} {
		if r := c.post(o.Finalize, in, sealed{}); r.kind != "badCSR" {
			t.Errorf("%s: %d %s", why, r.status, r.body)
		}
	}
	c.must(o.Finalize, csr(t, key, "b.example.com", "A.example.com"), 200)
}

func TestOthersOrdersAreNotThere(t *testing.T) {
	m := newMount(t, nil)
	c, other := m.client("").register(), m.client("").register()
	url, o := c.orderOf("a.example.com")
	for _, path := range []string{url, url + "/cert", o.Authorizations[0], baseURL + "/acme/order/none", baseURL + "/acme/order/" + strings.Repeat("a", 36)} {
		if r := other.post(path, nil, sealed{}); r.status != 404 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if r := other.post(o.Finalize, csr(t, newKey(t), "", "a.example.com"), sealed{}); r.status != 404 {
		t.Errorf("finalize: %d %s", r.status, r.body)
	}
	var a shownAuthorization
	c.must(o.Authorizations[0], nil, 200).decode(t, &a)
	if r := other.post(a.Challenges[0].URL, map[string]any{}, sealed{}); r.status != 404 {
		t.Errorf("challenge: %d %s", r.status, r.body)
	}
	c.refused(url, map[string]any{}, "malformed")
	c.refused(a.Challenges[0].URL, []string{}, "malformed")
}

func TestChallengesAreValidatedByWork(t *testing.T) {
	m := newMount(t, map[string]any{"dns_resolver": "192.0.2.53:53", "challenge_excluded_ip_ranges": "198.51.100.0/24"})
	c := m.client("").register()
	url, o := c.orderOf("a.example.com")
	var a shownAuthorization
	c.must(o.Authorizations[0], nil, 200).decode(t, &a)
	if len(a.Challenges) != 3 || a.Status != "pending" {
		t.Fatalf("the authorization is %+v", a)
	}
	m.found = &validation.Failure{Kind: "connection", Detail: "not there"}
	var shown shownChallenge
	r := c.must(a.Challenges[1].URL, map[string]any{}, 200)
	r.decode(t, &shown)
	if shown.Status != "processing" || len(r.header["Link"]) != 2 || len(r.header["Retry-After"]) != 1 {
		t.Errorf("the challenge is %+v, headers %v", shown, r.header)
	}
	c.refused(a.Challenges[0].URL, map[string]any{}, "malformed")
	c.must(a.Challenges[1].URL, map[string]any{}, 200) // told already
	if _, err := m.RunDue(m.Now()); err != nil {
		t.Fatal(err)
	}
	attempt := m.attempts[0]
	if attempt.Kind != "dns-01" || attempt.Name != "a.example.com" || attempt.Reach.Resolver != "192.0.2.53:53" || len(attempt.Reach.Excluded) != 1 || !strings.HasPrefix(attempt.Authorization, shown.Token+".") {
		t.Errorf("the attempt is %+v", attempt)
	}
	c.must(a.Challenges[1].URL, nil, 200).decode(t, &shown)
	if shown.Status != "processing" || shown.Error == nil || shown.Error.Type != typePrefix+"connection" {
		t.Errorf("after an attempt that failed the challenge is %+v", shown)
	}
	// A node that dies with it loses nothing.
	m.found = nil
	if err := m.LoseWork(workChallenge + strings.TrimPrefix(o.Authorizations[0], baseURL+"/acme/authorization/")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.RunDue(m.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c.must(o.Authorizations[0], nil, 200).decode(t, &a)
	c.must(url, nil, 200).decode(t, &o)
	if a.Status != "valid" || o.Status != "ready" || len(m.attempts) != 3 {
		t.Errorf("after %d attempts authorization and order are %s, %s", len(m.attempts), a.Status, o.Status)
	}
	if len(m.Woken()) != 3 { // the account's and the order's end, and the used nonces
		t.Errorf("still due is %v", m.Woken())
	}
	c.must(o.Authorizations[0], map[string]any{"status": "deactivated"}, 200).decode(t, &a)
	c.must(url, nil, 200).decode(t, &o)
	if a.Status != "deactivated" || o.Status != "invalid" {
		t.Errorf("given up, authorization and order are %s, %s", a.Status, o.Status)
	}
	c.refused(o.Authorizations[0], map[string]any{"status": "deactivated"}, "malformed")
}

func TestAChallengeThatKeepsFailingIsInvalid(t *testing.T) {
	m := newMount(t, nil)
	c := m.client("").register()
	url, o := c.orderOf("a.example.com")
	m.found = &validation.Failure{Kind: "incorrectResponse", Detail: "something else"}
	c.meet(o)
	for range maxAttempts {
		if _, err := m.RunDue(m.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	var a shownAuthorization
	c.nonce = ""
	c.must(o.Authorizations[0], nil, 200).decode(t, &a)
	c.must(url, nil, 200).decode(t, &o)
	if len(m.attempts) != maxAttempts || a.Status != "invalid" || a.Challenges[0].Status != "invalid" || a.Challenges[0].Error == nil || o.Status != "invalid" {
		t.Errorf("after %d attempts: %+v, the order is %s", len(m.attempts), a, o.Status)
	}
	c.refused(a.Challenges[1].URL, map[string]any{}, "malformed")
	// So is what nobody has done in time.
	url, o = c.orderOf("a.example.com")
	m.Advance(orderLife)
	c.nonce = ""
	c.must(o.Authorizations[0], nil, 200).decode(t, &a)
	c.must(url, nil, 200).decode(t, &o)
	if a.Status != "expired" || o.Status != "invalid" {
		t.Errorf("after its time, authorization and order are %s, %s", a.Status, o.Status)
	}
}

func TestChallengesFitTheName(t *testing.T) {
	m := newMount(t, nil)
	c := m.client("").register()
	kinds := func(url string) (kinds []string, a shownAuthorization) {
		c.must(url, nil, 200).decode(t, &a)
		for _, one := range a.Challenges {
			kinds = append(kinds, one.Type)
		}
		return kinds, a
	}
	_, o := c.orderOf("*.example.com")
	if got, a := kinds(o.Authorizations[0]); !slices.Equal(got, []string{"dns-01"}) || !a.Wildcard || a.Identifier.Value != "example.com" {
		t.Errorf("for a wildcard: %v, %+v", got, a)
	}
	c.must("acme/new-order", map[string]any{"identifiers": []any{map[string]string{"type": "ip", "value": "192.0.2.1"}}}, 201).decode(t, &o)
	if got, _ := kinds(o.Authorizations[0]); !slices.Equal(got, []string{"http-01", "tls-alpn-01"}) {
		t.Errorf("for an address: %v", got)
	}
}

func TestWhoHasACertificateRevokesIt(t *testing.T) {
	m := newMount(t, nil)
	c, other := m.client("").register(), m.client("").register()
	key := newKey(t)
	first, second := c.certificateOf(key, "a.example.com"), c.certificateOf(newKey(t), "b.example.com")
	asked := func(der []byte, more map[string]any) map[string]any {
		fields := map[string]any{"certificate": base64.RawURLEncoding.EncodeToString(der)}
		for name, value := range more {
			fields[name] = value
		}
		return fields
	}
	other.refused("acme/revoke-cert", asked(first.Raw, nil), "unauthorized")
	c.refused("acme/revoke-cert", asked(first.Raw, map[string]any{"reason": 2}), "badRevocationReason")
	c.refused("acme/revoke-cert", asked([]byte("x"), nil), "malformed")
	c.must("acme/revoke-cert", asked(first.Raw, map[string]any{"reason": 4}), 200)
	c.refused("acme/revoke-cert", asked(first.Raw, nil), "alreadyRevoked")
	// By the certificate's own key, without an account; no other key will do.
	holder := m.client("")
	holder.key = key
	holder.refused("acme/revoke-cert", asked(second.Raw, nil), "unauthorized")
	third := c.certificateOf(key, "c.example.com")
	holder.must("acme/revoke-cert", asked(third.Raw, nil), 200)
}

// The first formats of what is stored, which have to be read for ever.
func TestFirstFormatsAreRead(t *testing.T) {
	m := newMount(t, nil)
	m.Store(configPath, []byte(`{"settings":{"enabled":true,"allowed_roles":["*"],"allow_role_ext_key_usage":false,"allowed_issuers":["*"],"default_directory_policy":"sign-verbatim",`+
		`"eab_policy":"not-required","dns_resolver":"","max_ttl":3600,"challenge_permitted_ip_ranges":[],"challenge_excluded_ip_ranges":[]},"nonce_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}`))
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	const nonce = "AAAAAGlXM_cAAQIDBAUGBwgJCgsMDQ4P"
	head, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.RawURLEncoding.EncodeToString(sealNonce(key, head)); got != "k8ViYvFAs5DBTZXwHXN_Ng" {
		t.Errorf("the seal of a nonce is %q", got)
	}
	const account1, order1, auth1 = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"
	c := m.client("")
	jwk := `{"kty":"EC","crv":"P-256","x":"` + base64.RawURLEncoding.EncodeToString(pad(c)) + `","y":"` + base64.RawURLEncoding.EncodeToString(padY(c)) + `"}`
	m.Store(accountDir+account1, []byte(`{"id":"`+account1+`","place":{},"key":`+jwk+`,"status":"valid","created":1}`))
	m.Store(orderDir+order1, []byte(`{"id":"`+order1+`","account":"`+account1+`","place":{},"status":"pending","expires":4102444800,"identifiers":[{"type":"dns","value":"a.example.com"}],"authorizations":["`+auth1+`"]}`))
	m.Store(authDir+auth1, []byte(`{"id":"`+auth1+`","account":"`+account1+`","place":{},"order":"`+order1+`","identifier":{"type":"dns","value":"a.example.com"},"status":"valid","expires":4102444800,`+
		`"challenges":[{"type":"http-01","token":"t","status":"valid","validated":1}]}`))
	c.kid = baseURL + "/acme/account/" + account1
	var o shownOrder
	c.must("acme/order/"+order1, nil, 200).decode(t, &o)
	if o.Status != "ready" {
		t.Errorf("the stored order is %+v", o)
	}
	c.must(o.Finalize, csr(t, newKey(t), "", "a.example.com"), 200)
	for _, path := range []string{accountDir + account1, configPath} {
		m.Store(path, []byte(`{"damaged`))
		if _, err := m.Do(conclave.Update, "acme/order/"+order1, c.sign(baseURL+"/acme/order/"+order1, nil, sealed{nonce: "x"})); !conclave.Is(err, conclave.Internal) {
			t.Errorf("with %s damaged: %v", path, err)
		}
	}
}

func FuzzRequests(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9", "e30", "AAAA", []byte(`{"id":"x"}`))
	f.Add("eyJhbGciOiJub25lIn0", "", "", []byte(`{"type":"dns","value":"*.example.com"}`))
	f.Fuzz(func(t *testing.T, protected, payload, signature string, stored []byte) {
		if jws, header, err := parseJWS(&signed{protected, payload, signature}, algorithms()); err == nil {
			if header == nil || jws == nil {
				t.Error("neither a JWS nor a refusal")
			}
			if header.JSONWebKey != nil && checkKey(header.JSONWebKey) == nil {
				_, _ = keyPath(place{}, header.JSONWebKey)
			}
		}
		_, _ = decodeConfig(stored)
		_, _ = decode[account](stored)
		_, _ = decode[order](stored)
		_, _ = decode[authorization](stored)
		_, _ = decode[binding](stored)
		if names, err := checkIdentifiers([]identifier{{"dns", payload}, {"ip", payload}}); err == nil {
			again, err := checkIdentifiers(names)
			if err != nil || !slices.Equal(again, names) {
				t.Errorf("%q becomes %v, then %v, %v", payload, names, again, err)
			}
		}
		_ = checkContacts([]string{payload, "mailto:" + payload})
	})
}
