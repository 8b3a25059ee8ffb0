package pki

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"slices"
	"strings"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
)

const (
	issueDoc = `Issue a certificate with a private key that is made for it, within the limits of a role.
The private key is answered once and not kept.`
	signDoc     = `Sign a CSR, within the limits of a role.`
	verbatimDoc = `Sign a CSR as it is: subject, names and extensions are taken over whatever they are.
Only what would make the certificate an authority's is left out. A role, if one is named, gives times, storage and issuer, and no other limit.`
)

func issueRoutes() []conclave.Route {
	return []conclave.Route{
		orderRoute[issueIn]("issue/{role}", issueDoc),
		orderRoute[issueByIn]("issuer/{issuer_ref}/issue/{role}", issueDoc),
		orderRoute[signIn]("sign/{role}", signDoc),
		orderRoute[signByIn]("issuer/{issuer_ref}/sign/{role}", signDoc),
		orderRoute[verbatimIn]("sign-verbatim", verbatimDoc),
		orderRoute[verbatimRoleIn]("sign-verbatim/{role}", verbatimDoc),
		orderRoute[verbatimByIn]("issuer/{issuer_ref}/sign-verbatim", verbatimDoc),
		orderRoute[verbatimRoleByIn]("issuer/{issuer_ref}/sign-verbatim/{role}", verbatimDoc),
	}
}

// orderFields are what all requests for a leaf certificate have.
type orderFields struct {
	issuing.Request
	Format           string `json:"format" doc:"pem, der, or pem_bundle: certificate, key and chain in one text."`
	PrivateKeyFormat string `json:"private_key_format" doc:"pkcs8 for a private key in PKCS #8; otherwise by its kind."`
	RemoveRoots      bool   `json:"remove_roots_from_chain" doc:"Leave self-signed certificates out of ca_chain."`
}

type keyFields struct {
	KeyType string `json:"key_type" doc:"Kind of key, if the role allows any."`
	KeyBits int    `json:"key_bits" doc:"Size of the key, if the role allows any."`
}

type csrField struct {
	CSR string `json:"csr" doc:"Certificate request, PKCS #10 in PEM."`
}

// verbatimFields are what a role gives otherwise.
type verbatimFields struct {
	KeyUsage        []string `json:"key_usage" doc:"Key usages, if the CSR has none."`
	ExtKeyUsage     []string `json:"ext_key_usage" doc:"Extended key usages, if the CSR has none."`
	ExtKeyUsageOIDs []string `json:"ext_key_usage_oids" doc:"More extended key usages, by OID."`
	SignatureBits   int      `json:"signature_bits" doc:"Size of the hash in the signature; 0 goes by the issuer's key."`
	UsePSS          bool     `json:"use_pss" doc:"Sign with RSA-PSS."`
}

type (
	roleParam struct {
		Role string `path:"role" doc:"Name of the role."`
	}
	issuerParam struct {
		Issuer string `path:"issuer_ref" doc:"Id or name of the issuer, or default."`
	}
	issuerField struct {
		Issuer string `json:"issuer_ref" doc:"Id or name of the issuer, or default."`
	}
	issueIn struct {
		roleParam
		orderFields
		keyFields
	}
	issueByIn struct {
		issuerParam
		roleParam
		orderFields
		keyFields
	}
	signIn struct {
		roleParam
		orderFields
		csrField
	}
	signByIn struct {
		issuerParam
		roleParam
		orderFields
		csrField
	}
	verbatimIn struct {
		issuerField
		orderFields
		csrField
		verbatimFields
	}
	verbatimRoleIn struct {
		roleParam
		orderFields
		csrField
		verbatimFields
	}
	verbatimByIn struct {
		issuerParam
		orderFields
		csrField
		verbatimFields
	}
	verbatimRoleByIn struct {
		issuerParam
		roleParam
		orderFields
		csrField
		verbatimFields
	}
)

// order is a request for a leaf certificate, wherever it came from.
type order struct {
	*orderFields
	issuer   string // empty: the role's
	role     string // empty: none
	csr      *string
	key      *keyFields
	verbatim *verbatimFields
}

