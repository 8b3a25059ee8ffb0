package config

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// write makes files in a new directory, and returns it.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func environ(pairs map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := pairs[name]
		return value, ok
	}
}

func TestGoldenConfiguration(t *testing.T) {
	c, warnings, err := Load([]string{"testdata/full.hcl"}, environ(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listeners: []Listener{{
			Kind: "tcp", Address: "0.0.0.0:8200", ClusterAddress: "0.0.0.0:8201",
			TLS: &TLS{CertFile: "/etc/conclave/tls.pem", KeyFile: "/etc/conclave/tls.key", ClientCAFile: "/etc/conclave/ca.pem",
				MinVersion: tls.VersionTLS13, RequireClientCert: true, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}},
			ReadTimeout: 20 * time.Second, MaxRequestSize: 1 << 20, MaxRequestDuration: time.Minute,
			ForwardedFor: ForwardedFor{Authorized: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")},
				HopSkips: 1, RejectNotPresent: false, RejectNotAuthorized: true},
			ProxyProtocol:          ProxyProtocol{Behavior: "allow_authorized", Authorized: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
			UnauthenticatedMetrics: true,
		}, {
			Kind: "unix", Address: "/run/conclave.sock", SocketMode: 0o660, SocketUser: "conclave", SocketGroup: "1000",
			ForwardedFor: ForwardedFor{RejectNotPresent: true, RejectNotAuthorized: true},
		}},
		Storage: Storage{Path: "/var/lib/conclave", NodeID: "n1", LogStore: "boltdb", RetryJoin: []RetryJoin{
			{LeaderAPIAddr: "https://vault-2:8200", GossipAddr: "vault-2:8302"}, {GossipAddr: "vault-3:9302"}}},
		Cluster: Cluster{BootstrapExpect: 3, Join: []string{"vault-4:8302", "vault-2:8302", "vault-3:9302"}, GossipAddr: "0.0.0.0:9302",
			SecretFile: "/etc/conclave/secret"},
		Seal:             Seal{Type: "static", KeyID: "2026", Key: KeySource{File: "/etc/conclave/key"}, PreviousID: "2025", PreviousKey: KeySource{Env: "OLD_KEY"}},
		Telemetry:        Telemetry{PrometheusRetention: 12 * time.Hour},
		Audit:            Audit{MaxSize: 200 << 30, EpochMaxAge: 30 * 24 * time.Hour, EpochMaxRecords: 50_000_000},
		AuditDirectories: []string{"/var/log/conclave"},

		CommandDirectories: []string{"/usr/local/lib/conclave/rotate"},
		APIAddr:            "https://vault-1:8200", ClusterAddr: "vault-1:8201", ClusterName: "prod", VersionReported: "1.19.5",
		LogLevel: "debug", LogFormat: "json", PIDFile: "/run/conclave.pid",
		DefaultLeaseTTL: 24 * time.Hour, MaxLeaseTTL: 30 * 24 * time.Hour, MaxRequestDuration: time.Minute,
		UI: true, DisableMlock: true, HealthLeaderOnly: true,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("configuration = %+v, want %+v", c, want)
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.Setting)
		if w.Line == 0 || w.File != "testdata/full.hcl" || w.Reason == "" {
			t.Errorf("warning = %+v, want file, line and reason", w)
		}
	}
	if want := []string{"performance_multiplier", "leader_ca_cert_file", "disable_hostname", "plugin_directory"}; !reflect.DeepEqual(got, want) {
		t.Errorf("warnings for %v, want %v", got, want)
	}
}

const small = `
listener "tcp" {
  tls_disable = true
}
storage "raft" { path = "/data" }
`

func TestDefaults(t *testing.T) {
	c, warnings, err := Load([]string{write(t, map[string]string{"a.hcl": small})}, environ(nil))
	if err != nil || len(warnings) != 0 {
		t.Fatalf("Load = %v, warnings %v", err, warnings)
	}
	if ln := c.Listeners[0]; ln.Address != "127.0.0.1:8200" || ln.TLS != nil {
		t.Errorf("listener = %+v", ln)
	}
	if c.LogLevel != "info" || c.Storage.LogStore != "wal" || c.Seal.Type != "shamir" || c.Cluster.BootstrapExpect != 1 ||
		c.Audit != (Audit{MaxSize: 64 << 30}) || c.MaxLeaseTTL != 768*time.Hour || c.VersionReported != "1.20.0" || c.Cluster.GossipAddr != "0.0.0.0:8302" {
		t.Errorf("configuration = %+v", c)
	}
}

