package cert

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"conclave"
)

// Limits of what a role says.
const (
	maxServers    = 8   // of OCSP
	maxRetries    = 10  // of a question to one
	maxCerts      = 32  // in one PEM
	maxExtensions = 32  // that go into metadata
	maxMetadata   = 512 // bytes of one of them
	maxOID        = 128 // bytes of an object identifier as text
)

// role says whose certificates log in, and what their tokens are. It is stored as JSON.
type role struct {
	Certificate         string           `json:"certificate" doc:"The trusted certificates, PEM: authorities, or one certificate that isn't an authority's, which then must be presented itself."`
	DisplayName         string           `json:"display_name" doc:"Name shown for the tokens; the role's if empty."`
	AllowedNames        []string         `json:"allowed_names" doc:"Patterns, one of which the common name, a DNS name or an email address must match."`
	AllowedCommonNames  []string         `json:"allowed_common_names" doc:"Patterns, one of which the common name must match."`
	AllowedDNSSANs      []string         `json:"allowed_dns_sans" doc:"Patterns, one of which a DNS name must match."`
	AllowedEmailSANs    []string         `json:"allowed_email_sans" doc:"Patterns, one of which an email address must match."`
	AllowedURISANs      []string         `json:"allowed_uri_sans" doc:"Patterns, one of which a URI must match."`
	AllowedUnits        []string         `json:"allowed_organizational_units" doc:"Patterns, one of which an organizational unit must match."`
	RequiredExtensions  []string         `json:"required_extensions" doc:"Extensions that must all be there, as oid:pattern for strings or hex:oid:pattern for the bytes in hexadecimal."`
	MetadataExtensions  []string         `json:"allowed_metadata_extensions" doc:"Object identifiers of extensions whose text goes into the token's metadata, dots replaced by hyphens."`
	OCSPEnabled         bool             `json:"ocsp_enabled" doc:"Ask an OCSP responder whether the certificate is revoked."`
	OCSPCACertificates  string           `json:"ocsp_ca_certificates" doc:"More certificates that may sign answers of responders, or that issue those that do, PEM."`
	OCSPServersOverride []string         `json:"ocsp_servers_override" doc:"URLs of responders to ask instead of those that the certificate names."`
	OCSPFailOpen        bool             `json:"ocsp_fail_open" doc:"Let certificates log in of which no responder says anything usable. One that is revoked never does."`
	OCSPQueryAll        bool             `json:"ocsp_query_all_servers" doc:"Ask all responders and have all of them agree."`
	OCSPMaxRetries      int              `json:"ocsp_max_retries" doc:"How often a responder that fails is asked again, at most 10; all questions of a login take 10 seconds at most."`
	OCSPMaxAge          conclave.Seconds `json:"ocsp_this_update_max_age" doc:"The greatest age of an answer; 0 is until it says that it ends."`
	conclave.TokenTerms
}

type roleIn struct {
	Name string `path:"name" doc:"Name of the role, in lower case."`
	role
	OldPolicies   []string         `json:"policies" doc:"Former name of token_policies."`
	OldTTL        conclave.Seconds `json:"ttl" doc:"Former name of token_ttl."`
	OldLease      conclave.Seconds `json:"lease" doc:"Former name of ttl."`
	OldMaxTTL     conclave.Seconds `json:"max_ttl" doc:"Former name of token_max_ttl."`
	OldPeriod     conclave.Seconds `json:"period" doc:"Former name of token_period."`
	OldBoundCIDRs []string         `json:"bound_cidrs" doc:"Former name of token_bound_cidrs."`
	Fields        map[string]any   `json:"*"`
}

// formerly are former names of fields, the last one of a kind weighing least.
var formerly = []struct{ old, name string }{{"policies", "token_policies"}, {"ttl", "token_ttl"}, {"lease", "token_ttl"},
	{"max_ttl", "token_max_ttl"}, {"period", "token_period"}, {"bound_cidrs", "token_bound_cidrs"}}

type nameIn struct {
	Name string `path:"name" doc:"The name, in lower case."`
}

// trusted is a role as logins use it: decoded once for each of its versions.
type trusted struct {
	role
	name string
	// anchors are the certificates of an authority, or the pinned certificate followed by those of its issuers.
	anchors    []*x509.Certificate
	isPin      bool
	responders []*x509.Certificate
}

const roleDoc = `Make or change a role.
Fields that aren't given keep their value. Patterns may hold "*" for any text. Of each list that isn't empty, one pattern
must match; of required_extensions, all.`

func loadRole(view conclave.View, name string) (*trusted, error) {
	found, err := view.Load("certs/"+name, func(value []byte) (any, error) {
		t := &trusted{name: name}
		if err := json.Unmarshal(value, &t.role); err != nil {
			return nil, err
		}
		return t, t.parse()
	})
	if err != nil || found == nil {
		return nil, err
	}
	return found.(*trusted), nil
}

