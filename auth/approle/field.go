package approle

import (
	"context"

	"conclave"
)

// The routes below role/{role_name}/ for one setting each: reading it, setting it, and setting it back to what a new role
// has. For each, a struct of the setting, and one that is the input of its route.
type (
	policies struct {
		Policies []string `json:"token_policies" doc:"Policies of the tokens."`
	}
	policiesIn struct {
		named
		policies
		Old []string `json:"policies" doc:"The old name of token_policies."`
	}
	period struct {
		Period conclave.Seconds `json:"token_period" doc:"Make periodic tokens: each renewal sets their time to live to this."`
	}
	periodIn struct {
		named
		period
		Old conclave.Seconds `json:"period" doc:"The old name of token_period."`
	}
	tokenTTL struct {
		TTL conclave.Seconds `json:"token_ttl" doc:"Time to live of the tokens; 0 is the mount's."`
	}
	tokenTTLIn struct {
		named
		tokenTTL
	}
	tokenMaxTTL struct {
		MaxTTL conclave.Seconds `json:"token_max_ttl" doc:"The longest life of a token, with all renewals; 0 is the mount's."`
	}
	tokenMaxTTLIn struct {
		named
		tokenMaxTTL
	}
	tokenNumUses struct {
		NumUses int `json:"token_num_uses" doc:"Requests that a token can make; 0 is unlimited."`
	}
	tokenNumUsesIn struct {
		named
		tokenNumUses
	}
	tokenCIDRs struct {
		CIDRs []string `json:"token_bound_cidrs" doc:"Addresses or networks that logins and tokens may come from; empty is all."`
	}
	tokenCIDRsIn struct {
		named
		tokenCIDRs
	}
	secretCIDRs struct {
		CIDRs []string `json:"secret_id_bound_cidrs" doc:"Addresses or networks that logins may come from; empty is all."`
	}
	secretCIDRsIn struct {
		named
		secretCIDRs
	}
	oldCIDRs struct {
		CIDRs []string `json:"bound_cidr_list" doc:"The old name of secret_id_bound_cidrs."`
	}
	oldCIDRsIn struct {
		named
		oldCIDRs
	}
	secretNumUses struct {
		NumUses int `json:"secret_id_num_uses" doc:"Uses of each secret-id; 0 is unlimited."`
	}
	secretNumUsesIn struct {
		named
		secretNumUses
	}
	secretTTL struct {
		TTL conclave.Seconds `json:"secret_id_ttl" doc:"Time to live of each secret-id; 0 is unlimited."`
	}
	secretTTLIn struct {
		named
		secretTTL
	}
	bindSecretID struct {
		Bind bool `json:"bind_secret_id" doc:"Whether logins must present a secret-id."`
	}
	bindSecretIDIn struct {
		named
		bindSecretID
	}
	localSecretIDs struct {
		Local bool `json:"local_secret_ids" doc:"What the role was created with."`
	}
)

