package identity

import (
	"context"

	"conclave"
)

func (s Setup) entityRoutes() []conclave.Route {
	const names = "An entity is made if there is none of that name.\n\nCase doesn't matter in names. What is not given stays as it is."
	return []conclave.Route{
		conclave.WriteRoute(conclave.Update, "entity", "Make an entity, or change the one with the given id or name. "+names, s.writeEntity).With(s.minting),
		conclave.ReadRoute(conclave.List, "entity/id", "List the ids of all entities. Details come with at most 1,000.", s.listEntities),
		conclave.ReadRoute(conclave.Read, "entity/id/{id}", "Read an entity.", s.readEntity),
		conclave.WriteRoute(conclave.Update, "entity/id/{id}", "Change an entity. What is not given stays as it is.", s.changeEntity),
		conclave.WriteRoute(conclave.Delete, "entity/id/{id}", "Delete an entity, with its aliases and memberships. Its tokens are refused at once.", s.deleteEntity),
		conclave.ReadRoute(conclave.List, "entity/name", "List the names of all entities.", s.listEntityNames),
		conclave.ReadRoute(conclave.Read, "entity/name/{name...}", "Read an entity by its name.", s.readEntityByName),
		conclave.WriteRoute(conclave.Update, "entity/name/{name...}", "Make an entity, or change the one of this name. "+names, s.writeEntityByName).With(s.minting),
		conclave.WriteRoute(conclave.Delete, "entity/name/{name...}", "Delete an entity by its name.", s.deleteEntityByName),
		conclave.WriteRoute(conclave.Update, "entity/batch-delete", "Delete entities, at most 1,000 of them. Those that aren't there are left out.", s.deleteEntities),
		conclave.WriteRoute(conclave.Update, "entity/merge", "Merge entities into one: aliases, memberships, policies and metadata move there, and tokens of the former ones go on as its own.", s.merge),
	}
}

// entityFields are what can be said about an entity.
type entityFields struct {
	Policies *[]string          `json:"policies" doc:"Its policies."`
	Metadata *map[string]string `json:"metadata" doc:"Metadata for templates; replaces what there is."`
	Disabled *bool              `json:"disabled" doc:"Refuse its tokens, without revoking them."`
}

type entityInput struct {
	entityFields
	ID   string `json:"id" doc:"The entity to change."`
	Name string `json:"name" doc:"Its name; one is made up for a new entity if it is not given."`
}

type entityIDInput struct {
	entityFields
	ID   string `path:"id" doc:"The entity's id."`
	Name string `json:"name" doc:"A new name."`
}

type entityNameInput struct {
	entityFields
	Name string `path:"name" doc:"The entity's name."`
}

type createdEntity struct {
	Aliases []string `json:"aliases" doc:"Always null for a new entity."`
	ID      string   `json:"id" doc:"The entity's id."`
	Name    string   `json:"name" doc:"The entity's name."`
}

const entityNames = "entity/name/"

// entityByName returns the entity of a name that is part of a path, nil if there is none, and the name in its one
// spelling.
func (s Setup) entityByName(view conclave.View, op conclave.Operation, given string) (*entity, string, error) {
	name, err := spellPath("an entity", given)
	if err != nil {
		return nil, "", err
	}
	found, err := byName(view, entityNameDir, name)
	if err != nil || found == nil {
		return nil, name, err
	}
	if err := s.checkPath(view, op, entityNames, given, found.Name); err != nil {
		return nil, "", err
	}
	e, err := loadEntity(view, found.ID)
	return e, name, err
}

func (s Setup) writeEntity(ctx context.Context, tx conclave.Tx, in *entityInput) (*createdEntity, error) {
	if in.ID != "" {
		e, err := loadEntity(tx, in.ID)
		if err != nil {
			return nil, err
		}
		if e == nil {
			return nil, conclave.Errorf(conclave.Invalid, "entity not found from id")
		}
		return nil, putEntity(tx, e.clone(), in.Name, &in.entityFields)
	}
	if in.Name != "" {
		name, err := spellPath("an entity", in.Name)
		if err != nil {
			return nil, err
		}
		found, err := byName(tx, entityNameDir, name)
		if err != nil {
			return nil, err
		}
		if found != nil {
			e, err := loadEntity(tx, found.ID)
			if err != nil || e == nil {
				return nil, orDamaged(err, "an entity's name")
			}
			return nil, putEntity(tx, e.clone(), name, &in.entityFields)
		}
	}
	return createEntity(ctx, tx, in.Name, &in.entityFields)
}

func orDamaged(err error, what string) error {
	if err != nil {
		return err
	}
	return errDamaged(what)
}

func createEntity(ctx context.Context, tx conclave.Tx, name string, fields *entityFields) (*createdEntity, error) {
	ids, err := prepared(ctx)
	if err != nil {
		return nil, err
	}
	e := &entity{id: ids.Owner, Created: tx.Now().UnixNano()}
	if name == "" {
		if name, err = invent(tx, entityNameDir, "entity", e.id); err != nil {
			return nil, err
		}
	}
	if err := putEntity(tx, e, name, fields); err != nil {
		return nil, err
	}
	return &createdEntity{ID: e.id, Name: e.Name}, nil
}

