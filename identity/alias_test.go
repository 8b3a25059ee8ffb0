package identity

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"conclave"
)

func TestAliasIsAnsweredAsVaultDoes(t *testing.T) {
	b := newBench(t)
	id := b.entity("ann")
	made := b.must(conclave.Update, "entity-alias", object{"name": "Ann", "mount_accessor": userpass, "canonical_id": id, "custom_metadata": object{"mail": "a@x"}})
	alias := made["id"].(string)
	if !reflect.DeepEqual(made, object{"id": alias, "canonical_id": id}) {
		t.Errorf("creation answers %v", made)
	}
	want := object{"id": alias, "name": "Ann", "canonical_id": id, "mount_accessor": userpass, "mount_path": "auth/userpass/", "mount_type": "userpass", "metadata": nil,
		"custom_metadata": object{"mail": "a@x"}, "merged_from_canonical_ids": nil, "local": false, "namespace_id": "root",
		"creation_time": "2023-11-14T22:13:20.123456789Z", "last_update_time": "2023-11-14T22:13:20.123456789Z"}
	if got := b.must(conclave.Read, "entity-alias/id/"+alias, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("the alias reads as %v, want %v", got, want)
	}
	info := object{"name": "Ann", "canonical_id": id, "mount_accessor": userpass, "mount_path": "auth/userpass/", "mount_type": "userpass", "local": false,
		"metadata": nil, "custom_metadata": object{"mail": "a@x"}}
	if got := b.must(conclave.List, "entity-alias/id", nil); !reflect.DeepEqual(got, object{"keys": list(alias), "key_info": object{alias: info}}) {
		t.Errorf("the list is %v", got)
	}
	brief := object{"id": alias, "name": "Ann", "mount_accessor": userpass, "mount_path": "auth/userpass/", "mount_type": "userpass"}
	if got := b.must(conclave.List, "entity/id", nil)["key_info"]; !reflect.DeepEqual(got, object{id: object{"name": "ann", "aliases": list(brief)}}) {
		t.Errorf("entities are listed with %v", got)
	}
	if got := b.must(conclave.Update, "entity-alias/id/"+alias, object{"name": "Ann"}); got != nil {
		t.Errorf("a change of nothing answers %v", got)
	}
	if got := b.must(conclave.Update, "entity-alias/id/"+alias, object{"name": "Anna"}); !reflect.DeepEqual(got, made) {
		t.Errorf("a change answers %v", got)
	}
	b.must(conclave.Delete, "entity-alias/id/"+alias, nil)
	b.must(conclave.Delete, "entity-alias/id/"+alias, nil)
	b.fails(conclave.Read, "entity-alias/id/"+alias, nil, conclave.NotFound, "")
	b.fails(conclave.List, "entity-alias/id", nil, conclave.NotFound, "")
}

func TestAliasByItsFactorsIsChanged(t *testing.T) {
	b := newBench(t)
	ann, bob := b.entity("ann"), b.entity("bob")
	made := b.must(conclave.Update, "entity-alias", object{"name": "x", "mount_accessor": userpass, "entity_id": ann, "custom_metadata": "k=v"})
	moved := b.must(conclave.Update, "entity-alias", object{"name": "X", "mount_accessor": userpass, "canonical_id": bob})
	if moved["id"] != made["id"] || moved["canonical_id"] != bob {
		t.Errorf("made %v, moved %v", made, moved)
	}
	if got := b.must(conclave.Read, "entity-alias/id/"+made["id"].(string), nil); got["canonical_id"] != bob || got["name"] != "X" || !reflect.DeepEqual(got["custom_metadata"], object{"k": "v"}) {
		t.Errorf("the alias reads as %v", got)
	}
	if b.mustLogin(userpass, "x").EntityID != bob || len(b.must(conclave.Read, "entity/id/"+ann, nil)["aliases"].([]any)) != 0 {
		t.Error("the alias is not bob's alone")
	}
	fresh := b.must(conclave.Update, "entity-alias", object{"name": "new", "mount_accessor": ldap})
	if got := b.must(conclave.Read, "entity/id/"+fresh["canonical_id"].(string), nil); !strings.HasPrefix(got["name"].(string), "entity_") {
		t.Errorf("an alias without an entity got %v", got)
	}
}

