package acme

import (
	"context"
	"errors"

	"conclave"
)

// directory is RFC 8555 section 7.1.1.
type directory struct {
	NewNonce   string        `json:"newNonce"`
	NewAccount string        `json:"newAccount"`
	NewOrder   string        `json:"newOrder"`
	RevokeCert string        `json:"revokeCert"`
	KeyChange  string        `json:"keyChange"`
	Meta       directoryMeta `json:"meta"`
}

type directoryMeta struct {
	ExternalAccountRequired bool `json:"externalAccountRequired"`
}

func (s *Service) directoryRoutes() []conclave.Route {
	at := prefixes()
	var routes []conclave.Route
	for _, which := range []struct {
		path, doc string
		handle    func(*config, string, conclave.View) *answer
	}{
		{"directory", "Read where the operations of ACME are.", showDirectory},
		{"new-nonce", "Get a nonce, in the header Replay-Nonce.", showNonce},
	} {
		routes = append(routes, getRoute[plain](s, at[0]+which.path, which.doc, which.handle), getRoute[inRole](s, at[1]+which.path, which.doc, which.handle),
			getRoute[inIssuer](s, at[2]+which.path, which.doc, which.handle), getRoute[inBoth](s, at[3]+which.path, which.doc, which.handle))
	}
	return routes
}

func getRoute[In interface{ scope() place }](s *Service, pattern, doc string, handle func(*config, string, conclave.View) *answer) conclave.Route {
	return conclave.ReadRoute(conclave.Read, pattern, doc, func(_ context.Context, view conclave.View, in *In) (*conclave.Response, error) {
		c, base, err := s.open(view, (*in).scope())
		if p, ok := errors.AsType[*problem](err); ok {
			return p.answer().response("", "")
		}
		if err != nil {
			return nil, err
		}
		return handle(c, base, view).response(base, mintNonce(c.NonceKey, view.Now()))
	}).With(conclave.Public)
}

func showDirectory(c *config, base string, _ conclave.View) *answer {
	return &answer{body: &directory{base + "new-nonce", base + "new-account", base + "new-order", base + "revoke-cert", base + "key-change",
		directoryMeta{c.Settings.EABPolicy != bindingNever}}}
}

func showNonce(*config, string, conclave.View) *answer {
	return &answer{body: []byte{}, contentType: "application/octet-stream"}
}
