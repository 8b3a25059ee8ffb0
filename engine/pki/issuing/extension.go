package issuing

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
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

// PermitDNS bounds what an authority may certify to names at and below domains (RFC 5280, 4.2.1.10).
func PermitDNS(template *x509.Certificate, permitted, excluded []string) error {
	for _, list := range [][]string{permitted, excluded} {
		for _, domain := range list {
			if !isHostname(strings.ToLower(strings.TrimPrefix(domain, "."))) {
				return conclave.Errorf(conclave.Invalid, "a domain of a name constraint is no domain")
			}
		}
	}
	template.PermittedDNSDomains, template.ExcludedDNSDomains = permitted, excluded
	template.PermittedDNSDomainsCritical = len(permitted)+len(excluded) > 0
	return nil
}
