package token

import (
	"strings"

	"conclave"
)

// Where it is noted what tokens hold, and which of them ended with something held.
const (
	heldDir   = "token/held/"
	bereftDir = "token/bereft/"
	spentDir  = "token/spending/"
)

// Hold notes that something ends with a token: value says what, under a key of its own. The transaction must have seen that
// the token lives.
func Hold(tx conclave.Tx, name, key string, value []byte) error {
	return tx.Put(heldDir+name+"/"+key, value)
}

// Watch has a token with limited uses, which holds something, end when it has none left.
func Watch(tx conclave.Tx, r *Record) error {
	if r.NumUses == 0 {
		return nil
	}
	known, err := tx.Get(spentDir + r.Name)
	if err != nil || known != nil {
		return err
	}
	return tx.Put(spentDir+r.Name, mark())
}

// Spent finds, of at most limit watched tokens after the name after, those that have no use left or hold nothing any more. last
// is the name to go on after, "" if that were all. It is for a transaction that isn't judged; [EndSpent] looks again.
func Spent(view conclave.View, after string, limit int) (spent []string, last string, err error) {
	limit = min(max(limit, 1), MaxStep)
	names, err := conclave.Some(view, spentDir, after, limit)
	if err != nil {
		return nil, "", err
	}
	for _, name := range names {
		left, holds, err := watched(view, name)
		if err != nil {
			return nil, "", err
		}
		if left == 0 || !holds {
			spent = append(spent, name)
		}
	}
	if len(names) == limit {
		last = names[len(names)-1]
	}
	return spent, last, nil
}

// watched tells how many uses a token has left, 0 if it has ended, and whether it holds anything.
func watched(view conclave.View, name string) (left int, holds bool, err error) {
	r, err := find(view, name)
	if err != nil || r == nil {
		return 0, false, err
	}
	if left, _, err = usesLeft(view, r); err != nil {
		return 0, false, err
	}
	held, err := conclave.Some(view, heldDir+name+"/", "", 1)
	return left, len(held) > 0, err
}

// EndSpent revokes tokens that have no use left, and watches those no longer that hold nothing.
func EndSpent(tx conclave.Tx, names []string) error {
	for _, name := range names {
		left, holds, err := watched(tx, name)
		if err != nil {
			return err
		}
		if left > 0 && holds {
			continue
		}
		if left == 0 {
			if err := Revoke(tx, name); err != nil {
				return err
			}
		}
		if err := tx.Delete(spentDir + name); err != nil {
			return err
		}
	}
	return nil
}

// Drop forgets what Hold noted; there need be nothing.
func Drop(tx conclave.Tx, name, key string) error { return tx.Delete(heldDir + name + "/" + key) }

// leave notes that a token has ended with something held.
func leave(tx conclave.Tx, name string) error {
	held, err := conclave.Some(tx, heldDir+name+"/", "", 1)
	if err != nil || len(held) == 0 {
		return err
	}
	return tx.Put(bereftDir+name, mark())
}

// Holding is what a token held that has ended.
type Holding struct {
	Name, Key string // of the token, and what Hold was given
	Value     []byte
}

// Left returns at most limit holdings of tokens that have ended. Who deals with one calls [Drop] in the same transaction;
// a token that holds nothing any more is forgotten.
func Left(tx conclave.Tx, limit int) ([]Holding, error) {
	limit = min(max(limit, 1), MaxStep)
	names, err := conclave.Some(tx, bereftDir, "", limit)
	if err != nil {
		return nil, err
	}
	var left []Holding
	for _, name := range names {
		dir := heldDir + name + "/"
		keys, err := conclave.Some(tx, dir, "", limit-len(left))
		if err != nil {
			return nil, err
		}
		if len(keys) == 0 {
			if err := tx.Delete(bereftDir + name); err != nil {
				return nil, err
			}
		}
		for _, key := range keys {
			value, err := tx.Get(dir + strings.TrimSuffix(key, "/"))
			if err != nil {
				return nil, err
			}
			left = append(left, Holding{name, key, value})
		}
		if len(left) >= limit {
			break
		}
	}
	return left, nil
}

// Scan returns the records of at most limit tokens that are stored after the name after, dead or alive, in no order, and the
// name to go on after, "" if those were all.
func Scan(view conclave.View, after string, limit int) (found []*Record, next string, err error) {
	limit = min(max(limit, 1), MaxStep)
	names, err := conclave.Some(view, idDir, after, limit)
	if err != nil {
		return nil, "", err
	}
	for _, name := range names {
		r, err := load(view, name)
		if err != nil {
			return nil, "", err
		}
		if r != nil {
			found = append(found, r)
		}
	}
	if len(names) == limit {
		next = names[len(names)-1]
	}
	return found, next, nil
}

// NextName is the name of the token that [Scan] would find first after a name, "" if there is none.
func NextName(view conclave.View, after string) (string, error) {
	names, err := conclave.Some(view, idDir, after, 1)
	if err != nil || len(names) == 0 {
		return "", err
	}
	return names[0], nil
}

// ByAccessor returns the record of a token that lives, by its accessor, nil if there is none.
func ByAccessor(view conclave.View, accessor string) (*Record, error) {
	return seekAccessor(view, accessor)
}

// Above calls visit for a token and all those above it, until visit says that it is enough.
func Above(view conclave.View, r *Record, visit func(*Record) (enough bool)) error {
	for depth := 0; r != nil && depth <= MaxDepth; depth++ {
		if visit(r) || r.Parent == "" {
			return nil
		}
		parent, err := load(view, r.Parent)
		if err != nil {
			return err
		}
		r = parent
	}
	return nil
}

// Holds is how many things end with a token, limit at most.
func Holds(view conclave.View, name string, limit int) (int, error) {
	held, err := conclave.Some(view, heldDir+name+"/", "", limit)
	return len(held), err
}