func fieldRoutes() []conclave.Route {
	var routes []conclave.Route
	add := func(more []conclave.Route) { routes = append(routes, more...) }
	add(field[policiesIn]("policies", "token_policies", func(s *settings) *policies { return &policies{s.Policies} },
		func(s *settings) { s.Policies = nil }))
	add(field[periodIn]("period", "token_period", func(s *settings) *period { return &period{s.Period} },
		func(s *settings) { s.Period = 0 }))
	add(field[tokenTTLIn]("token-ttl", "token_ttl", func(s *settings) *tokenTTL { return &tokenTTL{s.TTL} },
		func(s *settings) { s.TTL = 0 }))
	add(field[tokenMaxTTLIn]("token-max-ttl", "token_max_ttl", func(s *settings) *tokenMaxTTL { return &tokenMaxTTL{s.MaxTTL} },
		func(s *settings) { s.MaxTTL = 0 }))
	add(field[tokenNumUsesIn]("token-num-uses", "token_num_uses", func(s *settings) *tokenNumUses { return &tokenNumUses{s.NumUses} },
		func(s *settings) { s.NumUses = 0 }))
	add(field[tokenCIDRsIn]("token-bound-cidrs", "token_bound_cidrs", func(s *settings) *tokenCIDRs { return &tokenCIDRs{s.BoundCIDRs} },
		func(s *settings) { s.BoundCIDRs = nil }))
	add(field[secretCIDRsIn]("secret-id-bound-cidrs", "secret_id_bound_cidrs", func(s *settings) *secretCIDRs { return &secretCIDRs{s.SecretIDBoundCIDRs} },
		func(s *settings) { s.SecretIDBoundCIDRs = nil }))
	add(field[oldCIDRsIn]("bound-cidr-list", "bound_cidr_list", func(s *settings) *oldCIDRs { return &oldCIDRs{s.SecretIDBoundCIDRs} },
		func(s *settings) { s.SecretIDBoundCIDRs = nil }))
	add(field[secretNumUsesIn]("secret-id-num-uses", "secret_id_num_uses", func(s *settings) *secretNumUses { return &secretNumUses{s.SecretIDNumUses} },
		func(s *settings) { s.SecretIDNumUses = 0 }))
	add(field[secretTTLIn]("secret-id-ttl", "secret_id_ttl", func(s *settings) *secretTTL { return &secretTTL{s.SecretIDTTL} },
		func(s *settings) { s.SecretIDTTL = 0 }))
	add(field[bindSecretIDIn]("bind-secret-id", "bind_secret_id", func(s *settings) *bindSecretID { return &bindSecretID{s.BindSecretID} },
		func(s *settings) { s.BindSecretID = true }))
	return append(routes, readField("local-secret-ids", "local_secret_ids", func(s *settings) *localSecretIDs { return &localSecretIDs{s.LocalSecretIDs} }))
}

// below is the input of a route below a role.
type below interface{ role() string }

func (n named) role() string { return n.Name }

// field makes the routes of one setting, at a segment below the role.
func field[In below, Out any](segment, name string, get func(*settings) *Out, reset func(*settings)) []conclave.Route {
	write := func(_ context.Context, tx conclave.Tx, in *In) (*conclave.Response, error) {
		old, err := existing(tx, (*in).role())
		if err != nil {
			return nil, err
		}
		fields := tx.Request().Fields
		given := map[string]any{}
		for _, spelling := range []string{name, oldNameOf(name)} {
			if value := fields[spelling]; value != nil && len(given) == 0 {
				given[spelling] = value
			}
		}
		if len(given) == 0 {
			return nil, conclave.Errorf(conclave.Invalid, "missing %s", name)
		}
		r := *old
		if err := conclave.Merge(&r.Settings, present(given)); err != nil {
			return nil, err
		}
		if err := r.Settings.check(); err != nil {
			return nil, err
		}
		return &conclave.Response{Warnings: r.Settings.adjust(tx.Mount())}, r.save(tx, old)
	}
	remove := func(_ context.Context, tx conclave.Tx, in *named) (*conclave.None, error) {
		old, err := roleNamed(tx, in.Name)
		if err != nil || old == nil {
			return nil, err
		}
		r := *old
		reset(&r.Settings)
		if err := r.Settings.check(); err != nil {
			return nil, err
		}
		return nil, r.save(tx, old)
	}
	return []conclave.Route{
		readField(segment, name, get),
		conclave.WriteRoute(conclave.Update, "role/{role_name}/"+segment, "Set "+name+" of a role, and nothing else.", write),
		conclave.WriteRoute(conclave.Delete, "role/{role_name}/"+segment, "Set "+name+" of a role to what a new role has.", remove),
	}
}

func readField[Out any](segment, name string, get func(*settings) *Out) conclave.Route {
	read := func(_ context.Context, view conclave.View, in *named) (*Out, error) {
		r, err := existing(view, in.Name)
		if err != nil {
			return nil, err
		}
		return get(&r.Settings), nil
	}
	return conclave.ReadRoute(conclave.Read, "role/{role_name}/"+segment, "Read "+name+" of a role.", read)
}

// oldNameOf is the old name of a field, its own if it has none.
func oldNameOf(name string) string {
	for old, today := range oldNames {
		if today == name {
			return old
		}
	}
	return name
}
