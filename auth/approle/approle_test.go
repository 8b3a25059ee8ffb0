package approle

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"conclave"
	"conclave/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.Conformance(t, Plugin()) }

type fields = map[string]any

func mounted(t testing.TB, options ...enginetest.Option) *enginetest.Harness {
	return enginetest.New(t, Engine{}, append([]enginetest.Option{enginetest.Remote(netip.MustParseAddr("192.0.2.7"))}, options...)...)
}

func TestRoleKeepsWhatIsNotGiven(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/web", fields{"token_policies": "Web, ops", "token_ttl": "10m", "secret_id_num_uses": 3})
	h.Data(conclave.Update, "role/web", fields{"token_max_ttl": 3600, "secret_id_ttl": "1h", "alias_metadata": fields{"team": "a"}})
	got := h.Data(conclave.Read, "role/web", nil)
	want := enginetest.Decode(t, fields{"bind_secret_id": true, "local_secret_ids": false, "secret_id_bound_cidrs": []string{}, "secret_id_num_uses": 3,
		"secret_id_ttl": 3600, "token_bound_cidrs": []string{}, "token_explicit_max_ttl": 0, "token_max_ttl": 3600, "token_no_default_policy": false,
		"token_num_uses": 0, "token_period": 0, "token_policies": []string{"web", "ops"}, "token_ttl": 600, "token_type": "default", "alias_metadata": fields{"team": "a"}})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("role is\n%v, want\n%v", got, want)
	}
}

func TestRoleNamesHaveOneSpelling(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/Web-1", fields{"token_policies": "a"})
	h.Data(conclave.Update, "role/WEB-1", fields{"token_ttl": 60})
	role := h.Data(conclave.Read, "role/web-1", nil)
	if role["token_ttl"].(interface{ String() string }).String() != "60" || !reflect.DeepEqual(role["token_policies"], []any{"a"}) {
		t.Errorf("role is %v, want what was written under all spellings", role)
	}
	if keys := h.Data(conclave.List, "role", nil)["keys"]; !reflect.DeepEqual(keys, []any{"web-1"}) {
		t.Errorf("roles are %v", keys)
	}
	for _, name := range []string{"a b", "web ", " web", "wéb", "web\u200b", "-a", "a.", "..", "a*", "a+", "a\x00", strings.Repeat("a", maxRoleName+1)} {
		h.Fails(conclave.Update, "role/"+name, fields{"token_policies": "a"}, conclave.Invalid, "a role's name")
		h.Fails(conclave.Read, "role/"+name, nil, conclave.NotFound, "")
		h.Fails(conclave.Read, "role/"+name+"/role-id", nil, conclave.NotFound, "")
	}
}

func TestRolesThatCannotBe(t *testing.T) {
	h := mounted(t)
	for _, row := range []struct {
		fields fields
		text   string
	}{
		{fields{"bind_secret_id": false}, "at least one constraint"},
		{fields{"token_policies": "root"}, "root"},
		{fields{"token_policies": []string{"a", " RoOt "}}, "root"},
		{fields{"secret_id_num_uses": -1}, "cannot be negative"},
		{fields{"secret_id_num_uses": 1 << 40}, "at most"},
		{fields{"secret_id_ttl": -1}, "secret_id_ttl"},
		{fields{"secret_id_bound_cidrs": "nonsense"}, "neither an address"},
		{fields{"token_bound_cidrs": "10.0.0.0/99"}, "neither an address"},
		{fields{"secret_id_bound_cidrs": slices.Repeat([]string{"10.0.0.1"}, maxCIDRs+1)}, "at most"},
		{fields{"token_ttl": 60, "token_max_ttl": 30}, "token_ttl"},
		{fields{"token_type": "root"}, "token_type"},
		{fields{"role_id": ""}, "missing role_id"},
		{fields{"role_id": " a"}, "visible"},
		{fields{"role_id": "a\u200b"}, "visible"},
		{fields{"role_id": "a\n"}, "visible"},
		{fields{"role_id": strings.Repeat("a", maxRoleID+1)}, "at most"},
		{fields{"alias_metadata": fields{"": "x"}}, "metadata"},
		{fields{"alias_metadata": fields{"k": strings.Repeat("x", maxText+1)}}, "metadata"},
	} {
		h.Fails(conclave.Update, "role/a", row.fields, conclave.Invalid, row.text)
	}
	if stored := h.Stored(); len(stored) != 0 {
		t.Errorf("%d values are stored", len(stored))
	}
}

