package policy

import (
	"context"
	"slices"

	"conclave"
)

// Routes are those below sys/ that manage policies.
func Routes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "policies/acl", "List the names of all policies.", listACL),
		conclave.ReadRoute(conclave.Read, "policies/acl/{name}", "Read a policy's text.", readACL),
		conclave.WriteRoute(conclave.Update, "policies/acl/{name}", "Create or replace a policy. The text is HCL or JSON, plain or in base64.\n\n"+
			"It holds for every request that begins after the answer, on every node.", write),
		conclave.WriteRoute(conclave.Patch, "policies/acl/{name}", "Change what is given of a policy that exists, and keep the rest.", patch),
		conclave.ReadRoute(conclave.List, "policies/detailed/acl", "List the policies with their texts and versions, at most 1,000 at once.", listDetailed),
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

// textOutput is exactly Vault's, but for policies that expire or demand their version.
type textOutput struct {
	Name   string `json:"name" doc:"The policy's name."`
	Policy string `json:"policy" doc:"The policy's text as it was written."`
	*details
}

type details struct {
	Version     int64  `json:"version" doc:"How often it was written; told if it expires or writes must name it."`
	Modified    string `json:"modified,omitempty" doc:"When it was written last."`
	Expiration  string `json:"expiration,omitempty" doc:"From then on there is no such policy."`
	CASRequired bool   `json:"cas_required" doc:"Writes must name the version that they replace."`
}

type detailedOutput struct {
	Name   string `json:"name" doc:"The policy's name."`
	Policy string `json:"policy" doc:"The policy's text as it was written."`
	details
}

type oldTextOutput struct {
	Name  string `json:"name" doc:"The policy's name."`
	Rules string `json:"rules" doc:"The policy's text as it was written."`
}

type oldListOutput struct {
	Keys     []string `json:"keys" doc:"The names of all policies."`
	Policies []string `json:"policies" doc:"The same."`
}

// Names lists the names of all policies, those that are always there too, sorted. The list is the caller's.
func Names(view conclave.View) ([]string, error) {
	list, err := view.List(folder, "", 0)
	if err != nil {
		return nil, err
	}
	gone, err := expired(view, 0)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(slices.Clone(list), func(name string) bool { return slices.Contains(gone, name) })
	list = append(list, Default, Root)
	slices.Sort(list)
	return slices.Compact(list), nil
}

func listACL(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	list, err := in.page(view)
	return &conclave.Keys{Keys: list}, err
}

func (in *pageInput) page(view conclave.View) ([]string, error) {
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
	return list, nil
}

// maxDetailed bounds the policies of one detailed listing.
const maxDetailed = 1000

func listDetailed(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	page := *in
	if page.Limit <= 0 || page.Limit > maxDetailed {
		page.Limit = maxDetailed
	}
	list, err := page.page(view)
	if err != nil {
		return nil, err
	}
	details := make(map[string]any, len(list))
	for _, name := range list {
		p, err := Load(view, name)
		if err != nil {
			return nil, err
		}
		if p != nil {
			details[name] = p.describe()
		}
	}
	return &conclave.Keys{Keys: list, KeyInfo: details}, nil
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
	out := &textOutput{Name: p.Name, Policy: p.Source}
	if p.CASRequired || !p.Expires.IsZero() {
		out.details = &p.describe().details
	}
	return out, nil
}

func readOld(_ context.Context, view conclave.View, in *nameInput) (*conclave.Response, error) {
	p, err := find(view, in.Name)
	if err != nil {
		return nil, err
	}
	return &conclave.Response{Data: oldTextOutput{p.Name, p.Source}, TopLevel: true}, nil
}
