package token

import "conclave"

// freedDir has an entry for each token that ended and was counted: its value is what it was counted by.
const freedDir = "token/freed/"

// Made returns the record of a token that was made in this transaction, of either type.
func Made(view conclave.View, secret conclave.Secret) (*Record, error) { return seek(view, secret) }

// LoginRole is the role of the login that the token comes from, "" if there is none.
func (r *Record) LoginRole() string {
	if r.Origin == nil {
		return ""
	}
	return r.Origin.Role
}

// Count notes by what a new token is counted, in the transaction that makes it. Batch tokens aren't stored, so nothing can
// be noted in them.
func Count(tx conclave.Tx, secret conclave.Secret, counted string) error {
	r, err := load(tx, NameOf(secret))
	if err != nil || r == nil {
		return err
	}
	same := *r
	same.Counted = counted
	return store(tx, &same)
}

// free leaves word that a counted token has ended: who counts isn't known here.
func free(tx conclave.Tx, r *Record) error {
	if r.Counted == "" {
		return nil
	}
	return tx.Put(freedDir+r.Name, []byte(r.Counted))
}

// Freed lists at most limit tokens that were counted and have ended. It reads a listing that others change: run it in a
// transaction that isn't judged, and hand what it found to [Uncount].
func Freed(view conclave.View, limit int) (names []string, err error) {
	return view.List(freedDir, "", min(max(limit, 1), MaxStep))
}

// Uncount forgets that tokens have ended, and returns by what each of them was counted. Those that are forgotten already
// are passed over.
func Uncount(tx conclave.Tx, names []string) (counted []string, err error) {
	for _, name := range names[:min(len(names), MaxStep)] {
		value, err := tx.Get(freedDir + name)
		if err != nil {
			return nil, err
		}
		if value == nil {
			continue
		}
		if err := tx.Delete(freedDir + name); err != nil {
			return nil, err
		}
		counted = append(counted, string(value))
	}
	return counted, nil
}
