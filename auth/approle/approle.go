// Package approle is the auth method for machines: a role, named by its role-id, is logged in to with a secret-id that
// somebody else has been given for it. It behaves as Vault's HTTP API does.
//
// A secret-id is stored by its keyed hash only: HMAC-SHA-256 under a key of its role's own, so that nothing stored helps
// to find it, nor shows that two roles were given the same one. That protects secret-ids of high entropy, as the vault
// makes them (122 random bits). A custom secret-id is as strong as what was chosen: whoever has the storage's keys can
// try guesses against the hash at the speed of SHA-256.
//
// A login reads two records, the role and the secret-id, and writes nothing if the secret-id may be used without limit.
// The uses of one with a limit are a counter that takes each use when the transaction is judged: no use is given twice,
// whatever runs at once on whatever nodes, and logins don't wait for each other. A login that fails takes no use.
//
// Expiry is judged at use, by cluster time. Secret-ids that have ended, by time or by use, are cleared away when others
// are made, some at a time, and by tidy/secret-id; until then nobody is shown them.
//
// Where things are in the mount's storage:
//
//	names/<role name>                         → key of the role
//	roles/<key>                               → role, as JSON; the key is the SHA-256 of its role-id
//	secrets/<hash>                            → secret-id, as JSON
//	uses/<hash>                               → counter of the uses left, for secret-ids with a limit
//	accessors/<role uid>/<shard>/<accessor>   → hash of the secret-id; the shard is the accessor's first digit
//	gone/<role uid>                           → a mark: the role is deleted, and may have secret-ids left to clear away
//	tidy                                      → where the last tidy stopped
package approle

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"

	"conclave"
)

const kind = "approle"

// Limits of this package.
const (
	maxRoleName   = 256               // bytes of a role's name
	maxRoleID     = 512               // bytes of a role-id
	maxSecretID   = 4096              // bytes of a secret-id
	maxMetadata   = 63                // entries of a secret-id's metadata; a token's has the role's name beside them
	maxText       = 512               // bytes of a key or a value of metadata
	maxCIDRs      = 256               // networks of one list
	maxNumUses    = 1 << 31           // uses of a secret-id
	maxTTL        = 100 * 365 * 86400 // seconds of a secret-id's life, a hundred years
	clearOnDelete = 500               // secret-ids that deleting a role removes at once; later writes and tidy go on
	clearOnWrite  = 100               // secret-ids of deleted roles that writing another role removes
	sweepEvery    = 8                 // one in so many new secret-ids looks for others that have ended
	sweepNames    = 32                // and looks at so many; on average four for each new one, which bounds what lies about
	listChecked   = 5000              // accessors of which a listing leaves out those that have ended
	tidyNames     = 2000              // secret-ids that one tidy looks at
)

const (
	namesDir     = "names/"
	rolesDir     = "roles/"
	secretsDir   = "secrets/"
	usesDir      = "uses/"
	accessorsDir = "accessors/"
	goneDir      = "gone/"
	tidyPath     = "tidy"
)

// Plugin is the method's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Logins of machines: a role-id and a secret-id.",
		Open: func(map[string]string) (conclave.Engine, error) { return Engine{}, nil },
		Auth: true,
	}
}

// Engine serves the routes. It has no state.
type Engine struct{}

var _ conclave.Renewer = Engine{}

// Kind is "approle".
func (Engine) Kind() string { return kind }

// Routes are those of roles, of their fields, of secret-ids and of logins.
func (Engine) Routes() []conclave.Route {
	routes := append(roleRoutes(), fieldRoutes()...)
	routes = append(routes, secretRoutes()...)
	return append(routes, accessorRoutes()...)
}

// uuid makes a random (version 4) UUID, RFC 9562: 122 bits of randomness.
func uuid(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", conclave.Errorf(conclave.Internal, "no randomness for an identifier")
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:], nil
}

// keyOf is where the role of a role-id is stored. Role-ids are no secrets, but may have any characters.
func keyOf(roleID string) string {
	sum := sha256.Sum256([]byte(roleID))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func damaged(what string) error {
	return conclave.Errorf(conclave.Internal, "the stored record of a %s is damaged", what)
}

// mark is the value of an entry that says all by its name.
func mark() []byte { return []byte{1} }
