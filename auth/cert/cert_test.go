package cert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) {
	ca := newCA(t, "CA")
	enginetest.Conformance(t, Plugin())
	t.Run("presenting", func(t *testing.T) {
		enginetest.Conformance(t, Plugin(), enginetest.Request(func(req *conclave.Request) {
			req.PresentedCertificates = chainOf(ca.issue("client", 2), ca)
		}))
	})
}

func TestLoginByAuthority(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	h.Data(conclave.Update, "certs/Web", map[string]any{"certificate": ca.pem(), "token_policies": "p1,p2", "token_ttl": "1h", "display_name": "web server"})
	client := ca.issue("client.example.org", 0x1234, func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 0xab} })
	login := logIn(t, presenting(h, client), "")
	if login.Alias.Name != "client.example.org" || login.Alias.Metadata != nil || login.DisplayName != "web server" || login.Role != "web" || !login.Renewable {
		t.Errorf("login = %+v", login)
	}
	if !reflect.DeepEqual(login.Terms.Policies, []string{"p1", "p2"}) || login.Terms.TTL != 3600 {
		t.Errorf("terms = %+v", login.Terms)
	}
	for key, want := range map[string]string{"cert_name": "web", "common_name": "client.example.org", "serial_number": "4660", "subject_key_id": "01:ab"} {
		if got := login.Metadata[key]; got != want {
			t.Errorf("metadata %s = %q, want %q", key, got, want)
		}
	}
	h.Data(conclave.Update, "config", map[string]any{"enable_identity_alias_metadata": true})
	if login := logIn(t, presenting(h, client), "WEB"); login.Alias.Metadata["cert_name"] != "web" {
		t.Errorf("alias metadata = %v", login.Alias.Metadata)
	}
}

func TestWhatIsntTrustedIsRefused(t *testing.T) {
	h, ca, other := newHarness(t), newCA(t, "CA"), newCA(t, "CA")
	short := newCA(t, "short", func(c *x509.Certificate) { c.MaxPathLen = 0; c.MaxPathLenZero = true })
	for name, anchor := range map[string]*holder{"main": ca, "short": short} {
		h.Data(conclave.Update, "certs/"+name, map[string]any{"certificate": anchor.pem()})
	}
	between, tooDeep := ca.issue("between", 7, isCA), short.issue("between", 7, isCA)
	noUse := func(c *x509.Certificate) { c.KeyUsage, c.ExtKeyUsage = 0, nil }
	ends := func(at time.Duration) change { return func(c *x509.Certificate) { c.NotAfter = start.Add(at) } }
	notCA := ca.issue("not a CA", 8)
	for _, tc := range []struct {
		what      string
		presented []*holder
		refusal   string // "" is a login
	}{
		{"a client's", []*holder{ca.issue("a", 2)}, ""},
		{"without uses", []*holder{ca.issue("a", 2, noUse)}, ""},
		{"with its intermediate", []*holder{between.issue("a", 2), between}, ""},
		{"nothing", nil, "client certificate must be supplied"},
		{"without its intermediate", []*holder{between.issue("a", 2)}, "invalid certificate"},
		{"another authority of that name", []*holder{other.issue("a", 2), other}, "invalid certificate"},
		{"another authority's with ours behind it", []*holder{other.issue("a", 2), ca}, "invalid certificate"},
		{"self-signed", []*holder{issue(t, nil, newKey(t), template("a", 2))}, "invalid certificate"},
		{"expired", []*holder{ca.issue("a", 2, ends(-time.Minute))}, "invalid certificate"},
		{"expired a second ago", []*holder{ca.issue("a", 2, ends(-time.Second))}, "invalid certificate"},
		{"still valid", []*holder{ca.issue("a", 2, ends(time.Second))}, ""},
		{"not yet valid", []*holder{ca.issue("a", 2, func(c *x509.Certificate) { c.NotBefore = start.Add(time.Second) })}, "invalid certificate"},
		{"with an expired intermediate", []*holder{ca.issue("b", 9, isCA, ends(-time.Minute)).issue("a", 2), ca.issue("b", 9, isCA, ends(-time.Minute))}, "invalid certificate"},
		{"a server's", []*holder{ca.issue("a", 2, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}, "invalid certificate"},
		{"one that doesn't sign", []*holder{ca.issue("a", 2, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })}, "invalid certificate"},
		{"of a path too long", []*holder{tooDeep.issue("a", 2), tooDeep}, "invalid certificate"},
		{"directly below the short path", []*holder{short.issue("a", 2)}, ""},
		{"signed by one that isn't an authority", []*holder{notCA.issue("a", 2), notCA}, "invalid certificate"},
		{"with an unknown critical extension", []*holder{ca.issue("a", 2, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		})}, "invalid certificate"},
		{"with a common name too long", []*holder{ca.issue(strings.Repeat("a", maxCommonName+1), 2)}, "invalid certificate"},
	} {
		who := presenting(h, tc.presented...)
		if tc.refusal != "" {
			_, err := who.Do(conclave.Update, "login", nil)
			if !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), tc.refusal) {
				t.Errorf("%s: %v, want %q", tc.what, err, tc.refusal)
			}
			continue
		}
		if _, err := who.Do(conclave.Update, "login", nil); err != nil {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
}

