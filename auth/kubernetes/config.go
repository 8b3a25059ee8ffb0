package kubernetes

import (
	"context"
	"encoding/json"

	"conclave"
	"conclave/internal/jws"
	"conclave/internal/outbound"
)

// settings are the part of a mount's configuration that is written, stored and read alike.
type settings struct {
	Host           string   `json:"kubernetes_host" doc:"The URL of the API server."`
	CA             string   `json:"kubernetes_ca_cert" doc:"Authorities, in PEM, that the API server's certificate may come from. Empty is the pod's own ca.crt, or those of the system if there is none."`
	PEMKeys        []string `json:"pem_keys" doc:"Public keys or certificates, in PEM, that sign the accounts' tokens; without them only the API server judges signatures."`
	Issuer         string   `json:"issuer" doc:"What the claim iss must be if disable_iss_validation is false; empty is kubernetes/serviceaccount."`
	DisableLocal   bool     `json:"disable_local_ca_jwt" doc:"Don't use the token and ca.crt of the pod that the vault runs in."`
	UseAnnotations bool     `json:"use_annotations_as_alias_metadata" doc:"Must be false: annotations are not read."`
	AnyIssuer      bool     `json:"disable_iss_validation" doc:"Don't look at the claim iss; true if it isn't given."`
}

// config is a mount's configuration, stored at "config" as JSON.
type config struct {
	settings
	Reviewer string `json:"token_reviewer_jwt"`

	keys []jws.Key // PEMKeys
}

// loadConfig returns the mount's configuration, which is shared and must not be changed; nil if there is none.
func loadConfig(view conclave.View) (*config, error) {
	loaded, err := view.Load(configPath, decodeConfig)
	if loaded == nil || err != nil {
		return nil, err
	}
	return loaded.(*config), nil
}

func decodeConfig(value []byte) (any, error) {
	cfg := &config{}
	if err := json.Unmarshal(value, cfg); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the configuration can't be decoded")
	}
	return cfg, cfg.parseKeys()
}

func (c *config) parseKeys() error {
	c.keys = nil
	for _, text := range c.PEMKeys {
		key, err := jws.ParsePEM(text)
		if err != nil {
			return conclave.Errorf(conclave.Invalid, "error parsing pem_keys: %w", err)
		}
		c.keys = append(c.keys, key)
	}
	return nil
}

const configReadDoc = `Read the mount's configuration. The reviewer's token is not shown.`

type configOut struct {
	settings
	HasReviewer bool `json:"token_reviewer_jwt_set" doc:"Whether there is a token_reviewer_jwt."`
}

func readConfig(_ context.Context, view conclave.View, _ *conclave.None) (*configOut, error) {
	cfg, err := loadConfig(view)
	if err != nil {
		return nil, err
	}
	if cfg == nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	return &configOut{cfg.settings, cfg.Reviewer != ""}, nil
}

const configWriteDoc = `Replace the mount's configuration. What isn't given is emptied.`

type configIn struct {
	settings
	Reviewer  conclave.Secret `json:"token_reviewer_jwt" doc:"The token with which reviews are asked for. Without it that of the pod that the vault runs in is used, or else the one that is reviewed."`
	AnyIssuer *bool           `json:"disable_iss_validation" doc:"Don't look at the claim iss; true if it isn't given."`
}

func writeConfig(_ context.Context, tx conclave.Tx, in *configIn) (*conclave.None, error) {
	cfg := &config{settings: in.settings, Reviewer: in.Reviewer.Reveal()}
	cfg.settings.AnyIssuer = in.AnyIssuer == nil || *in.AnyIssuer
	if cfg.PEMKeys == nil {
		cfg.PEMKeys = []string{} // answered as an empty list
	}
	switch {
	case cfg.Host == "":
		return nil, conclave.Errorf(conclave.Invalid, "no host provided")
	case cfg.DisableLocal && cfg.CA == "":
		return nil, conclave.Errorf(conclave.Invalid, "kubernetes_ca_cert must be given when disable_local_ca_jwt is true")
	case len(cfg.PEMKeys) > maxKeys:
		return nil, conclave.Errorf(conclave.Invalid, "at most %d pem_keys", maxKeys)
	case cfg.UseAnnotations:
		return nil, conclave.Errorf(conclave.Invalid, "use_annotations_as_alias_metadata is not supported")
	}
	if err := outbound.CheckURL(cfg.Host); err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "invalid 'kubernetes_host': %w", err)
	}
	if _, err := outbound.Roots(cfg.CA); err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "invalid 'kubernetes_ca_cert': %w", err)
	}
	if err := cfg.parseKeys(); err != nil {
		return nil, err
	}
	value, err := json.Marshal(cfg)
	if err != nil || len(value) > maxConfig {
		return nil, conclave.Errorf(conclave.Invalid, "the configuration is too large")
	}
	return nil, tx.Put(configPath, value)
}
