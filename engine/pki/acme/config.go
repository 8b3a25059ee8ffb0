package acme

import (
	"context"
	"encoding/json"
	"net"
	"net/url"
	"slices"
	"strings"

	"conclave"
	"conclave/engine/pki/acme/validation"
)

// Policies of the mount's plain directory, and of external account bindings.
const (
	policyVerbatim = "sign-verbatim"
	policyForbid   = "forbid"
	policyRole     = "role:"

	bindingNever  = "not-required"
	bindingOnce   = "new-account-required"
	bindingAlways = "always-required"
)

// settings are those of ACME in a mount.
type settings struct {
	Enabled              bool             `json:"enabled" doc:"Whether the mount speaks ACME."`
	AllowedRoles         []string         `json:"allowed_roles" doc:"Roles that have a directory; * is all."`
	AllowRoleExtKeyUsage bool             `json:"allow_role_ext_key_usage" doc:"Certificates have the extended key usages of their roles; otherwise they are for TLS servers."`
	AllowedIssuers       []string         `json:"allowed_issuers" doc:"Issuers, by id or name, that sign; * is all."`
	DirectoryPolicy      string           `json:"default_directory_policy" doc:"What directories without a role do: sign-verbatim, role:NAME or forbid."`
	EABPolicy            string           `json:"eab_policy" doc:"Whether accounts need an external account binding: not-required, new-account-required or always-required."`
	DNSResolver          string           `json:"dns_resolver" doc:"Server, HOST:PORT, that names are looked up at; empty: the system's."`
	MaxTTL               conclave.Seconds `json:"max_ttl" doc:"How long certificates can be valid."`
	PermittedIPs         []string         `json:"challenge_permitted_ip_ranges" doc:"Networks that servers under validation must lie in; empty is all but this machine's own and others that are special."`
	ExcludedIPs          []string         `json:"challenge_excluded_ip_ranges" doc:"Networks that servers under validation must not lie in."`
}

// config is what is stored at config/acme.
type config struct {
	Settings settings `json:"settings"`
	NonceKey []byte   `json:"nonce_key"`
}

func unset() settings {
	return settings{AllowedRoles: []string{"*"}, AllowedIssuers: []string{"*"}, DirectoryPolicy: policyVerbatim, EABPolicy: bindingNever, MaxTTL: defaultMaxTTL,
		PermittedIPs: []string{}, ExcludedIPs: []string{}}
}

func decodeConfig(value []byte) (any, error) {
	c := &config{Settings: unset()}
	if err := json.Unmarshal(value, c); err != nil || len(c.NonceKey) == 0 {
		return nil, conclave.Errorf(conclave.Internal, "the settings of ACME can't be read")
	}
	return c, nil
}

// loadConfig returns the settings, which are shared and must not be changed; nil if none were written.
func loadConfig(view conclave.View) (*config, error) {
	loaded, err := view.Load(configPath, decodeConfig)
	c, _ := loaded.(*config)
	return c, err
}

func (s *Service) configRoutes() []conclave.Route {
	write := conclave.WriteRoute(conclave.Update, "config/acme", "Change how the mount speaks ACME.\nWhat isn't given stays. It can be enabled once config/cluster has the path under which clients reach the mount.", s.writeConfig)
	write.Prepare = prepareChance
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "config/acme", "Read how the mount speaks ACME.", readConfig),
		write,
	}
}

func prepareChance(context.Context, *conclave.Request, any) (any, error) { return newChance() }

func prepared(ctx context.Context) (*chance, error) {
	c, ok := conclave.Prepared[*chance](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the request was not prepared")
	}
	return c, nil
}

func readConfig(_ context.Context, view conclave.View, _ *conclave.None) (*settings, error) {
	c, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	if c == nil {
		shown := unset()
		return &shown, nil
	}
	return &c.Settings, nil
}

type configIn struct {
	Enabled              *bool             `json:"enabled" doc:"Whether the mount speaks ACME."`
	AllowedRoles         *[]string         `json:"allowed_roles" doc:"Roles that have a directory; * is all."`
	AllowRoleExtKeyUsage *bool             `json:"allow_role_ext_key_usage" doc:"Certificates have the extended key usages of their roles; otherwise they are for TLS servers."`
	AllowedIssuers       *[]string         `json:"allowed_issuers" doc:"Issuers, by id or name, that sign; * is all."`
	DirectoryPolicy      *string           `json:"default_directory_policy" doc:"What directories without a role do: sign-verbatim, role:NAME or forbid."`
	EABPolicy            *string           `json:"eab_policy" doc:"Whether accounts need an external account binding: not-required, new-account-required or always-required."`
	DNSResolver          *string           `json:"dns_resolver" doc:"Server, HOST:PORT, that names are looked up at; empty: the system's."`
	MaxTTL               *conclave.Seconds `json:"max_ttl" doc:"How long certificates can be valid; 90 days unless set."`
	PermittedIPs         *[]string         `json:"challenge_permitted_ip_ranges" doc:"Networks that servers under validation must lie in; empty is all but this machine's own and others that are special."`
	ExcludedIPs          *[]string         `json:"challenge_excluded_ip_ranges" doc:"Networks that servers under validation must not lie in."`
}

