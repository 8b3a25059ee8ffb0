package cert

import (
	"context"
	"encoding/json"

	"conclave"
)

const configPath = "config"

// config is how the whole method behaves.
type config struct {
	DisableBinding     bool `json:"disable_binding" doc:"Let a token be renewed without the certificate that it was got with."`
	IdentityMetadata   bool `json:"enable_identity_alias_metadata" doc:"Give the certificate's metadata to the alias of the identity, for policy templates."`
	OCSPCacheSize      int  `json:"ocsp_cache_size" doc:"Accepted for compatibility; without effect, since every login asks anew."`
	RoleCacheSize      int  `json:"role_cache_size" doc:"Accepted for compatibility; without effect, since roles are cached by their version."`
	MetadataOnFailures bool `json:"enable_metadata_on_failures" doc:"Accepted for compatibility; without effect, since the audit log has the serial number of each verified certificate."`
}

type configIn struct {
	config
	Fields map[string]any `json:"*"`
}

func loadConfig(view conclave.View) (config, error) {
	c := config{OCSPCacheSize: 100, RoleCacheSize: 200}
	value, err := view.Get(configPath)
	if err != nil || value == nil {
		return c, err
	}
	return c, json.Unmarshal(value, &c)
}

func readConfig(_ context.Context, view conclave.View, _ *conclave.None) (*config, error) {
	c, err := loadConfig(view)
	return &c, err
}

func writeConfig(_ context.Context, tx conclave.Tx, in *configIn) (*conclave.None, error) {
	c, err := loadConfig(tx)
	if err != nil {
		return nil, err
	}
	if err := conclave.Merge(&c, in.Fields); err != nil {
		return nil, err
	}
	if c.OCSPCacheSize < 0 || c.RoleCacheSize < -1 {
		return nil, conclave.Errorf(conclave.Invalid, "the size of a cache can't be negative")
	}
	value, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return nil, tx.Put(configPath, value)
}
