package token

import (
	"strings"

	"conclave"
)

// Where it is noted what tokens hold, and which of them ended with something held.
const (
	heldDir   = "token/held/"
	bereftDir = "token/bereft/"
)

// Hold notes that something ends with a token: value says what, under a key of its own. The transaction must have seen that
// the token lives.
func Hold(tx conclave.Tx, name, key string, value []byte) error {
	return tx.Put(heldDir+name+"/"+key, value)
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
