package ssh

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"conclave"
)

// Types of roles.
const (
	typeCA  = "ca"
	typeOTP = "otp"
)

// role is what is stored of a role, and what clients may set of it. What is loaded is shared and must not be changed.
type role struct {
	KeyType string `json:"key_type" doc:"ca for signed keys, otp for one-time passwords."`

	DefaultUser  string `json:"default_user" doc:"User of requests that name none; more than one, with commas, for type ca."`
	AllowedUsers string `json:"allowed_users" doc:"Users that may be asked for, with commas; * alone is all. For type otp, the default user always may."`

	DefaultUserTemplate      bool               `json:"default_user_template" doc:"Names of default_user may hold identity templates."`
	AllowedUsersTemplate     bool               `json:"allowed_users_template" doc:"Names of allowed_users may hold identity templates."`
	AllowedDomains           string             `json:"allowed_domains" doc:"Domains that host certificates may be asked for, with commas; * alone is all."`
	AllowedDomainsTemplate   bool               `json:"allowed_domains_template" doc:"Names of allowed_domains may hold identity templates."`
	AllowBareDomains         bool               `json:"allow_bare_domains" doc:"Host certificates may be for the domains themselves."`
	AllowSubdomains          bool               `json:"allow_subdomains" doc:"Host certificates may be for names below the domains."`
	AllowUserCertificates    bool               `json:"allow_user_certificates" doc:"Sign certificates of users."`
	AllowHostCertificates    bool               `json:"allow_host_certificates" doc:"Sign certificates of hosts."`
	AllowEmptyPrincipals     bool               `json:"allow_empty_principals" doc:"Sign certificates without principals, which servers may take for any user. Leave it off."`
	AllowUserKeyIDs          bool               `json:"allow_user_key_ids" doc:"Requests may set the key id, which servers log."`
	KeyIDFormat              string             `json:"key_id_format" doc:"Key id, with {{token_display_name}}, {{role_name}} and {{public_key_hash}}."`
	TTL                      conclave.Seconds   `json:"ttl" doc:"How long certificates are valid; 0 is the mount's."`
	MaxTTL                   conclave.Seconds   `json:"max_ttl" doc:"How long certificates can be valid at most; 0 is the mount's."`
	NotBefore                *conclave.Seconds  `json:"not_before_duration" doc:"How far before its signing a certificate is valid, for clocks that are behind; 30 seconds unless set."`
	AllowedCriticalOptions   string             `json:"allowed_critical_options" doc:"Critical options that requests may set, with commas; empty is all."`
	AllowedExtensions        string             `json:"allowed_extensions" doc:"Extensions that requests may set, with commas; * alone is all, empty is none."`
	DefaultCriticalOptions   map[string]string  `json:"default_critical_options" doc:"Critical options of requests that set none."`
	DefaultExtensions        map[string]string  `json:"default_extensions" doc:"Extensions of requests that set none."`
	DefaultExtensionTemplate bool               `json:"default_extensions_template" doc:"Values of default_extensions may hold identity templates."`
	KeyLengths               map[string][]int64 `json:"allowed_user_key_lengths" doc:"Types of keys that are signed, and their sizes: rsa, ecdsa, ed25519 or OpenSSH's names. Empty is all."`
	AlgorithmSigner          string             `json:"algorithm_signer" doc:"Algorithm of an RSA authority's signatures: ssh-rsa, rsa-sha2-256, rsa-sha2-512 or default, which is rsa-sha2-256."`
	Issuer                   string             `json:"issuer_ref" doc:"The issuer that signs: identifier, name or default."`
	CIDRList                 string             `json:"cidr_list" doc:"Networks of servers that one-time passwords are for, with commas. Empty is none, unless the role is in config/zeroaddress."`
	ExcludeCIDRList          string             `json:"exclude_cidr_list" doc:"Networks among them that they aren't for."`
	Port                     int                `json:"port" doc:"Port of the servers, told to who gets a one-time password; 22 unless set."`
}

const defaultNotBefore = 30 // seconds

func decodeRole(value []byte) (any, error) {
	r := &role{}
	if err := json.Unmarshal(value, r); err != nil || r.KeyType != typeCA && r.KeyType != typeOTP {
		return nil, damaged("a role")
	}
	return r, nil
}

// roleNamed returns a role, nil if there is none.
func roleNamed(view conclave.View, name string) (*role, error) {
	if !validName(name) {
		return nil, nil
	}
	loaded, err := view.Load(rolesDir+name, decodeRole)
	r, _ := loaded.(*role)
	return r, err
}

