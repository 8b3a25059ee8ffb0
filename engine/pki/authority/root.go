package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"

	"conclave"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

const (
	generateRootDoc = `Make a root: a private key, and a certificate that it signs for itself.
The last segment is internal to keep the key here, exported to have it answered once as well, or existing to use one that is here, named by key_ref.`
	signIntermediateDoc = `Sign a CSR as an intermediate authority's.`
	selfIssuedDoc       = `Sign a self-issued certificate again, so that holders of another root trust it.
Nothing of it is changed but its issuer, unless require_matching_certificate_algorithms has the signature's kind be the same.`
)

// Routes are those of issuers and keys, and of what the mount has set for them.
func Routes() []conclave.Route {
	var routes []conclave.Route
	for _, pattern := range []string{"root/generate/{exported}", "issuers/generate/root/{exported}", "root/rotate/{exported}"} {
		routes = append(routes, generateRoute(conclave.WriteRoute(conclave.Update, pattern, generateRootDoc, generateRoot)))
	}
	for _, pattern := range []string{"intermediate/generate/{exported}", "issuers/generate/intermediate/{exported}"} {
		routes = append(routes, generateRoute(conclave.WriteRoute(conclave.Update, pattern, generateCSRDoc, generateCSR)))
	}
	routes = append(routes,
		generateRoute(conclave.WriteRoute(conclave.Update, "intermediate/cross-sign", crossSignDoc, crossSign)),
		csrRoute(conclave.WriteRoute(conclave.Update, "root/sign-intermediate", signIntermediateDoc, signIntermediate)),
		csrRoute(conclave.WriteRoute(conclave.Update, "issuer/{issuer_ref}/sign-intermediate", signIntermediateDoc, signIntermediateBy)),
		csrRoute(conclave.WriteRoute(conclave.Update, "root/sign-self-issued", selfIssuedDoc, signSelfIssued).With(conclave.Sudo)),
		csrRoute(conclave.WriteRoute(conclave.Update, "issuer/{issuer_ref}/sign-self-issued", selfIssuedDoc, signSelfIssuedBy).With(conclave.Sudo)),
		conclave.WriteRoute(conclave.Delete, "root", "Remove all issuers and keys. What they have signed stays valid until it ends.", deleteRoot).With(conclave.Sudo),
	)
	return slices.Concat(routes, configRoutes(), issuerRoutes(), keyRoutes(), importRoutes())
}

// generateIn is what authorities are made of: names and subject, key and constraints.
type generateIn struct {
	exportedParam
	caFields
	newKeyFields
	IssuerName string `json:"issuer_name" doc:"Name of the issuer."`
}

type exportedParam struct {
	Exported string `path:"exported" doc:"internal, exported or existing."`
}

// caFields are what certificates of authorities, and CSRs for them, have.
type caFields struct {
	issuing.Request
	subjectFields
	Format           string `json:"format" doc:"pem, der or pem_bundle."`
	PrivateKeyFormat string `json:"private_key_format" doc:"pkcs8 for a private key in PKCS #8; otherwise by its kind."`
	MaxPathLength    *int   `json:"max_path_length" doc:"How many authorities may come below this one; -1 is any number."`
	constraintFields
	NotBeforeDuration *conclave.Seconds `json:"not_before_duration" doc:"How long before now the certificate becomes valid; default 30 seconds."`
	KeyUsage          []string          `json:"key_usage" doc:"Key usages besides CertSign and CRLSign."`
	SignatureBits     int               `json:"signature_bits" doc:"Size of the hash in the signature; 0 goes by the signing key."`
	UsePSS            bool              `json:"use_pss" doc:"Sign with RSA-PSS."`
}

// constraintFields are name constraints (RFC 5280, 4.2.1.10).
type constraintFields struct {
	PermittedDomains []string `json:"permitted_dns_domains" doc:"Domains that it may certify names of; none are all."`
	ExcludedDomains  []string `json:"excluded_dns_domains" doc:"Domains that it may not certify names of."`
	PermittedIPs     []string `json:"permitted_ip_ranges" doc:"Networks that it may certify addresses of; none are all."`
	ExcludedIPs      []string `json:"excluded_ip_ranges" doc:"Networks that it may not certify addresses of."`
	PermittedEmails  []string `json:"permitted_email_addresses" doc:"Mail addresses and domains that it may certify; none are all."`
	ExcludedEmails   []string `json:"excluded_email_addresses" doc:"Mail addresses and domains that it may not certify."`
	PermittedURIs    []string `json:"permitted_uri_domains" doc:"Domains that it may certify URIs of; none are all."`
	ExcludedURIs     []string `json:"excluded_uri_domains" doc:"Domains that it may not certify URIs of."`
}

