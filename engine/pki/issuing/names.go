package issuing

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"conclave"
)

// Limits of names.
const (
	maxNames    = 1000 // alternative names of one certificate
	maxHostname = 253  // bytes (RFC 1035, 3.1)
	maxLabel    = 63
	maxOneName  = 1024 // bytes of any other name
)

// Allowance is what a role allows this caller, once identity templates have their values.
type Allowance struct {
	Domains     []string
	URIs        []string
	DisplayName string
}

// names are what a certificate is for, each in the form in which it is signed.
type names struct {
	commonName string
	dns        []string
	emails     []string
	ips        []net.IP
	uris       []*url.URL
	others     []otherName
}

// judge holds names against a role.
type judge struct {
	role    *Role
	allowed *Allowance
	domains []string // in lower case, as a DNS name has them
}

func newJudge(role *Role, allowed *Allowance) *judge {
	j := &judge{role: role, allowed: allowed}
	for _, domain := range allowed.Domains {
		if domain = strings.ToLower(strings.TrimSpace(domain)); domain == "" {
			continue
		}
		if ascii, err := hostProfile.ToASCII(domain); err == nil && !isASCII(domain) {
			domain = ascii
		}
		j.domains = append(j.domains, domain)
	}
	return j
}

// hostProfile makes A-labels of international names as look-ups do (RFC 5891, 5).
var hostProfile = idna.New(idna.MapForLookup(), idna.StrictDomainName(true), idna.BidiRule(), idna.CheckHyphens(false))

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c >= 0x80 })
}

// canonicalHost is a name as it is signed: international names by their A-labels. It is not checked otherwise.
func canonicalHost(name string) (string, bool) {
	if isASCII(name) {
		return name, true
	}
	star := ""
	if rest, found := strings.CutPrefix(name, "*."); found {
		star, name = "*.", rest
	}
	ascii, err := hostProfile.ToASCII(name)
	return star + ascii, err == nil && isASCII(ascii)
}

// address is the IP address that a text is, in any of the usual spellings.
func address(text string) (netip.Addr, bool) {
	text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	ip, err := netip.ParseAddr(strings.TrimSuffix(text, "."))
	if err != nil {
		return netip.Addr{}, false
	}
	return ip.Unmap(), true
}

// isHostname reports whether a name, in lower case and without a wildcard, is one that a host can have (RFC 1123, 2.1).
func isHostname(name string) bool {
	if name == "" || len(name) > maxHostname {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(c rune) bool { return !isLetterOrDigit(c) && c != '-' }) {
			return false
		}
	}
	return true
}

func isLetterOrDigit(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// canBeDNS reports whether a name can be a dNSName at all: letters, digits, hyphens, dots, underscores, asterisks.
func canBeDNS(name string) bool {
	return name != "" && len(name) <= maxHostname && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, ".") && !strings.Contains(name, "..") &&
		!strings.ContainsFunc(name, func(c rune) bool { return !isLetterOrDigit(c) && !strings.ContainsRune("-._*", c) })
}

// splitWildcard takes a name with an asterisk apart (RFC 6125, 6.4.3): one asterisk, in the first label. The rest is empty
// for a name of one label.
func splitWildcard(name string) (label, rest string, ok bool) {
	label, rest, _ = strings.Cut(name, ".")
	return label, rest, strings.Count(name, "*") == 1 && strings.Contains(label, "*")
}

// allows reports whether the role lets a certificate be for a host name or a mail address.
func (j *judge) allows(name string) bool {
	name = strings.ToLower(name)
	local, host, isEmail := strings.Cut(name, "@")
	if !isEmail {
		host = name
	} else if !isLocalPart(local) || strings.Contains(host, "@") {
		return false
	}
	base, isWildcard := host, strings.Contains(host, "*")
	if isWildcard {
		label, rest, ok := splitWildcard(host)
		if !ok || isEmail || !j.role.AllowWildcardCertificates {
			return false
		}
		if base = rest; j.role.EnforceHostnames && !isHostname(strings.Replace(label, "*", "x", 1)) {
			return false
		}
	}
	if j.role.EnforceHostnames && !isHostname(base) && (base != "" || !isWildcard) {
		return false
	}
	if j.role.AllowAnyName {
		return true
	}
	if j.role.AllowLocalhost && (j.isWithin(base, "localhost", isWildcard) || j.isWithin(base, "localdomain", isWildcard)) {
		return true
	}
	if display := strings.ToLower(j.allowed.DisplayName); j.role.AllowTokenDisplayName && display != "" {
		_, below, found := strings.Cut(display, "@")
		if name == display || j.role.AllowSubdomains && (below == "" && isBelow(base, display, isWildcard) || found && isEmail && strings.HasSuffix(base, "."+below)) {
			return true
		}
	}
	return slices.ContainsFunc(j.domains, func(domain string) bool { return j.fits(name, base, domain, isEmail, isWildcard) })
}

// isWithin reports whether a name is one of a domain that is allowed as a whole, or lies below it if that is allowed.
func (j *judge) isWithin(base, domain string, isWildcard bool) bool {
	return base == domain && !isWildcard || j.role.AllowSubdomains && isBelow(base, domain, isWildcard)
}

