package jwt

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"conclave"
	"conclave/internal/jws"
	"conclave/internal/outbound"
)

// Limits of what a browser brings.
const (
	randomBytes = 32
	randomText  = 43   // bytes of randomBytes in base64url
	maxURI      = 2048 // bytes of a redirect URI
	maxNonce    = 256  // bytes of a client's nonce
	maxCode     = 8192 // bytes of a code
	noCode      = "no_code"
)

const beginDoc = `Begin a login with a browser: get the issuer's URL to send it to.
The URL is empty if the redirect URI isn't one that the role allows. The login must end within ten minutes, on any node.`

type beginIn struct {
	Role        string          `json:"role" doc:"The role to log in with; empty is default_role."`
	RedirectURI string          `json:"redirect_uri" doc:"Where the issuer sends the browser after the login."`
	ClientNonce conclave.Secret `json:"client_nonce" doc:"Anything; if given, it must be given again at the callback."`
}

type beginOut struct {
	AuthURL string `json:"auth_url" doc:"The issuer's URL."`
}

// destination is where a browser goes after the login.
type destination struct {
	*asked
	redirectURI string
	namespace   string // to be carried in the state
	isAllowed   bool
}

func gatherBegin(view conclave.View, input any) (any, error) {
	return findBegin(view, input.(*beginIn))
}

func findBegin(view conclave.View, in *beginIn) (*destination, error) {
	found, err := find(view, in.Role)
	if err != nil {
		return nil, err
	}
	switch {
	case !found.config.hasBrowser():
		return nil, conclave.Errorf(conclave.Invalid, "OIDC login is not configured for this mount")
	case in.RedirectURI == "":
		return nil, conclave.Errorf(conclave.Invalid, "missing redirect_uri")
	case len(in.RedirectURI) > maxURI || len(in.ClientNonce.Reveal()) > maxNonce:
		return nil, conclave.Errorf(conclave.Invalid, "redirect_uri or client_nonce is too long")
	}
	to := &destination{asked: found, redirectURI: in.RedirectURI}
	if found.config.NamespaceInState {
		to.takeNamespace()
	}
	to.isAllowed = isAllowed(to.redirectURI, found.role.RedirectURIs)
	if found.config.ResponseMode == "form_post" {
		to.redirectURI = strings.Replace(to.redirectURI, "/ui/vault/", "/v1/", 1) // the user interface knows of no forms
	}
	return to, nil
}

// takeNamespace moves the parameter namespace from the redirect URI to the state.
func (d *destination) takeNamespace() {
	parsed, err := url.Parse(d.redirectURI)
	if err != nil {
		return
	}
	query := parsed.Query()
	if d.namespace = query.Get("namespace"); d.namespace != "" {
		query.Del("namespace")
		parsed.RawQuery = query.Encode()
		d.redirectURI = parsed.String()
	}
}

// isAllowed compares a redirect URI with those of a role, as text. Ports of loopback addresses don't matter (RFC 8252
// section 7.3).
func isAllowed(uri string, allowed []string) bool {
	if slices.Contains(allowed, uri) {
		return true
	}
	portless, isLoopback := withoutPort(uri)
	return isLoopback && slices.ContainsFunc(allowed, func(candidate string) bool {
		other, isLoopback := withoutPort(candidate)
		return isLoopback && other == portless
	})
}

func withoutPort(uri string) (string, bool) {
	parsed, err := url.Parse(uri)
	if err != nil || parsed.User != nil || !outbound.IsLoopback(parsed.Hostname()) {
		return "", false
	}
	parsed.Host = parsed.Hostname()
	return parsed.String(), true
}

// chances are the random parts of an attempt, and what the issuer publishes.
type chances struct {
	issuer                  *provider
	random, nonce, verifier string
}

func (e *Engine) prepareAttempt(ctx context.Context, _ *conclave.Request, _ any) (any, error) {
	to, _ := conclave.Gathered[*destination](ctx)
	if !to.isAllowed {
		return &chances{}, nil
	}
	issuer, err := e.provider(ctx, to.config)
	if err != nil {
		return nil, conclave.Errorf(conclave.Unavailable, "the issuer's description: %w", err)
	}
	if issuer.AuthorizeURL == "" || issuer.TokenURL == "" && !to.config.isImplicit() {
		return nil, conclave.Errorf(conclave.Unavailable, "the issuer has no endpoints for logins with a browser")
	}
	made := &chances{issuer: issuer}
	for _, text := range []*string{&made.random, &made.nonce, &made.verifier} {
		raw := make([]byte, randomBytes)
		if _, err := io.ReadFull(e.random, raw); err != nil {
			return nil, conclave.Errorf(conclave.Internal, "no randomness")
		}
		*text = base64.RawURLEncoding.EncodeToString(raw)
	}
	return made, nil
}

