// Package validation finds out whether somebody controls a name or an address: it does the asking of ACME's challenges
// http-01, dns-01 (RFC 8555 section 8) and tls-alpn-01 (RFC 8737).
//
// A client chooses who is asked; what it gets out of that is bounded. Answers aren't shown to it, only which kind of
// failure there was. Connections go to the ports of the protocol only, and, unless the settings permit it, neither to this
// machine itself nor to addresses that are special: of one link (169.254.0.0/16 has the metadata of clouds), multicast,
// unspecified. The address is checked when it is connected to, so that neither a redirect nor a second answer of a name
// server gets around it. Sizes, times and redirects are limited.
package validation

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of one validation.
const (
	validationTime = 10 * time.Second
	connectTime    = 4 * time.Second
	maxRedirects   = 5
	maxAnswer      = 1 << 10 // bytes; a key authorization has less than 100
	maxHeader      = 16 << 10
	maxTexts       = 100 // TXT records that are looked at
)

const acmeTLS = "acme-tls/1"

// Kinds of challenges.
const (
	HTTP = "http-01"
	DNS  = "dns-01"
	TLS  = "tls-alpn-01"
)

// Attempt is one validation of a challenge.
type Attempt struct {
	Kind          string
	Name          string     // of the host
	Address       netip.Addr // valid if an address is to be controlled
	Token         string
	Authorization string // RFC 8555 section 8.1: token.thumbprint
	Reach         Reach
}

// Reach is where validation may go.
type Reach struct {
	Resolver            string // HOST:PORT; empty: the system's
	Permitted, Excluded []netip.Prefix
}

// Failure is what went wrong: a kind of error, as RFC 8555 section 6.7 names them, and words for the client.
type Failure struct{ Kind, Detail string }

// oidIdentifier is that of RFC 8737 section 3: id-pe-acmeIdentifier.
func oidIdentifier() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31} }

var (
	errPlace     = errors.New("not a place to go")
	errRedirects = errors.New("too many redirects")
)

// Validator asks servers.
type Validator struct{ httpPort, tlsPort int }

// New returns a validator that asks at the ports of the protocol.
func New() Validator { return Validator{80, 443} }

func fails(kind, detail string) *Failure { return &Failure{kind, detail} }

// Validate returns nil if the challenge is met.
func (v Validator) Validate(ctx context.Context, a *Attempt) *Failure {
	ctx, cancel := context.WithTimeout(ctx, validationTime)
	defer cancel()
	switch a.Kind {
	case HTTP:
		return v.overHTTP(ctx, a)
	case DNS:
		return v.overDNS(ctx, a)
	case TLS:
		return v.overTLS(ctx, a)
	}
	return fails("malformed", "the challenge is of an unknown type")
}

// names looks up names where the settings say.
func (r *Reach) names() *net.Resolver {
	if r.Resolver == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: connectTime}).DialContext(ctx, network, r.Resolver)
	}}
}

// translated is where IPv4 addresses are reached by IPv6 (RFC 6052, 2.1): the last four bytes are what is asked.
var translated = netip.MustParsePrefix("64:ff9b::/96")

// special are networks without servers, and addresses at which clouds tell a machine what is for it alone.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),          // RFC 1122, 3.2.1.3
	netip.MustParsePrefix("255.255.255.255/32"), // broadcast
	netip.MustParsePrefix("::/96"),              // IPv4-compatible (RFC 4291, 2.5.5.1)
	netip.MustParsePrefix("fd00:ec2::254/128"),  // Amazon's metadata by IPv6
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba's
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure's
}

// allows reports whether a server with this address may be asked.
func (r *Reach) allows(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	if b := address.As16(); translated.Contains(address) {
		address = netip.AddrFrom4([4]byte(b[12:]))
	}
	within := func(networks []netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(address) })
	}
	if within(r.Excluded) {
		return false
	}
	if len(r.Permitted) > 0 {
		return within(r.Permitted)
	}
	return !address.IsLoopback() && !address.IsLinkLocalUnicast() && !address.IsMulticast() && !address.IsUnspecified() && !within(special)
}

// dialer connects to servers that may be asked, on one of some ports. Names are looked up as they are: with the domains
// that this machine would try after them, a name would stand for others' servers.
func (r *Reach) dialer(ports ...int) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: connectTime, Resolver: r.names(), ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil || !slices.Contains(ports, int(to.Port())) || !r.allows(to.Addr()) {
			return errPlace
		}
		return nil
	}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, errPlace
		}
		if net.ParseIP(host) == nil {
			host = strings.TrimSuffix(host, ".") + "."
		}
		return dialer.DialContext(ctx, network, net.JoinHostPort(host, port))
	}
}

// host is what is connected to.
func (a *Attempt) host() string {
	if a.Address.IsValid() {
		return a.Address.String()
	}
	return a.Name
}

