package identity

import (
	"encoding/hex"
	"io"
	"maps"
	"slices"
	"strings"

	"conclave"
)

// Minted are the ids of what a request may make, made before its transaction.
type Minted struct {
	Owner string // of an entity or a group
	Alias string
}

// Mint makes ids: random UUIDs.
func Mint(random io.Reader) (Minted, error) {
	var raw [32]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return Minted{}, conclave.Errorf(conclave.Internal, "no randomness for an identity")
	}
	return Minted{uuid([16]byte(raw[:16])), uuid([16]byte(raw[16:]))}, nil
}

func uuid(raw [16]byte) string {
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80 // RFC 9562, version 4
	text := hex.EncodeToString(raw[:])
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}

// Attached is who has logged in, as far as identities go. The zero Attached is nobody.
type Attached struct {
	EntityID string
	Policies []string // of the entity and of all its groups
	GroupIDs []string // all its groups
	// FormerIDs are those of the entities that were merged into it.
	FormerIDs []string
}

// Attach finds the entity of a login through an auth method's mount, or makes it, and brings the alias's metadata and the
// memberships in external groups of that mount up to date. A login that changes nothing writes nothing. Without an alias's
// name nobody is attached. A disabled entity is Denied; a name that can't be in one spelling is Invalid.
func Attach(tx conclave.Tx, mountAccessor string, login *conclave.Login, ids Minted) (Attached, error) {
	if login.Alias.Name == "" {
		return Attached{}, nil
	}
	if mountAccessor == "" {
		return Attached{}, conclave.Errorf(conclave.Internal, "a login comes from no mount")
	}
	name, err := spell("the alias that the auth method gives", login.Alias.Name, MaxAliasName)
	if err != nil {
		return Attached{}, err
	}
	if err := checkMetadata(login.Alias.Metadata); err != nil {
		return Attached{}, err
	}
	entityID, err := meet(tx, mountAccessor, name, login.Alias.Metadata, ids)
	if err != nil {
		return Attached{}, err
	}
	if err := attend(tx, entityID, mountAccessor, login.Groups); err != nil {
		return Attached{}, err
	}
	identity, err := Of(tx, entityID)
	if err != nil {
		return Attached{}, err
	}
	if identity == nil {
		return Attached{}, errDamaged("an alias")
	}
	return Attached{identity.ID, identity.Policies, identity.GroupIDs, identity.FormerIDs()}, nil
}

// Regroup brings the memberships of an earlier login up to date with its groups as they are now. An alias that is gone has
// none.
func Regroup(tx conclave.Tx, mountAccessor string, login *conclave.Login) error {
	name, err := spell("the alias that the auth method gives", login.Alias.Name, MaxAliasName)
	if err != nil {
		return err
	}
	found, err := loadRef(tx, aliasDir+factors(mountAccessor, name))
	if err != nil || found == nil {
		return err
	}
	return attend(tx, found.ID, mountAccessor, login.Groups)
}

// meet returns the entity that is known by an alias; one that isn't known yet is made.
func meet(tx conclave.Tx, accessor, name string, metadata map[string]string, ids Minted) (string, error) {
	now := tx.Now().UnixNano()
	found, err := loadRef(tx, aliasDir+factors(accessor, name))
	if err != nil {
		return "", err
	}
	if found == nil {
		e := &entity{id: ids.Owner, Created: now, Updated: now}
		if e.Name, err = invent(tx, entityNameDir, "entity", e.id); err != nil {
			return "", err
		}
		a := alias{ID: ids.Alias, Name: name, Accessor: accessor, Metadata: metadata, Created: now, Updated: now}
		e.Aliases = []alias{a}
		if err := rename(tx, entityNameDir, e.id, "", e.Name); err != nil {
			return "", err
		}
		if err := a.index(tx, e.id); err != nil {
			return "", err
		}
		return e.id, e.save(tx)
	}
	e, err := loadEntity(tx, found.ID)
	if err != nil {
		return "", err
	}
	at := -1
	if e != nil {
		at = e.aliasByID(found.Alias)
	}
	switch {
	case at < 0:
		return "", errDamaged("an alias")
	case e.Disabled:
		return "", conclave.Errorf(conclave.Denied, "permission denied")
	case maps.Equal(e.Aliases[at].Metadata, metadata):
		return e.id, nil
	}
	changed := e.clone()
	changed.Aliases[at].Metadata, changed.Aliases[at].Updated = metadata, now
	return e.id, changed.save(tx)
}

// attend makes an entity a member of the external groups that its auth method reports, and of no other that has an alias
// there, or none any more.
func attend(tx conclave.Tx, entityID, accessor string, names []string) error {
	if len(names) > MaxLoginGroups {
		return conclave.Errorf(conclave.Invalid, "the auth method reports more than %d groups", MaxLoginGroups)
	}
	var reported []string
	for _, name := range names {
		name, err := spell("a group's alias", name, MaxAliasName)
		if err != nil {
			continue // no alias can have this name
		}
		found, err := loadRef(tx, groupAliasDir+factors(accessor, name))
		if err != nil {
			return err
		}
		if found != nil {
			reported = append(reported, found.ID)
		}
	}
	slices.Sort(reported)
	reported = slices.Compact(reported)
	m, err := loadMemberships(tx, entityID)
	if err != nil {
		return err
	}
	join := slices.DeleteFunc(slices.Clone(reported), func(id string) bool {
		_, in := slices.BinarySearch(m.list(), id)
		return in
	})
	leave, err := externalGroups(tx, m, func(a *alias) bool { return a == nil || a.Accessor == accessor })
	if err != nil {
		return err
	}
	leave = slices.DeleteFunc(leave, func(id string) bool {
		_, still := slices.BinarySearch(reported, id)
		return still
	})
	if len(join)+len(leave) == 0 {
		return nil
	}
	return regroup(tx, entityID, join, leave)
}

// externalGroups lists those of the groups that are external and whose alias, nil if they have none, is one that is asked
// for.
func externalGroups(view conclave.View, m *memberships, asked func(*alias) bool) ([]string, error) {
	var list []string
	for _, id := range m.list() {
		g, err := loadGroup(view, id)
		if err != nil {
			return nil, err
		}
		if g != nil && g.External && asked(g.Alias) {
			list = append(list, id)
		}
	}
	return list, nil
}