func beginAttempt(ctx context.Context, tx conclave.Tx, in *beginIn) (*conclave.Response, error) {
	to, err := findBegin(tx, in)
	if err != nil {
		return nil, err
	}
	if !to.isAllowed {
		return &conclave.Response{Data: &beginOut{}, Warnings: []string{"the redirect_uri is not one of the role's allowed_redirect_uris"}}, nil
	}
	made, ok := conclave.Prepared[*chances](ctx)
	if !ok || made.issuer == nil {
		return nil, conclave.Errorf(conclave.Internal, "the login has not been prepared")
	}
	begun := &attempt{Role: to.name, RedirectURI: to.redirectURI, ClientNonce: in.ClientNonce.Reveal(),
		Nonce: made.nonce, Verifier: made.verifier, Expires: tx.Now().Add(attemptTime)}
	state, err := addAttempt(tx, made.random, begun)
	if err != nil {
		return nil, err
	}
	address, err := to.authURL(made.issuer, begun, state)
	return &conclave.Response{Data: &beginOut{address}}, err
}

// authURL is the authentication request of OpenID Connect Core section 3.1.2.1.
func (d *destination) authURL(at *provider, begun *attempt, state string) (string, error) {
	address, err := url.Parse(at.AuthorizeURL)
	if err != nil {
		return "", conclave.Errorf(conclave.Unavailable, "the issuer has no endpoints for logins with a browser")
	}
	if d.namespace != "" {
		state += ",ns=" + d.namespace
	}
	query := address.Query()
	scopes := append([]string{"openid"}, slices.DeleteFunc(slices.Clone(d.role.Scopes), func(s string) bool { return s == "openid" })...)
	for name, value := range map[string]string{"client_id": d.config.ClientID, "redirect_uri": begun.RedirectURI, "state": state,
		"nonce": begun.Nonce, "scope": strings.Join(scopes, " ")} {
		query.Set(name, value)
	}
	if d.config.isImplicit() {
		query.Set("response_type", "id_token")
	} else {
		query.Set("response_type", "code")
		challenge := sha256.Sum256([]byte(begun.Verifier))
		query.Set("code_challenge", base64.RawURLEncoding.EncodeToString(challenge[:]))
		query.Set("code_challenge_method", "S256")
	}
	if d.config.ResponseMode == "form_post" {
		query.Set("response_mode", "form_post")
	}
	if d.role.MaxAge > 0 {
		query.Set("max_age", strconv.FormatInt(int64(d.role.MaxAge), 10))
	}
	address.RawQuery = query.Encode()
	return address.String(), nil
}

const finishDoc = `End a login with a browser: exchange the issuer's code for a token.
A state works once, whichever node it is shown to.`

type finishIn struct {
	State       string          `json:"state" doc:"The parameter state that the browser brought."`
	Code        conclave.Secret `json:"code" doc:"The issuer's code; no_code if the issuer has posted it."`
	ClientNonce conclave.Secret `json:"client_nonce" doc:"What was given when the login began."`
	Error       string          `json:"error" doc:"Why the issuer refused."`
}

// resumed is an attempt whose browser has come back.
type resumed struct {
	*asked
	begun *attempt
	path  string
}

func gatherFinish(view conclave.View, input any) (any, error) {
	return findFinish(view, input.(*finishIn))
}

func findFinish(view conclave.View, in *finishIn) (*resumed, error) {
	begun, path, err := loadAttempt(view, in.State)
	if err != nil {
		return nil, err
	}
	found, err := find(view, begun.Role)
	if err != nil {
		return nil, err
	}
	switch {
	case !found.config.hasBrowser():
		return nil, conclave.Errorf(conclave.Invalid, "OIDC login is not configured for this mount")
	case in.Error != "":
		return nil, loginFailed(oauthError(strings.ToLower(strings.TrimSpace(in.Error))))
	case begun.ClientNonce != "" && subtle.ConstantTimeCompare([]byte(begun.ClientNonce), []byte(in.ClientNonce.Reveal())) != 1:
		return nil, conclave.Errorf(conclave.Invalid, "invalid client_nonce")
	case len(in.Code.Reveal()) > maxCode:
		return nil, loginFailed("The code is too long.")
	}
	return &resumed{found, begun, path}, found.mayComeFrom(view.Request())
}

