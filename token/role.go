package token

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"conclave"
)

const rolesDir = "token/roles/"

// Limits of token roles.
const (
	maxRoleName = 128
	maxRoleList = 256 // policies, patterns, aliases
)

// Role says what tokens may be made by it, whatever policies the caller has. Stored below token/roles/ as JSON.
type Role struct {
	AllowedPolicies        []string         `json:"allowed_policies" doc:"Policies that its tokens may have, all of them if a request names none."`
	AllowedPoliciesGlob    []string         `json:"allowed_policies_glob" doc:"The same, with * for any text."`
	DisallowedPolicies     []string         `json:"disallowed_policies" doc:"Policies that its tokens never have."`
	DisallowedPoliciesGlob []string         `json:"disallowed_policies_glob" doc:"The same, with * for any text."`
	Orphan                 bool             `json:"orphan" doc:"Its tokens have no parent."`
	Renewable              bool             `json:"renewable" doc:"Its tokens can be renewed; true if not given."`
	PathSuffix             string           `json:"path_suffix" doc:"Added to the path that its tokens are noted under."`
	AllowedEntityAliases   []string         `json:"allowed_entity_aliases" doc:"Names that a request may give as entity_alias, with * for any text."`
	BoundCIDRs             []string         `json:"token_bound_cidrs" doc:"Addresses or networks that its tokens may be used from; empty is all."`
	ExplicitMaxTTL         conclave.Seconds `json:"token_explicit_max_ttl" doc:"An end that no renewal can pass, counted from creation."`
	NoDefaultPolicy        bool             `json:"token_no_default_policy" doc:"Don't add the policy default, where the role names policies."`
	NumUses                int              `json:"token_num_uses" doc:"Requests that a token can make; 0 is unlimited."`
	Period                 conclave.Seconds `json:"token_period" doc:"Make periodic tokens: each renewal sets their time to live to this."`
	Type                   string           `json:"token_type" doc:"Type of its tokens: service, batch, default-service or default-batch."`
	// Old names of the above. What is set by one is answered by both.
	OldPeriod         conclave.Seconds `json:"period" doc:"An old name of token_period."`
	OldExplicitMaxTTL conclave.Seconds `json:"explicit_max_ttl" doc:"An old name of token_explicit_max_ttl."`
	OldBoundCIDRs     []string         `json:"bound_cidrs,omitempty" doc:"An old name of token_bound_cidrs."`

	networks []netip.Prefix
}

type roleName struct {
	Name string `path:"role_name" doc:"The role's name."`
}

type roleInput struct {
	roleName
	Role
}

// roleOutput is a role as it is answered: lists that would be empty are left out where Vault does.
type roleOutput struct {
	Name string `json:"name" doc:"The role's name."`
	Role
	BoundCIDRs []string `json:"token_bound_cidrs,omitempty" doc:"Addresses or networks that its tokens may be used from; all if absent."`
	NumUses    int      `json:"token_num_uses,omitempty" doc:"Requests that a token can make; unlimited if absent."`
}

func (s *routes) roleRoutes() []conclave.Route {
	write := conclave.WriteRoute(conclave.Update, "roles/{role_name}", "Make a token role, or change it: what isn't given stays.", writeRole)
	write.Exists = func(view conclave.View, in any) (bool, error) {
		role, err := loadRole(view, in.(*roleInput).Name)
		return role != nil, err
	}
	return []conclave.Route{
		s.createBy(),
		write,
		conclave.ReadRoute(conclave.Read, "roles/{role_name}", "Read a token role.", readRole),
		conclave.WriteRoute(conclave.Delete, "roles/{role_name}", "Delete a token role. Its tokens live on.", deleteRole),
		conclave.ReadRoute(conclave.List, "roles", "List the token roles.", listRoles),
	}
}

// loadRole returns a role, nil if there is none of that name.
func loadRole(view conclave.View, name string) (*Role, error) {
	if !validRoleName(name) {
		return nil, nil
	}
	loaded, err := view.Load(rolesDir+name, decodeRole)
	role, _ := loaded.(*Role)
	return role, err
}

func decodeRole(value []byte) (any, error) {
	role := &Role{}
	err := json.Unmarshal(value, role)
	if err == nil {
		role.networks, err = conclave.Networks(role.BoundCIDRs)
	}
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "a stored token role is damaged")
	}
	return role, nil
}

