package pipeline

import (
	"net/netip"
	"strings"
	"testing"

	"conclave"
)

func TestTokenOfARoleGetsTheEntityOfItsAlias(t *testing.T) {
	h := newHouse(t)
	h.must(t, "", conclave.Update, "auth/token/roles/web", h.root, map[string]any{"allowed_policies": "dev", "allowed_entity_aliases": "web-*"})
	make := func(alias string) *conclave.Auth {
		return h.must(t, "", conclave.Update, "auth/token/create/web", h.root, map[string]any{"entity_alias": alias}).Auth
	}
	first, again, other := make("web-1"), make("web-1"), make("web-2")
	if first.EntityID == "" || first.EntityID != again.EntityID || other.EntityID == first.EntityID {
		t.Errorf("entities %q, %q, %q", first.EntityID, again.EntityID, other.EntityID)
	}
	h.must(t, "", conclave.Update, "identity/entity/id/"+first.EntityID, h.root, map[string]any{"policies": "by-entity"})
	got := data(t, h.must(t, "", conclave.Read, "auth/token/lookup-self", first.ClientToken, nil))
	if !strings.Contains(got, `"identity_policies":["by-entity"]`) || !strings.Contains(got, `"external_namespace_policies":{}`) || !strings.Contains(got, `"role":"web"`) {
		t.Error(got)
	}
	if auth := make("web-1"); len(auth.TokenPolicies) != 2 || len(auth.Policies) != 3 {
		t.Errorf("%q of which %q are the token's", auth.Policies, auth.TokenPolicies)
	}
	h.fails(t, conclave.Invalid, "", conclave.Update, "auth/token/create/web", h.root, map[string]any{"entity_alias": "db"})
	h.must(t, "", conclave.Update, "identity/entity/id/"+first.EntityID, h.root, map[string]any{"disabled": true})
	h.fails(t, conclave.Denied, "", conclave.Update, "auth/token/create/web", h.root, map[string]any{"entity_alias": "web-1"})
}

func TestPoliciesOfAMakerFromAboveAreNotInherited(t *testing.T) {
	h := settled(t)
	auth := h.must(t, "team/", conclave.Update, "auth/token/create", h.root, nil).Auth
	if len(auth.Policies) != 1 || auth.Policies[0] != "default" {
		t.Errorf("a token made from above without policies has %q, want default alone", auth.Policies)
	}
}

func TestAccessorsResolveInTheirNamespaceAlone(t *testing.T) {
	h := settled(t)
	made := map[string]*conclave.Auth{}
	for _, at := range []string{"", "team/", "team/sub/", "other/"} {
		made[at] = h.must(t, at, conclave.Update, "auth/token/create", h.root, map[string]any{"policies": "reader"}).Auth
	}
	for at, auth := range made {
		fields := map[string]any{"accessor": auth.Accessor}
		for _, in := range []string{"", "team/", "team/sub/", "other/"} {
			if in == at {
				continue
			}
			for _, path := range []string{"lookup-accessor", "renew-accessor", "revoke-accessor"} {
				h.fails(t, conclave.Denied, in, conclave.Update, "auth/token/"+path, h.root, fields)
			}
			h.fails(t, conclave.Denied, in, conclave.Update, "auth/token/lookup", h.root, map[string]any{"token": auth.ClientToken.Reveal()})
			h.fails(t, conclave.Denied, in, conclave.Update, "auth/token/renew", h.root, map[string]any{"token": auth.ClientToken.Reveal()})
			h.must(t, in, conclave.Update, "auth/token/revoke", h.root, map[string]any{"token": auth.ClientToken.Reveal()})
		}
		for _, path := range []string{"lookup-accessor", "renew-accessor", "revoke-accessor"} {
			h.must(t, at, conclave.Update, "auth/token/"+path, h.root, fields)
		}
	}
}

func TestTokenIsBoundToTheAddressesOfItsMakerAboveIt(t *testing.T) {
	h := settled(t)
	from := func(address, at string, op conclave.Operation, path string, with conclave.Secret, fields map[string]any) (*conclave.Response, error) {
		return h.Handle(t.Context(), &conclave.Request{ID: "r1", Namespace: at, Operation: op, Path: path, Token: with, Fields: fields,
			Remote: netip.MustParseAddrPort(address + ":1")})
	}
	h.must(t, "", conclave.Update, "auth/token/roles/bound", h.root, map[string]any{"allowed_policies": "root", "token_bound_cidrs": "10.0.0.0/8"})
	above := h.must(t, "", conclave.Update, "auth/token/create/bound", h.root, map[string]any{"ttl": "1h"}).Auth.ClientToken
	for _, kind := range []string{"service", "batch"} {
		made, err := from("10.1.1.1", "team/", conclave.Update, "auth/token/create", above, map[string]any{"policies": "reader", "type": kind})
		if err != nil {
			t.Fatal(err)
		}
		below := made.Auth.ClientToken
		if _, err := from("10.2.2.2", "team/", conclave.Read, "secret/x", below, nil); err != nil {
			t.Errorf("%s, from its network: %v", kind, err)
		}
		if _, err := from("192.0.2.1", "team/", conclave.Read, "secret/x", below, nil); !conclave.Is(err, conclave.Denied) {
			t.Errorf("%s, from another network: %v", kind, err)
		}
	}
}
