package access

import (
	"context"
	"slices"
	"strings"

	"conclave"
	"conclave/identity"
	"conclave/policy"
	"conclave/token"
)

// Role is something of an auth method that gives policies to those who log in: a role, a user, a group.
type Role struct {
	Mount           string // "auth/approle/"
	Path            string // below it: "role/ci"
	Policies        []string
	NoDefaultPolicy bool
}

// Roles finds the roles of the viewed namespace's auth methods.
type Roles interface {
	// Roles lists them in order, after the one at the path after ("" is before the first), at most limit.
	Roles(ctx context.Context, view conclave.View, after string, limit int) ([]Role, error)
}

// Kinds of who can have access.
const (
	kindPolicies = "policies"
	kindEntities = "entities"
	kindRoles    = "roles"
	kindTokens   = "tokens"
)

// Limits of one page, in what is looked at: what has no access is left out of it.
const (
	defaultPage = 200
	maxPage     = 1000
)

func (s *Service) whoRoute() conclave.Route {
	route := conclave.ReadRoute(conclave.Update, "access/list", "Who may do something on a path: policies, entities, roles of auth methods, or tokens of this namespace.\n\n"+
		"A page is of those that were looked at, so it can be empty and not the last: go on after next, until that is empty. Identity templates are "+
		"resolved for entities and tokens.", s.who)
	route.ClearRequest = []string{"kind", "capability", "after", "limit"}
	return route
}

type whoInput struct {
	Path       string `json:"path" doc:"The path, without v1/."`
	Kind       string `json:"kind" doc:"policies: each by itself. entities: what they and their groups give to tokens. roles: what logins by them get, before identities. tokens: what they may do."`
	Capability string `json:"capability" doc:"Only who has this one. Empty: whoever has any."`
	After      string `json:"after" doc:"Go on after this one."`
	Limit      int    `json:"limit" doc:"How many to look at, at most 1,000; 0 means 200."`
}

// Holder is somebody, or something, that gives access to a path.
type Holder struct {
	ID           string   `json:"id" doc:"A policy's name, an entity's id, a role's path, a token's accessor."`
	Name         string   `json:"name" doc:"An entity's name, a token's display name."`
	EntityID     string   `json:"entity_id" doc:"The entity behind a token."`
	Policies     []string `json:"policies" doc:"The policies that apply."`
	Capabilities []string `json:"capabilities" doc:"What may be done on the path."`
	Rule         string   `json:"rule" doc:"The path of the rule that decides about the capability that was asked for, or else about the first of them."`
}

// Holders is a page of them.
type Holders struct {
	Results []Holder `json:"results" doc:"Those that have access."`
	Looked  int      `json:"looked" doc:"How many were looked at."`
	Next    string   `json:"next" doc:"Go on after this one; empty if there are no more."`
}

func (s *Service) who(ctx context.Context, view conclave.View, in *whoInput) (*Holders, error) {
	q := &whoQuery{service: s, view: view, capability: strings.ToLower(in.Capability), after: in.After, limit: in.Limit}
	q.path = strings.TrimPrefix(strings.TrimPrefix(in.Path, "/"), "v1/")
	if q.path == "" {
		return nil, conclave.Errorf(conclave.Invalid, "a path must be given")
	}
	if q.capability != "" && q.capability != "sudo" && q.capability != subscribe {
		if _, err := policy.ParseOperation(q.capability); err != nil {
			return nil, err
		}
	}
	if q.limit <= 0 {
		q.limit = defaultPage
	}
	q.limit = min(q.limit, maxPage)
	look := map[string]func(context.Context) ([]string, error){kindPolicies: q.policies, kindEntities: q.entities, kindRoles: q.roles, kindTokens: q.tokens}[in.Kind]
	if look == nil {
		return nil, conclave.Errorf(conclave.Invalid, "kind must be %s, %s, %s or %s", kindPolicies, kindEntities, kindRoles, kindTokens)
	}
	looked, err := look(ctx)
	if err != nil {
		return nil, err
	}
	out := &Holders{Results: q.found, Looked: len(looked)}
	if out.Results == nil {
		out.Results = []Holder{}
	}
	if len(looked) == q.limit {
		out.Next = looked[len(looked)-1]
	}
	return out, nil
}

