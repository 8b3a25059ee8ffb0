package approle

import (
	"context"
	"strings"

	"conclave"
)

// accessorLength is that of a UUID.
const accessorLength = 36

// accessorPath spreads the accessors of a role over directories by their first digit, so that looking through one of them
// is seldom disturbed by what is made in others.
func accessorPath(uid, accessor string) string {
	return accessorsDir + uid + "/" + accessor[:1] + "/" + accessor
}

func accessorRoutes() []conclave.Route {
	return []conclave.Route{
		conclave.ReadRoute(conclave.List, "role/{role_name}/secret-id", listDoc, listAccessors),
		conclave.ReadRoute(conclave.Update, "role/{role_name}/secret-id-accessor/lookup", "Read what belongs to a secret-id, by its accessor.", lookupAccessor),
		conclave.WriteRoute(conclave.Update, "role/{role_name}/secret-id-accessor/destroy", "Destroy a secret-id, by its accessor.", destroyAccessor),
		conclave.WriteRoute(conclave.Delete, "role/{role_name}/secret-id-accessor/destroy", "Destroy a secret-id, by its accessor.", destroyAccessor),
	}
}

const listDoc = `List the accessors of a role's secret-ids.
Those that have ended aren't among them; in a list of more than 5000, they may be until they are cleared away.`

type listAccessorsIn struct {
	named
	listIn
}

func listAccessors(_ context.Context, view conclave.View, in *listAccessorsIn) (*conclave.Keys, error) {
	r, err := existing(view, in.Name)
	if err != nil {
		return nil, err
	}
	keys, seen := []string{}, 0
	err = walk(view, r.UID, in.After, func(accessor string) (bool, error) {
		if seen++; seen <= listChecked {
			hash, s, err := byAccessor(view, r.UID, accessor)
			if err != nil {
				return false, err
			}
			if _, usable, err := s.left(view, hash); err != nil || !usable {
				return true, err
			}
		}
		keys = append(keys, accessor)
		return in.Limit <= 0 || len(keys) < in.Limit, nil
	})
	return &conclave.Keys{Keys: keys}, err
}

// walkPage is how many names are listed at once.
const walkPage = 512

// walk visits the accessors of a role in order, those after one, until visit says that it needn't go on. What is visited
// may be removed.
func walk(view conclave.View, uid, after string, visit func(accessor string) (goOn bool, err error)) error {
	shards, err := view.List(accessorsDir+uid+"/", "", 0)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		if after != "" && shard[0] < after[0] {
			continue
		}
		for from, full := after, true; full; {
			names, err := view.List(accessorsDir+uid+"/"+shard, from, walkPage)
			if err != nil {
				return err
			}
			for _, name := range names {
				if goOn, err := visit(name); err != nil || !goOn {
					return err
				}
				from = name
			}
			full = len(names) == walkPage
		}
	}
	return nil
}

type accessorIn struct {
	named
	Accessor string `json:"secret_id_accessor" doc:"The accessor."`
}

// find returns what is stored of a role's secret-id. An accessor of no secret-id, or of another role's, is NotFound.
func (in *accessorIn) find(view conclave.View) (*role, string, *secretID, error) {
	r, err := existing(view, in.Name)
	if err != nil {
		return nil, "", nil, err
	}
	if in.Accessor == "" {
		return nil, "", nil, conclave.Errorf(conclave.Invalid, "missing secret_id_accessor")
	}
	hash, s, err := byAccessor(view, r.UID, in.Accessor)
	if err == nil && s == nil {
		err = errNoAccessor()
	}
	return r, hash, s, err
}

func errNoAccessor() error {
	return conclave.Errorf(conclave.NotFound, "failed to find accessor entry for secret_id_accessor")
}

// byAccessor returns the hash of a secret-id and what is stored of it, nil if there is nothing.
func byAccessor(view conclave.View, uid, accessor string) (string, *secretID, error) {
	if len(accessor) != accessorLength || strings.Contains(accessor, "/") {
		return "", nil, nil
	}
	hash, err := view.Get(accessorPath(uid, accessor))
	if err != nil || hash == nil {
		return "", nil, err
	}
	s, err := secretAt(view, string(hash))
	if err == nil && s == nil {
		err = damaged("secret-id's accessor")
	}
	return string(hash), s, err
}

func lookupAccessor(_ context.Context, view conclave.View, in *accessorIn) (*lookupOut, error) {
	_, hash, s, err := in.find(view)
	if err != nil {
		return nil, err
	}
	out, err := s.show(view, hash)
	if err == nil && out == nil {
		err = errNoAccessor()
	}
	return out, err
}

func destroyAccessor(_ context.Context, tx conclave.Tx, in *accessorIn) (*conclave.None, error) {
	r, hash, s, err := in.find(tx)
	if err != nil {
		return nil, err
	}
	return nil, s.remove(tx, r.UID, hash)
}
