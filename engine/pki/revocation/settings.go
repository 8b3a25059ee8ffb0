package revocation

import (
	"context"
	"maps"
	"strings"

	"conclave"
	"conclave/engine/pki/stored"
)

// crlConfigOut is how clients see the configuration of
type crlConfigOut struct {
	Expiry       string `json:"expiry" doc:"How long a revocation list is valid."`
	Disable      bool   `json:"disable" doc:"Publish empty revocation lists."`
	OCSPDisable  bool   `json:"ocsp_disable" doc:"Answer no OCSP requests."`
	OCSPExpiry   string `json:"ocsp_expiry" doc:"How long an OCSP response is valid; 0 says that there may be a newer one at any time."`
	AutoRebuild  bool   `json:"auto_rebuild" doc:"Publish a new list this long before the old one ends, instead of after half of its time."`
	Grace        string `json:"auto_rebuild_grace_period" doc:"How long before a list's end there is a new one."`
	EnableDelta  bool   `json:"enable_delta" doc:"Publish delta lists."`
	DeltaPeriod  string `json:"delta_rebuild_interval" doc:"How often there is a new delta list, if nothing changes. One always holds all that is revoked."`
	MaxEntries   int    `json:"max_crl_entries" doc:"How many certificates can be revoked at a time; -1 is the most there can be."`
	CrossCluster bool   `json:"cross_cluster_revocation" doc:"Always false: all nodes have the same state."`
	Unified      bool   `json:"unified_crl" doc:"Kept for clients: all nodes publish the same list."`
	UnifiedPaths bool   `json:"unified_crl_on_existing_paths" doc:"Kept for clients."`
}

func crlConfig(view conclave.View) (*Config, error) {
	config, err := stored.Load(view, "config/crl", DecodeConfig)
	if err == nil && config == nil {
		config = NewConfig()
	}
	return config, err
}

func showCRLConfig(c *Config) *crlConfigOut {
	return &crlConfigOut{brief(c.Expiry), c.Disable, c.OCSPDisable, brief(c.OCSPExpiry), c.AutoRebuild, brief(c.Grace),
		c.EnableDelta, brief(c.DeltaPeriod), c.MaxEntries, false, c.Unified, c.UnifiedPaths}
}

func readCRLConfig(_ context.Context, view conclave.View, _ *conclave.None) (*crlConfigOut, error) {
	config, err := crlConfig(view)
	if err != nil {
		return nil, err
	}
	return showCRLConfig(config), nil
}

type crlConfigIn struct {
	Fields map[string]any `json:"*" doc:"What is to be set, by the names of the configuration."`
}

func writeCRLConfig(_ context.Context, tx conclave.Tx, in *crlConfigIn) (*crlConfigOut, error) {
	old, err := crlConfig(tx)
	if err != nil {
		return nil, err
	}
	config := *old
	fields := maps.Clone(in.Fields)
	delete(fields, "changed")
	if err := conclave.Merge(&config, fields); err != nil {
		return nil, err
	}
	if err := config.Check(); err != nil {
		return nil, err
	}
	config.Changed = max(old.Changed+1, tx.Now().UnixNano())
	return showCRLConfig(&config), stored.Put(tx, "config/crl", config)
}

// brief is a duration as people write it, 72h and not 72h0m0s: clients such as Terraform compare it with what they wrote.
func brief(d conclave.Seconds) string {
	text := d.Duration().String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
