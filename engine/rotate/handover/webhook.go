package handover

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"conclave/internal/outbound"
)

// SignatureHeader carries "t=<seconds since 1970>,v1=<hex>": HMAC-SHA256, under the webhook's key, of the time as it is
// written there, a full stop, and the body. A receiver computes it itself, compares in constant time, and refuses times
// that are minutes away, so that nobody replays a call.
const SignatureHeader = "Conclave-Signature"

// Sizes of a webhook's key in bytes.
const (
	MinKey = 32
	MaxKey = 1024
)

const (
	maxURL = 2048     // bytes
	maxCA  = 64 << 10 // bytes of authorities in PEM
)

// Webhook is where calls are posted.
type Webhook struct {
	URL string
	CA  string // authorities in PEM that alone may have issued the server's certificate; empty for the system's
	Key string // that calls are signed with
}

// Check reports what is wrong with a webhook; the text is for clients. Plain HTTP isn't for secrets, on no machine.
func (w *Webhook) Check() error {
	parsed, err := url.Parse(w.URL)
	if err != nil || len(w.URL) > maxURL || parsed.Scheme != "https" || parsed.Hostname() == "" || parsed.User != nil || parsed.Fragment != "" {
		return failed("the URL must begin with https://, and have neither a user nor a fragment")
	}
	if address, err := netip.ParseAddr(parsed.Hostname()); err == nil && !mayCall(address) {
		return failed("the URL's address is not one of a server")
	}
	if _, err := outbound.Roots(w.CA); err != nil || len(w.CA) > maxCA {
		return failed("the authorities are no certificates in PEM of at most 64 KiB")
	}
	if len(w.Key) < MinKey || len(w.Key) > MaxKey {
		return failed("the key must have from 32 to 1024 bytes")
	}
	return nil
}

// mayCall reports whether an address can be that of a source. Link-local ones are those of neighbours that nobody
// configured, and of the metadata of cloud machines, which gives credentials to whoever asks.
func mayCall(address netip.Addr) bool {
	address = address.Unmap()
	return !address.IsLinkLocalUnicast() && !address.IsMulticast() && !address.IsUnspecified() && address != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

var errAddress = errors.New("address")

// guard looks at the address that a name has led to, right before the connection.
func guard(_, address string, _ syscall.RawConn) error {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil || !mayCall(parsed.Addr()) {
		return errAddress
	}
	return nil
}

// Sign is the header for a body, sent at a time.
func Sign(key string, at time.Time, body []byte) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// Send posts a call, signed as of a time. The source has done it if it answers with a status of 200 to 204 and, to a call
// of mode verify, with a JSON object whose member verified is true: a server that says yes to everything verifies nothing.
func (w *Webhook) Send(ctx context.Context, at time.Time, call *Call) error {
	if err := w.Check(); err != nil {
		return err
	}
	body, err := call.body()
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return failed("the URL can't be used")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "conclave")
	request.Header.Set(SignatureHeader, Sign(w.Key, at, body))
	client, err := w.client()
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return classify(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	switch {
	case err != nil:
		return classify(err)
	case len(answer) > MaxAnswer:
		return failed("the webhook's answer is longer than 4096 bytes")
	case response.StatusCode < 200 || response.StatusCode > 204:
		return failedStatus("the webhook answers with status ", response.StatusCode)
	case call.Mode == Verify && !verified(answer):
		return failed("the webhook does not say that the value is verified")
	}
	return nil
}

func verified(answer []byte) bool {
	var said struct {
		Verified bool `json:"verified"`
	}
	return json.Unmarshal(answer, &said) == nil && said.Verified
}

// client makes a client for one exchange: rotations are rare, and an idle connection is one more thing to be stolen.
func (w *Webhook) client() (*http.Client, error) {
	roots, err := outbound.Roots(w.CA)
	if err != nil {
		return nil, failed("the authorities are no certificates in PEM")
	}
	dialer := &net.Dialer{Control: guard}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a redirect is an answer of status 3xx
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxHeader,
		},
	}, nil
}

// classify leaves out of an error where the call went.
func classify(err error) error {
	var timeout net.Error
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case untrusted:
		return failed("the webhook's certificate is not trusted")
	case errors.Is(err, errAddress):
		return failed("the webhook's name leads to an address that is not one of a server")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failed("the webhook doesn't answer in time")
	case errors.Is(err, context.Canceled):
		return failed("the call was given up")
	}
	return failed("the webhook can't be reached")
}
