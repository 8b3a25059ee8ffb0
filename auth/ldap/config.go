package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/url"
	"slices"
	"strings"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"conclave"
)

const configPath = "config"

// Limits of the configuration.
const (
	maxURLs     = 8
	maxText     = 4096 // bytes of a filter or a distinguished name
	maxPEM      = 64 << 10
	maxPageSize = 10_000
)

// settings are what the configuration shows.
type settings struct {
	URL                  string           `json:"url" doc:"The directory's servers, ldap:// or ldaps://, tried in this order; separated by commas."`
	StartTLS             bool             `json:"starttls" doc:"Encrypt connections to ldap:// servers before anything is sent."`
	InsecureTLS          bool             `json:"insecure_tls" doc:"Take any server for the directory: don't check its certificate."`
	Certificate          string           `json:"certificate" doc:"The authorities that servers' certificates must come from, PEM; empty for the system's."`
	ClientTLSCert        string           `json:"client_tls_cert" doc:"The certificate to show to servers, PEM."`
	TLSMinVersion        string           `json:"tls_min_version" doc:"Oldest version of TLS: tls12 or tls13."`
	TLSMaxVersion        string           `json:"tls_max_version" doc:"Newest version of TLS: tls12 or tls13."`
	BindDN               string           `json:"binddn" doc:"Distinguished name of the account that searches for users and groups."`
	DiscoverDN           bool             `json:"discoverdn" doc:"Search for users without an account."`
	UPNDomain            string           `json:"upndomain" doc:"Bind as name@domain, as Active Directory allows."`
	UserDN               string           `json:"userdn" doc:"Where users are."`
	UserAttr             string           `json:"userattr" doc:"The attribute that has the user's name."`
	UserFilter           string           `json:"userfilter" doc:"Template of the filter that finds a user, with .UserAttr and .Username; it must compare an attribute with the name."`
	GroupDN              string           `json:"groupdn" doc:"Where groups are; empty to search for none."`
	GroupFilter          string           `json:"groupfilter" doc:"Template of the filter that finds a user's groups, with .UserDN and .Username."`
	GroupAttr            string           `json:"groupattr" doc:"The attribute that has a group's name or distinguished name."`
	UseTokenGroups       bool             `json:"use_token_groups" doc:"Ask Active Directory for all security groups of the user, nested ones too, instead of searching by groupfilter."`
	AnonymousGroupSearch bool             `json:"anonymous_group_search" doc:"Search for groups without an account."`
	DenyNullBind         bool             `json:"deny_null_bind" doc:"Accepted for compatibility: logins with an empty password are always refused."`
	CaseSensitiveNames   bool             `json:"case_sensitive_names" doc:"Tell names of users and groups apart by case. Needed where the directory does."`
	UsernameAsAlias      bool             `json:"username_as_alias" doc:"Know users in the identity store by what they typed instead of the directory's attribute."`
	RequestTimeout       conclave.Seconds `json:"request_timeout" doc:"Time for one answer of the directory; a whole login takes 10 seconds at most."`
	ConnectionTimeout    conclave.Seconds `json:"connection_timeout" doc:"Time to connect to one server; a whole login takes 10 seconds at most."`
	MaxPageSize          int              `json:"max_page_size" doc:"Fetch groups in pages of this size; 0 for all at once."`
	DereferenceAliases   string           `json:"dereference_aliases" doc:"When to follow aliases in searches: never, finding, searching or always."`
	conclave.TokenTerms
}

// config is stored as JSON. Its secrets are plain here, since storage is encrypted.
type config struct {
	settings
	BindPass     string `json:"bindpass"`
	ClientTLSKey string `json:"client_tls_key"`
}

type configIn struct {
	settings
	BindPass     conclave.Secret `json:"bindpass" doc:"Password of binddn; never shown."`
	ClientTLSKey conclave.Secret `json:"client_tls_key" doc:"Key of client_tls_cert, PEM; never shown."`
	Fields       map[string]any  `json:"*"`
}

