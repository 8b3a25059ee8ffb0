package pipeline

import (
	"conclave"
	"conclave/identity"
	"conclave/policy"
)

// EntityOf finds the entity that an alias of the mount auth/token/ is of, or makes it.
func (l *logins) EntityOf(tx conclave.Tx, alias string) (string, error) {
	ids, err := identity.Mint(l.routing.random)
	if err != nil {
		return "", err
	}
	mount := tx.Mount()
	if mount == nil {
		return "", conclave.Errorf(conclave.Internal, "tokens are made outside a mount")
	}
	who, err := identity.Attach(tx, mount.Accessor, &conclave.Login{Alias: conclave.Alias{Name: alias}}, ids)
	return who.EntityID, err
}

// PoliciesOf are the policies of an entity and its groups.
func (l *logins) PoliciesOf(view conclave.View, entityID string) ([]string, error) {
	who, err := identity.Of(view, entityID)
	if err != nil || who == nil || who.Disabled {
		return nil, err
	}
	return policy.WithoutRoot(who.Policies), nil
}
