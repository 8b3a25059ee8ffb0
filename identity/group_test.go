package identity

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"conclave"
)

func TestGroupIsAnsweredAsVaultDoes(t *testing.T) {
	b := newBench(t)
	ann := b.entity("ann")
	inner := b.group("inner", nil)
	made := b.must(conclave.Update, "group", object{"name": "Ops", "policies": list("Q", "p", "p"), "metadata": object{"k": "v"}, "member_entity_ids": list(ann, ann), "member_group_ids": inner})
	id := made["id"].(string)
	if !reflect.DeepEqual(made, object{"id": id, "name": "Ops"}) {
		t.Errorf("creation answers %v", made)
	}
	want := object{"id": id, "name": "Ops", "type": "internal", "policies": list("p", "q"), "metadata": object{"k": "v"}, "member_entity_ids": list(ann), "member_group_ids": list(inner),
		"parent_group_ids": nil, "alias": object{}, "modify_index": 1.0, "namespace_id": "root", "creation_time": "2023-11-14T22:13:20.123456789Z", "last_update_time": "2023-11-14T22:13:20.123456789Z"}
	for _, path := range []string{"group/id/" + id, "group/name/Ops"} {
		if got := b.must(conclave.Read, path, nil); !reflect.DeepEqual(got, want) {
			t.Errorf("%s reads as %v, want %v", path, got, want)
		}
	}
	got := b.must(conclave.Read, "group/id/"+inner, nil)
	if !reflect.DeepEqual(got["parent_group_ids"], list(id)) || got["policies"] != nil || got["metadata"] != nil || got["member_group_ids"] != nil || !reflect.DeepEqual(got["member_entity_ids"], list()) {
		t.Errorf("the inner group reads as %v", got)
	}
	keys := b.must(conclave.List, "group/name", nil)
	info := object{id: object{"name": "Ops", "num_member_entities": 1.0, "num_parent_groups": 0.0}, inner: object{"name": "inner", "num_member_entities": 0.0, "num_parent_groups": 1.0}}
	if !reflect.DeepEqual(keys, object{"keys": list("inner", "Ops"), "key_info": info}) {
		t.Errorf("the list of names is %v", keys)
	}
	if got := len(b.must(conclave.List, "group/id", nil)["keys"].([]any)); got != 2 {
		t.Errorf("%d ids are listed", got)
	}
	for _, write := range []string{"group/id/" + id, "group/name/Ops", "group"} {
		if got := b.must(conclave.Update, write, object{"name": "Ops", "metadata": object{"k": "w"}}); got != nil {
			t.Errorf("a change at %s answers %v", write, got)
		}
	}
	b.must(conclave.Delete, "group/name/Ops", nil)
	b.must(conclave.Delete, "group/name/Ops", nil)
	b.fails(conclave.Read, "group/id/"+id, nil, conclave.NotFound, "")
	if got := b.must(conclave.Read, "group/id/"+inner, nil); got["parent_group_ids"] != nil && len(got["parent_group_ids"].([]any)) > 0 {
		t.Errorf("the parents are still %v", got["parent_group_ids"])
	}
	if made := b.must(conclave.Update, "group", nil); made["name"] != "group_"+made["id"].(string)[28:] {
		t.Errorf("a group without a name is %v", made)
	}
}

func TestWrongGroupsAreRefused(t *testing.T) {
	b := newBench(t)
	ann := b.entity("ann")
	external, internal := b.group("ext", object{"type": "external"}), b.group("int", object{"type": "internal"})
	many := make([]any, MaxMembers+1)
	for n := range many {
		many[n] = fmt.Sprint("m", n)
	}
	for _, test := range []struct {
		path   string
		fields object
		text   string
	}{
		{"group", object{"type": "odd"}, "invalid group type"}, {"group/id/" + internal, object{"type": "external"}, "cannot be changed"}, {"group/id/" + external, object{"type": "internal"}, "cannot be changed"},
		{"group/id/" + external, object{"member_entity_ids": ann}, "can't be set manually"}, {"group/id/" + external, object{"member_group_ids": internal}, "member groups can't be set"},
		{"group/id/" + internal, object{"member_entity_ids": list(ann, "nobody")}, `invalid entity ID "nobody"`}, {"group/id/" + internal, object{"member_group_ids": "nobody"}, `invalid member group ID "nobody"`},
		{"group/id/" + internal, object{"member_group_ids": internal}, "same as the ID"}, {"group/id/nobody", nil, "invalid group ID"}, {"group", object{"id": "nobody"}, "invalid group ID"},
		{"group/id/" + internal, object{"name": "EXT"}, "already in use"}, {"group/id/" + internal, object{"member_entity_ids": many}, "at most 10000 members"},
		{"group/id/" + internal, object{"member_group_ids": many[:MaxSubgroups+1]}, "at most 1000 groups"}, {"group/id/" + internal, object{"member_entity_ids": list("../x")}, "invalid entity ID"},
	} {
		b.fails(conclave.Update, test.path, test.fields, conclave.Invalid, test.text)
	}
	b.must(conclave.Update, "group/id/"+external, object{"member_entity_ids": list(), "member_group_ids": list(), "type": "external"})
	if got := b.of(ann).GroupIDs; len(got) > 0 {
		t.Errorf("refused changes left %v", got)
	}
}

