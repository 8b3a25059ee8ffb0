package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"conclave"
	"conclave/engine/enginetest"
	"conclave/engine/pki/acme/validation"
	"conclave/engine/pki/issuing"
)

const baseURL = "https://vault.example/v1/test"

// issuer is an engine that issues certificates of a key of its own, as far as its role "web" allows: names below
// example.com.
type issuer struct {
	key     *ecdsa.PrivateKey
	base    string
	revoked map[string]bool // serial number → it is revoked
	issued  []*Wanted
}

var _ Authority = (*issuer)(nil)

func (i *issuer) Base(conclave.View) (string, error) { return i.base, nil }

func (i *issuer) Issuer(_ conclave.View, ref string) (string, string, error) {
	if ref != "" && ref != "default" && ref != "main" && ref != "the-id" {
		return "", "", conclave.Errorf(conclave.Invalid, "no such issuer")
	}
	return "the-id", "main", nil
}

func (i *issuer) RoleIssuer(_ conclave.View, role string) (string, error) {
	if role != "web" && role != "other" {
		return "", conclave.Errorf(conclave.Invalid, "unknown role")
	}
	return "default", nil
}

func (i *issuer) Permits(_ conclave.View, wanted *Wanted) error {
	if wanted.Role == "web" && slices.ContainsFunc(wanted.DNS, func(name string) bool { return !strings.HasSuffix(name, ".example.com") }) {
		return conclave.Errorf(conclave.Invalid, "the role doesn't allow a name")
	}
	return nil
}

