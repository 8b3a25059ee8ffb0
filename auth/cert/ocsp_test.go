package cert

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"conclave"
	"conclave/engine/enginetest"
)

// responder is an OCSP responder on loopback that answers as it is told.
type responder struct {
	*httptest.Server
	asked  atomic.Int32
	answer atomic.Pointer[func(request []byte) []byte]
}

func newResponder(t testing.TB, answer func(request []byte) []byte) *responder {
	r := &responder{}
	r.answer.Store(&answer)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.asked.Add(1)
		body, err := io.ReadAll(req.Body)
		if err != nil || req.Header.Get("Content-Type") != "application/ocsp-request" {
			http.Error(w, "not a question", http.StatusBadRequest)
			return
		}
		der := (*r.answer.Load())(body)
		if der == nil {
			http.Error(w, "out of order", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(der)
	}))
	t.Cleanup(r.Close)
	return r
}

// says makes answers of a status, valid for an hour, signed by signer for issuer's certificates.
func says(t testing.TB, issuer, signer *holder, status int, changes ...func(*ocsp.Response)) func([]byte) []byte {
	return func(request []byte) []byte {
		asked, err := ocsp.ParseRequest(request)
		if err != nil {
			t.Errorf("the question can't be read: %v", err)
			return nil
		}
		made := ocsp.Response{Status: status, SerialNumber: asked.SerialNumber, ThisUpdate: start, NextUpdate: hour, IssuerHash: crypto.SHA1, RevokedAt: start}
		if signer != issuer {
			made.Certificate = signer.cert
		}
		for _, c := range changes {
			c(&made)
		}
		der, err := ocsp.CreateResponse(issuer.cert, signer.cert, made, signer.key)
		if err != nil {
			t.Errorf("CreateResponse: %v", err)
		}
		return der
	}
}

func signsOCSP(c *x509.Certificate) {
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
}

// ocspHarness has a role "a" for ca that asks servers.
func ocspHarness(t testing.TB, ca *holder, fields map[string]any, servers ...*responder) *enginetest.Harness {
	h := newHarness(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.URL)
	}
	all := map[string]any{"certificate": ca.pem(), "ocsp_enabled": true, "ocsp_servers_override": urls, "ocsp_max_retries": 0}
	for name, value := range fields {
		all[name] = value
	}
	h.Data(conclave.Update, "certs/a", all)
	return h
}

func TestRespondersDecide(t *testing.T) {
	ca, other := newCA(t, "CA"), newCA(t, "CA")
	client := ca.issue("client", 2)
	delegate, plain, foreign := ca.issue("delegate", 5, signsOCSP), ca.issue("plain", 6), other.issue("foreign", 7, signsOCSP)
	old := ca.issue("old delegate", 8, signsOCSP, func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Minute) })
	ended := func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = start.Add(-2*time.Hour), start.Add(-time.Hour) }
	for _, tc := range []struct {
		what    string
		answer  func([]byte) []byte
		fields  map[string]any
		refusal string // "" is a login
	}{
		{"good", says(t, ca, ca, ocsp.Good), nil, ""},
		{"revoked", says(t, ca, ca, ocsp.Revoked), nil, "revoked"},
		{"unknown", says(t, ca, ca, ocsp.Unknown), nil, "no OCSP responder vouches"},
		{"good, ended", says(t, ca, ca, ocsp.Good, ended), nil, "no OCSP responder vouches"},
		{"good, not begun", says(t, ca, ca, ocsp.Good, func(r *ocsp.Response) { r.ThisUpdate = start.Add(2 * clockSkew) }), nil, "no OCSP responder vouches"},
		{"good, a little ahead", says(t, ca, ca, ocsp.Good, func(r *ocsp.Response) { r.ThisUpdate = start.Add(clockSkew / 2) }), nil, ""},
		{"good, too old", says(t, ca, ca, ocsp.Good, func(r *ocsp.Response) { r.ThisUpdate = start.Add(-time.Minute) }), map[string]any{"ocsp_this_update_max_age": 30}, "no OCSP responder vouches"},
		{"good, without an end", says(t, ca, ca, ocsp.Good, func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), nil, ""},
		{"good, by a delegate", says(t, ca, delegate, ocsp.Good), nil, ""},
		{"good, by another certificate of the authority", says(t, ca, plain, ocsp.Good), nil, "no OCSP responder vouches"},
		{"good, by the client itself", says(t, ca, client, ocsp.Good), nil, "no OCSP responder vouches"},
		{"good, by a delegate that has expired", says(t, ca, old, ocsp.Good), nil, "no OCSP responder vouches"},
		{"good, by another authority", says(t, ca, other, ocsp.Good), nil, "no OCSP responder vouches"},
		{"good, by a delegate of another authority", says(t, ca, foreign, ocsp.Good), nil, "no OCSP responder vouches"},
		{"good, by one that the role names", says(t, ca, plain, ocsp.Good), map[string]any{"ocsp_ca_certificates": plain.pem()}, ""},
		{"good, by a delegate of an authority that the role names", says(t, ca, foreign, ocsp.Good), map[string]any{"ocsp_ca_certificates": other.pem()}, ""},
		{"revoked, by one that the role names", says(t, ca, plain, ocsp.Revoked), map[string]any{"ocsp_ca_certificates": plain.pem()}, "revoked"},
		{"about another certificate", says(t, ca, ca, ocsp.Good, func(r *ocsp.Response) { r.SerialNumber = big.NewInt(3) }), nil, "no OCSP responder vouches"},
		{"about another issuer's certificate", says(t, other, other, ocsp.Good), map[string]any{"ocsp_ca_certificates": other.pem()}, "no OCSP responder vouches"},
		{"a refusal", func([]byte) []byte { return ocsp.UnauthorizedErrorResponse }, nil, "no OCSP responder vouches"},
		{"nonsense", func([]byte) []byte { return []byte("nonsense") }, nil, "no OCSP responder vouches"},
		{"too much", func([]byte) []byte { return make([]byte, maxOCSPResponse+1) }, nil, "no OCSP responder vouches"},
		{"nothing", func([]byte) []byte { return nil }, nil, "no OCSP responder vouches"},
		{"nothing, when that is enough", func([]byte) []byte { return nil }, map[string]any{"ocsp_fail_open": true}, ""},
		{"forged, when nothing is enough", says(t, ca, plain, ocsp.Revoked), map[string]any{"ocsp_fail_open": true}, ""},
		{"revoked, when nothing is enough", says(t, ca, ca, ocsp.Revoked), map[string]any{"ocsp_fail_open": true}, "revoked"},
		{"revoked and ended, when nothing is enough", says(t, ca, ca, ocsp.Revoked, ended), map[string]any{"ocsp_fail_open": true}, "revoked"},
	} {
		h := ocspHarness(t, ca, tc.fields, newResponder(t, tc.answer))
		_, err := presenting(h, client).Do(conclave.Update, "login", nil)
		if tc.refusal == "" && err != nil || tc.refusal != "" && (!conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), tc.refusal)) {
			t.Errorf("%s: %v, want %q", tc.what, err, tc.refusal)
		}
	}
}

