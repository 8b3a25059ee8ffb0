package issuing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
)

// csrFor is a request that was parsed as clients' are.
func csrFor(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	csr, err := ParseCSR(csrText(t, key, template))
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func csrText(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func extension(t testing.TB, oid asn1.ObjectIdentifier, value any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oid, Value: der}
}

// sanExtension has one general name of any kind.
func sanExtension(t testing.TB, tag int, isCompound bool, value []byte) pkix.Extension {
	return extension(t, oidSAN, []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: isCompound, Bytes: value}})
}

// Whatever a CSR asks for is held against the role like what fields ask for.
func TestCSRsStayWithinTheRole(t *testing.T) {
	role := roleWith(t, set{"allowed_domains": "example.com", "allow_subdomains": true, "allowed_ip_sans_cidr": "10.0.0.0/8", "require_cn": false})
	key := ecKey(t, elliptic.P256())
	uri, err := url.Parse("spiffe://evil/x")
	if err != nil {
		t.Fatal(err)
	}
	other, err := (&names{others: []otherName{{asn1.ObjectIdentifier{1, 2, 3}, "evil"}}}).extension(false)
	if err != nil {
		t.Fatal(err)
	}
	if made, err := leaf(role, &Request{}, csrFor(t, key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}, DNSNames: []string{"b.example.com"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}})); err != nil || len(made.DNSNames) != 2 || len(made.IPAddresses) != 1 {
		t.Fatalf("a good request: %v", err)
	}
	for about, template := range map[string]*x509.CertificateRequest{
		"common name":           {Subject: pkix.Name{CommonName: "evil.org"}},
		"DNS name":              {DNSNames: []string{"a.example.com", "evil.org"}},
		"DNS name in capitals":  {DNSNames: []string{"EVIL.ORG"}},
		"name with a dot":       {DNSNames: []string{"a.example.com."}},
		"wildcard of the top":   {DNSNames: []string{"*.com"}},
		"address as DNS name":   {DNSNames: []string{"192.168.0.1"}},
		"mail":                  {EmailAddresses: []string{"a@evil.org"}},
		"address":               {IPAddresses: []net.IP{net.IPv4(192, 168, 0, 1)}},
		"mapped address":        {IPAddresses: []net.IP{net.ParseIP("::ffff:192.168.0.1")}},
		"URI":                   {URIs: []*url.URL{uri}},
		"other name":            {ExtraExtensions: []pkix.Extension{other}},
		"other name, no string": {ExtraExtensions: []pkix.Extension{sanExtension(t, 0, true, []byte{6, 2, 42, 3, 0xa0, 2, 5, 0})}},
		"registered id":         {ExtraExtensions: []pkix.Extension{sanExtension(t, 8, false, []byte{42, 3})}},
		"directory name":        {ExtraExtensions: []pkix.Extension{sanExtension(t, 4, true, []byte{0x30, 0})}},
		"serial number":         {Subject: pkix.Name{SerialNumber: "1"}},
		"user id":               {Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidUserID, Value: "root"}}}},
		"too many names":        {DNSNames: strings.Split(strings.Repeat("a.example.com,", maxNames)+"a.example.com", ",")},
	} {
		csr, err := ParseCSR(csrText(t, key, template))
		if err != nil {
			continue // refused before anybody looks at names
		}
		if made, err := leaf(role, &Request{}, csr); err == nil {
			t.Errorf("%s: made for %v %v %v %v %v", about, made.DNSNames, made.EmailAddresses, made.IPAddresses, made.URIs, made.Subject)
		}
	}
	// Without use_csr_sans, a CSR's names are not taken over unseen.
	fields := roleWith(t, set{"allowed_domains": "example.com", "allow_subdomains": true, "use_csr_sans": false, "use_csr_common_name": false})
	made, err := leaf(fields, &Request{CommonName: "a.example.com"}, csrFor(t, key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "evil.org"}, DNSNames: []string{"evil.org"}}))
	if err != nil || strings.Join(made.DNSNames, " ") != "a.example.com" || made.Subject.CommonName != "a.example.com" {
		t.Errorf("%+v, %v", made, err)
	}
}