func (in *issueIn) order() *order {
	return &order{&in.orderFields, "", in.Role, nil, &in.keyFields, nil}
}
func (in *issueByIn) order() *order {
	return &order{&in.orderFields, in.Issuer, in.Role, nil, &in.keyFields, nil}
}
func (in *signIn) order() *order { return &order{&in.orderFields, "", in.Role, &in.CSR, nil, nil} }
func (in *signByIn) order() *order {
	return &order{&in.orderFields, in.Issuer, in.Role, &in.CSR, nil, nil}
}
func (in *verbatimIn) order() *order {
	return &order{&in.orderFields, in.Issuer, "", &in.CSR, nil, &in.verbatimFields}
}
func (in *verbatimRoleIn) order() *order {
	return &order{&in.orderFields, "", in.Role, &in.CSR, nil, &in.verbatimFields}
}
func (in *verbatimByIn) order() *order {
	return &order{&in.orderFields, in.Issuer, "", &in.CSR, nil, &in.verbatimFields}
}
func (in *verbatimRoleByIn) order() *order {
	return &order{&in.orderFields, in.Issuer, in.Role, &in.CSR, nil, &in.verbatimFields}
}

func orderRoute[In any, P interface {
	*In
	order() *order
}](pattern, doc string) conclave.Route {
	route := conclave.WriteRoute(conclave.Update, pattern, doc, func(ctx context.Context, tx conclave.Tx, in *In) (*conclave.Response, error) {
		return P(in).order().fill(ctx, tx)
	})
	route.Gather = func(view conclave.View, in any) (any, error) { return any(in).(P).order().keySpec(view) }
	route.Prepare = func(ctx context.Context, _ *conclave.Request, in any) (any, error) {
		return any(in).(P).order().prepare(ctx)
	}
	route.ClearRequest = []string{"common_name", "alt_names", "ip_sans", "uri_sans", "ttl", "format"}
	route.ClearResponse = []string{"serial_number", "expiration"}
	return route
}

// materials are what is made before the transaction opens: whatever is random, or slow to make.
type materials struct {
	seed   [32]byte
	serial *big.Int
	key    crypto.Signer            // nil if none is made
	csr    *x509.CertificateRequest // nil if none is signed
	certs  []*x509.Certificate      // that are imported
	keys   []crypto.Signer          // that are imported
}

func newMaterials() (*materials, error) {
	m := &materials{}
	_, _ = rand.Read(m.seed[:]) // never fails: the runtime ends the process instead
	var err error
	m.serial, err = issuing.Serial()
	return m, err
}

// id makes the nth id of a request: a random UUID (RFC 9562, version 4).
func (m *materials) id(n int) string {
	sum := sha256.Sum256(append(m.seed[:], byte(n>>8), byte(n)))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b)
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}

func prepared(ctx context.Context) (*materials, error) {
	m, ok := conclave.Prepared[*materials](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the request was not prepared")
	}
	return m, nil
}

// keySpec is the kind of key that has to be made for the order; the zero one if none has to.
func (o *order) keySpec(view conclave.View) (issuing.KeySpec, error) {
	if o.key == nil {
		return issuing.KeySpec{}, nil
	}
	role, err := o.findRole(view)
	switch {
	case err != nil:
		return issuing.KeySpec{}, err
	case role.KeyType != "any":
		return issuing.KeySpec{Type: role.KeyType, Bits: role.KeyBits}, nil
	case o.key.KeyType == "":
		return issuing.KeySpec{}, conclave.Errorf(conclave.Invalid, `role key type "any" not allowed for issuing certificates without providing key_type and/or key_bits request parameters`)
	}
	return issuing.NewKeySpec(o.key.KeyType, o.key.KeyBits)
}

func (o *order) findRole(view conclave.View) (*issuing.Role, error) {
	if o.role == "" {
		return issuing.Verbatim(), nil
	}
	role, err := findRole(view, o.role)
	if conclave.Is(err, conclave.NotFound) {
		err = conclave.Errorf(conclave.Invalid, "unknown role: %s", o.role)
	}
	return role, err
}

func (o *order) prepare(ctx context.Context) (*materials, error) {
	m, err := newMaterials()
	if err != nil {
		return nil, err
	}
	if o.csr != nil {
		m.csr, err = issuing.ParseCSR(*o.csr)
		return m, err
	}
	spec, _ := conclave.Gathered[issuing.KeySpec](ctx)
	m.key, err = spec.Generate()
	return m, err
}

