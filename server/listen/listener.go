// Package listen opens the addresses that the API is served on: TCP and Unix sockets, TLS, the PROXY protocol.
package listen

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"

	"github.com/pires/go-proxyproto"

	"conclave/server/config"
)

// Listener is an open address.
type Listener struct {
	net.Listener
	Settings config.Listener
	certs    *certificates // nil: plain
}

// Open opens an address. Closing the listener, or serving it to the end, closes it.
func Open(settings config.Listener) (*Listener, error) {
	l := &Listener{Settings: settings}
	var err error
	if settings.TLS != nil {
		if l.certs, err = newCertificates(*settings.TLS); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", settings.Address, err)
		}
	}
	if settings.Kind == "unix" {
		l.Listener, err = listenUnix(settings)
	} else {
		l.Listener, err = net.Listen("tcp", settings.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", settings.Address, err)
	}
	if settings.ProxyProtocol.Behavior != "" {
		l.Listener = &proxyproto.Listener{Listener: l.Listener, ConnPolicy: proxyPolicy(settings.ProxyProtocol)}
	}
	if l.certs != nil {
		l.Listener = tls.NewListener(l.Listener, l.certs.config())
	}
	return l, nil
}

// Reload reads the certificates again. If that fails, those it had stay.
func (l *Listener) Reload() error {
	if l.certs == nil {
		return nil
	}
	if err := l.certs.reload(); err != nil {
		return fmt.Errorf("reload %s: %w", l.Settings.Address, err)
	}
	return nil
}

// listenUnix opens a socket in the place of one that nobody serves any more.
func listenUnix(settings config.Listener) (net.Listener, error) {
	if info, err := os.Lstat(settings.Address); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, errors.New("there is a file that is not a socket")
		}
		if conn, err := net.Dial("unix", settings.Address); err == nil {
			_ = conn.Close()
			return nil, errors.New("another process serves the socket")
		}
		if err := os.Remove(settings.Address); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", settings.Address)
	if err != nil {
		return nil, err
	}
	mode := settings.SocketMode
	if mode == 0 {
		mode = 0o600
	}
	err = chownSocket(settings)
	if err == nil {
		err = os.Chmod(settings.Address, mode)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func chownSocket(settings config.Listener) error {
	uid, gid := -1, -1
	if name := settings.SocketUser; name != "" {
		if u, err := user.Lookup(name); err == nil {
			name = u.Uid
		}
		id, err := strconv.Atoi(name)
		if err != nil {
			return fmt.Errorf("no user %q", settings.SocketUser)
		}
		uid = id
	}
	if name := settings.SocketGroup; name != "" {
		if g, err := user.LookupGroup(name); err == nil {
			name = g.Gid
		}
		id, err := strconv.Atoi(name)
		if err != nil {
			return fmt.Errorf("no group %q", settings.SocketGroup)
		}
		gid = id
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	return os.Chown(settings.Address, uid, gid)
}

// proxyPolicy decides by the address of the connection whether its PROXY header is believed.
func proxyPolicy(settings config.ProxyProtocol) proxyproto.ConnPolicyFunc {
	return func(conn proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
		if settings.Behavior == "use_always" {
			return proxyproto.USE, nil
		}
		upstream, err := netip.ParseAddrPort(conn.Upstream.String())
		switch {
		case err == nil && settings.Authorized.Contain(upstream.Addr()):
			return proxyproto.USE, nil
		case settings.Behavior == "allow_authorized":
			return proxyproto.IGNORE, nil
		}
		return proxyproto.REJECT, proxyproto.ErrInvalidUpstream
	}
}
