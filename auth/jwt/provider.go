package jwt

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/internal/jws"
	"conclave/internal/outbound"
)

// provider is what an issuer publishes of itself (OpenID Connect Discovery 1.0 section 3).
type provider struct {
	Issuer       string   `json:"issuer"`
	KeysURL      string   `json:"jwks_uri"`
	AuthorizeURL string   `json:"authorization_endpoint"`
	TokenURL     string   `json:"token_endpoint"`
	UserInfoURL  string   `json:"userinfo_endpoint"`
	TokenAuth    []string `json:"token_endpoint_auth_methods_supported"`
}

// readProvider fetches the description of the issuer that a URL names.
func (e *Engine) readProvider(ctx context.Context, from source) (*provider, error) {
	client, err := e.clients.Get(from.caPEM)
	if err != nil {
		return nil, err
	}
	body, err := client.Get(ctx, strings.TrimSuffix(from.url, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	return decodeProvider(body, from.url)
}

// decodeProvider reads a description, which must be that of the issuer asked for.
func decodeProvider(body []byte, issuer string) (*provider, error) {
	found := &provider{}
	if err := json.Unmarshal(body, found); err != nil {
		return nil, conclave.Errorf(conclave.Unavailable, "the issuer's description can't be decoded")
	}
	if found.Issuer != issuer {
		return nil, conclave.Errorf(conclave.Unavailable, "the issuer calls itself by another URL than oidc_discovery_url")
	}
	if err := outbound.CheckURL(found.KeysURL); err != nil {
		return nil, conclave.Errorf(conclave.Unavailable, "the issuer's jwks_uri: %w", err)
	}
	for _, address := range []string{found.AuthorizeURL, found.TokenURL, found.UserInfoURL} {
		if address != "" && outbound.CheckURL(address) != nil {
			return nil, conclave.Errorf(conclave.Unavailable, "the issuer has endpoints without https")
		}
	}
	return found, nil
}

// readKeys fetches a set of keys.
func (e *Engine) readKeys(ctx context.Context, from source) ([]jws.Key, error) {
	client, err := e.clients.Get(from.caPEM)
	if err != nil {
		return nil, err
	}
	body, err := client.Get(ctx, from.url)
	if err != nil {
		return nil, err
	}
	keys, err := jws.ParseSet(body)
	if err != nil {
		return nil, conclave.Errorf(conclave.Unavailable, "the issuer's keys: %w", err)
	}
	return keys, nil
}

// provider returns the description of the configured issuer.
func (e *Engine) provider(ctx context.Context, cfg *config) (*provider, error) {
	found, _, err := e.providers.get(ctx, source{cfg.DiscoveryURL, cfg.DiscoveryCA}, time.Time{}, e.readProvider)
	return found, err
}

// verify checks a token's signature with the keys of a configuration.
func (e *Engine) verify(ctx context.Context, cfg *config, token *jws.Token, allowed []string) error {
	if len(cfg.keys) > 0 {
		return token.Verify(cfg.keys, allowed)
	}
	sources := cfg.sources()
	if cfg.DiscoveryURL != "" {
		found, err := e.provider(ctx, cfg)
		if err != nil {
			return err
		}
		sources = []source{{found.KeysURL, cfg.DiscoveryCA}}
	}
	var failure error
	for _, from := range sources {
		err := e.verifyFrom(ctx, from, token, allowed)
		if err == nil {
			return nil
		}
		if failure == nil || !conclave.Is(err, conclave.Invalid) {
			failure = err // that a source can't be read says more than that others don't have the key
		}
	}
	return failure
}

// verifyFrom checks a token's signature with the keys of one source. If none fits, they may have been changed: they are
// read again, at most once in a pause.
func (e *Engine) verifyFrom(ctx context.Context, from source, token *jws.Token, allowed []string) error {
	keys, read, err := e.keys.get(ctx, from, time.Time{}, e.readKeys)
	if err != nil {
		return err
	}
	failure := token.Verify(keys, allowed)
	if failure == nil || !slices.Contains(allowed, token.Algorithm) {
		return failure
	}
	keys, again, err := e.keys.get(ctx, from, read, e.readKeys)
	if err != nil || again.Equal(read) {
		return failure
	}
	return token.Verify(keys, allowed)
}

// granted is what the issuer gives for a code.
type granted struct {
	IDToken     string `json:"id_token"`
	AccessToken string `json:"access_token"`
	Error       string `json:"error"`
}

// exchange redeems a code (RFC 6749 section 4.1.3) with the proof of who began the login (RFC 7636).
func (e *Engine) exchange(ctx context.Context, cfg *config, at *provider, begun *attempt, code string) (*granted, error) {
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {begun.RedirectURI}, "code_verifier": {begun.Verifier}}
	usesBasic := len(at.TokenAuth) == 0 || slices.Contains(at.TokenAuth, "client_secret_basic")
	if !usesBasic {
		form.Set("client_id", cfg.ClientID)
		form.Set("client_secret", cfg.ClientSecret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, conclave.Errorf(conclave.Unavailable, "the issuer has no token endpoint")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if usesBasic {
		req.SetBasicAuth(url.QueryEscape(cfg.ClientID), url.QueryEscape(cfg.ClientSecret))
	}
	client, err := e.clients.Get(cfg.DiscoveryCA)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	got := &granted{}
	if err := json.Unmarshal(answer.Body, got); err != nil || answer.Status != http.StatusOK || got.IDToken == "" {
		return nil, loginFailed("Error exchanging oidc code: " + oauthError(got.Error))
	}
	return got, nil
}

// oauthErrors are the codes of RFC 6749 sections 4.1.2.1 and 5.2 and OpenID Connect Core section 3.1.2.6.
var oauthErrors = []string{"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope", "server_error",
	"temporarily_unavailable", "invalid_client", "invalid_grant", "unsupported_grant_type", "interaction_required", "login_required",
	"account_selection_required", "consent_required"}

// oauthError returns a code that may be repeated to a client: what an issuer or a browser sends otherwise stays here.
func oauthError(code string) string {
	if slices.Contains(oauthErrors, code) {
		return code
	}
	return "the issuer gave no ID token"
}

// protocolClaims are those that only a signed token can speak for.
var protocolClaims = []string{"iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "auth_time", "acr", "amr", "at_hash", "c_hash"}

// addUserInfo adds what the issuer tells whoever has the access token (OpenID Connect Core section 5.3). It must be about
// the subject of the ID token, of which it changes nothing that the protocol itself relies on.
func (e *Engine) addUserInfo(ctx context.Context, cfg *config, at *provider, accessToken string, claims jws.Claims) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.UserInfoURL, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	req.Header.Set("Accept", "application/json")
	client, err := e.clients.Get(cfg.DiscoveryCA)
	if err != nil {
		return err
	}
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	media, _, _ := mime.ParseMediaType(answer.ContentType)
	if answer.Status != http.StatusOK || media != "application/json" {
		return conclave.Errorf(conclave.Unavailable, "the issuer gives no user information")
	}
	more, err := jws.ParseClaims(answer.Body)
	if err != nil {
		return err
	}
	if subject := claims.Text("sub"); subject == "" || more.Text("sub") != subject {
		return conclave.Errorf(conclave.Invalid, "the user information is about somebody else")
	}
	for name, value := range more {
		if !slices.Contains(protocolClaims, name) {
			claims[name] = value
		}
	}
	return nil
}
