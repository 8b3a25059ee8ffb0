package kv

import (
	"context"
	"encoding/json"
	"time"

	"conclave"
)

// config is a mount's settings, stored at "config" as JSON.
type config struct {
	MaxVersions uint64 `json:"max_versions"`
	CASRequired bool   `json:"cas_required"`
	// DeleteAfter is zero for never, negative if versions are never deleted by themselves whatever the secret says.
	DeleteAfter time.Duration `json:"delete_after_ns"`
}

// settings returns the mount's settings, which are shared and must not be changed.
func settings(view conclave.View) (*config, error) {
	loaded, err := view.Load(configPath, decodeConfig)
	if err != nil {
		return nil, err
	}
	if loaded == nil {
		return &config{}, nil
	}
	return loaded.(*config), nil
}

func decodeConfig(value []byte) (any, error) {
	cfg := &config{}
	if err := json.Unmarshal(value, cfg); err != nil {
		return nil, errFormat
	}
	return cfg, nil
}

const configReadDoc = `Read the settings that hold for all secrets of the mount.`

type configOut struct {
	MaxVersions        uint64 `json:"max_versions" doc:"How many versions of each secret are kept; 0 means 10."`
	CASRequired        bool   `json:"cas_required" doc:"Whether every write must give options.cas."`
	DeleteVersionAfter string `json:"delete_version_after" doc:"How long after its creation a version is deleted; 0s is never, negative is never whatever the secret says."`
}

func readConfig(_ context.Context, view conclave.View, _ *conclave.None) (*configOut, error) {
	cfg, err := settings(view)
	if err != nil {
		return nil, err
	}
	return &configOut{cfg.MaxVersions, cfg.CASRequired, cfg.DeleteAfter.String()}, nil
}

const configWriteDoc = `Change the settings that hold for all secrets of the mount.
What isn't given stays as it is. Versions that exist keep their deletion time; a lower max_versions takes effect when a
secret is next written.`

type configIn struct {
	MaxVersions        *int64         `json:"max_versions" doc:"How many versions of each secret to keep, at most 10000; 0 means 10. The larger one of mount and secret holds."`
	CASRequired        *bool          `json:"cas_required" doc:"Refuse writes that don't give options.cas."`
	DeleteVersionAfter *time.Duration `json:"delete_version_after" doc:"Delete each version so long after its creation; 0 never, negative never whatever the secret says. The shorter one of mount and secret holds."`
}

func writeConfig(_ context.Context, tx conclave.Tx, in *configIn) (*conclave.None, error) {
	if in.MaxVersions == nil && in.CASRequired == nil && in.DeleteVersionAfter == nil {
		return nil, nil
	}
	shared, err := settings(tx)
	if err != nil {
		return nil, err
	}
	cfg := *shared
	if in.MaxVersions != nil {
		if cfg.MaxVersions, err = checkMaxVersions(*in.MaxVersions); err != nil {
			return nil, err
		}
	}
	if in.CASRequired != nil {
		cfg.CASRequired = *in.CASRequired
	}
	if in.DeleteVersionAfter != nil {
		cfg.DeleteAfter = *in.DeleteVersionAfter
		if *in.DeleteVersionAfter < 0 {
			cfg.DeleteAfter = -time.Second
		}
	}
	value, err := json.Marshal(cfg)
	if err != nil {
		return nil, conclave.Errorf(conclave.Internal, "encode config: %w", err)
	}
	if err := tx.Put(configPath, value); err != nil {
		return nil, err
	}
	return nil, emitPlain(tx, "kv-v2/config-write", "config-write", configPath)
}

func checkMaxVersions(n int64) (uint64, error) {
	if n < 0 || n > maxVersionsLimit {
		return 0, conclave.Errorf(conclave.Invalid, "max_versions must be between 0 and %d", maxVersionsLimit)
	}
	return uint64(n), nil
}