func set[T any](target *T, given *T) {
	if given != nil {
		*target = *given
	}
}

func (s *Service) writeConfig(ctx context.Context, tx conclave.Tx, in *configIn) (*settings, error) {
	c, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	old, err := loadConfig(tx)
	if err != nil {
		return nil, err
	}
	changed := config{Settings: unset(), NonceKey: c.bytes(0)}
	if old != nil {
		changed = *old
	} else if err := tx.SetCell(accountsCell, maxAccounts, true); err != nil {
		return nil, err
	}
	set(&changed.Settings.Enabled, in.Enabled)
	set(&changed.Settings.AllowedRoles, in.AllowedRoles)
	set(&changed.Settings.AllowRoleExtKeyUsage, in.AllowRoleExtKeyUsage)
	set(&changed.Settings.AllowedIssuers, in.AllowedIssuers)
	set(&changed.Settings.DirectoryPolicy, in.DirectoryPolicy)
	set(&changed.Settings.EABPolicy, in.EABPolicy)
	set(&changed.Settings.DNSResolver, in.DNSResolver)
	set(&changed.Settings.MaxTTL, in.MaxTTL)
	set(&changed.Settings.PermittedIPs, in.PermittedIPs)
	set(&changed.Settings.ExcludedIPs, in.ExcludedIPs)
	if err := s.check(tx, &changed.Settings); err != nil {
		return nil, err
	}
	return &changed.Settings, put(tx, configPath, &changed)
}

func (s *Service) check(view conclave.View, c *settings) error {
	switch {
	case len(c.AllowedRoles) == 0 || len(c.AllowedRoles) > maxAddresses:
		return conclave.Errorf(conclave.Invalid, "allowed_roles must take one or more names, or *")
	case len(c.AllowedIssuers) == 0 || len(c.AllowedIssuers) > maxAddresses:
		return conclave.Errorf(conclave.Invalid, "allowed_issuers must take one or more names or ids, or *")
	case !slices.Contains([]string{bindingNever, bindingOnce, bindingAlways}, c.EABPolicy):
		return conclave.Errorf(conclave.Invalid, "eab_policy must be %s, %s or %s", bindingNever, bindingOnce, bindingAlways)
	case c.MaxTTL <= 0 || c.MaxTTL > maxMaxTTL:
		return conclave.Errorf(conclave.Invalid, "max_ttl must be between a second and ten years")
	}
	role, isRole := strings.CutPrefix(c.DirectoryPolicy, policyRole)
	switch {
	case isRole:
		if _, err := s.authority.RoleIssuer(view, role); err != nil {
			return err
		}
		if !c.allowsRole(role) {
			return conclave.Errorf(conclave.Invalid, "the role of default_directory_policy is not in allowed_roles")
		}
	case c.DirectoryPolicy != policyVerbatim && c.DirectoryPolicy != policyForbid:
		return conclave.Errorf(conclave.Invalid, "default_directory_policy must be %s, %sNAME or %s", policyVerbatim, policyRole, policyForbid)
	}
	if c.DNSResolver != "" {
		host, port, err := net.SplitHostPort(c.DNSResolver)
		if err != nil || host == "" || port == "" || len(c.DNSResolver) > 300 {
			return conclave.Errorf(conclave.Invalid, "dns_resolver must be HOST:PORT")
		}
	}
	for _, list := range [][]string{c.PermittedIPs, c.ExcludedIPs} {
		if len(list) > maxAddresses {
			return conclave.Errorf(conclave.Invalid, "at most %d networks", maxAddresses)
		}
		if _, err := conclave.Networks(list); err != nil {
			return err
		}
	}
	if !c.Enabled {
		return nil
	}
	base, err := s.authority.Base(view)
	if err != nil {
		return err
	}
	if parsed, err := url.Parse(base); base == "" || err != nil || parsed.Host == "" {
		return conclave.Errorf(conclave.Invalid, "ACME can be enabled once the path of config/cluster is set: the URL under which clients reach this mount")
	}
	return nil
}

func (c *settings) allowsRole(name string) bool {
	return slices.Contains(c.AllowedRoles, "*") || slices.Contains(c.AllowedRoles, name)
}

func (c *settings) allowsIssuer(id, name string) bool {
	return slices.Contains(c.AllowedIssuers, "*") || slices.Contains(c.AllowedIssuers, id) || name != "" && slices.Contains(c.AllowedIssuers, name)
}

// reach says which servers may be asked.
func (c *settings) reach() validation.Reach {
	r := validation.Reach{Resolver: c.DNSResolver}
	r.Permitted, _ = conclave.Networks(c.PermittedIPs) // checked when they were written
	r.Excluded, _ = conclave.Networks(c.ExcludedIPs)
	return r
}
