package identity

import (
	"slices"

	"conclave"
)

// setSubgroups makes the groups the members of a group. A cycle, or a chain that would be too long, is Invalid.
func setSubgroups(tx conclave.Tx, g *group, groupIDs []string) error {
	wanted := slices.Clone(groupIDs)
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	if len(wanted) > MaxSubgroups {
		return conclave.Errorf(conclave.Invalid, "a group has at most %d groups as members", MaxSubgroups)
	}
	current, err := tx.List(subgroupDir+g.id+"/", "", 0)
	if err != nil {
		return err
	}
	for _, id := range current {
		if _, still := slices.BinarySearch(wanted, id); still {
			continue
		}
		if err := unnest(tx, g.id, id); err != nil {
			return err
		}
	}
	above := &chains{view: tx, next: parentsOf, length: map[string]int{}}
	up, err := above.longest(g.id)
	if err != nil {
		return err
	}
	below := &chains{view: tx, next: subgroupsOf, length: map[string]int{}}
	for _, id := range wanted {
		if _, already := slices.BinarySearch(current, id); already {
			continue
		}
		if _, met := above.length[id]; met && id != g.id {
			return conclave.Errorf(conclave.Invalid, "cyclic relationship detected for member group ID %q", id)
		}
		if err := nest(tx, g, id, up, below); err != nil {
			return err
		}
	}
	return nil
}

// unnest ends the membership of a group in another.
func unnest(tx conclave.Tx, parentID, childID string) error {
	child, err := loadGroup(tx, childID)
	if err != nil {
		return err
	}
	if child != nil {
		changed := child.clone()
		changed.Parents = slices.DeleteFunc(changed.Parents, func(id string) bool { return id == parentID })
		if err := changed.save(tx); err != nil {
			return err
		}
	}
	return tx.Delete(subgroupDir + parentID + "/" + childID)
}

// nest makes a group a member of another, of which it is no ancestor; up counts the groups on the longest chain above.
func nest(tx conclave.Tx, parent *group, childID string, up int, below *chains) error {
	child, err := loadGroup(tx, childID)
	switch {
	case err != nil:
		return err
	case child == nil:
		return conclave.Errorf(conclave.Invalid, "invalid member group ID %q", clip(childID))
	case childID == parent.id:
		return conclave.Errorf(conclave.Invalid, "member group ID %q is same as the ID of the group", childID)
	case len(child.Parents) >= MaxParents:
		return conclave.Errorf(conclave.Invalid, "a group is a member of at most %d groups", MaxParents)
	}
	down, err := below.longest(childID)
	if err != nil {
		return err
	}
	if up+down > MaxNesting {
		return conclave.Errorf(conclave.Invalid, "groups are nested at most %d deep", MaxNesting)
	}
	changed := child.clone()
	changed.Parents = append(changed.Parents, parent.id)
	slices.Sort(changed.Parents)
	if err := changed.save(tx); err != nil {
		return err
	}
	return tx.Put(subgroupDir+parent.id+"/"+childID, mark())
}

// chains measures the chains of groups that begin at one. There is no cycle, by the invariant of the package.
type chains struct {
	view   conclave.View
	next   func(view conclave.View, id string) ([]string, error)
	length map[string]int // group → groups on the longest chain that begins there
}

func (c *chains) longest(id string) (int, error) {
	if n, met := c.length[id]; met {
		return n, nil
	}
	if len(c.length) >= maxConnected {
		return 0, conclave.Errorf(conclave.Invalid, "at most %d groups can be connected", maxConnected)
	}
	c.length[id] = 1
	next, err := c.next(c.view, id)
	if err != nil {
		return 0, err
	}
	longest := 0
	for _, other := range next {
		n, err := c.longest(other)
		if err != nil {
			return 0, err
		}
		longest = max(longest, n)
	}
	c.length[id] = longest + 1
	return longest + 1, nil
}

func parentsOf(view conclave.View, id string) ([]string, error) {
	g, err := loadGroup(view, id)
	if err != nil || g == nil {
		return nil, err
	}
	return g.Parents, nil
}

func subgroupsOf(view conclave.View, id string) ([]string, error) {
	return view.List(subgroupDir+id+"/", "", 0)
}
