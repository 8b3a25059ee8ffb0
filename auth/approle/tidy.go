package approle

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"conclave"
)

// sweep removes secret-ids of a role that have ended, among the few that come after a given accessor in its shard.
func sweep(tx conclave.Tx, uid, from string) error {
	names, err := tx.List(accessorsDir+uid+"/"+from[:1]+"/", from, sweepNames)
	if err != nil {
		return err
	}
	for _, accessor := range names {
		if _, err := removeEnded(tx, uid, accessor); err != nil {
			return err
		}
	}
	return nil
}

// removeEnded removes a secret-id if it can't be used any more, and reports whether it did.
func removeEnded(tx conclave.Tx, uid, accessor string) (bool, error) {
	hash, s, err := byAccessor(tx, uid, accessor)
	if err != nil || s == nil {
		return false, err
	}
	_, usable, err := s.left(tx, hash)
	if err != nil || usable {
		return false, err
	}
	return true, s.remove(tx, uid, hash)
}

// clearRole removes secret-ids of a role that is deleted, at most limit, and returns how many more it might have removed.
func clearRole(tx conclave.Tx, uid string, limit int) (int, error) {
	err := walk(tx, uid, "", func(accessor string) (bool, error) {
		limit--
		hash, s, err := byAccessor(tx, uid, accessor)
		if err != nil || s == nil {
			return false, err
		}
		return limit > 0, s.remove(tx, uid, hash)
	})
	return limit, err
}

// clearGone goes on with clearing deleted roles, one after the other.
func clearGone(tx conclave.Tx, limit int) error {
	for limit > 0 {
		uids, err := tx.List(goneDir, "", 1)
		if err != nil || len(uids) == 0 {
			return err
		}
		if limit, err = clearRole(tx, uids[0], limit); err != nil || limit == 0 {
			return err
		}
		if err := tx.Delete(goneDir + uids[0]); err != nil {
			return err
		}
	}
	return nil
}

const tidyDoc = `Clear away what is stored of secret-ids that have ended.
Nothing depends on it: those that have ended don't log in. One call looks at 2000 of them at most, and the next one goes
on from there; the answer's warning tells whether all were seen.`

// tidy looks at secret-ids from where the last tidy stopped. The place is "<role uid>/<accessor>".
func tidy(_ context.Context, tx conclave.Tx, _ *conclave.None) (*conclave.Response, error) {
	if err := clearGone(tx, tidyNames/4); err != nil {
		return nil, err
	}
	at, err := tx.Get(tidyPath)
	if err != nil {
		return nil, err
	}
	uid, accessor, _ := strings.Cut(string(at), "/")
	seen, removed := 0, 0
	for seen < tidyNames {
		if accessor == "" {
			if uid, err = nextRole(tx, uid); err != nil {
				return nil, err
			}
			if uid == "" {
				return tidied(removed, "that was all"), tx.Delete(tidyPath)
			}
		}
		from := accessor
		accessor = "" // unless the walk is cut short, all of this role are seen
		err := walk(tx, uid, from, func(name string) (bool, error) {
			ended, err := removeEnded(tx, uid, name)
			if ended {
				removed++
			}
			if seen++; seen == tidyNames {
				accessor = name
			}
			return seen < tidyNames, err
		})
		if err != nil {
			return nil, err
		}
	}
	return tidied(removed, "there may be more: call again"), tx.Put(tidyPath, []byte(uid+"/"+accessor))
}

// nextRole is the uid after one that has secret-ids, "" if there is none.
func nextRole(view conclave.View, uid string) (string, error) {
	if uid != "" {
		uid += "/"
	}
	names, err := view.List(accessorsDir, uid, 1)
	if err != nil || len(names) == 0 {
		return "", err
	}
	return strings.TrimSuffix(names[0], "/"), nil
}

func tidied(removed int, rest string) *conclave.Response {
	return &conclave.Response{Status: http.StatusAccepted,
		Warnings: []string{"Tidy operation removed " + strconv.Itoa(removed) + " secret IDs that had ended; " + rest + "."}}
}
