package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/server/config"
)

func get(t *testing.T, client *http.Client, url string) *http.Response {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatalf("GET %s = %v", url, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp
}

func TestHTTP2AndModernTLSOnly(t *testing.T) {
	ca := newAuthority(t, "test CA")
	cert, key := ca.issue("server")
	s, _ := newTestServer(t, &recorder{resp: &conclave.Response{}}, servingVault(), nil)
	l, _ := serve(t, s, config.Listener{TLS: &config.TLS{CertFile: cert, KeyFile: key}})
	url := "https://" + l.Addr().String() + "/v1/sys/health"
	if resp := get(t, tlsClient(t, &tls.Config{RootCAs: ca.pool()}), url); resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("answer = %s %d, want HTTP/2 200", resp.Proto, resp.StatusCode)
	}
	if resp := get(t, tlsClient(t, &tls.Config{RootCAs: ca.pool(), MaxVersion: tls.VersionTLS12}), url); resp.StatusCode != 200 {
		t.Errorf("TLS 1.2 = %d, want 200", resp.StatusCode)
	}
	for name, conf := range map[string]*tls.Config{
		"TLS 1.1": {RootCAs: ca.pool(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"CBC":     {RootCAs: ca.pool(), MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
	} {
		if conn, err := tls.Dial("tcp", l.Addr().String(), conf); err == nil {
			_ = conn.Close()
			t.Errorf("a client with %s was let in", name)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	ca, foreign := newAuthority(t, "test CA"), newAuthority(t, "foreign CA")
	cert, key := ca.issue("server")
	mine, theirs := ca.pair("client"), foreign.pair("client")
	for _, tc := range []struct {
		name     string
		settings config.TLS
		client   []tls.Certificate
		works    bool
		verified bool
	}{
		{"required and given", config.TLS{ClientCAFile: ca.caFile(), RequireClientCert: true}, []tls.Certificate{mine}, true, true},
		{"required and absent", config.TLS{ClientCAFile: ca.caFile(), RequireClientCert: true}, nil, false, false},
		{"required and foreign", config.TLS{ClientCAFile: ca.caFile(), RequireClientCert: true}, []tls.Certificate{theirs}, false, false},
		{"optional and given", config.TLS{ClientCAFile: ca.caFile()}, []tls.Certificate{mine}, true, true},
		{"optional and absent", config.TLS{ClientCAFile: ca.caFile()}, nil, true, false},
		{"no CA: not verified, not passed on", config.TLS{}, []tls.Certificate{mine}, true, false},
		{"no CA: of any authority", config.TLS{}, []tls.Certificate{theirs}, true, false},
		{"not asked for", config.TLS{NoClientCert: true}, []tls.Certificate{mine}, true, false},
	} {
		rec := &recorder{resp: &conclave.Response{}}
		s, _ := newTestServer(t, rec, servingVault(), nil)
		tc.settings.CertFile, tc.settings.KeyFile = cert, key
		l, stop := serve(t, s, config.Listener{TLS: &tc.settings})
		send := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(tc.client) == 0 {
				return &tls.Certificate{}, nil
			}
			return &tc.client[0], nil
		}
		client := tlsClient(t, &tls.Config{RootCAs: ca.pool(), GetClientCertificate: send})
		resp, err := client.Get("https://" + l.Addr().String() + "/v1/kv/a")
		if err == nil {
			_ = resp.Body.Close()
		}
		client.CloseIdleConnections()
		stop()
		if (err == nil) != tc.works {
			t.Errorf("%s: %v", tc.name, err)
		}
		if tc.works && (len(rec.seen.PeerCertificates) > 0) != tc.verified {
			t.Errorf("%s: %d certificates reached the pipeline", tc.name, len(rec.seen.PeerCertificates))
		}
		presented := len(tc.client) > 0 && !tc.settings.NoClientCert
		if tc.works && ((len(rec.seen.PresentedCertificates) > 0) != presented || presented && !bytes.Equal(rec.seen.PresentedCertificates[0], tc.client[0].Certificate[0])) {
			t.Errorf("%s: %d presented certificates reached the pipeline", tc.name, len(rec.seen.PresentedCertificates))
		}
	}
}

func TestReloadTakesNewCertificatesAndKeepsOldOnesOnFailure(t *testing.T) {
	ca := newAuthority(t, "test CA")
	cert, key := ca.issue("server")
	s, _ := newTestServer(t, &recorder{}, servingVault(), nil)
	l, _ := serve(t, s, config.Listener{TLS: &config.TLS{CertFile: cert, KeyFile: key}})
	serial := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: ca.pool()})
		if err != nil {
			t.Fatalf("connect = %v", err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	first := serial()
	ca.issue("server")
	if err := s.Reload(); err != nil || serial() != first+1 {
		t.Errorf("after Reload = %v the serial number is %d, want %d", err, serial(), first+1)
	}
	if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil || serial() != first+1 {
		t.Errorf("Reload of a damaged file = %v, serial %d", err, serial())
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	rec := &recorder{resp: &conclave.Response{}}
	s, _ := newTestServer(t, rec, servingVault(), nil)
	settings := config.Listener{Kind: "unix", Address: path, SocketMode: 0o660}
	_, stop := serve(t, s, settings)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket = %v, %v, want mode 0660", info, err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	if resp := get(t, &http.Client{Transport: transport}, "http://vault/v1/kv/a"); resp.StatusCode != 204 || rec.seen.Remote != (netip.AddrPort{}) {
		t.Errorf("answer = %d from %v, want 204 from nowhere", resp.StatusCode, rec.seen.Remote)
	}
	if l, err := Listen(settings); err == nil {
		_ = l.Close()
		t.Error("a socket that is served was taken over")
	}
	stop()
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	l, err := Listen(settings)
	if err != nil {
		t.Fatalf("Listen in the place of a stale socket = %v", err)
	}
	_ = l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(settings); err == nil {
		t.Error("a file was taken for a socket")
	}
	if _, err := Listen(config.Listener{Kind: "unix", Address: path + "2", SocketUser: "no-such-user-here"}); err == nil {
		t.Error("a socket for an unknown user was made")
	}
}

func TestProxyProtocol(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tc := range []struct {
		behavior   string
		authorized []netip.Prefix
		remote     string // empty: the connection is closed
	}{
		{"use_always", nil, "203.0.113.7"},
		{"allow_authorized", loopback, "203.0.113.7"},
		{"allow_authorized", elsewhere, "127.0.0.1"},
		{"deny_unauthorized", loopback, "203.0.113.7"},
		{"deny_unauthorized", elsewhere, ""},
	} {
		rec := &recorder{resp: &conclave.Response{}}
		s, _ := newTestServer(t, rec, servingVault(), nil)
		l, stop := serve(t, s, config.Listener{Kind: "tcp", Address: "127.0.0.1:0",
			ProxyProtocol: config.ProxyProtocol{Behavior: tc.behavior, Authorized: tc.authorized}})
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "PROXY TCP4 203.0.113.7 127.0.0.1 4711 8200\r\nGET /v1/kv/a HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = resp.Body.Close()
		}
		_ = conn.Close()
		stop()
		switch {
		case tc.remote == "" && rec.seen != nil:
			t.Errorf("%s from %v: the request was executed", tc.behavior, tc.authorized)
		case tc.remote != "" && (err != nil || rec.seen.Remote.Addr().String() != tc.remote):
			t.Errorf("%s from %v: %v, remote %+v, want %s", tc.behavior, tc.authorized, err, rec.seen, tc.remote)
		}
	}
}

func TestShutdownLetsRunningRequestsEnd(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	s, _ := newTestServer(t, handlerFunc(func(context.Context, *conclave.Request) (*conclave.Response, error) {
		close(began)
		<-finish
		return &conclave.Response{}, nil
	}), servingVault(), nil)
	l, stop := serve(t, s, config.Listener{})
	status := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String() + "/v1/kv/a")
		if err != nil {
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	<-began
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	for { // until the listener is closed
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(finish)
	if got := <-status; got != 204 {
		t.Errorf("the request that ran while the server stopped = %d, want 204", got)
	}
	<-stopped
}

func TestServeFailsWithItsListener(t *testing.T) {
	s, _ := newTestServer(t, &recorder{}, servingVault(), nil)
	l, err := Listen(config.Listener{Kind: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := s.Serve(context.Background(), l); err == nil {
		t.Error("Serve of a closed listener = nil, want an error")
	}
}

func TestSlowClientsAreCutOffAndSlowRequestsAreNot(t *testing.T) {
	slow := func(ctx context.Context, req *conclave.Request) (*conclave.Response, error) {
		timer := time.NewTimer(300 * time.Millisecond) // well beyond the limit for reading
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return &conclave.Response{}, nil
		}
	}
	s, _ := newTestServer(t, handlerFunc(slow), servingVault(), func(c *Config) {
		c.Limits.ReadHeader, c.Limits.Read = 50*time.Millisecond, 50*time.Millisecond
	})
	l, _ := serve(t, s, config.Listener{})
	for name, tc := range map[string]struct{ sent, answer string }{
		"half a header":     {"GET /v1/kv/a HTTP/1.1\r\nHost: v\r\n", ""},
		"half a body":       {"POST /v1/kv/a HTTP/1.1\r\nHost: v\r\nContent-Length: 100\r\n\r\n{", "HTTP/1.1 400 "},
		"a slow execution":  {"POST /v1/kv/a HTTP/1.1\r\nHost: v\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 204 "},
		"a slow read":       {"GET /v1/kv/a HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n", "HTTP/1.1 204 "},
		"a body of nothing": {"GET /v1/kv/a HTTP/1.1\r\nHost: v\r\nContent-Length: 100\r\n\r\n{", "HTTP/1.1 204 "},
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, tc.sent)
		got, err := io.ReadAll(conn) // ends when the server closes the connection
		_ = conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stayed open", name)
		}
		if !strings.HasPrefix(string(got), tc.answer) || tc.answer == "" && strings.HasPrefix(string(got), "HTTP/1.1 2") {
			t.Errorf("%s: answer = %.80q, want %q", name, got, tc.answer)
		}
	}
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	s, _ := newTestServer(t, &recorder{resp: &conclave.Response{}}, servingVault(), func(c *Config) { c.Limits.Connections = 1 })
	l, _ := serve(t, s, config.Listener{})
	ask := func(conn net.Conn) error {
		_, _ = io.WriteString(conn, "GET /v1/kv/a HTTP/1.1\r\nHost: v\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	var conns [2]net.Conn
	for i := range conns {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		conns[i] = conn
		if err := ask(conn); (err == nil) != (i == 0) {
			t.Errorf("connection %d: %v", i+1, err)
		}
	}
}