func TestJSONMeansTheSame(t *testing.T) {
	for name, text := range map[string]string{
		"objects": `{"listener": {"tcp": {"address": "127.0.0.1:1", "tls_disable": "true"}}, "storage": {"raft": {"path": "/data"}}, "max_lease_ttl": "10h", "default_lease_ttl": 60}`,
		"lists":   `{"listener": [{"tcp": {"address": "127.0.0.1:1", "tls_disable": true}}], "storage": [{"raft": {"path": "/data"}}], "max_lease_ttl": 36000, "default_lease_ttl": "1m"}`,
	} {
		c, _, err := Load([]string{filepath.Join(write(t, map[string]string{"a.json": text}), "a.json")}, nil)
		if err != nil || len(c.Listeners) != 1 || c.Listeners[0].Address != "127.0.0.1:1" || c.Storage.Path != "/data" || c.MaxLeaseTTL != 10*time.Hour || c.DefaultLeaseTTL != time.Minute {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestFilesAndEnvironmentAreMerged(t *testing.T) {
	dir := write(t, map[string]string{
		"1.hcl":  "listener \"tcp\" { tls_disable = true }\nlog_level = \"warn\"\n",
		"2.json": `{"storage": {"raft": {"path": "/data"}}}`,
		"notes":  "not read",
	})
	other := write(t, map[string]string{"3.hcl": "listener \"unix\" { address = \"/s\" }\ncluster { secret_file = \"/k\" }\nstorage \"raft\" { node_id = \"x\" }"})
	c, _, err := Load([]string{dir, filepath.Join(other, "3.hcl")}, environ(map[string]string{
		"VAULT_API_ADDR": "https://v:8200", "CONCLAVE_API_ADDR": "https://c:8200", "VAULT_LOG_LEVEL": "TRACE", "VAULT_RAFT_NODE_ID": "n9",
		"CONCLAVE_JOIN": "a, b:1", "CONCLAVE_BOOTSTRAP_EXPECT": "3", "VAULT_UI": "1", "VAULT_CLUSTER_ADDR": "https://v:9"}))
	if err != nil {
		t.Fatal(err)
	}
	if c.APIAddr != "https://c:8200" || c.LogLevel != "trace" || c.Storage.NodeID != "n9" || !reflect.DeepEqual(c.Cluster.Join, []string{"a:8302", "b:1"}) ||
		c.Cluster.BootstrapExpect != 3 || !c.UI || len(c.Listeners) != 2 || c.Cluster.SecretFile != "/k" || c.ClusterAddr != "v:9" {
		t.Errorf("configuration = %+v", c)
	}
}

func TestErrorsNameFileLineAndReason(t *testing.T) {
	for _, tc := range []struct {
		name, text string // added to the small configuration, from line 6 on
		line       int
		says       string
	}{
		{"unknown", `lisener "tcp" {}`, 6, "lisener: unknown setting"},
		{"unknown in a block", "telemetry {\n  x = 1\n}", 7, "x: unknown setting in telemetry"},
		{"syntax", "a = = 1", 6, ""},
		{"twice in a file", "ui = true\nui = true", 7, "already set"},
		{"broken escape", "api_addr = \"\\x\"", 6, ""},
		{"not a bool", `ui = "maybe"`, 6, "ui: must be true or false"},
		{"not a string", "api_addr = [1]", 6, "api_addr: must be a string"},
		{"not a list", "audit {\n directories = [{}]\n}", 7, "must be a list of strings"},
		{"not a duration", `max_lease_ttl = "soon"`, 6, "positive"},
		{"negative duration", `max_lease_ttl = "-1h"`, 6, "positive"},
		{"ttl order", "max_lease_ttl = \"1h\"\ndefault_lease_ttl = \"2h\"", 7, "longer than"},
		{"level", `log_level = "loud"`, 6, "one of"},
		{"other storage", `storage "file" { path = "/x" }`, 6, "raft"},
		{"second path", `storage "raft" { path = "/x" }`, 6, "already set at"},
		{"raw", "raw_storage_endpoint = true", 6, "sys/raw"},
		{"api_addr", `api_addr = "vault:8200"`, 6, "URL"},
		{"template", `api_addr = "https://{{ GetPrivateIP }}:8200"`, 6, "URL"},
		{"cluster_addr", `cluster_addr = "https://:1"`, 6, "host:port"},
		{"nowhere for nodes", `cluster_addr = "0.0.0.0:8201"`, 6, "0.0.0.0 is no such place"},
		{"nowhere for clients", `api_addr = "https://[::]:8200"`, 6, ":: is no such place"},
		{"nodes in two places", "listener \"tcp\" {\n address = \"127.0.0.1:1\"\n cluster_address = \"127.0.0.1:2\"\n tls_disable = true\n}\n" +
			"listener \"tcp\" {\n address = \"127.0.0.1:3\"\n cluster_address = \"127.0.0.1:4\"\n tls_disable = true\n}", 11, "another cluster_address"},
		{"version", `version_reported = "v1.20"`, 6, "three numbers"},
		{"seal of others", `seal "awskms" {}`, 6, "shamir"},
		{"two seals", "seal \"shamir\" {}\nseal \"static\" {\n key_file = \"/k\"\n}", 7, "already one"},
		{"static without key", `seal "static" {}`, 6, "exactly one"},
		{"static with two keys", "seal \"static\" {\n key_file = \"/k\"\n key_env = \"K\"\n}", 6, "exactly one"},
		{"literal key", "seal \"static\" {\n current_key = \"Y2FuYXJ5\"\n}", 7, "doesn't belong"},
		{"shamir with a key", "seal \"shamir\" {\n key_file = \"/k\"\n}", 7, "unknown setting"},
		{"join without secret", "cluster {\n join = [\"a:1\"]\n}", 7, "secret_file"},
		{"bad join", "cluster {\n secret_file = \"/k\"\n join = [\"a b:1\"]\n}", 8, "host:port"},
		{"expect", "cluster {\n bootstrap_expect = 0\n}", 7, "from 1"},
		{"expect in both", "cluster {\n bootstrap_expect = 1\n}\nstorage \"raft\" {\n bootstrap_expect = 3\n}", 10, "already set"},
		{"half a pair", "cluster {\n tls_cert_file = \"/c\"\n}", 7, "go together"},
		{"auto_join", "storage \"raft\" {\n retry_join {\n  auto_join = \"provider=aws\"\n  leader_api_addr = \"https://a\"\n }\n}", 8, "discovery"},
		{"retry_join of nobody", "storage \"raft\" {\n retry_join {\n }\n}", 7, "leader_api_addr"},
		{"two log stores", "storage \"raft\" {\n log_store = \"wal\"\n raft_wal = true\n}", 8, "contradicts"},
		{"audit", "audit {\n directories = [\"var\"]\n}", 7, "absolute"},
		{"rotate", "rotate {\n command_directories = [\"bin\"]\n}", 7, "absolute"},
		{"small audit log", "audit {\n max_size = \"1MiB\"\n}", 7, "max_size: must be 16 MiB or more"},
		{"size in other units", "audit {\n max_size = \"64GB\"\n}", 7, "max_size: must be a number of bytes, or a size such as 64GiB"},
		{"size beyond all", "audit {\n max_size = \"9999999999TiB\"\n}", 7, "max_size: must be a number"},
		{"negative size", "audit {\n max_size = -1\n}", 7, "max_size: must be a number"},
		{"short epochs", "audit {\n epoch_max_age = \"1m\"\n}", 7, "epoch_max_age: must be an hour or more"},
		{"small epochs", "audit {\n epoch_max_records = 3\n}", 7, "epoch_max_records: must be a whole number from 1000"},
		{"other listener", `listener "udp" {}`, 6, "tcp"},
		{"no label", `listener {}`, 6, "tcp"},
		{"same address", "listener \"tcp\" {\n tls_disable = true\n}", 6, "same address"},
		{"no certificate", "listener \"tcp\" {\n address = \":1\"\n}", 6, "tls_cert_file"},
		{"tls twice told", "listener \"tcp\" {\n address = \":1\"\n tls_disable = true\n tls_cert_file = \"c\"\n}", 6, "contradicts"},
		{"clients both ways", tlsListener("tls_require_and_verify_client_cert = true\n tls_disable_client_certs = true"), 6, "contradicts"},
		{"clients of no CA", tlsListener("tls_require_and_verify_client_cert = true"), 6, "tls_client_ca_file"},
		{"old TLS", tlsListener(`tls_min_version = "tls10"`), 8, "broken"},
		{"weak suite", tlsListener(`tls_cipher_suites = "TLS_RSA_WITH_RC4_128_SHA"`), 8, "weak"},
		{"versions", tlsListener("tls_min_version = \"tls13\"\n tls_max_version = \"tls12\""), 6, "below"},
		{"proxies of nobody", tlsListener(`proxy_protocol_behavior = "allow_authorized"`), 6, "needs"},
		{"proxies unused", tlsListener(`proxy_protocol_authorized_addrs = "10.0.0.1"`), 6, "needs"},
		{"bad proxies", tlsListener(`x_forwarded_for_authorized_addrs = ["ten"]`), 8, "CIDR"},
		{"chroot", tlsListener(`chroot_namespace = "a"`), 8, "not supported"},
		{"too large", tlsListener(`max_request_size = 99999999`), 8, "from 1 to"},
		{"bad mode", "listener \"unix\" {\n address = \"/s\"\n socket_mode = \"0999\"\n}", 8, "octal"},
		{"no socket", `listener "unix" {}`, 6, "address"},
		{"bad address", "listener \"tcp\" {\n address = \"here\"\n tls_disable = true\n}", 6, "host:port"},
	} {
		file := filepath.Join(write(t, map[string]string{"c.hcl": small + tc.text}), "c.hcl")
		_, _, err := Load([]string{file}, environ(nil))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: Load = %v, want an *Error", tc.name, err)
			continue
		}
		if e.File != file || e.Line != tc.line || !strings.Contains(e.Reason, tc.says) {
			t.Errorf("%s: %d: %q, want %d: …%q…", tc.name, e.Line, e.Reason, tc.line, tc.says)
		}
		if strings.Contains(err.Error(), "Y2FuYXJ5") {
			t.Errorf("%s: the error quotes a key: %v", tc.name, err)
		}
	}
}

func tlsListener(more string) string {
	return "listener \"tcp\" {\n address = \":1\"\n " + more + "\n tls_cert_file = \"c\"\n tls_key_file = \"k\"\n}"
}

func TestBrokenJSONIsNamedByLine(t *testing.T) {
	file := filepath.Join(write(t, map[string]string{"c.json": "{\n\"ui\": true,\n\"api_addr\": \"\\x\"\n}"}), "c.json")
	var e *Error
	if _, _, err := Load([]string{file}, nil); !errors.As(err, &e) || e.Line != 3 {
		t.Errorf("Load = %v, want an error in line 3", err)
	}
}

func TestWhatIsMissingIsAnError(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		paths []string
		says  string
	}{
		"nothing":      {nil, "no listener is configured"},
		"no file":      {[]string{filepath.Join(dir, "none.hcl")}, "none.hcl: stat: no such file"},
		"no files":     {[]string{dir}, "no .hcl or .json file"},
		"a device":     {[]string{"/dev/null"}, "not a regular file"},
		"a large file": {[]string{filepath.Join(write(t, map[string]string{"l.hcl": strings.Repeat("#", maxFile+1)}), "l.hcl")}, "larger than 1 MiB"},
		"a deep file":  {[]string{filepath.Join(write(t, map[string]string{"d.hcl": "a = " + strings.Repeat("[", 500_000)}), "d.hcl")}, "deeply nested"},
	} {
		if _, _, err := Load(tc.paths, nil); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: Load = %v, want …%q…", name, err, tc.says)
		}
	}
	if _, _, err := Load(nil, environ(map[string]string{"VAULT_UI": "maybe"})); err == nil || !strings.Contains(err.Error(), "environment: VAULT_UI: must be true or false") {
		t.Errorf("a bad variable: %v", err)
	}
}

