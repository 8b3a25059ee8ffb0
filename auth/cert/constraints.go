package cert

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// meets reports whether a certificate is one of those that the role names. It says nothing about who signed it.
func (r *role) meets(leaf *x509.Certificate) bool {
	uris := make([]string, 0, len(leaf.URIs))
	for _, uri := range leaf.URIs {
		uris = append(uris, (*url.URL).String(uri))
	}
	common := []string{leaf.Subject.CommonName}
	return anyMatch(r.AllowedNames, common, leaf.DNSNames, leaf.EmailAddresses) &&
		anyMatch(r.AllowedCommonNames, common) &&
		anyMatch(r.AllowedDNSSANs, leaf.DNSNames) &&
		anyMatch(r.AllowedEmailSANs, leaf.EmailAddresses) &&
		anyMatch(r.AllowedURISANs, uris) &&
		anyMatch(r.AllowedUnits, leaf.Subject.OrganizationalUnit) &&
		!slices.ContainsFunc(r.RequiredExtensions, func(text string) bool {
			required, ok := parseRequirement(text)
			return !ok || !required.met(leaf)
		})
}

// anyMatch reports whether a pattern matches a name of one of the lists. No patterns match anything.
func anyMatch(patterns []string, lists ...[]string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, pattern := range patterns {
		for _, names := range lists {
			if slices.ContainsFunc(names, func(name string) bool { return matches(pattern, name) }) {
				return true
			}
		}
	}
	return false
}

// matches compares text with a pattern in which "*" stands for any text; case counts. It takes steps in proportion to
// the product of both lengths at most.
func matches(pattern, text string) bool {
	at, star, resume := 0, -1, 0
	for i := 0; i < len(text); {
		switch {
		case at < len(pattern) && pattern[at] == '*':
			star, resume = at, i
			at++
		case at < len(pattern) && pattern[at] == text[i]:
			at++
			i++
		case star >= 0:
			resume++
			at, i = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[at:], "*") == ""
}

// requirement is an extension that must be there.
type requirement struct {
	oid, pattern string
	inHex        bool
}

func parseRequirement(text string) (requirement, bool) {
	text, inHex := strings.CutPrefix(text, "hex:")
	oid, pattern, ok := strings.Cut(text, ":")
	if inHex {
		pattern = strings.ToLower(pattern)
	}
	return requirement{oid, pattern, inHex}, ok && isOID(oid)
}

func (r requirement) met(leaf *x509.Certificate) bool {
	for _, extension := range leaf.Extensions {
		if extension.Id.String() != r.oid {
			continue
		}
		if r.inHex {
			return matches(r.pattern, hex.EncodeToString(extension.Value))
		}
		text, ok := extensionText(extension.Value)
		return ok && matches(r.pattern, text)
	}
	return false
}

// extensionText is the value of an extension that is an ASN.1 string and nothing else.
func extensionText(der []byte) (string, bool) {
	var text string
	rest, err := asn1.Unmarshal(der, &text)
	return text, err == nil && len(rest) == 0
}

// metadata is what a token's metadata says about its certificate. What is too long for an identity's is left out.
func (t *trusted) metadata(leaf *x509.Certificate) map[string]string {
	m := map[string]string{
		"cert_name": t.name, "common_name": leaf.Subject.CommonName, "serial_number": leaf.SerialNumber.String(),
		"subject_key_id": withColons(leaf.SubjectKeyId), "authority_key_id": withColons(leaf.AuthorityKeyId),
	}
	for _, extension := range leaf.Extensions {
		oid := extension.Id.String()
		if !slices.Contains(t.MetadataExtensions, oid) {
			continue
		}
		if text, ok := extensionText(extension.Value); ok {
			m[strings.ReplaceAll(oid, ".", "-")] = text
		}
	}
	maps.DeleteFunc(m, func(_, text string) bool { return len(text) > maxMetadata })
	return m
}

// withColons writes bytes as "0a:1b:2c".
func withColons(b []byte) string {
	parts := make([]string, len(b))
	for i := range b {
		parts[i] = hex.EncodeToString(b[i : i+1])
	}
	return strings.Join(parts, ":")
}
