package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
	"conclave/engine/enginetest"
)

// table is the mounts of tests: accessor → path and kind. Accessors that end in _local are local.
type table map[string][2]string

func (m table) ByAccessor(_ conclave.View, accessor string) (path, kind string, local, ok bool, err error) {
	mount, ok := m[accessor]
	return mount[0], mount[1], strings.HasSuffix(accessor, "_local"), ok, nil
}

// allowing answers for policies: the paths that a caller is allowed on.
type allowing []string

func (a allowing) Allows(_ conclave.View, _ conclave.Operation, path string) (bool, error) {
	return slices.Contains(a, path), nil
}

const (
	userpass = "auth_userpass_01234567"
	ldap     = "auth_ldap_89abcdef"
	local    = "auth_jwt_local"
)

type bench struct {
	t testing.TB
	*enginetest.Memory
	access allowing
	router *conclave.Router
	once   bool // leaves out that each route is run twice
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, Memory: enginetest.NewMemory(t)}
	b.SetNow(time.Unix(1_700_000_000, 123456789))
	b.router = conclave.NewRouter(Routes(Setup{Random: rand.Reader, Access: b, Mounts: table{
		userpass: {"auth/userpass/", "userpass"}, ldap: {"auth/ldap/", "ldap"}, local: {"auth/local/", "jwt"}}}))
	return b
}

func (b *bench) Allows(view conclave.View, op conclave.Operation, path string) (bool, error) {
	return b.access.Allows(view, op, path)
}

type object = map[string]any

// call runs a route in a transaction, after it was run once from the same state without effect.
func (b *bench) call(op conclave.Operation, path string, fields object) (*conclave.Response, error) {
	b.t.Helper()
	b.Rollback()
	route, params, err := b.router.Find(op, path)
	if err != nil {
		return nil, err
	}
	in, err := route.Bind(params, fields)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if route.Prepare != nil {
		prepared, err := route.Prepare(ctx, nil, in)
		if err != nil {
			return nil, err
		}
		ctx = conclave.WithPrepared(ctx, prepared)
	}
	if b.once {
		response, err := route.Handle(ctx, b, in)
		return response, b.End(err)
	}
	before := b.Values()
	response, err := route.Handle(ctx, b, in)
	if err != nil {
		b.Rollback()
		return nil, err
	}
	once := b.Values()
	if !route.Writes() && !reflect.DeepEqual(before, once) {
		b.t.Errorf("%v %s reads only, but wrote", op, path)
	}
	b.Rollback()
	if in, err = route.Bind(params, fields); err != nil {
		return nil, err
	}
	if response, err = route.Handle(ctx, b, in); err != nil || !reflect.DeepEqual(once, b.Values()) {
		b.t.Errorf("%v %s: run again from the same state, it wrote otherwise; %v", op, path, err)
	}
	return response, b.Commit()
}