// fill issues the certificate.
func (o *order) fill(ctx context.Context, tx conclave.Tx) (*conclave.Response, error) {
	format, err := issuing.NewFormat(o.Format, o.PrivateKeyFormat)
	if err != nil {
		return nil, err
	}
	m, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	role, err := o.findRole(tx)
	if err != nil {
		return nil, err
	}
	ref := o.issuer
	if ref == "" {
		ref = role.IssuerRef
	}
	by, err := signer(tx, ref)
	if err != nil {
		return nil, err
	}
	cert, warnings, err := o.sign(tx, role, by, m)
	if err != nil {
		return nil, err
	}
	if o.key != nil && role.KeyType != "any" && (o.key.KeyType != "" || o.key.KeyBits != 0) {
		warnings = append(warnings, "parameters key_type and key_bits ignored as role had specific values")
	}
	if !role.NoStore {
		if err := keep(tx, cert, by.issuer.Authority()); err != nil {
			return nil, err
		}
	}
	data, err := by.present(tx, cert, format, m.key, o.RemoveRoots)
	if err != nil {
		return nil, err
	}
	resp := &conclave.Response{Data: data, Warnings: warnings}
	if role.GenerateLease && !role.NoStore {
		lease, err := json.Marshal(leased{serialName(cert.SerialNumber)})
		if err != nil {
			return nil, err
		}
		ttl := cert.NotAfter.Sub(tx.Now())
		resp.Lease = &conclave.Lease{TTL: ttl, MaxTTL: ttl, Data: lease}
	}
	return resp, nil
}

func (o *order) sign(tx conclave.Tx, role *issuing.Role, by *signing, m *materials) (*x509.Certificate, []string, error) {
	if o.verbatim != nil {
		role = o.verbatim.relax(role)
	}
	allowed, err := allowance(tx, role)
	if err != nil {
		return nil, nil, err
	}
	times := by.times(tx)
	template, warnings, err := issuing.Leaf(role, allowed, &o.Request, m.csr, times, m.serial)
	if err != nil {
		return nil, nil, err
	}
	public := crypto.PublicKey(nil)
	if m.csr != nil {
		public = m.csr.PublicKey
	} else {
		public = m.key.Public()
	}
	if o.verbatim != nil {
		if err := issuing.CopyCSR(template, m.csr); err != nil {
			return nil, nil, err
		}
	}
	cert, err := by.sign(tx, template, public, role.SignatureBits, role.UsePSS)
	return cert, warnings, err
}

// relax is the role that a CSR is signed verbatim by: of the one that is named, what has to do with neither names nor keys.
func (v *verbatimFields) relax(named *issuing.Role) *issuing.Role {
	role := issuing.Verbatim()
	role.TTL, role.MaxTTL, role.IssuerRef, role.NoStore, role.GenerateLease = named.TTL, named.MaxTTL, named.IssuerRef, named.NoStore, named.GenerateLease
	role.NotBefore, role.NotBeforeBound, role.NotBeforeDuration = named.NotBefore, named.NotBeforeBound, named.NotBeforeDuration
	role.NotAfter, role.NotAfterBound = named.NotAfter, named.NotAfterBound
	role.KeyUsage, role.ExtKeyUsage, role.ExtKeyUsageOIDs = v.KeyUsage, v.ExtKeyUsage, v.ExtKeyUsageOIDs
	if v.KeyUsage == nil {
		role.KeyUsage = issuing.NewRole().KeyUsage
	}
	role.SignatureBits, role.UsePSS = v.SignatureBits, v.UsePSS
	return role
}

// allowance puts the caller's values into the role's identity templates.
func allowance(view conclave.View, role *issuing.Role) (*issuing.Allowance, error) {
	allowed := &issuing.Allowance{Domains: role.AllowedDomains, URIs: role.AllowedURISANs}
	caller := view.Caller()
	if caller != nil {
		allowed.DisplayName = caller.DisplayName
	}
	if role.AllowedDomainsTemplate {
		allowed.Domains = fillTemplates(role.AllowedDomains, caller, role.AllowGlobsInIdentityTemplates)
	}
	if role.AllowedURISANsTemplate {
		allowed.URIs = fillTemplates(role.AllowedURISANs, caller, role.AllowGlobsInIdentityTemplates)
	}
	return allowed, nil
}

