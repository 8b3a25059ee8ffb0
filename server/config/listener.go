package config

import (
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// listener reads a `listener "tcp"` or `listener "unix"` block.
func (l *loader) listener(v value) {
	if len(v.labels) != 1 || v.labels[0] != "tcp" && v.labels[0] != "unix" {
		v.fail("must be listener \"tcp\" or listener \"unix\"")
		return
	}
	at := "listener " + strconv.Itoa(len(l.Listeners))
	l.seen[at] = v.spot
	v.path = at
	ln := Listener{Kind: v.labels[0], ForwardedFor: ForwardedFor{RejectNotPresent: true, RejectNotAuthorized: true}}
	var known map[string]setter
	plain, secured := false, TLS{}
	if ln.Kind == "unix" {
		known = map[string]setter{
			"socket_mode":  mode(&ln.SocketMode),
			"socket_user":  text(&ln.SocketUser),
			"socket_group": text(&ln.SocketGroup),
			"tls_disable":  ignored("a socket is always plain"),
		}
	} else {
		known = tcpSettings(&ln, &plain, &secured)
	}
	for name, set := range sharedSettings(&ln) {
		known[name] = set
	}
	known = allOnce(known)
	known["telemetry"] = func(v value) {
		v.block(0, allOnce(map[string]setter{
			"unauthenticated_metrics_access": flag(&ln.UnauthenticatedMetrics),
			"disallow_metrics":               refusedIfTrue("metrics are closed by requiring a token, which is the default"),
		}))
	}
	for _, name := range []string{"profiling", "inflight_requests_logging"} {
		known[name] = ignored("there are no such endpoints")
	}
	v.block(1, known)
	l.checkListener(v, &ln, plain, secured)
	l.Listeners = append(l.Listeners, ln)
}

// sharedSettings are those of every kind of listener.
func sharedSettings(ln *Listener) map[string]setter {
	known := map[string]setter{
		"address":                  text(&ln.Address),
		"http_read_header_timeout": duration(&ln.ReadHeaderTimeout),
		"http_read_timeout":        duration(&ln.ReadTimeout),
		"http_write_timeout":       duration(&ln.WriteTimeout),
		"http_idle_timeout":        duration(&ln.IdleTimeout),
		"max_request_size":         number(&ln.MaxRequestSize, 1, 32<<20),
		"max_request_duration":     duration(&ln.MaxRequestDuration),
		"chroot_namespace":         refused("is not supported: the listener would serve more than it says"),
		"require_request_header":   refusedIfTrue("is a setting of Vault's agent"),
		"custom_response_headers":  ignored("headers of answers are fixed"),
	}
	for _, name := range []string{"redact_addresses", "redact_cluster_name", "redact_version",
		"disable_replication_status_endpoints", "disable_request_limiter", "max_json_depth", "max_json_string_value_length",
		"max_json_object_entry_count", "max_json_array_element_count", "max_request_json_memory", "max_request_json_strings"} {
		known[name] = ignored("is chosen by the program")
	}
	return known
}

func tcpSettings(ln *Listener, plain *bool, secured *TLS) map[string]setter {
	return map[string]setter{
		"cluster_address":                       text(&ln.ClusterAddress),
		"tls_disable":                           flag(plain),
		"tls_cert_file":                         text(&secured.CertFile),
		"tls_key_file":                          text(&secured.KeyFile),
		"tls_client_ca_file":                    text(&secured.ClientCAFile),
		"tls_require_and_verify_client_cert":    flag(&secured.RequireClientCert),
		"tls_disable_client_certs":              flag(&secured.NoClientCert),
		"tls_min_version":                       tlsVersion(&secured.MinVersion),
		"tls_max_version":                       tlsVersion(&secured.MaxVersion),
		"tls_cipher_suites":                     cipherSuites(&secured.CipherSuites),
		"tls_prefer_server_cipher_suites":       ignored("the program chooses the best that both sides have"),
		"x_forwarded_for_authorized_addrs":      prefixes(&ln.ForwardedFor.Authorized),
		"x_forwarded_for_hop_skips":             number(&ln.ForwardedFor.HopSkips, 0, 32),
		"x_forwarded_for_reject_not_present":    flag(&ln.ForwardedFor.RejectNotPresent),
		"x_forwarded_for_reject_not_authorized": flag(&ln.ForwardedFor.RejectNotAuthorized),
		"x_forwarded_for_client_cert_header":    refused("certificates are taken from TLS only, never from a header"),
		"proxy_protocol_behavior":               oneOf(&ln.ProxyProtocol.Behavior, "use_always", "allow_authorized", "deny_unauthorized"),
		"proxy_protocol_authorized_addrs":       prefixes(&ln.ProxyProtocol.Authorized),
	}
}

func (l *loader) checkListener(v value, ln *Listener, plain bool, secured TLS) {
	behavior := ln.ProxyProtocol.Behavior
	switch {
	case ln.Kind == "unix":
		if ln.Address == "" {
			v.fail("a unix listener needs an address, the socket's path")
		}
		return
	case ln.Address == "":
		ln.Address = net.JoinHostPort("127.0.0.1", strconv.Itoa(DefaultAPIPort))
	case !validListen(ln.Address):
		v.fail("address must be a host:port")
		return
	}
	if ln.ClusterAddress != "" && !validListen(ln.ClusterAddress) {
		v.fail("cluster_address must be a host:port")
	}
	switch {
	case plain && (secured.CertFile != "" || secured.KeyFile != "" || secured.ClientCAFile != "" || secured.RequireClientCert):
		v.fail("tls_disable contradicts the TLS settings beside it")
	case plain:
		if host, _, _ := net.SplitHostPort(ln.Address); !isLoopback(host) {
			v.warn("tls_disable lets tokens and secrets cross the network in the clear")
		}
	case secured.CertFile == "" || secured.KeyFile == "":
		v.fail("needs tls_cert_file and tls_key_file, or tls_disable = true")
	case secured.RequireClientCert && secured.NoClientCert:
		v.fail("tls_require_and_verify_client_cert contradicts tls_disable_client_certs")
	case secured.RequireClientCert && secured.ClientCAFile == "":
		v.fail("tls_require_and_verify_client_cert needs tls_client_ca_file")
	case secured.MaxVersion != 0 && secured.MaxVersion < secured.MinVersion:
		v.fail("tls_max_version is below tls_min_version")
	default:
		ln.TLS = &secured
	}
	if behavior != "" && behavior != "use_always" && len(ln.ProxyProtocol.Authorized) == 0 {
		v.fail("proxy_protocol_behavior = %q needs proxy_protocol_authorized_addrs", behavior)
	}
	if behavior == "" && len(ln.ProxyProtocol.Authorized) > 0 {
		v.fail("proxy_protocol_authorized_addrs needs proxy_protocol_behavior")
	}
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// mode takes permissions in octal, as in "0660".
func mode(target *os.FileMode) setter {
	return func(v value) {
		s, ok := v.scalar("a file mode")
		if !ok {
			return
		}
		n, err := strconv.ParseUint(s, 8, 9)
		if err != nil {
			v.fail("must be a file mode in octal, such as \"0660\"")
			return
		}
		*target = os.FileMode(n)
	}
}

func tlsVersion(target *uint16) setter {
	return func(v value) {
		switch s, _ := v.literal(); s {
		case "tls12":
			*target = tls.VersionTLS12
		case "tls13":
			*target = tls.VersionTLS13
		case "tls10", "tls11":
			v.fail("%s is broken: tls12 is the oldest there is", s)
		default:
			v.fail("must be tls12 or tls13")
		}
	}
}

// cipherSuites takes names as crypto/tls has them, of suites that are not known to be weak.
func cipherSuites(target *[]uint16) setter {
	return func(v value) {
		names, ok := v.strings()
		if !ok {
			return
		}
		ids := map[string]uint16{}
		for _, suite := range tls.CipherSuites() {
			ids[suite.Name] = suite.ID
		}
		for _, name := range names {
			id, known := ids[strings.ToUpper(name)]
			if !known {
				v.fail("unknown or weak cipher suite %q", name)
				return
			}
			*target = append(*target, id)
		}
	}
}
