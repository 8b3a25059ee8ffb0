package token

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"conclave"
)

// Access answers what policies say about the caller.
type Access interface {
	// Sudo reports whether the caller has the capability sudo on a path, relative to the namespace.
	Sudo(ctx context.Context, path string) bool
}

type createInput struct {
	ID              conclave.Secret   `json:"id" doc:"The token itself, instead of a random one; needs sudo."`
	Policies        []string          `json:"policies" doc:"Policies, a subset of the caller's own unless that has sudo. None: the caller's own."`
	Metadata        map[string]string `json:"meta" doc:"Metadata for the audit log."`
	NoParent        bool              `json:"no_parent" doc:"Make an orphan, which doesn't end with the caller's token; needs sudo."`
	NoDefaultPolicy bool              `json:"no_default_policy" doc:"Don't add the policy default."`
	Renewable       *bool             `json:"renewable" doc:"Whether the token can be renewed; true if not given."`
	TTL             time.Duration     `json:"ttl" doc:"Time to live, such as 1h; the mount's default if not given."`
	Lease           time.Duration     `json:"lease" doc:"An old name of ttl."`
	Type            string            `json:"type" doc:"The type of token: service, or batch, which is stored nowhere and can be neither renewed nor revoked."`
	ExplicitMaxTTL  time.Duration     `json:"explicit_max_ttl" doc:"An end that no renewal can pass, counted from creation."`
	DisplayName     string            `json:"display_name" doc:"A name for the audit log; token- is put before it."`
	NumUses         int               `json:"num_uses" doc:"Requests that the token can make; 0 is unlimited."`
	Period          time.Duration     `json:"period" doc:"Make a periodic token: each renewal sets its time to live to this; needs sudo."`
	EntityAlias     string            `json:"entity_alias" doc:"Only for tokens made by a role."`
}

// reserved are policies that only the vault itself gives to tokens.
var reserved = []string{"control-group", "response-wrapping"}

func (s *routes) create(orphan bool) conclave.Route {
	pattern, doc := "create", "Create a token, a child of the caller's.\n\nA child ends with its parent, at once and on every node. Its policies are "+
		"a subset of the caller's unless the caller has sudo on this path."
	if orphan {
		pattern, doc = "create-orphan", "Create a token without a parent: it doesn't end with the caller's."
	}
	handle := func(ctx context.Context, tx conclave.Tx, in *createInput) (*conclave.Response, error) {
		minted, ok := conclave.Prepared[Minted](ctx)
		if !ok {
			return nil, conclave.Errorf(conclave.Internal, "no randomness was prepared")
		}
		return s.issue(ctx, tx, in, minted, "auth/token/"+pattern, orphan)
	}
	route := conclave.WriteRoute(conclave.Update, pattern, doc, handle)
	route.Prepare = func(context.Context, *conclave.Request, any) (any, error) { return mintAny(s.random) }
	return route
}

func mintAny(random io.Reader) (any, error) {
	minted, err := Mint(random)
	if err != nil {
		return nil, err
	}
	return minted, nil
}

func (s *routes) issue(ctx context.Context, tx conclave.Tx, in *createInput, minted Minted, path string, orphan bool) (*conclave.Response, error) {
	parent, sudo, err := s.parent(ctx, tx, path)
	if err != nil {
		return nil, err
	}
	if err := in.check(sudo); err != nil {
		return nil, err
	}
	r := &Record{Path: path, Metadata: in.Metadata, NumUses: in.NumUses, Renewable: in.Type != batch && (in.Renewable == nil || *in.Renewable),
		Batch: in.Type == batch, DisplayName: displayName(in.DisplayName), ExplicitMax: in.ExplicitMaxTTL, Period: in.Period, BoundCIDRs: parent.BoundCIDRs}
	if !in.NoParent && !orphan {
		r.bind(tx, parent)
	}
	if r.Policies, err = in.policies(parent, sudo); err != nil {
		return nil, err
	}
	if r.Batch && r.Root() {
		return nil, conclave.Errorf(conclave.Invalid, "batch tokens cannot be root tokens")
	}
	warnings, err := in.decideTTL(tx, parent, r)
	if err != nil {
		return nil, err
	}
	if !in.ID.Empty() {
		if err := checkID(in.ID); err != nil {
			return nil, err
		}
		minted.Secret = in.ID
	}
	secret, err := issue(tx, minted, r)
	if err != nil {
		return nil, err
	}
	auth := r.auth(r.TTL)
	auth.ClientToken = secret
	return &conclave.Response{Auth: auth, Warnings: warnings}, nil
}

// parent is the caller's own token, and whether it has sudo on path. A caller from a namespace above has no record here:
// all that matters of it is known from the request.
func (s *routes) parent(ctx context.Context, tx conclave.Tx, path string) (*Record, bool, error) {
	caller := tx.Caller()
	switch {
	case caller == nil:
		return nil, false, denied()
	case caller.Type == batch:
		return nil, false, conclave.Errorf(conclave.Invalid, "batch tokens cannot create more tokens")
	}
	if caller.Home.ID != tx.Namespace().ID {
		above := &Record{Name: caller.TokenID, Policies: caller.Policies, Guardian: &Guardian{caller.Home.ID, caller.TokenID}}
		switch {
		case caller.Root:
			return above, true, nil
		case s.access.Sudo(ctx, path):
			return above, true, nil
		}
		return nil, false, conclave.Errorf(conclave.Invalid, "a token from a namespace above needs sudo on %s to create tokens here", path)
	}
	parent, err := s.self(tx)
	if err != nil {
		return nil, false, err
	}
	if parent.NumUses > 0 {
		return nil, false, conclave.Errorf(conclave.Invalid, "restricted use token cannot generate child tokens")
	}
	return parent, parent.Root() || s.access.Sudo(ctx, path), nil
}

