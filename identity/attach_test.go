package identity

import (
	"crypto/rand"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave"
)

// counting is a Tx that counts writes.
type counting struct {
	conclave.Tx
	writes int
}

func (c *counting) Put(path string, value []byte) error {
	c.writes++
	return c.Tx.Put(path, value)
}

func (c *counting) Delete(path string) error {
	c.writes++
	return c.Tx.Delete(path)
}

func (b *bench) writesOf(login *conclave.Login) int {
	b.t.Helper()
	b.Rollback()
	ids, err := Mint(rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	tx := &counting{Tx: b}
	_, err = Attach(tx, ldap, login, ids)
	if err := b.End(err); err != nil {
		b.t.Fatal(err)
	}
	return tx.writes
}

func TestRepeatedLoginWritesNothing(t *testing.T) {
	b := newBench(t)
	b.must(conclave.Update, "group-alias", object{"name": "devs", "mount_accessor": ldap})
	login := &conclave.Login{Alias: conclave.Alias{Name: "ann", Metadata: map[string]string{"mail": "a@x"}}, Groups: []string{"devs", "unknown", "DEVS"}}
	if n := b.writesOf(login); n == 0 {
		t.Fatal("the first login writes nothing")
	}
	for _, name := range []string{"ann", "ANN"} {
		login.Alias.Name = name
		if n := b.writesOf(login); n != 0 {
			t.Errorf("the same login writes %d times", n)
		}
	}
	before := maps.Clone(b.Values())
	login.Alias.Metadata = map[string]string{"mail": "b@x"}
	if n := b.writesOf(login); n != 1 {
		t.Errorf("a login with other metadata writes %d times, want once", n)
	}
	if reflect.DeepEqual(before, b.Values()) {
		t.Error("other metadata is not stored")
	}
	login.Groups = nil
	if n := b.writesOf(login); n != 2 {
		t.Errorf("a login without the group writes %d times, want the membership and its mark", n)
	}
}

func TestLoginMakesAnEntityOnce(t *testing.T) {
	b := newBench(t)
	first := b.mustLogin(userpass, "ann")
	if first.EntityID == "" || len(first.Policies)+len(first.GroupIDs) > 0 {
		t.Fatalf("attached %+v", first)
	}
	got := b.must(conclave.Read, "entity/id/"+first.EntityID, nil)
	aliases := got["aliases"].([]any)
	if len(aliases) != 1 {
		t.Fatalf("aliases are %v", aliases)
	}
	a := aliases[0].(object)
	want := object{"id": a["id"], "name": "ann", "canonical_id": first.EntityID, "mount_accessor": userpass, "mount_path": "auth/userpass/", "mount_type": "userpass", "metadata": nil,
		"custom_metadata": nil, "merged_from_canonical_ids": nil, "local": false, "creation_time": "2023-11-14T22:13:20.123456789Z", "last_update_time": "2023-11-14T22:13:20.123456789Z"}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("the alias is %v, want %v", a, want)
	}
	b.must(conclave.Update, "entity/id/"+first.EntityID, object{"policies": "p"})
	if again := b.mustLogin(userpass, "ann"); again.EntityID != first.EntityID || !slices.Equal(again.Policies, []string{"p"}) {
		t.Errorf("attached again %+v", again)
	}
	if nobody := b.mustLogin(userpass, ""); !reflect.DeepEqual(nobody, Attached{}) {
		t.Errorf("a login without an alias attached %+v", nobody)
	}
	if keys := b.must(conclave.List, "entity/id", nil)["keys"].([]any); len(keys) != 1 {
		t.Errorf("entities are %v", keys)
	}
}

