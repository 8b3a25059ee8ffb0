package mfa

import (
	"context"
	"slices"

	"conclave"
)

func (s *Setup) enforcementRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "mfa/login-enforcement", "List the enforcements.", s.listEnforcements),
		conclave.ReadRoute(conclave.Read, "mfa/login-enforcement/{name}", "Read an enforcement.", s.readEnforcement),
		conclave.WriteRoute(conclave.Update, "mfa/login-enforcement/{name}", "Say whose logins need one of some methods: those through a mount, "+
			"through mounts of a kind, of members of a group, of an entity.", s.writeEnforcement).With(s.minting),
		conclave.WriteRoute(conclave.Delete, "mfa/login-enforcement/{name}", "Delete an enforcement.", s.deleteEnforcement),
	}
}

type enforcementInput struct {
	Name      string    `path:"name" doc:"The name."`
	Methods   []string  `json:"mfa_method_ids" doc:"Methods of which any one is enough."`
	Accessors *[]string `json:"auth_method_accessors" doc:"Accessors of auth methods."`
	Kinds     *[]string `json:"auth_method_types" doc:"Kinds of auth methods."`
	Groups    *[]string `json:"identity_group_ids" doc:"Groups; members of groups in them count."`
	Entities  *[]string `json:"identity_entity_ids" doc:"Entities."`
}

type enforcementName struct {
	Name string `path:"name" doc:"The name."`
}

type enforcementOutput struct {
	Accessors     []string `json:"auth_method_accessors" doc:"Accessors of auth methods."`
	Kinds         []string `json:"auth_method_types" doc:"Kinds of auth methods."`
	ID            string   `json:"id" doc:"Names the enforcement for ever."`
	Entities      []string `json:"identity_entity_ids" doc:"Entities."`
	Groups        []string `json:"identity_group_ids" doc:"Groups."`
	Methods       []string `json:"mfa_method_ids" doc:"Methods of which any one is enough."`
	Name          string   `json:"name" doc:"The name."`
	NamespaceID   string   `json:"namespace_id" doc:"The namespace; root for the root namespace."`
	NamespacePath string   `json:"namespace_path" doc:"The path of that."`
}

func (e *enforcement) describe(at conclave.Namespace) *enforcementOutput {
	list := func(l []string) []string { return append([]string{}, l...) }
	return &enforcementOutput{list(e.Accessors), list(e.Kinds), e.ID, list(e.Entities), list(e.Groups), list(e.Methods), e.Name, at.ID, at.Path}
}

func (s *Setup) listEnforcements(_ context.Context, view conclave.View, _ *conclave.None) (*conclave.Keys, error) {
	c, err := load(view)
	if err != nil {
		return nil, err
	}
	keys := &conclave.Keys{KeyInfo: map[string]any{}}
	for _, e := range c.Enforcements {
		keys.Keys, keys.KeyInfo[e.Name] = append(keys.Keys, e.Name), e.describe(view.Namespace())
	}
	return keys, nil
}

func (s *Setup) readEnforcement(_ context.Context, view conclave.View, in *enforcementName) (*enforcementOutput, error) {
	c, err := load(view)
	if err != nil {
		return nil, err
	}
	e := c.enforcement(in.Name)
	if e == nil {
		return nil, notFound()
	}
	return e.describe(view.Namespace()), nil
}

