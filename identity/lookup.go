package identity

import (
	"context"

	"conclave"
)

// HasGroup reports whether there is a group of an id.
func HasGroup(view conclave.View, id string) (bool, error) {
	g, err := loadGroup(view, id)
	return g != nil, err
}

func (s Setup) lookupRoutes() []conclave.Route {
	const how = "Give one of id, name and alias_id, or alias_name with alias_mount_accessor. The answer is empty if nothing is found."
	return []conclave.Route{
		conclave.ReadRoute(conclave.Update, "lookup/entity", "Find an entity. "+how, s.lookupEntity),
		conclave.ReadRoute(conclave.Update, "lookup/group", "Find a group. "+how, s.lookupGroup),
	}
}

type lookupInput struct {
	ID            string `json:"id" doc:"Its id."`
	Name          string `json:"name" doc:"Its name."`
	AliasID       string `json:"alias_id" doc:"The id of one of its aliases."`
	AliasName     string `json:"alias_name" doc:"The name of one of its aliases; with alias_mount_accessor."`
	AliasAccessor string `json:"alias_mount_accessor" doc:"The mount of that alias; with alias_name."`
}

// indexes are those that a look-up goes by.
type indexes struct{ what, names, aliases, aliasIDs string }

// find returns the id that is looked for, empty if there is none.
func (in *lookupInput) find(view conclave.View, by indexes) (string, error) {
	given := 0
	for _, text := range []string{in.ID, in.Name, in.AliasID, in.AliasName, in.AliasAccessor} {
		if text != "" {
			given++
		}
	}
	byFactors := in.AliasName != "" && in.AliasAccessor != ""
	switch {
	case given == 0:
		return "", conclave.Errorf(conclave.Invalid, "query parameter not supplied")
	case given > 2 || given == 2 && !byFactors:
		return "", conclave.Errorf(conclave.Invalid, "query parameter conflict; please supply distinct set of query parameters")
	case given == 1 && in.AliasName+in.AliasAccessor != "":
		return "", conclave.Errorf(conclave.Invalid, "both 'alias_name' and 'alias_mount_accessor' needs to be set")
	}
	var found *ref
	var err error
	switch {
	case in.ID != "":
		return in.ID, nil
	case in.Name != "":
		name, wrong := spellPath(by.what, in.Name)
		if wrong != nil {
			return "", wrong
		}
		found, err = byName(view, by.names, name)
	case in.AliasID != "":
		if isID(in.AliasID) {
			found, err = loadRef(view, by.aliasIDs+in.AliasID)
		}
	default:
		name, wrong := spell("an alias", in.AliasName, MaxAliasName)
		if wrong != nil {
			return "", wrong
		}
		found, err = loadRef(view, by.aliases+factors(in.AliasAccessor, name))
	}
	if err != nil || found == nil {
		return "", err
	}
	return found.ID, nil
}

func (s Setup) lookupEntity(_ context.Context, view conclave.View, in *lookupInput) (*entityOutput, error) {
	id, err := in.find(view, indexes{"an entity", entityNameDir, aliasDir, aliasIDDir})
	if err != nil {
		return nil, err
	}
	e, err := loadEntity(view, id)
	if err != nil || e == nil {
		return nil, err
	}
	return s.seeing(view).entity(e)
}

func (s Setup) lookupGroup(_ context.Context, view conclave.View, in *lookupInput) (*groupOutput, error) {
	id, err := in.find(view, indexes{"a group", groupNameDir, groupAliasDir, groupAliasIDs})
	if err != nil {
		return nil, err
	}
	g, err := loadGroup(view, id)
	if err != nil || g == nil {
		return nil, err
	}
	return s.seeing(view).group(g)
}