func TestLoginTakesTheAliasThatPeopleMade(t *testing.T) {
	b := newBench(t)
	id := b.entity("ann", "p")
	b.must(conclave.Update, "entity-alias", object{"name": "Ann@X", "mount_accessor": ldap, "canonical_id": id, "custom_metadata": object{"c": "1"}})
	if got := b.mustLogin(ldap, "ann@x"); got.EntityID != id || !slices.Equal(got.Policies, []string{"p"}) {
		t.Errorf("attached %+v, want %s", got, id)
	}
	if got, _ := b.of(id).Resolve("identity.entity.aliases." + ldap + ".custom_metadata.c"); got != "1" {
		t.Error("a login drops the metadata that people gave")
	}
}

func TestDisabledEntityCanNotLogIn(t *testing.T) {
	b := newBench(t)
	id := b.mustLogin(userpass, "ann").EntityID
	b.must(conclave.Update, "entity/id/"+id, object{"disabled": true})
	if _, err := b.login(userpass, "ann"); !conclave.Is(err, conclave.Denied) {
		t.Errorf("login of a disabled entity: %v", err)
	}
	if i := b.of(id); i == nil || !i.Disabled {
		t.Errorf("a disabled entity is %+v", i)
	}
	b.must(conclave.Update, "entity/id/"+id, object{"disabled": false})
	b.mustLogin(userpass, "ann")
}

func TestLoginIsBounded(t *testing.T) {
	b := newBench(t)
	groups := make([]string, MaxLoginGroups+1)
	for n := range groups {
		groups[n] = fmt.Sprint(n)
	}
	if _, err := b.login(ldap, "ann", groups...); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("login with too many groups: %v", err)
	}
	b.mustLogin(ldap, "ann", groups[1:]...)
	for _, metadata := range []map[string]string{{"": "v"}, {"k": strings.Repeat("v", maxMetaValue+1)}} {
		ids, _ := Mint(rand.Reader)
		_, err := Attach(b, ldap, &conclave.Login{Alias: conclave.Alias{Name: "bob", Metadata: metadata}}, ids)
		if err := b.End(err); !conclave.Is(err, conclave.Invalid) {
			t.Errorf("login with metadata over the limit: %v", err)
		}
	}
	if _, err := Mint(strings.NewReader("short")); err == nil {
		t.Error("ids were made of too little randomness")
	}
}

func TestExternalGroupsFollowTheLogin(t *testing.T) {
	b := newBench(t)
	devs := b.group("devs", object{"type": "external", "policies": "dev"})
	ops := b.group("ops", object{"type": "external", "policies": "op"})
	other := b.group("other", object{"type": "external", "policies": "other"})
	lone := b.group("lone", object{"type": "external", "policies": "lone"})
	for id, name := range map[string]string{devs: "cn=devs", ops: "cn=ops"} {
		b.must(conclave.Update, "group-alias", object{"name": name, "mount_accessor": ldap, "canonical_id": id})
	}
	b.must(conclave.Update, "group-alias", object{"name": "cn=devs", "mount_accessor": userpass, "canonical_id": other})
	loneAlias := b.must(conclave.Update, "group-alias", object{"name": "cn=lone", "mount_accessor": ldap, "canonical_id": lone})["id"].(string)
	id := b.entity("ann")
	for _, accessor := range []string{ldap, userpass} {
		b.must(conclave.Update, "entity-alias", object{"name": "ann", "mount_accessor": accessor, "canonical_id": id})
	}
	internal := b.group("internal", object{"member_entity_ids": id, "policies": "in"})
	expect := func(got Attached, policies ...string) {
		t.Helper()
		if got.EntityID != id || !slices.Equal(got.Policies, policies) || !slices.Equal(b.of(id).Policies, policies) {
			t.Errorf("attached %+v, seen %+v, want %v", got, b.of(id).Policies, policies)
		}
	}
	expect(b.mustLogin(ldap, "ann", "CN=devs", "cn=lone", "nothing", " odd\x00"), "dev", "in", "lone")
	expect(b.mustLogin(userpass, "ann", "cn=devs"), "dev", "in", "lone", "other")
	b.must(conclave.Delete, "group-alias/id/"+loneAlias, nil)
	expect(b.mustLogin(ldap, "ann", "cn=ops", "cn=lone"), "in", "op", "other")
	expect(b.mustLogin(userpass, "ann"), "in", "op")
	if got := b.must(conclave.Read, "group/id/"+ops, nil)["member_entity_ids"]; !reflect.DeepEqual(got, list(id)) {
		t.Errorf("members are %v", got)
	}
	b.must(conclave.Delete, "group/id/"+internal, nil)
	expect(b.mustLogin(ldap, "ann"), []string{}...)
	if got := b.must(conclave.Read, "entity/id/"+id, nil); !reflect.DeepEqual(got["group_ids"], list()) {
		t.Errorf("groups are %v", got["group_ids"])
	}
}

