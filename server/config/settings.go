package config

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const maxVoters = 99

var (
	logLevels  = []string{"trace", "debug", "info", "warn", "error"}
	logFormats = []string{"standard", "json"}
)

// topLevel are the settings outside any block.
func (l *loader) topLevel() map[string]setter {
	known := allOnce(map[string]setter{
		"api_addr":                     text(&l.APIAddr),
		"cluster_addr":                 text(&l.ClusterAddr),
		"cluster_name":                 text(&l.ClusterName),
		"version_reported":             text(&l.VersionReported),
		"ui":                           flag(&l.UI),
		"log_level":                    oneOf(&l.LogLevel, logLevels...),
		"log_format":                   oneOf(&l.LogFormat, logFormats...),
		"pid_file":                     text(&l.PIDFile),
		"default_lease_ttl":            duration(&l.DefaultLeaseTTL),
		"max_lease_ttl":                duration(&l.MaxLeaseTTL),
		"default_max_request_duration": duration(&l.MaxRequestDuration),
		"disable_mlock":                flag(&l.DisableMlock),
		"health_leader_only":           flag(&l.HealthLeaderOnly),

		"raw_storage_endpoint": refusedIfTrue("there is no sys/raw: it would go around authorisation and audit"),
		"backend":              refused(`is an old name: write storage "raft"`),
	})
	for name, reason := range ignoredTopLevel {
		known[name] = ignored(reason)
	}
	known["listener"] = l.listener
	known["storage"] = l.storage
	known["cluster"] = func(v value) { v.block(0, l.clusterSettings()) }
	known["seal"] = l.seal
	known["telemetry"] = func(v value) { v.block(0, l.telemetrySettings()) }
	known["audit"] = func(v value) { v.block(0, l.auditSettings()) }
	known["rotate"] = func(v value) {
		v.block(0, allOnce(map[string]setter{"command_directories": list(&l.CommandDirectories)}))
	}
	return known
}

const noPlugins = "plug-ins are part of the program, no others are loaded"

// ignoredTopLevel are settings of Vault that mean nothing here: name → why.
var ignoredTopLevel = map[string]string{
	"ha_storage":                          "every cluster is highly available by its own storage",
	"ha_backend":                          "every cluster is highly available by its own storage",
	"service_registration":                "nodes aren't registered with other systems",
	"plugin_directory":                    noPlugins,
	"plugin_tmpdir":                       noPlugins,
	"plugin_file_uid":                     noPlugins,
	"plugin_file_permissions":             noPlugins,
	"disable_cache":                       "caches hold nothing that a request hasn't proved current",
	"cache_size":                          "caches are sized by the program",
	"disable_clustering":                  "a node on its own is a cluster of one",
	"disable_performance_standby":         "every unsealed node serves",
	"disable_sealwrap":                    "all data is encrypted in one way",
	"disable_indexing":                    "there is no such index",
	"disable_printable_check":             "paths without control characters are always demanded",
	"introspection_endpoint":              "there is no such endpoint",
	"license_path":                        "there are no licences",
	"log_file":                            "logs go to standard error, for the service manager to keep",
	"log_rotate_bytes":                    "logs go to standard error, for the service manager to keep",
	"log_rotate_duration":                 "logs go to standard error, for the service manager to keep",
	"log_rotate_max_files":                "logs go to standard error, for the service manager to keep",
	"log_requests_level":                  "requests are logged at level debug",
	"detect_deadlocks":                    "there is no such check",
	"imprecise_lease_role_tracking":       "leases aren't tracked by role in memory",
	"experiments":                         "there are none",
	"enable_post_unseal_trace":            "there is no such trace",
	"post_unseal_trace_directory":         "there is no such trace",
	"enable_response_header_hostname":     "answers don't name the node",
	"enable_response_header_raft_node_id": "answers don't name the node",
	"user_lockout":                        "lockouts are set where the auth method is mounted",
	"entropy":                             "randomness comes from the operating system",
	"kms_library":                         "there are no PKCS #11 seals",
	"reporting":                           "nothing is reported to anybody",
	"disable_unauthed_rekey_endpoints":    "they are closed to whoever has no running nonce",
	"administrative_namespace_path":       "there is no such namespace",
	"remove_irrevocable_lease_after":      "what can't be revoked is kept until a person decides",
}