func TestValidityIsOfClusterTime(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem()})
	client := presenting(h, ca.issue("a", 2, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = start.Add(time.Hour), start.Add(2*time.Hour) }))
	refused(t, client, "", "invalid certificate")
	h.Advance(time.Hour)
	logIn(t, client, "")
	h.Advance(time.Hour + time.Second)
	refused(t, client, "", "invalid certificate")
}

func TestDamagedAndHugeChainsAreRefused(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem()})
	client := ca.issue("a", 2)
	for name, chain := range map[string][][]byte{
		"damaged":  {append([]byte{0}, client.cert.Raw...)},
		"empty":    {{}},
		"too long": append(chainOf(client), make([][]byte, maxPresented)...),
	} {
		who := h.With(enginetest.Request(func(req *conclave.Request) { req.PresentedCertificates = chain }))
		if _, err := who.Do(conclave.Update, "login", nil); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}

func TestPinnedCertificateIsThatOneOnly(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	pinned := ca.issue("a", 2)
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": pinned.pem()})
	logIn(t, presenting(h, pinned), "a")
	logIn(t, presenting(h, pinned, ca), "")
	// Another certificate of the same issuer, number, name and key.
	again := template("a", 2)
	isClient(again)
	again.NotAfter = again.NotAfter.Add(time.Hour)
	refused(t, presenting(h, issue(t, ca, pinned.key, again)), "a", "invalid certificate")
	renamed := template("admin", 2)
	isClient(renamed)
	refused(t, presenting(h, issue(t, ca, pinned.key, renamed)), "a", "invalid certificate")
	// What the pinned one itself signs isn't trusted, nor is it when it is behind another.
	refused(t, presenting(h, pinned.issue("a", 2), pinned), "a", "invalid certificate")
	refused(t, presenting(h, ca.issue("b", 3), pinned), "a", "invalid certificate")
	h.Advance(1001 * time.Hour)
	refused(t, presenting(h, pinned), "a", "no chain matching all constraints")
	server := ca.issue("s", 4, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	h.Fails(conclave.Update, "certs/s", map[string]any{"certificate": server.pem()}, conclave.Invalid, "client authentication")
}

func TestConstraints(t *testing.T) {
	ca := newCA(t, "CA")
	text, err := asn1.Marshal("some value")
	if err != nil {
		t.Fatal(err)
	}
	long, err := asn1.Marshal(strings.Repeat("x", maxMetadata+1))
	if err != nil {
		t.Fatal(err)
	}
	client := ca.issue("web-1.example.org", 2, func(c *x509.Certificate) {
		c.DNSNames, c.EmailAddresses = []string{"a.example.org", "b.example.org"}, []string{"me@example.org"}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/web"}}
		c.Subject.OrganizationalUnit = []string{"eng", "ops"}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: text}, {Id: asn1.ObjectIdentifier{1, 2, 3, 5}, Value: []byte{0xca, 0xfe}},
			{Id: asn1.ObjectIdentifier{1, 2, 3, 7}, Value: long}}
	})
	for _, tc := range []struct {
		field, value string
		works        bool
	}{
		{"allowed_names", "web-*", true}, {"allowed_names", "me@*", true}, {"allowed_names", "x,b.*", true}, {"allowed_names", "spiffe*", false}, {"allowed_names", "web", false},
		{"allowed_common_names", "*.example.org", true}, {"allowed_common_names", "a.example.org", false}, {"allowed_common_names", "WEB-*", false},
		{"allowed_dns_sans", "a.*", true}, {"allowed_dns_sans", "web-*", false},
		{"allowed_email_sans", "*@example.org", true}, {"allowed_email_sans", "*@example.com", false},
		{"allowed_uri_sans", "spiffe://example.org/*", true}, {"allowed_uri_sans", "spiffe://example.com/*", false},
		{"allowed_organizational_units", "ops", true}, {"allowed_organizational_units", "op", false},
		{"required_extensions", "1.2.3.4:some*", true}, {"required_extensions", "1.2.3.4:", false}, {"required_extensions", "1.2.3.5:*", false},
		{"required_extensions", "hex:1.2.3.5:CAF*", true}, {"required_extensions", "1.2.3.4:*,1.2.3.6:*", false}, {"required_extensions", "1.2.3.4:*,hex:1.2.3.5:*", true},
	} {
		h := newHarness(t)
		h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem(), tc.field: tc.value})
		_, err := presenting(h, client).Do(conclave.Update, "login", nil)
		if (err == nil) != tc.works {
			t.Errorf("%s = %s: %v, works: want %v", tc.field, tc.value, err, tc.works)
		}
	}
	h := newHarness(t)
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem(), "allowed_metadata_extensions": "1.2.3.4,1.2.3.5,1.2.3.7"})
	if m := logIn(t, presenting(h, client), "").Metadata; m["1-2-3-4"] != "some value" || len(m) != 6 {
		t.Errorf("metadata = %v", m)
	}
}