// putEntity stores an entity with what is said about it; an empty name leaves it its own.
func putEntity(tx conclave.Tx, e *entity, name string, fields *entityFields) error {
	if name != "" {
		name, err := spellPath("an entity", name)
		if err != nil {
			return err
		}
		taken, err := byName(tx, entityNameDir, name)
		if err != nil {
			return err
		}
		if taken != nil && taken.ID != e.id {
			return conclave.Errorf(conclave.Invalid, "entity name is already in use")
		}
		if err := rename(tx, entityNameDir, e.id, e.Name, name); err != nil {
			return err
		}
		e.Name = name
	}
	if fields.Policies != nil {
		policies, err := normalPolicies(*fields.Policies)
		if err != nil {
			return err
		}
		e.Policies = policies
	}
	if fields.Metadata != nil {
		if err := checkMetadata(*fields.Metadata); err != nil {
			return err
		}
		e.Metadata = *fields.Metadata
	}
	if fields.Disabled != nil {
		e.Disabled = *fields.Disabled
	}
	e.Updated = tx.Now().UnixNano()
	return e.save(tx)
}

func (s Setup) changeEntity(ctx context.Context, tx conclave.Tx, in *entityIDInput) (*createdEntity, error) {
	return s.writeEntity(ctx, tx, &entityInput{in.entityFields, in.ID, in.Name})
}

func (s Setup) writeEntityByName(ctx context.Context, tx conclave.Tx, in *entityNameInput) (*createdEntity, error) {
	e, name, err := s.entityByName(tx, conclave.Update, in.Name)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return createEntity(ctx, tx, name, &in.entityFields)
	}
	return nil, putEntity(tx, e.clone(), name, &in.entityFields)
}

func (s Setup) readEntity(_ context.Context, view conclave.View, in *idInput) (*entityOutput, error) {
	e, err := loadEntity(view, in.ID)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, notFound()
	}
	return s.seeing(view).entity(e)
}

func (s Setup) readEntityByName(_ context.Context, view conclave.View, in *nameInput) (*entityOutput, error) {
	e, _, err := s.entityByName(view, conclave.Read, in.Name)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, notFound()
	}
	return s.seeing(view).entity(e)
}

func (s Setup) deleteEntity(_ context.Context, tx conclave.Tx, in *idInput) (*conclave.None, error) {
	return nil, dropEntity(tx, in.ID)
}

func (s Setup) deleteEntityByName(_ context.Context, tx conclave.Tx, in *nameInput) (*conclave.None, error) {
	e, _, err := s.entityByName(tx, conclave.Delete, in.Name)
	if err != nil || e == nil {
		return nil, err
	}
	return nil, dropEntity(tx, e.id)
}

type batchInput struct {
	EntityIDs []string `json:"entity_ids" doc:"The entities to delete, at most 1,000."`
}

func (s Setup) deleteEntities(_ context.Context, tx conclave.Tx, in *batchInput) (*conclave.None, error) {
	switch {
	case len(in.EntityIDs) == 0:
		return nil, conclave.Errorf(conclave.Invalid, "missing entity ids to delete")
	case len(in.EntityIDs) > MaxBatch:
		return nil, conclave.Errorf(conclave.Invalid, "at most %d entities can be deleted at once", MaxBatch)
	}
	for _, id := range in.EntityIDs {
		if err := dropEntity(tx, id); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// dropEntity removes an entity with all that leads to it; there need not be one.
func dropEntity(tx conclave.Tx, id string) error {
	e, err := loadEntity(tx, id)
	if err != nil || e == nil {
		return err
	}
	for n := range e.Aliases {
		if err := e.Aliases[n].unindex(tx); err != nil {
			return err
		}
	}
	for _, former := range e.Merged {
		if err := tx.Delete(mergedDir + former); err != nil {
			return err
		}
	}
	return unname(tx, e)
}

// unname removes an entity's record, name and memberships.
func unname(tx conclave.Tx, e *entity) error {
	m, err := loadMemberships(tx, e.id)
	if err != nil {
		return err
	}
	if err := regroup(tx, e.id, nil, m.list()); err != nil {
		return err
	}
	if err := tx.Delete(entityNameDir + segment(keyOf(e.Name))); err != nil {
		return err
	}
	return tx.Delete(entityDir + e.id)
}

func (s Setup) listEntities(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	ids, err := view.List(entityDir, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	info, err := s.entityInfos(view, ids)
	return &conclave.Keys{Keys: ids, KeyInfo: info}, err
}

func (s Setup) listEntityNames(_ context.Context, view conclave.View, in *pageInput) (*conclave.Keys, error) {
	keys, ids, err := names(view, entityNameDir, in)
	if err != nil {
		return nil, err
	}
	info, err := s.entityInfos(view, ids)
	return &conclave.Keys{Keys: keys, KeyInfo: info}, err
}

func (s Setup) entityInfos(view conclave.View, ids []string) (map[string]any, error) {
	see := s.seeing(view)
	return details(ids, func(id string) (map[string]any, error) {
		e, err := loadEntity(view, id)
		if err != nil || e == nil {
			return nil, err
		}
		return see.entityInfo(e)
	})
}

// Disable refuses whatever an entity's tokens ask for from now on, batch tokens too. It is false if there is no such entity.
func Disable(tx conclave.Tx, id string) (bool, error) {
	e, err := loadEntity(tx, id)
	if err != nil || e == nil {
		return false, err
	}
	if e.Disabled {
		return true, nil
	}
	e = e.clone()
	e.Disabled, e.Updated = true, tx.Now().UnixNano()
	return true, e.save(tx)
}
