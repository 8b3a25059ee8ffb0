package identity

import (
	"context"
	"maps"
	"slices"

	"conclave"
)

func (s Setup) aliasRoutes() []conclave.Route {
	const doc = "An alias with the same mount and name is changed. Without canonical_id a new alias gets a new entity. An entity has at most one alias for a mount."
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "entity-alias", "Make an alias of an entity, or change one. "+doc, s.writeAlias).With(s.minting),
		conclave.ReadRoute(conclave.List, "entity-alias/id", "List the ids of all aliases of entities. Details come with at most 1,000.", s.listAliases),
		conclave.ReadRoute(conclave.Read, "entity-alias/id/{id}", "Read an alias of an entity.", s.readAlias),
		conclave.WriteRoute(conclave.Update, "entity-alias/id/{id}", "Change an alias of an entity. What is not given stays as it is.", s.changeAlias),
		conclave.WriteRoute(conclave.Delete, "entity-alias/id/{id}", "Delete an alias of an entity, which leaves the external groups of the mount.", s.deleteAlias),
	}
}

// aliasFields are what can be said about an alias of an entity.
type aliasFields struct {
	Name        string             `json:"name" doc:"By which the auth method knows the entity."`
	CanonicalID string             `json:"canonical_id" doc:"The entity that it belongs to."`
	EntityID    string             `json:"entity_id" doc:"An old name of canonical_id."`
	Accessor    string             `json:"mount_accessor" doc:"The auth method's mount."`
	Custom      *map[string]string `json:"custom_metadata" doc:"Metadata by people; replaces what there is."`
}

type aliasInput struct {
	aliasFields
	ID string `json:"id" doc:"The alias to change."`
}

type aliasIDInput struct {
	aliasFields
	ID string `path:"id" doc:"The alias's id."`
}

type writtenAlias struct {
	CanonicalID string `json:"canonical_id" doc:"The entity or group that it belongs to."`
	ID          string `json:"id" doc:"The alias's id."`
}

func (f *aliasFields) owner() string {
	if f.CanonicalID != "" {
		return f.CanonicalID
	}
	return f.EntityID
}

// check holds what is given against the limits and brings the name into its one spelling.
func (f *aliasFields) check() error {
	if f.Custom != nil {
		if err := checkMetadata(*f.Custom); err != nil {
			return err
		}
	}
	if f.Name == "" {
		return nil
	}
	name, err := spell("an alias", f.Name, MaxAliasName)
	f.Name = name
	return err
}

// checkMount refuses accessors of mounts that aren't there.
func (s Setup) checkMount(view conclave.View, accessor string) (local bool, err error) {
	_, _, local, ok, err := s.Mounts.ByAccessor(view, accessor)
	if err == nil && !ok {
		err = conclave.Errorf(conclave.Invalid, "invalid mount accessor %q", clip(accessor))
	}
	return local, err
}

// findAlias returns an alias by its id, with the entity that it belongs to; nil if there is none.
func findAlias(view conclave.View, id string) (*entity, int, error) {
	if !isID(id) {
		return nil, 0, nil
	}
	found, err := loadRef(view, aliasIDDir+id)
	if err != nil || found == nil {
		return nil, 0, err
	}
	e, err := loadEntity(view, found.ID)
	if err != nil {
		return nil, 0, err
	}
	if e == nil || e.aliasByID(id) < 0 {
		return nil, 0, errDamaged("an alias")
	}
	return e, e.aliasByID(id), nil
}

func (s Setup) writeAlias(ctx context.Context, tx conclave.Tx, in *aliasInput) (*writtenAlias, error) {
	if in.ID != "" {
		return s.alter(tx, in.ID, &in.aliasFields)
	}
	if in.Accessor == "" || in.Name == "" {
		return nil, conclave.Errorf(conclave.Invalid, "'id' or 'mount_accessor' and 'name' must be provided")
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	if _, err := s.checkMount(tx, in.Accessor); err != nil {
		return nil, err
	}
	found, err := loadRef(tx, aliasDir+factors(in.Accessor, in.Name))
	if err != nil {
		return nil, err
	}
	if found != nil {
		return s.alter(tx, found.Alias, &in.aliasFields)
	}
	return createAlias(ctx, tx, &in.aliasFields)
}

func createAlias(ctx context.Context, tx conclave.Tx, fields *aliasFields) (*writtenAlias, error) {
	ids, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	now := tx.Now().UnixNano()
	var e *entity
	if owner := fields.owner(); owner != "" {
		found, err := loadEntity(tx, owner)
		if err != nil {
			return nil, err
		}
		if found == nil {
			return nil, conclave.Errorf(conclave.Invalid, "invalid canonical ID")
		}
		e = found.clone()
	} else {
		e = &entity{id: ids.Owner, Created: now}
		if e.Name, err = invent(tx, entityNameDir, "entity", e.id); err != nil {
			return nil, err
		}
		if err := rename(tx, entityNameDir, e.id, "", e.Name); err != nil {
			return nil, err
		}
	}
	a := alias{ID: ids.Alias, Name: fields.Name, Accessor: fields.Accessor, Created: now, Updated: now}
	if fields.Custom != nil {
		a.Custom = *fields.Custom
	}
	if e.aliasFor(a.Accessor) >= 0 {
		return nil, conclave.Errorf(conclave.Invalid, "Alias already exists for requested entity and mount accessor")
	}
	if len(e.Aliases) >= MaxAliases {
		return nil, conclave.Errorf(conclave.Invalid, "an entity has at most %d aliases", MaxAliases)
	}
	e.Aliases, e.Updated = append(e.Aliases, a), now
	if err := a.index(tx, e.id); err != nil {
		return nil, err
	}
	return &writtenAlias{e.id, a.ID}, e.save(tx)
}

func (s Setup) changeAlias(_ context.Context, tx conclave.Tx, in *aliasIDInput) (*writtenAlias, error) {
	return s.alter(tx, in.ID, &in.aliasFields)
}

// alter changes an alias: its name, mount and metadata, and whose it is. Without a change it answers nothing.
func (s Setup) alter(tx conclave.Tx, id string, fields *aliasFields) (*writtenAlias, error) {
	if err := fields.check(); err != nil {
		return nil, err
	}
	found, at, err := findAlias(tx, id)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, conclave.Errorf(conclave.Invalid, "invalid alias ID provided")
	}
	before, from := &found.Aliases[at], found.clone()
	a := *before
	if fields.Name != "" {
		a.Name = fields.Name
	}
	if fields.Accessor != "" {
		a.Accessor = fields.Accessor
	}
	if fields.Custom != nil {
		a.Custom = *fields.Custom
	}
	owner := fields.owner()
	moves := owner != "" && owner != from.id
	if !moves && a.Name == before.Name && a.Accessor == before.Accessor && maps.Equal(a.Custom, before.Custom) {
		return nil, nil
	}
	if err := s.checkFactors(tx, &a, before, moves); err != nil {
		return nil, err
	}
	a.Updated = tx.Now().UnixNano()
	if err := before.unindex(tx); err != nil {
		return nil, err
	}
	if !moves {
		if a.Accessor != before.Accessor {
			if from.aliasFor(a.Accessor) >= 0 {
				return nil, conclave.Errorf(conclave.Invalid, "Alias cannot be updated as the entity already has an alias for the given 'mount_accessor' ")
			}
			if err := leaveMount(tx, from.id, before.Accessor); err != nil {
				return nil, err
			}
		}
		from.Aliases[at] = a
		if err := a.index(tx, from.id); err != nil {
			return nil, err
		}
		return &writtenAlias{from.id, a.ID}, from.save(tx)
	}
	return &writtenAlias{owner, a.ID}, moveAlias(tx, from, at, owner, &a)
}