// redeem gets the ID token and verifies all of it that doesn't depend on the time.
func (e *Engine) redeem(ctx context.Context, _ *conclave.Request, input any) (any, error) {
	back, _ := conclave.Gathered[*resumed](ctx)
	issuer, err := e.provider(ctx, back.config)
	if err != nil {
		return nil, conclave.Errorf(conclave.Unavailable, "the issuer's description: %w", err)
	}
	got := &granted{IDToken: back.begun.IDToken}
	if !back.config.isImplicit() {
		code := input.(*finishIn).Code.Reveal()
		if code == "" || code == noCode {
			code = back.begun.Code
		}
		if code == "" {
			return nil, loginFailed("No code or id_token received.")
		}
		if got, err = e.exchange(ctx, back.config, issuer, back.begun, code); err != nil {
			return nil, err
		}
	}
	if got.IDToken == "" {
		return nil, loginFailed("No code or id_token received.")
	}
	token, err := jws.Parse(got.IDToken)
	if err != nil {
		return nil, verifying(err)
	}
	allowed := back.config.Algorithms
	if len(allowed) == 0 {
		allowed = []string{"RS256"}
	}
	if err := e.verify(ctx, back.config, token, allowed); err != nil {
		return nil, verifying(err)
	}
	if err := back.checkIDToken(issuer, token.Claims); err != nil {
		return nil, verifying(err)
	}
	delete(token.Claims, "nonce")
	outcome := &verified{claims: token.Claims}
	if got.AccessToken != "" && issuer.UserInfoURL != "" {
		if err := e.addUserInfo(ctx, back.config, issuer, got.AccessToken, token.Claims); err != nil {
			outcome.warnings = append(outcome.warnings, "user information was not used: "+err.Error())
		}
	}
	return outcome, nil
}

func verifying(err error) error {
	return conclave.Errorf(conclave.KindOf(err), "Token verification failed. %w", err)
}

// checkIDToken judges an ID token's claims by OpenID Connect Core section 3.1.3.7, but for times.
func (r *resumed) checkIDToken(issuer *provider, claims jws.Claims) error {
	audiences, err := claims.Audiences()
	if err != nil {
		return err
	}
	expected := r.role.BoundAudiences
	if len(expected) == 0 {
		expected = []string{r.config.ClientID}
	}
	isExpected := func(audience string) bool { return slices.Contains(expected, audience) }
	_, hasParty := claims["azp"]
	switch {
	case claims.Text("iss") != issuer.Issuer || r.config.BoundIssuer != "" && claims.Text("iss") != r.config.BoundIssuer:
		return conclave.Errorf(conclave.Invalid, "invalid issuer (iss) claim")
	case !slices.ContainsFunc(audiences, isExpected):
		return conclave.Errorf(conclave.Invalid, "invalid audience (aud) claim")
	case (hasParty || len(audiences) > 1) && claims.Text("azp") != r.config.ClientID:
		return conclave.Errorf(conclave.Invalid, "invalid authorized party (azp) claim")
	case subtle.ConstantTimeCompare([]byte(claims.Text("nonce")), []byte(r.begun.Nonce)) != 1:
		return conclave.Errorf(conclave.Invalid, "invalid ID token nonce")
	case claims.Text("sub") == "":
		return conclave.Errorf(conclave.Invalid, "invalid subject (sub) claim")
	case r.role.BoundSubject != "" && claims.Text("sub") != r.role.BoundSubject:
		return conclave.Errorf(conclave.Invalid, "sub claim does not match bound subject")
	}
	return nil
}

func finishAttempt(ctx context.Context, tx conclave.Tx, in *finishIn) (*conclave.Response, error) {
	back, err := findFinish(tx, in)
	if err != nil {
		return nil, err
	}
	token, ok := conclave.Prepared[*verified](ctx)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "the token has not been verified")
	}
	if err := back.checkIDTokenTimes(tx, token.claims); err != nil {
		return nil, verifying(err)
	}
	who, err := back.role.identify(token.claims, back.name)
	if err != nil {
		return nil, err
	}
	if err := back.role.checkBound(token.claims); err != nil {
		return nil, err
	}
	return &conclave.Response{Login: who, Warnings: token.warnings}, endAttempt(tx, back.path)
}

// checkIDTokenTimes judges the times of an ID token, which must have an end.
func (r *resumed) checkIDTokenTimes(view conclave.View, claims jws.Claims) error {
	if _, given, err := claims.Time("exp"); !given || err != nil {
		return conclave.Errorf(conclave.Invalid, "the ID token never expires (exp)")
	}
	if err := claims.CheckTimes(view.Reached, jws.Leeway{}); err != nil || r.role.MaxAge == 0 {
		return err
	}
	at, given, err := claims.Time("auth_time")
	if err != nil {
		return err
	}
	if !given || view.Reached(at.Add(r.role.MaxAge.Duration()+jws.DefaultSkew)) || !view.Reached(at.Add(-jws.DefaultSkew)) {
		return conclave.Errorf(conclave.Invalid, "the last authentication (auth_time) is older than max_age")
	}
	return nil
}
