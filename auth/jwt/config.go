package jwt

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"conclave"
	"conclave/internal/jws"
	"conclave/internal/outbound"
)

// settings are the part of a mount's configuration that is written, stored and read alike.
type settings struct {
	DiscoveryURL  string     `json:"oidc_discovery_url" doc:"The issuer's URL, without /.well-known/openid-configuration. One of this, jwks_url, jwks_pairs and jwt_validation_pubkeys is set."`
	DiscoveryCA   string     `json:"oidc_discovery_ca_pem" doc:"Authorities, in PEM, that the issuer's certificate may come from; empty is those of the system."`
	ClientID      string     `json:"oidc_client_id" doc:"The vault's name at the issuer, for logins with a browser."`
	ResponseMode  string     `json:"oidc_response_mode" doc:"How the issuer answers the browser: query (the default) or form_post."`
	ResponseTypes []string   `json:"oidc_response_types" doc:"What the issuer answers: code (the default), or id_token, which needs form_post."`
	JWKSURL       string     `json:"jwks_url" doc:"Where the issuer's keys are (JWKS)."`
	JWKSCA        string     `json:"jwks_ca_pem" doc:"Authorities, in PEM, that the certificate of jwks_url may come from; empty is those of the system."`
	JWKSPairs     []jwksPair `json:"jwks_pairs" doc:"Several places with keys, instead of jwks_url and jwks_ca_pem."`
	PublicKeys    []string   `json:"jwt_validation_pubkeys" doc:"The issuer's public keys, in PEM."`
	Algorithms    []string   `json:"jwt_supported_algs" doc:"Algorithms that tokens may be signed with. Empty is all with public keys for login, RS256 for logins with a browser."`
	BoundIssuer   string     `json:"bound_issuer" doc:"What the claim iss of tokens sent to login must be; empty is anything."`
	DefaultRole   string     `json:"default_role" doc:"The role of logins that name none."`
	// ProviderConfig is answered empty, which some clients expect to be there.
	ProviderConfig map[string]any `json:"provider_config" doc:"Must be empty: nothing is known of particular providers."`
}

type jwksPair struct {
	URL string `json:"jwks_url" doc:"Where keys are (JWKS)."`
	CA  string `json:"jwks_ca_pem" doc:"Authorities, in PEM, that its certificate may come from; empty is those of the system."`
}

// config is a mount's configuration, stored at "config" as JSON.
type config struct {
	settings
	ClientSecret     string `json:"oidc_client_secret"`
	NamespaceInState bool   `json:"namespace_in_state"`

	keys []jws.Key // PublicKeys
}

// hasBrowser reports whether logins with a browser are configured.
func (c *config) hasBrowser() bool { return c.DiscoveryURL != "" && c.ClientID != "" }

// isImplicit reports whether the issuer is asked for an ID token through the browser, not for a code.
func (c *config) isImplicit() bool { return slices.Contains(c.ResponseTypes, "id_token") }

// sources are where keys are fetched from when they are not configured or found by discovery.
func (c *config) sources() []source {
	if c.JWKSURL != "" {
		return []source{{c.JWKSURL, c.JWKSCA}}
	}
	var sources []source
	for _, pair := range c.JWKSPairs {
		sources = append(sources, source{pair.URL, pair.CA})
	}
	return sources
}

// loadConfig returns the mount's configuration, which is shared and must not be changed; nil if there is none.
func loadConfig(view conclave.View) (*config, error) {
	loaded, err := view.Load(configPath, func(value []byte) (any, error) {
		cfg := &config{}
		if err := json.Unmarshal(value, cfg); err != nil {
			return nil, conclave.Errorf(conclave.Internal, "the configuration can't be decoded")
		}
		return cfg, cfg.parseKeys()
	})
	if loaded == nil || err != nil {
		return nil, err
	}
	return loaded.(*config), nil
}

func (c *config) parseKeys() error {
	c.keys = nil
	for _, text := range c.PublicKeys {
		key, err := jws.ParsePEM(text)
		if err != nil {
			return conclave.Errorf(conclave.Invalid, "error parsing public key: %w", err)
		}
		c.keys = append(c.keys, key)
	}
	return nil
}

const configReadDoc = `Read the mount's configuration. The client's secret is not shown.`

type configOut struct {
	settings
	NamespaceInState bool `json:"namespace_in_state" doc:"Whether the namespace is carried in the parameter state."`
}

func readConfig(_ context.Context, view conclave.View, _ *conclave.None) (*configOut, error) {
	cfg, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	out := &configOut{cfg.settings, cfg.NamespaceInState}
	out.ProviderConfig = map[string]any{}
	return out, nil
}

const configWriteDoc = `Replace the mount's configuration.
The issuer's documents are fetched once to see that they can be. Settings that aren't given are emptied, except
namespace_in_state.`

type configIn struct {
	settings
	ClientSecret     conclave.Secret `json:"oidc_client_secret" doc:"The secret that belongs to oidc_client_id."`
	NamespaceInState *bool           `json:"namespace_in_state" doc:"Carry the namespace in the parameter state, so that one redirect URI does for all namespaces; true for new mounts."`
	SkipCheck        bool            `json:"skip_jwks_validation" doc:"Store the configuration even if the issuer's documents can't be fetched now."`
}

