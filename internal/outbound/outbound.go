// Package outbound asks servers outside of the vault for small documents: the keys of an issuer, the review of a token.
//
// Answers are bounded in size and time. Certificates are always checked. Redirects are never followed: where a document
// is, is for the operator to say. Errors are conclave.Unavailable and name no address.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"conclave"
)

// Limits of one exchange.
const (
	maxBody   = 1 << 20 // bytes of an answer
	maxHeader = 64 << 10
	maxTime   = 10 * time.Second
	maxConns  = 32 // to one server
	idleTime  = 30 * time.Second
)

var (
	errRedirect  = errors.New("redirect")
	errTooLarge  = conclave.Errorf(conclave.Unavailable, "the server's answer is too large")
	errRedirects = conclave.Errorf(conclave.Unavailable, "the server redirects, which is not followed")
	errUntrusted = conclave.Errorf(conclave.Unavailable, "the server's certificate is not trusted")
	errTimeout   = conclave.Errorf(conclave.Unavailable, "the server doesn't answer in time")
	errConnect   = conclave.Errorf(conclave.Unavailable, "the server can't be reached")
)

// Client asks servers whose certificates were issued by certain authorities. It is safe for concurrent use; connections
// that nobody uses are closed by themselves.
type Client struct{ http http.Client }

// Answer is what a server said, whatever its status.
type Answer struct {
	Status      int
	ContentType string
	Body        []byte
}

// New returns a client that trusts the authorities in caPEM, those of the system if it is empty.
func New(caPEM string) (*Client, error) {
	roots, err := Roots(caPEM)
	if err != nil {
		return nil, err
	}
	return &Client{http.Client{
		Timeout:       maxTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        maxConns,
			MaxIdleConns:           maxConns,
			IdleConnTimeout:        idleTime,
			MaxResponseHeaderBytes: maxHeader,
		},
	}}, nil
}

// Roots reads certificates in PEM; nil, which means those of the system, if there is no text.
func Roots(caPEM string) (*x509.CertPool, error) {
	if caPEM == "" {
		return nil, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(caPEM)) {
		return nil, conclave.Errorf(conclave.Invalid, "no certificate in PEM")
	}
	return roots, nil
}

// Do sends a request and reads the whole answer.
func (c *Client) Do(req *http.Request) (*Answer, error) {
	response, err := c.http.Do(req)
	if err != nil {
		return nil, classify(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, classify(err)
	}
	if len(body) > maxBody {
		return nil, errTooLarge
	}
	return &Answer{response.StatusCode, response.Header.Get("Content-Type"), body}, nil
}

// Get reads a document, which is one only with status 200.
func (c *Client) Get(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, conclave.Errorf(conclave.Invalid, "malformed URL")
	}
	req.Header.Set("Accept", "application/json")
	answer, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if answer.Status != http.StatusOK {
		return nil, conclave.Errorf(conclave.Unavailable, "the server answers with status %d", answer.Status)
	}
	return answer.Body, nil
}

// classify leaves out of an error where the request went.
func classify(err error) error {
	var timeout net.Error
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errors.Is(err, errRedirect):
		return errRedirects
	case untrusted:
		return errUntrusted
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errTimeout
	}
	return errConnect
}

// CheckURL wants an absolute URL of scheme https without user and fragment. Plain http is for servers on the same
// machine only: whoever is in between could answer in their place.
func CheckURL(address string) error {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Hostname() == "" || parsed.User != nil || parsed.Fragment != "" {
		return conclave.Errorf(conclave.Invalid, "not an absolute URL")
	}
	switch parsed.Scheme {
	case "https":
		return nil
	case "http":
		if IsLoopback(parsed.Hostname()) {
			return nil
		}
	}
	return conclave.Errorf(conclave.Invalid, "the URL must begin with https:// (http:// is for this machine only)")
}

// IsLoopback reports whether a host is this machine by name or address.
func IsLoopback(host string) bool {
	address := net.ParseIP(host)
	return host == "localhost" || address != nil && address.IsLoopback()
}