const configDoc = `Say where the directory is and how it knows users and groups.
Fields that aren't given keep their value. A user is found in one of three ways: by a search (binddn, or discoverdn), as
name@upndomain, or as userattr=name,userdn.`

const (
	defaultUserFilter  = "({{.UserAttr}}={{.Username}})"
	defaultGroupFilter = "(|(memberUid={{.Username}})(member={{.UserDN}})(uniqueMember={{.UserDN}}))"
)

var (
	tlsVersions = map[string]uint16{"tls12": tls.VersionTLS12, "tls13": tls.VersionTLS13}
	derefs      = map[string]int{"never": ldapv3.NeverDerefAliases, "finding": ldapv3.DerefFindingBaseObj,
		"searching": ldapv3.DerefInSearching, "always": ldapv3.DerefAlways}
)

// loadConfig returns nil if there is none. What it returns is shared and must not be changed.
func loadConfig(view conclave.View) (*config, error) {
	found, err := view.Load(configPath, func(value []byte) (any, error) {
		c := &config{}
		return c, json.Unmarshal(value, c)
	})
	if err != nil || found == nil {
		return nil, err
	}
	return found.(*config), nil
}

func readConfig(_ context.Context, view conclave.View, _ *conclave.None) (*settings, error) {
	c, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	return &c.settings, nil
}

func writeConfig(_ context.Context, tx conclave.Tx, in *configIn) (*conclave.Response, error) {
	c := config{settings: settings{URL: "ldap://127.0.0.1", TLSMinVersion: "tls12", TLSMaxVersion: "tls13", UserAttr: "cn", UserFilter: defaultUserFilter,
		GroupAttr: "cn", GroupFilter: defaultGroupFilter, DenyNullBind: true, RequestTimeout: 90, ConnectionTimeout: 30, DereferenceAliases: "never"}}
	stored, err := loadConfig(tx)
	if err != nil {
		return nil, err
	}
	if stored != nil {
		c = *stored
	}
	if err := conclave.Merge(&c, in.Fields); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	value, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Warnings: c.warnings()}, tx.Put(configPath, value)
}

// warnings are what an operator should know about the configuration.
func (c *config) warnings() []string {
	var all []string
	servers, _ := c.servers()
	if slices.ContainsFunc(servers, func(s server) bool { return !s.isTLS }) && !c.StartTLS {
		all = append(all, "passwords cross the network readable by anybody on it: use ldaps:// or starttls")
	}
	if c.InsecureTLS {
		all = append(all, "anybody on the way can pose as the directory and collect passwords: insecure_tls is set")
	}
	return all
}

