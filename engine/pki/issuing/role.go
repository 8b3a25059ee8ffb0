package issuing

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"conclave"
)

// Limits of a role and of what is asked of it.
const (
	maxList     = 1000 // entries of one list
	maxText     = 1024 // bytes of one entry
	maxLifetime = 100 * 365 * 24 * time.Hour
)

// Role says which certificates may be had of it, and how they look. It is stored as JSON, with the names that clients use.
type Role struct {
	TTL                           conclave.Seconds `json:"ttl" doc:"How long certificates are valid if the request doesn't say; 0 is the mount's default."`
	MaxTTL                        conclave.Seconds `json:"max_ttl" doc:"How long certificates can be valid; 0 is the mount's maximum."`
	AllowTokenDisplayName         bool             `json:"allow_token_displayname" doc:"Allow the display name of the caller's token as a name."`
	AllowLocalhost                bool             `json:"allow_localhost" doc:"Allow localhost and localdomain."`
	AllowedDomains                []string         `json:"allowed_domains" doc:"Domains that the other settings are about."`
	AllowedDomainsTemplate        bool             `json:"allowed_domains_template" doc:"Whether allowed_domains has identity templates."`
	AllowGlobsInIdentityTemplates bool             `json:"allow_globs_in_identity_templates" doc:"Whether values of identity templates may hold characters with a meaning: asterisks, slashes."`
	AllowBareDomains              bool             `json:"allow_bare_domains" doc:"Allow the domains themselves."`
	AllowSubdomains               bool             `json:"allow_subdomains" doc:"Allow names below the domains."`
	AllowGlobDomains              bool             `json:"allow_glob_domains" doc:"Whether asterisks in allowed_domains stand for any text."`
	AllowWildcardCertificates     bool             `json:"allow_wildcard_certificates" doc:"Allow names such as *.example.com."`
	AllowAnyName                  bool             `json:"allow_any_name" doc:"Allow all names."`
	EnforceHostnames              bool             `json:"enforce_hostnames" doc:"Allow only names that a host can have."`
	AllowIPSANs                   bool             `json:"allow_ip_sans" doc:"Allow addresses."`
	AllowedIPSANsCIDR             []string         `json:"allowed_ip_sans_cidr" doc:"Networks that addresses must lie in; none are all."`
	AllowedURISANs                []string         `json:"allowed_uri_sans" doc:"URIs that are allowed; asterisks stand for any text."`
	AllowedURISANsTemplate        bool             `json:"allowed_uri_sans_template" doc:"Whether allowed_uri_sans has identity templates."`
	AllowedOtherSANs              []string         `json:"allowed_other_sans" doc:"Other names that are allowed: OID;UTF8:VALUE with asterisks in the value, or *."`
	AllowedSerialNumbers          []string         `json:"allowed_serial_numbers" doc:"Serial numbers that a subject may have; asterisks stand for any text."`
	AllowedUserIDs                []string         `json:"allowed_user_ids" doc:"User ids that a subject may have; asterisks stand for any text."`
	ServerFlag                    bool             `json:"server_flag" doc:"Certificates are for TLS servers."`
	ClientFlag                    bool             `json:"client_flag" doc:"Certificates are for TLS clients."`
	CodeSigningFlag               bool             `json:"code_signing_flag" doc:"Certificates are for signing code."`
	EmailProtectionFlag           bool             `json:"email_protection_flag" doc:"Certificates are for mail."`
	KeyType                       string           `json:"key_type" doc:"rsa, ec, ed25519 or any."`
	KeyBits                       int              `json:"key_bits" doc:"Size of keys; 0 is a usual one."`
	SignatureBits                 int              `json:"signature_bits" doc:"Size of the hash in signatures: 256, 384 or 512; 0 goes by the issuer's key."`
	UsePSS                        bool             `json:"use_pss" doc:"Sign with RSA-PSS if the issuer's key is an RSA key."`
	KeyUsage                      []string         `json:"key_usage" doc:"Key usages, by their names in Go: DigitalSignature, KeyAgreement…"`
	ExtKeyUsage                   []string         `json:"ext_key_usage" doc:"Extended key usages, by their names in Go: ServerAuth, TimeStamping…"`
	ExtKeyUsageOIDs               []string         `json:"ext_key_usage_oids" doc:"More extended key usages, by OID."`
	UseCSRCommonName              bool             `json:"use_csr_common_name" doc:"Take the common name from the CSR when signing one."`
	UseCSRSANs                    bool             `json:"use_csr_sans" doc:"Take the alternative names from the CSR when signing one."`
	OU                            []string         `json:"ou" doc:"Organisational units of the subject."`
	Organization                  []string         `json:"organization" doc:"Organisations of the subject."`
	Country                       []string         `json:"country" doc:"Countries of the subject."`
	Locality                      []string         `json:"locality" doc:"Localities of the subject."`
	Province                      []string         `json:"province" doc:"Provinces of the subject."`
	StreetAddress                 []string         `json:"street_address" doc:"Street addresses of the subject."`
	PostalCode                    []string         `json:"postal_code" doc:"Postal codes of the subject."`
	GenerateLease                 bool             `json:"generate_lease" doc:"Answer a lease whose end revokes the certificate."`
	NoStore                       bool             `json:"no_store" doc:"Keep no copy of certificates: faster, but they can only be revoked by whoever has them."`
	NoStoreMetadata               bool             `json:"no_store_metadata" doc:"Keep no metadata of certificates. None are kept in any case."`
	RequireCN                     bool             `json:"require_cn" doc:"Refuse requests without a common name."`
	CNValidations                 []string         `json:"cn_validations" doc:"What a common name may be: email, hostname; or disabled, for any text."`
	PolicyIdentifiers             []string         `json:"policy_identifiers" doc:"Certificate policies: OIDs, or objects with oid, notice and cps."`
	BasicConstraintsValidForNonCA bool             `json:"basic_constraints_valid_for_non_ca" doc:"Say in certificates that they are no authority's."`
	NotBeforeDuration             conclave.Seconds `json:"not_before_duration" doc:"How long before now certificates become valid."`
	NotBefore                     string           `json:"not_before" doc:"When certificates become valid, RFC 3339."`
	NotBeforeBound                string           `json:"not_before_bound" doc:"Whether requests can set not_before: permit, forbid, or duration for no earlier than not_before_duration."`
	NotAfter                      string           `json:"not_after" doc:"When certificates end, RFC 3339."`
	NotAfterBound                 string           `json:"not_after_bound" doc:"Whether requests can set not_after: permit, forbid, ttl-limited, or the latest time, RFC 3339."`
	IssuerRef                     string           `json:"issuer_ref" doc:"Who signs: an issuer's id or name, or default."`
	SerialNumberSource            string           `json:"serial_number_source" doc:"Where the serial number in the subject comes from: json-csr, or json for requests' fields alone."`
}