func TestAliasesDoNotCollide(t *testing.T) {
	b := newBench(t)
	ann, bob := b.entity("ann"), b.entity("bob")
	make := func(name, accessor, id string) string {
		t.Helper()
		return b.must(conclave.Update, "entity-alias", object{"name": name, "mount_accessor": accessor, "canonical_id": id})["id"].(string)
	}
	a, other, bobs := make("ann", userpass, ann), make("ann", ldap, ann), make("bob", userpass, bob)
	for _, test := range []struct {
		path   string
		fields object
		text   string
	}{
		{"entity-alias", object{"name": "ann2", "mount_accessor": userpass, "canonical_id": ann}, "already exists for requested entity"},
		{"entity-alias", object{"name": "y", "mount_accessor": "auth_none_0", "canonical_id": ann}, "invalid mount accessor"},
		{"entity-alias", object{"name": "y", "mount_accessor": ldap, "canonical_id": "nobody"}, "invalid canonical ID"},
		{"entity-alias", object{"name": "y"}, "must be provided"},
		{"entity-alias", object{"mount_accessor": ldap}, "must be provided"},
		{"entity-alias", object{"id": "nobody", "name": "y"}, "invalid alias ID"},
		{"entity-alias/id/" + bobs, object{"name": "ANN"}, "combination of mount accessor and name already exists"},
		{"entity-alias/id/" + bobs, object{"canonical_id": ann}, "already has an alias for this mount"},
		{"entity-alias/id/" + bobs, object{"canonical_id": "nobody"}, "not associated with an entity"},
		{"entity-alias/id/" + other, object{"mount_accessor": userpass, "name": "z"}, "already has an alias for the given"},
		{"entity-alias/id/" + other, object{"mount_accessor": "auth_none_0"}, "invalid mount accessor"},
	} {
		b.fails(conclave.Update, test.path, test.fields, conclave.Invalid, test.text)
	}
	here := make("here", local, ann)
	b.fails(conclave.Update, "entity-alias/id/"+here, object{"canonical_id": bob}, conclave.Invalid, "local aliases can't be moved")
	if got := b.must(conclave.Read, "entity-alias/id/"+here, nil); got["local"] != true {
		t.Errorf("a local alias reads as %v", got)
	}
	b.must(conclave.Update, "entity-alias/id/"+a, object{"name": "ANN"})
	b.must(conclave.Update, "entity-alias/id/"+a, object{"name": "anna"})
	b.must(conclave.Update, "entity-alias/id/"+bobs, object{"name": "ann"})
	if b.mustLogin(userpass, "ann").EntityID != bob || b.mustLogin(userpass, "anna").EntityID != ann {
		t.Error("renamed aliases lead to others")
	}
}

func TestAliasesOfAnEntityAreBounded(t *testing.T) {
	b := newBench(t)
	full := &entity{id: "full", Name: "full", Created: 1}
	for n := range MaxAliases - 1 {
		full.Aliases = append(full.Aliases, alias{ID: fmt.Sprint("a", n), Name: "x", Accessor: fmt.Sprint("auth_x_", n), Created: 1})
	}
	if err := b.End(full.save(b)); err != nil {
		t.Fatal(err)
	}
	b.must(conclave.Update, "entity-alias", object{"name": "x", "mount_accessor": ldap, "canonical_id": "full"})
	b.fails(conclave.Update, "entity-alias", object{"name": "x", "mount_accessor": userpass, "canonical_id": "full"}, conclave.Invalid, "at most 256 aliases")
	other := b.must(conclave.Update, "entity-alias", object{"name": "x", "mount_accessor": userpass})
	b.fails(conclave.Update, "entity-alias/id/"+other["id"].(string), object{"canonical_id": "full"}, conclave.Invalid, "at most 256 aliases")
	b.fails(conclave.Update, "entity/merge", object{"to_entity_id": "full", "from_entity_ids": other["canonical_id"]}, conclave.Invalid, "at most 256 aliases")
}

func TestMergeMovesAll(t *testing.T) {
	b := newBench(t)
	to := b.must(conclave.Update, "entity", object{"name": "to", "policies": "a,b", "metadata": object{"k": "to", "t": "1"}})["id"].(string)
	from := b.must(conclave.Update, "entity", object{"name": "from", "policies": "b,c", "metadata": object{"k": "from", "f": "2"}})["id"].(string)
	alias := b.must(conclave.Update, "entity-alias", object{"name": "x", "mount_accessor": ldap, "canonical_id": from})["id"].(string)
	group := b.group("g", object{"member_entity_ids": list(from), "policies": "g"})
	both := b.group("both", object{"member_entity_ids": list(from, to)})
	if got := b.must(conclave.Update, "entity/merge", object{"to_entity_id": to, "from_entity_ids": list(from, from), "force": true}); got != nil {
		t.Errorf("the merge answers %v", got)
	}
	i := b.of(from)
	if i == nil || i.ID != to || !reflect.DeepEqual(i.Policies, []string{"a", "b", "c", "g"}) {
		t.Fatalf("a token of the former entity is %+v", i)
	}
	got := b.must(conclave.Read, "entity/id/"+to, nil)
	if !reflect.DeepEqual(got["metadata"], object{"k": "to", "t": "1", "f": "2"}) || !reflect.DeepEqual(got["merged_entity_ids"], list(from)) || !reflect.DeepEqual(got["policies"], list("a", "b", "c")) {
		t.Errorf("the entity is %v", got)
	}
	if a := b.must(conclave.Read, "entity-alias/id/"+alias, nil); a["canonical_id"] != to || !reflect.DeepEqual(a["merged_from_canonical_ids"], list(from)) {
		t.Errorf("the alias is %v", a)
	}
	if b.mustLogin(ldap, "x").EntityID != to {
		t.Error("the former entity's alias leads elsewhere")
	}
	for _, id := range []string{group, both} {
		if members := b.must(conclave.Read, "group/id/"+id, nil)["member_entity_ids"]; !reflect.DeepEqual(members, list(to)) {
			t.Errorf("members are %v, want %v", members, to)
		}
	}
	b.fails(conclave.Read, "entity/id/"+from, nil, conclave.NotFound, "")
	b.fails(conclave.Read, "entity/name/from", nil, conclave.NotFound, "")
	if keys := b.must(conclave.List, "entity/id", nil)["keys"]; !reflect.DeepEqual(keys, list(to)) {
		t.Errorf("entities are %v", keys)
	}
	if b.entity("from") == to {
		t.Error("the former name is not free")
	}
}