func (f *constraintFields) into(template *x509.Certificate) error {
	return issuing.Constrain(template, issuing.Constraints{DNS: f.PermittedDomains, IPs: f.PermittedIPs, Emails: f.PermittedEmails, URIs: f.PermittedURIs},
		issuing.Constraints{DNS: f.ExcludedDomains, IPs: f.ExcludedIPs, Emails: f.ExcludedEmails, URIs: f.ExcludedURIs})
}

type subjectFields struct {
	OU            []string `json:"ou" doc:"Organisational units of the subject."`
	Organization  []string `json:"organization" doc:"Organisations of the subject."`
	Country       []string `json:"country" doc:"Countries of the subject."`
	Locality      []string `json:"locality" doc:"Localities of the subject."`
	Province      []string `json:"province" doc:"Provinces of the subject."`
	StreetAddress []string `json:"street_address" doc:"Street addresses of the subject."`
	PostalCode    []string `json:"postal_code" doc:"Postal codes of the subject."`
}

type newKeyFields struct {
	KeyType string `json:"key_type" doc:"rsa, ec or ed25519; default rsa."`
	KeyBits int    `json:"key_bits" doc:"Size of the key; 0 is a usual one."`
	KeyName string `json:"key_name" doc:"Name of the key."`
	KeyRef  string `json:"key_ref" doc:"Id or name of the key that is used, if the path says existing."`
}

// role is what authorities are checked by: whoever may make one chooses its names.
func (f *caFields) role() *issuing.Role {
	role := issuing.Verbatim()
	role.OU, role.Organization, role.Country, role.Locality = f.OU, f.Organization, f.Country, f.Locality
	role.Province, role.StreetAddress, role.PostalCode = f.Province, f.StreetAddress, f.PostalCode
	role.UseCSRCommonName, role.UseCSRSANs, role.SerialNumberSource = false, false, "json"
	if f.NotBeforeDuration != nil {
		role.NotBeforeDuration = *f.NotBeforeDuration
	}
	return role
}

// newAuthority is the template of an authority's certificate.
func (f *caFields) template(role *issuing.Role, m *issuing.Materials, times *issuing.Times) (*x509.Certificate, []string, error) {
	if f.NotBeforeDuration != nil && (*f.NotBeforeDuration < 0 || f.NotBeforeDuration.Duration() > maxBackdate) {
		return nil, nil, conclave.Errorf(conclave.Invalid, "not_before_duration is at most ten years")
	}
	allowed := &issuing.Allowance{URIs: []string{"*"}}
	req := f.Request
	common := req.CommonName
	if role.UseCSRCommonName && m.CSR != nil {
		common = m.CSR.Subject.CommonName
	}
	if !strings.Contains(common, ".") {
		req.ExcludeCNFromSANs = true // an authority is called "Root" and not at a host of that name
	}
	template, warnings, err := issuing.Leaf(role, allowed, &req, m.CSR, times, m.Serial)
	if err != nil {
		return nil, nil, err
	}
	usage, err := issuing.AuthorityUsage(f.KeyUsage)
	if err != nil {
		return nil, nil, err
	}
	template.BasicConstraintsValid, template.IsCA, template.KeyUsage = true, true, usage
	template.ExtKeyUsage, template.UnknownExtKeyUsage = nil, nil
	template.MaxPathLen = -1
	if f.MaxPathLength != nil {
		if *f.MaxPathLength < -1 {
			return nil, nil, conclave.Errorf(conclave.Invalid, "max_path_length is at least -1")
		}
		template.MaxPathLen, template.MaxPathLenZero = *f.MaxPathLength, *f.MaxPathLength == 0
	}
	return template, warnings, f.into(template)
}

const maxBackdate = 10 * 365 * 24 * 3600 * 1e9 // ten years

// newKey is what a request for an authority works with: a key that was made, or one that is here.
func (f *newKeyFields) spec(exported string) (issuing.KeySpec, error) {
	switch exported {
	case "internal", "exported":
		if f.KeyType == "" {
			f.KeyType = "rsa"
		}
		return issuing.NewKeySpec(f.KeyType, f.KeyBits)
	case "existing":
		return issuing.KeySpec{}, nil
	}
	return issuing.KeySpec{}, conclave.Errorf(conclave.Invalid, `the last segment of the path must be "internal", "exported" or "existing"`)
}

