package policy

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"conclave"
)

// Routes are those below sys/ that manage policies.
func Routes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "policies/acl", "List the names of all policies.", listACL),
		conclave.ReadRoute(conclave.Read, "policies/acl/{name}", "Read a policy's text.", readACL),
		conclave.WriteRoute(conclave.Update, "policies/acl/{name}", "Create or replace a policy. The text is HCL or JSON, plain or in base64.\n\n"+
			"It holds for every request that begins after the answer, on every node.", write),
		conclave.WriteRoute(conclave.Delete, "policies/acl/{name}", "Delete a policy. Tokens that name it lose what it granted, at once.", remove),
		conclave.ReadRoute(conclave.Read, "policy", "List the names of all policies, in the oldest form.", listOld),
		conclave.ReadRoute(conclave.List, "policy", "List the names of all policies, in the oldest form.", listOld),
		conclave.ReadRoute(conclave.Read, "policy/{name}", "Read a policy's text, in the oldest form.", readOld),
		conclave.WriteRoute(conclave.Update, "policy/{name}", "Create or replace a policy, in the oldest form.", write),
		conclave.WriteRoute(conclave.Delete, "policy/{name}", "Delete a policy, in the oldest form.", remove),
	}
}

type pageInput struct {
	After string `json:"after" doc:"List the names after this one."`
	Limit int    `json:"limit" doc:"List at most this many names; 0 means all."`
}

type nameInput struct {
	Name string `path:"name" doc:"The policy's name; upper case is taken as lower case."`
}

type textOutput struct {
	Name   string `json:"name" doc:"The policy's name."`
	Policy string `json:"policy" doc:"The policy's text as it was written."`
}

type oldTextOutput struct {
	Name  string `json:"name" doc:"The policy's name."`
	Rules string `json:"rules" doc:"The policy's text as it was written."`
}

type oldListOutput struct {
	Keys     []string `json:"keys" doc:"The names of all policies."`
	Policies []string `json:"policies" doc:"The same."`
}

type writeInput struct {
	Name   string `path:"name" doc:"The policy's name; upper case is taken as lower case."`
	Policy string `json:"policy" doc:"The text, HCL or JSON, plain or in base64."`
	Rules  string `json:"rules" doc:"An old name of policy."`
}

// Names lists the names of all policies, those that are always there too, sorted. The list is the caller's.
func Names(view conclave.View) ([]string, error) {
	list, err := view.List(folder, "", 0)
	if err != nil {
		return nil, err
	}
	list = append(slices.Clone(list), Default, Root)
	slices.Sort(list)
	return slices.Compact(list), nil
}

func listACL(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	list, err := Names(view)
	if err != nil {
		return nil, err
	}
	if in.After != "" {
		from, found := slices.BinarySearch(list, in.After)
		if found {
			from++
		}
		list = list[from:]
	}
	if in.Limit > 0 && len(list) > in.Limit {
		list = list[:in.Limit]
	}
	return &conclave.Keys{Keys: list}, nil
}

func listOld(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Response, error) {
	list, err := Names(view)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Data: oldListOutput{list, list}, TopLevel: true}, nil
}

// find returns a policy that exists, or NotFound.
func find(view conclave.View, name string) (*Policy, error) {
	p, err := Load(view, name)
	if err == nil && p == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	return p, err
}

func readACL(_ context.Context, view conclave.View, in *nameInput) (*textOutput, error) {
	p, err := find(view, in.Name)
	if err != nil {
		return nil, err
	}
	return &textOutput{p.Name, p.Source}, nil
}

func readOld(_ context.Context, view conclave.View, in *nameInput) (*conclave.Response, error) {
	p, err := find(view, in.Name)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Data: oldTextOutput{p.Name, p.Source}, TopLevel: true}, nil
}

func write(_ context.Context, tx conclave.Tx, in *writeInput) (*conclave.None, error) {
	source := in.Policy
	if source == "" {
		source = in.Rules
	}
	if strings.TrimSpace(source) == "" {
		return nil, conclave.Errorf(conclave.Invalid, "'policy' parameter not supplied or empty")
	}
	if plain, err := base64.StdEncoding.DecodeString(source); err == nil {
		source = string(plain)
	}
	if NormalName(in.Name) == Wrapping {
		return nil, conclave.Errorf(conclave.Invalid, "cannot update %q policy", Wrapping)
	}
	p, err := Parse(in.Name, source)
	if err != nil {
		return nil, err
	}
	return nil, Store(tx, p)
}

func remove(_ context.Context, tx conclave.Tx, in *nameInput) (*conclave.None, error) {
	name := NormalName(in.Name)
	if err := checkName(name); err != nil {
		return nil, err
	}
	if name == Root || name == Default || name == Wrapping {
		return nil, conclave.Errorf(conclave.Invalid, "cannot delete %q policy", name)
	}
	return nil, tx.Delete(pathOf(name))
}