// subscribe is the one capability that is no operation's.
const subscribe = "subscribe"

// whoQuery is one page under way.
type whoQuery struct {
	service          *Service
	view             conclave.View
	path, capability string
	after            string
	limit            int
	found            []Holder
}

// add notes a holder if its policies give what is asked for.
func (q *whoQuery) add(h Holder, acl *policy.ACL) {
	h.Capabilities = acl.Capabilities(q.path)
	root := slices.Equal(h.Capabilities, []string{policy.Root})
	switch {
	case slices.Equal(h.Capabilities, []string{"deny"}):
		return
	case q.capability != "" && !root && !slices.Contains(h.Capabilities, q.capability):
		return
	}
	if !root {
		h.Rule = q.rule(acl, h.Capabilities)
	}
	if h.Policies == nil {
		h.Policies = []string{}
	}
	q.found = append(q.found, h)
}

// rule is the pattern that decides about one of the capabilities.
func (q *whoQuery) rule(acl *policy.ACL, capabilities []string) string {
	for _, name := range append([]string{q.capability}, capabilities...) {
		if name == subscribe { // what decides about reading does about events
			name = conclave.Read.String()
		}
		if op, err := policy.ParseOperation(name); err == nil {
			return acl.Allows(policy.Check{Path: q.path, Operation: op}).Pattern
		}
	}
	return ""
}

// page is the part of a sorted list that is to be looked at.
func (q *whoQuery) page(list []string) []string {
	if q.after != "" {
		from, found := slices.BinarySearch(list, q.after)
		if found {
			from++
		}
		list = list[from:]
	}
	return list[:min(len(list), q.limit)]
}

func (q *whoQuery) policies(context.Context) ([]string, error) {
	all, err := policy.Names(q.view)
	if err != nil {
		return nil, err
	}
	names := q.page(all)
	for _, name := range names {
		acl, err := q.service.cache.ACL(q.view, []string{name})
		if err != nil {
			return nil, err
		}
		q.add(Holder{ID: name, Policies: []string{name}}, acl)
	}
	return names, nil
}

func (q *whoQuery) entities(context.Context) ([]string, error) {
	ids, err := identity.Entities(q.view, q.after, q.limit)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		who, err := identity.Of(q.view, id)
		if err != nil {
			return nil, err
		}
		if who == nil || who.Disabled {
			continue
		}
		names := policy.WithoutRoot(who.Policies)
		acl, err := q.service.cache.ACLFor(who, q.view, names)
		if err != nil {
			return nil, err
		}
		q.add(Holder{ID: who.ID, Name: who.Name, EntityID: who.ID, Policies: names}, acl)
	}
	return ids, nil
}

func (q *whoQuery) roles(ctx context.Context) ([]string, error) {
	roles, err := q.service.roles.Roles(ctx, q.view, q.after, q.limit)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, role := range roles {
		names := role.Policies
		if !role.NoDefaultPolicy {
			names = policy.Together(names, []string{policy.Default})
		}
		acl, err := q.service.cache.ACL(q.view, names)
		if err != nil {
			return nil, err
		}
		paths = append(paths, role.Mount+role.Path)
		q.add(Holder{ID: role.Mount + role.Path, Policies: names}, acl)
	}
	return paths, nil
}

func (q *whoQuery) tokens(context.Context) ([]string, error) {
	accessors, err := token.Accessors(q.view, q.after, q.limit)
	if err != nil {
		return nil, err
	}
	for _, accessor := range accessors {
		caller, err := token.CallerByAccessor(q.view, accessor)
		if err != nil {
			return nil, err
		}
		if caller == nil {
			continue
		}
		grant, names, err := q.service.grant(q.view, caller)
		if err != nil {
			return nil, err
		}
		q.add(Holder{ID: accessor, Name: caller.DisplayName, EntityID: caller.EntityID, Policies: names}, grant.ACL)
	}
	return accessors, nil
}
