// Package identity keeps who is behind access tokens: entities, the aliases by which auth methods know them, and the
// groups that they are in. All is below "identity/" of the system space; records are JSON.
//
//	identity/entity/<entity>             the entity, with its aliases
//	identity/entity-name/<key>           {"id": entity, "name": as it is spelled}
//	identity/alias/<factors>             {"id": entity, "alias": alias}
//	identity/alias-id/<alias>            {"id": entity}
//	identity/merged/<entity>             {"id": entity}: the one that the former was merged into
//	identity/groups-of/<entity>          ["group", …]: the groups that it is a member of itself, in order
//	identity/group/<group>               the group, with its alias and the groups above it
//	identity/group-name/<key>            {"id": group, "name": as it is spelled}
//	identity/group-alias/<factors>       {"id": group, "alias": alias}
//	identity/group-alias-id/<alias>      {"id": group}
//	identity/member/<group>/<entity>     a mark: the entity is a member
//	identity/subgroup/<group>/<group>    a mark: the second group is a member of the first
//	identity/dead/<group>                a mark: members of a deleted group are still to be cleared away
//
// Ids are random UUIDs and never used again. A key is the one form of a name that names are compared in, with "%" and "/"
// escaped; factors are base64url(SHA-256(accessor ‖ 0 ‖ key of the alias's name)).
//
// Invariants. Names are in one spelling before anything else looks at them: see [spell]. A name, and the pair of a mount
// and an alias's name, belong to at most one entity or group; an entity has at most one alias for a mount. Groups form no
// cycle. What a caller is and may do is read through the request's view each time: an entity that is deleted or disabled
// and a membership that ended count for no request that begins after the answer, on no node. A member's groups lie beside
// the entity and not in it, and a group's members not in the group, so that logins of many don't wait for each other.
//
// What it doesn't do: identity tokens, the OIDC provider; second factors are package mfa's.
package identity