func TestMergesInARowEndAtTheLast(t *testing.T) {
	b := newBench(t)
	ids := []string{b.entity("e0")}
	for n := range 20 {
		next := b.entity(fmt.Sprintf("e%d", n+1))
		b.must(conclave.Update, "entity/merge", object{"to_entity_id": next, "from_entity_ids": list(ids[n])})
		ids = append(ids, next)
	}
	last := ids[len(ids)-1]
	for _, id := range ids {
		if i := b.of(id); i == nil || i.ID != last {
			t.Fatalf("Of(%s) = %+v, want %s", id, i, last)
		}
	}
	b.must(conclave.Delete, "entity/id/"+last, nil)
	for _, id := range ids {
		if i := b.of(id); i != nil {
			t.Errorf("after the deletion Of(%s) = %+v", id, i)
		}
	}
	if left := b.Values(); len(left) > 0 {
		t.Errorf("merges leave %v", left)
	}
}

func TestMergeOfAliasesForOneMountAsksWhichToKeep(t *testing.T) {
	for _, keep := range []string{"to", "from"} {
		b := newBench(t)
		id, alias := map[string]string{}, map[string]string{}
		for _, name := range []string{"to", "from", "third"} {
			id[name] = b.entity(name)
			alias[name] = b.must(conclave.Update, "entity-alias", object{"name": name, "mount_accessor": ldap, "canonical_id": id[name]})["id"].(string)
		}
		_, err := b.call(conclave.Update, "entity/merge", object{"to_entity_id": id["to"], "from_entity_ids": list(id["from"])})
		failure, _ := err.(*conclave.Error)
		if failure == nil || failure.Kind != conclave.Invalid || !reflect.DeepEqual(failure.Data, []clash{{"to", "to", id["to"], "ldap", "auth/ldap/"}, {"from", "from", id["from"], "ldap", "auth/ldap/"}}) {
			t.Errorf("the clash is %+v", failure)
		}
		b.fails(conclave.Update, "entity/merge", object{"to_entity_id": b.entity("empty"), "from_entity_ids": list(id["from"], id["third"])}, conclave.Invalid, "multiple fromEntities")
		b.fails(conclave.Update, "entity/merge", object{"to_entity_id": id["to"], "from_entity_ids": list(id["from"]), "conflicting_alias_ids_to_keep": alias["third"]}, conclave.Invalid, "neither were present")
		b.must(conclave.Update, "entity/merge", object{"to_entity_id": id["to"], "from_entity_ids": list(id["from"]), "conflicting_alias_ids_to_keep": alias[keep]})
		gone := map[string]string{"to": "from", "from": "to"}[keep]
		b.fails(conclave.Read, "entity-alias/id/"+alias[gone], nil, conclave.NotFound, "")
		if b.mustLogin(ldap, keep).EntityID != id["to"] || b.mustLogin(ldap, gone).EntityID == id["to"] {
			t.Errorf("keeping %s, aliases lead elsewhere", keep)
		}
	}
}

func TestMergeIsRefused(t *testing.T) {
	b := newBench(t)
	to, from, disabled := b.entity("to"), b.entity("from"), b.entity("disabled")
	b.must(conclave.Update, "entity/id/"+disabled, object{"disabled": true})
	many := make([]any, MaxMerge+1)
	for n := range many {
		many[n] = fmt.Sprint(n)
	}
	for _, test := range []struct {
		fields object
		text   string
	}{
		{object{"from_entity_ids": list(from)}, "missing entity id to merge to"}, {object{"to_entity_id": to}, "missing entity ids to merge from"},
		{object{"to_entity_id": "x", "from_entity_ids": list(from)}, "to merge to is invalid"}, {object{"to_entity_id": to, "from_entity_ids": list("x")}, "to merge from is invalid"},
		{object{"to_entity_id": to, "from_entity_ids": list(to)}, "should not be present"}, {object{"to_entity_id": to, "from_entity_ids": list(from, disabled)}, "is disabled"},
		{object{"to_entity_id": to, "from_entity_ids": many}, "at most 100"}, {object{"to_entity_id": to, "from_entity_ids": list(from, disabled), "conflicting_alias_ids_to_keep": "a,b"}, "one entity at a time"},
	} {
		b.fails(conclave.Update, "entity/merge", test.fields, conclave.Invalid, test.text)
	}
	for _, id := range []string{to, from, disabled} {
		if i := b.of(id); i == nil || i.ID != id {
			t.Errorf("a refused merge changed %s to %+v", id, i)
		}
	}
}