// overHTTP is RFC 8555 section 8.3. Redirects may go to https, whose certificate proves nothing here and isn't checked.
func (v Validator) overHTTP(ctx context.Context, a *Attempt) *Failure {
	transport := &http.Transport{DialContext: a.Reach.dialer(v.httpPort, v.tlsPort), DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader, ResponseHeaderTimeout: validationTime,
		TLSHandshakeTimeout: connectTime, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errRedirects
		}
		if req.URL.Scheme != "http" && req.URL.Scheme != "https" || req.URL.User != nil {
			return errPlace
		}
		return nil
	}}
	host := a.host()
	if v.httpPort != 80 {
		host = net.JoinHostPort(host, strconv.Itoa(v.httpPort))
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/.well-known/acme-challenge/"+a.Token, nil)
	if err != nil {
		return fails("malformed", "the name can't be part of a URL")
	}
	req.Header.Set("User-Agent", "conclave-acme")
	req.Header.Set("Accept", "*/*")
	response, err := client.Do(req)
	if err != nil {
		return connecting(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fails("unauthorized", "the server answers with status "+strconv.Itoa(response.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return connecting(err)
	}
	if subtle.ConstantTimeCompare([]byte(strings.TrimRight(string(body), " \t\r\n")), []byte(a.Authorization)) != 1 {
		return fails("incorrectResponse", "the server answers something else than the key authorization")
	}
	return nil
}

// connecting tells what kind of failure there was, and nothing of where.
func connecting(err error) *Failure {
	var ofName *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &ofName):
		return fails("dns", "the name can't be looked up")
	case errors.Is(err, errPlace):
		return fails("connection", "the server has an address or a port that is not asked")
	case errors.Is(err, errRedirects):
		return fails("connection", "the server redirects too often")
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fails("connection", "the server doesn't answer in time")
	}
	return fails("connection", "the server can't be reached")
}

// overDNS is RFC 8555 section 8.4.
func (v Validator) overDNS(ctx context.Context, a *Attempt) *Failure {
	sum := sha256.Sum256([]byte(a.Authorization))
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	texts, err := a.Reach.names().LookupTXT(ctx, "_acme-challenge."+a.Name+".")
	if err != nil {
		return fails("dns", "the TXT record can't be looked up")
	}
	for _, text := range texts[:min(len(texts), maxTexts)] {
		if subtle.ConstantTimeCompare([]byte(text), []byte(want)) == 1 {
			return nil
		}
	}
	return fails("incorrectResponse", "no TXT record has the digest of the key authorization")
}

// overTLS is RFC 8737.
func (v Validator) overTLS(ctx context.Context, a *Attempt) *Failure {
	server := a.Name
	if a.Address.IsValid() {
		server = reverse(a.Address)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*connectTime)
	defer cancel()
	plain, err := a.Reach.dialer(v.tlsPort)(ctx, "tcp", net.JoinHostPort(a.host(), strconv.Itoa(v.tlsPort)))
	if err != nil {
		return connecting(err)
	}
	defer plain.Close()
	connection := tls.Client(plain, &tls.Config{ServerName: server, NextProtos: []string{acmeTLS}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true}) // the certificate is self-signed by design, and is looked at below
	if err := connection.HandshakeContext(ctx); err != nil {
		return fails("tls", "the handshake fails")
	}
	state := connection.ConnectionState()
	if state.NegotiatedProtocol != acmeTLS || len(state.PeerCertificates) == 0 {
		return fails("tls", "the server doesn't speak acme-tls/1")
	}
	return checkChallengeCertificate(state.PeerCertificates[0], a)
}

// checkChallengeCertificate holds the certificate that a server shows against RFC 8737 section 3.
func checkChallengeCertificate(cert *x509.Certificate, a *Attempt) *Failure {
	refused := fails("incorrectResponse", "the server's certificate is not one for this challenge")
	if a.Address.IsValid() {
		if len(cert.IPAddresses) != 1 || len(cert.DNSNames) != 0 || !cert.IPAddresses[0].Equal(net.IP(a.Address.AsSlice())) {
			return refused
		}
	} else if len(cert.DNSNames) != 1 || len(cert.IPAddresses) != 0 || !strings.EqualFold(cert.DNSNames[0], a.Name) {
		return refused
	}
	if len(cert.EmailAddresses)+len(cert.URIs) > 0 {
		return refused
	}
	want := sha256.Sum256([]byte(a.Authorization))
	for _, extension := range cert.Extensions {
		var digest []byte
		if !extension.Id.Equal(oidIdentifier()) {
			continue
		}
		if rest, err := asn1.Unmarshal(extension.Value, &digest); err != nil || len(rest) > 0 || !extension.Critical {
			return refused
		}
		if subtle.ConstantTimeCompare(digest, want[:]) == 1 {
			return nil
		}
	}
	return refused
}

// reverse is the name that a server is asked for by its address: RFC 8738 section 6.
func reverse(address netip.Addr) string {
	if address.Is4() {
		b := address.As4()
		return strconv.Itoa(int(b[3])) + "." + strconv.Itoa(int(b[2])) + "." + strconv.Itoa(int(b[1])) + "." + strconv.Itoa(int(b[0])) + ".in-addr.arpa"
	}
	const digits = "0123456789abcdef"
	b := address.As16()
	var name strings.Builder
	for i := len(b) - 1; i >= 0; i-- {
		name.WriteByte(digits[b[i]&15])
		name.WriteByte('.')
		name.WriteByte(digits[b[i]>>4])
		name.WriteByte('.')
	}
	return name.String() + "ip6.arpa"
}
