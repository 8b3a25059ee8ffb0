package identity

import (
	"slices"

	"conclave"
)

// clearedAtOnce is how many members the request that deletes a group clears away; [Tidy] clears the others.
const clearedAtOnce = 500

// regroup changes the groups that an entity is a member of itself. What is so already stays untouched.
func regroup(tx conclave.Tx, entityID string, join, leave []string) error {
	m, err := loadMemberships(tx, entityID)
	if err != nil {
		return err
	}
	groups := slices.Clone(m.list())
	for _, id := range leave {
		if at, in := slices.BinarySearch(groups, id); in {
			groups = slices.Delete(groups, at, at+1)
		}
		if err := tx.Delete(memberDir + id + "/" + entityID); err != nil {
			return err
		}
	}
	for _, id := range join {
		if at, in := slices.BinarySearch(groups, id); !in {
			groups = slices.Insert(groups, at, id)
		}
		if err := tx.Put(memberDir+id+"/"+entityID, mark()); err != nil {
			return err
		}
	}
	switch {
	case slices.Equal(groups, m.list()):
		return nil
	case len(groups) > MaxGroups:
		return conclave.Errorf(conclave.Invalid, "an entity is in at most %d groups", MaxGroups)
	case len(groups) == 0:
		return tx.Delete(groupsOfDir + entityID)
	}
	return store(tx, groupsOfDir+entityID, groups)
}

// setMembers makes the entities the members of a group.
func setMembers(tx conclave.Tx, g *group, entityIDs []string) error {
	wanted := slices.Clone(entityIDs)
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	if len(wanted) > MaxMembers {
		return conclave.Errorf(conclave.Invalid, "a group has at most %d members", MaxMembers)
	}
	current, err := tx.List(memberDir+g.id+"/", "", 0)
	if err != nil {
		return err
	}
	for _, id := range wanted {
		if _, already := slices.BinarySearch(current, id); already {
			continue
		}
		e, err := loadEntity(tx, id)
		if err != nil {
			return err
		}
		if e == nil {
			return conclave.Errorf(conclave.Invalid, "invalid entity ID %q", clip(id))
		}
		if err := regroup(tx, id, []string{g.id}, nil); err != nil {
			return err
		}
	}
	for _, id := range current {
		if _, still := slices.BinarySearch(wanted, id); still {
			continue
		}
		if err := regroup(tx, id, nil, []string{g.id}); err != nil {
			return err
		}
	}
	return nil
}

// clip bounds what an error repeats of a request.
func clip(text string) string { return text[:min(len(text), maxID)] }

// clearMembers removes at most limit members of a group that is deleted, and reports whether that were all.
func clearMembers(tx conclave.Tx, groupID string, limit int) (done int, all bool, err error) {
	members, err := tx.List(memberDir+groupID+"/", "", limit+1)
	if err != nil {
		return 0, false, err
	}
	all = len(members) <= limit
	for _, id := range members[:min(len(members), limit)] {
		if err := regroup(tx, id, nil, []string{groupID}); err != nil {
			return done, false, err
		}
		done++
	}
	return done, all, nil
}

// Tidy clears away members of deleted groups, at most limit of them, and reports how many it did and whether there are
// more. The groups count for nobody without this.
func Tidy(tx conclave.Tx, limit int) (done int, more bool, err error) {
	limit = max(limit, 1)
	dead, err := tx.List(deadDir, "", limit)
	if err != nil {
		return 0, false, err
	}
	for _, id := range dead {
		if done >= limit {
			return done, true, nil
		}
		n, all, err := clearMembers(tx, id, limit-done)
		if err != nil {
			return done, false, err
		}
		done += n
		if !all {
			return done, true, nil
		}
		if err := tx.Delete(deadDir + id); err != nil {
			return done, false, err
		}
	}
	return done, len(dead) == limit, nil
}
