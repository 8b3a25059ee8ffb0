package server

import (
	"net/http"
	"net/netip"
	"strings"

	"conclave"
	"conclave/server/config"
)

var (
	errNoForwarded  = conclave.Errorf(conclave.Invalid, "no X-Forwarded-For header, which this listener demands")
	errNotProxy     = conclave.Errorf(conclave.Invalid, "an X-Forwarded-For header from an address that may not send one")
	errBadForwarded = conclave.Errorf(conclave.Invalid, "malformed X-Forwarded-For header")
)

// clientAddr is who makes the request: the peer of the connection, or whom a trusted proxy names in X-Forwarded-For.
// The zero AddrPort stands for a local socket.
func clientAddr(r *http.Request, trust *config.ForwardedFor) (netip.AddrPort, error) {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	if len(trust.Authorized) == 0 {
		return peer, nil
	}
	values := r.Header["X-Forwarded-For"]
	if len(values) == 0 {
		if trust.RejectNotPresent {
			return peer, errNoForwarded
		}
		return peer, nil
	}
	if !trust.Authorized.Contain(peer.Addr()) {
		if trust.RejectNotAuthorized {
			return peer, errNotProxy
		}
		return peer, nil
	}
	hops := strings.Split(strings.Join(values, ","), ",")
	at := len(hops) - 1 - trust.HopSkips
	if at < 0 || len(hops) > maxHops {
		return peer, errBadForwarded
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(hops[at]))
	if err != nil {
		return peer, errBadForwarded
	}
	return netip.AddrPortFrom(addr.Unmap().WithZone(""), peer.Port()), nil
}
