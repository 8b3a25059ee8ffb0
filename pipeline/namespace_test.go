package pipeline

import (
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"conclave"
	"conclave/mount"
	"conclave/namespace"
	"conclave/store"
)

func namespaceRoutes() []conclave.Route {
	return namespace.Routes(namespace.Setup{
		Found: func(tx conclave.System) error { return mount.Initial(tx, rand.Reader) },
		Mounted: func(view conclave.View, path string) (bool, error) {
			t, err := mount.Load(view, mount.Defaults{})
			return t.Uses(path), err
		},
		Empty:  func(conclave.System) error { return nil },
		Spaces: mount.Spaces,
		Root:   func(view conclave.View) (conclave.System, error) { return view.(*store.View).Tx().System(), nil },
		Random: rand.Reader,
	})
}

func namespaceAt(view conclave.View, path string) (bool, error) {
	table, err := namespace.Load(view)
	name, _, _ := strings.Cut(path, "/")
	return table.Find(name) != nil, err
}

// in makes a request in a namespace.
func (h *house) in(t *testing.T, at string, op conclave.Operation, path string, with conclave.Secret, fields map[string]any) (*conclave.Response, error) {
	t.Helper()
	return h.Handle(t.Context(), &conclave.Request{ID: "r", Operation: op, Namespace: at, Path: path, Token: with, Fields: fields})
}

func (h *house) must(t *testing.T, at string, op conclave.Operation, path string, with conclave.Secret, fields map[string]any) *conclave.Response {
	t.Helper()
	resp, err := h.in(t, at, op, path, with, fields)
	if err != nil {
		t.Fatalf("%s %s%s: %v", op, at, path, err)
	}
	return resp
}

func (h *house) fails(t *testing.T, kind conclave.Kind, at string, op conclave.Operation, path string, with conclave.Secret, fields map[string]any) {
	t.Helper()
	if resp, err := h.in(t, at, op, path, with, fields); !conclave.Is(err, kind) {
		t.Errorf("%s %s%s: %+v, %v, want %v", op, at, path, resp, err, kind)
	}
}

// settled is a house with the namespaces team/ and team/sub/ and other/, and a secret in team/.
func settled(t *testing.T) *house {
	h := newHouse(t)
	for _, at := range []struct{ in, name string }{{"", "team"}, {"", "other"}, {"team/", "sub"}} {
		h.must(t, at.in, conclave.Update, "sys/namespaces/"+at.name, h.root, map[string]any{"custom_metadata": map[string]any{"owner": "ann"}})
	}
	for _, at := range []string{"", "team/", "team/sub/", "other/"} {
		h.must(t, at, conclave.Update, "sys/mounts/secret", h.root, map[string]any{"type": "kv"})
		h.must(t, at, conclave.Update, "sys/policies/acl/reader", h.root,
			map[string]any{"policy": `path "secret/*" { capabilities = ["read"] } path "sub/secret/*" { capabilities = ["read"] }`})
		h.must(t, at, conclave.Update, "secret/x", h.root, map[string]any{"at": "ns:" + at})
	}
	return h
}

func (h *house) token(t *testing.T, at string, with conclave.Secret, fields map[string]any) conclave.Secret {
	t.Helper()
	return h.must(t, at, conclave.Update, "auth/token/create", with, fields).Auth.ClientToken
}

func data(t *testing.T, resp *conclave.Response) string {
	t.Helper()
	raw, ok := resp.Data.(json.RawMessage)
	if !ok {
		t.Fatalf("no data in %+v", resp)
	}
	return string(raw)
}

func TestNamespacesAreNamedByHeaderPathOrBoth(t *testing.T) {
	h := settled(t)
	for at, path := range map[string]string{"team/sub/": "secret/x", "team/": "sub/secret/x", "": "team/sub/secret/x"} {
		if got := data(t, h.must(t, at, conclave.Read, path, h.root, nil)); got != `{"at":"ns:team/sub/"}` {
			t.Errorf("%s%s is %s", at, path, got)
		}
	}
	h.fails(t, conclave.NotFound, "team/none/", conclave.Read, "secret/x", h.root, nil)
	h.fails(t, conclave.NotFound, "team/sub/", conclave.Read, "sub/secret/x", h.root, nil)
}

func TestTokensActWhereTheyLiveAndBelow(t *testing.T) {
	h := settled(t)
	team := h.token(t, "team/", h.root, map[string]any{"policies": "reader", "no_parent": true})
	if id := team.Reveal(); strings.Count(id, ".") != 2 {
		t.Fatalf("the token %s doesn't say where it lives", id)
	}
	h.must(t, "team/", conclave.Read, "secret/x", team, nil)
	h.must(t, "", conclave.Read, "team/secret/x", team, nil)
	h.must(t, "team/sub/", conclave.Read, "secret/x", team, nil)
	h.fails(t, conclave.Denied, "", conclave.Read, "secret/x", team, nil)
	h.fails(t, conclave.Denied, "other/", conclave.Read, "secret/x", team, nil)
	h.fails(t, conclave.Denied, "none/", conclave.Read, "secret/x", team, nil)
	h.fails(t, conclave.Denied, "team/none/", conclave.Read, "secret/x", team, nil)

	if got := data(t, h.must(t, "team/sub/", conclave.Read, "auth/token/lookup-self", h.root, nil)); strings.Contains(got, "namespace_path") {
		t.Errorf("the root token says that it lives below: %s", got)
	}
	bare := conclave.NewSecret(team.Reveal()[:strings.LastIndexByte(team.Reveal(), '.')])
	for _, at := range []string{"", "team/", "other/"} {
		h.fails(t, conclave.Denied, at, conclave.Read, "secret/x", bare, nil)
	}
	root := h.token(t, "", h.root, map[string]any{"policies": "reader"})
	h.fails(t, conclave.Denied, "team/", conclave.Read, "secret/x", root, nil) // its policies are about other paths
}