func TestRoleTypesWithoutMeaningAreAdjusted(t *testing.T) {
	h := mounted(t)
	response, err := h.Do(conclave.Update, "role/a", fields{"token_type": "default-service", "token_max_ttl": "1000h"})
	if err != nil || len(response.Warnings) != 2 {
		t.Fatalf("warnings are %v, %v; want two", response, err)
	}
	if kind := h.Data(conclave.Read, "role/a", nil)["token_type"]; kind != "service" {
		t.Errorf("token_type is %v", kind)
	}
}

func TestLocalSecretIDsAreSetAtCreation(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"local_secret_ids": true})
	h.Fails(conclave.Update, "role/a", fields{"local_secret_ids": false}, conclave.Invalid, "only be modified during role creation")
	h.Data(conclave.Update, "role/a", fields{"local_secret_ids": true, "token_ttl": 5})
	if got := h.Data(conclave.Read, "role/a/local-secret-ids", nil)["local_secret_ids"]; got != true {
		t.Errorf("local_secret_ids is %v", got)
	}
}

func TestRoleIDNamesOneRole(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "id/of a"})
	h.Data(conclave.Update, "role/b", nil)
	if id := h.Data(conclave.Read, "role/b/role-id", nil)["role_id"].(string); len(id) != accessorLength {
		t.Errorf("role_id is %q, want a UUID", id)
	}
	h.Fails(conclave.Update, "role/b/role-id", fields{"role_id": "id/of a"}, conclave.Invalid, "role_id already in use")
	h.Fails(conclave.Update, "role/c", fields{"role_id": "id/of a"}, conclave.Invalid, "role_id already in use")
	h.Fails(conclave.Update, "role/b/role-id", nil, conclave.Invalid, "missing role_id")
	h.Fails(conclave.Update, "role/none/role-id", fields{"role_id": "x"}, conclave.NotFound, "does not exist")
	secret := h.Data(conclave.Update, "role/a/secret-id", nil)["secret_id"]
	h.Data(conclave.Update, "role/a/role-id", fields{"role_id": "new"})
	h.Data(conclave.Update, "role/a/role-id", fields{"role_id": "new"})
	h.Fails(conclave.Update, "login", fields{"role_id": "id/of a", "secret_id": secret}, conclave.Invalid, "invalid role or secret ID")
	logIn(t, h, "new", secret)
	h.Data(conclave.Update, "role/b/role-id", fields{"role_id": "id/of a"}) // free again
	if id := h.Data(conclave.Read, "role/a/role-id", nil)["role_id"]; id != "new" {
		t.Errorf("role_id is %v", id)
	}
}

func TestEachFieldHasItsRoutes(t *testing.T) {
	cidrs := []string{"10.0.0.0/8", "2001:db8::1"}
	for _, row := range []struct {
		segment, field string
		old            string // another name that may be written
		value          any
		reset          any
		bad            any
	}{
		{"policies", "token_policies", "policies", []string{"a", "b"}, []string{}, "root"},
		{"period", "token_period", "period", 60, 0, -5},
		{"token-ttl", "token_ttl", "", 60, 0, -5},
		{"token-max-ttl", "token_max_ttl", "", 60, 0, -5},
		{"token-num-uses", "token_num_uses", "", 4, 0, -5},
		{"token-bound-cidrs", "token_bound_cidrs", "", cidrs, []string{}, "x"},
		{"secret-id-bound-cidrs", "secret_id_bound_cidrs", "bound_cidr_list", cidrs, []string{}, "x"},
		{"bound-cidr-list", "bound_cidr_list", "", cidrs, []string{}, "x"},
		{"secret-id-num-uses", "secret_id_num_uses", "", 4, 0, -5},
		{"secret-id-ttl", "secret_id_ttl", "", 60, 0, -5},
		{"bind-secret-id", "bind_secret_id", "", false, true, "x"},
	} {
		t.Run(row.segment, func(t *testing.T) {
			h := mounted(t)
			path := "role/a/" + row.segment
			h.Fails(conclave.Update, path, fields{row.field: row.value}, conclave.NotFound, "does not exist")
			h.Fails(conclave.Read, path, nil, conclave.NotFound, "does not exist")
			h.Data(conclave.Delete, path, nil)
			h.Data(conclave.Update, "role/a", nil)
			if row.segment == "bind-secret-id" {
				h.Fails(conclave.Update, path, fields{row.field: false}, conclave.Invalid, "at least one constraint")
				h.Data(conclave.Update, "role/a", fields{"token_bound_cidrs": cidrs})
			}
			before := h.Data(conclave.Read, "role/a", nil)
			name := row.field
			if row.old != "" {
				name = row.old
			}
			h.Data(conclave.Update, path, fields{name: row.value, "token_type": "batch", "role_id": "x"})
			want := enginetest.Decode(t, fields{row.field: row.value})
			if got := h.Data(conclave.Read, path, nil); !reflect.DeepEqual(got, want) {
				t.Errorf("after the write it is %v, want %v", got, want)
			}
			if kind := h.Data(conclave.Read, "role/a", nil)["token_type"]; kind != "default" {
				t.Errorf("another field was written: token_type is %v", kind)
			}
			h.Fails(conclave.Update, path, nil, conclave.Invalid, "missing "+row.field)
			h.Fails(conclave.Update, path, fields{row.field: row.bad}, conclave.Invalid, "")
			h.Data(conclave.Delete, path, nil)
			if got, want := h.Data(conclave.Read, path, nil), enginetest.Decode(t, fields{row.field: row.reset}); !reflect.DeepEqual(got, want) {
				t.Errorf("after the delete it is %v, want %v", got, want)
			}
			if after := h.Data(conclave.Read, "role/a", nil); !reflect.DeepEqual(after, before) {
				t.Errorf("the role is %v, was %v", after, before)
			}
		})
	}
}