func TestFirstRoleThatFitsIsTaken(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	for _, name := range []string{"a", "b", "c"} {
		h.Data(conclave.Update, "certs/"+name, map[string]any{"certificate": ca.pem(), "allowed_common_names": map[string]any{"a": "x", "b": "client", "c": "*"}[name]})
	}
	client := presenting(h, ca.issue("client", 2))
	if login := logIn(t, client, ""); login.Role != "b" {
		t.Errorf("role = %q, want b", login.Role)
	}
	if login := logIn(t, client, "c"); login.Role != "c" {
		t.Errorf("role = %q, want c", login.Role)
	}
	refused(t, client, "a", "no chain matching all constraints")
	refused(t, client, "none", "invalid certificate")
	refused(t, client, "../a", "a name is")
}

func TestLoginsComeFromTheNetworksOfTheRole(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem(), "bound_cidrs": "192.0.2.0/24"})
	client := ca.issue("a", 2)
	logIn(t, presenting(h, client), "")
	from(h, "198.51.100.1", client).Fails(conclave.Update, "login", nil, conclave.Denied, "permission denied")
}

func TestRolesKeepWhatIsntGiven(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	h.Data(conclave.Update, "certs/A", map[string]any{"certificate": ca.pem(), "policies": "p", "lease": 60, "max_ttl": "2m", "period": 5, "allowed_names": "x"})
	h.Data(conclave.Update, "certs/a", map[string]any{"ttl": 90, "ocsp_enabled": true, "ocsp_max_retries": 2})
	got := h.Data(conclave.Read, "certs/a", nil)
	for field, want := range map[string]string{"certificate": fmt.Sprintf("%q", ca.pem()), "token_policies": `["p"]`, "token_ttl": "90", "token_max_ttl": "120",
		"token_period": "5", "allowed_names": `["x"]`, "allowed_dns_sans": "[]", "token_bound_cidrs": "[]", "ocsp_enabled": "true", "ocsp_max_retries": "2",
		"display_name": `"a"`, "token_type": `"default"`, "ocsp_this_update_max_age": "0"} {
		value, err := json.Marshal(got[field])
		if err != nil {
			t.Fatal(err)
		}
		if wanted := strings.ReplaceAll(want, `\\n`, `\n`); string(value) != wanted {
			t.Errorf("%s = %s, want %s", field, value, wanted)
		}
	}
	if keys := h.Data(conclave.List, "certs", nil)["keys"]; !reflect.DeepEqual(keys, []any{"a"}) {
		t.Errorf("keys = %v", keys)
	}
	h.Data(conclave.Delete, "certs/a", nil)
	h.Fails(conclave.Read, "certs/a", nil, conclave.NotFound, "")
}

func TestRolesAreCheckedBeforeTheyAreStored(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	for text, fields := range map[string]map[string]any{
		"failed to parse certificate":   {},
		"failed to parse certificate ":  {"certificate": ca.pem(), "ocsp_ca_certificates": "x"},
		"oid:pattern":                   {"certificate": ca.pem(), "required_extensions": "1.2.3"},
		"object identifiers":            {"certificate": ca.pem(), "allowed_metadata_extensions": "1.02"},
		"at most 8 servers":             {"certificate": ca.pem(), "ocsp_max_retries": 11},
		"http or https":                 {"certificate": ca.pem(), "ocsp_servers_override": "file:///etc/passwd"},
		"token_type":                    {"certificate": ca.pem(), "token_type": "x"},
		"policy root":                   {"certificate": ca.pem(), "token_policies": "Root"},
		"at most 256 texts":             {"certificate": ca.pem(), "allowed_names": strings.Repeat("a,", 300)},
		"neither an address nor a netw": {"certificate": ca.pem(), "token_bound_cidrs": "x"},
	} {
		h.Fails(conclave.Update, "certs/a", fields, conclave.Invalid, strings.TrimSpace(text))
	}
	h.Fails(conclave.Update, "certs/a b", map[string]any{"certificate": ca.pem()}, conclave.Invalid, "a name is")
	h.Fails(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem() + "x"}, conclave.Invalid, "failed to parse certificate")
}