// issueFor signs a template as its issuer would.
func issueFor(t testing.TB, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: now, NotAfter: now.Add(1e15), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: authorityUses, SignatureAlgorithm: x509.ECDSAWithSHA256, MaxPathLen: -1}
	parent, err := Sign(root, nil, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := Sign(template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A CSR that asks to be an authority's isn't heard, also where CSRs are signed verbatim.
func TestCSRsMakeNoAuthorities(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	asks := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}, DNSNames: []string{"a.example.com"}, ExtraExtensions: []pkix.Extension{
		extension(t, oidBasicConstraints, struct{ IsCA bool }{true}),
		extension(t, oidKeyUsage, asn1.BitString{Bytes: []byte{0x86}, BitLength: 7}), // digitalSignature, keyCertSign, cRLSign
		extension(t, oidExtKeyUsage, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 3}}),
		extension(t, oidAuthorityKeyID, []int{}), extension(t, oidSubjectKeyID, []byte{1}), extension(t, oidNameConstraints, []int{}),
	}}
	csr := csrFor(t, key, asks)
	for about, role := range map[string]*Role{"role": roleWith(t, set{"allow_any_name": true, "key_usage": "CertSign,CRLSign,DigitalSignature", "basic_constraints_valid_for_non_ca": true}), "verbatim": Verbatim()} {
		template, err := leaf(role, &Request{}, csr)
		if err != nil {
			t.Fatal(about, err)
		}
		if about == "verbatim" {
			if err := CopyCSR(template, csr); err != nil {
				t.Fatal(err)
			}
		}
		cert := issueFor(t, template, csr.PublicKey)
		if cert.IsCA || cert.KeyUsage&authorityUses != 0 || cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 || cert.MaxPathLen > 0 || string(cert.SubjectKeyId) == "\x01" {
			t.Errorf("%s: CA %v, key usage %b, key id %x", about, cert.IsCA, cert.KeyUsage, cert.SubjectKeyId)
		}
		if about == "verbatim" && (len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageCodeSigning || len(cert.DNSNames) != 1) {
			t.Errorf("verbatim: extended key usage %v, names %v", cert.ExtKeyUsage, cert.DNSNames)
		}
		if about == "role" && len(cert.ExtKeyUsage) != 2 {
			t.Errorf("role: extended key usage %v is the CSR's", cert.ExtKeyUsage)
		}
	}
}

func TestWeakAndForgedKeysAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	exponent := func(e int) *rsa.PublicKey { return &rsa.PublicKey{N: good.N, E: e} }
	for about, public := range map[string]crypto.PublicKey{"1024 bits": small.Public(), "exponent 3": exponent(3), "exponent 1": exponent(1), "even exponent": exponent(65538),
		"even modulus": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}, "huge": &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 16383), 0, 1), E: 65537},
		"no key": nil, "a string": "key"} {
		if spec, err := SpecOf(public); err == nil {
			t.Errorf("%s: accepted as %v", about, spec)
		}
	}
	if _, err := ParseCSR(csrText(t, small, &x509.CertificateRequest{})); err == nil {
		t.Error("a CSR for a key of 1024 bits is accepted")
	}
	text := csrText(t, good, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.b"}})
	block, _ := pem.Decode([]byte(text))
	block.Bytes[len(block.Bytes)-1] ^= 1
	if _, err := ParseCSR(string(pem.EncodeToMemory(block))); err == nil {
		t.Error("a CSR with another signature is accepted")
	}
	rsaRole, ecRole := roleWith(t, set{"allow_any_name": true, "key_type": "rsa", "key_bits": "3072"}), roleWith(t, set{"allow_any_name": true, "key_type": "ec", "key_bits": "384"})
	rsaCSR, p256, p384 := csrFor(t, good, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.b"}}), csrFor(t, ecKey(t, elliptic.P256()), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.b"}}), csrFor(t, ecKey(t, elliptic.P384()), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.b"}})
	for about, row := range map[string]struct {
		role *Role
		csr  *x509.CertificateRequest
		ok   bool
	}{"rsa too small": {rsaRole, rsaCSR, false}, "ec for rsa": {rsaRole, p384, false}, "rsa for ec": {ecRole, rsaCSR, false}, "curve too small": {ecRole, p256, false}, "curve": {ecRole, p384, true},
		"any": {roleWith(t, set{"allow_any_name": true, "key_type": "any"}), p256, true}} {
		if _, err := leaf(row.role, &Request{}, row.csr); (err == nil) != row.ok {
			t.Errorf("%s: %v", about, err)
		}
	}
}