// writeEnforcement makes an enforcement or changes one: a list that isn't given stays.
func (s *Setup) writeEnforcement(ctx context.Context, tx conclave.Tx, in *enforcementInput) (*conclave.None, error) {
	id, err := minted(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkName("an enforcement's name", in.Name); err != nil {
		return nil, err
	}
	c, err := load(tx)
	if err != nil {
		return nil, err
	}
	e := &enforcement{ID: id, Name: in.Name}
	if old := c.enforcement(in.Name); old != nil {
		*e = *old
	}
	if len(in.Methods) == 0 {
		return nil, conclave.Errorf(conclave.Invalid, "missing method ids")
	}
	for _, l := range []struct {
		from *[]string
		into *[]string
	}{{&in.Methods, &e.Methods}, {in.Accessors, &e.Accessors}, {in.Kinds, &e.Kinds}, {in.Groups, &e.Groups}, {in.Entities, &e.Entities}} {
		if l.from == nil {
			continue
		}
		if *l.into, err = once(*l.from); err != nil {
			return nil, err
		}
	}
	if err := s.checkEnforcement(tx, c, in); err != nil {
		return nil, err
	}
	return nil, c.putEnforcement(tx, e)
}

// once is a list without what is there twice; it holds it against the limits.
func once(list []string) ([]string, error) {
	if len(list) > maxList {
		return nil, conclave.Errorf(conclave.Invalid, "a list of an enforcement has at most %d entries", maxList)
	}
	var kept []string
	for _, text := range list {
		if len(text) > maxText {
			return nil, conclave.Errorf(conclave.Invalid, "an id has at most %d bytes", maxText)
		}
		if !slices.Contains(kept, text) {
			kept = append(kept, text)
		}
	}
	return kept, nil
}

// checkEnforcement refuses an enforcement of what isn't there: one that is misspelled would protect nothing. What an earlier
// one has named may be gone since.
func (s *Setup) checkEnforcement(view conclave.View, c *config, in *enforcementInput) error {
	if in.Accessors == nil && in.Kinds == nil && in.Groups == nil && in.Entities == nil {
		return conclave.Errorf(conclave.Invalid, "One of auth_method_accessors, auth_method_types, identity_group_ids, identity_entity_ids must be specified")
	}
	for _, id := range in.Methods {
		if c.method(id) == nil {
			return conclave.Errorf(conclave.Invalid, "one of the provided method ids doesn't exist")
		}
	}
	for _, named := range []struct {
		list   *[]string
		exists func(id string) (bool, error)
		wrong  string
	}{
		{in.Accessors, func(id string) (bool, error) { return s.Directory.AuthMount(view, id, "") }, "one of the auth method accessors provided is invalid"},
		{in.Kinds, func(id string) (bool, error) { return s.Directory.AuthMount(view, "", id) }, "one of the auth method types provided is invalid"},
		{in.Groups, func(id string) (bool, error) { return s.Directory.Group(view, id) }, "one of the provided group ids doesn't exist"},
		{in.Entities, func(id string) (bool, error) { return s.Directory.Entity(view, id) }, "one of the provided entity ids doesn't exist"},
	} {
		if named.list == nil {
			continue
		}
		for _, id := range *named.list {
			there, err := named.exists(id)
			if err != nil {
				return err
			}
			if !there || id == "" {
				return conclave.Errorf(conclave.Invalid, "%s", named.wrong)
			}
		}
	}
	return nil
}

func (c *config) putEnforcement(tx conclave.Tx, e *enforcement) error {
	changed := c.clone()
	at := slices.IndexFunc(c.Enforcements, func(old *enforcement) bool { return old.Name == e.Name })
	switch {
	case at >= 0:
		changed.Enforcements[at] = e
	case len(c.Enforcements) >= MaxEnforcements:
		return conclave.Errorf(conclave.Invalid, "a namespace has at most %d login enforcements", MaxEnforcements)
	default:
		changed.Enforcements = append(changed.Enforcements, e)
	}
	return changed.save(tx)
}

func (s *Setup) deleteEnforcement(_ context.Context, tx conclave.Tx, in *enforcementName) (*conclave.None, error) {
	c, err := load(tx)
	if err != nil || c.enforcement(in.Name) == nil {
		return nil, err
	}
	changed := c.clone()
	changed.Enforcements = slices.DeleteFunc(changed.Enforcements, func(e *enforcement) bool { return e.Name == in.Name })
	return nil, changed.save(tx)
}
