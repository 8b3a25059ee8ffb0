package token

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"conclave"
)

// Logins knows the auth methods that tokens come from, and the identities behind tokens.
type Logins interface {
	// EntityOf finds the entity that an alias of auth/token/ is of, or makes it, and returns its id. An entity that is
	// disabled is Denied.
	EntityOf(tx conclave.Tx, alias string) (string, error)
	// PoliciesOf are the policies that an entity and its groups give; none if there is no such entity.
	PoliciesOf(view conclave.View, entityID string) ([]string, error)
	// RenewLogin has the auth method of a mount look at a login again, in tx, and returns the terms that hold from now on
	// with the mount. A mount that is gone, or a method that refuses, is an error.
	RenewLogin(ctx context.Context, tx conclave.Tx, mountUUID string, login *conclave.Login) (*conclave.TokenTerms, *conclave.Mount, error)
	// GatherRenewal reads what AskRenewal works from; nil if the method asks nobody outside about this login.
	GatherRenewal(view conclave.View, mountUUID string, login *conclave.Login) (any, error)
	// AskRenewal has the method ask outside of the vault; RenewLogin finds the answer in its context.
	AskRenewal(ctx context.Context, gathered any) (any, error)
}

// origin is what is kept of the login that a token comes from, for renewals.
type origin struct {
	MountUUID string          `json:"mount"`
	Alias     string          `json:"alias,omitempty"`
	Role      string          `json:"role,omitempty"`
	Internal  json.RawMessage `json:"internal,omitempty"`
}

// Granted is what the vault adds to a login before it makes a token of it.
type Granted struct {
	EntityID string
	// Policies come from the identity behind the login; they are shown, and not kept in the token.
	Policies []string
}

// maxInternal bounds what an auth method keeps in a token, in bytes.
const maxInternal = 16 << 10

// Login makes the token of a login: an orphan that lives by the login's terms within the limits of the mount.
func Login(tx conclave.Tx, minted Minted, login *conclave.Login, granted Granted, mount *conclave.Mount, path string) (*conclave.Response, error) {
	terms := login.Terms
	terms.Policies = append(append([]string{}, terms.Policies...), login.Policies...)
	if err := terms.Check(); err != nil {
		return nil, err
	}
	kind := typeOf(terms.Type, mount)
	if kind == batch && terms.NumUses > 0 {
		return nil, conclave.Errorf(conclave.Invalid, "batch tokens can't be limited in uses")
	}
	for _, name := range terms.Policies {
		if slices.Contains(reserved, name) {
			return nil, conclave.Errorf(conclave.Invalid, "cannot assign policy %q", name)
		}
	}
	if len(login.Internal) > maxInternal {
		return nil, conclave.Errorf(conclave.Internal, "the auth method keeps more than %d bytes in a token", maxInternal)
	}
	networks, err := conclave.Networks(terms.BoundCIDRs)
	if err != nil {
		return nil, err
	}
	if !terms.NoDefaultPolicy {
		terms.Policies = append(terms.Policies, defaultPolicy)
	}
	r := &Record{Policies: terms.Policies, Path: path, Metadata: login.Metadata, DisplayName: loginName(mount, login),
		EntityID: granted.EntityID, ExplicitMax: terms.ExplicitMaxTTL.Duration(), Period: terms.Period.Duration(),
		MaxTTL: terms.MaxTTL.Duration(), NumUses: terms.NumUses, Renewable: login.Renewable, BoundCIDRs: networks,
		Origin: &origin{MountUUID: mount.UUID, Alias: login.Alias.Name, Role: login.Role, Internal: login.Internal}}
	t := termsOf(mount)
	t.restrict(r)
	t.wanted, t.created = terms.TTL.Duration(), tx.Now()
	var warnings []string
	r.TTL, warnings = t.ttl(tx.Now())
	if r.Batch = kind == batch; r.Batch {
		r.Renewable = false
	}
	secret, err := issue(tx, minted, r)
	if err != nil {
		return nil, err
	}
	auth := r.auth(r.TTL)
	auth.ClientToken = secret
	auth.Policies = normalPolicies(append(append([]string{}, r.Policies...), granted.Policies...))
	return &conclave.Response{Auth: auth, Warnings: warnings}, nil
}

// typeOf is the type of token that a login gets: what its terms say, unless the mount insists; default means the mount's.
func typeOf(terms string, mount *conclave.Mount) string {
	switch mount.TokenType {
	case service, batch:
		return mount.TokenType
	case "default-batch":
		if terms == service || terms == "default-service" {
			return service
		}
		return batch
	}
	if terms == batch || terms == "default-batch" {
		return batch
	}
	return service
}

