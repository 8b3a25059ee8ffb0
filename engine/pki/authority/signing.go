package authority

import (
	"crypto"
	"crypto/x509"
	"slices"

	"conclave"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

// Signing is an issuer that can sign, with all that signing needs.
type Signing struct {
	Issuer *Issuer
	key    *Key
	chain  []*Issuer // the issuer itself first
	urls   *URLs
}

// NewSigning finds an issuer for a reference that may sign certificates now.
func NewSigning(view conclave.View, ref string) (*Signing, error) {
	issuer, err := Find(view, ref)
	if err != nil {
		return nil, err
	}
	switch {
	case !issuer.MayDo(UsageIssue):
		return nil, conclave.Errorf(conclave.Invalid, "the issuer isn't for issuing certificates: its usage says so")
	case issuer.RevokedAt != 0:
		return nil, conclave.Errorf(conclave.Invalid, "the issuer is revoked")
	case issuer.IsOver(view.Reached):
		return nil, conclave.Errorf(conclave.Invalid, "the issuer's certificate has ended")
	case !issuer.Cert.IsCA:
		return nil, conclave.Errorf(conclave.Invalid, "the issuer's certificate is no authority's")
	}
	by := &Signing{Issuer: issuer}
	if by.key, err = keyOf(view, issuer); err != nil {
		return nil, err
	}
	for _, id := range issuer.Chain {
		link := issuer
		if id != issuer.ID {
			if link, err = LoadIssuer(view, id); err != nil {
				return nil, err
			}
		}
		if link != nil {
			by.chain = append(by.chain, link)
		}
	}
	by.urls, err = URLsOf(view, issuer)
	return by, err
}

// keyOf is an issuer's private key.
func keyOf(view conclave.View, issuer *Issuer) (*Key, error) {
	if issuer.KeyID != "" {
		if key, err := LoadKey(view, issuer.KeyID); err != nil || key != nil {
			return key, err
		}
	}
	return nil, conclave.Errorf(conclave.Invalid, "the issuer's private key isn't here")
}

// URLsOf are the URLs in an issuer's certificates.
func URLsOf(view conclave.View, issuer *Issuer) (*URLs, error) {
	urls := issuer.URLs
	if urls.IsEmpty() {
		var err error
		if urls, err = stored.LoadOr(view, "config/urls", URLs{}); err != nil {
			return nil, err
		}
	}
	return fillURLs(view, urls, issuer.ID)
}

func fillURLs(view conclave.View, urls *URLs, issuerID string) (*URLs, error) {
	if !urls.Templating {
		return urls, nil
	}
	cluster, err := stored.LoadOr(view, "config/cluster", clusterConfig{})
	if err != nil {
		return nil, err
	}
	return urls.Fill(issuerID, cluster.Path, cluster.AIAPath)
}

// Times are what the validity of a certificate of this issuer is computed from.
func (by *Signing) Times(view conclave.View) *issuing.Times {
	return &issuing.Times{Now: view.Now(), DefaultTTL: view.Mount().DefaultTTL, MaxTTL: view.Mount().MaxTTL,
		IssuerEnds: by.Issuer.Cert.NotAfter, Behavior: by.Issuer.Behavior}
}

// Sign signs a certificate. One that the issuer's own name constraints don't permit is refused.
func (by *Signing) Sign(view conclave.View, template *x509.Certificate, public crypto.PublicKey, bits int, pss bool) (*x509.Certificate, error) {
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
	cert, err := issuing.Sign(template, by.Issuer.Cert, public, by.key.Signer)
	if err != nil {
		return nil, err
	}
	return cert, by.permits(view, cert)
}

// permits holds a certificate against the name constraints of the issuer.
func (by *Signing) permits(view conclave.View, cert *x509.Certificate) error {
	c := by.Issuer.Cert
	constraints := [][]string{c.PermittedDNSDomains, c.ExcludedDNSDomains, c.PermittedEmailAddresses, c.ExcludedEmailAddresses, c.PermittedURIDomains, c.ExcludedURIDomains}
	isFree := !slices.ContainsFunc(constraints, func(list []string) bool { return len(list) > 0 })
	if isFree && len(c.PermittedIPRanges) == 0 && len(c.ExcludedIPRanges) == 0 {
		return nil
	}
	anchors := x509.NewCertPool()
	anchors.AddCert(c)
	// A certificate that isn't valid yet, or has a critical extension that crypto/x509 doesn't know, would be refused for that
	// before its names are looked at.
	at := view.Now()
	if cert.NotBefore.After(at) {
		at = cert.NotBefore
	}
	named := *cert
	named.UnhandledCriticalExtensions = nil
	_, err := named.Verify(x509.VerifyOptions{Roots: anchors, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if invalid, ok := err.(x509.CertificateInvalidError); ok && (invalid.Reason == x509.CANotAuthorizedForThisName || invalid.Reason == x509.TooManyConstraints || invalid.Reason == x509.UnconstrainedName) {
		return conclave.Errorf(conclave.Invalid, "the issuer's name constraints don't permit the certificate's names")
	}
	return nil
}

// Issued is what a certificate is answered with.
type Issued struct {
	Certificate    string   `json:"certificate"`
	IssuingCA      string   `json:"issuing_ca"`
	Chain          []string `json:"ca_chain,omitempty"`
	PrivateKey     string   `json:"private_key,omitempty"`
	PrivateKeyType string   `json:"private_key_type,omitempty"`
	SerialNumber   string   `json:"serial_number"`
	NotBefore      int64    `json:"not_before"`
	Expiration     int64    `json:"expiration"`
}

// Present is a certificate as a client wants it, with its private key if one was made.
func (by *Signing) Present(cert *x509.Certificate, format issuing.Format, key crypto.Signer, withoutRoots bool) (*Issued, error) {
	out := &Issued{Certificate: format.Certificate(cert), IssuingCA: by.Issuer.text(format), SerialNumber: stored.SerialText(stored.SerialName(cert.SerialNumber)),
		NotBefore: cert.NotBefore.Unix(), Expiration: cert.NotAfter.Unix()}
	var chain []*x509.Certificate
	for _, link := range by.chain {
		if !withoutRoots || !IsSelfSigned(link.Cert) {
			chain = append(chain, link.Cert)
			out.Chain = append(out.Chain, link.text(format))
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

// text is the issuer's certificate in a format, which is kept for the usual one.
func (i *Issuer) text(format issuing.Format) string {
	if format.Name == "der" || i.PEM == "" {
		return format.Certificate(i.Cert)
	}
	return i.PEM
}
