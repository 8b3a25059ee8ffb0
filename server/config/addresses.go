package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ClusterListen is the host:port that the node listens on for other nodes.
func (c *Config) ClusterListen() string {
	for _, listener := range c.Listeners {
		if listener.ClusterAddress != "" {
			return listener.ClusterAddress
		}
	}
	return ""
}

// addresses checks what the node listens on and is reached at, and fills in what follows from the rest.
func (l *loader) addresses() {
	l.checkAPIAddr()
	l.checkClusterAddr()
	if !isHostPort(l.Cluster.GossipAddr) {
		l.failOn("cluster.gossip_addr", "gossip_addr must be a host:port")
	}
	for i, addr := range l.Cluster.Join {
		if !strings.Contains(addr, ":") {
			addr = net.JoinHostPort(addr, strconv.Itoa(DefaultGossipPort))
			l.Cluster.Join[i] = addr
		}
		if !isHostPort(addr) {
			l.failOn("cluster.join", "join must be a list of host:port")
		}
	}
	first := slices.IndexFunc(l.Listeners, func(ln Listener) bool { return ln.Kind == "tcp" })
	switch {
	case len(l.errs) > 0 || len(l.Listeners) == 0: // what follows from that need not be said as well
	case first < 0:
		l.failAt(spot{"configuration", 0}, `a node needs a listener "tcp", for other nodes to reach it`)
	default:
		l.listenForNodes(first)
		l.reached(first)
	}
}

func (l *loader) checkAPIAddr() {
	if l.APIAddr == "" {
		return
	}
	u, err := url.Parse(l.APIAddr)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		l.failOn("api_addr", "api_addr must be a URL such as https://vault-1.example.com:8200")
	} else if everywhere(u.Hostname()) {
		l.failOn("api_addr", "api_addr is where clients reach this node, and "+u.Hostname()+" is no such place")
	}
}

func (l *loader) checkClusterAddr() {
	if l.ClusterAddr == "" {
		return
	}
	addr := strings.TrimSuffix(strings.TrimPrefix(l.ClusterAddr, "https://"), "/")
	if !strings.Contains(addr, ":") {
		addr = net.JoinHostPort(addr, strconv.Itoa(DefaultRaftPort))
	}
	if !isHostPort(addr) {
		l.failOn("cluster_addr", "cluster_addr must be a host:port or https://host:port")
	} else if host, _, _ := net.SplitHostPort(addr); everywhere(host) {
		l.failOn("cluster_addr", "cluster_addr is where other nodes reach this one, and "+host+" is no such place")
	}
	l.ClusterAddr = addr
}

// listenForNodes sees to one cluster_address. Where no listener has one it is the first one's, at the next port.
func (l *loader) listenForNodes(first int) {
	given := ""
	for i, listener := range l.Listeners {
		switch {
		case listener.ClusterAddress == "":
		case given == "":
			given = listener.ClusterAddress
		case listener.ClusterAddress != given:
			l.failOn("listener "+strconv.Itoa(i), "another listener has another cluster_address: a node listens for others at one")
		}
	}
	if given != "" {
		return
	}
	host, port, _ := net.SplitHostPort(l.Listeners[first].Address)
	n, _ := strconv.Atoi(port)
	if n > 0 { // otherwise the system chooses both
		n++
	}
	if n > maxPort {
		l.failOn("listener "+strconv.Itoa(first), "there is no port after "+port+": set cluster_address")
		return
	}
	l.Listeners[first].ClusterAddress = net.JoinHostPort(host, strconv.Itoa(n))
}

const maxPort = 65535

// reached fills in where other nodes and clients reach the node. One address may follow from the other, as in Vault, or
// from where the node listens; on every address none can be told.
func (l *loader) reached(first int) {
	api := l.Listeners[first]
	scheme := "https"
	if api.TLS == nil {
		scheme = "http"
	}
	apiHost, apiPort, _ := net.SplitHostPort(api.Address)
	host, port, _ := net.SplitHostPort(l.ClusterListen())
	if l.ClusterAddr == "" && everywhere(host) {
		u, err := url.Parse(l.APIAddr)
		if err != nil || u.Hostname() == "" || port == "0" {
			l.failOn("listener "+strconv.Itoa(first), "the node listens on every address of its machine, so it can't tell which of them others reach it at: "+
				"set cluster_addr = \"HOST:"+port+"\" for nodes, or api_addr = \""+scheme+"://HOST:"+apiPort+"\" for clients, or both")
			return
		}
		host = u.Hostname()
	}
	if l.ClusterAddr == "" && port != "0" { // a port that the system chooses, the node learns when it listens
		l.ClusterAddr = net.JoinHostPort(host, port)
	}
	if l.APIAddr != "" || apiPort == "0" {
		return
	}
	if everywhere(apiHost) {
		apiHost, _, _ = net.SplitHostPort(l.ClusterAddr)
	}
	l.APIAddr = scheme + "://" + net.JoinHostPort(apiHost, apiPort)
}

// everywhere reports whether host stands for every address of the machine.
func everywhere(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.Unmap().IsUnspecified()
}

// isHostPort reports whether addr is a host and a port number; templates are none.
func isHostPort(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	n, e := strconv.ParseUint(port, 10, 16)
	return err == nil && e == nil && n > 0 && host != "" && !strings.ContainsAny(host, "{}/ @")
}

// validListen is isHostPort for an address to listen on, where port 0 and no host are fine.
func validListen(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	_, e := strconv.ParseUint(port, 10, 16)
	return err == nil && e == nil && !strings.ContainsAny(host, "{}/ @")
}