// must runs a route that must succeed and returns its data as a client sees it, nil for an empty answer.
func (b *bench) must(op conclave.Operation, path string, fields object) object {
	b.t.Helper()
	response, err := b.call(op, path, fields)
	if err != nil {
		b.t.Fatalf("%v %s: %v", op, path, err)
	}
	if response.Data == nil {
		return nil
	}
	encoded, err := json.Marshal(response.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	var m object
	if err := json.Unmarshal(encoded, &m); err != nil {
		b.t.Fatal(err)
	}
	return m
}

// fails runs a route that must fail.
func (b *bench) fails(op conclave.Operation, path string, fields object, kind conclave.Kind, text string) {
	b.t.Helper()
	_, err := b.call(op, path, fields)
	if conclave.KindOf(err) != kind || err == nil || !strings.Contains(err.Error(), text) {
		b.t.Errorf("%v %s %v: %v, want %v with %q", op, path, fields, err, kind, text)
	}
}

// entity makes an entity and returns its id.
func (b *bench) entity(name string, policies ...any) string {
	b.t.Helper()
	return b.must(conclave.Update, "entity", object{"name": name, "policies": policies})["id"].(string)
}

// group makes a group and returns its id.
func (b *bench) group(name string, fields object) string {
	b.t.Helper()
	return b.must(conclave.Update, "group/name/"+name, fields)["id"].(string)
}

// login attaches somebody in a transaction.
func (b *bench) login(accessor, name string, groups ...string) (Attached, error) {
	b.t.Helper()
	b.Rollback()
	ids, err := Mint(rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := Attach(b, accessor, &conclave.Login{Alias: conclave.Alias{Name: name}, Groups: groups}, ids)
	return a, b.End(err)
}

func (b *bench) mustLogin(accessor, name string, groups ...string) Attached {
	b.t.Helper()
	a, err := b.login(accessor, name, groups...)
	if err != nil {
		b.t.Fatalf("login of %q: %v", name, err)
	}
	return a
}

func (b *bench) of(id string) *Identity {
	b.t.Helper()
	i, err := Of(b, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

func list(values ...any) []any {
	if values == nil {
		return []any{}
	}
	return values
}

func TestEntityIsAnsweredAsVaultDoes(t *testing.T) {
	b := newBench(t)
	made := b.must(conclave.Update, "entity", object{"name": "Ann", "policies": "b, A ,a", "metadata": object{"team": "x", "n": json.Number("1")}})
	id := made["id"].(string)
	if want := (object{"id": id, "name": "Ann", "aliases": nil}); !reflect.DeepEqual(made, want) {
		t.Errorf("creation answers %v, want %v", made, want)
	}
	b.Advance(time.Second)
	if got := b.must(conclave.Update, "entity/id/"+id, object{"disabled": "true"}); got != nil {
		t.Errorf("a change answers %v, want nothing", got)
	}
	want := object{"id": id, "name": "Ann", "aliases": list(), "policies": list("a", "b"), "metadata": object{"team": "x", "n": "1"}, "disabled": true,
		"direct_group_ids": list(), "inherited_group_ids": list(), "group_ids": list(), "merged_entity_ids": nil, "namespace_id": "root",
		"creation_time": "2023-11-14T22:13:20.123456789Z", "last_update_time": "2023-11-14T22:13:21.123456789Z"}
	b.access = allowing{"identity/entity/name/Ann"}
	for _, path := range []string{"entity/id/" + id, "entity/name/Ann", "entity/name/ANN"} {
		if got := b.must(conclave.Read, path, nil); !reflect.DeepEqual(got, want) {
			t.Errorf("%s answers %v, want %v", path, got, want)
		}
	}
	if got := b.must(conclave.List, "entity/id", nil); !reflect.DeepEqual(got, object{"keys": list(id), "key_info": object{id: object{"name": "Ann"}}}) {
		t.Errorf("the list of ids is %v", got)
	}
	if got := b.must(conclave.List, "entity/name", nil); !reflect.DeepEqual(got, object{"keys": list("Ann"), "key_info": object{id: object{"name": "Ann"}}}) {
		t.Errorf("the list of names is %v", got)
	}
	b.must(conclave.Update, "entity/name/ann", object{"metadata": object{}})
	if got := b.must(conclave.Read, "entity/id/"+id, nil); got["name"] != "ann" || got["metadata"] != nil || !reflect.DeepEqual(got["policies"], list("a", "b")) {
		t.Errorf("after a change of case: %v", got)
	}
	b.must(conclave.Delete, "entity/id/"+id, nil)
	b.must(conclave.Delete, "entity/id/"+id, nil)
	for _, path := range []string{"entity/id/" + id, "entity/name/ann"} {
		b.fails(conclave.Read, path, nil, conclave.NotFound, "")
	}
	b.fails(conclave.List, "entity/id", nil, conclave.NotFound, "")
	if values := b.Values(); len(values) > 0 {
		t.Errorf("a deleted entity leaves %v", values)
	}
}

func TestEntityWithoutNameGetsOne(t *testing.T) {
	b := newBench(t)
	made := b.must(conclave.Update, "entity", nil)
	id := made["id"].(string)
	if made["name"] != "entity_"+id[28:] {
		t.Errorf("the name is %q", made["name"])
	}
	ids, err := Mint(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b.entity("entity_" + ids.Owner[28:])
	if name, err := invent(b, entityNameDir, "entity", ids.Owner); err != nil || name != "entity_"+ids.Owner {
		t.Errorf("the name of one whose short name is taken is %q, %v", name, err)
	}
}

func TestNamesOfEntitiesAreTakenOnce(t *testing.T) {
	b := newBench(t)
	ann, bob := b.entity("ann"), b.entity("bob")
	b.fails(conclave.Update, "entity/id/"+bob, object{"name": "Ann"}, conclave.Invalid, "already in use")
	b.fails(conclave.Update, "entity", object{"id": bob, "name": "ANN"}, conclave.Invalid, "already in use")
	if got := b.must(conclave.Update, "entity", object{"name": "ANN", "policies": "x"}); got != nil {
		t.Errorf("a write by a known name answers %v", got)
	}
	if got := b.must(conclave.Read, "entity/id/"+ann, nil); got["name"] != "ANN" {
		t.Errorf("the name is %v", got["name"])
	}
	b.must(conclave.Update, "entity/id/"+ann, object{"name": "eve"})
	b.must(conclave.Update, "entity/id/"+bob, object{"name": "ann"})
	for _, id := range []string{"", "nobody", "../x", strings.Repeat("a", 65)} {
		b.fails(conclave.Update, "entity", object{"id": id + "?", "name": "x"}, conclave.Invalid, "not found")
	}
}

func TestPolicyRootIsRefusedInAnySpelling(t *testing.T) {
	b := newBench(t)
	id, group := b.entity("ann", "fine"), b.group("g", object{"policies": "fine"})
	for _, root := range []string{"root", "ROOT", " root", "root ", "RooT\t", "\nroot"} {
		for _, path := range []string{"entity", "entity/name/x", "entity/id/" + id, "group", "group/name/x", "group/id/" + group} {
			b.fails(conclave.Update, path, object{"policies": list("a", root)}, conclave.Invalid, "policies cannot contain root")
		}
	}
}

func TestOtherSpellingInPathNeedsTheStoredOne(t *testing.T) {
	b := newBench(t)
	b.entity("Admin")
	b.group("Ops", nil)
	for _, test := range []struct{ given, stored string }{{"entity/name/ADMIN", "entity/name/Admin"}, {"group/name/ops", "group/name/Ops"}} {
		for _, op := range []conclave.Operation{conclave.Read, conclave.Update, conclave.Delete} {
			b.fails(op, test.given, object{"policies": "x"}, conclave.Denied, "permission denied")
		}
		b.must(conclave.Read, test.stored, nil)
		b.access = allowing{"identity/" + test.stored}
		b.must(conclave.Read, test.given, nil)
		b.access = nil
	}
}

func TestNamesAreListedInPages(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"b/1", "Carl", "ann", "D%"} {
		b.entity(name)
	}
	if got := b.must(conclave.List, "entity/name", object{"limit": json.Number("2")})["keys"]; !reflect.DeepEqual(got, list("ann", "b/1")) {
		t.Errorf("the first page is %v", got)
	}
	if got := b.must(conclave.List, "entity/name", object{"after": "B/1"})["keys"]; !reflect.DeepEqual(got, list("Carl", "D%")) {
		t.Errorf("the second page is %v", got)
	}
	if got := b.must(conclave.Read, "entity/name/b/1", nil); got["name"] != "b/1" {
		t.Errorf("a name with a slash reads as %v", got)
	}
}

func TestBatchDelete(t *testing.T) {
	b := newBench(t)
	ann, bob, eve := b.entity("ann"), b.entity("bob"), b.entity("eve")
	b.must(conclave.Update, "entity/batch-delete", object{"entity_ids": list(ann, "unknown", eve, ann)})
	if got := b.must(conclave.List, "entity/id", nil)["keys"]; !reflect.DeepEqual(got, list(bob)) {
		t.Errorf("left are %v, want %v", got, bob)
	}
	b.fails(conclave.Update, "entity/batch-delete", nil, conclave.Invalid, "missing entity ids")
	many := make([]any, MaxBatch+1)
	for n := range many {
		many[n] = fmt.Sprint(n)
	}
	b.fails(conclave.Update, "entity/batch-delete", object{"entity_ids": many}, conclave.Invalid, "at most 1000")
}

func TestLookup(t *testing.T) {
	b := newBench(t)
	id := b.entity("Ann")
	aliasID := b.must(conclave.Update, "entity-alias", object{"name": "ann@x", "mount_accessor": userpass, "canonical_id": id})["id"]
	group := b.group("Ops", object{"type": "external"})
	groupAlias := b.must(conclave.Update, "group-alias", object{"name": "cn=ops", "mount_accessor": ldap, "canonical_id": group})["id"]
	for _, test := range []struct {
		what   string
		fields object
		want   any
	}{
		{"entity", object{"id": id}, id}, {"entity", object{"name": "ANN"}, id}, {"entity", object{"alias_id": aliasID}, id},
		{"entity", object{"alias_name": "ANN@x", "alias_mount_accessor": userpass}, id}, {"entity", object{"alias_name": "ann@x", "alias_mount_accessor": ldap}, nil},
		{"entity", object{"id": "x/y"}, nil}, {"entity", object{"name": "bob"}, nil}, {"entity", object{"alias_id": groupAlias}, nil}, {"entity", object{"id": group}, nil},
		{"group", object{"id": group}, group}, {"group", object{"name": "ops"}, group}, {"group", object{"alias_id": groupAlias}, group},
		{"group", object{"alias_name": "CN=ops", "alias_mount_accessor": ldap}, group}, {"group", object{"id": id}, nil},
	} {
		if got := b.must(conclave.Update, "lookup/"+test.what, test.fields); got["id"] != test.want {
			t.Errorf("look-up of %v = %v, want %v", test.fields, got, test.want)
		}
	}
	for _, test := range []struct {
		fields object
		text   string
	}{
		{nil, "not supplied"}, {object{"id": id, "name": "x"}, "conflict"}, {object{"alias_name": "x"}, "both"}, {object{"alias_mount_accessor": "x"}, "both"},
		{object{"alias_name": "x", "id": id}, "conflict"}, {object{"alias_name": "x", "alias_mount_accessor": userpass, "id": id}, "conflict"}, {object{"name": " x"}, "blanks"},
	} {
		b.fails(conclave.Update, "lookup/entity", test.fields, conclave.Invalid, test.text)
		b.fails(conclave.Update, "lookup/group", test.fields, conclave.Invalid, test.text)
	}
}

func TestResolve(t *testing.T) {
	b := newBench(t)
	id := b.must(conclave.Update, "entity", object{"name": "ann", "metadata": object{"team": "x", "a.b": "dots", "empty": ""}})["id"].(string)
	aliasID := b.must(conclave.Update, "entity-alias", object{"name": "Ann@x", "mount_accessor": userpass, "canonical_id": id, "custom_metadata": object{"c": "custom"}})["id"].(string)
	inner := b.group("inner", object{"member_entity_ids": id, "metadata": object{"k": "in"}})
	outer := b.group("outer", object{"member_group_ids": inner, "metadata": object{"k": "out"}})
	other := b.group("other", object{"metadata": object{"k": "other"}})
	b.Rollback()
	ids, _ := Mint(rand.Reader)
	_, err := Attach(b, userpass, &conclave.Login{Alias: conclave.Alias{Name: "Ann@x", Metadata: map[string]string{"m": "login"}}}, ids)
	if err := b.End(err); err != nil {
		t.Fatal(err)
	}
	i := b.of(id)
	for template, want := range map[string]string{
		"identity.entity.id": id, "identity.entity.name": "ann", "identity.entity.metadata.team": "x", "identity.entity.metadata.a.b": "dots",
		"identity.entity.aliases." + userpass + ".id": aliasID, "identity.entity.aliases." + userpass + ".name": "Ann@x",
		"identity.entity.aliases." + userpass + ".metadata.m": "login", "identity.entity.aliases." + userpass + ".custom_metadata.c": "custom",
		"identity.groups.ids." + inner + ".name": "inner", "identity.groups.ids." + outer + ".metadata.k": "out", "identity.groups.ids." + inner + ".id": inner,
		"identity.groups.names.outer.id": outer, "identity.groups.names.inner.metadata.k": "in", "identity.groups.names.inner.name": "inner",
	} {
		if got, ok := i.Resolve(template); !ok || got != want {
			t.Errorf("%s = %q, %v, want %q", template, got, ok, want)
		}
	}
	for _, template := range []string{"", "identity", "identity.entity", "identity.entity.", "identity.entity.policies", "identity.entity.metadata", "identity.entity.metadata.",
		"identity.entity.metadata.none", "identity.entity.metadata.empty", "identity.entity.aliases." + ldap + ".name", "identity.entity.aliases." + userpass, "identity.entity.aliases.",
		"identity.entity.aliases." + userpass + ".custom_metadata.m", "identity.entity.aliases." + userpass + ".metadata.c",
		"identity.groups.names.other.id", "identity.groups.ids." + other + ".name", "identity.groups.names.Inner.id", "identity.groups.ids", "identity.groups.x.inner.id",
		"identity.groups.names.inner", "identity.groups.names.inner.policies", "time.now", "identity.entity.id.x"} {
		if got, ok := i.Resolve(template); ok {
			t.Errorf("%s = %q, want none", template, got)
		}
	}
}
