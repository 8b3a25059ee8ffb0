package identity

import (
	"context"
	"maps"
	"slices"

	"conclave"
)

type mergeInput struct {
	To    string   `json:"to_entity_id" doc:"The entity that the others are merged into."`
	From  []string `json:"from_entity_ids" doc:"The entities that are merged into it, at most 100."`
	Keep  []string `json:"conflicting_alias_ids_to_keep" doc:"Where two entities have an alias for the same mount: the alias to keep."`
	Force bool     `json:"force" doc:"Kept for clients."`
}

// clash is one alias of two that a mount has in entities that are to be merged.
type clash struct {
	Alias     string `json:"alias"`
	Entity    string `json:"entity"`
	EntityID  string `json:"entity_id"`
	Mount     string `json:"mount"`
	MountPath string `json:"mount_path"`
}

func (s Setup) merge(_ context.Context, tx conclave.Tx, in *mergeInput) (*conclave.None, error) {
	switch {
	case in.To == "":
		return nil, conclave.Errorf(conclave.Invalid, "missing entity id to merge to")
	case len(in.From) == 0:
		return nil, conclave.Errorf(conclave.Invalid, "missing entity ids to merge from")
	case len(in.From) > MaxMerge:
		return nil, conclave.Errorf(conclave.Invalid, "at most %d entities can be merged at once", MaxMerge)
	case len(in.From) > 1 && len(in.Keep) > 1:
		return nil, conclave.Errorf(conclave.Invalid, "aliases conflicts cannot be resolved with multiple from entity ids - merge one entity at a time")
	}
	found, err := loadEntity(tx, in.To)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, conclave.Errorf(conclave.Invalid, "entity id to merge to is invalid")
	}
	to := found.clone()
	former, err := in.formers(tx, to)
	if err != nil {
		return nil, err
	}
	if len(in.Keep) == 0 {
		if err := s.clashes(tx, to, former); err != nil {
			return nil, err
		}
	}
	for _, from := range former {
		if err := absorb(tx, to, from, in.Keep); err != nil {
			return nil, err
		}
	}
	switch {
	case len(to.Aliases) > MaxAliases:
		return nil, conclave.Errorf(conclave.Invalid, "an entity has at most %d aliases", MaxAliases)
	case len(to.Merged) > MaxMerged:
		return nil, conclave.Errorf(conclave.Invalid, "at most %d entities can be merged into one", MaxMerged)
	}
	if to.Policies, err = bounded(to.Policies); err != nil {
		return nil, err
	}
	if err := checkMetadata(to.Metadata); err != nil {
		return nil, err
	}
	to.Updated = tx.Now().UnixNano()
	return nil, to.save(tx)
}

// formers loads the entities that are to be merged.
func (in *mergeInput) formers(tx conclave.Tx, to *entity) ([]*entity, error) {
	var list []*entity
	ids := slices.Clone(in.From)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		from, err := loadEntity(tx, id)
		switch {
		case err != nil:
			return nil, err
		case id == to.id:
			return nil, conclave.Errorf(conclave.Invalid, "to_entity_id should not be present in from_entity_ids")
		case from == nil:
			return nil, conclave.Errorf(conclave.Invalid, "entity id to merge from is invalid")
		case from.Disabled && !to.Disabled:
			return nil, conclave.Errorf(conclave.Invalid, "entity %s is disabled: merged into one that isn't, it would be able to log in again", id)
		}
		list = append(list, from)
	}
	return list, nil
}

// clashes refuses a merge of entities that have an alias for the same mount, and tells which.
func (s Setup) clashes(tx conclave.Tx, to *entity, former []*entity) error {
	see := s.seeing(tx)
	owner := map[string]string{} // accessor → entity that was met with an alias for it
	var clashing []clash
	for _, from := range former {
		for n := range from.Aliases {
			theirs := &from.Aliases[n]
			if other, met := owner[theirs.Accessor]; met && other != from.id {
				return conclave.Errorf(conclave.Invalid, "mount accessor %s found in multiple fromEntities, merge should be done with one fromEntity at a time", theirs.Accessor)
			}
			owner[theirs.Accessor] = from.id
			at := to.aliasFor(theirs.Accessor)
			if at < 0 {
				continue
			}
			mount, err := see.mount(theirs.Accessor)
			if err != nil {
				return err
			}
			clashing = append(clashing, clash{to.Aliases[at].Name, to.Name, to.id, mount.kind, mount.path}, clash{theirs.Name, from.Name, from.id, mount.kind, mount.path})
		}
	}
	if len(clashing) == 0 {
		return nil
	}
	err := conclave.Errorf(conclave.Invalid, "toEntity and at least one fromEntity have aliases with the same mount accessor, repeat the merge request "+
		"specifying exactly one fromEntity and the ids of the aliases to keep")
	err.Data = clashing
	return err
}

// absorb moves all that an entity has to another, which is saved by the caller, and leaves a mark of where it went.
func absorb(tx conclave.Tx, to, from *entity, keep []string) error {
	for n := range from.Aliases {
		if err := absorbAlias(tx, to, from, &from.Aliases[n], keep); err != nil {
			return err
		}
	}
	to.Policies = append(slices.Clone(to.Policies), from.Policies...)
	metadata := maps.Clone(from.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	maps.Copy(metadata, to.Metadata)
	to.Metadata = metadata
	to.Merged = append(append(to.Merged, from.Merged...), from.id)
	for _, id := range append(slices.Clone(from.Merged), from.id) {
		if err := store(tx, mergedDir+id, ref{ID: to.id}); err != nil {
			return err
		}
	}
	m, err := loadMemberships(tx, from.id)
	if err != nil {
		return err
	}
	if err := regroup(tx, to.id, m.list(), nil); err != nil {
		return err
	}
	return unname(tx, from)
}

func absorbAlias(tx conclave.Tx, to, from *entity, theirs *alias, keep []string) error {
	if at := to.aliasFor(theirs.Accessor); at >= 0 {
		ours := to.Aliases[at]
		switch {
		case slices.Contains(keep, ours.ID):
			return theirs.unindex(tx)
		case !slices.Contains(keep, theirs.ID):
			return conclave.Errorf(conclave.Invalid, "conflicting mount accessors in following alias IDs and neither were present in conflicting_alias_ids_to_keep: %s, %s", theirs.ID, ours.ID)
		}
		if err := ours.unindex(tx); err != nil {
			return err
		}
		to.Aliases = slices.Delete(to.Aliases, at, at+1)
	}
	moved := *theirs
	moved.MergedFrom = append(slices.Clone(moved.MergedFrom), from.id)
	to.Aliases = append(to.Aliases, moved)
	return moved.index(tx, to.id)
}
