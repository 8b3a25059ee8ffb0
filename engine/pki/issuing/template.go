package issuing

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"

	"conclave"
)

var (
	errTooManyNames = conclave.Errorf(conclave.Invalid, "a certificate has at most %d names", maxNames)
	errNoCommonName = conclave.Errorf(conclave.Invalid, `the common_name field is required, or must be provided in a CSR with "use_csr_common_name" set to true, unless "require_cn" is set to false`)

	oidUserID           = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidCRLPoints        = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidAuthorityInfo    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
)

// Request is what a client asks a certificate to be.
type Request struct {
	CommonName        string           `json:"common_name" doc:"Common name, and an alternative name unless exclude_cn_from_sans is set."`
	AltNames          []string         `json:"alt_names" doc:"Names of hosts and mail addresses."`
	IPSANs            []string         `json:"ip_sans" doc:"Addresses."`
	URISANs           []string         `json:"uri_sans" doc:"URIs."`
	OtherSANs         []string         `json:"other_sans" doc:"Other names: OID;UTF8:VALUE."`
	UserIDs           []string         `json:"user_ids" doc:"User ids of the subject."`
	SerialNumber      string           `json:"serial_number" doc:"Serial number of the subject; the certificate's own is random."`
	TTL               conclave.Seconds `json:"ttl" doc:"How long the certificate is valid."`
	NotBefore         string           `json:"not_before" doc:"From when it is valid, RFC 3339."`
	NotAfter          string           `json:"not_after" doc:"To when it is valid, RFC 3339, instead of ttl."`
	ExcludeCNFromSANs bool             `json:"exclude_cn_from_sans" doc:"Keep the common name out of the alternative names."`
}

// URLs are where a certificate says that more about its issuer is found.
type URLs struct {
	Issuing []string
	CRL     []string
	Delta   []string
	OCSP    []string
}

// Leaf makes the template of a certificate that is no authority's, for the key of csr if there is one and else for a key
// that was made for it.
func Leaf(role *Role, allowed *Allowance, req *Request, csr *x509.CertificateRequest, times *Times, serial *big.Int) (*x509.Certificate, []string, error) {
	template := &x509.Certificate{SerialNumber: serial, BasicConstraintsValid: role.BasicConstraintsValidForNonCA}
	if csr != nil {
		if err := role.allowsKey(csr.PublicKey); err != nil {
			return nil, nil, err
		}
	}
	n, err := requested(newJudge(role, allowed), req, csr)
	if err != nil {
		return nil, nil, err
	}
	if err := n.into(template); err != nil {
		return nil, nil, err
	}
	if template.Subject, err = role.subject(req, csr, n.commonName); err != nil {
		return nil, nil, err
	}
	var warnings []string
	if template.NotBefore, template.NotAfter, warnings, err = role.validity(req, times); err != nil {
		return nil, nil, err
	}
	if template.KeyUsage, err = keyUsages(role.KeyUsage); err != nil {
		return nil, nil, err
	}
	template.KeyUsage &^= authorityUses
	if template.ExtKeyUsage, template.UnknownExtKeyUsage, err = role.extKeyUsages(); err != nil {
		return nil, nil, err
	}
	policies, err := policyExtension(role.PolicyIdentifiers)
	if err != nil {
		return nil, nil, err
	}
	if policies != nil {
		template.ExtraExtensions = append(template.ExtraExtensions, *policies)
	}
	if csr != nil {
		warnings = append(warnings, ignored(role, req, csr)...)
	}
	return template, warnings, nil
}

// authorityUses are the key usages of authorities (RFC 5280, 4.2.1.3).
const authorityUses = x509.KeyUsageCertSign | x509.KeyUsageCRLSign

// ignored says what of a request has no effect.
func ignored(role *Role, req *Request, csr *x509.CertificateRequest) (warnings []string) {
	if role.UseCSRCommonName && req.CommonName != "" && csr.Subject.CommonName != "" {
		warnings = append(warnings, `the common_name field was provided but the role is set with "use_csr_common_name" set to true`)
	}
	if role.UseCSRSANs && len(req.AltNames) > 0 {
		warnings = append(warnings, `the alt_names field was provided but the role is set with "use_csr_sans" set to true`)
	}
	if slices.ContainsFunc(csr.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidBasicConstraints) }) {
		warnings = append(warnings, "specified CSR contained a Basic Constraints extension that was ignored during issuance")
	}
	return warnings
}

// requested collects and checks all names, from the fields or the CSR as the role says.
func requested(j *judge, req *Request, csr *x509.CertificateRequest) (*names, error) {
	n := &names{}
	common := ""
	if csr != nil && j.role.UseCSRCommonName {
		common = csr.Subject.CommonName
	}
	if common == "" {
		common = req.CommonName
	}
	if common == "" && j.role.RequireCN {
		return nil, errNoCommonName
	}
	fields := &Request{AltNames: req.AltNames, IPSANs: req.IPSANs, URISANs: req.URISANs, OtherSANs: req.OtherSANs}
	var others []otherName
	if csr != nil && j.role.UseCSRSANs {
		fields = fromCSR(csr)
		fields.OtherSANs = req.OtherSANs
		var err error
		if others, err = otherNamesIn(csr.Extensions); err != nil {
			return nil, err
		}
	}
	if len(fields.AltNames)+len(fields.IPSANs)+len(fields.URISANs)+len(fields.OtherSANs)+len(others) > maxNames {
		return nil, errTooManyNames
	}
	if common != "" {
		if err := j.addCommonName(n, common, !req.ExcludeCNFromSANs); err != nil {
			return nil, err
		}
	}
	parsed, err := parseOtherNames(fields.OtherSANs)
	if err != nil {
		return nil, err
	}
	return n, j.addAll(n, fields, append(parsed, others...))
}