func TestCyclesOfGroupsAreRefused(t *testing.T) {
	b := newBench(t)
	a := b.group("a", nil)
	c := b.group("c", object{"member_group_ids": a})
	d := b.group("d", object{"member_group_ids": c})
	for _, inner := range []string{a, c} {
		b.fails(conclave.Update, "group/id/"+inner, object{"member_group_ids": d}, conclave.Invalid, "cyclic relationship detected")
	}
	b.must(conclave.Update, "group/id/"+d, object{"member_group_ids": list(c, a)}) // two ways up are no cycle
	b.must(conclave.Update, "group/id/"+c, object{"member_group_ids": list()})
	b.fails(conclave.Update, "group/id/"+a, object{"member_group_ids": d}, conclave.Invalid, "cyclic relationship detected")
	b.must(conclave.Update, "group/id/"+c, object{"member_group_ids": list()})
	b.must(conclave.Update, "group/id/"+d, object{"member_group_ids": list(c)})
	b.must(conclave.Update, "group/id/"+a, object{"member_group_ids": d})
}

func TestNestingIsBounded(t *testing.T) {
	b := newBench(t)
	ann := b.entity("ann")
	chain := func(prefix string, n int) (top, bottom string) {
		bottom = b.group(prefix+"0", object{"policies": prefix})
		top = bottom
		for i := range n - 1 {
			top = b.group(fmt.Sprint(prefix, i+1), object{"member_group_ids": top})
		}
		return top, bottom
	}
	lowTop, low := chain("low", MaxNesting/2)
	_, high := chain("high", MaxNesting/2)
	b.must(conclave.Update, "group/id/"+high, object{"member_group_ids": lowTop})
	b.must(conclave.Update, "group/id/"+low, object{"member_entity_ids": ann})
	if got := len(b.of(ann).GroupIDs); got != MaxNesting {
		t.Errorf("groups on the longest chain: %d, want %d", got, MaxNesting)
	}
	one := b.group("one", nil)
	b.fails(conclave.Update, "group/id/"+low, object{"member_group_ids": one}, conclave.Invalid, "at most 32 deep")
	b.fails(conclave.Update, "group", object{"name": "top", "member_group_ids": list(mustParent(b, "high15"))}, conclave.Invalid, "at most 32 deep")
	b.must(conclave.Update, "group/id/"+lowTop, object{"member_group_ids": one})
}

func mustParent(b *bench, name string) string {
	return b.must(conclave.Read, "group/name/"+name, nil)["id"].(string)
}

