package jwt

import (
	"context"
	"encoding/json"
	"slices"

	"conclave"
	"conclave/internal/jws"
)

const loginDoc = `Log in with a signed token.
Its signature must be of a key of the configured issuer; audience, subject, claims and times must be those that the role
asks for. A token that names audiences is refused by roles that don't.`

type loginIn struct {
	Role string          `json:"role" doc:"The role to log in with; empty is default_role."`
	JWT  conclave.Secret `json:"jwt" doc:"The signed token."`
}

// asked is what a login works from: it decides what the outside work is, and is read again when that is done.
type asked struct {
	config *config
	role   *role
	name   string // the role's, in its one spelling
}

// find reads what a login works from, and refuses those that can't succeed.
func find(view conclave.View, name string) (*asked, error) {
	cfg, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		return nil, conclave.Errorf(conclave.Invalid, "could not load configuration")
	}
	if name == "" {
		name = cfg.DefaultRole
	}
	if name == "" {
		return nil, conclave.Errorf(conclave.Invalid, "missing role")
	}
	canonical, err := roleName(name)
	if err != nil {
		return nil, err
	}
	found, err := loadRole(view, canonical)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, conclave.Errorf(conclave.Invalid, "role %q could not be found", canonical)
	}
	return &asked{cfg, found, canonical}, nil
}

// mayComeFrom refuses logins from addresses that the role doesn't allow.
func (a *asked) mayComeFrom(request *conclave.Request) error {
	if !conclave.MayComeFrom(a.role.BoundCIDRs, request.Remote.Addr()) {
		return conclave.Errorf(conclave.Denied, "permission denied")
	}
	return nil
}

func gatherLogin(view conclave.View, input any) (any, error) {
	return findLogin(view, input.(*loginIn))
}

func findLogin(view conclave.View, in *loginIn) (*asked, error) {
	found, err := find(view, in.Role)
	if err != nil {
		return nil, err
	}
	if found.role.Type == "oidc" {
		return nil, conclave.Errorf(conclave.Invalid, "role with oidc role_type is not allowed")
	}
	if in.JWT.Empty() {
		return nil, conclave.Errorf(conclave.Invalid, "missing token")
	}
	return found, found.mayComeFrom(view.Request())
}

// verified are the claims of a token whose signature has been checked. They are not changed any more.
type verified struct {
	claims   jws.Claims
	warnings []string
}

func (e *Engine) verifyLogin(ctx context.Context, _ *conclave.Request, input any) (any, error) {
	found, _ := conclave.Gathered[*asked](ctx)
	token, err := jws.Parse(input.(*loginIn).JWT.Reveal())
	if err != nil {
		return nil, validating(err)
	}
	allowed := found.config.Algorithms
	if len(allowed) == 0 {
		allowed = jws.Algorithms
	}
	if err := e.verify(ctx, found.config, token, allowed); err != nil {
		return nil, validating(err)
	}
	return &verified{claims: token.Claims}, nil
}

func validating(err error) error {
	return conclave.Errorf(conclave.KindOf(err), "error validating token: %w", err)
}

func login(ctx context.Context, view conclave.View, in *loginIn) (*conclave.Response, error) {
	found, err := findLogin(view, in)
	if err != nil {
		return nil, err
	}
	token, ok := conclave.Prepared[*verified](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the token has not been verified")
	}
	if err := found.checkClaims(view, token.claims); err != nil {
		return nil, validating(err)
	}
	who, err := found.role.identify(token.claims, found.name)
	if err != nil {
		return nil, err
	}
	if err := found.role.checkBound(token.claims); err != nil {
		return nil, err
	}
	return &conclave.Response{Login: who}, nil
}

// checkClaims judges the claims that RFC 7519 defines.
func (a *asked) checkClaims(view conclave.View, claims jws.Claims) error {
	leeway := jws.Leeway{Expiry: a.role.ExpiryLeeway.Duration(), NotBefore: a.role.NotBeforeLeeway.Duration(), Skew: a.role.SkewLeeway.Duration()}
	if err := claims.CheckTimes(view.Reached, leeway); err != nil {
		return err
	}
	audiences, err := claims.Audiences()
	if err != nil {
		return err
	}
	isOurs := func(audience string) bool { return slices.Contains(a.role.BoundAudiences, audience) }
	switch {
	case a.config.BoundIssuer != "" && claims.Text("iss") != a.config.BoundIssuer:
		return conclave.Errorf(conclave.Invalid, "invalid issuer (iss) claim")
	case a.role.BoundSubject != "" && claims.Text("sub") != a.role.BoundSubject:
		return conclave.Errorf(conclave.Invalid, "invalid subject (sub) claim")
	case len(audiences) > 0 && len(a.role.BoundAudiences) == 0:
		return conclave.Errorf(conclave.Invalid, "audience claim found in JWT but no audiences bound to the role")
	case len(a.role.BoundAudiences) > 0 && !slices.ContainsFunc(audiences, isOurs):
		return conclave.Errorf(conclave.Invalid, "invalid audience (aud) claim: audience claim does not match any expected audience")
	}
	return nil
}

// remembered is kept with the tokens of a login.
type remembered struct {
	Role string `json:"role"`
}

// RenewLogin wants the role to be there still, and returns its present terms.
func (e *Engine) RenewLogin(_ context.Context, view conclave.View, login *conclave.Login) (*conclave.TokenTerms, error) {
	var from remembered
	if err := json.Unmarshal(login.Internal, &from); err != nil || from.Role == "" {
		return nil, conclave.Errorf(conclave.Internal, "the login's role is not known")
	}
	found, err := loadRole(view, from.Role)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, conclave.Errorf(conclave.Invalid, "role %s does not exist during renewal", from.Role)
	}
	terms := found.TokenTerms
	return &terms, nil
}