// generateRoute adds the making of a key.
func generateRoute(route conclave.Route) conclave.Route {
	route.Prepare = func(_ context.Context, _ *conclave.Request, in any) (any, error) {
		m, err := issuing.NewMaterials()
		if err != nil {
			return nil, err
		}
		var fields *newKeyFields
		var exported string
		switch in := in.(type) {
		case *generateIn:
			fields, exported = &in.newKeyFields, in.Exported
		case *generateCSRIn:
			fields, exported = &in.newKeyFields, in.Exported
		case *crossSignIn:
			fields, exported = &in.newKeyFields, "existing"
		case *generateKeyIn:
			fields, exported = &newKeyFields{KeyType: in.KeyType, KeyBits: in.KeyBits}, in.Exported
		}
		spec, err := fields.spec(exported)
		if err == nil && spec.Type != "" {
			m.Key, err = spec.Generate()
		}
		return m, err
	}
	return route
}

// csrRoute adds the reading of a CSR, or of a certificate.
func csrRoute(route conclave.Route) conclave.Route {
	route.Prepare = func(_ context.Context, _ *conclave.Request, in any) (any, error) {
		m, err := issuing.NewMaterials()
		if err != nil {
			return nil, err
		}
		switch in := in.(type) {
		case *signIntermediateIn:
			m.CSR, err = issuing.ParseCSR(in.CSR)
		case *signIntermediateByIn:
			m.CSR, err = issuing.ParseCSR(in.CSR)
		case *selfIssuedIn:
			m.Certs, err = ParseOne(in.Certificate)
		case *selfIssuedByIn:
			m.Certs, err = ParseOne(in.Certificate)
		}
		return m, err
	}
	return route
}

// ParseOne reads one certificate in PEM.
func ParseOne(text string) ([]*x509.Certificate, error) {
	certs, keys, err := issuing.ParseBundle(text)
	if err == nil && (len(certs) != 1 || len(keys) != 0) {
		err = conclave.Errorf(conclave.Invalid, "one certificate in PEM is wanted")
	}
	return certs, err
}

// takeKey is the key that was made, which is stored, or the one that is named.
func takeKey(tx conclave.Tx, m *issuing.Materials, f *newKeyFields) (*Key, error) {
	if m.Key == nil {
		return findKey(tx, f.KeyRef)
	}
	key, err := NewKey(m.ID(0), f.KeyName, issuing.KeyType(m.Key.Public()), m.Key)
	if err != nil {
		return nil, err
	}
	return key, addKey(tx, key)
}

type rootOut struct {
	Certificate    string `json:"certificate"`
	IssuingCA      string `json:"issuing_ca"`
	SerialNumber   string `json:"serial_number"`
	Expiration     int64  `json:"expiration"`
	IssuerID       string `json:"issuer_id"`
	IssuerName     string `json:"issuer_name"`
	KeyID          string `json:"key_id"`
	KeyName        string `json:"key_name"`
	PrivateKey     string `json:"private_key,omitempty"`
	PrivateKeyType string `json:"private_key_type,omitempty"`
}

func generateRoot(ctx context.Context, tx conclave.Tx, in *generateIn) (*conclave.Response, error) {
	format, err := issuing.NewFormat(in.Format, in.PrivateKeyFormat)
	if err != nil {
		return nil, err
	}
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	key, err := takeKey(tx, m, &in.newKeyFields)
	if err != nil {
		return nil, err
	}
	times := &issuing.Times{Now: tx.Now(), DefaultTTL: tx.Mount().DefaultTTL, MaxTTL: tx.Mount().MaxTTL}
	template, warnings, err := in.template(in.role(), m, times)
	if err != nil {
		return nil, err
	}
	cert, notes, err := selfSign(tx, template, key, in.SignatureBits, in.UsePSS)
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, notes...)
	if in.IssuerName == "" && tx.Request() != nil && strings.Contains(tx.Request().Path, "root/rotate/") {
		if id, err := tx.Get("issuername/next"); err != nil {
			return nil, err
		} else if id == nil {
			in.IssuerName = "next"
		}
	}
	issuer, err := addIssuer(tx, m.ID(1), in.IssuerName, cert)
	if err != nil {
		return nil, err
	}
	if in.UsePSS {
		issuer.Algorithm = algorithmNames[cert.SignatureAlgorithm]
	}
	if issuer, err = settleOne(tx, issuer); err != nil {
		return nil, err
	}
	if err := stored.Keep(tx, cert, issuer.Authority()); err != nil {
		return nil, err
	}
	out := &rootOut{Certificate: format.Certificate(cert), IssuingCA: format.Certificate(cert), SerialNumber: stored.SerialText(stored.SerialName(cert.SerialNumber)),
		Expiration: cert.NotAfter.Unix(), IssuerID: issuer.ID, IssuerName: issuer.Name, KeyID: key.ID, KeyName: key.Name}
	if in.Exported == "exported" {
		if out.PrivateKey, err = format.Key(key.Signer); err != nil {
			return nil, err
		}
		out.PrivateKeyType = key.Type
		if format.Name == "pem_bundle" {
			out.Certificate = issuing.Bundle(out.PrivateKey, cert, nil)
		}
	}
	return &conclave.Response{Data: out, Warnings: warnings}, nil
}