func isBelow(base, domain string, isWildcard bool) bool {
	return strings.HasSuffix(base, "."+domain) && len(base) > len(domain)+1 || isWildcard && base == domain
}

func (j *judge) fits(name, base, domain string, isEmail, isWildcard bool) bool {
	switch {
	case j.role.AllowBareDomains && (name == domain || isEmail && base == domain):
		return true
	case j.role.AllowSubdomains && isBelow(base, domain, isWildcard):
		return true
	}
	return j.role.AllowGlobDomains && strings.Contains(domain, "*") && glob(domain, name)
}

// isLocalPart reports whether a text can stand before the @ of a mail address: the dot-atoms of RFC 5321, in ASCII.
func isLocalPart(text string) bool {
	return text != "" && len(text) <= 64 && !strings.ContainsFunc(text, func(c rune) bool {
		return !isLetterOrDigit(c) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", c)
	})
}

// glob reports whether text has the form of pattern, in which asterisks stand for any text.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}

// addCommonName checks a common name and, if wanted, makes it an alternative name as well.
func (j *judge) addCommonName(n *names, name string, alsoSAN bool) error {
	if len(name) > maxOneName || strings.ContainsFunc(name, isControl) {
		return conclave.Errorf(conclave.Invalid, "the common name is too long, or has control characters")
	}
	refused := conclave.Errorf(conclave.Invalid, "common name %s not allowed by this role", name)
	if slices.Equal(j.role.CNValidations, []string{"disabled"}) {
		n.commonName = name
		host, ok := canonicalHost(name)
		if !alsoSAN || !ok || strings.Contains(name, "@") && !j.allows(name) || !strings.Contains(name, "@") && !canBeDNS(host) {
			return nil
		}
		return j.addName(n, host)
	}
	if ip, isIP := address(name); isIP {
		n.commonName = name
		if err := j.allowsIP(ip); err != nil {
			return err
		}
		if alsoSAN {
			n.ips = append(n.ips, ip.AsSlice())
		}
		return nil
	}
	if !strings.Contains(name, "@") {
		host, ok := canonicalHost(name)
		if !ok && j.role.EnforceHostnames {
			return refused
		}
		if ok {
			name = host
		}
	}
	kind := "hostname"
	if strings.Contains(name, "@") {
		kind = "email"
	}
	if !slices.Contains(j.role.CNValidations, kind) || !j.allows(name) {
		return refused
	}
	n.commonName = name
	if alsoSAN && (kind == "email" || canBeDNS(name)) {
		return j.addName(n, name)
	}
	return nil
}

// addName checks an alternative name: of a host, a mail address, or an address that is written as a name.
func (j *judge) addName(n *names, name string) error {
	if ip, isIP := address(name); isIP {
		return j.addIP(n, ip)
	}
	if strings.Contains(name, "@") {
		if len(name) > maxOneName || !j.allows(name) {
			return conclave.Errorf(conclave.Invalid, "email address %s not allowed by this role", name)
		}
		if !slices.Contains(n.emails, name) {
			n.emails = append(n.emails, name)
		}
		return nil
	}
	host, ok := canonicalHost(name)
	if !ok || !canBeDNS(host) || !j.allows(host) {
		return conclave.Errorf(conclave.Invalid, "subject alternate name %s not allowed by this role", name)
	}
	if !slices.ContainsFunc(n.dns, func(other string) bool { return strings.EqualFold(other, host) }) {
		n.dns = append(n.dns, host)
	}
	return nil
}

func (j *judge) addIP(n *names, ip netip.Addr) error {
	if err := j.allowsIP(ip); err != nil {
		return err
	}
	if !slices.ContainsFunc(n.ips, net.IP(ip.AsSlice()).Equal) {
		n.ips = append(n.ips, ip.AsSlice())
	}
	return nil
}

func (j *judge) allowsIP(ip netip.Addr) error {
	if !j.role.AllowIPSANs {
		return conclave.Errorf(conclave.Invalid, "IP Subject Alternative Names are not allowed in this role")
	}
	if ip.Zone() == "" && (len(j.role.AllowedIPSANsCIDR) == 0 || conclave.MayComeFrom(j.role.AllowedIPSANsCIDR, ip)) {
		return nil
	}
	return conclave.Errorf(conclave.Invalid, "the IP address %q is not allowed in this role", ip)
}

func (j *judge) addURI(n *names, text string) error {
	if len(j.allowed.URIs) == 0 {
		return conclave.Errorf(conclave.Invalid, "URI Subject Alternative Names are not allowed in this role")
	}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme == "" || len(text) > maxOneName || !isASCII(text) || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' }) {
		return conclave.Errorf(conclave.Invalid, "a URI Subject Alternative Name is not a valid URI")
	}
	// What is signed is the URL as it is printed again, so that is what has to be allowed.
	for _, spelling := range []string{text, parsed.String()} {
		if !slices.ContainsFunc(j.allowed.URIs, func(pattern string) bool { return glob(pattern, spelling) }) {
			return conclave.Errorf(conclave.Invalid, "URI Subject Alternative Names were provided which are not valid for this role")
		}
	}
	n.uris = append(n.uris, parsed)
	return nil
}

// matchesAny reports whether a text is one of a list, whose asterisks stand for any text.
func matchesAny(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return pattern != "" && glob(pattern, text) })
}
