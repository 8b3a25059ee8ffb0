package lockout

import (
	"context"
	"encoding/json"
	"strings"

	"conclave"
)

// maxListed bounds the accounts of one answer.
const maxListed = 10_000

// Setup is what the routes need.
type Setup struct {
	// Settings are those of a mount, by its accessor; ok is false if there is no such mount.
	Settings func(view conclave.View, accessor string) (s Settings, ok bool, err error)
}

// Routes are those below sys/ that show and unlock locked accounts.
func Routes(setup Setup) []conclave.Route {
	s := &setup
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "locked-users", "List the accounts that are locked after wrong guesses.", s.list),
		conclave.WriteRoute(conclave.Update, "locked-users/{mount_accessor}/unlock/{alias...}", "Forget the wrong guesses at an account.", s.unlock),
	}
}

type listInput struct {
	Accessor string `json:"mount_accessor" doc:"Only accounts of this mount."`
}

type listOutput struct {
	Namespaces []lockedNamespace `json:"by_namespace" doc:"The locked accounts of the request's namespace."`
	Total      int               `json:"total" doc:"How many there are."`
}

type lockedNamespace struct {
	ID     string        `json:"namespace_id"`
	Path   string        `json:"namespace_path"`
	Counts int           `json:"counts"`
	Mounts []lockedMount `json:"mount_accessors"`
}

type lockedMount struct {
	Accessor string   `json:"mount_accessor"`
	Counts   int      `json:"counts"`
	Aliases  []string `json:"alias_identifiers"`
}

func (s *Setup) list(_ context.Context, view conclave.View, in *listInput) (*listOutput, error) {
	dirs, err := view.List(ownDir, "", 0)
	if err != nil {
		return nil, err
	}
	at := lockedNamespace{ID: view.Namespace().ID, Path: view.Namespace().Path, Mounts: []lockedMount{}}
	for _, dir := range dirs {
		accessor := strings.TrimSuffix(dir, "/")
		if in.Accessor != "" && in.Accessor != accessor {
			continue
		}
		settings, ok, err := s.Settings(view, accessor)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		locked, err := lockedOf(view, accessor, settings.fill(), maxListed-at.Counts)
		if err != nil {
			return nil, err
		}
		if len(locked) > 0 {
			at.Mounts = append(at.Mounts, lockedMount{accessor, len(locked), locked})
			at.Counts += len(locked)
		}
	}
	return &listOutput{[]lockedNamespace{at}, at.Counts}, nil
}

func lockedOf(view conclave.View, accessor string, s Settings, limit int) ([]string, error) {
	var locked []string
	names, err := view.List(ownDir+accessor+"/", "", 0)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		value, err := view.Get(ownDir + accessor + "/" + name)
		if err != nil {
			return nil, err
		}
		r := &record{}
		if value == nil || json.Unmarshal(value, r) != nil {
			continue
		}
		if r.age(view, s); r.locked(s) && len(locked) < limit {
			locked = append(locked, r.Alias)
		}
	}
	return locked, nil
}

type unlockInput struct {
	Accessor string `path:"mount_accessor" doc:"The accessor of the auth method's mount."`
	Alias    string `path:"alias" doc:"The account's name."`
}

func (s *Setup) unlock(_ context.Context, tx conclave.Tx, in *unlockInput) (*conclave.None, error) {
	settings, ok, err := s.Settings(tx, in.Accessor)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, conclave.Errorf(conclave.Invalid, "there is no auth method with the accessor %q", in.Accessor)
	}
	a := Account{in.Accessor, in.Alias}
	r, err := find(tx, a, settings.fill())
	if err != nil {
		return nil, err
	}
	r.Failed = 0
	return nil, r.save(tx, a)
}