// listening is a configuration with a listener of these lines, and with others after its storage.
func listening(listener, more string) string {
	return "listener \"tcp\" {\n tls_disable = true\n " + listener + "\n}\nstorage \"raft\" { path = \"/data\" }\n" + more
}

func TestAddressesFollowFromEachOther(t *testing.T) {
	for _, tc := range []struct{ listener, more, listen, cluster, api string }{
		{"", "", "127.0.0.1:8201", "127.0.0.1:8201", "http://127.0.0.1:8200"},
		{`address = "10.0.0.1:1"`, "", "10.0.0.1:2", "10.0.0.1:2", "http://10.0.0.1:1"},
		{`address = "[fd00::1]:1"`, "", "[fd00::1]:2", "[fd00::1]:2", "http://[fd00::1]:1"},
		{`address = "0.0.0.0:1"`, `cluster_addr = "v:9"`, "0.0.0.0:2", "v:9", "http://v:1"},
		{`address = ":1"`, `api_addr = "https://v"`, ":2", "v:2", "https://v"},
		{`address = ":1"`, "api_addr = \"https://v\"\ncluster_addr = \"w:9\"", ":2", "w:9", "https://v"},
		{"address = \"0.0.0.0:1\"\n cluster_address = \"10.0.0.1:7\"", "", "10.0.0.1:7", "10.0.0.1:7", "http://10.0.0.1:1"},
		{"address = \"10.0.0.1:1\"\n cluster_address = \"[::]:7\"", `api_addr = "https://v:8200"`, "[::]:7", "v:7", "https://v:8200"},
		{`address = "127.0.0.1:0"`, "", "127.0.0.1:0", "", ""},
	} {
		// What a unix listener before it has no address for, the node doesn't take from it.
		text := "listener \"unix\" { address = \"/s\" }\n" + listening(tc.listener, tc.more)
		c, _, err := Load([]string{write(t, map[string]string{"c.hcl": text})}, environ(nil))
		if err != nil {
			t.Errorf("%s %s: %v", tc.listener, tc.more, err)
			continue
		}
		if c.ClusterListen() != tc.listen || c.ClusterAddr != tc.cluster || c.APIAddr != tc.api {
			t.Errorf("%s %s: listens on %q, reached at %q and %q, want %q, %q and %q", tc.listener, tc.more, c.ClusterListen(), c.ClusterAddr, c.APIAddr, tc.listen, tc.cluster, tc.api)
		}
	}
}

