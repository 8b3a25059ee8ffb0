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
	return s.making(conclave.WriteRoute(conclave.Update, pattern, doc, func(ctx context.Context, tx conclave.Tx, in *createInput) (*conclave.Response, error) {
		return s.make(ctx, tx, &order{createInput: *in, path: "auth/token/" + pattern, orphan: orphan})
	}))
}

type createByInput struct {
	RoleName string `path:"role_name" doc:"The role's name."`
	createInput
}

func (s *routes) createBy() conclave.Route {
	const doc = "Create a token by a role.\n\nThe role says what the token may be, whatever the caller's own policies are: who may use this path " +
		"may have such tokens."
	return s.making(conclave.WriteRoute(conclave.Update, "create/{role_name}", doc, func(ctx context.Context, tx conclave.Tx, in *createByInput) (*conclave.Response, error) {
		role, err := loadRole(tx, in.RoleName)
		if err != nil {
			return nil, err
		}
		if role == nil {
			return nil, conclave.Errorf(conclave.Invalid, "unknown role %q", in.RoleName)
		}
		o := &order{createInput: in.createInput, path: "auth/token/create/" + in.RoleName, role: role, roleName: in.RoleName, orphan: role.Orphan}
		return s.make(ctx, tx, o)
	}))
}

func (s *routes) making(route conclave.Route) conclave.Route {
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

// order is a token that a request asks for.
type order struct {
	createInput
	path     string // of the request
	orphan   bool
	role     *Role // nil without one
	roleName string
}

// maker is who asks for a token.
type maker struct {
	*Record
	sudo  bool
	above bool // lives in a namespace above
}

func (s *routes) make(ctx context.Context, tx conclave.Tx, o *order) (*conclave.Response, error) {
	minted, ok := conclave.Prepared[Minted](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "no randomness was prepared")
	}
	by, err := s.maker(ctx, tx, o.path)
	if err != nil {
		return nil, err
	}
	if o.role != nil {
		o.role.apply(&o.createInput)
	}
	if err := o.check(by.sudo); err != nil {
		return nil, err
	}
	r := &Record{Path: o.path, Metadata: o.Metadata, NumUses: o.NumUses, Renewable: o.Type != batch && (o.Renewable == nil || *o.Renewable),
		Batch: o.Type == batch, DisplayName: displayName(o.DisplayName), Role: o.roleName, BoundCIDRs: by.BoundCIDRs}
	if o.role != nil {
		r.BoundCIDRs = o.role.networks
		if o.role.PathSuffix != "" {
			r.Path += "/" + o.role.PathSuffix
		}
	}
	if !o.NoParent && !o.orphan {
		r.bind(by)
	}
	if r.EntityID, err = s.entity(tx, o, r.EntityID); err != nil {
		return nil, err
	}
	if r.Policies, err = o.policies(by); err != nil {
		return nil, err
	}
	if r.Batch && r.Root() {
		return nil, conclave.Errorf(conclave.Invalid, "batch tokens cannot be root tokens")
	}
	warnings, err := o.decideTTL(tx, by, r)
	if err != nil {
		return nil, err
	}
	if !o.ID.Empty() {
		if err := checkID(o.ID); err != nil {
			return nil, err
		}
		minted.Secret = o.ID
	}
	secret, err := issue(tx, minted, r)
	if err != nil {
		return nil, err
	}
	auth := r.auth(r.TTL)
	auth.ClientToken = secret
	return &conclave.Response{Auth: auth, Warnings: warnings}, s.addIdentity(tx, auth)
}

// entity is the identity behind a new token: that of the alias that the request names, or else its parent's.
func (s *routes) entity(tx conclave.Tx, o *order, inherited string) (string, error) {
	switch {
	case o.EntityAlias == "":
		return inherited, nil
	case o.role == nil:
		return "", conclave.Errorf(conclave.Invalid, "'entity_alias' is only allowed in combination with token role")
	case !o.role.allowsAlias(o.EntityAlias):
		return "", conclave.Errorf(conclave.Invalid, "invalid 'entity_alias' value")
	}
	return s.logins.EntityOf(tx, o.EntityAlias)
}

