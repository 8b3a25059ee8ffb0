package issuing

import (
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"conclave"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func times() *Times {
	return &Times{Now: now, DefaultTTL: time.Hour, MaxTTL: 1000 * time.Hour, IssuerEnds: now.Add(2000 * time.Hour), Behavior: BehaviorErr}
}

// roleWith is a role for EC keys with some settings changed.
func roleWith(t testing.TB, fields map[string]any) *Role {
	t.Helper()
	role := NewRole()
	role.KeyType = "ec"
	if err := conclave.Merge(role, fields); err != nil {
		t.Fatal(err)
	}
	if _, err := role.Check(); err != nil {
		t.Fatal(err)
	}
	return role
}

type set = map[string]any

// leaf is the template for a request, or why it is refused.
func leaf(role *Role, req *Request, csr *x509.CertificateRequest) (*x509.Certificate, error) {
	allowed := &Allowance{Domains: role.AllowedDomains, URIs: role.AllowedURISANs, DisplayName: "ldap-ann@corp.example"}
	template, _, err := Leaf(role, allowed, req, csr, times(), big.NewInt(7))
	return template, err
}

func TestNamesWithinARole(t *testing.T) {
	bare, sub := set{"allow_bare_domains": true}, set{"allow_subdomains": true}
	for _, row := range []struct {
		about    string
		settings set
		allowed  []string
		refused  []string
	}{
		{"nothing is allowed by a domain alone", set{}, nil, []string{"example.com", "a.example.com", "*.example.com", "a@example.com"}},
		{"bare", bare, []string{"example.com", "EXAMPLE.com", "a@example.com"}, []string{"a.example.com", "xexample.com", "example.com.", "example.com.evil.org", "*.example.com", "a@b@example.com", "@example.com"}},
		{"subdomains", sub, []string{"a.example.com", "a.b.example.com", "A.Example.COM", "*.example.com", "*.a.example.com", "x*.example.com", "u@a.example.com"},
			[]string{"example.com", ".example.com", "aexample.com", "a.example.com.", "a..example.com", "*.*.example.com", "a.*.example.com", "**.example.com", "*.com", "*", "*@example.com", "a@*.example.com",
				"a.example.com\x00.evil.org", "a.example.com/evil.org", "a.example.com evil.org", "-a.example.com", "a-.example.com", "a_b.example.com", strings.Repeat("a", 64) + ".example.com", "a.example.com\n"}},
		{"no wildcards", set{"allow_subdomains": true, "allow_wildcard_certificates": false}, []string{"a.example.com"}, []string{"*.example.com", "x*.example.com", "*"}},
		{"any name, but no wildcards", set{"allow_any_name": true, "allow_wildcard_certificates": false}, []string{"evil.org"}, []string{"*.evil.org"}},
		{"any name", set{"allow_any_name": true}, []string{"evil.org", "*.evil.org", "a@evil.org"}, []string{"evil.org.", "a b", "evil..org"}},
		{"globs", set{"allow_glob_domains": true, "allowed_domains": "ftp*.example.com,*-dev.example.com"}, []string{"ftp1.example.com", "ftp.example.com", "a-dev.example.com", "FTP2.example.com"},
			[]string{"ftp1.example.com.evil.org", "www.example.com", "example.com", "xftp1.example.com"}},
		{"globs are plain without the flag", set{"allow_subdomains": true, "allow_bare_domains": true, "allowed_domains": "*.example.com"}, nil, []string{"a.example.com", "x.a.example.com"}},
		{"localhost", set{"allowed_domains": "", "allow_subdomains": true}, []string{"localhost", "localdomain", "a.localhost"}, []string{"localhost.", "xlocalhost", "a.example.com"}},
		{"no localhost", set{"allow_localhost": false, "allow_subdomains": true}, nil, []string{"localhost", "a.localhost"}},
		{"display name", set{"allow_token_displayname": true}, []string{"ldap-ann@corp.example"}, []string{"corp.example", "other@corp.example", "ldap-ann@corp.example.org"}},
		{"unenforced host names", set{"allow_subdomains": true, "enforce_hostnames": false}, []string{"a_b.example.com"}, []string{"a_b.evil.org", "a b.evil.org"}},
		{"international names by their A-labels", set{"allow_subdomains": true, "allow_bare_domains": true, "allowed_domains": "bücher.example,example.com"},
			[]string{"bücher.example", "xn--bcher-kva.example", "a.bücher.example", "ｗｗｗ.example.com", "www。example.com"}, []string{"bucher.example", "exаmple.com", "www.exampleⅽom.org"}},
	} {
		settings := set{"allowed_domains": "example.com"}
		for name, value := range row.settings {
			settings[name] = value
		}
		role := roleWith(t, settings)
		for _, name := range row.allowed {
			if _, err := leaf(role, &Request{CommonName: name}, nil); err != nil {
				t.Errorf("%s: common name %q: %v", row.about, name, err)
			}
			without := *role
			without.RequireCN = false
			if _, err := leaf(&without, &Request{AltNames: []string{name}}, nil); err != nil {
				t.Errorf("%s: alternative name %q: %v", row.about, name, err)
			}
		}
		for _, name := range row.refused {
			without := *role
			without.RequireCN = false
			for about, req := range map[string]*Request{"common name": {CommonName: name}, "excluded common name": {CommonName: name, ExcludeCNFromSANs: true}, "alternative name": {AltNames: []string{"", name}}} {
				made, err := leaf(&without, req, nil)
				if err == nil && (len(made.DNSNames)+len(made.EmailAddresses)+len(made.IPAddresses) > 0 || made.Subject.CommonName != "") && strings.TrimSpace(name) == name {
					t.Errorf("%s: %s %q is allowed: %v %v", row.about, about, name, made.DNSNames, made.Subject.CommonName)
				}
			}
		}
	}
}

// What is signed is what was looked at: A-labels, for verifiers compare these.
func TestInternationalNamesAreSignedAsALabels(t *testing.T) {
	role := roleWith(t, set{"allow_subdomains": true, "allowed_domains": "example.com"})
	made, err := leaf(role, &Request{CommonName: "ｗｗｗ.example.com", AltNames: []string{"bücher.example.com", "*.bücher.example.com"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(made.DNSNames, " "); got != "www.example.com xn--bcher-kva.example.com *.xn--bcher-kva.example.com" || made.Subject.CommonName != "www.example.com" {
		t.Errorf("signed for %s, common name %s", got, made.Subject.CommonName)
	}
}

func TestAddressesAreNeverDNSNames(t *testing.T) {
	none := roleWith(t, set{"allow_any_name": true, "allow_ip_sans": false})
	some := roleWith(t, set{"allow_any_name": true, "allowed_ip_sans_cidr": "10.1.0.0/16,2001:db8::/32"})
	for _, text := range []string{"10.2.3.4", "10.2.3.4.", "[::1]", "::1", "::ffff:10.2.3.4", "fe80::1%eth0"} {
		for _, role := range []*Role{none, some} {
			for _, req := range []*Request{{CommonName: text}, {CommonName: text, ExcludeCNFromSANs: true}, {CommonName: "a.b", AltNames: []string{text}}, {CommonName: "a.b", IPSANs: []string{text}}} {
				if made, err := leaf(role, req, nil); err == nil {
					t.Errorf("%+v: made for %v %v", req, made.DNSNames, made.IPAddresses)
				}
			}
		}
	}
	made, err := leaf(some, &Request{CommonName: "10.1.2.3", AltNames: []string{"::ffff:10.1.2.4"}, IPSANs: []string{"2001:db8::5", "10.1.2.3"}}, nil)
	if err != nil || len(made.DNSNames) != 0 || len(made.IPAddresses) != 3 {
		t.Fatalf("%+v, %v", made, err)
	}
	if got := made.IPAddresses[1].String(); got != "10.1.2.4" {
		t.Errorf("a mapped address is signed as %s", got)
	}
}

func TestURIsAndOtherNames(t *testing.T) {
	role := roleWith(t, set{"allow_any_name": true, "allowed_uri_sans": "spiffe://cluster/ns/*", "allowed_other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:*@example.com"})
	for _, uri := range []string{"spiffe://cluster/ns/a", "spiffe://cluster/ns/a/b"} {
		if _, err := leaf(role, &Request{CommonName: "a.b", URISANs: []string{uri}}, nil); err != nil {
			t.Errorf("%s: %v", uri, err)
		}
	}
	for _, uri := range []string{"spiffe://other/ns/a", "spiffe://cluster/nsx", "https://x/spiffe://cluster/ns/", "", "spiffe://cluster/ns/\x00", "spiffe://cluster/ns/é", "%zz", "spiffe://cluster/ns/a b"} {
		if _, err := leaf(role, &Request{CommonName: "a.b", URISANs: []string{uri}}, nil); err == nil {
			t.Errorf("%q is allowed", uri)
		}
	}
	if _, err := leaf(roleWith(t, set{"allow_any_name": true}), &Request{CommonName: "a.b", URISANs: []string{"a:b"}}, nil); err == nil {
		t.Error("a role without URIs allows one")
	}
	for text, ok := range map[string]bool{"1.3.6.1.4.1.311.20.2.3;UTF8:ann@example.com": true, "1.3.6.1.4.1.311.20.2.3;utf-8:ann@example.com": true,
		"1.3.6.1.4.1.311.20.2.3;UTF8:ann@evil.org": false, "1.2.3;UTF8:ann@example.com": false, "1.3.6.1.4.1.311.20.2.3;IA5:ann@example.com": false, "x": false, "9.9;UTF8:a": false, "1.02.3;UTF8:a": false} {
		if _, err := leaf(role, &Request{CommonName: "a.b", OtherSANs: []string{text}}, nil); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestSubjectsWithinARole(t *testing.T) {
	role := roleWith(t, set{"allow_any_name": true, "ou": "Ops,Ops", "organization": "Example", "country": "DE", "allowed_serial_numbers": "A-*", "allowed_user_ids": "ann,svc-*"})
	made, err := leaf(role, &Request{CommonName: "a.b", SerialNumber: "A-1", UserIDs: []string{"svc-x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := KeySpec{"ec", 256}.Generate()
	if err != nil {
		t.Fatal(err)
	}
	made.IsCA, made.BasicConstraintsValid = true, true
	cert, err := Sign(made, nil, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if got := cert.Subject.String(); got != "UID=svc-x,SERIALNUMBER=A-1,CN=a.b,OU=Ops,O=Example,C=DE" && !strings.Contains(got, "CN=a.b") || len(cert.Subject.OrganizationalUnit) != 1 {
		t.Errorf("subject is %s", got)
	}
	for _, req := range []*Request{{CommonName: "a.b", SerialNumber: "B-1"}, {CommonName: "a.b", UserIDs: []string{"root"}}, {CommonName: "a.b", UserIDs: []string{"annx"}}} {
		if _, err := leaf(role, req, nil); err == nil {
			t.Errorf("%+v is allowed", req)
		}
	}
	if _, err := leaf(role, &Request{}, nil); err == nil {
		t.Error("a request without a common name is allowed")
	}
}

func TestCommonNamesOfOtherKinds(t *testing.T) {
	for about, row := range map[string]struct {
		settings set
		name     string
		ok       bool
	}{
		"mail where only hosts are":       {set{"cn_validations": "hostname"}, "a@b.c", false},
		"host where only mail is":         {set{"cn_validations": "email"}, "b.c", false},
		"mail":                            {set{"cn_validations": "email"}, "a@b.c", true},
		"text":                            {set{}, "My Service", false},
		"text, disabled":                  {set{"cn_validations": "disabled"}, "My Service", true},
		"text, names unenforced":          {set{"enforce_hostnames": false}, "My Service", true},
		"control characters":              {set{"cn_validations": "disabled"}, "My\x00Service", false},
		"a name, disabled, isn't allowed": {set{"cn_validations": "disabled", "allow_any_name": false}, "evil.org", false},
	} {
		settings := set{"allow_any_name": true}
		for name, value := range row.settings {
			settings[name] = value
		}
		made, err := leaf(roleWith(t, settings), &Request{CommonName: row.name}, nil)
		if (err == nil) != row.ok {
			t.Errorf("%s: %v", about, err)
		}
		if err == nil && strings.Contains(row.name, " ") && len(made.DNSNames) > 0 {
			t.Errorf("%s: a DNS name %v", about, made.DNSNames)
		}
	}
}

func TestValidity(t *testing.T) {
	day := 24 * time.Hour
	for about, row := range map[string]struct {
		settings set
		req      Request
		times    func(*Times)
		from, to time.Time // zero: refused
	}{
		"the mount's default":            {nil, Request{}, nil, now.Add(-30 * time.Second), now.Add(time.Hour)},
		"the role's default":             {set{"ttl": "2h"}, Request{}, nil, now.Add(-30 * time.Second), now.Add(2 * time.Hour)},
		"as asked":                       {set{"ttl": "2h"}, Request{TTL: 60}, nil, now.Add(-30 * time.Second), now.Add(time.Minute)},
		"at most the role's maximum":     {set{"max_ttl": "2h"}, Request{TTL: 100000}, nil, now.Add(-30 * time.Second), now.Add(2 * time.Hour)},
		"at most the mount's maximum":    {nil, Request{TTL: 1e7}, nil, now.Add(-30 * time.Second), now.Add(1000 * time.Hour)},
		"to a time":                      {nil, Request{NotAfter: "2026-02-01T00:00:00Z"}, nil, now.Add(-30 * time.Second), time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)},
		"to a time and for a time":       {nil, Request{NotAfter: "2026-02-01T00:00:00Z", TTL: 5}, nil, time.Time{}, time.Time{}},
		"to a time, forbidden":           {set{"not_after_bound": "forbid"}, Request{NotAfter: "2026-02-01T00:00:00Z"}, nil, time.Time{}, time.Time{}},
		"to a time beyond the ttl":       {set{"not_after_bound": "ttl-limited"}, Request{NotAfter: "2026-02-01T00:00:00Z"}, nil, time.Time{}, time.Time{}},
		"to a time beyond the bound":     {set{"not_after_bound": "2026-01-20T00:00:00Z"}, Request{NotAfter: "2026-02-01T00:00:00Z"}, nil, time.Time{}, time.Time{}},
		"to the role's time":             {set{"not_after": "2026-01-20T00:00:00Z"}, Request{}, nil, now.Add(-30 * time.Second), time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC)},
		"beyond the issuer":              {nil, Request{NotAfter: "2030-01-01T00:00:00Z"}, nil, time.Time{}, time.Time{}},
		"beyond the issuer, truncated":   {nil, Request{NotAfter: "2030-01-01T00:00:00Z"}, func(t *Times) { t.Behavior = BehaviorTruncate }, now.Add(-30 * time.Second), now.Add(2000 * time.Hour)},
		"beyond the issuer, permitted":   {nil, Request{NotAfter: "2030-01-01T00:00:00Z"}, func(t *Times) { t.Behavior = BehaviorPermit }, now.Add(-30 * time.Second), time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)},
		"over already":                   {nil, Request{NotAfter: "2025-01-01T00:00:00Z"}, nil, time.Time{}, time.Time{}},
		"never over":                     {nil, Request{NotAfter: "9999-12-31T23:59:59Z"}, func(t *Times) { t.Behavior = BehaviorPermit }, now.Add(-30 * time.Second), latest},
		"no time":                        {nil, Request{NotAfter: "tomorrow"}, nil, time.Time{}, time.Time{}},
		"from a time":                    {nil, Request{NotBefore: "2026-01-02T03:30:00Z"}, nil, time.Date(2026, 1, 2, 3, 30, 0, 0, time.UTC), now.Add(time.Hour)},
		"from a time, forbidden":         {set{"not_before_bound": "forbid"}, Request{NotBefore: "2026-01-02T03:30:00Z"}, nil, time.Time{}, time.Time{}},
		"from too early a time":          {set{"not_before_bound": "duration"}, Request{NotBefore: "2026-01-02T03:00:00Z"}, nil, time.Time{}, time.Time{}},
		"from as early as the role says": {set{"not_before_duration": day.String()}, Request{}, nil, now.Add(-day), now.Add(time.Hour)},
	} {
		settings := set{"allow_any_name": true}
		for name, value := range row.settings {
			settings[name] = value
		}
		role := roleWith(t, settings)
		at := times()
		if row.times != nil {
			row.times(at)
		}
		row.req.CommonName = "a.b"
		made, _, err := Leaf(role, &Allowance{}, &row.req, nil, at, big.NewInt(1))
		switch {
		case row.to.IsZero() && err == nil:
			t.Errorf("%s: from %v to %v", about, made.NotBefore, made.NotAfter)
		case row.to.IsZero():
		case err != nil:
			t.Errorf("%s: %v", about, err)
		case !made.NotBefore.Equal(row.from) || !made.NotAfter.Equal(row.to):
			t.Errorf("%s: from %v to %v, want %v to %v", about, made.NotBefore, made.NotAfter, row.from, row.to)
		}
	}
}