// A node that listens on every address would tell others that it is reached at none.
func TestNodeThatNobodyCanReachIsRefused(t *testing.T) {
	for listener, says := range map[string]string{
		`address = "0.0.0.0:8200"`:       `set cluster_addr = "HOST:8201" for nodes, or api_addr = "http://HOST:8200" for clients`,
		`address = "[::]:1"`:             `"HOST:2"`,
		`address = ":1"`:                 `"HOST:2"`,
		`address = "[::ffff:0.0.0.0]:1"`: `"HOST:2"`,
		"address = \"127.0.0.1:1\"\n cluster_address = \"0.0.0.0:7\"": `"HOST:7"`,
		`address = "127.0.0.1:65535"`:                                 "no port after 65535",
	} {
		file := filepath.Join(write(t, map[string]string{"c.hcl": "# one\n" + listening(listener, "")}), "c.hcl")
		_, _, err := Load([]string{file}, environ(nil))
		var e *Error
		if !errors.As(err, &e) || e.File != file || e.Line != 2 || !strings.Contains(e.Reason, says) {
			t.Errorf("%s: Load = %v, want an error in line 2: …%s…", listener, err, says)
		}
	}
	file := write(t, map[string]string{"c.hcl": "listener \"unix\" { address = \"/s\" }\nstorage \"raft\" { path = \"/data\" }\n"})
	if _, _, err := Load([]string{file}, environ(nil)); err == nil || !strings.Contains(err.Error(), `needs a listener "tcp"`) {
		t.Errorf("a node with a socket alone: Load = %v", err)
	}
}

