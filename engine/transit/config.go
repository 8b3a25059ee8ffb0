package transit

import (
	"context"
	"encoding/json"

	"conclave"
	"conclave/engine/transit/shelf"
)

// cacheConfig is the size that clients have set for a cache.
type cacheConfig struct {
	Size int `json:"size" doc:"Entries; 0 for no limit."`
}

// minCache is the smallest size of a cache but 0, as in Vault.
const minCache = 10

func configRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "config/keys", "Read the settings for all keys.",
			func(_ context.Context, view conclave.View, _ *conclave.None) (*shelf.Settings, error) {
				return shelf.ReadSettings(view)
			}),
		conclave.WriteRoute(conclave.Update, "config/keys", "Change the settings for all keys; what isn't given stays as it is.", writeKeysConfig),
		conclave.ReadRoute(conclave.Read, "cache-config", "Read the size that was set for a cache.",
			func(_ context.Context, view conclave.View, _ *conclave.None) (*cacheConfig, error) {
				return cacheSettings(view)
			}),
		conclave.WriteRoute(conclave.Update, "cache-config", cacheDoc, writeCacheConfig),
	}
}

type keysConfigIn struct {
	DisableUpsert *bool `json:"disable_upsert" doc:"Let encrypt make no keys."`
}

func writeKeysConfig(_ context.Context, tx conclave.Tx, in *keysConfigIn) (*shelf.Settings, error) {
	shared, err := shelf.ReadSettings(tx)
	if err != nil {
		return nil, err
	}
	config := *shared
	if in.DisableUpsert != nil {
		config.DisableUpsert = *in.DisableUpsert
	}
	return &config, shelf.WriteSettings(tx, &config)
}

const cacheDoc = `Set the size of a cache.
It is kept for clients that read it again. Decoded keys are cached on each node within a limit of the server's, whatever
it says.`

type cacheConfigIn struct {
	Size int `json:"size" doc:"Entries; 0 for no limit, else at least 10."`
}

func writeCacheConfig(_ context.Context, tx conclave.Tx, in *cacheConfigIn) (*cacheConfig, error) {
	if in.Size != 0 && in.Size < minCache {
		return nil, conclave.Errorf(conclave.Invalid, "size must be 0 or a value greater or equal to %d", minCache)
	}
	config := &cacheConfig{in.Size}
	return config, store(tx, cacheConfigPath, config)
}

func cacheSettings(view conclave.View) (*cacheConfig, error) {
	loaded, err := view.Load(cacheConfigPath, func(value []byte) (any, error) { return decodeConfig[cacheConfig](value) })
	if config, ok := loaded.(*cacheConfig); ok {
		return config, err
	}
	return &cacheConfig{}, err
}

func decodeConfig[T any](value []byte) (*T, error) {
	config := new(T)
	if json.Unmarshal(value, config) != nil {
		return nil, conclave.Errorf(conclave.Internal, "the stored settings are damaged")
	}
	return config, nil
}

func store(tx conclave.Tx, path string, config any) error {
	value, err := json.Marshal(config)
	if err != nil {
		return conclave.Errorf(conclave.Internal, "encode settings: %w", err)
	}
	return tx.Put(path, value)
}
