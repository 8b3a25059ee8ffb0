// Package userpass is the auth method for people with a name and a password. It behaves as Vault's HTTP API does.
//
// Passwords are stored as bcrypt hashes and nothing else. bcrypt sees 72 bytes and stops at none: longer passwords, and
// those with a NUL byte, are refused rather than cut. Hashes are made and compared outside of transactions, a bounded
// number at once on each node, so that a flood of logins leaves the node time for everything else.
//
// A login costs the same whoever logs in: users that aren't there are compared with a hash that nothing matches, and
// hashes that were imported with a lower cost are followed by as much work as they lack. All answer alike, so that neither
// words nor time tell who has an account. A name is used in lower case.
//
// Where things are in the mount's storage:
//
//	users/<name>   → user, as JSON
//	cost           → the cost that a login takes, as a decimal number, if a hash of a higher cost was imported
package userpass

import (
	"runtime"

	"conclave"
)

const kind = "userpass"

// Limits of this package.
const (
	// hashCost is the bcrypt cost of passwords: Vault's and bcrypt's default, about 50 ms of one core. The hashes are
	// encrypted besides, so the cost holds off only those who have the vault's keys, and is paid by whoever logs in.
	hashCost = 10
	// maxCost is the highest cost that is imported: 200 ms for each login of the mount.
	maxCost     = 12
	maxPassword = 72  // bytes that bcrypt sees
	maxName     = 256 // bytes of a user's name
	maxMetadata = 63  // entries of alias metadata
	maxText     = 512 // bytes of a key or a value of metadata
	maxWaiting  = 128 // logins and passwords that wait for their turn on a node, per mount; beyond, they are told to come back
)

const (
	usersDir = "users/"
	costPath = "cost"
)

// Plugin is the method's line in the list of plug-ins.
func Plugin() conclave.Plugin { return plugin(hashCost) }

func plugin(cost int) conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Logins of people: a name and a password.",
		Open: func(map[string]string) (conclave.Engine, error) { return open(cost), nil },
		Auth: true,
	}
}

// Engine serves the routes. It has no state but the turns of those who hash.
type Engine struct {
	cost  int // of new hashes
	turns *turns
}

var _ conclave.Renewer = (*Engine)(nil)

func open(cost int) *Engine {
	return &Engine{cost: cost, turns: newTurns(max(1, runtime.GOMAXPROCS(0)/2))}
}

// Kind is "userpass".
func (*Engine) Kind() string { return kind }

// Routes are those of users and of logins.
func (e *Engine) Routes() []conclave.Route { return append(e.userRoutes(), e.loginRoute()) }
