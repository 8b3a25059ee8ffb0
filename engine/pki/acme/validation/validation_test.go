package validation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func portOf(t testing.TB, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// loopback permits this machine.
func loopback() Reach { return Reach{Permitted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}} }

// wants checks what kind of failure there is, "" for none.
func wants(t *testing.T, why string, failure *Failure, kind string) {
	t.Helper()
	got := ""
	if failure != nil {
		got = failure.Kind
	}
	if got != kind {
		t.Errorf("%s: %v, want %q", why, failure, kind)
	}
}

func TestHTTP(t *testing.T) {
	const authorization = "token.thumbprint"
	mux := http.NewServeMux()
	answer := func(path string, handle http.HandlerFunc) {
		mux.HandleFunc("/.well-known/acme-challenge/"+path, handle)
	}
	var elsewhere, secure string // URLs
	answer("token", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, authorization) })
	answer("newline", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, authorization+"\r\n") })
	answer("wrong", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "token.other") })
	answer("more", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, authorization+strings.Repeat("x", 1<<20))
	})
	answer("header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 2*maxHeader)) })
	answer("empty", func(http.ResponseWriter, *http.Request) {})
	answer("redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/.well-known/acme-challenge/token", http.StatusFound)
	})
	answer("secure", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, secure, http.StatusFound) })
	answer("elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) })
	answer("file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	answer("metadata", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
	})
	answer("loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) })
	server := httptest.NewServer(mux)
	defer server.Close()
	encrypted := httptest.NewTLSServer(mux)
	defer encrypted.Close()
	other := httptest.NewServer(mux)
	defer other.Close()
	secure, elsewhere = encrypted.URL+"/.well-known/acme-challenge/token", other.URL+"/.well-known/acme-challenge/token"
	v := Validator{portOf(t, server.Listener.Addr().String()), portOf(t, encrypted.Listener.Addr().String())}
	try := func(token string, reach Reach) *Failure {
		return v.Validate(t.Context(), &Attempt{Kind: HTTP, Name: "127.0.0.1", Token: token, Authorization: authorization, Reach: reach})
	}
	for token, kind := range map[string]string{"token": "", "newline": "", "redirect": "", "secure": "", "wrong": "incorrectResponse", "more": "incorrectResponse", "empty": "incorrectResponse", "absent": "unauthorized",
		"elsewhere": "connection", "file": "connection", "metadata": "connection", "loop": "connection", "header": "connection"} {
		failure := try(token, loopback())
		wants(t, token, failure, kind)
		if failure != nil && (strings.Contains(failure.Detail, "127.0.0.1") || strings.Contains(failure.Detail, "other")) {
			t.Errorf("%s: the failure shows where it was, or what came back: %s", token, failure.Detail)
		}
	}
	wants(t, "this machine, which nobody has permitted", try("token", Reach{}), "connection")
	wants(t, "this machine, excluded", try("token", Reach{Permitted: loopback().Permitted, Excluded: loopback().Permitted}), "connection")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wants(t, "too late", v.Validate(ctx, &Attempt{Kind: HTTP, Name: "127.0.0.1", Token: "token", Authorization: authorization, Reach: loopback()}), "connection")
	wants(t, "by address", v.Validate(t.Context(), &Attempt{Kind: HTTP, Address: netip.MustParseAddr("127.0.0.1"), Name: "ignored", Token: "token", Authorization: authorization, Reach: loopback()}), "")
	wants(t, "another kind", v.Validate(t.Context(), &Attempt{Kind: "x"}), "malformed")
}

func TestSpecialAddressesAreNotAsked(t *testing.T) {
	for text, open := range map[string]bool{"192.0.2.1": true, "10.0.0.1": true, "2001:db8::1": true, "fd00::1": true, "127.0.0.1": false, "127.8.9.1": false, "::1": false, "::ffff:127.0.0.1": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "0.0.0.0": false, "::": false, "224.0.0.1": false, "ff02::1": false, "::ffff:169.254.169.254": false} {
		none := Reach{}
		if got := none.allows(netip.MustParseAddr(text)); got != open {
			t.Errorf("%s is asked: %v, want %v", text, got, open)
		}
	}
	only := Reach{Permitted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Excluded: []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")}}
	for text, open := range map[string]bool{"192.0.2.1": true, "192.0.2.200": false, "10.0.0.1": false} {
		if got := only.allows(netip.MustParseAddr(text)); got != open {
			t.Errorf("%s is asked: %v, want %v", text, got, open)
		}
	}
}

// zone answers name servers' questions; every name has the address 127.0.0.1.
type zone struct {
	texts map[string][]string // name → TXT records
	mu    sync.Mutex          // guards asked
	asked []string            // names
}

func (z *zone) names() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.asked)
}

func (z *zone) ServeDNS(reply dns.ResponseWriter, query *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(query)
	for _, question := range query.Question {
		z.mu.Lock()
		z.asked = append(z.asked, question.Name)
		z.mu.Unlock()
		header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET}
		switch question.Qtype {
		case dns.TypeTXT:
			for _, text := range z.texts[question.Name] {
				answer.Answer = append(answer.Answer, &dns.TXT{Hdr: header, Txt: []string{text}})
			}
		case dns.TypeA:
			answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)})
		}
	}
	_ = reply.WriteMsg(answer)
}

