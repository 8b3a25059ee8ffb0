package identity

import (
	"context"

	"conclave"
)

func (s Setup) groupRoutes() []conclave.Route {
	const doc = "\n\nCase doesn't matter in names. What is not given stays as it is; members that are given replace those that there are."
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "group", "Make a group, or change the one with the given id or name."+doc, s.writeGroup).With(s.minting),
		conclave.ReadRoute(conclave.List, "group/id", "List the ids of all groups. Details come with at most 1,000.", s.listGroups),
		conclave.ReadRoute(conclave.Read, "group/id/{id}", "Read a group.", s.readGroup),
		conclave.WriteRoute(conclave.Update, "group/id/{id}", "Change a group."+doc, s.changeGroup),
		conclave.WriteRoute(conclave.Delete, "group/id/{id}", "Delete a group. Its members lose its policies at once.", s.deleteGroup),
		conclave.ReadRoute(conclave.List, "group/name", "List the names of all groups.", s.listGroupNames),
		conclave.ReadRoute(conclave.Read, "group/name/{name...}", "Read a group by its name.", s.readGroupByName),
		conclave.WriteRoute(conclave.Update, "group/name/{name...}", "Make a group, or change the one of this name."+doc, s.writeGroupByName).With(s.minting),
		conclave.WriteRoute(conclave.Delete, "group/name/{name...}", "Delete a group by its name.", s.deleteGroupByName),
	}
}

// groupFields are what can be said about a group.
type groupFields struct {
	Type      string             `json:"type" doc:"internal or external; can't be changed."`
	Policies  *[]string          `json:"policies" doc:"What it gives to its members."`
	Metadata  *map[string]string `json:"metadata" doc:"Metadata for templates; replaces what there is."`
	Subgroups *[]string          `json:"member_group_ids" doc:"The groups that are members of an internal group, at most 1,000."`
	Members   *[]string          `json:"member_entity_ids" doc:"The entities that are members of an internal group, at most 10,000."`
}

type groupInput struct {
	groupFields
	ID   string `json:"id" doc:"The group to change."`
	Name string `json:"name" doc:"Its name; one is made up for a new group if it is not given."`
}

type groupIDInput struct {
	groupFields
	ID   string `path:"id" doc:"The group's id."`
	Name string `json:"name" doc:"A new name."`
}

type groupNameInput struct {
	groupFields
	Name string `path:"name" doc:"The group's name."`
}

type createdGroup struct {
	ID   string `json:"id" doc:"The group's id."`
	Name string `json:"name" doc:"The group's name."`
}

const groupNames = "group/name/"

// groupByName is entityByName for groups.
func (s Setup) groupByName(view conclave.View, op conclave.Operation, given string) (*group, string, error) {
	name, err := spellPath("a group", given)
	if err != nil {
		return nil, "", err
	}
	found, err := byName(view, groupNameDir, name)
	if err != nil || found == nil {
		return nil, name, err
	}
	if err := s.checkPath(view, op, groupNames, given, found.Name); err != nil {
		return nil, "", err
	}
	g, err := loadGroup(view, found.ID)
	return g, name, err
}

func (s Setup) writeGroup(ctx context.Context, tx conclave.Tx, in *groupInput) (*createdGroup, error) {
	if in.ID != "" {
		g, err := loadGroup(tx, in.ID)
		if err != nil {
			return nil, err
		}
		if g == nil {
			return nil, conclave.Errorf(conclave.Invalid, "invalid group ID")
		}
		return nil, putGroup(tx, g.clone(), in.Name, &in.groupFields)
	}
	if in.Name != "" {
		name, err := spellPath("a group", in.Name)
		if err != nil {
			return nil, err
		}
		found, err := byName(tx, groupNameDir, name)
		if err != nil {
			return nil, err
		}
		if found != nil {
			g, err := loadGroup(tx, found.ID)
			if err != nil || g == nil {
				return nil, orDamaged(err, "a group's name")
			}
			return nil, putGroup(tx, g.clone(), name, &in.groupFields)
		}
	}
	return createGroup(ctx, tx, in.Name, &in.groupFields)
}

func createGroup(ctx context.Context, tx conclave.Tx, name string, fields *groupFields) (*createdGroup, error) {
	ids, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	g := &group{id: ids.Owner, Created: tx.Now().UnixNano(), External: fields.Type == externalGroup}
	if name == "" {
		if name, err = invent(tx, groupNameDir, "group", g.id); err != nil {
			return nil, err
		}
	}
	if err := putGroup(tx, g, name, fields); err != nil {
		return nil, err
	}
	return &createdGroup{g.id, g.Name}, nil
}