// validRoleName reports whether a name is of letters, digits, _, - and ., with neither of the last two at its ends.
func validRoleName(name string) bool {
	return name != "" && len(name) <= maxRoleName && strings.Trim(name, base62+"_-.") == "" && strings.Trim(name, "-.") == name
}

func writeRole(_ context.Context, tx conclave.Tx, in *roleInput) (*conclave.Response, error) {
	if !validRoleName(in.Name) {
		return nil, conclave.Errorf(conclave.Invalid, "a role's name has at most %d letters, digits, _, - and .", maxRoleName)
	}
	role := &Role{Renewable: true, Type: "default-service"}
	stored, err := loadRole(tx, in.Name)
	if err != nil {
		return nil, err
	}
	if stored != nil {
		copied := *stored
		role = &copied
	}
	fields := tx.Request().Fields
	if err := conclave.Merge(role, fields); err != nil {
		return nil, err
	}
	warnings := role.reconcile(fields)
	if err := role.check(); err != nil {
		return nil, err
	}
	if limit := termsOf(tx.Mount()).maxTTL; role.ExplicitMaxTTL.Duration() > limit {
		warnings = append(warnings, "The explicit max TTL is beyond the mount's max TTL, which holds instead.")
	}
	value, err := json.Marshal(role)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Warnings: warnings}, tx.Put(rolesDir+in.Name, value)
}

// reconcile takes what fields give under old names for what it means now.
func (r *Role) reconcile(fields map[string]any) (warnings []string) {
	for _, name := range []string{"period", "explicit_max_ttl", "bound_cidrs"} {
		_, old := fields[name]
		_, now := fields["token_"+name]
		if old && now {
			warnings = append(warnings, "Both 'token_"+name+"' and deprecated '"+name+"' value supplied, ignoring the deprecated value")
		}
		switch {
		case !old && !now:
		case name == "period" && now:
			r.OldPeriod = 0
		case name == "period":
			r.Period = r.OldPeriod
		case name == "explicit_max_ttl" && now:
			r.OldExplicitMaxTTL = 0
		case name == "explicit_max_ttl":
			r.ExplicitMaxTTL = r.OldExplicitMaxTTL
		case now:
			r.OldBoundCIDRs = nil
		default:
			r.BoundCIDRs = r.OldBoundCIDRs
		}
	}
	return warnings
}

// check holds a role against the rules, and brings names into their one spelling.
func (r *Role) check() error {
	for _, list := range []*[]string{&r.AllowedPolicies, &r.AllowedPoliciesGlob, &r.DisallowedPolicies, &r.DisallowedPoliciesGlob, &r.AllowedEntityAliases} {
		if len(*list) > maxRoleList || slices.ContainsFunc(*list, func(name string) bool { return len(name) > maxPolicyLen }) {
			return conclave.Errorf(conclave.Invalid, "a role's lists have at most %d names of at most %d bytes", maxRoleList, maxPolicyLen)
		}
		if *list = normalPolicies(*list); *list == nil {
			*list = []string{}
		}
	}
	terms := conclave.TokenTerms{BoundCIDRs: r.BoundCIDRs, ExplicitMaxTTL: r.ExplicitMaxTTL, Period: r.Period, NumUses: r.NumUses, Type: r.Type}
	if err := terms.Check(); err != nil {
		return err
	}
	if r.Type = terms.Type; r.Type == "default" {
		r.Type = "default-service"
	}
	suffix := r.PathSuffix
	if len(suffix) > maxText || strings.Trim(suffix, base62+"_-.") != "" || strings.Contains(suffix, "..") || strings.Trim(suffix, "-.") != suffix {
		return conclave.Errorf(conclave.Invalid, "given role path suffix contains invalid characters; it has letters, digits, _, - and .")
	}
	if r.Type != batch {
		return nil
	}
	switch {
	case !r.Orphan:
		return conclave.Errorf(conclave.Invalid, "'token_type' cannot be 'batch' when role is set to generate non-orphan tokens")
	case r.Renewable:
		return conclave.Errorf(conclave.Invalid, "'token_type' cannot be 'batch' when role is set to generate renewable tokens")
	case r.ExplicitMaxTTL != 0:
		return conclave.Errorf(conclave.Invalid, "'token_type' cannot be 'batch' when role is set to generate tokens with an explicit max TTL")
	}
	return nil
}

