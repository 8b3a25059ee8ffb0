package pipeline

import (
	"strings"
	"testing"

	"conclave"
)

func TestBatchTokensLiveInOneNamespace(t *testing.T) {
	h := settled(t)
	fields := map[string]any{"type": "batch", "policies": "reader", "ttl": "1h"}
	team := h.token(t, "team/", h.root, fields)
	if id := team.Reveal(); !strings.HasPrefix(id, "hvb.") || strings.Count(id, ".") != 2 {
		t.Fatalf("the token %s doesn't say where it lives", id)
	}
	h.must(t, "team/", conclave.Read, "secret/x", team, nil)
	h.must(t, "team/sub/", conclave.Read, "secret/x", team, nil)
	h.must(t, "team/", conclave.Read, "auth/token/lookup-self", h.token(t, "team/", h.root, map[string]any{"type": "batch", "policies": "reader,default"}), nil)
	h.fails(t, conclave.Denied, "", conclave.Read, "secret/x", team, nil)
	h.fails(t, conclave.Denied, "other/", conclave.Read, "secret/x", team, nil)
	other := h.token(t, "other/", h.root, fields).Reveal()
	bare := team.Reveal()[:strings.LastIndexByte(team.Reveal(), '.')]
	moved := conclave.NewSecret(bare + other[strings.LastIndexByte(other, '.'):])
	for _, at := range []string{"", "team/", "other/"} {
		h.fails(t, conclave.Denied, at, conclave.Read, "secret/x", conclave.NewSecret(bare), nil)
		h.fails(t, conclave.Denied, at, conclave.Read, "secret/x", moved, nil)
	}
}

func TestBatchTokenEndsWithItsMakerAboveIt(t *testing.T) {
	h := settled(t)
	above := h.token(t, "", h.root, map[string]any{"policies": "root"})
	below := h.token(t, "team/", above, map[string]any{"type": "batch", "policies": "reader"})
	h.must(t, "team/", conclave.Read, "secret/x", below, nil)
	h.must(t, "", conclave.Update, "auth/token/revoke-self", above, nil)
	h.fails(t, conclave.Denied, "team/", conclave.Read, "secret/x", below, nil)
}

func TestMountDecidesTheTypeOfItsTokens(t *testing.T) {
	h := newHouse(t)
	for kind, prefix := range map[string]string{"default-service": "hvs.", "service": "hvs.", "batch": "hvb.", "default-batch": "hvb."} {
		h.must(t, "", conclave.Update, "sys/auth/door/tune", h.root, map[string]any{"token_type": kind})
		auth := h.must(t, "", conclave.Update, "auth/door/login/ann", conclave.Secret{}, nil).Auth
		if !strings.HasPrefix(auth.ClientToken.Reveal(), prefix) || auth.Renewable == (prefix == "hvb.") || (auth.Accessor == "") != (prefix == "hvb.") {
			t.Errorf("%s: %+v", kind, auth)
		}
		got := data(t, h.must(t, "", conclave.Read, "auth/token/lookup-self", auth.ClientToken, nil))
		if !strings.Contains(got, auth.EntityID) || auth.EntityID == "" {
			t.Errorf("%s: %s", kind, got)
		}
	}
}

func TestBatchTokensHaveNoCubbyhole(t *testing.T) {
	h := newHouse(t)
	token := func(kind string) conclave.Secret {
		return h.must(t, "", conclave.Update, "auth/token/create", h.root, map[string]any{"type": kind, "policies": "default", "ttl": "1h"}).Auth.ClientToken
	}
	h.must(t, "", conclave.Update, "cubbyhole/x", token("service"), map[string]any{"a": "b"})
	h.fails(t, conclave.Invalid, "", conclave.Update, "cubbyhole/x", token("batch"), map[string]any{"a": "b"})
}