func TestRespondersAreAskedInTurn(t *testing.T) {
	ca := newCA(t, "CA")
	silent, good, bad := newResponder(t, func([]byte) []byte { return nil }), newResponder(t, says(t, ca, ca, ocsp.Good)), newResponder(t, says(t, ca, ca, ocsp.Revoked))
	client := ca.issue("client", 2)
	logIn(t, presenting(ocspHarness(t, ca, map[string]any{"ocsp_max_retries": 2}, silent, good, bad), client), "")
	if a, b, c := silent.asked.Load(), good.asked.Load(), bad.asked.Load(); a != 3 || b != 1 || c != 0 {
		t.Errorf("asked %d, %d and %d times, want 3, 1 and 0", a, b, c)
	}
	all := map[string]any{"ocsp_query_all_servers": true}
	logIn(t, presenting(ocspHarness(t, ca, all, good, good), client), "")
	refused(t, presenting(ocspHarness(t, ca, all, good, silent), client), "", "no OCSP responder vouches")
	refused(t, presenting(ocspHarness(t, ca, all, good, bad), client), "", "revoked")
}

func TestCertificateNamesItsResponder(t *testing.T) {
	ca := newCA(t, "CA")
	good := newResponder(t, says(t, ca, ca, ocsp.Good))
	h := ocspHarness(t, ca, nil)
	logIn(t, presenting(h, ca.issue("client", 2, func(c *x509.Certificate) { c.OCSPServer = []string{"ldap://x", good.URL} })), "")
	refused(t, presenting(h, ca.issue("client", 2)), "", "no OCSP responder vouches")
}

func TestRespondersArentFollowedElsewhere(t *testing.T) {
	ca := newCA(t, "CA")
	good := newResponder(t, says(t, ca, ca, ocsp.Good))
	redirect := httptest.NewServer(http.RedirectHandler(good.URL, http.StatusTemporaryRedirect))
	t.Cleanup(redirect.Close)
	refused(t, presenting(ocspHarness(t, ca, nil, &responder{Server: redirect}), ca.issue("client", 2)), "", "no OCSP responder vouches")
	if n := good.asked.Load(); n > 0 {
		t.Errorf("the redirect was followed")
	}
}

func TestPinnedCertificatesAreAskedAboutByTheirIssuer(t *testing.T) {
	ca := newCA(t, "CA")
	pinned, good := ca.issue("a", 2), newResponder(t, says(t, ca, ca, ocsp.Good))
	h := ocspHarness(t, pinned, nil, good)
	refused(t, presenting(h, pinned), "", "no OCSP responder vouches") // who issued it isn't known
	h.Data(conclave.Update, "certs/a", map[string]any{"certificate": pinned.pem() + ca.pem()})
	logIn(t, presenting(h, pinned), "")
	refused(t, presenting(h, ca.issue("b", 3)), "", "invalid certificate") // the issuer isn't trusted by that
	bad := says(t, ca, ca, ocsp.Revoked)
	good.answer.Store(&bad)
	refused(t, presenting(h, pinned), "", "revoked")
}

