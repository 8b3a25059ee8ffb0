package quota

import (
	"context"
	"slices"
	"strings"

	"conclave"
)

// Setup is what the routes need.
type Setup struct {
	// Locate finds what a path is in: the namespace, and the mount with what is below it. A path that isn't empty and is
	// neither in a mount nor a namespace itself isn't ok.
	Locate func(tx conclave.Tx, path string) (at Location, ok bool, err error)
}

// Location is a path in its parts.
type Location struct {
	Namespace string // "" is the root namespace, others end in "/"
	Mount     string // ends in "/"; "" if the path is a namespace
	Rest      string // of the path, below the mount
	Auth      bool   // the mount is an auth method
}

// Routes are those below sys/ that define quotas. They need the root namespace's system space.
func Routes(setup Setup) []conclave.Route {
	s := &setup
	routes := []conclave.Route{
		conclave.ReadRoute(conclave.Read, "quotas/config", "Read what holds for all rate limits.", readConfig),
		conclave.WriteRoute(conclave.Update, "quotas/config", "Set what holds for all rate limits. What isn't given goes back to its default.", writeConfig),
		conclave.ReadRoute(conclave.List, "quotas/rate-limit", "List the names of all rate limits.", listRates),
		conclave.ReadRoute(conclave.Read, "quotas/rate-limit/{name}", "Read a rate limit.", readRate),
		conclave.WriteRoute(conclave.Update, "quotas/rate-limit/{name}", "Define a rate limit over the whole cluster, for a namespace, a mount, a path or the logins of a role.", s.writeRate),
		conclave.WriteRoute(conclave.Delete, "quotas/rate-limit/{name}", "Remove a rate limit.", deleteRate),
		conclave.ReadRoute(conclave.List, "quotas/lease-count", "List the names of all lease counts.", listLeases),
		conclave.ReadRoute(conclave.Read, "quotas/lease-count/{name}", "Read a lease count.", readLease),
		conclave.WriteRoute(conclave.Update, "quotas/lease-count/{name}", "Limit how many leases there are at once. Leases from before the limit aren't counted.", s.writeLease),
		conclave.WriteRoute(conclave.Delete, "quotas/lease-count/{name}", "Remove a lease count.", deleteLease),
	}
	for i := range routes {
		routes[i].Cluster = true
	}
	return routes
}

type nameInput struct {
	Name string `path:"name" doc:"The quota's name."`
}

type configBody struct {
	ExemptAbsolute  []string `json:"absolute_rate_limit_exempt_paths" doc:"Paths that no rate limit holds for, beginning with their namespace's; what ends in * is meant as a prefix."`
	Audit           bool     `json:"enable_rate_limit_audit_logging" doc:"Record each request that a rate limit refuses in the audit log. A flood of them fills it."`
	ResponseHeaders bool     `json:"enable_rate_limit_response_headers" doc:"Tell clients in headers what their rate limit is and what is left of it."`
	Exempt          []string `json:"rate_limit_exempt_paths" doc:"Paths in any namespace that no rate limit holds for; what ends in * is meant as a prefix."`
}

func readConfig(_ context.Context, view conclave.View, _ *conclave.None) (*configBody, error) {
	rules, err := Load(view)
	if err != nil {
		return nil, err
	}
	c := rules.settled
	list := func(paths []string) []string { return append([]string{}, paths...) } // never null
	return &configBody{list(c.ExemptAbsolute), c.Audit, c.ResponseHeaders, list(c.Exempt)}, nil
}

func writeConfig(_ context.Context, tx conclave.Tx, in *configBody) (*conclave.None, error) {
	rules, err := Load(tx)
	if err != nil {
		return nil, err
	}
	for _, list := range []*[]string{&in.Exempt, &in.ExemptAbsolute} {
		for i, path := range *list {
			if (*list)[i] = strings.Trim(path, "/"); len(path) > maxPath || (*list)[i] == "" {
				return nil, conclave.Errorf(conclave.Invalid, "an exempt path has between 1 and %d bytes", maxPath)
			}
		}
		if len(*list) > maxExempt {
			return nil, conclave.Errorf(conclave.Invalid, "at most %d paths are exempt", maxExempt)
		}
	}
	next := rules.record
	next.Config = &Config{Exempt: in.Exempt, ExemptAbsolute: in.ExemptAbsolute, Audit: in.Audit, ResponseHeaders: in.ResponseHeaders}
	return nil, next.store(tx)
}

// place finds out what a quota is about, from what the client says.
func (s *Setup) place(tx conclave.Tx, path, role string, inheritable *bool) (p Place, err error) {
	path = strings.Trim(path, "/")
	if len(path) > maxPath || len(role) > maxRole {
		return p, conclave.Errorf(conclave.Invalid, "a path has at most %d bytes, a role %d", maxPath, maxRole)
	}
	at, ok, err := s.Locate(tx, path)
	if err != nil {
		return p, err
	}
	p = Place{Namespace: at.Namespace, Mount: at.Mount, Suffix: at.Rest, Role: role}
	switch star := strings.IndexByte(at.Rest, '*'); {
	case !ok:
		return p, conclave.Errorf(conclave.Invalid, "invalid mount path %q", path)
	case star >= 0 && star != len(at.Rest)-1:
		return p, conclave.Errorf(conclave.Invalid, "a path has one * at most, at its end")
	case role != "" && at.Rest != "":
		return p, conclave.Errorf(conclave.Invalid, "Quotas cannot contain both a path suffix and a role. If a role is provided, path must be a valid auth mount with a concept of roles")
	case role != "" && !at.Auth:
		return p, conclave.Errorf(conclave.Invalid, "Mount path %q is not a valid auth method and therefore unsuitable for use with role-based quotas", path)
	case inheritable != nil && *inheritable && at.Mount != "":
		return p, conclave.Errorf(conclave.Invalid, "only the quota of a namespace is inheritable")
	}
	p.Inheritable = at.Mount == "" && at.Namespace == ""
	if inheritable != nil {
		p.Inheritable = *inheritable
	}
	return p, nil
}

func checkName(name string) error {
	if len(name) > maxName {
		return conclave.Errorf(conclave.Invalid, "a quota's name has at most %d bytes", maxName)
	}
	return nil
}

func errSimilar(name string) error {
	return conclave.Errorf(conclave.Invalid, "quota rule with similar properties exists under the name %q", name)
}

// without returns rules but that of a name, sorted; more is put in, if not nil.
func without[R any](rules []*R, name string, nameOf func(*R) string, more *R) []*R {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r *R) bool { return nameOf(r) == name })
	if more != nil {
		rules = append(rules, more)
		slices.SortFunc(rules, func(a, b *R) int { return strings.Compare(nameOf(a), nameOf(b)) })
	}
	return rules
}

func named[R any](rules []*R, name string, nameOf func(*R) string) *R {
	at := slices.IndexFunc(rules, func(r *R) bool { return nameOf(r) == name })
	if at < 0 {
		return nil
	}
	return rules[at]
}

func keysOf[R any](rules []*R, nameOf func(*R) string) *conclave.Keys {
	keys := &conclave.Keys{}
	for _, r := range rules {
		keys.Keys = append(keys.Keys, nameOf(r))
	}
	return keys
}
