package issuing

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"conclave"
)

var oidFreshestCRL = asn1.ObjectIdentifier{2, 5, 29, 46}

// FreshestCRL is the extension that says where delta CRLs are (RFC 5280, 4.2.1.15).
func FreshestCRL(urls []string) (pkix.Extension, error) {
	context := func(tag uint8) cbasn1.Tag { return cbasn1.Tag(tag).ContextSpecific() }
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, at := range urls {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(context(0).Constructed(), func(b *cryptobyte.Builder) {
					b.AddASN1(context(0).Constructed(), func(b *cryptobyte.Builder) {
						b.AddASN1(context(tagURI), func(b *cryptobyte.Builder) { b.AddBytes([]byte(at)) })
					})
				})
			})
		}
	})
	value, err := b.Bytes()
	if err != nil {
		return pkix.Extension{}, conclave.Errorf(conclave.Invalid, "the URLs of delta CRLs can't be encoded")
	}
	return pkix.Extension{Id: oidFreshestCRL, Value: value}, nil
}

// Verbatim extensions that the issuer sets itself, or that only authorities have.
var notCopied = []asn1.ObjectIdentifier{oidBasicConstraints, oidNameConstraints, oidAuthorityKeyID, oidSubjectKeyID, oidAuthorityInfo, oidCRLPoints, oidFreshestCRL}

// CopyCSR has a certificate say all that a CSR says: subject, names, extensions. What would make it an authority's, or
// speak for the issuer, is left out. The names are checked as those of any other certificate before.
func CopyCSR(template *x509.Certificate, csr *x509.CertificateRequest) error {
	if len(csr.Subject.Names) > 0 {
		template.RawSubject = csr.RawSubject
	}
	copied := map[string]bool{}
	for _, extension := range csr.Extensions {
		if slices.ContainsFunc(notCopied, extension.Id.Equal) || copied[extension.Id.String()] {
			continue
		}
		copied[extension.Id.String()] = true
		switch {
		case extension.Id.Equal(oidKeyUsage):
			usage, err := parseKeyUsage(extension.Value)
			if err != nil {
				return err
			}
			template.KeyUsage = usage &^ authorityUses
			continue
		case extension.Id.Equal(oidExtKeyUsage):
			template.ExtKeyUsage, template.UnknownExtKeyUsage = nil, nil
		case extension.Id.Equal(oidSAN):
			template.DNSNames, template.EmailAddresses, template.IPAddresses, template.URIs = nil, nil, nil, nil
		}
		template.ExtraExtensions = slices.DeleteFunc(template.ExtraExtensions, func(e pkix.Extension) bool { return e.Id.Equal(extension.Id) })
		template.ExtraExtensions = append(template.ExtraExtensions, extension)
	}
	return nil
}

// parseKeyUsage reads the bits, of which the first is the most significant of the first byte.
func parseKeyUsage(der []byte) (x509.KeyUsage, error) {
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(der, &bits); err != nil || len(rest) > 0 || bits.BitLength > 9 {
		return 0, conclave.Errorf(conclave.Invalid, "the CSR's key usage can't be read")
	}
	var usage x509.KeyUsage
	for i := range bits.BitLength {
		usage |= x509.KeyUsage(bits.At(i)) << i
	}
	return usage, nil
}

// Constraints are names, or what they lie in.
type Constraints struct{ DNS, IPs, Emails, URIs []string }

// Constrain bounds what an authority may certify to names at and below domains, and addresses in networks (RFC 5280,
// 4.2.1.10).
func Constrain(template *x509.Certificate, permitted, excluded Constraints) error {
	for _, c := range []*Constraints{&permitted, &excluded} {
		for _, domain := range slices.Concat(c.DNS, c.URIs) {
			if !isHostname(strings.ToLower(strings.TrimPrefix(domain, "."))) {
				return conclave.Errorf(conclave.Invalid, "a domain of a name constraint is no domain")
			}
		}
		for _, text := range c.Emails {
			local, host, isAddress := strings.Cut(text, "@")
			if !isAddress {
				local, host = "any", strings.TrimPrefix(text, ".")
			}
			if !isLocalPart(local) || !isHostname(strings.ToLower(host)) {
				return conclave.Errorf(conclave.Invalid, "a mail address of a name constraint is neither an address nor a domain")
			}
		}
	}
	var err error
	if template.PermittedIPRanges, err = ranges(permitted.IPs); err != nil {
		return err
	}
	if template.ExcludedIPRanges, err = ranges(excluded.IPs); err != nil {
		return err
	}
	template.PermittedDNSDomains, template.ExcludedDNSDomains = permitted.DNS, excluded.DNS
	template.PermittedEmailAddresses, template.ExcludedEmailAddresses = permitted.Emails, excluded.Emails
	template.PermittedURIDomains, template.ExcludedURIDomains = permitted.URIs, excluded.URIs
	template.PermittedDNSDomainsCritical = true // of the whole extension, if there is one
	return nil
}

func ranges(texts []string) ([]*net.IPNet, error) {
	var list []*net.IPNet
	for _, text := range texts {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "a network of a name constraint is none: CIDR notation is wanted")
		}
		list = append(list, network)
	}
	return list, nil
}
