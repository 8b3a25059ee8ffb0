package access

import (
	"context"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/policy"
)

func resultantRoute() conclave.Route {
	return conclave.ReadRoute(conclave.Read, "internal/ui/resultant-acl", "All that the calling token's policies say, merged, for user interfaces.", resultant)
}

// Resultant is what a token may do, rule by rule. Keys are paths from the root namespace on: of a rule that ends in "*",
// without that, unless it has "+" as well.
type Resultant struct {
	Root  bool             `json:"root" doc:"The token may do everything; the rest is left out."`
	Exact map[string]*Rule `json:"exact_paths,omitempty" doc:"What is said about exact paths, by path."`
	Glob  map[string]*Rule `json:"glob_paths,omitempty" doc:"What is said about paths that begin so, by what they begin with. Those with + for a segment are as in policies."`
}

// Rule is what the policies of a token say together about one pattern of paths.
type Rule struct {
	Capabilities []string            `json:"capabilities" doc:"What may be done."`
	Required     []string            `json:"required_parameters,omitempty" doc:"Fields that must be given."`
	Allowed      map[string][]string `json:"allowed_parameters,omitempty" doc:"Values that fields may have; none means any."`
	Denied       map[string][]string `json:"denied_parameters,omitempty" doc:"Values that fields may not have; none means any."`
	MinWrap      int64               `json:"min_wrapping_ttl,omitempty" doc:"For how many seconds the answer must be wrapped at least."`
	MaxWrap      int64               `json:"max_wrapping_ttl,omitempty" doc:"For how many seconds at most."`
	PageLimit    int                 `json:"pagination_limit,omitempty" doc:"The largest page of a listing."`
}

func resultant(ctx context.Context, view conclave.View, _ *conclave.None) (*Resultant, error) {
	acl := policy.GrantOf(ctx).ACL
	if acl.Root() {
		return &Resultant{Root: true}, nil
	}
	home := ""
	if caller := view.Caller(); caller != nil {
		home = caller.Home.Path
	}
	out := &Resultant{Exact: map[string]*Rule{}, Glob: map[string]*Rule{}}
	for _, s := range acl.Summaries() {
		path, glob := strings.CutSuffix(s.Pattern, "*")
		table := out.Exact
		switch {
		case slices.Contains(strings.Split(path, "/"), "+"):
			path, table = s.Pattern, out.Glob
		case glob:
			table = out.Glob
		}
		rule := &Rule{Capabilities: s.Capabilities.Names(), Required: s.Limits.Required, Allowed: s.Limits.Allowed, Denied: s.Limits.Denied,
			MinWrap: int64(s.Limits.MinWrap / time.Second), MaxWrap: int64(s.Limits.MaxWrap / time.Second), PageLimit: s.Limits.PageLimit}
		if rule.Capabilities == nil {
			rule.Capabilities = []string{}
		}
		table[home+path] = rule
	}
	return out, nil
}
