package cert

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"

	"conclave"
)

// Limits of questions to responders.
const (
	maxQuestions    = 4 // roles whose responders one login asks
	askTime         = 10 * time.Second
	attemptTime     = 3 * time.Second
	maxOCSPResponse = 64 << 10
	clockSkew       = time.Minute // by which a responder's clock may be ahead
)

var (
	errNoStatus = conclave.Errorf(conclave.Invalid, "no OCSP responder vouches for the certificate")

	errBadAnswer  = errors.New("not an answer to the question")
	errBadSigner  = errors.New("not signed by a responder of the issuer")
	errBadStatus  = errors.New("the responder refuses")
	errNoRedirect = errors.New("responders don't redirect")
)

// question is what Prepare asks of one role's responders. Two equal ones have the same answer.
type question struct {
	Role         string
	Leaf, Issuer []byte // DER
	Servers      []string
	Responders   string // PEM
	All          bool
	Retries      int
}

// answer is what a responder said, its signature checked. Its times are judged in the transaction.
type answer struct {
	usable      bool
	status      int       // of package ocsp
	from, until time.Time // until is zero if it doesn't say
	// signerFrom and signerUntil are those of the certificate that signed; zero if it was the issuer's.
	signerFrom, signerUntil time.Time
}

// questionFor is what to ask before a candidate may log in; ok is false if there is nobody to ask.
func questionFor(c candidate) (q question, ok bool) {
	q = question{Role: c.name, Leaf: c.chain[0].Raw, Servers: c.OCSPServersOverride, Responders: c.OCSPCACertificates,
		All: c.OCSPQueryAll, Retries: c.OCSPMaxRetries}
	if len(q.Servers) == 0 {
		q.Servers = slices.DeleteFunc(slices.Clone(c.chain[0].OCSPServer), func(text string) bool { return !isServer(text) })
		q.Servers = q.Servers[:min(len(q.Servers), maxServers)]
	}
	if len(c.chain) < 2 || len(q.Servers) == 0 {
		return q, false
	}
	q.Issuer = c.chain[1].Raw
	return q, true
}

// ask asks the responders of a question in turn, until one answers, or all if all must agree.
func (q *question) ask(ctx context.Context, client *http.Client) []answer {
	leaf, err := x509.ParseCertificate(q.Leaf)
	if err != nil {
		return nil
	}
	issuer, err := x509.ParseCertificate(q.Issuer)
	if err != nil {
		return nil
	}
	responders, err := parsePEM(q.Responders)
	if err != nil {
		return nil
	}
	request, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil
	}
	var answers []answer
	for _, server := range q.Servers {
		var got answer
		for attempt := 0; attempt <= q.Retries && !got.usable && ctx.Err() == nil; attempt++ {
			der, err := post(ctx, client, server, request)
			if err != nil {
				continue
			}
			if got, err = parseAnswer(der, request, leaf, issuer, responders); err != nil {
				got = answer{}
			}
		}
		answers = append(answers, got)
		if got.usable && got.status != ocsp.Unknown && !q.All {
			break
		}
	}
	return answers
}

func newResponderClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errNoRedirect },
	}
}

func post(ctx context.Context, client *http.Client, server string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxOCSPResponse+1))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || len(body) > maxOCSPResponse {
		return nil, errBadStatus
	}
	return body, nil
}

// parseAnswer reads a response (RFC 6960) to request and checks who signed it: the issuer itself, a delegate that the
// issuer allows to (4.2.2.2), or a responder that the role names.
func parseAnswer(der, request []byte, leaf, issuer *x509.Certificate, responders []*x509.Certificate) (answer, error) {
	if err := answersRequest(der, request); err != nil {
		return answer{}, err
	}
	parsed, err := ocsp.ParseResponseForCert(der, leaf, nil)
	if err != nil {
		return answer{}, err
	}
	got := answer{usable: true, status: parsed.Status, from: parsed.ThisUpdate, until: parsed.NextUpdate}
	authorities := append([]*x509.Certificate{issuer}, responders...)
	for i, authority := range authorities {
		if parsed.Certificate == nil {
			if parsed.CheckSignatureFrom(authority) == nil {
				return got, nil
			}
			continue
		}
		signer := parsed.Certificate
		if isSame(signer, authority) {
			if i > 0 {
				got.signerFrom, got.signerUntil = signer.NotBefore, signer.NotAfter
			}
			return got, nil
		}
		if slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) && signer.CheckSignatureFrom(authority) == nil {
			got.signerFrom, got.signerUntil = signer.NotBefore, signer.NotAfter
			return got, nil
		}
	}
	return answer{}, errBadSigner
}

// certID names a certificate in OCSP (RFC 6960, 4.1.1).
type certID struct {
	HashAlgorithm asn1.RawValue
	NameHash      []byte
	KeyHash       []byte
	Serial        *big.Int
}

// answersRequest reports whether what a response says about the requested number is about that number of that issuer.
// Package ocsp compares numbers only, and a responder may speak for many issuers.
func answersRequest(der, request []byte) error {
	asked, err := ocsp.ParseRequest(request)
	if err != nil {
		return err
	}
	var response struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type  asn1.ObjectIdentifier
			Basic []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	if _, err := asn1.Unmarshal(der, &response); err != nil {
		return err
	}
	var basic struct {
		Data struct {
			Version    int `asn1:"optional,default:0,explicit,tag:0"`
			Responder  asn1.RawValue
			ProducedAt time.Time `asn1:"generalized"`
			Responses  []asn1.RawValue
			Extensions asn1.RawValue `asn1:"optional,explicit,tag:1"`
		}
		Algorithm    asn1.RawValue
		Signature    asn1.BitString
		Certificates asn1.RawValue `asn1:"optional,explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(response.Bytes.Basic, &basic); err != nil {
		return err
	}
	found := false
	for _, single := range basic.Data.Responses {
		var id certID
		if _, err := asn1.Unmarshal(single.Bytes, &id); err != nil {
			return err
		}
		if id.Serial.Cmp(asked.SerialNumber) != 0 {
			continue
		}
		if !bytes.Equal(id.NameHash, asked.IssuerNameHash) || !bytes.Equal(id.KeyHash, asked.IssuerKeyHash) {
			return errBadAnswer
		}
		found = true
	}
	if !found {
		return errBadAnswer
	}
	return nil
}

// verdict judges the answers about a candidate by cluster time: why it isn't let in, nil if it is.
func (t *trusted) verdict(view conclave.View, answers []answer) (why *conclave.Error) {
	good, failed := 0, 0
	for _, a := range answers {
		switch {
		case a.usable && a.status == ocsp.Revoked:
			return errRevoked
		case a.usable && a.status == ocsp.Good && a.isCurrent(view, t.OCSPMaxAge.Duration()):
			good++
		default:
			failed++
		}
	}
	if good > 0 && (failed == 0 || !t.OCSPQueryAll) || t.OCSPFailOpen {
		return nil
	}
	return errNoStatus
}

func (a *answer) isCurrent(view conclave.View, maxAge time.Duration) bool {
	if !view.Reached(a.from.Add(-clockSkew)) || !a.until.IsZero() && view.Reached(a.until) || maxAge > 0 && view.Reached(a.from.Add(maxAge)) {
		return false
	}
	return a.signerFrom.IsZero() || view.Reached(a.signerFrom) && !view.Reached(a.signerUntil)
}
