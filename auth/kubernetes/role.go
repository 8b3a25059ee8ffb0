package kubernetes

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"conclave"
)

// Sources of an alias's name.
const (
	aliasUID  = "serviceaccount_uid"
	aliasName = "serviceaccount_name"
)

// role says which service accounts get in, and on which terms. It is stored below "role/" as JSON.
type role struct {
	conclave.TokenTerms
	Names      []string `json:"bound_service_account_names" doc:"Names of service accounts; a star stands for any text."`
	Namespaces []string `json:"bound_service_account_namespaces" doc:"Their namespaces; a star stands for any text."`
	Selector   string   `json:"bound_service_account_namespace_selector" doc:"Labels that an account's namespace may have instead of being listed: a label selector in JSON or YAML, with matchLabels only."`
	Audience   string   `json:"audience" doc:"What the claim aud must hold. Without it the API server must agree with an audience of the token's own."`
	AliasFrom  string   `json:"alias_name_source" doc:"What names an account to the vault: serviceaccount_uid (the default) or serviceaccount_name, which another account of that name gets as well."`
}

// oldNames are fields that clients of older versions send: old name → name.
var oldNames = map[string]string{"policies": "token_policies", "num_uses": "token_num_uses", "ttl": "token_ttl", "max_ttl": "token_max_ttl",
	"period": "token_period", "bound_cidrs": "token_bound_cidrs"}

// roleName brings a role's name into its one spelling.
func roleName(name string) (string, error) {
	name = strings.ToLower(name)
	isWord := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' }
	if name == "" || len(name) > maxRoleName || !isWord(name[0]) || !isWord(name[len(name)-1]) {
		return "", conclave.Errorf(conclave.Invalid, "invalid role name")
	}
	for _, c := range []byte(name) {
		if !isWord(c) && c != '-' && c != '.' {
			return "", conclave.Errorf(conclave.Invalid, "invalid role name")
		}
	}
	return name, nil
}

// loadRole returns a role, which is shared and must not be changed; nil if there is none. The name is in its one spelling.
func loadRole(view conclave.View, name string) (*role, error) {
	loaded, err := view.Load(roleDir+name, decodeRole)
	if loaded == nil || err != nil {
		return nil, err
	}
	return loaded.(*role), nil
}

func decodeRole(value []byte) (any, error) {
	r := &role{}
	if err := json.Unmarshal(value, r); err != nil {
		return nil, conclave.Errorf(conclave.Internal, "the role can't be decoded")
	}
	return r, nil
}

const roleListDoc = `List the roles.`

type listIn struct {
	After string `json:"after" doc:"Begin after this name."`
	Limit int    `json:"limit" doc:"How many names to answer; 0 is all."`
}

func listRoles(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
	names, err := view.List(roleDir, in.After, in.Limit)
	return &conclave.Keys{Keys: names}, err
}

type roleIn struct {
	Name string `path:"name" doc:"The role's name. Case doesn't matter."`
}

const roleReadDoc = `Read a role.`

func readRole(_ context.Context, view conclave.View, in *roleIn) (*role, error) {
	name, err := roleName(in.Name)
	if err != nil {
		return nil, &conclave.Error{Kind: conclave.NotFound}
	}
	found, err := loadRole(view, name)
	if err == nil && found == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	return found, err
}

const roleDeleteDoc = `Delete a role. Tokens that were given stay, but can't be renewed.`

func deleteRole(_ context.Context, tx conclave.Tx, in *roleIn) (*conclave.None, error) {
	name, err := roleName(in.Name)
	if err != nil {
		return nil, err
	}
	return nil, tx.Delete(roleDir + name)
}

const roleWriteDoc = `Make or change a role. What isn't given stays as it is.`

type roleWriteIn struct {
	roleIn
	role
	Fields map[string]any `json:"*"`
}

func roleExists(view conclave.View, input any) (bool, error) {
	name, err := roleName(input.(*roleWriteIn).Name)
	if err != nil {
		return false, err
	}
	found, err := loadRole(view, name)
	return found != nil, err
}

func writeRole(_ context.Context, tx conclave.Tx, in *roleWriteIn) (*conclave.None, error) {
	name, err := roleName(in.Name)
	if err != nil {
		return nil, err
	}
	var written role
	old, err := loadRole(tx, name)
	if err != nil {
		return nil, err
	}
	if old != nil {
		written = *old
	}
	fields := maps.Clone(in.Fields)
	for before, now := range oldNames {
		if value, given := fields[before]; given {
			if _, both := fields[now]; !both {
				fields[now] = value
			}
		}
	}
	if err := conclave.Merge(&written, fields); err != nil {
		return nil, err
	}
	if err := written.check(); err != nil {
		return nil, err
	}
	value, err := json.Marshal(written)
	if err != nil || len(value) > maxRole {
		return nil, conclave.Errorf(conclave.Invalid, "the role is too large")
	}
	return nil, tx.Put(roleDir+name, value)
}

// check holds a role against the rules and makes what clients may leave out explicit.
func (r *role) check() error {
	if err := r.TokenTerms.Check(); err != nil {
		return err
	}
	for _, list := range []*[]string{&r.BoundCIDRs, &r.Names, &r.Namespaces} {
		if *list == nil {
			*list = []string{} // answered as an empty list
		}
	}
	if r.AliasFrom == "" {
		r.AliasFrom = aliasUID
	}
	switch {
	case len(r.Names) == 0:
		return conclave.Errorf(conclave.Invalid, `"bound_service_account_names" can not be empty`)
	case len(r.Namespaces) == 0 && r.Selector == "":
		return conclave.Errorf(conclave.Invalid, `"bound_service_account_namespaces" can not be empty if "bound_service_account_namespace_selector" is not set`)
	case len(r.Names) > 1 && slices.Contains(r.Names, "*"), len(r.Namespaces) > 1 && slices.Contains(r.Namespaces, "*"):
		return conclave.Errorf(conclave.Invalid, `can not mix "*" with values`)
	case r.AliasFrom != aliasUID && r.AliasFrom != aliasName:
		return conclave.Errorf(conclave.Invalid, "invalid alias_name_source %q", r.AliasFrom)
	}
	if r.Selector != "" {
		_, err := parseSelector(r.Selector)
		return err
	}
	return nil
}

var errSelector = conclave.Errorf(conclave.Invalid, `invalid "bound_service_account_namespace_selector" configured`)

// parseSelector reads a label selector and returns the labels that it wants: name → value, at least one.
func parseSelector(text string) (map[string]string, error) {
	if len(text) > maxSelector {
		return nil, errSelector
	}
	var selector struct {
		MatchLabels map[string]string `json:"matchLabels"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &selector); err != nil || len(selector.MatchLabels) == 0 {
		return nil, errSelector
	}
	return selector.MatchLabels, nil
}