// NewRole is a role with the settings that hold unless others are given.
func NewRole() *Role {
	return &Role{
		AllowLocalhost: true, AllowWildcardCertificates: true, EnforceHostnames: true, AllowIPSANs: true,
		ServerFlag: true, ClientFlag: true, KeyType: "rsa", KeyUsage: []string{"DigitalSignature", "KeyAgreement", "KeyEncipherment"},
		UseCSRCommonName: true, UseCSRSANs: true, RequireCN: true, CNValidations: []string{"email", "hostname"},
		NotBeforeDuration: 30, NotBeforeBound: "permit", NotAfterBound: "permit", IssuerRef: "default", SerialNumberSource: "json-csr",
	}
}

// Verbatim is the role of requests that come without one: it allows all that a CSR can hold.
func Verbatim() *Role {
	role := NewRole()
	role.AllowAnyName, role.EnforceHostnames, role.RequireCN = true, false, false
	role.KeyType, role.CNValidations = "any", []string{"disabled"}
	role.AllowedURISANs, role.AllowedOtherSANs, role.AllowedSerialNumbers, role.AllowedUserIDs = []string{"*"}, []string{"*"}, []string{"*"}, []string{"*"}
	role.ServerFlag, role.ClientFlag = false, false
	return role
}

// lists are the role's lists, for what holds for all of them.
func (r *Role) lists() []*[]string {
	return []*[]string{&r.AllowedDomains, &r.AllowedIPSANsCIDR, &r.AllowedURISANs, &r.AllowedOtherSANs, &r.AllowedSerialNumbers, &r.AllowedUserIDs,
		&r.KeyUsage, &r.ExtKeyUsage, &r.ExtKeyUsageOIDs, &r.OU, &r.Organization, &r.Country, &r.Locality, &r.Province, &r.StreetAddress,
		&r.PostalCode, &r.CNValidations, &r.PolicyIdentifiers}
}