// storage reads `storage "raft"`. Its path says nothing of the label, for the environment to override.
func (l *loader) storage(v value) {
	if len(v.labels) != 1 || v.labels[0] != "raft" {
		v.fail(`must be storage "raft": there is no other`)
		return
	}
	known := allOnce(map[string]setter{
		"path":             text(&l.Storage.Path),
		"node_id":          text(&l.Storage.NodeID),
		"log_store":        oneOf(&l.Storage.LogStore, "wal", "boltdb"),
		"bootstrap_expect": l.bootstrapExpect,
		"raft_wal":         l.raftWAL,
		"max_entry_size":   ignored("values have at most 1 MiB, transactions 8 MiB"),
	})
	for _, name := range []string{"performance_multiplier", "trailing_logs", "snapshot_threshold", "snapshot_interval",
		"max_mount_and_namespace_table_entry_size", "raft_log_verifier_enabled", "raft_log_verification_interval",
		"autopilot_reconcile_interval", "autopilot_update_interval", "autopilot_upgrade_version", "autopilot_redundancy_zone",
		"retry_join_as_non_voter"} {
		known[name] = ignored("is chosen by the program")
	}
	known["retry_join"] = l.retryJoin
	v.block(1, known)
	if at, given := l.seen["storage.raft_wal"]; given && l.seen["storage.log_store"] != (spot{}) {
		l.failAt(at, "raft_wal contradicts log_store: give one of them")
	}
}

// raftWAL takes Vault's way of choosing between the two log stores.
func (l *loader) raftWAL(v value) {
	wal := true
	flag(&wal)(v)
	l.Storage.LogStore = "wal"
	if !wal {
		l.Storage.LogStore = "boltdb"
	}
}

// bootstrapExpect may stand in storage or in cluster.
func (l *loader) bootstrapExpect(v value) {
	v.path = "cluster.bootstrap_expect"
	once(number(&l.Cluster.BootstrapExpect, 1, maxVoters))(v)
}

// retryJoin takes Vault's blocks. Nodes find each other by gossip, so of the other node only its host matters.
func (l *loader) retryJoin(v value) {
	l.blocks++
	v.path += " " + strconv.Itoa(l.blocks)
	var join RetryJoin
	known := map[string]setter{
		"leader_api_addr": text(&join.LeaderAPIAddr),
		"gossip_addr":     text(&join.GossipAddr),
		"auto_join":       refused("there is no discovery through clouds: name the nodes in join"),
	}
	for _, name := range []string{"leader_ca_cert_file", "leader_ca_cert", "leader_client_cert_file", "leader_client_cert",
		"leader_client_key_file", "leader_client_key", "leader_tls_servername", "auto_join_scheme", "auto_join_port"} {
		known[name] = ignored("nodes recognise each other by the cluster's secret and member list")
	}
	v.block(0, allOnce(known))
	if join.GossipAddr == "" {
		if u, err := url.Parse(join.LeaderAPIAddr); err == nil && u.Hostname() != "" {
			join.GossipAddr = net.JoinHostPort(u.Hostname(), strconv.Itoa(DefaultGossipPort))
		}
	}
	if !isHostPort(join.GossipAddr) {
		v.fail("needs leader_api_addr, a URL, or gossip_addr, a host:port")
		return
	}
	l.Storage.RetryJoin = append(l.Storage.RetryJoin, join)
}

func (l *loader) clusterSettings() map[string]setter {
	known := allOnce(map[string]setter{
		"join":          list(&l.Cluster.Join),
		"gossip_addr":   text(&l.Cluster.GossipAddr),
		"secret_file":   text(&l.Cluster.SecretFile),
		"admit_token":   text(&l.Cluster.AdmitToken),
		"tls_cert_file": text(&l.Cluster.TLSCertFile),
		"tls_key_file":  text(&l.Cluster.TLSKeyFile),
		"tls_ca_file":   text(&l.Cluster.TLSCAFile),
	})
	known["bootstrap_expect"] = l.bootstrapExpect
	return known
}

func (l *loader) telemetrySettings() map[string]setter {
	known := map[string]setter{"prometheus_retention_time": once(duration(&l.Telemetry.PrometheusRetention))}
	for _, name := range []string{"disable_hostname", "enable_hostname_label", "metrics_prefix", "usage_gauge_period",
		"maximum_gauge_cardinality", "lease_metrics_epsilon", "num_lease_metrics_buckets", "add_lease_metrics_namespace_labels",
		"add_mount_point_rollback_metrics", "filter_default", "prefix_filter"} {
		known[name] = ignored("names and labels of metrics are fixed")
	}
	for _, name := range []string{"statsite_address", "statsd_address", "dogstatsd_addr", "dogstatsd_tags", "circonus_api_token",
		"circonus_api_app", "circonus_submission_url", "stackdriver_project_id", "stackdriver_location", "stackdriver_namespace"} {
		known[name] = ignored("metrics are read from sys/metrics, not sent")
	}
	return known
}