func fromCSR(csr *x509.CertificateRequest) *Request {
	fields := &Request{AltNames: slices.Concat(csr.DNSNames, csr.EmailAddresses)}
	for _, ip := range csr.IPAddresses {
		fields.IPSANs = append(fields.IPSANs, ip.String())
	}
	for _, uri := range csr.URIs {
		fields.URISANs = append(fields.URISANs, uri.String())
	}
	return fields
}

func (j *judge) addAll(n *names, fields *Request, others []otherName) error {
	for _, name := range fields.AltNames {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if err := j.addName(n, name); err != nil {
			return err
		}
	}
	for _, text := range fields.IPSANs {
		ip, ok := address(strings.TrimSpace(text))
		if !ok {
			return conclave.Errorf(conclave.Invalid, "the value %q is not a valid IP address", text)
		}
		if err := j.addIP(n, ip); err != nil {
			return err
		}
	}
	for _, text := range fields.URISANs {
		if err := j.addURI(n, text); err != nil {
			return err
		}
	}
	for _, other := range others {
		if err := j.addOther(n, other); err != nil {
			return err
		}
	}
	return nil
}

// into puts the names into a certificate.
func (n *names) into(template *x509.Certificate) error {
	template.DNSNames, template.EmailAddresses, template.IPAddresses, template.URIs = n.dns, n.emails, n.ips, n.uris
	if len(n.others) == 0 {
		return nil
	}
	extension, err := n.extension(n.commonName == "")
	template.ExtraExtensions = append(template.ExtraExtensions, extension)
	return err
}

// subject is the name of whom the certificate is for.
func (r *Role) subject(req *Request, csr *x509.CertificateRequest, common string) (pkix.Name, error) {
	name := pkix.Name{CommonName: common, Country: unique(r.Country), Organization: unique(r.Organization), OrganizationalUnit: unique(r.OU),
		Locality: unique(r.Locality), Province: unique(r.Province), StreetAddress: unique(r.StreetAddress), PostalCode: unique(r.PostalCode),
		SerialNumber: req.SerialNumber}
	if name.SerialNumber == "" && csr != nil && r.SerialNumberSource != "json" {
		name.SerialNumber = csr.Subject.SerialNumber
	}
	if name.SerialNumber != "" && (len(name.SerialNumber) > maxOneName || !matchesAny(r.AllowedSerialNumbers, name.SerialNumber)) {
		return name, conclave.Errorf(conclave.Invalid, "serial_number %s not allowed by this role", name.SerialNumber)
	}
	users := req.UserIDs
	if len(users) == 0 && csr != nil {
		for _, attribute := range csr.Subject.Names {
			if text, isText := attribute.Value.(string); isText && attribute.Type.Equal(oidUserID) {
				users = append(users, text)
			}
		}
	}
	if len(users) > maxNames {
		return name, errTooManyNames
	}
	for _, user := range users {
		if len(user) > maxOneName || strings.ContainsFunc(user, isControl) || !matchesAny(r.AllowedUserIDs, user) {
			return name, conclave.Errorf(conclave.Invalid, "user_id %s is not allowed by this role", user)
		}
		name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: oidUserID, Value: user})
	}
	return name, nil
}

func unique(list []string) []string {
	var kept []string
	for _, text := range list {
		if text = strings.TrimSpace(text); text != "" && !slices.Contains(kept, text) {
			kept = append(kept, text)
		}
	}
	return kept
}

// AddURLs has a certificate say where more about its issuer is found.
func AddURLs(template *x509.Certificate, urls *URLs) error {
	template.IssuingCertificateURL, template.CRLDistributionPoints, template.OCSPServer = urls.Issuing, urls.CRL, urls.OCSP
	if len(urls.Delta) == 0 {
		return nil
	}
	extension, err := FreshestCRL(urls.Delta)
	template.ExtraExtensions = append(template.ExtraExtensions, extension)
	return err
}

// SetAlgorithm chooses how the issuer's key signs the certificate.
func SetAlgorithm(template *x509.Certificate, issuer crypto.PublicKey, bits int, pss bool) (err error) {
	template.SignatureAlgorithm, err = SignatureAlgorithm(issuer, bits, pss)
	return err
}

// CreateCSR makes a request for an authority's certificate like the template.
func CreateCSR(template *x509.Certificate, key crypto.Signer, bits int, pss, withConstraints bool) ([]byte, error) {
	algorithm, err := SignatureAlgorithm(key.Public(), bits, pss)
	if err != nil {
		return nil, err
	}
	csr := &x509.CertificateRequest{Subject: template.Subject, DNSNames: template.DNSNames, EmailAddresses: template.EmailAddresses,
		IPAddresses: template.IPAddresses, URIs: template.URIs, ExtraExtensions: template.ExtraExtensions, SignatureAlgorithm: algorithm}
	if withConstraints {
		value, err := asn1.Marshal(struct{ IsCA bool }{true})
		if err != nil {
			return nil, err
		}
		csr.ExtraExtensions = append(csr.ExtraExtensions, pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: value})
	}
	der, err := x509.CreateCertificateRequest(nil, csr, Steady(key))
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "the certificate request can't be made: %s", err.Error())
	}
	return der, nil
}
