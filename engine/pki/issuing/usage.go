package issuing

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"conclave"
)

// keyUsageNames are the bits of a key usage by the names that clients use.
var keyUsageNames = map[string]x509.KeyUsage{
	"digitalsignature":  x509.KeyUsageDigitalSignature,
	"contentcommitment": x509.KeyUsageContentCommitment,
	"keyencipherment":   x509.KeyUsageKeyEncipherment,
	"dataencipherment":  x509.KeyUsageDataEncipherment,
	"keyagreement":      x509.KeyUsageKeyAgreement,
	"certsign":          x509.KeyUsageCertSign,
	"crlsign":           x509.KeyUsageCRLSign,
	"encipheronly":      x509.KeyUsageEncipherOnly,
	"decipheronly":      x509.KeyUsageDecipherOnly,
}

var extKeyUsageNames = map[string]x509.ExtKeyUsage{
	"any":                            x509.ExtKeyUsageAny,
	"serverauth":                     x509.ExtKeyUsageServerAuth,
	"clientauth":                     x509.ExtKeyUsageClientAuth,
	"codesigning":                    x509.ExtKeyUsageCodeSigning,
	"emailprotection":                x509.ExtKeyUsageEmailProtection,
	"ipsecendsystem":                 x509.ExtKeyUsageIPSECEndSystem,
	"ipsectunnel":                    x509.ExtKeyUsageIPSECTunnel,
	"ipsecuser":                      x509.ExtKeyUsageIPSECUser,
	"timestamping":                   x509.ExtKeyUsageTimeStamping,
	"ocspsigning":                    x509.ExtKeyUsageOCSPSigning,
	"microsoftservergatedcrypto":     x509.ExtKeyUsageMicrosoftServerGatedCrypto,
	"netscapeservergatedcrypto":      x509.ExtKeyUsageNetscapeServerGatedCrypto,
	"microsoftcommercialcodesigning": x509.ExtKeyUsageMicrosoftCommercialCodeSigning,
	"microsoftkernelcodesigning":     x509.ExtKeyUsageMicrosoftKernelCodeSigning,
}

// usageName is a name in the one spelling of the tables: with or without Go's prefix, whatever its case.
func usageName(text, prefix string) string {
	return strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), prefix)
}

func keyUsages(list []string) (x509.KeyUsage, error) {
	var usage x509.KeyUsage
	for _, text := range list {
		if strings.TrimSpace(text) == "" {
			continue
		}
		bit, known := keyUsageNames[usageName(text, "keyusage")]
		if !known {
			return 0, conclave.Errorf(conclave.Invalid, "unknown key usage %q", text)
		}
		usage |= bit
	}
	return usage, nil
}

// extKeyUsages are those of the flags, then those of the lists.
func (r *Role) extKeyUsages() ([]x509.ExtKeyUsage, []asn1.ObjectIdentifier, error) {
	var usages []x509.ExtKeyUsage
	add := func(usage x509.ExtKeyUsage, wanted bool) {
		if wanted && !slices.Contains(usages, usage) {
			usages = append(usages, usage)
		}
	}
	add(x509.ExtKeyUsageServerAuth, r.ServerFlag)
	add(x509.ExtKeyUsageClientAuth, r.ClientFlag)
	add(x509.ExtKeyUsageCodeSigning, r.CodeSigningFlag)
	add(x509.ExtKeyUsageEmailProtection, r.EmailProtectionFlag)
	more, err := extKeyUsageList(r.ExtKeyUsage)
	if err != nil {
		return nil, nil, err
	}
	for _, usage := range more {
		add(usage, true)
	}
	oids, err := oidList(r.ExtKeyUsageOIDs)
	return usages, oids, err
}

func extKeyUsageList(list []string) ([]x509.ExtKeyUsage, error) {
	var usages []x509.ExtKeyUsage
	for _, text := range list {
		if strings.TrimSpace(text) == "" {
			continue
		}
		usage, known := extKeyUsageNames[usageName(text, "extkeyusage")]
		if !known {
			return nil, conclave.Errorf(conclave.Invalid, "unknown extended key usage %q", text)
		}
		usages = append(usages, usage)
	}
	return usages, nil
}

func oidList(list []string) ([]asn1.ObjectIdentifier, error) {
	var oids []asn1.ObjectIdentifier
	for _, text := range list {
		oid, err := parseOID(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		oids = append(oids, oid)
	}
	return oids, nil
}

// Certificate policies (RFC 5280, 4.2.1.4).
var (
	oidPolicies   = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidCPS        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 1}
	oidUserNotice = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 2}

	errPolicy = conclave.Errorf(conclave.Invalid, "a policy identifier is an OID, or an object with oid, notice and cps")
)

type policyInformation struct {
	Policy     asn1.ObjectIdentifier
	Qualifiers []policyQualifier `asn1:"optional,omitempty"`
}

type policyQualifier struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

type userNotice struct {
	Text string `asn1:"utf8"`
}

// policyExtension makes the extension, nil if there are no policies.
func policyExtension(identifiers []string) (*pkix.Extension, error) {
	var policies []policyInformation
	for _, text := range identifiers {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		given := struct{ OID, Notice, CPS string }{OID: text}
		if strings.HasPrefix(text, "{") {
			given.OID = ""
			if err := json.Unmarshal([]byte(text), &given); err != nil {
				return nil, errPolicy
			}
		}
		oid, err := parseOID(strings.TrimSpace(given.OID))
		if err != nil {
			return nil, errPolicy
		}
		policy := policyInformation{Policy: oid}
		if given.Notice != "" {
			if len(given.Notice) > 200 { // RFC 5280 bounds DisplayText
				return nil, conclave.Errorf(conclave.Invalid, "a policy's notice has at most 200 bytes")
			}
			der, err := asn1.Marshal(userNotice{given.Notice})
			if err != nil {
				return nil, errPolicy
			}
			policy.Qualifiers = append(policy.Qualifiers, policyQualifier{oidUserNotice, asn1.RawValue{FullBytes: der}})
		}
		if given.CPS != "" {
			der, err := asn1.MarshalWithParams(given.CPS, "ia5")
			if at, parseErr := url.Parse(given.CPS); err != nil || parseErr != nil || at.Scheme == "" {
				return nil, errPolicy
			}
			policy.Qualifiers = append(policy.Qualifiers, policyQualifier{oidCPS, asn1.RawValue{FullBytes: der}})
		}
		policies = append(policies, policy)
	}
	if len(policies) == 0 {
		return nil, nil
	}
	value, err := asn1.Marshal(policies)
	if err != nil {
		return nil, errPolicy
	}
	return &pkix.Extension{Id: oidPolicies, Value: value}, nil
}

// AuthorityUsage is the key usage of an authority with more that it is for.
func AuthorityUsage(more []string) (x509.KeyUsage, error) {
	usage, err := keyUsages(more)
	return usage | authorityUses, err
}