// fillTemplates leaves out what has no value for this caller, and values that would mean more than themselves.
func fillTemplates(list []string, caller *conclave.Caller, trusted bool) []string {
	var filled []string
	for _, text := range list {
		if result, ok := fillTemplate(text, caller, trusted); ok {
			filled = append(filled, result)
		}
	}
	return filled
}

func fillTemplate(text string, caller *conclave.Caller, trusted bool) (string, bool) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{{")
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		name, after, closed := strings.Cut(rest, "}}")
		if !closed || caller == nil || caller.Identity == nil {
			return "", false
		}
		value, ok := caller.Identity.Resolve(strings.TrimSpace(name))
		if !ok || value == "" || !trusted && strings.ContainsAny(value, "*+/?#%,@{} \t\r\n") {
			return "", false
		}
		b.WriteString(value)
		text = after
	}
}

// signing is an issuer that can sign, with all that signing needs.
type signing struct {
	issuer *authority.Issuer
	key    *authority.Key
	chain  []*authority.Issuer // the issuer itself first
	urls   *authority.URLs
}

// signer finds an issuer for a reference that may sign certificates now.
func signer(view conclave.View, ref string) (*signing, error) {
	issuer, err := findIssuer(view, ref)
	if err != nil {
		return nil, err
	}
	switch {
	case !issuer.MayDo(authority.UsageIssue):
		return nil, conclave.Errorf(conclave.Invalid, "the issuer isn't for issuing certificates: its usage says so")
	case issuer.RevokedAt != 0:
		return nil, conclave.Errorf(conclave.Invalid, "the issuer is revoked")
	case issuer.IsOver(view.Reached):
		return nil, conclave.Errorf(conclave.Invalid, "the issuer's certificate has ended")
	case !issuer.Cert.IsCA:
		return nil, conclave.Errorf(conclave.Invalid, "the issuer's certificate is no authority's")
	}
	by := &signing{issuer: issuer}
	if by.key, err = keyOf(view, issuer); err != nil {
		return nil, err
	}
	for _, id := range issuer.Chain {
		link := issuer
		if id != issuer.ID {
			if link, err = loadIssuer(view, id); err != nil {
				return nil, err
			}
		}
		if link != nil {
			by.chain = append(by.chain, link)
		}
	}
	by.urls, err = urlsOf(view, issuer)
	return by, err
}

// keyOf is an issuer's private key.
func keyOf(view conclave.View, issuer *authority.Issuer) (*authority.Key, error) {
	if issuer.KeyID != "" {
		if key, err := loadKey(view, issuer.KeyID); err != nil || key != nil {
			return key, err
		}
	}
	return nil, conclave.Errorf(conclave.Invalid, "the issuer's private key isn't here")
}

// urlsOf are the URLs in an issuer's certificates.
func urlsOf(view conclave.View, issuer *authority.Issuer) (*authority.URLs, error) {
	urls := issuer.URLs
	if urls.IsEmpty() {
		var err error
		if urls, err = loadOr(view, "config/urls", authority.URLs{}); err != nil {
			return nil, err
		}
	}
	return fillURLs(view, urls, issuer.ID)
}

func fillURLs(view conclave.View, urls *authority.URLs, issuerID string) (*authority.URLs, error) {
	if !urls.Templating {
		return urls, nil
	}
	cluster, err := loadOr(view, "config/cluster", clusterConfig{})
	if err != nil {
		return nil, err
	}
	return urls.Fill(issuerID, cluster.Path, cluster.AIAPath)
}

func (by *signing) times(view conclave.View) *issuing.Times {
	return &issuing.Times{Now: view.Now(), DefaultTTL: view.Mount().DefaultTTL, MaxTTL: view.Mount().MaxTTL,
		IssuerEnds: by.issuer.Cert.NotAfter, Behavior: by.issuer.Behavior}
}