// bind makes a new token end with its parent.
func (r *Record) bind(view conclave.View, parent *Record) {
	r.Guardian = parent.Guardian
	if caller := view.Caller(); caller != nil && caller.Home.ID == view.Namespace().ID {
		r.Parent, r.EntityID = parent.Name, parent.EntityID
	}
}

func (in *createInput) check(sudo bool) error {
	if in.TTL == 0 {
		in.TTL = in.Lease
	}
	switch {
	case in.Type != "" && in.Type != service && in.Type != batch:
		return conclave.Errorf(conclave.Invalid, "invalid 'token_type' value: tokens have the type service or batch")
	case in.Type == batch && in.ExplicitMaxTTL != 0:
		return conclave.Errorf(conclave.Invalid, "batch tokens cannot have %q set", "explicit_max_ttl")
	case in.Type == batch && in.NumUses != 0:
		return conclave.Errorf(conclave.Invalid, "batch tokens cannot have %q set", "num_uses")
	case in.Type == batch && in.Period != 0:
		return conclave.Errorf(conclave.Invalid, "batch tokens cannot have %q set", "period")
	case in.Type == batch && !in.ID.Empty():
		return conclave.Errorf(conclave.Invalid, "batch tokens cannot have %q set", "id")
	case in.EntityAlias != "":
		return conclave.Errorf(conclave.Invalid, "'entity_alias' is only allowed in combination with token role")
	case in.NumUses < 0:
		return conclave.Errorf(conclave.Invalid, "number of uses cannot be negative")
	case in.TTL < 0:
		return conclave.Errorf(conclave.Invalid, "ttl must be positive")
	case in.ExplicitMaxTTL < 0:
		return conclave.Errorf(conclave.Invalid, "explicit_max_ttl must be positive")
	case in.Period < 0:
		return conclave.Errorf(conclave.Invalid, "period must be positive")
	case max(in.TTL, in.ExplicitMaxTTL, in.Period) > maxTTL:
		return conclave.Errorf(conclave.Invalid, "a token lives for at most a hundred years")
	case sudo:
		return nil
	case !in.ID.Empty():
		return conclave.Errorf(conclave.Invalid, "root or sudo privileges required to specify token id")
	case in.NoParent:
		return conclave.Errorf(conclave.Invalid, "root or sudo privileges required to create orphan token")
	case in.Period > 0:
		return conclave.Errorf(conclave.Invalid, "root or sudo privileges required to create periodic token")
	}
	return nil
}

// policies decides the new token's policies.
func (in *createInput) policies(parent *Record, sudo bool) ([]string, error) {
	list, addDefault := normalPolicies(in.Policies), false
	switch {
	case len(list) == 0:
		list = slices.Clone(parent.Policies)
	case sudo:
		addDefault = true
	default:
		for _, name := range list {
			if !slices.Contains(parent.Policies, name) {
				return nil, conclave.Errorf(conclave.Invalid, "child policies must be subset of parent")
			}
		}
		addDefault = slices.Contains(parent.Policies, defaultPolicy)
	}
	if slices.Contains(list, rootPolicy) {
		if !parent.Root() {
			return nil, conclave.Errorf(conclave.Invalid, "root tokens may not be created without parent token being root")
		}
		return []string{rootPolicy}, nil
	}
	for _, name := range list {
		if slices.Contains(reserved, name) {
			return nil, conclave.Errorf(conclave.Invalid, "cannot assign policy %q", name)
		}
	}
	if addDefault {
		list = append(list, defaultPolicy)
	}
	if in.NoDefaultPolicy {
		list = slices.DeleteFunc(list, func(name string) bool { return name == defaultPolicy })
	}
	return normalPolicies(list), nil
}

func (in *createInput) decideTTL(view conclave.View, parent, r *Record) (warnings []string, err error) {
	if r.Root() && r.Period == 0 && r.ExplicitMax == 0 {
		if in.TTL == 0 && parent.Expires != 0 {
			return nil, conclave.Errorf(conclave.Invalid, "expiring root tokens cannot create non-expiring root tokens")
		}
		r.TTL = in.TTL
		r.Renewable = r.Renewable && r.TTL > 0
		return nil, nil
	}
	t := termsOf(view.Mount())
	t.wanted, t.period, t.explicitMax, t.created = in.TTL, r.Period, r.ExplicitMax, view.Now()
	r.TTL, warnings = t.ttl(view.Now())
	return warnings, nil
}

func displayName(given string) string {
	if given == "" {
		return "token"
	}
	plain := strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, given)
	return strings.TrimSuffix("token-"+plain, "-")
}

func checkID(id conclave.Secret) error {
	text := id.Reveal()
	if len(text) > MaxSecret || strings.ContainsAny(text, " \t\r\n/") || strings.HasPrefix(text, Prefix) || strings.HasPrefix(text, BatchPrefix) {
		return conclave.Errorf(conclave.Invalid, "a token id can't be longer than %d bytes, contain blanks or slashes, or begin with hvs. or hvb.", MaxSecret)
	}
	for _, r := range text {
		if r < ' ' || r > '~' {
			return conclave.Errorf(conclave.Invalid, "a token id is plain ASCII")
		}
	}
	return nil
}

// auth describes the token as logins and renewals are answered.
func (r *Record) auth(ttl time.Duration) *conclave.Auth {
	return &conclave.Auth{Accessor: r.Accessor, Policies: r.Policies, TokenPolicies: r.Policies, Metadata: r.Metadata,
		EntityID: r.EntityID, TokenType: r.Type(), TTL: ttl, Renewable: r.Renewable && r.Expires != 0, Orphan: r.Orphan(), NumUses: r.NumUses,
		DisplayName: r.DisplayName}
}