func TestOldNamesAreTakenUnlessTodaysAreGiven(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"policies": "old", "period": "1m", "bound_cidr_list": "192.0.2.0/24"})
	h.Data(conclave.Update, "role/b", fields{"policies": "old", "token_policies": "new"})
	a, b := h.Data(conclave.Read, "role/a", nil), h.Data(conclave.Read, "role/b", nil)
	for _, row := range []struct{ got, want any }{
		{a["token_policies"], []any{"old"}}, {a["secret_id_bound_cidrs"], []any{"192.0.2.0/24"}}, {b["token_policies"], []any{"new"}},
	} {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("got %v, want %v", row.got, row.want)
		}
	}
}

func TestDeletedRoleTakesItsSecretIDsAlong(t *testing.T) {
	h := mounted(t)
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	many := h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": 2})["secret_id"]
	h.Data(conclave.Update, "role/a/secret-id", fields{"num_uses": 1})
	logIn(t, h, "a", many)
	h.Data(conclave.Delete, "role/A", nil)
	h.Data(conclave.Delete, "role/a", nil)
	if stored := h.Stored(); len(stored) != 0 {
		t.Errorf("left: %v", stored)
	}
	h.Data(conclave.Update, "role/a", fields{"role_id": "a"})
	h.Fails(conclave.Update, "login", fields{"role_id": "a", "secret_id": many}, conclave.Invalid, "invalid role or secret ID")
}

func TestListOfRolesGoesInPages(t *testing.T) {
	h := mounted(t)
	h.Fails(conclave.List, "role", nil, conclave.NotFound, "")
	for _, name := range []string{"c", "a", "b"} {
		h.Data(conclave.Update, "role/"+name, nil)
	}
	if keys := h.Data(conclave.List, "role", fields{"after": "a", "limit": 1})["keys"]; !reflect.DeepEqual(keys, []any{"b"}) {
		t.Errorf("the page is %v", keys)
	}
}

func TestWriteOfANewRoleIsACreate(t *testing.T) {
	var ops []conclave.Operation
	h := mounted(t, enginetest.Fast(), enginetest.Authorize(func(op conclave.Operation, _ string) bool {
		ops = append(ops, op)
		return true
	}))
	h.Data(conclave.Update, "role/a", nil)
	h.Data(conclave.Update, "role/A", nil)
	if want := []conclave.Operation{conclave.Create, conclave.Update}; !reflect.DeepEqual(ops, want) {
		t.Errorf("operations are %v, want %v", ops, want)
	}
}

func logIn(t testing.TB, h *enginetest.Harness, roleID, secret any) *conclave.Login {
	t.Helper()
	response, err := h.Do(conclave.Update, "login", fields{"role_id": roleID, "secret_id": secret})
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	if response.Login == nil {
		t.Fatal("login answered no Login")
	}
	return response.Login
}