func TestTokenEndsWithItsMakerAboveIt(t *testing.T) {
	h := settled(t)
	above := h.token(t, "", h.root, map[string]any{"policies": "root"})
	below := h.token(t, "team/", above, map[string]any{"policies": "reader"})
	child := h.token(t, "team/", h.must(t, "team/", conclave.Update, "auth/token/create", above, map[string]any{"policies": "root"}).Auth.ClientToken,
		map[string]any{"policies": "reader"})
	for _, secret := range []conclave.Secret{below, child} {
		h.must(t, "team/", conclave.Read, "secret/x", secret, nil)
	}
	h.must(t, "", conclave.Update, "auth/token/revoke-self", above, nil)
	for _, secret := range []conclave.Secret{below, child} {
		h.fails(t, conclave.Denied, "team/", conclave.Read, "secret/x", secret, nil)
	}
}

func TestLockedNamespaceServesNothing(t *testing.T) {
	h := settled(t)
	var key struct {
		UnlockKey string `json:"unlock_key"`
	}
	if err := json.Unmarshal([]byte(data(t, h.must(t, "", conclave.Update, "sys/namespaces/api-lock/lock/team", h.root, nil))), &key); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"team/", "team/sub/"} {
		h.fails(t, conclave.Unavailable, at, conclave.Read, "secret/x", h.root, nil)
	}
	h.fails(t, conclave.Unavailable, "", conclave.Read, "team/secret/x", h.root, nil)
	h.must(t, "other/", conclave.Read, "secret/x", h.root, nil)
	h.must(t, "", conclave.Update, "sys/namespaces/api-lock/unlock/team", h.root, map[string]any{"unlock_key": key.UnlockKey})
	h.must(t, "team/", conclave.Read, "secret/x", h.root, nil)
}

func TestNamespaceIsLockedFromWithin(t *testing.T) {
	h := settled(t)
	team := h.token(t, "team/", h.root, map[string]any{"policies": "root"})
	var key struct {
		UnlockKey string `json:"unlock_key"`
	}
	const lock, unlock = "sys/namespaces/api-lock/lock", "sys/namespaces/api-lock/unlock"
	h.fails(t, conclave.Invalid, "", conclave.Update, lock, h.root, nil)
	if err := json.Unmarshal([]byte(data(t, h.must(t, "team/", conclave.Update, lock, team, nil))), &key); err != nil {
		t.Fatal(err)
	}
	h.fails(t, conclave.Unavailable, "team/", conclave.Read, "secret/x", team, nil)
	h.must(t, "other/", conclave.Read, "secret/x", h.root, nil)
	reader := h.token(t, "", h.root, map[string]any{"policies": "default"})
	h.fails(t, conclave.Denied, "team/", conclave.Update, unlock, reader, map[string]any{"unlock_key": key.UnlockKey})
	h.must(t, "team/", conclave.Update, unlock, team, map[string]any{"unlock_key": key.UnlockKey})
	h.must(t, "team/", conclave.Read, "secret/x", team, nil)
}

func TestDeletedNamespaceIsGoneForEver(t *testing.T) {
	h := settled(t)
	team := h.token(t, "team/", h.root, map[string]any{"policies": "root"})
	h.fails(t, conclave.Invalid, "", conclave.Delete, "sys/namespaces/team", h.root, nil) // sub/ is below it
	h.must(t, "team/", conclave.Delete, "sys/namespaces/sub", h.root, nil)
	h.must(t, "", conclave.Delete, "sys/namespaces/team", h.root, nil)
	h.fails(t, conclave.NotFound, "team/", conclave.Read, "secret/x", h.root, nil)
	h.must(t, "", conclave.Update, "sys/namespaces/team", h.root, nil)
	h.fails(t, conclave.NotFound, "team/", conclave.Read, "secret/x", h.root, nil)
	h.fails(t, conclave.Denied, "team/", conclave.Read, "sys/policies/acl/reader", team, nil)
}

func TestNamespacesAndMountsShareNoPath(t *testing.T) {
	h := settled(t)
	h.fails(t, conclave.Invalid, "", conclave.Update, "sys/namespaces/secret", h.root, nil)
	h.fails(t, conclave.Invalid, "", conclave.Update, "sys/mounts/other", h.root, map[string]any{"type": "kv"})
	h.fails(t, conclave.Invalid, "", conclave.Update, "sys/mounts/other/deep", h.root, map[string]any{"type": "kv"})
	for _, name := range []string{"sys", "Root", "auth", "a*", "..", "a b", strings.Repeat("n", 200)} {
		h.fails(t, conclave.Invalid, "", conclave.Update, "sys/namespaces/"+name, h.root, nil)
	}
}

func TestOnlyTheRootNamespaceHasTheClusters(t *testing.T) {
	h := settled(t)
	h.must(t, "", conclave.Read, "sys/cluster-wide", h.root, nil)
	h.fails(t, conclave.NotFound, "team/", conclave.Read, "sys/cluster-wide", h.root, nil)
	names := data(t, h.must(t, "", conclave.List, "sys/namespaces/", h.root, nil))
	var listed struct{ Keys []string }
	if err := json.Unmarshal([]byte(names), &listed); err != nil || !slices.Equal(listed.Keys, []string{"other/", "team/"}) {
		t.Errorf("listed %s, %v", names, err)
	}
}