// selfSign signs a root's certificate.
func selfSign(tx conclave.Tx, template *x509.Certificate, key *Key, bits int, pss bool) (*x509.Certificate, []string, error) {
	var warnings []string
	urls, err := stored.LoadOr(tx, "config/urls", URLs{})
	if err != nil {
		return nil, nil, err
	}
	if urls.Templating && usesIssuerID(urls) {
		warnings = append(warnings, "the root holds no AIA URLs: they have {{issuer_id}}, and the root has no issuer yet")
		urls = &URLs{}
	}
	if urls, err = fillURLs(tx, urls, ""); err != nil {
		return nil, nil, err
	}
	if urls.IsEmpty() && len(warnings) == 0 {
		warnings = append(warnings, "This mount hasn't configured any authority information access (AIA) fields; this may make it harder for systems to find missing certificates in the chain or to validate revocation status of certificates. Consider updating /config/urls or the newly generated issuer with this information.")
	}
	if err := issuing.AddURLs(template, &issuing.URLs{Issuing: urls.Issuing, CRL: urls.CRL, Delta: urls.DeltaCRL, OCSP: urls.OCSP}); err != nil {
		return nil, nil, err
	}
	public := key.Signer.Public()
	if template.SubjectKeyId, err = issuing.KeyID(public); err != nil {
		return nil, nil, err
	}
	if err := issuing.SetAlgorithm(template, public, bits, pss); err != nil {
		return nil, nil, err
	}
	cert, err := issuing.Sign(template, nil, public, key.Signer)
	return cert, warnings, err
}

func usesIssuerID(urls *URLs) bool {
	return slices.ContainsFunc(slices.Concat(urls.Issuing, urls.CRL, urls.DeltaCRL, urls.OCSP), func(at string) bool { return strings.Contains(at, "{{issuer_id}}") })
}

func deleteRoot(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.Response, error) {
	for _, dir := range []string{"issuer/", "issuername/", "key/", "keyname/"} {
		names, err := tx.List(dir, "", 0)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if err := tx.Delete(dir + name); err != nil {
				return nil, err
			}
		}
	}
	for _, path := range []string{"config/issuers", "config/keys"} {
		if err := tx.Delete(path); err != nil {
			return nil, err
		}
	}
	return &conclave.Response{Warnings: []string{"DELETE /root deletes all keys and issuers; prefer DELETE /key/:key_ref and DELETE /issuer/:issuer_ref unless all are to go."}}, nil
}

type signIntermediateIn struct {
	Ref
	csrField
	caFields
	intermediateFields
}

type signIntermediateByIn struct {
	Param
	csrField
	caFields
	intermediateFields
}

type intermediateFields struct {
	UseCSRValues bool   `json:"use_csr_values" doc:"Take subject, names and extensions from the CSR."`
	SKID         string `json:"skid" doc:"Subject key identifier, hexadecimal; default is a hash of the key."`
	EnforceEnd   bool   `json:"enforce_leaf_not_after_behavior" doc:"Have leaf_not_after_behavior of the issuer hold for this authority too; otherwise it may end later than its issuer."`
}

func signIntermediate(ctx context.Context, tx conclave.Tx, in *signIntermediateIn) (*conclave.Response, error) {
	return signAuthority(ctx, tx, in.Issuer, &in.caFields, &in.intermediateFields)
}

func signIntermediateBy(ctx context.Context, tx conclave.Tx, in *signIntermediateByIn) (*conclave.Response, error) {
	return signAuthority(ctx, tx, in.Issuer, &in.caFields, &in.intermediateFields)
}

