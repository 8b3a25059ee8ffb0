package identity

import (
	"encoding/json"
	"slices"
	"sync/atomic"

	"conclave"
)

// entity is somebody, or something, that logs in. Times are Unix nanoseconds. Records that are loaded are shared: change a
// clone.
type entity struct {
	Name     string            `json:"name"`
	Aliases  []alias           `json:"aliases,omitempty"`
	Policies []string          `json:"policies,omitempty"` // sorted, in lower case
	Metadata map[string]string `json:"metadata,omitempty"`
	Disabled bool              `json:"disabled,omitempty"`
	Merged   []string          `json:"merged,omitempty"` // ids of the entities that were merged into it
	Created  int64             `json:"created"`
	Updated  int64             `json:"updated"`

	id string
}

// alias is how an auth method, known by its mount's accessor, knows an entity or an external group.
type alias struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Accessor   string            `json:"accessor"`
	Metadata   map[string]string `json:"metadata,omitempty"`        // by the auth method
	Custom     map[string]string `json:"custom_metadata,omitempty"` // by people
	MergedFrom []string          `json:"merged_from,omitempty"`     // ids of the entities that it came from
	Created    int64             `json:"created"`
	Updated    int64             `json:"updated"`
}

// group gives its policies to its members, and to the members of the groups below it.
type group struct {
	Name     string            `json:"name"`
	External bool              `json:"external,omitempty"` // its members are those whom an auth method reports under its alias
	Policies []string          `json:"policies,omitempty"` // sorted, in lower case
	Metadata map[string]string `json:"metadata,omitempty"`
	Parents  []string          `json:"parents,omitempty"` // ids of the groups that it is a member of, sorted
	Alias    *alias            `json:"alias,omitempty"`
	Revision int64             `json:"revision"` // counts changes
	Created  int64             `json:"created"`
	Updated  int64             `json:"updated"`

	id string
}

// ref is an entry that leads from a name or an id to another id.
type ref struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"`
	Alias string `json:"alias,omitempty"`
}

// memberships are the groups that an entity is a member of itself.
type memberships struct{ groups []string }

// known is an entity as it is shared, with what was last found out about it.
type known struct {
	entity   entity
	identity atomic.Pointer[Identity]
}

const (
	entityDir     = "identity/entity/"
	entityNameDir = "identity/entity-name/"
	aliasDir      = "identity/alias/"
	aliasIDDir    = "identity/alias-id/"
	mergedDir     = "identity/merged/"
	groupsOfDir   = "identity/groups-of/"
	groupDir      = "identity/group/"
	groupNameDir  = "identity/group-name/"
	groupAliasDir = "identity/group-alias/"
	groupAliasIDs = "identity/group-alias-id/"
	memberDir     = "identity/member/"
	subgroupDir   = "identity/subgroup/"
	deadDir       = "identity/dead/"
)

func errDamaged(what string) error {
	return conclave.Errorf(conclave.Internal, "the stored record of %s is damaged", what)
}

func decodeEntity(id string, value []byte) (*known, error) {
	k := &known{}
	if err := json.Unmarshal(value, &k.entity); err != nil || k.entity.Name == "" || k.entity.Created == 0 {
		return nil, errDamaged("an entity")
	}
	k.entity.id = id
	return k, nil
}

func decodeGroup(id string, value []byte) (*group, error) {
	g := &group{}
	if err := json.Unmarshal(value, g); err != nil || g.Name == "" || g.Created == 0 {
		return nil, errDamaged("a group")
	}
	g.id = id
	return g, nil
}

func decodeRef(value []byte) (*ref, error) {
	r := &ref{}
	if err := json.Unmarshal(value, r); err != nil || r.ID == "" {
		return nil, errDamaged("a name")
	}
	return r, nil
}

func decodeMemberships(value []byte) (*memberships, error) {
	m := &memberships{}
	if err := json.Unmarshal(value, &m.groups); err != nil || len(m.groups) == 0 {
		return nil, errDamaged("an entity's groups")
	}
	return m, nil
}

func loadKnown(view conclave.View, id string) (*known, error) {
	if !isID(id) {
		return nil, nil
	}
	loaded, err := view.Load(entityDir+id, func(value []byte) (any, error) { return decodeEntity(id, value) })
	k, _ := loaded.(*known)
	return k, err
}

// loadEntity returns an entity by id, nil if there is none.
func loadEntity(view conclave.View, id string) (*entity, error) {
	k, err := loadKnown(view, id)
	if err != nil || k == nil {
		return nil, err
	}
	return &k.entity, nil
}

