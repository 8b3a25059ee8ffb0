package acme

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"conclave"
)

// binding is an external account binding that nobody has used yet.
type binding struct {
	ID      string `json:"id"`
	Place   place  `json:"place"`
	Key     []byte `json:"key"`
	Created int64  `json:"created"` // seconds since 1970
}

type bindingOut struct {
	ID        string `json:"id" doc:"Key id, for the client."`
	KeyType   string `json:"key_type" doc:"hs: the key is for HMAC."`
	Directory string `json:"acme_directory" doc:"The directory that it is for, relative to the mount."`
	Key       string `json:"key" doc:"The key, base64url: it is shown once."`
	CreatedOn string `json:"created_on" doc:"When it was made."`
}

func (s *Service) bindingRoutes() []conclave.Route {
	at := prefixes()
	routes := []conclave.Route{
		conclave.ReadRoute(conclave.List, "eab", "List the external account bindings that nobody has used.", listBindings),
		conclave.WriteRoute(conclave.Delete, "eab/{key_id}", "Delete an external account binding that nobody has used.", deleteBinding),
		bindingRoute[plain](at[0]), bindingRoute[inRole](at[1]), bindingRoute[inIssuer](at[2]), bindingRoute[inBoth](at[3]),
	}
	return routes
}

func bindingRoute[In interface{ scope() place }](prefix string) conclave.Route {
	const doc = "Make an external account binding: who has it can make one account in this directory."
	route := conclave.WriteRoute(conclave.Update, prefix+"new-eab", doc, func(ctx context.Context, tx conclave.Tx, in *In) (*bindingOut, error) {
		return newBinding(ctx, tx, (*in).scope())
	})
	route.Prepare = prepareChance
	route.ClearResponse = []string{"id", "acme_directory"}
	return route
}

func newBinding(ctx context.Context, tx conclave.Tx, at place) (*bindingOut, error) {
	c, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	names, err := tx.List(eabDir, "", maxBindings)
	if err != nil {
		return nil, err
	}
	if len(names) >= maxBindings {
		return nil, conclave.Errorf(conclave.Limited, "%d external account bindings are unused: delete some", maxBindings)
	}
	b := &binding{c.id(0), at, c.bytes(1), tx.Now().Unix()}
	return &bindingOut{b.ID, "hs", at.prefix() + "acme/directory", base64.RawURLEncoding.EncodeToString(b.Key), created(b.Created)}, put(tx, eabDir+b.ID, b)
}

func created(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

type listIn struct {
	After string `json:"after" doc:"Only ids after this one."`
	Limit int    `json:"limit" doc:"At most so many; 0 is all."`
}

func listBindings(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	ids, err := view.List(eabDir, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	info := map[string]any{}
	for _, id := range ids {
		b, err := load[binding](view, eabDir, id)
		if err != nil {
			return nil, err
		}
		if b != nil {
			info[id] = map[string]any{"key_type": "hs", "acme_directory": b.Place.prefix() + "acme/directory", "created_on": created(b.Created)}
		}
	}
	return &conclave.Keys{Keys: ids, KeyInfo: info}, nil
}

type bindingIn struct {
	ID string `path:"key_id" doc:"Key id."`
}

func deleteBinding(_ context.Context, tx conclave.Tx, in *bindingIn) (*conclave.None, error) {
	if !isID(in.ID) {
		return nil, nil
	}
	return nil, tx.Delete(eabDir + in.ID)
}

// checkBinding checks that an account's key is bound to an external account (RFC 8555 section 7.3.4), and returns the
// binding's id.
func (s *Service) checkBinding(x *exchange, text json.RawMessage) (string, error) {
	var body signed
	if json.Unmarshal(text, &body) != nil || len(text) > maxProtected {
		return "", malformed("the external account binding is no JWS")
	}
	jws, header, err := parseJWS(&body, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		return "", malformed("the external account binding is no JWS that is signed with HS256")
	}
	if to, _ := header.ExtraHeaders["url"].(string); to != x.url || header.Nonce != "" || header.JSONWebKey != nil {
		return "", malformed("the header of the external account binding must have the same url, a kid, and neither jwk nor nonce")
	}
	refused := unauthorized("the external account binding is unknown, was used before, or is signed with another key")
	b, err := load[binding](x.tx, eabDir, strings.TrimSpace(header.KeyID))
	if err != nil {
		return "", err
	}
	if b == nil || b.Place != x.place {
		return "", refused
	}
	payload, err := jws.Verify(b.Key)
	if err != nil {
		return "", refused
	}
	var key jose.JSONWebKey
	if json.Unmarshal(payload, &key) != nil {
		return "", malformed("the payload of the external account binding is no key")
	}
	bound, err := thumbprint(&key)
	if err != nil {
		return "", err
	}
	own, err := thumbprint(x.key)
	if err != nil {
		return "", err
	}
	if bound != own {
		return "", refuse(http.StatusForbidden, "unauthorized", "the external account binding is for another key")
	}
	return b.ID, nil
}