// Check holds a role against the rules and brings it into its one form; what is wrong is Invalid. The warnings are for
// whoever wrote it.
func (r *Role) Check() (warnings []string, err error) {
	for _, list := range r.lists() {
		if *list == nil {
			*list = []string{}
		}
		if err := checkList(*list); err != nil {
			return nil, err
		}
	}
	switch {
	case r.TTL < 0 || r.MaxTTL < 0 || r.NotBeforeDuration < 0 || max(r.TTL, r.MaxTTL, r.NotBeforeDuration).Duration() > maxLifetime:
		return nil, conclave.Errorf(conclave.Invalid, "times must not be negative, nor longer than a hundred years")
	case r.MaxTTL > 0 && r.TTL > r.MaxTTL:
		return nil, conclave.Errorf(conclave.Invalid, `"ttl" value must be less than "max_ttl" value`)
	}
	if err := r.checkKeys(); err != nil {
		return nil, err
	}
	if err := r.checkNames(); err != nil {
		return nil, err
	}
	if err := r.checkTimes(); err != nil {
		return nil, err
	}
	if r.IssuerRef == "" {
		r.IssuerRef = "default"
	}
	switch r.SerialNumberSource {
	case "":
		r.SerialNumberSource = "json-csr"
	case "json-csr", "json":
	default:
		return nil, conclave.Errorf(conclave.Invalid, "serial_number_source must be json-csr or json")
	}
	if r.NoStore && r.GenerateLease {
		r.GenerateLease = false
		warnings = append(warnings, "mutually exclusive values no_store=true and generate_lease=true were both specified; no_store=true takes priority")
	}
	return warnings, nil
}

func checkList(list []string) error {
	if len(list) > maxList {
		return conclave.Errorf(conclave.Invalid, "a list has at most %d entries", maxList)
	}
	for _, text := range list {
		if len(text) > maxText || strings.ContainsFunc(text, isControl) {
			return conclave.Errorf(conclave.Invalid, "an entry of a list has at most %d bytes, and no control characters", maxText)
		}
	}
	return nil
}

func isControl(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 || c == '\uFFFD' }

func (r *Role) checkKeys() error {
	r.KeyType = strings.ToLower(r.KeyType)
	if r.KeyType == "" {
		r.KeyType = "rsa"
	}
	if r.KeyType == "any" {
		if r.KeyBits < 0 {
			return errKeyBits
		}
	} else {
		spec, err := NewKeySpec(r.KeyType, r.KeyBits)
		if err != nil {
			return err
		}
		r.KeyBits = spec.Bits
	}
	if !validHash(r.SignatureBits) {
		return errSignatureBits
	}
	if _, err := keyUsages(r.KeyUsage); err != nil {
		return err
	}
	_, _, err := r.extKeyUsages()
	return err
}

func (r *Role) checkNames() error {
	for _, text := range r.AllowedIPSANsCIDR {
		if _, err := netip.ParsePrefix(text); err != nil {
			return conclave.Errorf(conclave.Invalid, "allowed_ip_sans_cidr has a network that is none: CIDR notation is wanted")
		}
	}
	if !slices.Equal(r.AllowedOtherSANs, []string{"*"}) {
		if _, err := parseOtherNames(r.AllowedOtherSANs); err != nil {
			return err
		}
	}
	if len(r.CNValidations) == 0 {
		r.CNValidations = []string{"email", "hostname"}
	}
	r.CNValidations = slices.Clone(r.CNValidations)
	for i, validation := range r.CNValidations {
		r.CNValidations[i] = strings.ToLower(validation)
		switch r.CNValidations[i] {
		case "email", "hostname":
		case "disabled":
			if len(r.CNValidations) > 1 {
				return conclave.Errorf(conclave.Invalid, "cn_validations: disabled stands alone")
			}
		default:
			return conclave.Errorf(conclave.Invalid, "cn_validations are email, hostname and disabled")
		}
	}
	_, err := policyExtension(r.PolicyIdentifiers)
	return err
}

func (r *Role) checkTimes() error {
	if r.NotBeforeBound == "" {
		r.NotBeforeBound = "permit"
	}
	if r.NotAfterBound == "" {
		r.NotAfterBound = "permit"
	}
	if !slices.Contains([]string{"permit", "forbid", "duration"}, r.NotBeforeBound) {
		return conclave.Errorf(conclave.Invalid, "not_before_bound must be permit, forbid or duration")
	}
	times := []string{r.NotBefore, r.NotAfter}
	if !slices.Contains([]string{"permit", "forbid", "ttl-limited"}, r.NotAfterBound) {
		times = append(times, r.NotAfterBound)
	}
	for _, text := range times {
		if _, err := parseTime(text); text != "" && err != nil {
			return err
		}
	}
	return nil
}

// Decode reads a stored role.
func Decode(value []byte) (*Role, error) {
	role := &Role{}
	if err := json.Unmarshal(value, role); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "a stored role can't be read")
	}
	return role, nil
}
