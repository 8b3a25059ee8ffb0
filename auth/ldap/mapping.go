package ldap

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"conclave"
)

// mapping is what a user or a group gets, stored as JSON at "users/NAME" or "groups/NAME".
type mapping struct {
	Groups   []string `json:"groups"`
	Policies []string `json:"policies"`
}

type userIn struct {
	Name     string         `path:"name" doc:"The user's name."`
	Groups   []string       `json:"groups" doc:"Groups that the user is in, beside those of the directory."`
	Policies []string       `json:"policies" doc:"Policies of the user's tokens."`
	Fields   map[string]any `json:"*"`
}

type userOut struct {
	Groups   string   `json:"groups" doc:"Groups, separated by commas."`
	Policies []string `json:"policies" doc:"Policies of the user's tokens."`
}

type groupIn struct {
	Name     string         `path:"name" doc:"The group's name."`
	Policies []string       `json:"policies" doc:"Policies of the tokens of the group's members."`
	Fields   map[string]any `json:"*"`
}

type groupOut struct {
	Policies []string `json:"policies" doc:"Policies of the tokens of the group's members."`
}

type nameIn struct {
	Name string `path:"name" doc:"The name."`
}

// pathOf is where something is stored under a name, in the name's one spelling.
func pathOf(view conclave.View, dir, name string) (string, error) {
	caseCounts, err := doesCaseCount(view)
	if err != nil {
		return "", err
	}
	name, ok := spelling(name, caseCounts)
	if !ok || strings.Contains(name, "/") {
		return "", conclave.Errorf(conclave.Invalid, "a name has 1 to %d bytes, no slash and nothing that can't be seen", maxName)
	}
	return dir + name, nil
}

func doesCaseCount(view conclave.View) (bool, error) {
	c, err := loadConfig(view)
	return c != nil && c.CaseSensitiveNames, err
}

func loadMapping(view conclave.View, path string) (*mapping, error) {
	found, err := view.Load(path, func(value []byte) (any, error) {
		m := &mapping{}
		return m, json.Unmarshal(value, m)
	})
	if err != nil || found == nil {
		return nil, err
	}
	return found.(*mapping), nil
}

func writeUser(_ context.Context, tx conclave.Tx, in *userIn) (*conclave.None, error) {
	return nil, write(tx, "users/", in.Name, in.Fields)
}

func writeGroup(_ context.Context, tx conclave.Tx, in *groupIn) (*conclave.None, error) {
	return nil, write(tx, "groups/", in.Name, map[string]any{"policies": in.Fields["policies"]})
}

func write(tx conclave.Tx, dir, name string, fields map[string]any) error {
	path, err := pathOf(tx, dir, name)
	if err != nil {
		return err
	}
	m := mapping{}
	stored, err := loadMapping(tx, path)
	if err != nil {
		return err
	}
	if stored != nil {
		m = *stored
	}
	if err := conclave.Merge(&m, fields); err != nil {
		return err
	}
	caseCounts, err := doesCaseCount(tx)
	if err != nil {
		return err
	}
	if err := m.check(caseCounts); err != nil {
		return err
	}
	value, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return tx.Put(path, value)
}

// check brings names into their one spelling.
func (m *mapping) check(caseCounts bool) error {
	terms := conclave.TokenTerms{Policies: m.Policies} // policies follow the rules of all terms
	if err := terms.Check(); err != nil {
		return err
	}
	if len(m.Groups) > maxList {
		return conclave.Errorf(conclave.Invalid, "at most %d groups", maxList)
	}
	groups := make([]string, 0, len(m.Groups))
	for _, group := range m.Groups {
		name, ok := spelling(group, caseCounts)
		if !ok || strings.ContainsAny(name, ",/") {
			return conclave.Errorf(conclave.Invalid, "a group's name has 1 to %d bytes, no comma, no slash and nothing that can't be seen", maxName)
		}
		groups = append(groups, name)
	}
	m.Groups, m.Policies = groups, terms.Policies
	return nil
}

func read(view conclave.View, dir, name string) (*mapping, error) {
	path, err := pathOf(view, dir, name)
	if err != nil {
		return nil, err
	}
	m, err := loadMapping(view, path)
	if err == nil && m == nil {
		err = &conclave.Error{Kind: conclave.NotFound}
	}
	return m, err
}

func readUser(_ context.Context, view conclave.View, in *nameIn) (*userOut, error) {
	m, err := read(view, "users/", in.Name)
	if err != nil {
		return nil, err
	}
	return &userOut{Groups: strings.Join(m.Groups, ","), Policies: m.Policies}, nil
}

func readGroup(_ context.Context, view conclave.View, in *nameIn) (*groupOut, error) {
	m, err := read(view, "groups/", in.Name)
	if err != nil {
		return nil, err
	}
	return &groupOut{Policies: m.Policies}, nil
}

func remove(dir string) func(context.Context, conclave.Tx, *nameIn) (*conclave.None, error) {
	return func(_ context.Context, tx conclave.Tx, in *nameIn) (*conclave.None, error) {
		path, err := pathOf(tx, dir, in.Name)
		if err != nil {
			return nil, err
		}
		return nil, tx.Delete(path)
	}
}

type listIn struct {
	After string `json:"after" doc:"Return only names after this one."`
	Limit int    `json:"limit" doc:"Return at most so many names; 0 for all."`
}

func listNames(dir string) func(context.Context, conclave.View, *listIn) (*conclave.Keys, error) {
	return func(_ context.Context, view conclave.View, in *listIn) (*conclave.Keys, error) {
		names, err := view.List(dir, in.After, in.Limit)
		return &conclave.Keys{Keys: names}, err
	}
}

// granted are the policies of a user and the user's groups, those that a user is given here included.
func granted(view conclave.View, name string, groups []string) (policies, all []string, err error) {
	all = slices.Clone(groups)
	if !strings.Contains(name, "/") {
		m, err := loadMapping(view, "users/"+name)
		if err != nil {
			return nil, nil, err
		}
		if m != nil {
			policies, all = append(policies, m.Policies...), append(all, m.Groups...)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for _, group := range all {
		if strings.Contains(group, "/") {
			continue // nothing can be stored for it
		}
		m, err := loadMapping(view, "groups/"+group)
		if err != nil {
			return nil, nil, err
		}
		if m != nil {
			policies = append(policies, m.Policies...)
		}
	}
	slices.Sort(policies)
	return slices.Compact(policies), all, nil
}
