// Package access answers questions about policy from the same decisions that requests are judged by: what may this
// token do on that path.
package access

import (
	"context"
	"slices"

	"conclave"
	"conclave/identity"
	"conclave/policy"
	"conclave/token"
)

// maxPaths bounds the paths of one question.
const maxPaths = 1024

// Service answers questions about access. It is safe for concurrent use.
type Service struct {
	cache   *policy.Cache
	records Records
	roles   Roles
	scans   chan struct{} // holds one for each search of the records
}

// New makes the service. The cache may be shared.
func New(cache *policy.Cache, records Records, roles Roles) *Service {
	return &Service{cache, records, roles, make(chan struct{}, maxScans)}
}

// Touches reports whether the caller may do anything on a mount's path or below it.
func (s *Service) Touches(ctx context.Context, mountPath string) bool {
	return policy.GrantOf(ctx).Touches(mountPath)
}

// Sudo reports whether the caller has the capability sudo on a path.
func (s *Service) Sudo(ctx context.Context, path string) bool { return policy.GrantOf(ctx).Sudo(path) }

// Allows reports whether the caller may do an operation on a path of the namespace that is viewed. A caller from a
// namespace above may only if it is root: its policies can't be read from here.
func (s *Service) Allows(view conclave.View, op conclave.Operation, path string) (bool, error) {
	caller := view.Caller()
	switch {
	case caller == nil:
		return false, nil
	case caller.Root:
		return true, nil
	case caller.Home.ID != view.Namespace().ID:
		return false, nil
	}
	grant, _, err := s.grant(view, caller)
	if err != nil {
		return false, err
	}
	return grant.Allows(policy.Check{Path: path, Operation: op}).Allowed, nil
}

// grant is what the caller of a token that lives in the viewed namespace may do there: as the pipeline finds it out for
// requests; and by which policies.
func (s *Service) grant(view conclave.View, caller *conclave.Caller) (*policy.Grant, []string, error) {
	names := caller.Policies
	var resolver policy.Resolver
	if caller.EntityID != "" {
		who, err := identity.Of(view, caller.EntityID)
		if err != nil {
			return nil, nil, err
		}
		if who == nil || who.Disabled {
			return &policy.Grant{ACL: policy.Compile()}, nil, nil
		}
		names, resolver = policy.Together(names, who.Policies), who
	}
	acl, err := s.cache.ACLFor(resolver, view, names)
	if err != nil {
		return nil, nil, err
	}
	return &policy.Grant{ACL: acl}, names, nil
}

// Question names the paths that are asked about.
type Question struct {
	Paths []string `json:"paths" doc:"Paths to ask about, without v1/."`
	Path  []string `json:"path" doc:"The same; kept for older clients."`
}

// TokenQuestion asks about another token.
type TokenQuestion struct {
	Question
	Token conclave.Secret `json:"token" doc:"The token to ask about."`
}

// AccessorQuestion asks about the token behind an accessor.
type AccessorQuestion struct {
	Question
	Accessor string `json:"accessor" doc:"The accessor of the token to ask about."`
}

// Routes are the operations of this package under sys/.
func (s *Service) Routes() []conclave.Route {
	routes := []conclave.Route{
		conclave.ReadRoute(conclave.Update, "capabilities-self", "What the calling token may do on paths.", s.self),
		conclave.ReadRoute(conclave.Update, "capabilities", "What a token may do on paths.", s.ofToken),
		conclave.ReadRoute(conclave.Update, "capabilities-accessor", "What the token behind an accessor may do on paths.", s.ofAccessor),
	}
	return append(routes, resultantRoute(), s.explainRoute(), s.simulateRoute(), s.whoRoute())
}

func (s *Service) self(ctx context.Context, _ conclave.View, in *Question) (*conclave.Response, error) {
	return in.answer(policy.GrantOf(ctx))
}

func (s *Service) ofToken(_ context.Context, view conclave.View, in *TokenQuestion) (*conclave.Response, error) {
	if in.Token.Empty() {
		return nil, conclave.Errorf(conclave.Invalid, "no token given")
	}
	caller, _, err := token.Authenticate(view, view.Namespace(), in.Token)
	if err != nil {
		return nil, orInvalid(err, "invalid token")
	}
	return s.of(view, caller, &in.Question)
}

func (s *Service) ofAccessor(_ context.Context, view conclave.View, in *AccessorQuestion) (*conclave.Response, error) {
	caller, err := token.CallerByAccessor(view, in.Accessor)
	if err != nil {
		return nil, err
	}
	if caller == nil {
		return nil, conclave.Errorf(conclave.Invalid, "invalid accessor")
	}
	return s.of(view, caller, &in.Question)
}

func (s *Service) of(view conclave.View, caller *conclave.Caller, q *Question) (*conclave.Response, error) {
	grant, _, err := s.grant(view, caller)
	if err != nil {
		return nil, err
	}
	return q.answer(grant)
}

// answer has one member a path, and "capabilities" as well when there is one path.
func (q *Question) answer(grant *policy.Grant) (*conclave.Response, error) {
	paths := slices.Concat(q.Paths, q.Path)
	if len(paths) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "paths must be given")
	}
	if len(paths) > maxPaths {
		return nil, conclave.Errorf(conclave.Invalid, "more than %d paths in one question", maxPaths)
	}
	data := make(map[string]any, len(paths)+1)
	for _, path := range paths {
		data[path] = grant.Capabilities(path)
	}
	if len(paths) == 1 {
		data["capabilities"] = data[paths[0]]
	}
	return &conclave.Response{Data: data, TopLevel: true}, nil
}