// roleOf is roleNamed for requests that use the role.
func roleOf(view conclave.View, name, keyType string) (*role, error) {
	r, err := roleNamed(view, name)
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		return nil, conclave.Errorf(conclave.Invalid, "Unknown role: %s", name)
	case r.KeyType != keyType:
		return nil, conclave.Errorf(conclave.Invalid, "role key type %q not allowed here", r.KeyType)
	}
	return r, nil
}

// check holds a role against the rules, and brings it into its one form.
func (r *role) check() error {
	r.KeyType = strings.ToLower(strings.TrimSpace(r.KeyType))
	for _, text := range []string{r.DefaultUser, r.AllowedUsers, r.AllowedDomains, r.KeyIDFormat, r.AllowedCriticalOptions, r.AllowedExtensions, r.Issuer, r.CIDRList, r.ExcludeCIDRList} {
		if len(text) > maxText || !printable(text) {
			return conclave.Errorf(conclave.Invalid, "a text of a role has at most %d bytes and no control characters", maxText)
		}
	}
	switch r.KeyType {
	case "":
		return conclave.Errorf(conclave.Invalid, "missing key type")
	case typeOTP:
		return r.checkOTP()
	case typeCA:
		return r.checkCA()
	case "dynamic":
		return conclave.Errorf(conclave.Invalid, "dynamic key type roles are no longer supported")
	}
	return conclave.Errorf(conclave.Invalid, "invalid key type")
}

// checkOTP also forgets what has no meaning for one-time passwords.
func (r *role) checkOTP() error {
	if r.DefaultUser == "" {
		return conclave.Errorf(conclave.Invalid, "missing default user")
	}
	if r.Port == 0 {
		r.Port = 22
	}
	if r.Port < 1 || r.Port > 65535 {
		return conclave.Errorf(conclave.Invalid, "port must be between 1 and 65535")
	}
	for name, list := range map[string]string{"cidr_list": r.CIDRList, "exclude_cidr_list": r.ExcludeCIDRList} {
		if _, err := networks(list); err != nil {
			return conclave.Errorf(conclave.Invalid, "failed to validate %s: %s", name, err.Error())
		}
	}
	*r = role{KeyType: typeOTP, DefaultUser: r.DefaultUser, AllowedUsers: r.AllowedUsers, CIDRList: r.CIDRList, ExcludeCIDRList: r.ExcludeCIDRList, Port: r.Port}
	return nil
}

func (r *role) checkCA() error {
	r.CIDRList, r.ExcludeCIDRList, r.Port = "", "", 0
	if r.NotBefore == nil {
		r.NotBefore = new(conclave.Seconds)
		*r.NotBefore = defaultNotBefore
	}
	if r.AlgorithmSigner == "" {
		r.AlgorithmSigner = defaultAlgorithm
	}
	if r.Issuer == "" {
		r.Issuer = defaultRef
	}
	switch {
	case !r.AllowUserCertificates && !r.AllowHostCertificates:
		return conclave.Errorf(conclave.Invalid, "Either 'allow_user_certificates' or 'allow_host_certificates' must be set to 'true'")
	case r.TTL < 0 || r.MaxTTL < 0 || *r.NotBefore < 0 || max(r.TTL, r.MaxTTL, *r.NotBefore) > maxTTL:
		return conclave.Errorf(conclave.Invalid, "times must be between 0 and a hundred years")
	case r.MaxTTL > 0 && r.TTL > r.MaxTTL:
		return conclave.Errorf(conclave.Invalid, `"ttl" value must be less than "max_ttl" when both are specified`)
	case !slices.Contains([]string{defaultAlgorithm, ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}, r.AlgorithmSigner):
		return conclave.Errorf(conclave.Invalid, "unknown algorithm signer %q", r.AlgorithmSigner)
	case len(r.KeyLengths) > maxList:
		return conclave.Errorf(conclave.Invalid, "at most %d types of keys", maxList)
	}
	for _, sizes := range r.KeyLengths {
		if len(sizes) > maxList {
			return conclave.Errorf(conclave.Invalid, "at most %d sizes of a type of keys", maxList)
		}
	}
	for _, list := range []struct {
		texts     string
		templated bool
	}{{r.DefaultUser, r.DefaultUserTemplate}, {r.AllowedUsers, r.AllowedUsersTemplate}, {r.AllowedDomains, r.AllowedDomainsTemplate}} {
		if err := checkList(list.texts, list.templated); err != nil {
			return err
		}
	}
	if err := checkOptions(r.DefaultCriticalOptions); err != nil {
		return err
	}
	return checkOptions(r.DefaultExtensions)
}

