package access

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/identity"
	"conclave/policy"
	"conclave/token"
)

// Limits of one simulation.
const (
	maxChecks     = 1024
	maxCandidates = 16
	maxSimulated  = 256 // policies that are named
)

func (s *Service) simulateRoute() conclave.Route {
	route := conclave.ReadRoute(conclave.Update, "access/simulate", "What would be decided about operations on paths, by a token or by policies, and by which rule.\n\n"+
		"Policies may be given that aren't stored yet, under new names or instead of stored ones. Nothing is changed.", s.simulate)
	route.ClearRequest = []string{"policies", "entity_id"}
	return route
}

type simulateInput struct {
	Policies   []string          `json:"policies" doc:"Names of policies that apply."`
	Token      conclave.Secret   `json:"token" doc:"A token of this namespace whose policies apply, those of the identity behind it too."`
	Accessor   string            `json:"accessor" doc:"The same, by the token's accessor."`
	EntityID   string            `json:"entity_id" doc:"An entity whose policies apply, those of its groups too."`
	Candidates map[string]string `json:"candidates" doc:"Texts of policies that apply, by name; a stored policy of that name is left out."`
	Checks     []checkInput      `json:"checks" doc:"What to decide about."`
}

type checkInput struct {
	Path      string         `json:"path" doc:"The path, without v1/."`
	Operation string         `json:"operation" doc:"create, read, update, patch, delete, list or scan. Read if empty."`
	Sudo      bool           `json:"sudo" doc:"The path needs the capability sudo as well."`
	Fields    map[string]any `json:"fields" doc:"What the request gives, for rules about parameters."`
	WrapTTL   time.Duration  `json:"wrap_ttl" doc:"For how long the answer is to be wrapped."`
}

func (in *checkInput) check() (policy.Check, error) {
	op := conclave.Read
	if in.Operation != "" {
		var err error
		if op, err = policy.ParseOperation(in.Operation); err != nil {
			return policy.Check{}, err
		}
	}
	path := strings.TrimPrefix(strings.TrimPrefix(in.Path, "/"), "v1/")
	if path == "" {
		return policy.Check{}, conclave.Errorf(conclave.Invalid, "a check needs a path")
	}
	return policy.Check{Path: path, Operation: op, Sudo: in.Sudo, Fields: in.Fields, WrapTTL: in.WrapTTL}, nil
}

// Simulation is what would be decided.
type Simulation struct {
	Policies []string        `json:"policies" doc:"The policies that were applied, sorted. Those that don't exist say nothing."`
	Results  []policy.Answer `json:"results" doc:"The decisions, in the order of the checks."`
}

func (s *Service) simulate(_ context.Context, view conclave.View, in *simulateInput) (*Simulation, error) {
	if len(in.Checks) == 0 || len(in.Checks) > maxChecks {
		return nil, conclave.Errorf(conclave.Invalid, "a simulation has 1 to %d checks", maxChecks)
	}
	if len(in.Policies) > maxSimulated || len(in.Candidates) > maxCandidates {
		return nil, conclave.Errorf(conclave.Invalid, "a simulation has at most %d policies and %d candidates", maxSimulated, maxCandidates)
	}
	names, who, err := in.subject(view)
	if err != nil {
		return nil, err
	}
	acl, names, err := in.compile(view, names, who)
	if err != nil {
		return nil, err
	}
	out := &Simulation{names, make([]policy.Answer, 0, len(in.Checks))}
	for i := range in.Checks {
		check, err := in.Checks[i].check()
		if err != nil {
			return nil, err
		}
		out.Results = append(out.Results, acl.Answer(check))
	}
	return out, nil
}

// subject is whose policies apply: their names, and the identity that templates are resolved for.
func (in *simulateInput) subject(view conclave.View) (names []string, who *identity.Identity, err error) {
	entity := in.EntityID
	switch {
	case !in.Token.Empty():
		caller, _, err := token.Authenticate(view, view.Namespace(), in.Token)
		if err != nil {
			return nil, nil, orInvalid(err, "invalid token")
		}
		names, entity = caller.Policies, caller.EntityID
	case in.Accessor != "":
		caller, err := token.CallerByAccessor(view, in.Accessor)
		if err != nil {
			return nil, nil, err
		}
		if caller == nil {
			return nil, nil, conclave.Errorf(conclave.Invalid, "invalid accessor")
		}
		names, entity = caller.Policies, caller.EntityID
	}
	if entity != "" {
		if who, err = identity.Of(view, entity); err != nil {
			return nil, nil, err
		}
		switch {
		case who == nil:
			return nil, nil, conclave.Errorf(conclave.Invalid, "there is no such entity: its tokens may do nothing")
		case who.Disabled:
			return nil, nil, conclave.Errorf(conclave.Invalid, "the entity is disabled: its tokens may do nothing")
		}
		names = policy.Together(names, who.Policies)
	}
	return append(slices.Clone(in.Policies), names...), who, nil
}

// orInvalid is what those are told who give a token that is none; other errors stay.
func orInvalid(err error, text string) error {
	if conclave.Is(err, conclave.Denied) {
		return conclave.Errorf(conclave.Invalid, "%s", text)
	}
	return err
}

// compile loads the policies, parses the candidates, and returns what they say together, with their names.
func (in *simulateInput) compile(view conclave.View, names []string, who *identity.Identity) (*policy.ACL, []string, error) {
	set := map[string]*policy.Policy{}
	for name, source := range in.Candidates {
		p, err := policy.Parse(name, source)
		if err != nil {
			return nil, nil, err
		}
		set[p.Name] = p
	}
	for _, name := range names {
		name = policy.NormalName(name)
		if _, given := set[name]; given || name == "" {
			continue
		}
		p, err := policy.Load(view, name)
		if err != nil {
			return nil, nil, err
		}
		set[name] = p
	}
	sorted := slices.Sorted(maps.Keys(set))
	policies := make([]*policy.Policy, len(sorted))
	for i, name := range sorted {
		policies[i] = set[name]
	}
	var resolver policy.Resolver
	if who != nil {
		resolver = who
	}
	return policy.CompileFor(resolver, policies...), sorted, nil
}