// addIdentity adds what the identity behind a token gives to the policies that are answered.
func (s *routes) addIdentity(view conclave.View, auth *conclave.Auth) error {
	if auth.EntityID == "" {
		return nil
	}
	more, err := s.logins.PoliciesOf(view, auth.EntityID)
	if len(more) > 0 {
		auth.Policies = normalPolicies(slices.Concat(auth.Policies, more))
	}
	return err
}

// maker is the caller's own token, and whether it has sudo on path. A caller from a namespace above has no record here:
// all that matters of it is known from the request.
func (s *routes) maker(ctx context.Context, tx conclave.Tx, path string) (*maker, error) {
	caller := tx.Caller()
	switch {
	case caller == nil:
		return nil, denied()
	case caller.Type == batch:
		return nil, conclave.Errorf(conclave.Invalid, "batch tokens cannot create more tokens")
	}
	if caller.Home.ID != tx.Namespace().ID {
		above := &Record{Name: caller.TokenID, Policies: caller.Policies, Guardian: &Guardian{caller.Home.ID, caller.TokenID}}
		if caller.Root || s.access.Sudo(ctx, path) {
			return &maker{above, true, true}, nil
		}
		return nil, conclave.Errorf(conclave.Invalid, "a token from a namespace above needs sudo on %s to create tokens here", path)
	}
	parent, err := s.self(tx)
	if err != nil {
		return nil, err
	}
	if parent.NumUses > 0 {
		return nil, conclave.Errorf(conclave.Invalid, "restricted use token cannot generate child tokens")
	}
	return &maker{parent, parent.Root() || s.access.Sudo(ctx, path), false}, nil
}

// bind makes a new token end with its parent.
func (r *Record) bind(parent *maker) {
	r.Guardian = parent.Guardian
	if !parent.above {
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

// policies decides the new token's policies. Those of a maker from above are of another namespace: they are not inherited.
func (o *order) policies(by *maker) ([]string, error) {
	list, addDefault := normalPolicies(o.Policies), false
	switch {
	case o.role != nil && o.role.namesPolicies():
		var err error
		inherited := by.Policies
		if by.above {
			inherited = nil
		}
		if list, err = o.role.policies(list, inherited, o.NoDefaultPolicy); err != nil {
			return nil, err
		}
	case by.above:
		addDefault = true
	case len(list) == 0:
		list = slices.Clone(by.Policies)
	case by.sudo:
		addDefault = true
	default:
		for _, name := range list {
			if !slices.Contains(by.Policies, name) {
				return nil, conclave.Errorf(conclave.Invalid, "child policies must be subset of parent")
			}
		}
		addDefault = slices.Contains(by.Policies, defaultPolicy)
	}
	if slices.Contains(list, rootPolicy) {
		if !by.Root() {
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
	if o.NoDefaultPolicy {
		list = slices.DeleteFunc(list, func(name string) bool { return name == defaultPolicy })
	}
	return normalPolicies(list), nil
}

func (o *order) decideTTL(view conclave.View, by *maker, r *Record) (warnings []string, err error) {
	r.ExplicitMax, r.Period = o.ExplicitMaxTTL, o.Period
	if o.role != nil && !r.Batch {
		var more []string
		r.ExplicitMax, warnings = limit("Explicit max TTL", r.ExplicitMax, o.role.ExplicitMaxTTL.Duration())
		r.Period, more = limit("Period", r.Period, o.role.Period.Duration())
		warnings = append(warnings, more...)
	}
	if r.Root() && r.Period == 0 && r.ExplicitMax == 0 {
		if o.TTL == 0 && by.Expires != 0 {
			return nil, conclave.Errorf(conclave.Invalid, "expiring root tokens cannot create non-expiring root tokens")
		}
		r.TTL = o.TTL
		r.Renewable = r.Renewable && r.TTL > 0
		return nil, nil
	}
	t := termsOf(view.Mount())
	t.wanted, t.period, t.explicitMax, t.created = o.TTL, r.Period, r.ExplicitMax, view.Now()
	ttl, more := t.ttl(view.Now())
	r.TTL = ttl
	return append(warnings, more...), nil
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