func (i *issuer) Issue(tx conclave.Tx, wanted *Wanted, csr *x509.CertificateRequest, m *issuing.Materials) (*Issued, error) {
	i.issued = append(i.issued, wanted)
	template := &x509.Certificate{SerialNumber: m.Serial, Subject: pkix.Name{CommonName: "leaf"}, DNSNames: wanted.DNS, NotBefore: tx.Now(), NotAfter: tx.Now().Add(wanted.MaxTTL)}
	for _, address := range wanted.Addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	der, err := x509.CreateCertificate(nil, template, template, csr.PublicKey, issuing.Steady(i.key))
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &Issued{leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, err
}

func (i *issuer) Revoke(_ conclave.Tx, cert *x509.Certificate) (bool, error) {
	serial := cert.SerialNumber.String()
	was := i.revoked[serial]
	i.revoked[serial] = true
	return was, nil
}

// engine serves ACME alone.
type engine struct{ *Service }

var _ conclave.Worker = engine{}

func (engine) Kind() string { return "acme" }

// mountOf is a mount that speaks ACME, with what its validations find.
type mountOf struct {
	*enginetest.Harness
	t         testing.TB
	authority *issuer
	found     *validation.Failure // nil: all is well
	attempts  []*validation.Attempt
}

func newMount(t testing.TB, settings map[string]any) *mountOf {
	t.Helper()
	m := &mountOf{t: t, authority: &issuer{key: newKey(t), base: baseURL, revoked: map[string]bool{}}}
	service := New(m.authority)
	service.validate = func(_ context.Context, a *validation.Attempt) *validation.Failure {
		m.attempts = append(m.attempts, a)
		return m.found
	}
	m.Harness = enginetest.New(t, engine{service}, enginetest.Fast())
	fields := map[string]any{"enabled": true}
	for name, value := range settings {
		fields[name] = value
	}
	m.Data(conclave.Update, "config/acme", fields)
	return m
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// reply is what a client sees.
type reply struct {
	status int
	header map[string][]string
	body   []byte
	kind   string // of a problem, without its prefix
}

func (r *reply) decode(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(r.body, into); err != nil {
		t.Fatalf("answer %d %s: %v", r.status, r.body, err)
	}
}

func (r *reply) location() string {
	if values := r.header["Location"]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// client is one client of a directory.
type client struct {
	*mountOf
	key   crypto.Signer
	place string // "" or "roles/web/"
	kid   string
	nonce string // of the last answer
}

func (m *mountOf) client(place string) *client {
	return &client{mountOf: m, key: newKey(m.t), place: place}
}

// reads does a GET.
func (m *mountOf) reads(path string) *reply {
	m.t.Helper()
	response, err := m.Do(conclave.Read, path, nil)
	if err != nil {
		m.t.Fatalf("read %s: %v", path, err)
	}
	return answered(m.t, response)
}

func answered(t testing.TB, response *conclave.Response) *reply {
	t.Helper()
	r := &reply{status: response.Status, header: response.Raw.Header, body: response.Raw.Body}
	if r.status >= 400 {
		var p problem
		r.decode(t, &p)
		if response.Raw.ContentType != "application/problem+json" || p.Status != r.status || p.Detail == "" {
			t.Errorf("a problem is answered as %q %s", response.Raw.ContentType, r.body)
		}
		r.kind = strings.TrimPrefix(p.Type, typePrefix)
	}
	return r
}

// sealed is how a request is signed; fields that are empty are as they should be.
type sealed struct {
	url, nonce string
	key        any // to sign with
	algorithm  jose.SignatureAlgorithm
	withKey    bool // jwk, even if there is a kid
	header     map[string]any
}

// sign makes the body of a request.
func (c *client) sign(url string, payload any, how sealed) map[string]any {
	c.t.Helper()
	if how.url != "" {
		url = how.url
	}
	nonce := how.nonce
	if nonce == "" {
		if nonce = c.nonce; nonce == "" {
			nonce = c.reads(c.place + "acme/new-nonce").header["Replay-Nonce"][0]
		}
	}
	c.nonce = ""
	key, algorithm := any(c.key), jose.ES256
	if how.key != nil {
		key = how.key
	}
	if how.algorithm != "" {
		algorithm = how.algorithm
	}
	options := (&jose.SignerOptions{}).WithHeader("url", url)
	if nonce != "none" {
		options = options.WithHeader("nonce", nonce)
	}
	for name, value := range how.header {
		options = options.WithHeader(jose.HeaderKey(name), value)
	}
	if c.kid == "" || how.withKey {
		options.EmbedJWK = true
	} else {
		options = options.WithHeader("kid", c.kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		c.t.Fatal(err)
	}
	text := []byte{}
	if payload != nil {
		if text, err = json.Marshal(payload); err != nil {
			c.t.Fatal(err)
		}
	}
	jws, err := signer.Sign(text)
	if err != nil {
		c.t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(jws.FullSerialize()), &body); err != nil {
		c.t.Fatal(err)
	}
	if payload == nil {
		body["payload"] = ""
	}
	return body
}

// post sends a request to a path below the mount; payload nil is POST-as-GET.
func (c *client) post(path string, payload any, how sealed) *reply {
	c.t.Helper()
	path = strings.TrimPrefix(path, baseURL+"/")
	response, err := c.Do(conclave.Update, path, c.sign(baseURL+"/"+path, payload, how))
	if err != nil {
		c.t.Fatalf("%s: %v", path, err)
	}
	r := answered(c.t, response)
	if values := r.header["Replay-Nonce"]; len(values) == 1 {
		c.nonce = values[0]
	}
	return r
}

// must is post for what succeeds.
func (c *client) must(path string, payload any, status int) *reply {
	c.t.Helper()
	r := c.post(path, payload, sealed{})
	if r.status != status {
		c.t.Fatalf("%s: %d %s, want %d", path, r.status, r.body, status)
	}
	return r
}

// refused is post for what is a problem.
func (c *client) refused(path string, payload any, kind string) {
	c.t.Helper()
	if r := c.post(path, payload, sealed{}); r.kind != kind {
		c.t.Errorf("%s %v: %d %s, want %s", path, payload, r.status, r.body, kind)
	}
}

// register makes an account.
func (c *client) register() *client {
	c.t.Helper()
	c.kid = c.must(c.place+"acme/new-account", map[string]any{"termsOfServiceAgreed": true, "contact": []string{"mailto:a@example.com"}}, 201).location()
	return c
}

func dnsNames(names ...string) map[string]any {
	var list []map[string]string
	for _, name := range names {
		list = append(list, map[string]string{"type": "dns", "value": name})
	}
	return map[string]any{"identifiers": list}
}

// orderOf orders a certificate.
func (c *client) orderOf(names ...string) (url string, o shownOrder) {
	c.t.Helper()
	r := c.must(c.place+"acme/new-order", dnsNames(names...), 201)
	r.decode(c.t, &o)
	return r.location(), o
}

// meet has all authorizations of an order be valid.
func (c *client) meet(o shownOrder) {
	c.t.Helper()
	for _, url := range o.Authorizations {
		var a shownAuthorization
		c.must(url, nil, 200).decode(c.t, &a)
		c.must(a.Challenges[0].URL, map[string]any{}, 200)
		if _, err := c.RunDue(c.Now()); err != nil {
			c.t.Fatal(err)
		}
	}
}

// csr makes a request for a certificate.
func csr(t testing.TB, key crypto.Signer, common string, names ...string) map[string]any {
	t.Helper()
	request := &x509.CertificateRequest{Subject: pkix.Name{CommonName: common}}
	for _, name := range names {
		switch ip := net.ParseIP(name); {
		case ip != nil:
			request.IPAddresses = append(request.IPAddresses, ip)
		case strings.Contains(name, "@"):
			request.EmailAddresses = append(request.EmailAddresses, name)
		default:
			request.DNSNames = append(request.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, request, key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"csr": base64.RawURLEncoding.EncodeToString(der)}
}

// certificateOf gets a certificate for names.
func (c *client) certificateOf(key crypto.Signer, names ...string) *x509.Certificate {
	c.t.Helper()
	_, o := c.orderOf(names...)
	c.meet(o)
	c.must(o.Finalize, csr(c.t, key, "", names...), 200).decode(c.t, &o)
	r := c.must(o.Certificate, nil, 200)
	block, _ := pem.Decode(r.body)
	if block == nil {
		c.t.Fatalf("the certificate is %s", r.body)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

// pad and padY are the coordinates of the client's public key.
func pad(c *client) []byte  { return c.key.Public().(*ecdsa.PublicKey).X.FillBytes(make([]byte, 32)) }
func padY(c *client) []byte { return c.key.Public().(*ecdsa.PublicKey).Y.FillBytes(make([]byte, 32)) }