// checkFactors refuses a mount that isn't there, and a name that another alias of it has.
func (s Setup) checkFactors(tx conclave.Tx, a, before *alias, moves bool) error {
	local, err := s.checkMount(tx, a.Accessor)
	if err != nil {
		return err
	}
	if moves && local {
		return conclave.Errorf(conclave.Invalid, "local aliases can't be moved between entities")
	}
	taken, err := loadRef(tx, aliasDir+factors(a.Accessor, a.Name))
	if err != nil {
		return err
	}
	if taken != nil && taken.Alias != before.ID {
		return conclave.Errorf(conclave.Invalid, "alias with combination of mount accessor and name already exists")
	}
	return nil
}

// moveAlias gives an alias to another entity.
func moveAlias(tx conclave.Tx, from *entity, at int, owner string, a *alias) error {
	found, err := loadEntity(tx, owner)
	switch {
	case err != nil:
		return err
	case found == nil:
		return conclave.Errorf(conclave.Invalid, "given 'canonical_id' is not associated with an entity")
	case found.aliasFor(a.Accessor) >= 0:
		return conclave.Errorf(conclave.Invalid, "Alias cannot be updated as the given entity already has an alias for this mount ")
	case len(found.Aliases) >= MaxAliases:
		return conclave.Errorf(conclave.Invalid, "an entity has at most %d aliases", MaxAliases)
	}
	left := from.Aliases[at].Accessor
	from.Aliases = slices.Delete(from.Aliases, at, at+1)
	from.Updated = a.Updated
	if err := from.save(tx); err != nil {
		return err
	}
	if err := leaveMount(tx, from.id, left); err != nil {
		return err
	}
	to := found.clone()
	to.Aliases, to.Updated = append(to.Aliases, *a), a.Updated
	if err := a.index(tx, to.id); err != nil {
		return err
	}
	return to.save(tx)
}

// leaveMount ends an entity's memberships in external groups of a mount that it has no alias for any more: it is a member
// of them only by what the auth method said about the alias.
func leaveMount(tx conclave.Tx, entityID, accessor string) error {
	m, err := loadMemberships(tx, entityID)
	if err != nil {
		return err
	}
	leave, err := externalGroups(tx, m, func(a *alias) bool { return a != nil && a.Accessor == accessor })
	if err != nil || len(leave) == 0 {
		return err
	}
	return regroup(tx, entityID, nil, leave)
}

func (s Setup) readAlias(_ context.Context, view conclave.View, in *idInput) (*wholeAlias, error) {
	e, at, err := findAlias(view, in.ID)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, notFound()
	}
	return s.seeing(view).wholeAlias(&e.Aliases[at], e.id)
}

func (s Setup) deleteAlias(_ context.Context, tx conclave.Tx, in *idInput) (*conclave.None, error) {
	e, at, err := findAlias(tx, in.ID)
	if err != nil || e == nil {
		return nil, err
	}
	gone, changed := e.Aliases[at], e.clone()
	changed.Aliases = slices.Delete(changed.Aliases, at, at+1)
	changed.Updated = tx.Now().UnixNano()
	if err := gone.unindex(tx); err != nil {
		return nil, err
	}
	if err := leaveMount(tx, e.id, gone.Accessor); err != nil {
		return nil, err
	}
	return nil, changed.save(tx)
}

func (s Setup) listAliases(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	ids, err := view.List(aliasIDDir, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	see := s.seeing(view)
	info, err := details(ids, func(id string) (map[string]any, error) {
		e, at, err := findAlias(view, id)
		if err != nil || e == nil {
			return nil, err
		}
		return see.aliasInfo(&e.Aliases[at], e.id)
	})
	return &conclave.Keys{Keys: ids, KeyInfo: info}, err
}