func writeRole(_ context.Context, tx conclave.Tx, in *roleIn) (*conclave.Response, error) {
	name, err := canonicalName(in.Name)
	if err != nil {
		return nil, err
	}
	r := role{OCSPMaxRetries: 4}
	stored, err := loadRole(tx, name)
	if err != nil {
		return nil, err
	}
	if stored != nil {
		r = stored.role
	}
	fields := make(map[string]any, len(in.Fields))
	for _, former := range slices.Backward(formerly) {
		if value, given := in.Fields[former.old]; given {
			fields[former.name] = value
		}
	}
	for field, value := range in.Fields {
		fields[field] = value
	}
	if err := conclave.Merge(&r, fields); err != nil {
		return nil, err
	}
	if r.DisplayName == "" {
		r.DisplayName = name
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	value, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{}, tx.Put("certs/"+name, value)
}

func readRole(_ context.Context, view conclave.View, in *nameIn) (*role, error) {
	name, err := canonicalName(in.Name)
	if err != nil {
		return nil, err
	}
	t, err := loadRole(view, name)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	return &t.role, nil
}

func deleteRole(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	name, err := canonicalName(in.Name)
	if err != nil {
		return nil, err
	}
	return nil, tx.Delete("certs/" + name)
}

type listIn struct {
	After string `json:"after" doc:"Return only names after this one."`
	Limit int    `json:"limit" doc:"Return at most so many names; 0 for all."`
}

func listNames(dir string) func(context.Context, conclave.View, *listIn) (*conclave.Keys, error) {
	return func(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
		names, err := view.List(dir, in.After, in.Limit)
		return &conclave.Keys{Keys: names}, err
	}
}

// check holds a role against the rules and brings it into its stored form.
func (r *role) check() error {
	if err := r.TokenTerms.Check(); err != nil {
		return err
	}
	for _, list := range []*[]string{&r.AllowedNames, &r.AllowedCommonNames, &r.AllowedDNSSANs, &r.AllowedEmailSANs, &r.AllowedURISANs,
		&r.AllowedUnits, &r.RequiredExtensions, &r.MetadataExtensions, &r.OCSPServersOverride, &r.BoundCIDRs} {
		if *list == nil {
			*list = []string{}
		}
		if len(*list) > maxList || slices.ContainsFunc(*list, func(s string) bool { return len(s) > maxText }) {
			return conclave.Errorf(conclave.Invalid, "a list has at most %d texts of at most %d bytes", maxList, maxText)
		}
	}
	for _, required := range r.RequiredExtensions {
		if _, ok := parseRequirement(required); !ok {
			return conclave.Errorf(conclave.Invalid, "required_extensions has entries of the form oid:pattern or hex:oid:pattern")
		}
	}
	if len(r.MetadataExtensions) > maxExtensions || slices.ContainsFunc(r.MetadataExtensions, func(oid string) bool { return !isOID(oid) }) {
		return conclave.Errorf(conclave.Invalid, "allowed_metadata_extensions has at most %d object identifiers such as 1.2.3.4", maxExtensions)
	}
	if r.OCSPMaxRetries < 0 {
		return conclave.Errorf(conclave.Invalid, "ocsp_max_retries can not be a negative number")
	}
	if r.OCSPMaxAge < 0 {
		return conclave.Errorf(conclave.Invalid, "ocsp_this_update_max_age can not be a negative number")
	}
	if r.OCSPMaxRetries > maxRetries || len(r.OCSPServersOverride) > maxServers || len(r.DisplayName) > maxText {
		return conclave.Errorf(conclave.Invalid, "at most %d servers and %d retries for OCSP", maxServers, maxRetries)
	}
	for _, server := range r.OCSPServersOverride {
		if !isServer(server) {
			return conclave.Errorf(conclave.Invalid, "ocsp_servers_override has http or https URLs")
		}
	}
	return (&trusted{role: *r}).parse()
}

// parse reads the certificates of a role.
func (t *trusted) parse() (err error) {
	if t.anchors, err = parsePEM(t.Certificate); err != nil || len(t.anchors) == 0 {
		return conclave.Errorf(conclave.Invalid, "failed to parse certificate")
	}
	if t.responders, err = parsePEM(t.OCSPCACertificates); err != nil {
		return conclave.Errorf(conclave.Invalid, "failed to parse certificate in ocsp_ca_certificates")
	}
	t.isPin = !t.anchors[0].IsCA
	if t.isPin && !slices.Contains(t.anchors[0].ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(t.anchors[0].ExtKeyUsage, x509.ExtKeyUsageAny) {
		return conclave.Errorf(conclave.Invalid, "nonCA certificates should have TLS client authentication set as an extended key usage")
	}
	return nil
}

// parsePEM reads all certificates of a text and refuses what isn't one.
func parsePEM(text string) ([]*x509.Certificate, error) {
	if len(text) > maxPEM {
		return nil, conclave.Errorf(conclave.Invalid, "certificates have at most %d bytes", maxPEM)
	}
	var certs []*x509.Certificate
	for rest := []byte(strings.TrimSpace(text)); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" || len(certs) == maxCerts {
			return nil, conclave.Errorf(conclave.Invalid, "not a list of PEM certificates")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "not a certificate")
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func isServer(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}

func isOID(text string) bool {
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || strconv.Itoa(n) != part {
			return false
		}
	}
	return strings.Contains(text, ".") && len(text) <= maxOID
}
