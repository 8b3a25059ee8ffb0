package identity

import (
	"slices"
	"strings"

	"conclave"
)

// Identity is an entity with all that it has by its groups. It is shared and must not be changed.
type Identity struct {
	ID   string // of the entity; if that was merged, of the one that it was merged into
	Name string
	// Disabled entities may do nothing.
	Disabled bool
	// Policies are those of the entity and of its groups, inherited ones too, sorted, each once.
	Policies []string
	// GroupIDs are the groups that the entity is a member of, first those that it is in itself.
	GroupIDs []string

	entity      *entity
	memberships *memberships
	groups      []*group // those of GroupIDs
	direct      int      // how many of them the entity is in itself
	seen        []step
}

// step is one group that was read to find out an identity; nil if it isn't there.
type step struct {
	path   string
	decode func(value []byte) (any, error)
	group  *group
}

func newStep(id string) step {
	return step{path: groupDir + id, decode: func(value []byte) (any, error) { return decodeGroup(id, value) }}
}

func (s *step) load(view conclave.View) (*group, error) {
	loaded, err := view.Load(s.path, s.decode)
	g, _ := loaded.(*group)
	return g, err
}

// Of returns the identity behind an entity's id, nil if there is no such entity: who shows a token of it is to be refused,
// as with one that is Disabled. The entity, its groups and all above them are read through the view each time, so that
// a change of any of them holds for every request that begins after it; only what follows from them is kept.
//
// An entity with more than [MaxGroups] groups is Denied.
func Of(view conclave.View, entityID string) (*Identity, error) {
	k, err := loadKnown(view, entityID)
	if err != nil {
		return nil, err
	}
	if k == nil {
		if k, err = survivor(view, entityID); err != nil || k == nil {
			return nil, err
		}
	}
	m, err := loadMemberships(view, k.entity.id)
	if err != nil {
		return nil, err
	}
	if last := k.identity.Load(); last != nil && last.memberships == m {
		holds, err := last.holds(view)
		if err != nil {
			return nil, err
		}
		if holds {
			return last, nil
		}
	}
	identity, err := find(view, &k.entity, m)
	if err != nil {
		return nil, err
	}
	k.identity.Store(identity)
	return identity, nil
}

// survivor is the entity that another was merged into, nil if there is none.
func survivor(view conclave.View, entityID string) (*known, error) {
	if !isID(entityID) {
		return nil, nil
	}
	into, err := loadRef(view, mergedDir+entityID)
	if err != nil || into == nil {
		return nil, err
	}
	return loadKnown(view, into.ID)
}

// FormerIDs are those of the entities that were merged into this one. They are shared and must not be changed.
func (i *Identity) FormerIDs() []string { return slices.Clip(i.entity.Merged) }

// holds reads the groups again and reports whether they are what they were.
func (i *Identity) holds(view conclave.View) (bool, error) {
	for n := range i.seen {
		g, err := i.seen[n].load(view)
		if err != nil || g != i.seen[n].group {
			return false, err
		}
	}
	return true, nil
}

// find goes from an entity's groups to those above them.
func find(view conclave.View, e *entity, m *memberships) (*Identity, error) {
	i := &Identity{ID: e.id, Name: e.Name, Disabled: e.Disabled, entity: e, memberships: m}
	direct := m.list()
	queue := slices.Clone(direct)
	met := map[string]bool{}
	for _, id := range direct {
		met[id] = true
	}
	policies := slices.Clone(e.Policies)
	for n := 0; n < len(queue); n++ {
		if n == MaxGroups {
			return nil, conclave.Errorf(conclave.Denied, "the entity is in more than %d groups", MaxGroups)
		}
		s := newStep(queue[n])
		g, err := s.load(view)
		if err != nil {
			return nil, err
		}
		s.group = g
		i.seen = append(i.seen, s)
		if g == nil {
			continue // deleted, and its members are still to be cleared away
		}
		if n < len(direct) {
			i.direct++
		}
		i.groups, i.GroupIDs = append(i.groups, g), append(i.GroupIDs, g.id)
		policies = append(policies, g.Policies...)
		for _, parent := range g.Parents {
			if !met[parent] {
				met[parent] = true
				queue = append(queue, parent)
			}
		}
	}
	slices.Sort(policies)
	// Clipped, so that whoever appends to what is shared gets a copy.
	i.Policies, i.GroupIDs = slices.Clip(slices.Compact(policies)), slices.Clip(i.GroupIDs)
	return i, nil
}

// Resolve returns the value of a template of a policy, and whether there is one:
//
//	identity.entity.id, .name, .metadata.<key>
//	identity.entity.aliases.<accessor>.id, .name, .metadata.<key>, .custom_metadata.<key>
//	identity.groups.ids.<id>.id, .name, .metadata.<key>         only of groups that the entity is in
//	identity.groups.names.<name>.id, .name, .metadata.<key>     of a name without a dot, spelled as it is stored
func (i *Identity) Resolve(template string) (string, bool) {
	if rest, ok := strings.CutPrefix(template, "identity.entity."); ok {
		if path, ok := strings.CutPrefix(rest, "aliases."); ok {
			accessor, attribute, _ := strings.Cut(path, ".")
			at := i.entity.aliasFor(accessor)
			if at < 0 {
				return "", false
			}
			a := &i.entity.Aliases[at]
			if key, ok := strings.CutPrefix(attribute, "custom_metadata."); ok {
				return entry(a.Custom, key)
			}
			return attributeOf(attribute, a.ID, a.Name, a.Metadata)
		}
		return attributeOf(rest, i.ID, i.Name, i.entity.Metadata)
	}
	rest, ok := strings.CutPrefix(template, "identity.groups.")
	if !ok {
		return "", false
	}
	selector, rest, _ := strings.Cut(rest, ".")
	wanted, attribute, _ := strings.Cut(rest, ".")
	for _, g := range i.groups {
		if selector == "ids" && g.id == wanted || selector == "names" && g.Name == wanted {
			return attributeOf(attribute, g.id, g.Name, g.Metadata)
		}
	}
	return "", false
}

func attributeOf(attribute, id, name string, metadata map[string]string) (string, bool) {
	switch attribute {
	case "id":
		return id, true
	case "name":
		return name, true
	}
	if key, ok := strings.CutPrefix(attribute, "metadata."); ok {
		return entry(metadata, key)
	}
	return "", false
}

func entry(metadata map[string]string, key string) (string, bool) {
	value := metadata[key]
	return value, value != ""
}