// loginName is the display name of a login's token: where it was logged in, and as whom.
func loginName(mount *conclave.Mount, login *conclave.Login) string {
	at := strings.ReplaceAll(strings.Trim(strings.TrimPrefix(mount.Path, "auth/"), "/"), "/", "-")
	if login.DisplayName == "" {
		return at
	}
	return at + "-" + login.DisplayName
}

// renewal is a token that is being renewed, as what it comes from has it now.
type renewal struct {
	record *Record
	mount  *conclave.Mount
	wanted time.Duration // where the client doesn't say
}

// reconsider has the auth method look again at the login behind a token, and takes over the terms that hold now. Tokens
// of a token role follow it; others that come from no login stay as they are.
func (s *routes) reconsider(ctx context.Context, tx conclave.Tx, r *Record) (*renewal, error) {
	same := *r
	o := r.Origin
	if o == nil && r.Role != "" {
		role, err := loadRole(tx, r.Role)
		if err != nil {
			return nil, err
		}
		if role == nil {
			return nil, conclave.Errorf(conclave.Invalid, "original token role %q could not be found, not renewing", r.Role)
		}
		same.Period, same.ExplicitMax = role.Period.Duration(), lesser(r.ExplicitMax, role.ExplicitMaxTTL.Duration())
	}
	if o == nil {
		return &renewal{&same, tx.Mount(), r.TTL}, nil
	}
	terms, mount, err := s.logins.RenewLogin(ctx, tx, o.MountUUID, r.login())
	if err != nil {
		return nil, err
	}
	same.Period, same.MaxTTL = terms.Period.Duration(), terms.MaxTTL.Duration()
	return &renewal{&same, mount, terms.TTL.Duration()}, nil
}

// login is what the token was made of, as its auth method sees it again.
func (r *Record) login() *conclave.Login {
	o := r.Origin
	login := &conclave.Login{Alias: conclave.Alias{Name: o.Alias}, Metadata: r.Metadata, DisplayName: r.DisplayName, Role: o.Role,
		Internal: o.Internal, Renewable: r.Renewable}
	login.Terms = conclave.TokenTerms{Policies: r.Policies, Period: conclave.InSeconds(r.Period), MaxTTL: conclave.InSeconds(r.MaxTTL),
		TTL: conclave.InSeconds(r.TTL), ExplicitMaxTTL: conclave.InSeconds(r.ExplicitMax)}
	return login
}

// asksFirst lets the auth method behind the token that a route renews ask outside of the vault, before the transaction.
func (s *routes) asksFirst(find func(view conclave.View, in any) (*Record, error)) func(*conclave.Route) {
	return func(route *conclave.Route) {
		route.Gather = func(view conclave.View, in any) (any, error) {
			r, err := find(view, in)
			if err != nil || r == nil || r.Origin == nil || r.Batch || !r.Renewable {
				return conclave.NoPreparation{}, nil // the handler says what is wrong
			}
			gathered, err := s.logins.GatherRenewal(view, r.Origin.MountUUID, r.login())
			if err != nil || gathered == nil {
				return conclave.NoPreparation{}, err
			}
			return gathered, nil
		}
		route.Prepare = func(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
			gathered, _ := conclave.Gathered[any](ctx)
			return s.logins.AskRenewal(ctx, gathered)
		}
	}
}

// restrict narrows a mount's terms by what a token itself says.
func (t *terms) restrict(r *Record) {
	t.period, t.explicitMax = r.Period, r.ExplicitMax
	if r.MaxTTL > 0 {
		t.maxTTL = min(t.maxTTL, r.MaxTTL)
		t.defaultTTL = min(t.defaultTTL, t.maxTTL)
	}
	if r.Created != 0 {
		t.created = time.Unix(0, r.Created)
	}
}

// wrappingPolicy is the one policy of wrapping tokens.
const wrappingPolicy = "response-wrapping"

// Wrapping finds a live wrapping token, nil if it is anything else. It takes no use of it.
func Wrapping(view conclave.View, secret conclave.Secret) (*Record, error) {
	if secret.Empty() || len(secret.Reveal()) > MaxSecret {
		return nil, nil
	}
	r, err := find(view, NameOf(secret))
	if err != nil || r == nil || len(r.Policies) != 1 || r.Policies[0] != wrappingPolicy {
		return nil, err
	}
	if caller := view.Caller(); caller != nil && caller.TokenID == r.Name {
		return r, nil // its use is taken by this very request
	}
	if _, any, err := usesLeft(view, r); err != nil || !any {
		return nil, err
	}
	return r, nil
}
