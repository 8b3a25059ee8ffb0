package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"strings"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/revocation"
	"conclave/engine/pki/stored"
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
	issueIn struct {
		roleParam
		orderFields
		keyFields
	}
	issueByIn struct {
		authority.Param
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
		authority.Param
		roleParam
		orderFields
		csrField
	}
	verbatimIn struct {
		authority.Ref
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
		authority.Param
		orderFields
		csrField
		verbatimFields
	}
	verbatimRoleByIn struct {
		authority.Param
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

// keySpec is the kind of key that has to be made for the order; the zero one if none has to.
func (o *order) keySpec(view conclave.View) (issuing.KeySpec, error) {
	if o.key == nil {
		return issuing.KeySpec{}, nil
	}
	role, err := o.findRole(view)
	if err != nil {
		return issuing.KeySpec{}, err
	}
	spec := issuing.KeySpec{Type: role.KeyType, Bits: role.KeyBits}
	if role.KeyType == "any" {
		if o.key.KeyType == "" {
			return issuing.KeySpec{}, conclave.Errorf(conclave.Invalid, `role key type "any" not allowed for issuing certificates without providing key_type and/or key_bits request parameters`)
		}
		if spec, err = issuing.NewKeySpec(o.key.KeyType, o.key.KeyBits); err != nil {
			return issuing.KeySpec{}, err
		}
	}
	if spec.Type == "rsa" { // which takes long to make: not for a request that will be refused
		err = o.check(view, role)
	}
	return spec, err
}

// check finds out whether the order can be filled, before there is a key.
func (o *order) check(view conclave.View, role *issuing.Role) error {
	by, err := o.signing(view, role)
	if err != nil {
		return err
	}
	allowed, err := allowance(view, role)
	if err != nil {
		return err
	}
	_, _, err = issuing.Leaf(role, allowed, &o.Request, nil, by.Times(view), big.NewInt(1))
	return err
}

// signing is the issuer that the order names, or its role.
func (o *order) signing(view conclave.View, role *issuing.Role) (*authority.Signing, error) {
	ref := o.issuer
	if ref == "" {
		ref = role.IssuerRef
	}
	return authority.NewSigning(view, ref)
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

func (o *order) prepare(ctx context.Context) (*issuing.Materials, error) {
	m, err := issuing.NewMaterials()
	if err != nil {
		return nil, err
	}
	if o.csr != nil {
		m.CSR, err = issuing.ParseCSR(*o.csr)
		return m, err
	}
	spec, _ := conclave.Gathered[issuing.KeySpec](ctx)
	m.Key, err = spec.Generate()
	return m, err
}

// fill issues the certificate.
func (o *order) fill(ctx context.Context, tx conclave.Tx) (*conclave.Response, error) {
	format, err := issuing.NewFormat(o.Format, o.PrivateKeyFormat)
	if err != nil {
		return nil, err
	}
	m, err := issuing.Prepared(ctx)
	if err != nil {
		return nil, err
	}
	role, err := o.findRole(tx)
	if err != nil {
		return nil, err
	}
	by, err := o.signing(tx, role)
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
		if err := stored.Keep(tx, cert, by.Issuer.Authority()); err != nil {
			return nil, err
		}
	}
	data, err := by.Present(cert, format, m.Key, o.RemoveRoots)
	if err != nil {
		return nil, err
	}
	resp := &conclave.Response{Data: data, Warnings: warnings}
	if role.GenerateLease && !role.NoStore {
		lease, err := json.Marshal(revocation.Leased{Serial: stored.SerialName(cert.SerialNumber)})
		if err != nil {
			return nil, err
		}
		ttl := cert.NotAfter.Sub(tx.Now())
		resp.Lease = &conclave.Lease{TTL: ttl, MaxTTL: ttl, Data: lease}
	}
	return resp, nil
}

func (o *order) sign(tx conclave.Tx, role *issuing.Role, by *authority.Signing, m *issuing.Materials) (*x509.Certificate, []string, error) {
	if o.verbatim != nil {
		role = o.verbatim.relax(role)
	}
	allowed, err := allowance(tx, role)
	if err != nil {
		return nil, nil, err
	}
	times := by.Times(tx)
	template, warnings, err := issuing.Leaf(role, allowed, &o.Request, m.CSR, times, m.Serial)
	if err != nil {
		return nil, nil, err
	}
	public := crypto.PublicKey(nil)
	if m.CSR != nil {
		public = m.CSR.PublicKey
	} else {
		public = m.Key.Public()
	}
	if o.verbatim != nil {
		if err := issuing.CopyCSR(template, m.CSR); err != nil {
			return nil, nil, err
		}
	}
	cert, err := by.Sign(tx, template, public, role.SignatureBits, role.UsePSS)
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
