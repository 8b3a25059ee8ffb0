package pki

import (
	"context"
	"encoding/json"
	"maps"
	"strings"

	"conclave"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/issuing"
	"conclave/engine/pki/stored"
)

const roleDoc = `Write a role: which certificates may be had of it, and how they look.
What isn't given is as for a new role; to change some settings and keep the others, patch it.`

func roleRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "roles/{name}", roleDoc, writeRole),
		conclave.WriteRoute(conclave.Patch, "roles/{name}", "Change some settings of a role.", patchRole),
		conclave.ReadRoute(conclave.Read, "roles/{name}", "Read a role.", readRole),
		conclave.WriteRoute(conclave.Delete, "roles/{name}", "Remove a role. Its certificates stay valid.", deleteRole),
		conclave.ReadRoute(conclave.List, "roles", "List the roles.", listRoles),
	}
}

type roleIn struct {
	Name   string         `path:"name" doc:"Name of the role."`
	Fields map[string]any `json:"*" doc:"Settings, by the names of a role."`
}

type nameIn struct {
	Name string `path:"name" doc:"Name of the role."`
}

func writeRole(_ context.Context, tx conclave.Tx, in *roleIn) (*conclave.Response, error) {
	return putRole(tx, in, issuing.NewRole())
}

func patchRole(_ context.Context, tx conclave.Tx, in *roleIn) (*conclave.Response, error) {
	old, err := findRole(tx, in.Name)
	if err != nil {
		return nil, err
	}
	role := *old
	return putRole(tx, in, &role)
}

func putRole(tx conclave.Tx, in *roleIn, role *issuing.Role) (*conclave.Response, error) {
	if err := stored.CheckName(in.Name); err != nil {
		return nil, err
	}
	fields, err := withPolicies(in.Fields)
	if err != nil {
		return nil, err
	}
	if err := conclave.Merge(role, fields); err != nil {
		return nil, err
	}
	warnings, err := role.Check()
	if err != nil {
		return nil, err
	}
	id, err := authority.IDOf(tx, role.IssuerRef)
	if err != nil {
		return nil, err
	}
	if id == "" {
		warnings = append(warnings, "there is no issuer yet that issuer_ref stands for")
	}
	return &conclave.Response{Data: role, Warnings: warnings}, stored.Put(tx, "role/"+in.Name, role)
}

// withPolicies brings policy_identifiers, which may be a list of objects or JSON text of one, into a list of texts.
func withPolicies(fields map[string]any) (map[string]any, error) {
	given := fields["policy_identifiers"]
	if text, ok := given.(string); ok && strings.HasPrefix(strings.TrimSpace(text), "[") {
		var list []any
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return nil, conclave.Errorf(conclave.Invalid, "policy_identifiers is neither a list nor JSON text of one")
		}
		given = list
	}
	list, ok := given.([]any)
	if !ok {
		return fields, nil
	}
	texts := make([]any, len(list))
	for i, item := range list {
		if object, ok := item.(map[string]any); ok {
			text, err := json.Marshal(object)
			if err != nil {
				return nil, conclave.Errorf(conclave.Invalid, "policy_identifiers has an object that can't be read")
			}
			item = string(text)
		}
		texts[i] = item
	}
	changed := maps.Clone(fields)
	changed["policy_identifiers"] = texts
	return changed, nil
}

func findRole(view conclave.View, name string) (*issuing.Role, error) {
	if stored.CheckName(name) != nil {
		return nil, stored.NotFound()
	}
	role, err := loadRole(view, name)
	if err == nil && role == nil {
		err = stored.NotFound()
	}
	return role, err
}

func readRole(_ context.Context, view conclave.View, in *nameIn) (*issuing.Role, error) {
	return findRole(view, in.Name)
}

func deleteRole(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
	if stored.CheckName(in.Name) != nil {
		return nil, nil
	}
	return nil, tx.Delete("role/" + in.Name)
}

type listIn struct {
	After string `json:"after" doc:"Only names after this one."`
	Limit int    `json:"limit" doc:"At most so many; 0 is all."`
}

func listRoles(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	names, err := view.List("role/", in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

func loadRole(view conclave.View, name string) (*issuing.Role, error) {
	return stored.Load(view, "role/"+name, issuing.Decode)
}