// check holds the configuration against the rules and brings it into its stored form.
func (c *config) check() error {
	if err := c.TokenTerms.Check(); err != nil {
		return err
	}
	if c.BoundCIDRs == nil {
		c.BoundCIDRs = []string{}
	}
	if c.UserFilter == "" {
		c.UserFilter = defaultUserFilter
	}
	for _, text := range []string{c.URL, c.BindDN, c.UPNDomain, c.UserDN, c.UserFilter, c.GroupDN, c.GroupFilter, c.BindPass} {
		if len(text) > maxText {
			return conclave.Errorf(conclave.Invalid, "a field has at most %d bytes", maxText)
		}
	}
	if _, err := c.servers(); err != nil {
		return err
	}
	if !isAttribute(c.UserAttr) || !isAttribute(c.GroupAttr) {
		return conclave.Errorf(conclave.Invalid, "userattr and groupattr are names of attributes")
	}
	for name, dn := range map[string]string{"binddn": c.BindDN, "userdn": c.UserDN, "groupdn": c.GroupDN} {
		// Active Directory also takes name@domain and DOMAIN\name for an account.
		if _, err := ldapv3.ParseDN(dn); err != nil && (name != "binddn" || !strings.ContainsAny(dn, `@\`)) {
			return conclave.Errorf(conclave.Invalid, "%s is not a distinguished name", name)
		}
	}
	if c.UPNDomain != "" && strings.ContainsFunc(c.UPNDomain, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`@()*\,=<>;"`, r) }) {
		return conclave.Errorf(conclave.Invalid, "upndomain is the name of a domain")
	}
	if _, known := derefs[c.DereferenceAliases]; !known {
		return conclave.Errorf(conclave.Invalid, "dereference_aliases is never, finding, searching or always")
	}
	if c.RequestTimeout < 0 || c.ConnectionTimeout < 0 || c.MaxPageSize < 0 || c.MaxPageSize > maxPageSize {
		return conclave.Errorf(conclave.Invalid, "times can't be negative, and a page has at most %d entries", maxPageSize)
	}
	if err := c.checkFilters(); err != nil {
		return err
	}
	_, err := c.tls("")
	return err
}

// isAttribute reports whether text is an attribute's name or object identifier (RFC 4512, 2.5).
func isAttribute(text string) bool {
	strange := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}
	return text != "" && len(text) <= maxName && !strings.ContainsFunc(text, strange)
}

// server is where a directory answers.
type server struct {
	host, address string
	isTLS         bool
}

func (c *config) servers() ([]server, error) {
	var all []server
	for text := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || len(all) == maxURLs {
			return nil, conclave.Errorf(conclave.Invalid, "url has at most %d URLs of the form ldap://host:port or ldaps://host:port", maxURLs)
		}
		port := map[string]string{"ldap": "389", "ldaps": "636"}[strings.ToLower(u.Scheme)]
		if port == "" {
			return nil, conclave.Errorf(conclave.Invalid, "url is ldap:// or ldaps://")
		}
		isTLS := port == "636"
		if u.Port() != "" {
			port = u.Port()
		}
		all = append(all, server{u.Hostname(), net.JoinHostPort(u.Hostname(), port), isTLS})
	}
	return all, nil
}

// tls is how connections to a host are encrypted.
func (c *config) tls(host string) (*tls.Config, error) {
	lowest, ok := tlsVersions[c.TLSMinVersion]
	highest, okToo := tlsVersions[c.TLSMaxVersion]
	if !ok || !okToo {
		return nil, conclave.Errorf(conclave.Invalid, "tls_min_version and tls_max_version are tls12 or tls13")
	}
	if highest < lowest {
		return nil, conclave.Errorf(conclave.Invalid, "'tls_max_version' must be greater than or equal to 'tls_min_version'")
	}
	made := &tls.Config{ServerName: host, MinVersion: lowest, MaxVersion: highest, InsecureSkipVerify: c.InsecureTLS}
	if len(c.Certificate) > maxPEM || len(c.ClientTLSCert) > maxPEM || len(c.ClientTLSKey) > maxPEM {
		return nil, conclave.Errorf(conclave.Invalid, "certificates have at most %d bytes", maxPEM)
	}
	if c.Certificate != "" {
		made.RootCAs = x509.NewCertPool()
		for rest := []byte(strings.TrimSpace(c.Certificate)); len(rest) > 0; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return nil, conclave.Errorf(conclave.Invalid, "failed to parse server tls cert")
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, conclave.Errorf(conclave.Invalid, "failed to parse server tls cert")
			}
			made.RootCAs.AddCert(cert)
		}
	}
	if (c.ClientTLSCert == "") != (c.ClientTLSKey == "") {
		return nil, conclave.Errorf(conclave.Invalid, "both client_tls_cert and client_tls_key must be set")
	}
	if c.ClientTLSCert != "" {
		pair, err := tls.X509KeyPair([]byte(c.ClientTLSCert), []byte(c.ClientTLSKey))
		if err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "failed to parse client X509 key pair")
		}
		made.Certificates = []tls.Certificate{pair}
	}
	return made, nil
}