func readRole(_ context.Context, view conclave.View, in *roleName) (*roleOutput, error) {
	role, err := loadRole(view, in.Name)
	if err != nil {
		return nil, err
	}
	if role == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	return &roleOutput{Name: in.Name, Role: *role, BoundCIDRs: role.BoundCIDRs, NumUses: role.NumUses}, nil
}

func deleteRole(_ context.Context, tx conclave.Tx, in *roleName) (*conclave.None, error) {
	if !validRoleName(in.Name) {
		return nil, nil
	}
	return nil, tx.Delete(rolesDir + in.Name)
}

type pageInput struct {
	After string `json:"after" doc:"List the names after this one."`
	Limit int    `json:"limit" doc:"List at most this many; 0 means all."`
}

func listRoles(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	keys, err := view.List(rolesDir, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	return &conclave.Keys{Keys: keys}, nil
}

// apply narrows what a request asks for by what its role says, before it is held against the rules.
func (r *Role) apply(in *createInput) {
	switch {
	case r.Type == service || r.Type == batch:
		in.Type = r.Type
	case r.Type == "default-batch" && in.Type == "":
		in.Type = batch
	}
	if !r.Renewable {
		in.Renewable = &r.Renewable
	}
	in.NumUses, in.NoParent = lesser(in.NumUses, r.NumUses), false
}

// limit is the lesser of two times, of which 0 is none, with a warning if there are two.
func limit(what string, asked, role time.Duration) (time.Duration, []string) {
	chosen := lesser(asked, role)
	if asked > 0 && role > 0 {
		return chosen, []string{what + " specified both during creation call and in role; using the lesser value of " +
			chosen.String()}
	}
	return chosen, nil
}

// lesser is the lesser of two limits, of which 0 is none.
func lesser[T int | time.Duration](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// namesPolicies reports whether the role decides about policies at all.
func (r *Role) namesPolicies() bool {
	return len(r.AllowedPolicies)+len(r.AllowedPoliciesGlob)+len(r.DisallowedPolicies)+len(r.DisallowedPoliciesGlob) > 0
}

// policies are those of a token whose role names policies: a subset of what it allows, without what it disallows. Without
// any that are asked for or allowed they are inherited.
func (r *Role) policies(asked, inherited []string, noDefault bool) ([]string, error) {
	addDefault := !noDefault && !r.NoDefaultPolicy && !r.disallows(defaultPolicy)
	with := func(names []string) []string {
		if addDefault {
			names = append(slices.Clone(names), defaultPolicy)
		}
		return collapsed(normalPolicies(names))
	}
	list := normalPolicies(asked)
	if len(list) > 0 {
		list = with(list)
	}
	allowed := with(r.AllowedPolicies)
	switch restricted := len(r.AllowedPolicies)+len(r.AllowedPoliciesGlob) > 0; {
	case len(list) == 0 && restricted:
		list = allowed
	case len(list) == 0:
		list = with(inherited)
	case restricted:
		for _, name := range list {
			if !slices.Contains(allowed, name) && !matchesAny(r.AllowedPoliciesGlob, name) {
				return nil, conclave.Errorf(conclave.Invalid, "token policies (%q) must be subset of the role's allowed policies (%q) or glob policies (%q)",
					list, allowed, r.AllowedPoliciesGlob)
			}
		}
	}
	for _, name := range list {
		if r.disallows(name) {
			return nil, conclave.Errorf(conclave.Invalid, "token policy %q is disallowed by this role", name)
		}
	}
	return list, nil
}

func (r *Role) disallows(name string) bool {
	return slices.Contains(r.DisallowedPolicies, name) || matchesAny(r.DisallowedPoliciesGlob, name)
}

func (r *Role) allowsAlias(name string) bool {
	name = strings.ToLower(strings.TrimSpace(name))
	return matchesAny(r.AllowedEntityAliases, name)
}

// collapsed is root alone where root is among others, which add nothing to it.
func collapsed(names []string) []string {
	if slices.Contains(names, rootPolicy) {
		return []string{rootPolicy}
	}
	return names
}

// matchesAny reports whether a name fits one of patterns, in which * is any text.
func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, name) })
}

func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == name
	}
	rest, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return strings.HasSuffix(rest, parts[last])
}