// putGroup stores a group with what is said about it; an empty name leaves it its own.
func putGroup(tx conclave.Tx, g *group, name string, fields *groupFields) error {
	switch {
	case fields.Type != "" && fields.Type != internalGroup && fields.Type != externalGroup:
		return conclave.Errorf(conclave.Invalid, "invalid group type %q", clip(fields.Type))
	case fields.Type != "" && fields.Type != g.kind():
		return conclave.Errorf(conclave.Invalid, "group type cannot be changed")
	case g.External && fields.Members != nil && len(*fields.Members) > 0:
		return conclave.Errorf(conclave.Invalid, "member entities can't be set manually for external groups")
	case g.External && fields.Subgroups != nil && len(*fields.Subgroups) > 0:
		return conclave.Errorf(conclave.Invalid, "member groups can't be set for external groups")
	}
	if name != "" {
		name, err := spellPath("a group", name)
		if err != nil {
			return err
		}
		taken, err := byName(tx, groupNameDir, name)
		if err != nil {
			return err
		}
		if taken != nil && taken.ID != g.id {
			return conclave.Errorf(conclave.Invalid, "group name is already in use")
		}
		if err := rename(tx, groupNameDir, g.id, g.Name, name); err != nil {
			return err
		}
		g.Name = name
	}
	if fields.Policies != nil {
		policies, err := normalPolicies(*fields.Policies)
		if err != nil {
			return err
		}
		g.Policies = policies
	}
	if fields.Metadata != nil {
		if err := checkMetadata(*fields.Metadata); err != nil {
			return err
		}
		g.Metadata = *fields.Metadata
	}
	g.Updated = tx.Now().UnixNano()
	if err := g.save(tx); err != nil {
		return err
	}
	return putMembers(tx, g, fields)
}

func putMembers(tx conclave.Tx, g *group, fields *groupFields) error {
	if g.External {
		return nil // its members are those whom the auth method reports
	}
	if fields.Members != nil {
		if err := setMembers(tx, g, *fields.Members); err != nil {
			return err
		}
	}
	if fields.Subgroups != nil {
		return setSubgroups(tx, g, *fields.Subgroups)
	}
	return nil
}

func (s Setup) changeGroup(ctx context.Context, tx conclave.Tx, in *groupIDInput) (*createdGroup, error) {
	return s.writeGroup(ctx, tx, &groupInput{in.groupFields, in.ID, in.Name})
}

func (s Setup) writeGroupByName(ctx context.Context, tx conclave.Tx, in *groupNameInput) (*createdGroup, error) {
	g, name, err := s.groupByName(tx, conclave.Update, in.Name)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return createGroup(ctx, tx, name, &in.groupFields)
	}
	return nil, putGroup(tx, g.clone(), name, &in.groupFields)
}

func (s Setup) readGroup(_ context.Context, view conclave.View, in *idInput) (*groupOutput, error) {
	g, err := loadGroup(view, in.ID)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, notFound()
	}
	return s.seeing(view).group(g)
}

func (s Setup) readGroupByName(_ context.Context, view conclave.View, in *nameInput) (*groupOutput, error) {
	g, _, err := s.groupByName(view, conclave.Read, in.Name)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, notFound()
	}
	return s.seeing(view).group(g)
}

func (s Setup) deleteGroup(_ context.Context, tx conclave.Tx, in *idInput) (*conclave.None, error) {
	g, err := loadGroup(tx, in.ID)
	if err != nil || g == nil {
		return nil, err
	}
	return nil, dropGroup(tx, g)
}

func (s Setup) deleteGroupByName(_ context.Context, tx conclave.Tx, in *nameInput) (*conclave.None, error) {
	g, _, err := s.groupByName(tx, conclave.Delete, in.Name)
	if err != nil || g == nil {
		return nil, err
	}
	return nil, dropGroup(tx, g)
}

// dropGroup removes a group and its place among the others. Members that are left over count for nothing.
func dropGroup(tx conclave.Tx, g *group) error {
	subgroups, err := subgroupsOf(tx, g.id)
	if err != nil {
		return err
	}
	for _, id := range subgroups {
		if err := unnest(tx, g.id, id); err != nil {
			return err
		}
	}
	for _, id := range g.Parents {
		if err := tx.Delete(subgroupDir + id + "/" + g.id); err != nil {
			return err
		}
	}
	if g.Alias != nil {
		if err := g.Alias.unindexGroup(tx); err != nil {
			return err
		}
	}
	if err := tx.Delete(groupNameDir + segment(keyOf(g.Name))); err != nil {
		return err
	}
	if err := tx.Delete(groupDir + g.id); err != nil {
		return err
	}
	_, all, err := clearMembers(tx, g.id, clearedAtOnce)
	if err != nil || all {
		return err
	}
	return tx.Put(deadDir+g.id, mark())
}

func (s Setup) listGroups(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	ids, err := view.List(groupDir, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	info, err := s.groupInfos(view, ids)
	return &conclave.Keys{Keys: ids, KeyInfo: info}, err
}

func (s Setup) listGroupNames(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	keys, ids, err := names(view, groupNameDir, in)
	if err != nil {
		return nil, err
	}
	info, err := s.groupInfos(view, ids)
	return &conclave.Keys{Keys: keys, KeyInfo: info}, err
}

func (s Setup) groupInfos(view conclave.View, ids []string) (map[string]any, error) {
	see := s.seeing(view)
	return details(ids, func(id string) (map[string]any, error) {
		g, err := loadGroup(view, id)
		if err != nil || g == nil {
			return nil, err
		}
		return see.groupInfo(g)
	})
}