func TestConfigKeepsWhatIsntGiven(t *testing.T) {
	h := newHarness(t)
	h.Data(conclave.Update, "config", map[string]any{"disable_binding": true, "ocsp_cache_size": 7})
	h.Data(conclave.Update, "config", map[string]any{"enable_identity_alias_metadata": true})
	want := enginetest.Decode(t, map[string]any{"disable_binding": true, "enable_identity_alias_metadata": true, "ocsp_cache_size": 7, "role_cache_size": 200, "enable_metadata_on_failures": false})
	if got := h.Data(conclave.Read, "config", nil); !reflect.DeepEqual(got, want) {
		t.Errorf("config = %v, want %v", got, want)
	}
	h.Fails(conclave.Update, "config", map[string]any{"ocsp_cache_size": -1}, conclave.Invalid, "can't be negative")
}

func TestRenewalWantsTheSameCertificate(t *testing.T) {
	h, ca := newHarness(t), newCA(t, "CA")
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem(), "token_policies": "p", "token_ttl": 60})
	client := ca.issue("a", 2)
	login := logIn(t, presenting(h, client), "")
	h.Data(conclave.Update, "certs/a", map[string]any{"token_ttl": 120, "token_policies": []string{"p"}})
	if terms, err := presenting(h, client).RenewLogin(login); err != nil || terms.TTL != 120 {
		t.Errorf("renewal = %+v, %v, want a TTL of 120", terms, err)
	}
	again := template("a", 3) // same name and key, another number
	isClient(again)
	for what, who := range map[string]*enginetest.Harness{
		"nothing": presenting(h), "another certificate": presenting(h, ca.issue("a", 2)), "another of the key": presenting(h, issue(t, ca, client.key, again)),
		"the same one behind another": presenting(h, ca.issue("a", 9), client),
	} {
		if _, err := who.RenewLogin(login); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("renewal with %s: %v, want a refusal", what, err)
		}
	}
	refusal := func(what, text string) {
		t.Helper()
		if _, err := presenting(h, client).RenewLogin(login); !conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("renewal when %s: %v, want %q", what, err, text)
		}
	}
	h.Data(conclave.Update, "certs/a", map[string]any{"allowed_names": "b"})
	refusal("the role says something else", "no chain matching")
	h.Data(conclave.Update, "certs/a", map[string]any{"allowed_names": "", "token_policies": "q"})
	refusal("policies have changed", "policies have changed")
	h.Data(conclave.Update, "certs/a", map[string]any{"token_policies": "p"})
	h.Data(conclave.Update, "crls/c", map[string]any{"crl": ca.crl(start, start.Add(time.Hour), 2)})
	refusal("the certificate is revoked", "revoked")
	h.Data(conclave.Delete, "crls/c", nil)
	h.Data(conclave.Update, "config", map[string]any{"disable_binding": true})
	if _, err := presenting(h).RenewLogin(login); err != nil {
		t.Errorf("renewal without binding: %v", err)
	}
	h.Data(conclave.Delete, "certs/a", nil)
	refusal("the role is gone", "gone")
}

func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "anything", true}, {"a", "a", true}, {"a", "A", false}, {"a*", "a", true}, {"*a", "ba", true},
		{"*a", "ab", false}, {"a*c", "abcbc", true}, {"a*c", "abcb", false}, {"**", "x", true}, {"*.*", "a.b", true}, {"a*b*c", "a1b2b3c", true}, {"?", "a", false},
		{"*é", "café", true},
	} {
		if got := matches(tc.pattern, tc.text); got != tc.want {
			t.Errorf("matches(%q, %q) = %v", tc.pattern, tc.text, got)
		}
	}
}

func BenchmarkLogin(b *testing.B) {
	ca := newCA(b, "CA")
	h := enginetest.New(b, Engine{}, enginetest.Fast())
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": ca.pem()})
	client := presenting(h, ca.issue("a", 2))
	for b.Loop() {
		logIn(b, client, "a")
	}
}