func TestAnotherRoleMayTakeWhomRespondersRefuse(t *testing.T) {
	ca := newCA(t, "CA")
	h := ocspHarness(t, ca, nil, newResponder(t, says(t, ca, ca, ocsp.Revoked)))
	h.Data(conclave.Update, "certs/b", map[string]any{"certificate": ca.pem()})
	if login := logIn(t, presenting(h, ca.issue("client", 2)), ""); login.Role != "b" {
		t.Errorf("role = %q, want b", login.Role)
	}
}

func TestRoleThatNobodyWasAskedForTakesNobody(t *testing.T) {
	ca := newCA(t, "CA")
	bad := newResponder(t, says(t, ca, ca, ocsp.Revoked))
	h := ocspHarness(t, ca, map[string]any{"ocsp_fail_open": true}, bad)
	for _, name := range []string{"b", "c", "d", "e", "f"} {
		h.Data(conclave.Update, "certs/"+name, map[string]any{"certificate": ca.pem(), "ocsp_enabled": true, "ocsp_fail_open": true, "ocsp_servers_override": bad.URL})
	}
	client := presenting(h, ca.issue("client", 2))
	if _, err := client.Do(conclave.Update, "login", nil); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("login = %v, want a refusal", err)
	}
	if got := bad.asked.Load(); got != maxQuestions {
		t.Errorf("asked %d times, want %d", got, maxQuestions)
	}
	refused(t, client, "f", "revoked")
}

func TestRespondersAreAskedAgainAtRenewal(t *testing.T) {
	ca := newCA(t, "CA")
	client := ca.issue("client", 2)
	good, silent := says(t, ca, ca, ocsp.Good), func([]byte) []byte { return nil }
	forever := func(r *ocsp.Response) { r.NextUpdate = time.Time{} }
	for _, tc := range []struct {
		what    string
		then    func([]byte) []byte // what the responder says when the login is renewed
		fields  map[string]any
		advance time.Duration
		refusal string
	}{
		{"the same", good, nil, 59 * time.Minute, ""},
		{"an answer that has ended", good, nil, time.Hour, "no OCSP responder vouches"},
		{"an answer without an end", says(t, ca, ca, ocsp.Good, forever), nil, 2 * time.Hour, ""},
		{"an answer beyond its age", good, map[string]any{"ocsp_this_update_max_age": "10m"}, 10 * time.Minute, "no OCSP responder vouches"},
		{"that it is revoked", says(t, ca, ca, ocsp.Revoked), nil, 0, "revoked"},
		{"that it is revoked, when nothing is enough", says(t, ca, ca, ocsp.Revoked), map[string]any{"ocsp_fail_open": true}, 0, "revoked"},
		{"nothing", silent, nil, 0, "no OCSP responder vouches"},
		{"nothing, when that is enough", silent, map[string]any{"ocsp_fail_open": true}, 2 * time.Hour, ""},
	} {
		responder := newResponder(t, good)
		h := presenting(ocspHarness(t, ca, tc.fields, responder), client)
		login := logIn(t, h, "")
		responder.answer.Store(&tc.then)
		h.Advance(tc.advance)
		_, err := h.RenewLogin(login)
		if tc.refusal == "" && err != nil || tc.refusal != "" && (!conclave.Is(err, conclave.Invalid) || !strings.Contains(err.Error(), tc.refusal)) {
			t.Errorf("%s: %v, want %q", tc.what, err, tc.refusal)
		}
		if got := responder.asked.Load(); got != 2 {
			t.Errorf("%s: asked %d times, want 2", tc.what, got)
		}
	}
}

// goldenAnswer reads an answer as a responder made it, with the certificate asked about and its issuer.
func goldenAnswer(t testing.TB) (der []byte, leaf, issuer *x509.Certificate) {
	t.Helper()
	text, err := os.ReadFile("testdata/answer.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(text)
	certs, err := parsePEM(string(rest))
	if err != nil || len(certs) != 2 {
		t.Fatalf("testdata/answer.pem: %d certificates, %v", len(certs), err)
	}
	return block.Bytes, certs[0], certs[1]
}

func TestGoldenAnswer(t *testing.T) {
	der, leaf, issuer := goldenAnswer(t)
	request, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseAnswer(der, request, leaf, issuer, nil)
	if err != nil || !got.usable || got.status != ocsp.Good || !got.until.Equal(hour.Truncate(time.Second)) || got.signerFrom.IsZero() {
		t.Errorf("parseAnswer = %+v, %v", got, err)
	}
}

func FuzzParseAnswer(f *testing.F) {
	der, leaf, issuer := goldenAnswer(f)
	request, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(ocsp.UnauthorizedErrorResponse)
	f.Fuzz(func(t *testing.T, changed []byte) {
		got, err := parseAnswer(changed, request, leaf, issuer, nil)
		if err == nil && got.status != ocsp.Good {
			t.Errorf("a changed answer is taken: %+v", got)
		}
	})
}