// loadGroup returns a group by id, nil if there is none.
func loadGroup(view conclave.View, id string) (*group, error) {
	if !isID(id) {
		return nil, nil
	}
	loaded, err := view.Load(groupDir+id, func(value []byte) (any, error) { return decodeGroup(id, value) })
	g, _ := loaded.(*group)
	return g, err
}

func loadRef(view conclave.View, path string) (*ref, error) {
	loaded, err := view.Load(path, func(value []byte) (any, error) { return decodeRef(value) })
	r, _ := loaded.(*ref)
	return r, err
}

func loadMemberships(view conclave.View, entityID string) (*memberships, error) {
	loaded, err := view.Load(groupsOfDir+entityID, func(value []byte) (any, error) { return decodeMemberships(value) })
	m, _ := loaded.(*memberships)
	return m, err
}

// list is the ids of the groups, nil if there are none.
func (m *memberships) list() []string {
	if m == nil {
		return nil
	}
	return m.groups
}

func store(tx conclave.Tx, path string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return tx.Put(path, value)
}

func (e *entity) save(tx conclave.Tx) error { return store(tx, entityDir+e.id, e) }

func (g *group) save(tx conclave.Tx) error {
	g.Revision++
	return store(tx, groupDir+g.id, g)
}

// clone is a copy that may be changed; metadata is replaced, not changed.
func (e *entity) clone() *entity {
	c := *e
	c.Aliases, c.Merged = slices.Clone(e.Aliases), slices.Clone(e.Merged)
	return &c
}

func (g *group) clone() *group {
	c := *g
	c.Parents = slices.Clone(g.Parents)
	if g.Alias != nil {
		a := *g.Alias
		c.Alias = &a
	}
	return &c
}

// aliasFor is where the entity's alias for a mount stands, -1 if it has none.
func (e *entity) aliasFor(accessor string) int {
	return slices.IndexFunc(e.Aliases, func(a alias) bool { return a.Accessor == accessor })
}

// aliasByID is where an alias stands, -1 if it isn't the entity's.
func (e *entity) aliasByID(id string) int {
	return slices.IndexFunc(e.Aliases, func(a alias) bool { return a.ID == id })
}

// index points to an alias of an entity, by its factors and by its id.
func (a *alias) index(tx conclave.Tx, entityID string) error {
	if err := store(tx, aliasDir+factors(a.Accessor, a.Name), ref{ID: entityID, Alias: a.ID}); err != nil {
		return err
	}
	return store(tx, aliasIDDir+a.ID, ref{ID: entityID})
}

// unindex removes what points to an alias of an entity.
func (a *alias) unindex(tx conclave.Tx) error {
	if err := tx.Delete(aliasDir + factors(a.Accessor, a.Name)); err != nil {
		return err
	}
	return tx.Delete(aliasIDDir + a.ID)
}

// indexGroup points to the alias of a group.
func (a *alias) indexGroup(tx conclave.Tx, groupID string) error {
	if err := store(tx, groupAliasDir+factors(a.Accessor, a.Name), ref{ID: groupID, Alias: a.ID}); err != nil {
		return err
	}
	return store(tx, groupAliasIDs+a.ID, ref{ID: groupID})
}

// unindexGroup removes what points to the alias of a group.
func (a *alias) unindexGroup(tx conclave.Tx) error {
	if err := tx.Delete(groupAliasDir + factors(a.Accessor, a.Name)); err != nil {
		return err
	}
	return tx.Delete(groupAliasIDs + a.ID)
}

// byName returns what a name leads to in one of the indexes of names, nil if it leads nowhere.
func byName(view conclave.View, dir, name string) (*ref, error) {
	return loadRef(view, dir+segment(keyOf(name)))
}

// rename moves an id in an index of names; from is empty for what is new. The caller has made sure that to is free, or
// differs in its case only.
func rename(tx conclave.Tx, dir, id, from, to string) error {
	if from == to {
		return nil
	}
	if from != "" && keyOf(from) != keyOf(to) {
		if err := tx.Delete(dir + segment(keyOf(from))); err != nil {
			return err
		}
	}
	return store(tx, dir+segment(keyOf(to)), ref{ID: id, Name: to})
}

// invent makes a name, as clients know it from Vault, for what was given none: of the last digits of the id, or of all if
// those are taken.
func invent(view conclave.View, dir, kind, id string) (string, error) {
	name := kind + "_" + id[max(0, len(id)-8):]
	taken, err := byName(view, dir, name)
	if err != nil || taken == nil {
		return name, err
	}
	return kind + "_" + id, nil
}

func mark() []byte { return []byte{1} }