func checkList(text string, templated bool) error {
	names := splitNames(text)
	if len(names) > maxList {
		return conclave.Errorf(conclave.Invalid, "a list has at most %d names", maxList)
	}
	for _, name := range names {
		if templated && !closed(name) {
			return conclave.Errorf(conclave.Invalid, "%q holds a template that is not closed", name)
		}
	}
	return nil
}

// networks reads a list of networks in CIDR notation, with commas.
func networks(list string) ([]netip.Prefix, error) {
	names := splitNames(list)
	if len(names) > maxList {
		return nil, conclave.Errorf(conclave.Invalid, "at most %d networks", maxList)
	}
	return conclave.Networks(names)
}

func roleRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "roles", "List the roles, with their types.", listRoles),
		conclave.ReadRoute(conclave.Read, "roles/{role}", "Read a role.", readRole),
		conclave.WriteRoute(conclave.Update, "roles/{role}", "Write a role.\nWhat isn't given takes its default, also if the role was there before.", writeRole),
		conclave.WriteRoute(conclave.Delete, "roles/{role}", "Delete a role. What it has given stays as valid as it was.", deleteRole),
	}
}

type roleIn struct {
	Name string `path:"role" doc:"Name of the role."`
	role
}

type roleRef struct {
	Name string `path:"role" doc:"Name of the role."`
}

func writeRole(_ context.Context, tx conclave.Tx, in *roleIn) (*conclave.None, error) {
	if !validName(in.Name) {
		return nil, conclave.Errorf(conclave.Invalid, "invalid role name")
	}
	r := in.role
	if err := r.check(); err != nil {
		return nil, err
	}
	value, err := json.Marshal(&r)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "encode a role: %w", err)
	}
	return nil, tx.Put(rolesDir+in.Name, value)
}

// otpRole is what is shown of a role of type otp.
type otpRole struct {
	KeyType         string `json:"key_type"`
	DefaultUser     string `json:"default_user"`
	AllowedUsers    string `json:"allowed_users"`
	CIDRList        string `json:"cidr_list"`
	ExcludeCIDRList string `json:"exclude_cidr_list"`
	Port            int    `json:"port"`
}

// caRole is what is shown of a role of type ca: all but the members that hide those of one-time passwords.
type caRole struct {
	role
	CIDRList        *struct{} `json:"cidr_list,omitempty"`
	ExcludeCIDRList *struct{} `json:"exclude_cidr_list,omitempty"`
	Port            *struct{} `json:"port,omitempty"`
}

func readRole(_ context.Context, view conclave.View, in *roleRef) (*conclave.Response, error) {
	r, err := roleNamed(view, in.Name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, notFound()
	}
	if r.KeyType == typeOTP {
		return &conclave.Response{Data: &otpRole{r.KeyType, r.DefaultUser, r.AllowedUsers, r.CIDRList, r.ExcludeCIDRList, r.Port}}, nil
	}
	shown := &caRole{role: *r}
	if shown.DefaultCriticalOptions == nil {
		shown.DefaultCriticalOptions = map[string]string{}
	}
	if shown.DefaultExtensions == nil {
		shown.DefaultExtensions = map[string]string{}
	}
	if shown.KeyLengths == nil {
		shown.KeyLengths = map[string][]int64{}
	}
	return &conclave.Response{Data: shown}, nil
}

func listRoles(_ context.Context, view conclave.View, in *pageIn) (*conclave.Keys, error) {
	names, err := view.List(rolesDir, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	info := map[string]any{}
	if len(names) <= maxLookup {
		for _, name := range names {
			r, err := roleNamed(view, name)
			if err != nil {
				return nil, err
			}
			if r != nil {
				info[name] = map[string]any{"key_type": r.KeyType}
			}
		}
	}
	return &conclave.Keys{Keys: names, KeyInfo: info}, nil
}

func deleteRole(_ context.Context, tx conclave.Tx, in *roleRef) (*conclave.None, error) {
	if !validName(in.Name) {
		return nil, nil
	}
	roles, err := zeroAddressRolesOf(tx)
	if err != nil {
		return nil, err
	}
	if at := slices.Index(roles, in.Name); at >= 0 {
		if err := saveZeroAddressRoles(tx, slices.Delete(slices.Clone(roles), at, at+1)); err != nil {
			return nil, err
		}
	}
	return nil, tx.Delete(rolesDir + in.Name)
}