func TestGroupsOfAnEntityAreBounded(t *testing.T) {
	b := newBench(t)
	ann := b.entity("ann")
	groups := make([]string, MaxGroups+1)
	for n := range groups {
		groups[n] = fmt.Sprintf("g%04d", n)
		g := &group{id: groups[n], Name: groups[n], Created: 1}
		if err := g.save(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.End(regroup(b, ann, groups, nil)); !conclave.Is(err, conclave.Invalid) {
		t.Errorf("joining too many groups: %v", err)
	}
	for _, id := range groups {
		g := &group{id: id, Name: id, Created: 1, Parents: []string{"more"}}
		if err := g.save(b); err != nil {
			t.Fatal(err)
		}
	}
	more := &group{id: "more", Name: "more", Created: 1}
	if err := more.save(b); err != nil {
		t.Fatal(err)
	}
	if err := b.End(regroup(b, ann, groups[1:], nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := Of(b, ann); !conclave.Is(err, conclave.Denied) {
		t.Errorf("an entity with too many inherited groups: %v", err)
	}
	if err := b.End(regroup(b, ann, nil, groups[1:2])); err != nil {
		t.Fatal(err)
	}
	if got := len(b.of(ann).GroupIDs); got != MaxGroups {
		t.Errorf("%d groups, want %d", got, MaxGroups)
	}
}

func TestMembersOfADeletedGroupAreClearedInSteps(t *testing.T) {
	b := newBench(t)
	const members = 3 * clearedAtOnce
	group, keep := b.group("big", object{"policies": "p"}), b.group("keep", object{"policies": "k"})
	var ids []string
	for n := range members {
		e := &entity{id: fmt.Sprintf("e%05d", n), Name: fmt.Sprint("e", n), Created: 1}
		if err := e.save(b); err != nil {
			t.Fatal(err)
		}
		if err := regroup(b, e.id, []string{group, keep}, nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.id)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	b.must(conclave.Delete, "group/id/"+group, nil)
	for _, id := range []string{ids[0], ids[members-1]} {
		if got := b.of(id); !slices.Equal(got.Policies, []string{"k"}) || !slices.Equal(got.GroupIDs, []string{keep}) {
			t.Errorf("%s has still %+v", id, got)
		}
		if got := b.must(conclave.Read, "entity/id/"+id, nil); !reflect.DeepEqual(got["group_ids"], list(keep)) {
			t.Errorf("%s is shown in %v", id, got["group_ids"])
		}
	}
	total, steps := 0, 0
	for more := true; more; steps++ {
		var done int
		var err error
		done, more, err = Tidy(b, 400)
		if err := b.End(err); err != nil {
			t.Fatal(err)
		}
		if total += done; done > 400 || steps > 10 {
			t.Fatalf("step %d cleared %d members", steps, done)
		}
	}
	if total != members-clearedAtOnce {
		t.Errorf("cleared %d members, want %d", total, members-clearedAtOnce)
	}
	for path := range b.Values() {
		if strings.HasPrefix(path, deadDir) || strings.Contains(path, group) {
			t.Errorf("%q is left", path)
		}
	}
}

func TestGroupAlias(t *testing.T) {
	b := newBench(t)
	external, second, internal := b.group("ext", object{"type": "external"}), b.group("second", object{"type": "external"}), b.group("int", nil)
	made := b.must(conclave.Update, "group-alias", object{"name": "CN=Devs", "mount_accessor": ldap, "canonical_id": external})
	alias := made["id"].(string)
	if !reflect.DeepEqual(made, object{"id": alias, "canonical_id": external}) {
		t.Errorf("creation answers %v", made)
	}
	core := object{"id": alias, "name": "CN=Devs", "canonical_id": external, "mount_accessor": ldap, "mount_path": "auth/ldap/", "mount_type": "ldap", "metadata": nil,
		"merged_from_canonical_ids": nil, "creation_time": "2023-11-14T22:13:20.123456789Z", "last_update_time": "2023-11-14T22:13:20.123456789Z"}
	if got := b.must(conclave.Read, "group/id/"+external, nil)["alias"]; !reflect.DeepEqual(got, core) {
		t.Errorf("the group shows %v, want %v", got, core)
	}
	if got := b.must(conclave.Read, "group-alias/id/"+alias, nil); got["canonical_id"] != external || got["name"] != "CN=Devs" || got["namespace_id"] != "root" {
		t.Errorf("the alias reads as %v", got)
	}
	if got := b.must(conclave.List, "group-alias/id", nil); !reflect.DeepEqual(got["keys"], list(alias)) || got["key_info"].(object)[alias].(object)["mount_type"] != "ldap" {
		t.Errorf("the list is %v", got)
	}
	if got := b.must(conclave.List, "group/id", nil)["key_info"].(object)[external].(object)["alias"].(object)["id"]; got != alias {
		t.Errorf("groups are listed with the alias %v", got)
	}
	for _, test := range []struct {
		path   string
		fields object
		text   string
	}{
		{"group-alias", object{"mount_accessor": ldap}, "missing alias name"}, {"group-alias", object{"name": "x"}, "missing mount_accessor"},
		{"group-alias", object{"name": "x", "mount_accessor": "auth_none_0"}, "invalid mount accessor"}, {"group-alias", object{"name": "x", "mount_accessor": local}, "is a local mount"},
		{"group-alias", object{"name": "cn=devs", "mount_accessor": ldap, "canonical_id": second}, "already in use"}, {"group-alias", object{"name": "x", "mount_accessor": ldap, "canonical_id": internal}, "internal group"},
		{"group-alias", object{"name": "x", "mount_accessor": ldap, "canonical_id": "nobody"}, "invalid group ID given"}, {"group-alias/id/nobody", object{"name": "x", "mount_accessor": ldap}, "invalid group alias ID"},
	} {
		b.fails(conclave.Update, test.path, test.fields, conclave.Invalid, test.text)
	}
	if got := b.must(conclave.Update, "group-alias/id/"+alias, object{"name": "CN=Devs", "mount_accessor": ldap}); got != nil {
		t.Errorf("a change of nothing answers %v", got)
	}
	b.must(conclave.Update, "group-alias", object{"id": alias, "name": "cn=devs", "mount_accessor": ldap, "canonical_id": second})
	if got := b.must(conclave.Read, "group/id/"+external, nil)["alias"]; !reflect.DeepEqual(got, object{}) {
		t.Errorf("the first group still has %v", got)
	}
	if got := b.mustLogin(ldap, "ann", "CN=DEVS").GroupIDs; !slices.Equal(got, []string{second}) {
		t.Errorf("a login is in %v, want %v", got, second)
	}
	b.must(conclave.Delete, "group/id/"+second, nil)
	b.fails(conclave.Read, "group-alias/id/"+alias, nil, conclave.NotFound, "")
	if fresh := b.must(conclave.Update, "group-alias", object{"name": "cn=devs", "mount_accessor": ldap}); b.must(conclave.Read, "group/id/"+fresh["canonical_id"].(string), nil)["type"] != "external" {
		t.Errorf("an alias without a group got %v", fresh)
	}
}

// naive is the model of groups: what is a member of what, and nothing worked out beforehand.
type naive struct {
	members  map[string][]string // group → entities
	inside   map[string][]string // group → groups that are members of it
	policies map[string][]string // group or entity → its own policies
}

func (m *naive) holds(group, entity string) bool {
	return slices.Contains(m.members[group], entity) || slices.ContainsFunc(m.inside[group], func(inner string) bool { return m.holds(inner, entity) })
}

func (m *naive) reaches(from, to string) bool {
	return from == to || slices.ContainsFunc(m.inside[from], func(inner string) bool { return m.reaches(inner, to) })
}

// identity is what an entity should have.
func (m *naive) identity(entity string) (policies, groups []string) {
	policies = slices.Clone(m.policies[entity])
	for group := range m.inside {
		if m.holds(group, entity) {
			groups, policies = append(groups, group), append(policies, m.policies[group]...)
		}
	}
	slices.Sort(policies)
	slices.Sort(groups)
	return slices.Compact(policies), groups
}

func pick(r *rand.Rand, from []string, most int) []string {
	var picked []string
	for range r.IntN(most + 1) {
		if len(from) > 0 {
			picked = append(picked, from[r.IntN(len(from))])
		}
	}
	slices.Sort(picked)
	return slices.Compact(picked)
}

func TestGroupsAreAsInTheModel(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := newBench(t)
		b.once = seed > 0
		m := &naive{map[string][]string{}, map[string][]string{}, map[string][]string{}}
		var entities, groups []string
		names := []string{"p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"}
		refused := 0
		for step := range 120 {
			switch n := r.IntN(10); {
			case n == 0 || len(entities) < 2:
				policies := pick(r, names, 2)
				id := b.must(conclave.Update, "entity", object{"policies": anys(policies)})["id"].(string)
				entities, m.policies[id] = append(entities, id), policies
			case n <= 2 || len(groups) < 3:
				policies := pick(r, names, 2)
				id := b.must(conclave.Update, "group", object{"policies": anys(policies)})["id"].(string)
				groups, m.policies[id], m.inside[id] = append(groups, id), policies, nil
			case n == 3 && len(groups) > 5:
				at := r.IntN(len(groups))
				id := groups[at]
				b.must(conclave.Delete, "group/id/"+id, nil)
				groups = slices.Delete(groups, at, at+1)
				delete(m.inside, id)
				delete(m.members, id)
				for outer, inside := range m.inside {
					m.inside[outer] = slices.DeleteFunc(slices.Clone(inside), func(inner string) bool { return inner == id })
				}
			case n <= 6:
				id, members := groups[r.IntN(len(groups))], pick(r, entities, 4)
				b.must(conclave.Update, "group/id/"+id, object{"member_entity_ids": anys(members)})
				m.members[id] = members
			default:
				id, inside := groups[r.IntN(len(groups))], pick(r, groups, 4)
				cyclic := slices.ContainsFunc(inside, func(inner string) bool { return m.reaches(inner, id) })
				_, err := b.call(conclave.Update, "group/id/"+id, object{"member_group_ids": anys(inside)})
				if cyclic != (err != nil) {
					t.Fatalf("seed %d, step %d: cyclic is %v, error is %v", seed, step, cyclic, err)
				}
				if err != nil {
					refused++
					continue
				}
				m.inside[id] = inside
			}
			for _, id := range entities {
				policies, in := m.identity(id)
				got := b.of(id)
				gotIn := slices.Sorted(slices.Values(got.GroupIDs))
				if !slices.Equal(got.Policies, policies) || !slices.Equal(gotIn, in) {
					t.Fatalf("seed %d, step %d: %s has %v by %v, want %v by %v", seed, step, id, got.Policies, gotIn, policies, in)
				}
			}
		}
		if refused == 0 {
			t.Errorf("seed %d: no cycle was tried", seed)
		}
	}
}

func anys(texts []string) []any {
	list := make([]any, len(texts))
	for n, text := range texts {
		list[n] = text
	}
	return list
}