func TestWithoutItsAliasAnEntityLeavesTheGroupsOfTheMount(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"deleted", "moved", "remounted"} {
		group := b.group(name, object{"type": "external", "policies": "p"})
		b.must(conclave.Update, "group-alias", object{"name": name, "mount_accessor": ldap, "canonical_id": group})
		id := b.mustLogin(ldap, name, name).EntityID
		if !slices.Equal(b.of(id).Policies, []string{"p"}) {
			t.Fatalf("%s: policies are %v", name, b.of(id).Policies)
		}
		alias := b.must(conclave.Read, "entity/id/"+id, nil)["aliases"].([]any)[0].(object)["id"].(string)
		switch name {
		case "deleted":
			b.must(conclave.Delete, "entity-alias/id/"+alias, nil)
		case "moved":
			b.must(conclave.Update, "entity-alias/id/"+alias, object{"canonical_id": b.entity("heir")})
		case "remounted":
			b.must(conclave.Update, "entity-alias/id/"+alias, object{"mount_accessor": userpass})
		}
		if got := b.of(id).Policies; len(got) > 0 {
			t.Errorf("%s: policies are still %v", name, got)
		}
	}
}

func TestDeletedEntityIsNobody(t *testing.T) {
	b := newBench(t)
	first := b.mustLogin(userpass, "ann").EntityID
	b.must(conclave.Update, "entity/id/"+first, object{"policies": "p"})
	b.must(conclave.Delete, "entity/id/"+first, nil)
	if i := b.of(first); i != nil {
		t.Errorf("a deleted entity is %+v", i)
	}
	if again := b.mustLogin(userpass, "ann"); again.EntityID == first || len(again.Policies) > 0 {
		t.Errorf("after the deletion attached %+v", again)
	}
	for _, id := range []string{"", "unknown", "../x", "a/b", strings.Repeat("x", 100)} {
		if i := b.of(id); i != nil {
			t.Errorf("Of(%q) = %+v", id, i)
		}
	}
}

// What an aborted transaction saw must not be taken for what is stored.
func TestIdentityOfAnAbortedTransactionIsForgotten(t *testing.T) {
	b := newBench(t)
	id := b.entity("ann", "own")
	group := b.group("g", object{"member_entity_ids": id, "policies": "old"})
	if got := b.of(id).Policies; !slices.Equal(got, []string{"old", "own"}) {
		t.Fatalf("policies are %v", got)
	}
	g, err := loadGroup(b, group)
	if err != nil {
		t.Fatal(err)
	}
	changed := g.clone()
	changed.Policies = []string{"new"}
	if err := changed.save(b); err != nil {
		t.Fatal(err)
	}
	if got := b.of(id).Policies; !slices.Equal(got, []string{"new", "own"}) {
		t.Errorf("within the transaction policies are %v", got)
	}
	b.Rollback()
	if got := b.of(id).Policies; !slices.Equal(got, []string{"old", "own"}) {
		t.Errorf("after it policies are %v", got)
	}
	if b.of(id) != b.of(id) {
		t.Error("what didn't change is found out again")
	}
	b.Advance(time.Hour)
	b.must(conclave.Update, "group/id/"+group, object{"policies": ""})
	if got := b.of(id).Policies; !slices.Equal(got, []string{"own"}) {
		t.Errorf("after a change policies are %v", got)
	}
}