// build makes a checked configuration of what is given, without its NamespaceInState.
func (in *configIn) build() (*config, error) {
	cfg := &config{settings: in.settings, ClientSecret: in.ClientSecret.Reveal()}
	cfg.DefaultRole = strings.ToLower(cfg.DefaultRole)
	for _, list := range []*[]string{&cfg.ResponseTypes, &cfg.PublicKeys, &cfg.Algorithms} {
		if *list == nil {
			*list = []string{} // answered as an empty list
		}
	}
	if cfg.JWKSPairs == nil {
		cfg.JWKSPairs = []jwksPair{}
	}
	if err := cfg.checkSources(); err != nil {
		return nil, err
	}
	for _, algorithm := range cfg.Algorithms {
		if !slices.Contains(jws.Algorithms, algorithm) {
			return nil, conclave.Errorf(conclave.Invalid, "invalid jwt_supported_algs: unsupported algorithm %q", algorithm)
		}
	}
	for _, kind := range cfg.ResponseTypes {
		if kind != "code" && kind != "id_token" {
			return nil, conclave.Errorf(conclave.Invalid, "invalid response_types %v. 'code' and 'id_token' are allowed", cfg.ResponseTypes)
		}
	}
	switch {
	case !slices.Contains([]string{"", "query", "form_post"}, cfg.ResponseMode):
		return nil, conclave.Errorf(conclave.Invalid, "invalid response_mode: %q", cfg.ResponseMode)
	case cfg.ResponseMode != "form_post" && cfg.isImplicit():
		return nil, conclave.Errorf(conclave.Invalid, "query response_mode may not be used with an id_token response_type")
	case len(cfg.ProviderConfig) > 0:
		return nil, conclave.Errorf(conclave.Invalid, "provider_config is not supported")
	}
	cfg.ProviderConfig = nil
	return cfg, nil
}

// checkSources checks where keys come from.
func (c *config) checkSources() error {
	ways := 0
	for _, used := range []bool{c.DiscoveryURL != "", c.JWKSURL != "", len(c.JWKSPairs) > 0, len(c.PublicKeys) > 0} {
		if used {
			ways++
		}
	}
	switch {
	case ways != 1:
		return conclave.Errorf(conclave.Invalid, "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs' or 'oidc_discovery_url' must be set")
	case (c.ClientID == "") != (c.ClientSecret == ""):
		return conclave.Errorf(conclave.Invalid, "both 'oidc_client_id' and 'oidc_client_secret' must be set for OIDC")
	case c.ClientID != "" && c.DiscoveryURL == "":
		return conclave.Errorf(conclave.Invalid, "'oidc_discovery_url' must be set for OIDC")
	case strings.Contains(c.DiscoveryURL, ".well-known/openid-configuration"):
		return conclave.Errorf(conclave.Invalid, "'oidc_discovery_url' contains '.well-known' component")
	case len(c.JWKSPairs) > maxSources || len(c.PublicKeys) > maxKeys:
		return conclave.Errorf(conclave.Invalid, "at most %d jwks_pairs and %d jwt_validation_pubkeys", maxSources, maxKeys)
	}
	if c.DiscoveryURL != "" {
		if err := checkSource("oidc_discovery_url", "oidc_discovery_ca_pem", source{c.DiscoveryURL, c.DiscoveryCA}); err != nil {
			return err
		}
	}
	for _, s := range c.sources() {
		if err := checkSource("jwks_url", "jwks_ca_pem", s); err != nil {
			return err
		}
	}
	return c.parseKeys()
}

func checkSource(urlField, caField string, s source) error {
	if err := outbound.CheckURL(s.url); err != nil {
		return conclave.Errorf(conclave.Invalid, "invalid '%s': %w", urlField, err)
	}
	if _, err := outbound.Roots(s.caPEM); err != nil {
		return conclave.Errorf(conclave.Invalid, "error checking %s: %w", caField, err)
	}
	return nil
}

// tried is what came of fetching the documents of a configuration that is to be stored.
type tried struct{ warning string }

// tryConfig fetches what a configuration points to, past what this node has kept.
func (e *Engine) tryConfig(ctx context.Context, _ *conclave.Request, input any) (any, error) {
	in := input.(*configIn)
	cfg, err := in.build()
	if err != nil {
		return nil, err
	}
	what := "error checking jwks URL"
	if cfg.DiscoveryURL != "" {
		what = "error checking oidc discovery URL"
		var found *provider
		if found, err = e.readProvider(ctx, source{cfg.DiscoveryURL, cfg.DiscoveryCA}); err == nil {
			_, err = e.readKeys(ctx, source{found.KeysURL, cfg.DiscoveryCA})
		}
	}
	for _, s := range cfg.sources() {
		if err == nil {
			_, err = e.readKeys(ctx, s)
		}
	}
	if err != nil && !in.SkipCheck {
		return nil, conclave.Errorf(conclave.Invalid, "%s: %w", what, err)
	}
	if err != nil {
		return tried{what + ": " + err.Error()}, nil
	}
	return tried{}, nil
}

func writeConfig(ctx context.Context, tx conclave.Tx, in *configIn) (*conclave.Response, error) {
	cfg, err := in.build()
	if err != nil {
		return nil, err
	}
	old, err := loadConfig(tx)
	if err != nil {
		return nil, err
	}
	cfg.NamespaceInState = old == nil || old.NamespaceInState
	if in.NamespaceInState != nil {
		cfg.NamespaceInState = *in.NamespaceInState
	}
	value, err := json.Marshal(cfg)
	if err != nil || len(value) > maxConfig {
		return nil, conclave.Errorf(conclave.Invalid, "the configuration is too large")
	}
	if err := makeRoom(tx); err != nil {
		return nil, err
	}
	response := &conclave.Response{}
	if outcome, _ := conclave.Prepared[tried](ctx); outcome.warning != "" {
		response.Warnings = append(response.Warnings, outcome.warning)
	}
	return response, tx.Put(configPath, value)
}
