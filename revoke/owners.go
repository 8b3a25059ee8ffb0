package revoke

import (
	"encoding/json"

	"conclave"
	"conclave/lease"
	"conclave/namespace"
	"conclave/quota"
	"conclave/store"
	"conclave/token"
)

// Owners looks after the tokens that leases belong to.
type Owners struct{}

var _ lease.Owners = Owners{}

// home is the system space of the namespace that a token lives in.
func home(view conclave.View, path string) (conclave.System, error) {
	inner, ok := view.(*store.View)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "leases are kept outside the system space")
	}
	return namespace.At(inner.Tx().System(), path)
}

// Lives reports whether a token lives, with those above that it ends with, and when it ends at the latest.
func (Owners) Lives(view conclave.View, owner *lease.Owner) (lives bool, ends int64, err error) {
	path, name := owner.Namespace, owner.Token
	system, err := home(view, path)
	if err != nil || system == nil {
		return false, 0, err
	}
	r, err := token.Find(system, name)
	if err != nil || r == nil {
		return false, 0, err
	}
	ends = r.Expires
	for r.Guardian != nil {
		above, err := guardian(view, path, r.Guardian)
		if err != nil || above == nil {
			return false, 0, err
		}
		r = above
	}
	return true, ends, nil
}

// guardian finds a token of a namespace above a path.
func guardian(view conclave.View, path string, g *token.Guardian) (found *token.Record, err error) {
	inner, ok := view.(*store.View)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "leases are kept outside the system space")
	}
	err = namespace.Descend(inner.Tx().System(), path, func(at conclave.Namespace, system conclave.System) error {
		if at.ID != g.NamespaceID {
			return nil
		}
		found, err = token.Find(system, g.Name)
		return err
	})
	return found, err
}

// Release forgets a lease where others know of it: at its token, and at what counted it.
func (Owners) Release(tx conclave.Tx, r *lease.Record) error {
	if r.Counted != "" {
		root, err := home(tx, "")
		if err != nil {
			return err
		}
		if err := quota.GiveBack(root, tx, r.Counted); err != nil {
			return err
		}
	}
	if r.Owner == nil {
		return nil
	}
	system, err := home(tx, r.Owner.Namespace)
	if err != nil || system == nil {
		return err
	}
	return token.Drop(system, r.Owner.Token, r.Key())
}

// endHeld queues a lease whose token has ended.
func endHeld(tx *store.Tx, h token.Holding) error {
	var held lease.Held
	if err := json.Unmarshal(h.Value, &held); err != nil {
		return conclave.Errorf(conclave.Internal, "what a token holds is damaged")
	}
	system, err := namespace.At(tx.System(), held.Namespace)
	if err != nil || system == nil {
		return err
	}
	return lease.EndOf(system, held.ID)
}
