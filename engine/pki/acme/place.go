package acme

import (
	"context"

	"conclave"
)

// place is whose directory it is.
type place struct {
	Role   string `json:"role,omitempty"`
	Issuer string `json:"issuer,omitempty"` // a reference
}

// prefix is the part of a path below the mount that names the place.
func (p place) prefix() string {
	prefix := ""
	if p.Issuer != "" {
		prefix = "issuer/" + p.Issuer + "/"
	}
	if p.Role != "" {
		prefix += "roles/" + p.Role + "/"
	}
	return prefix
}

// target is what a request is about, by the ids in its path.
type target struct{ id, challenge string }

// input is what all requests of the protocol have.
type input interface {
	scope() place
	body() *signed
	target() target
}

// The places that a path can name.
type (
	plain  struct{}
	inRole struct {
		Role string `path:"role" doc:"Name of the role."`
	}
	inIssuer struct {
		Issuer string `path:"issuer_ref" doc:"Id or name of the issuer."`
	}
	inBoth struct {
		Issuer string `path:"issuer_ref" doc:"Id or name of the issuer."`
		Role   string `path:"role" doc:"Name of the role."`
	}
)

func (plain) scope() place      { return place{} }
func (p inRole) scope() place   { return place{Role: p.Role} }
func (p inIssuer) scope() place { return place{Issuer: p.Issuer} }
func (p inBoth) scope() place   { return place{p.Role, p.Issuer} }

// What a path can name below a directory.
type (
	nothing   struct{}
	ofAccount struct {
		ID string `path:"account_id" doc:"Id of the account."`
	}
	ofOrder struct {
		ID string `path:"order_id" doc:"Id of the order."`
	}
	ofAuthorization struct {
		ID string `path:"auth_id" doc:"Id of the authorization."`
	}
	ofChallenge struct {
		ID   string `path:"auth_id" doc:"Id of the authorization."`
		Kind string `path:"challenge_type" doc:"http-01, dns-01 or tls-alpn-01."`
	}
)

func (nothing) target() target           { return target{} }
func (t ofAccount) target() target       { return target{id: t.ID} }
func (t ofOrder) target() target         { return target{id: t.ID} }
func (t ofAuthorization) target() target { return target{id: t.ID} }
func (t ofChallenge) target() target     { return target{t.ID, t.Kind} }

// The inputs: each place with each thing.
type (
	plainIn struct {
		plain
		nothing
		signed
	}
	roleIn struct {
		inRole
		nothing
		signed
	}
	issuerIn struct {
		inIssuer
		nothing
		signed
	}
	bothIn struct {
		inBoth
		nothing
		signed
	}
	plainAccount struct {
		plain
		ofAccount
		signed
	}
	roleAccount struct {
		inRole
		ofAccount
		signed
	}
	issuerAccount struct {
		inIssuer
		ofAccount
		signed
	}
	bothAccount struct {
		inBoth
		ofAccount
		signed
	}
	plainOrder struct {
		plain
		ofOrder
		signed
	}
	roleOrder struct {
		inRole
		ofOrder
		signed
	}
	issuerOrder struct {
		inIssuer
		ofOrder
		signed
	}
	bothOrder struct {
		inBoth
		ofOrder
		signed
	}
	plainAuthorization struct {
		plain
		ofAuthorization
		signed
	}
	roleAuthorization struct {
		inRole
		ofAuthorization
		signed
	}
	issuerAuthorization struct {
		inIssuer
		ofAuthorization
		signed
	}
	bothAuthorization struct {
		inBoth
		ofAuthorization
		signed
	}
	plainChallenge struct {
		plain
		ofChallenge
		signed
	}
	roleChallenge struct {
		inRole
		ofChallenge
		signed
	}
	issuerChallenge struct {
		inIssuer
		ofChallenge
		signed
	}
	bothChallenge struct {
		inBoth
		ofChallenge
		signed
	}
)

// prefixes are the patterns of the places, in the order in which the routes take their inputs.
func prefixes() [4]string {
	return [4]string{"acme/", "roles/{role}/acme/", "issuer/{issuer_ref}/acme/", "issuer/{issuer_ref}/roles/{role}/acme/"}
}

// deed is one operation of the protocol, which all directories have.
type deed struct {
	path, doc string
	by        keyed
	makes     bool // something that needs randomness
	handle    handler
}

func postRoute[In any, P interface {
	*In
	input
}](s *Service, prefix string, d deed) conclave.Route {
	route := conclave.WriteRoute(conclave.Update, prefix+d.path, d.doc, func(ctx context.Context, tx conclave.Tx, in *In) (*conclave.Response, error) {
		return s.serve(ctx, tx, P(in), d.by, d.handle)
	}).With(conclave.Public)
	if d.makes {
		route.Prepare = prepareChance
	}
	return route
}

func (s *Service) everywhere(d deed) []conclave.Route {
	at := prefixes()
	return []conclave.Route{postRoute[plainIn](s, at[0], d), postRoute[roleIn](s, at[1], d), postRoute[issuerIn](s, at[2], d), postRoute[bothIn](s, at[3], d)}
}

func (s *Service) onAccounts(d deed) []conclave.Route {
	at := prefixes()
	return []conclave.Route{postRoute[plainAccount](s, at[0], d), postRoute[roleAccount](s, at[1], d), postRoute[issuerAccount](s, at[2], d), postRoute[bothAccount](s, at[3], d)}
}

func (s *Service) onOrders(d deed) []conclave.Route {
	at := prefixes()
	return []conclave.Route{postRoute[plainOrder](s, at[0], d), postRoute[roleOrder](s, at[1], d), postRoute[issuerOrder](s, at[2], d), postRoute[bothOrder](s, at[3], d)}
}

func (s *Service) onAuthorizations(d deed) []conclave.Route {
	at := prefixes()
	return []conclave.Route{postRoute[plainAuthorization](s, at[0], d), postRoute[roleAuthorization](s, at[1], d), postRoute[issuerAuthorization](s, at[2], d), postRoute[bothAuthorization](s, at[3], d)}
}

func (s *Service) onChallenges(d deed) []conclave.Route {
	at := prefixes()
	return []conclave.Route{postRoute[plainChallenge](s, at[0], d), postRoute[roleChallenge](s, at[1], d), postRoute[issuerChallenge](s, at[2], d), postRoute[bothChallenge](s, at[3], d)}
}