// seal reads `seal "static"` and `seal "shamir"`.
func (l *loader) seal(v value) {
	if len(v.labels) != 1 || v.labels[0] != "shamir" && v.labels[0] != "static" {
		v.fail("must be seal \"shamir\" or seal \"static\"")
		return
	}
	if first, twice := l.seen["seal"]; twice {
		v.fail("there is already one at %s", strings.TrimSuffix(place(first.file, first.line), ": "))
		return
	}
	l.seen["seal"] = v.spot
	l.Seal.Type = v.labels[0]
	known := map[string]setter{}
	if l.Seal.Type == "static" {
		known = map[string]setter{
			"current_key_id":    text(&l.Seal.KeyID),
			"key_file":          text(&l.Seal.Key.File),
			"key_env":           text(&l.Seal.Key.Env),
			"current_key":       keyURL(&l.Seal.Key),
			"previous_key_id":   text(&l.Seal.PreviousID),
			"previous_key_file": text(&l.Seal.PreviousKey.File),
			"previous_key_env":  text(&l.Seal.PreviousKey.Env),
			"previous_key":      keyURL(&l.Seal.PreviousKey),
		}
	}
	known["disabled"] = refusedIfTrue("a seal that is no longer used is left out; its key becomes previous_key_file")
	v.block(1, allOnce(known))
}

// keyURL takes "file:///path" or "env://NAME", never the key itself.
func keyURL(source *KeySource) setter {
	return func(v value) {
		s, ok := v.scalar("a string")
		if !ok {
			return
		}
		if file, isFile := strings.CutPrefix(s, "file://"); isFile && file != "" {
			source.File = file
		} else if name, isEnv := strings.CutPrefix(s, "env://"); isEnv && name != "" {
			source.Env = name
		} else {
			v.fail("must name where the key is, file:///path or env://NAME: a key doesn't belong in a configuration")
		}
	}
}

func (l *loader) defaults() {
	orText := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	orTime := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	orText(&l.LogLevel, "info")
	orText(&l.LogFormat, "standard")
	orText(&l.VersionReported, DefaultVersion)
	orText(&l.Storage.LogStore, "wal")
	orText(&l.Seal.Type, "shamir")
	orText(&l.Cluster.GossipAddr, "0.0.0.0:"+strconv.Itoa(DefaultGossipPort))
	orTime(&l.MaxLeaseTTL, DefaultLeaseTTL)
	orTime(&l.DefaultLeaseTTL, min(DefaultLeaseTTL, l.MaxLeaseTTL))
	orTime(&l.MaxRequestDuration, 90*time.Second)
	orTime(&l.Telemetry.PrometheusRetention, 24*time.Hour)
	if l.Audit.MaxSize == 0 {
		l.Audit.MaxSize = DefaultAuditSize
	}
	l.Cluster.BootstrapExpect = max(l.Cluster.BootstrapExpect, 1)
	for _, join := range l.Storage.RetryJoin {
		if !slices.Contains(l.Cluster.Join, join.GossipAddr) {
			l.Cluster.Join = append(l.Cluster.Join, join.GossipAddr)
		}
	}
}

// check finds what is missing and what contradicts itself.
func (l *loader) check() {
	if len(l.Listeners) == 0 {
		l.failAt(spot{"configuration", 0}, "no listener is configured")
	}
	if l.Storage.Path == "" {
		l.failAt(spot{"configuration", 0}, `no path is configured in storage "raft"`)
	}
	for i, listener := range l.Listeners {
		if slices.ContainsFunc(l.Listeners[:i], func(other Listener) bool { return other.Address == listener.Address }) {
			l.failAt(l.seen["listener "+strconv.Itoa(i)], "another listener has the same address")
		}
	}
	if l.DefaultLeaseTTL > l.MaxLeaseTTL {
		l.failOn("default_lease_ttl", "default_lease_ttl is longer than max_lease_ttl")
	}
	if !validVersion(l.VersionReported) {
		l.failOn("version_reported", "version_reported must be three numbers with dots between them, which clients parse")
	}
	l.addresses()
	l.checkAudit()
	c := &l.Cluster
	if (len(c.Join) > 0 || c.BootstrapExpect > 1) && c.SecretFile == "" {
		at := l.seen["cluster.join"]
		if at == (spot{}) {
			at = spot{"configuration", 0}
		}
		l.failAt(at, "a cluster of several nodes needs secret_file in its cluster block: it keys the gossip")
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") || c.TLSCAFile != "" && c.TLSCertFile == "" {
		l.failOn("cluster.tls_cert_file", "tls_cert_file and tls_key_file of the cluster block go together")
	}
	seal := l.Seal
	if (seal.Key.File == "") == (seal.Key.Env == "") && seal.Type == "static" {
		l.failOn("seal", "a static seal needs exactly one of key_file and key_env")
	}
	if seal.PreviousKey.File != "" && seal.PreviousKey.Env != "" {
		l.failOn("seal", "give one of previous_key_file and previous_key_env")
	}
	for _, dir := range l.AuditDirectories {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
			l.failOn("audit.directories", "audit directories must be absolute paths below the root directory")
		}
	}
	for _, dir := range l.CommandDirectories {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
			l.failOn("rotate.command_directories", "command directories must be absolute paths below the root directory")
		}
	}
}

func validVersion(version string) bool {
	parts := strings.Split(version, ".")
	for _, part := range parts {
		if _, err := strconv.ParseUint(part, 10, 16); err != nil {
			return false
		}
	}
	return len(parts) == 3
}
