package identity

import (
	"context"

	"conclave"
)

func (s Setup) groupAliasRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "group-alias", "Make the alias of an external group, or change one. Without canonical_id a new alias gets a new group.", s.writeGroupAlias).With(s.minting),
		conclave.ReadRoute(conclave.List, "group-alias/id", "List the ids of all aliases of groups. Details come with at most 1,000.", s.listGroupAliases),
		conclave.ReadRoute(conclave.Read, "group-alias/id/{id}", "Read the alias of a group.", s.readGroupAlias),
		conclave.WriteRoute(conclave.Update, "group-alias/id/{id}", "Change the alias of a group. Members change at their next logins.", s.changeGroupAlias),
		conclave.WriteRoute(conclave.Delete, "group-alias/id/{id}", "Delete the alias of a group. Members change at their next logins.", s.deleteGroupAlias),
	}
}

// groupAliasFields are what can be said about the alias of a group.
type groupAliasFields struct {
	Name        string `json:"name" doc:"By which the auth method knows the group."`
	Accessor    string `json:"mount_accessor" doc:"The auth method's mount."`
	CanonicalID string `json:"canonical_id" doc:"The external group that it belongs to."`
}

type groupAliasInput struct {
	groupAliasFields
	ID string `json:"id" doc:"The alias to change."`
}

type groupAliasIDInput struct {
	groupAliasFields
	ID string `path:"id" doc:"The alias's id."`
}

// findGroupAlias returns the group that has an alias, nil if there is none.
func findGroupAlias(view conclave.View, id string) (*group, error) {
	if !isID(id) {
		return nil, nil
	}
	found, err := loadRef(view, groupAliasIDs+id)
	if err != nil || found == nil {
		return nil, err
	}
	g, err := loadGroup(view, found.ID)
	if err == nil && (g == nil || g.Alias == nil || g.Alias.ID != id) {
		return nil, errDamaged("a group's alias")
	}
	return g, err
}

func (s Setup) writeGroupAlias(ctx context.Context, tx conclave.Tx, in *groupAliasInput) (*writtenAlias, error) {
	if in.ID != "" {
		return s.alterGroupAlias(tx, in.ID, &in.groupAliasFields)
	}
	if err := s.checkGroupAlias(tx, "", &in.groupAliasFields); err != nil {
		return nil, err
	}
	ids, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	now := tx.Now().UnixNano()
	g := &group{id: ids.Owner, External: true, Created: now}
	if in.CanonicalID != "" {
		if g, err = externalGroupByID(tx, in.CanonicalID); err != nil {
			return nil, err
		}
	} else {
		if g.Name, err = invent(tx, groupNameDir, "group", g.id); err != nil {
			return nil, err
		}
		if err := rename(tx, groupNameDir, g.id, "", g.Name); err != nil {
			return nil, err
		}
	}
	a := &alias{ID: ids.Alias, Name: in.Name, Accessor: in.Accessor, Created: now, Updated: now}
	return giveAlias(tx, g, a)
}

// giveAlias makes an alias that of a group, in place of the one that it has.
func giveAlias(tx conclave.Tx, g *group, a *alias) (*writtenAlias, error) {
	if g.Alias != nil {
		if err := g.Alias.unindexGroup(tx); err != nil {
			return nil, err
		}
	}
	g.Alias, g.Updated = a, a.Updated
	if err := a.indexGroup(tx, g.id); err != nil {
		return nil, err
	}
	return &writtenAlias{g.id, a.ID}, g.save(tx)
}

// externalGroupByID returns a copy of the group that an alias is to belong to.
func externalGroupByID(view conclave.View, id string) (*group, error) {
	g, err := loadGroup(view, id)
	switch {
	case err != nil:
		return nil, err
	case g == nil:
		return nil, conclave.Errorf(conclave.Invalid, "invalid group ID given in 'canonical_id'")
	case !g.External:
		return nil, conclave.Errorf(conclave.Invalid, "alias can't be set on an internal group")
	}
	return g.clone(), nil
}