// sign signs a certificate. One that the issuer's own name constraints don't permit is refused.
func (by *signing) sign(view conclave.View, template *x509.Certificate, public crypto.PublicKey, bits int, pss bool) (*x509.Certificate, error) {
	urls := &issuing.URLs{Issuing: by.urls.Issuing, CRL: by.urls.CRL, Delta: by.urls.DeltaCRL, OCSP: by.urls.OCSP}
	if err := issuing.AddURLs(template, urls); err != nil {
		return nil, err
	}
	id, err := issuing.KeyID(public)
	if err != nil {
		return nil, err
	}
	if template.SubjectKeyId == nil {
		template.SubjectKeyId = id
	}
	if err := issuing.SetAlgorithm(template, by.key.Signer.Public(), bits, pss); err != nil {
		return nil, err
	}
	cert, err := issuing.Sign(template, by.issuer.Cert, public, by.key.Signer)
	if err != nil {
		return nil, err
	}
	return cert, by.permits(view, cert)
}

// permits holds a certificate against the name constraints of the issuer.
func (by *signing) permits(view conclave.View, cert *x509.Certificate) error {
	c := by.issuer.Cert
	constraints := [][]string{c.PermittedDNSDomains, c.ExcludedDNSDomains, c.PermittedEmailAddresses, c.ExcludedEmailAddresses, c.PermittedURIDomains, c.ExcludedURIDomains}
	isFree := !slices.ContainsFunc(constraints, func(list []string) bool { return len(list) > 0 })
	if isFree && len(c.PermittedIPRanges) == 0 && len(c.ExcludedIPRanges) == 0 {
		return nil
	}
	anchors := x509.NewCertPool()
	anchors.AddCert(c)
	_, err := cert.Verify(x509.VerifyOptions{Roots: anchors, CurrentTime: view.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if invalid, ok := err.(x509.CertificateInvalidError); ok && (invalid.Reason == x509.CANotAuthorizedForThisName || invalid.Reason == x509.TooManyConstraints || invalid.Reason == x509.UnconstrainedName) {
		return conclave.Errorf(conclave.Invalid, "the issuer's name constraints don't permit the certificate's names")
	}
	return nil
}

// keep stores a certificate.
func keep(tx conclave.Tx, cert *x509.Certificate, of string) error {
	serial := serialName(cert.SerialNumber)
	there, err := tx.Get(certPath(serial))
	if err != nil {
		return err
	}
	if there != nil {
		return conclave.Errorf(conclave.Unavailable, "the serial number is taken: try again")
	}
	value, err := (&certificate{of, cert.Raw}).encode()
	if err != nil {
		return err
	}
	if err := tx.Put(certPath(serial), value); err != nil {
		return err
	}
	return tx.Put(expiryPath(cert.NotAfter, serial), []byte{1})
}

// issuedOut is what a certificate is answered with.
type issuedOut struct {
	Certificate    string   `json:"certificate"`
	IssuingCA      string   `json:"issuing_ca"`
	Chain          []string `json:"ca_chain,omitempty"`
	PrivateKey     string   `json:"private_key,omitempty"`
	PrivateKeyType string   `json:"private_key_type,omitempty"`
	SerialNumber   string   `json:"serial_number"`
	NotBefore      int64    `json:"not_before"`
	Expiration     int64    `json:"expiration"`
}

// present is a certificate as a client wants it, with its private key if one was made.
func (by *signing) present(_ conclave.View, cert *x509.Certificate, format issuing.Format, key crypto.Signer, withoutRoots bool) (*issuedOut, error) {
	out := &issuedOut{Certificate: format.Certificate(cert), IssuingCA: format.Certificate(by.issuer.Cert), SerialNumber: serialText(serialName(cert.SerialNumber)),
		NotBefore: cert.NotBefore.Unix(), Expiration: cert.NotAfter.Unix()}
	var chain []*x509.Certificate
	for _, link := range by.chain {
		if !withoutRoots || !authority.IsSelfSigned(link.Cert) {
			chain = append(chain, link.Cert)
			out.Chain = append(out.Chain, format.Certificate(link.Cert))
		}
	}
	if key != nil {
		text, err := format.Key(key)
		if err != nil {
			return nil, err
		}
		out.PrivateKey, out.PrivateKeyType = text, issuing.KeyType(key.Public())
	}
	if format.Name == "pem_bundle" {
		out.Certificate = issuing.Bundle(out.PrivateKey, cert, chain)
	}
	return out, nil
}
