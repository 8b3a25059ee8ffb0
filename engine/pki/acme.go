package pki

import (
	"crypto/x509"
	"slices"
	"time"

	"conclave"
	"conclave/engine/pki/acme"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/revocation"
	"conclave/engine/pki/stored"
)

// acmeAuthority is what the engine does for ACME.
type acmeAuthority struct{}

var _ acme.Authority = acmeAuthority{}

func acmeService() *acme.Service { return acme.New(acmeAuthority{}) }

// Base is the path of config/cluster.
func (acmeAuthority) Base(view conclave.View) (string, error) { return authority.ClusterPath(view) }

// Issuer resolves a reference.
func (acmeAuthority) Issuer(view conclave.View, ref string) (id, name string, err error) {
	issuer, err := authority.Find(view, ref)
	if err != nil {
		return "", "", err
	}
	return issuer.ID, issuer.Name, nil
}

// RoleIssuer is the role's issuer_ref.
func (acmeAuthority) RoleIssuer(view conclave.View, name string) (string, error) {
	role, err := (&order{role: name}).findRole(view)
	if err != nil {
		return "", err
	}
	return role.IssuerRef, nil
}

// Permits makes the certificate's template, and drops it.
func (a acmeAuthority) Permits(view conclave.View, wanted *acme.Wanted) error {
	role, by, err := a.find(view, wanted)
	if err != nil {
		return err
	}
	_, err = leafFor(view, wanted, role, by, nil, &issuing.Materials{})
	return err
}

// Issue issues the certificate.
func (a acmeAuthority) Issue(tx conclave.Tx, wanted *acme.Wanted, csr *x509.CertificateRequest, m *issuing.Materials) (*acme.Issued, error) {
	role, by, err := a.find(tx, wanted)
	if err != nil {
		return nil, err
	}
	template, err := leafFor(tx, wanted, role, by, csr, m)
	if err != nil {
		return nil, err
	}
	cert, err := by.Sign(tx, template, csr.PublicKey, role.SignatureBits, role.UsePSS)
	if err != nil {
		return nil, err
	}
	if !role.NoStore {
		if err := stored.Keep(tx, cert, by.Issuer.Authority()); err != nil {
			return nil, err
		}
	}
	shown, err := by.Present(cert, issuing.Format{Name: "pem"}, nil, false)
	if err != nil {
		return nil, err
	}
	chain := []byte(shown.Certificate + "\n")
	for _, above := range shown.Chain {
		chain = append(chain, above+"\n"...)
	}
	return &acme.Issued{Leaf: cert, Chain: chain}, nil
}

// Revoke revokes a certificate of one of the mount's issuers.
func (acmeAuthority) Revoke(tx conclave.Tx, cert *x509.Certificate) (bool, error) {
	return revocation.RevokePresented(tx, cert)
}

// find is the role, as it holds for ACME, and the issuer.
func (acmeAuthority) find(view conclave.View, wanted *acme.Wanted) (*issuing.Role, *authority.Signing, error) {
	named, err := (&order{role: wanted.Role}).findRole(view)
	if err != nil {
		return nil, nil, err
	}
	ref := wanted.Issuer
	if ref == "" {
		ref = named.IssuerRef
	}
	by, err := authority.NewSigning(view, ref)
	if err != nil {
		return nil, nil, err
	}
	role := *named
	role.RequireCN, role.UseCSRCommonName, role.UseCSRSANs = false, false, false
	if !wanted.RoleUsages || wanted.Role == "" {
		role.ServerFlag, role.ClientFlag, role.CodeSigningFlag, role.EmailProtectionFlag = true, false, false, false
		role.ExtKeyUsage, role.ExtKeyUsageOIDs = nil, nil
	}
	if role.MaxTTL == 0 || role.MaxTTL.Duration() > wanted.MaxTTL {
		role.MaxTTL = conclave.InSeconds(min(wanted.MaxTTL, view.Mount().MaxTTL))
	}
	if at, err := time.Parse(time.RFC3339, role.NotAfter); err == nil && at.After(view.Now().Add(wanted.MaxTTL)) {
		role.NotAfter = ""
	}
	return &role, by, nil
}

// leafFor makes the template. Of a CSR it takes the key, and the common name if that is one of the names.
func leafFor(view conclave.View, wanted *acme.Wanted, role *issuing.Role, by *authority.Signing, csr *x509.CertificateRequest, m *issuing.Materials) (*x509.Certificate, error) {
	allowed, err := allowance(view, role)
	if err != nil {
		return nil, err
	}
	request := &issuing.Request{AltNames: wanted.DNS, ExcludeCNFromSANs: true}
	for _, address := range wanted.Addresses {
		request.IPSANs = append(request.IPSANs, address.String())
	}
	var keyed *x509.CertificateRequest
	if csr != nil {
		keyed = &x509.CertificateRequest{PublicKey: csr.PublicKey}
		if slices.Contains(wanted.DNS, csr.Subject.CommonName) {
			request.CommonName = csr.Subject.CommonName
		}
	}
	template, _, err := issuing.Leaf(role, allowed, request, keyed, by.Times(view), m.Serial)
	return template, err
}
