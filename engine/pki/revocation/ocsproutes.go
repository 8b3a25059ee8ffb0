package revocation

import (
	"context"
	"encoding/base64"
	"net/http"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

const ocspDoc = `Answer whether a certificate is revoked, by OCSP (RFC 6960).
What isn't known to be revoked is good, also if it was never kept here. A POST has the request as its body, in DER; a GET has it in the path, in base64.`

// typeOCSP is the content type of responses.
const typeOCSP = "application/ocsp-response"

func ocspRoutes() []conclave.Route {
	var routes []conclave.Route
	for _, name := range []string{"ocsp", "unified-ocsp"} {
		post := conclave.ReadRoute(conclave.Update, name, ocspDoc, postOCSP).With(conclave.Public)
		get := conclave.ReadRoute(conclave.Read, name+"/{request...}", ocspDoc, getOCSP).With(conclave.Public)
		routes = append(routes, post, get)
	}
	return routes
}

type postOCSPIn struct {
	Body string `json:"body" doc:"The request, DER in base64: what a body of the type application/ocsp-request is taken for."`
}

type getOCSPIn struct {
	Request string `path:"request" doc:"The request, DER in base64."`
}

func postOCSP(_ context.Context, view conclave.View, in *postOCSPIn) (*conclave.Response, error) {
	der, err := base64.StdEncoding.DecodeString(in.Body)
	if err != nil {
		return unsigned(Malformed(), http.StatusBadRequest), nil
	}
	q, err := ParseQuestion(der)
	if err != nil {
		return unsigned(Malformed(), http.StatusBadRequest), nil
	}
	return answer(view, q)
}

func getOCSP(_ context.Context, view conclave.View, in *getOCSPIn) (*conclave.Response, error) {
	q, err := DecodeQuestion(in.Request)
	if err != nil { // base64 may end with a slash, which is none of the path's
		q, err = DecodeQuestion(in.Request + "/")
	}
	if err != nil {
		return unsigned(Malformed(), http.StatusBadRequest), nil
	}
	return answer(view, q)
}

func unsigned(der []byte, status int) *conclave.Response {
	resp := authority.Raw(typeOCSP, der)
	resp.Status = status
	return resp
}

// answer answers a question about a certificate of one of the mount's issuers; about others it has no say.
func answer(view conclave.View, q *Question) (*conclave.Response, error) {
	config, err := crlConfig(view)
	if err != nil {
		return nil, err
	}
	if config.OCSPDisable {
		return unsigned(Unauthorized(), http.StatusUnauthorized), nil
	}
	list, err := authority.Issuers(view)
	if err != nil {
		return nil, err
	}
	for _, issuer := range list {
		if !q.IsAbout(issuer.Cert) {
			continue
		}
		by, key, err := publisher(view, issuer, authority.UsageOCSP)
		if conclave.Is(err, conclave.Invalid) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return signAnswer(view, config, q, by, key)
	}
	return unsigned(Unauthorized(), http.StatusUnauthorized), nil
}

func signAnswer(view conclave.View, config *Config, q *Question, by *authority.Issuer, key *authority.Key) (*conclave.Response, error) {
	a := &Answer{Now: view.Now(), Expiry: config.OCSPExpiry.Duration()}
	known, err := Lookup(view, stored.SerialName(q.Serial()))
	if err != nil {
		return nil, err
	}
	if known != nil && known.Authority == by.Authority() {
		a.Revoked = &Entry{At: known.At}
	}
	der, err := a.Sign(q, by.Cert, issuing.Steady(key.Signer))
	if err != nil {
		return nil, err
	}
	return authority.Raw(typeOCSP, der), nil
}