func TestPrivateKeysAreReadInAllTheirForms(t *testing.T) {
	for _, spec := range []KeySpec{{"rsa", 2048}, {"ec", 224}, {"ec", 256}, {"ec", 384}, {"ec", 521}, {"ed25519", 0}} {
		key, err := spec.Generate()
		if err != nil {
			t.Fatal(err)
		}
		for _, pkcs8 := range []bool{false, true} {
			format := Format{"pem", pkcs8}
			text, err := format.Key(key)
			if err != nil {
				t.Fatal(err)
			}
			_, keys, err := ParseBundle(text)
			if err != nil || len(keys) != 1 {
				t.Fatalf("%v: %v", spec, err)
			}
			if got, err := SpecOf(keys[0].Public()); err != nil || got != spec {
				t.Errorf("%v is read as %v, %v", spec, got, err)
			}
			if pkcs8 && !strings.Contains(text, "BEGIN PRIVATE KEY") {
				t.Errorf("%v: %s", spec, text[:40])
			}
		}
	}
}

// A key identifier is a hash of the bits that the certificate has as its key (RFC 7093, 2).
func TestKeyIdentifiersAreHashesOfTheKey(t *testing.T) {
	for _, spec := range []KeySpec{{"rsa", 2048}, {"ec", 224}, {"ec", 256}, {"ec", 521}, {"ed25519", 0}} {
		key, err := spec.Generate()
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		var info struct {
			Algorithm pkix.AlgorithmIdentifier
			Key       asn1.BitString
		}
		if _, err := asn1.Unmarshal(der, &info); err != nil {
			t.Fatal(err)
		}
		want := sha256.Sum256(info.Key.Bytes)
		if got, err := KeyID(key.Public()); err != nil || !bytes.Equal(got, want[:20]) {
			t.Errorf("%v: %x, %v, want %x", spec, got, err, want[:20])
		}
	}
}

func FuzzParseCSR(f *testing.F) {
	text := csrText(f, ecKey(f, elliptic.P256()), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.b"}, DNSNames: []string{"a.b"}})
	f.Add(text)
	block, _ := pem.Decode([]byte(text))
	f.Add(base64.StdEncoding.EncodeToString(block.Bytes))
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\n")
	role := Verbatim()
	f.Fuzz(func(t *testing.T, text string) {
		csr, err := ParseCSR(text)
		if err != nil {
			return
		}
		if template, err := leaf(role, &Request{}, csr); err == nil {
			_ = CopyCSR(template, csr)
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	key := ecKey(f, elliptic.P256())
	text, err := Format{Name: "pem"}.Key(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		certs, keys, err := ParseBundle(text)
		if err == nil && len(certs)+len(keys) == 0 {
			t.Error("nothing was read, and no error")
		}
	})
}

func FuzzOtherNames(f *testing.F) {
	der, err := (&names{others: []otherName{{asn1.ObjectIdentifier{1, 2, 3}, "a"}}, dns: []string{"a.b"}}).extension(false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der.Value)
	f.Fuzz(func(t *testing.T, der []byte) {
		found, err := otherNamesIn([]pkix.Extension{{Id: oidSAN, Value: der}})
		if err != nil {
			return
		}
		again, err := (&names{others: found}).extension(false)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := otherNamesIn([]pkix.Extension{again}); err != nil || len(same) != len(found) {
			t.Errorf("%x: %v read, then %v, %v", der, found, same, err)
		}
	})
}