// checkGroupAlias holds what is given for an alias, which has the id if it is there already, against the rules, and brings
// the name into its one spelling.
func (s Setup) checkGroupAlias(tx conclave.Tx, id string, fields *groupAliasFields) error {
	switch {
	case fields.Name == "":
		return conclave.Errorf(conclave.Invalid, "missing alias name")
	case fields.Accessor == "":
		return conclave.Errorf(conclave.Invalid, "missing mount_accessor")
	}
	var err error
	if fields.Name, err = spell("an alias", fields.Name, MaxAliasName); err != nil {
		return err
	}
	local, err := s.checkMount(tx, fields.Accessor)
	if err != nil {
		return err
	}
	if local {
		return conclave.Errorf(conclave.Invalid, "mount accessor %q is a local mount", fields.Accessor)
	}
	taken, err := loadRef(tx, groupAliasDir+factors(fields.Accessor, fields.Name))
	if err != nil {
		return err
	}
	if taken != nil && taken.Alias != id {
		return conclave.Errorf(conclave.Invalid, "combination of mount and group alias name is already in use")
	}
	return nil
}

func (s Setup) changeGroupAlias(_ context.Context, tx conclave.Tx, in *groupAliasIDInput) (*writtenAlias, error) {
	return s.alterGroupAlias(tx, in.ID, &in.groupAliasFields)
}

// alterGroupAlias changes an alias: its name and mount, and whose it is. Without a change it answers nothing.
func (s Setup) alterGroupAlias(tx conclave.Tx, id string, fields *groupAliasFields) (*writtenAlias, error) {
	found, err := findGroupAlias(tx, id)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, conclave.Errorf(conclave.Invalid, "invalid group alias ID")
	}
	if err := s.checkGroupAlias(tx, id, fields); err != nil {
		return nil, err
	}
	from := found.clone()
	a := *from.Alias
	moves := fields.CanonicalID != "" && fields.CanonicalID != from.id
	if !moves && a.Name == fields.Name && a.Accessor == fields.Accessor {
		return nil, nil
	}
	if err := from.Alias.unindexGroup(tx); err != nil {
		return nil, err
	}
	a.Name, a.Accessor, a.Updated = fields.Name, fields.Accessor, tx.Now().UnixNano()
	from.Alias = nil
	if !moves {
		return giveAlias(tx, from, &a)
	}
	to, err := externalGroupByID(tx, fields.CanonicalID)
	if err != nil {
		return nil, err
	}
	from.Updated = a.Updated
	if err := from.save(tx); err != nil {
		return nil, err
	}
	return giveAlias(tx, to, &a)
}

func (s Setup) readGroupAlias(_ context.Context, view conclave.View, in *idInput) (*wholeAlias, error) {
	g, err := findGroupAlias(view, in.ID)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, notFound()
	}
	return s.seeing(view).wholeAlias(g.Alias, g.id)
}

func (s Setup) deleteGroupAlias(_ context.Context, tx conclave.Tx, in *idInput) (*conclave.None, error) {
	found, err := findGroupAlias(tx, in.ID)
	if err != nil || found == nil {
		return nil, err
	}
	if err := found.Alias.unindexGroup(tx); err != nil {
		return nil, err
	}
	g := found.clone()
	g.Alias, g.Updated = nil, tx.Now().UnixNano()
	return nil, g.save(tx)
}

func (s Setup) listGroupAliases(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	ids, err := view.List(groupAliasIDs, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	see := s.seeing(view)
	info, err := details(ids, func(id string) (map[string]any, error) {
		g, err := findGroupAlias(view, id)
		if err != nil || g == nil {
			return nil, err
		}
		return see.aliasInfo(g.Alias, g.id)
	})
	return &conclave.Keys{Keys: ids, KeyInfo: info}, err
}