func (z *zone) serve(t *testing.T) string {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started, done := make(chan struct{}), make(chan struct{})
	server := &dns.Server{PacketConn: packets, Handler: z, NotifyStartedFunc: func() { close(started) }}
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() { _ = server.Shutdown(); <-done })
	return packets.LocalAddr().String()
}

func digest(authorization string) string {
	sum := sha256.Sum256([]byte(authorization))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestDNS(t *testing.T) {
	z := &zone{texts: map[string][]string{"_acme-challenge.good.example.com.": {"other", digest("a.b")}, "_acme-challenge.bad.example.com.": {digest("a.c"), "a.b"}}}
	reach := Reach{Resolver: z.serve(t)}
	for name, kind := range map[string]string{"good.example.com": "", "bad.example.com": "incorrectResponse", "absent.example.com": "dns"} {
		wants(t, name, New().Validate(t.Context(), &Attempt{Kind: DNS, Name: name, Authorization: "a.b", Reach: reach}), kind)
	}
	reach.Resolver = "127.0.0.1:1"
	wants(t, "no name server", New().Validate(t.Context(), &Attempt{Kind: DNS, Name: "good.example.com", Authorization: "a.b", Reach: reach}), "dns")
}

// shown is a certificate for a challenge.
func shown(t *testing.T, change func(*x509.Certificate), authorization string, critical bool) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(authorization))
	value, err := asn1.Marshal(sum[:])
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example.com"},
		ExtraExtensions: []pkix.Extension{{Id: oidIdentifier(), Critical: critical, Value: value}}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	names := &zone{}
	resolver := names.serve(t)
	for _, row := range []struct {
		why      string
		cert     tls.Certificate
		protocol string
		kind     string
		address  bool
	}{
		{"right", shown(t, nil, "a.b", true), acmeTLS, "", false},
		{"of another key", shown(t, nil, "a.c", true), acmeTLS, "incorrectResponse", false},
		{"not critical", shown(t, nil, "a.b", false), acmeTLS, "incorrectResponse", false},
		{"without the extension", shown(t, func(c *x509.Certificate) { c.ExtraExtensions = nil }, "a.b", true), acmeTLS, "incorrectResponse", false},
		{"for another name", shown(t, func(c *x509.Certificate) { c.DNSNames = []string{"b.example.com"} }, "a.b", true), acmeTLS, "incorrectResponse", false},
		{"for two names", shown(t, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "b.example.com") }, "a.b", true), acmeTLS, "incorrectResponse", false},
		{"an ordinary server", shown(t, nil, "a.b", true), "http/1.1", "tls", false},
		{"an address", shown(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)} }, "a.b", true), acmeTLS, "", true},
		{"a name for an address", shown(t, nil, "a.b", true), acmeTLS, "incorrectResponse", true},
	} {
		asked := make(chan string, 10)
		listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{NextProtos: []string{row.protocol}, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			asked <- hello.ServerName
			return &row.cert, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				connection, err := listener.Accept()
				if err != nil {
					return
				}
				_ = connection.(*tls.Conn).Handshake()
				_ = connection.Close()
			}
		}()
		reach := loopback()
		reach.Resolver = resolver
		attempt := &Attempt{Kind: TLS, Name: "a.example.com", Authorization: "a.b", Reach: reach}
		server := attempt.Name
		if row.address {
			attempt.Address, server = netip.MustParseAddr("127.0.0.1"), "1.0.0.127.in-addr.arpa"
		}
		v := Validator{0, portOf(t, listener.Addr().String())}
		wants(t, row.why, v.Validate(t.Context(), attempt), row.kind)
		if row.protocol == acmeTLS {
			if got := <-asked; got != server {
				t.Errorf("%s: the server is asked for %q, want %q", row.why, got, server)
			}
		}
		_ = listener.Close()
		<-done
	}
	for _, name := range names.names() { // and not below what this machine would try beside it
		if name != "a.example.com." {
			t.Errorf("%q is looked up", name)
		}
	}
	if len(names.names()) == 0 {
		t.Error("nothing is looked up")
	}
	if got := reverse(netip.MustParseAddr("2001:db8::1")); got != "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa" {
		t.Errorf("an address of IPv6 is asked for as %q", got)
	}
}

// Addresses that stand for others, and those of clouds' metadata beyond 169.254.0.0/16.
func TestAddressesThatStandForOthersAreNotAsked(t *testing.T) {
	none, only := Reach{}, Reach{Permitted: []netip.Prefix{netip.MustParsePrefix("fd00:ec2::254/128")}, Excluded: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	for text, open := range map[string]bool{"fd00:ec2::254": false, "fd00:ec2::253": true, "100.100.100.200": false, "168.63.129.16": false, "0.1.2.3": false, "255.255.255.255": false,
		"::127.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b::c000:201": true} {
		if got := none.allows(netip.MustParseAddr(text)); got != open {
			t.Errorf("%s is asked: %v, want %v", text, got, open)
		}
	}
	if !only.allows(netip.MustParseAddr("fd00:ec2::254")) || only.allows(netip.MustParseAddr("64:ff9b::c633:6401")) {
		t.Error("what the settings name doesn't hold")
	}
}