func TestPlainTextBeyondLoopbackIsWarnedOf(t *testing.T) {
	for address, warned := range map[string]bool{"127.0.0.1:1": false, "localhost:1": false, "[::1]:1": false, "0.0.0.0:1": true, ":1": true} {
		_, warnings, err := Load([]string{write(t, map[string]string{"c.hcl": strings.Replace(small, "tls_disable", "address = \""+address+"\"\n tls_disable", 1) +
			"api_addr = \"http://vault-1:8200\"\n"})}, nil)
		if err != nil || (len(warnings) > 0) != warned {
			t.Errorf("%s: %v, warnings %v", address, err, warnings)
		}
	}
}

func FuzzLoad(f *testing.F) {
	full, err := os.ReadFile("testdata/full.hcl")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	for _, seed := range []string{small, `{"listener": [{"tcp": {}}]}`, "a = <<E\nx\nE\n", "x = 0xffffffffffffffffffff", `"\x" = 1`, "listener \"tcp\" \"a\" {}", "storage = 1",
		`seal "static" { current_key = "${env}" }`, "{", "[1]", "a.b = 1", `{"a": "\ud800"}`, "x = -", "cluster = [{}]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l := newLoader()
		l.add("f.hcl", text)
		c, _, err := l.finish(nil)
		if (c == nil) == (err == nil) {
			t.Fatalf("configuration %v, error %v", c, err)
		}
		if err == nil && (len(c.Listeners) == 0 || c.Storage.Path == "") {
			t.Fatalf("accepted %+v", c)
		}
	})
}
