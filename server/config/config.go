// Package config reads the server's configuration: HCL or JSON in the shape of Vault's where a setting means the same,
// several files and directories merged, then the environment.
//
// What Vault knows and what means nothing here is a [Warning]. What nobody knows, what contradicts itself and what
// would make the server less safe than its configuration says is an [Error] that names file, line and reason.
// No message quotes a value that may be secret.
package config

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"
)

// Defaults that more than one reader of a Config should agree on.
const (
	DefaultAPIPort    = 8200
	DefaultRaftPort   = 8201
	DefaultGossipPort = 8302
	DefaultLeaseTTL   = 768 * time.Hour
	DefaultVersion    = "1.20.0" // of Vault's API, that clients switch features on by
)

// Config is a whole configuration, defaults filled in. Empty strings mean "not given".
type Config struct {
	Listeners []Listener // at least one
	Storage   Storage
	Cluster   Cluster
	Seal      Seal
	Telemetry Telemetry
	Audit     Audit
	// AuditDirectories are where audit files may be made through the API; none: nowhere.
	AuditDirectories []string
	// CommandDirectories are where the programs are that the engine rotate may run; none: it runs nothing.
	CommandDirectories []string

	APIAddr         string // URL that clients reach this node at; default from the listener or ClusterAddr
	ClusterAddr     string // host:port that other nodes reach this node at; default from the listener or APIAddr
	ClusterName     string
	VersionReported string // default DefaultVersion
	LogLevel        string // trace, debug, info (default), warn, error
	LogFormat       string // standard (default) or json
	PIDFile         string

	DefaultLeaseTTL    time.Duration // default 768h
	MaxLeaseTTL        time.Duration // default 768h
	MaxRequestDuration time.Duration // default 90s

	UI               bool
	DisableMlock     bool
	HealthLeaderOnly bool // sys/health answers 429 on nodes that don't lead
}

// Listener is one address that the API is served on.
type Listener struct {
	Kind    string // "tcp" or "unix"
	Address string // host:port or the socket's path
	// ClusterAddress is the host:port that the node listens on for other nodes: one of all listeners; default the port
	// after the first one's Address.
	ClusterAddress string
	TLS            *TLS // nil: plain, on loopback or because tls_disable says so

	SocketMode              os.FileMode // default 0600
	SocketUser, SocketGroup string      // names or numbers; default the process's own

	ReadHeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration // zero: the server's default
	MaxRequestSize                                            int64         // bytes; default and most 32 MiB
	MaxRequestDuration                                        time.Duration // zero: the server's default

	ForwardedFor           ForwardedFor
	ProxyProtocol          ProxyProtocol
	UnauthenticatedMetrics bool
}

// TLS is how a listener proves itself, and what it asks of clients. Files are read again when the server reloads.
type TLS struct {
	CertFile, KeyFile string
	ClientCAFile      string   // if set, certificates that clients send must be signed by one of these
	MinVersion        uint16   // as crypto/tls numbers them; default TLS 1.2
	MaxVersion        uint16   // default TLS 1.3
	CipherSuites      []uint16 // of TLS 1.2; default the ECDHE suites with AEADs
	RequireClientCert bool     // needs ClientCAFile
	NoClientCert      bool     // don't ask for one
}

// ForwardedFor says which proxies are believed when they name the client in X-Forwarded-For. Without authorised
// addresses the header means nothing.
type ForwardedFor struct {
	Authorized          Prefixes
	HopSkips            int  // addresses at the header's end that are proxies
	RejectNotPresent    bool // refuse requests without the header; default true
	RejectNotAuthorized bool // refuse the header from anybody else; default true
}

// ProxyProtocol says whose PROXY headers are believed. Behavior is empty (nobody's), "use_always",
// "allow_authorized" (others' are ignored) or "deny_unauthorized" (others' connections are closed).
type ProxyProtocol struct {
	Behavior   string
	Authorized Prefixes
}

// Prefixes is a set of addresses.
type Prefixes []netip.Prefix

// Contain reports whether addr is in the set, an IPv4 address inside IPv6 taken as what it is.
func (p Prefixes) Contain(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(p, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// Storage is where a node keeps what it knows.
type Storage struct {
	Path      string
	NodeID    string // default made from the host's name
	LogStore  string // "wal" (default) or "boltdb"
	RetryJoin []RetryJoin
}

// RetryJoin names another node of the cluster.
type RetryJoin struct {
	LeaderAPIAddr string // URL of its API
	GossipAddr    string // host:port of its gossip; default LeaderAPIAddr's host with port 8302
}

// Cluster is how nodes find and recognise each other.
type Cluster struct {
	BootstrapExpect                    int      // voters that form the cluster; default 1
	Join                               []string // host:port of other nodes' gossip, those of retry_join included
	GossipAddr                         string   // host:port to gossip on; default 0.0.0.0:8302
	SecretFile                         string   // keys the gossip and lets a node ask to join
	TLSCertFile, TLSKeyFile, TLSCAFile string   // instead of self-signed certificates
	AdmitToken                         string   // of `conclave operator admit`, for a node that joins a running cluster
}

// Seal is what keeps the vault shut while nobody runs it. Keys are named, never written in a configuration.
type Seal struct {
	Type        string // "shamir" (default) or "static"
	KeyID       string
	Key         KeySource
	PreviousID  string
	PreviousKey KeySource // opens what was sealed before the key changed
}

// KeySource is where a static seal's key is read from: a file or a variable of the environment, one of them.
type KeySource struct{ File, Env string }

// Telemetry is what the metrics keep.
type Telemetry struct {
	PrometheusRetention time.Duration // default 24h
}

// Error is a setting that the server can't start with.
type Error struct {
	File   string // or "environment"
	Line   int    // 0: the file as a whole
	Reason string
}

func (e *Error) Error() string { return place(e.File, e.Line) + e.Reason }

// Warning is a setting that has no effect here.
type Warning struct {
	File    string
	Line    int
	Setting string
	Reason  string
}

// String is the warning for a log.
func (w Warning) String() string { return place(w.File, w.Line) + w.Setting + ": " + w.Reason }

func place(file string, line int) string {
	if line > 0 {
		return fmt.Sprintf("%s:%d: ", file, line)
	}
	return file + ": "
}