func signAuthority(ctx context.Context, tx conclave.Tx, ref string, fields *caFields, how *intermediateFields) (*conclave.Response, error) {
	format, err := issuing.NewFormat(fields.Format, fields.PrivateKeyFormat)
	if err != nil {
		return nil, err
	}
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	by, err := NewSigning(tx, ref)
	if err != nil {
		return nil, err
	}
	role := fields.role()
	role.UseCSRCommonName = how.UseCSRValues || fields.CommonName == ""
	role.UseCSRSANs = how.UseCSRValues
	times := by.Times(tx)
	if !how.EnforceEnd {
		times.Behavior = issuing.BehaviorPermit
	}
	template, warnings, err := fields.template(role, m, times)
	if err != nil {
		return nil, err
	}
	if err := by.bound(template); err != nil {
		return nil, err
	}
	if how.UseCSRValues {
		usage := template.KeyUsage
		if err := issuing.CopyCSR(template, m.CSR); err != nil {
			return nil, err
		}
		template.KeyUsage |= usage
	}
	if how.SKID != "" {
		if template.SubjectKeyId, err = hex.DecodeString(strings.NewReplacer(":", "", "-", "", " ", "").Replace(how.SKID)); err != nil || len(template.SubjectKeyId) > 64 {
			return nil, conclave.Errorf(conclave.Invalid, "skid is written in hexadecimal digits, at most 64 bytes")
		}
	}
	cert, err := by.Sign(tx, template, m.CSR.PublicKey, fields.SignatureBits, fields.UsePSS)
	if err != nil {
		return nil, err
	}
	if err := stored.Keep(tx, cert, by.Issuer.Authority()); err != nil {
		return nil, err
	}
	out, err := by.Present(cert, format, nil, false)
	if err == nil { // what the new authority sends along is its own certificate and those above, and Terraform takes it from here
		out.Chain = append([]string{format.Certificate(cert)}, out.Chain...)
	}
	if err == nil && len(by.Issuer.Cert.CRLDistributionPoints)+len(by.urls.CRL)+len(by.urls.OCSP) == 0 {
		warnings = append(warnings, "the certificate says nothing of where its revocation is published: set config/urls to change that")
	}
	return &conclave.Response{Data: out, Warnings: warnings}, err
}

// bound holds an authority below this one against its path length (RFC 5280, 4.2.1.9).
func (by *Signing) bound(template *x509.Certificate) error {
	above := by.Issuer.Cert
	switch {
	case above.MaxPathLen == 0 && above.MaxPathLenZero:
		return conclave.Errorf(conclave.Invalid, "the issuer's path length allows no authority below it")
	case above.MaxPathLen <= 0:
	case template.MaxPathLen < 0 || template.MaxPathLen >= above.MaxPathLen:
		template.MaxPathLen = above.MaxPathLen - 1
		template.MaxPathLenZero = template.MaxPathLen == 0
	}
	return nil
}

type selfIssuedIn struct {
	Ref
	selfIssuedFields
}

type selfIssuedByIn struct {
	Param
	selfIssuedFields
}

type selfIssuedFields struct {
	Certificate string `json:"certificate" doc:"The self-issued certificate, PEM."`
	SameKind    bool   `json:"require_matching_certificate_algorithms" doc:"Refuse a certificate whose key is of another kind than the issuer's."`
}

type selfIssuedOut struct {
	Certificate string `json:"certificate"`
	IssuingCA   string `json:"issuing_ca"`
}

func signSelfIssued(ctx context.Context, tx conclave.Tx, in *selfIssuedIn) (*conclave.Response, error) {
	return signAgain(ctx, tx, in.Issuer, in.SameKind)
}

func signSelfIssuedBy(ctx context.Context, tx conclave.Tx, in *selfIssuedByIn) (*conclave.Response, error) {
	return signAgain(ctx, tx, in.Issuer, in.SameKind)
}

func signAgain(ctx context.Context, tx conclave.Tx, ref string, sameKind bool) (*conclave.Response, error) {
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	by, err := NewSigning(tx, ref)
	if err != nil {
		return nil, err
	}
	given := m.Certs[0]
	switch {
	case string(given.RawSubject) != string(given.RawIssuer):
		return nil, conclave.Errorf(conclave.Invalid, "the certificate is not self-issued: its subject is not its issuer")
	case !given.IsCA:
		return nil, conclave.Errorf(conclave.Invalid, "the certificate is no authority's")
	case sameKind && given.PublicKeyAlgorithm != by.Issuer.Cert.PublicKeyAlgorithm:
		return nil, conclave.Errorf(conclave.Invalid, "the certificate's key is of another kind than the issuer's")
	}
	if _, err := issuing.SpecOf(given.PublicKey); err != nil {
		return nil, err
	}
	template := *given
	template.SignatureAlgorithm, template.AuthorityKeyId = 0, nil
	if err := by.bound(&template); err != nil {
		return nil, err
	}
	cert, err := issuing.Sign(&template, by.Issuer.Cert, crypto.PublicKey(given.PublicKey), by.key.Signer)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Data: &selfIssuedOut{issuing.CertificatePEM(cert), issuing.CertificatePEM(by.Issuer.Cert)}}, nil
}
