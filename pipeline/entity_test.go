package pipeline

import (
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
