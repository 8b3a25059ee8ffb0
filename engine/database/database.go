// Package database is the secrets engine for logins of databases: PostgreSQL, MySQL and MariaDB, Redis and Valkey. A dynamic
// role makes a login for each who asks, which lives as long as its lease; a static role rotates the password of a login
// that is there. It serves Vault's API.
//
// What is done to a database is written down before: the name of a login that will be made, with the lease that ends it,
// and the password that will be set. A node may die at any point without leaving a login that no lease knows, or a
// password that nobody knows.
//
// Sub-packages: driver is what all kinds of databases share, username makes names, postgres, mysql and redis are the kinds.
package database

import (
	"conclave"
)

const kind = "database"

// Where things are in the mount's storage.
const (
	connectionDir = "config/" // NAME: connection
	rootDir       = "root/"   // NAME: root
	roleDir       = "role/"   // NAME: role
	staticDir     = "static/" // NAME: static
	importDir     = "import/" // NAME: static: one that a role begins with, until its password is set
	reservedDir   = "name/"   // HASH: a login's name that a lease has, where names could be made twice
)

// Names of work.
const (
	rootWork   = "root/"
	staticWork = "static/"
)

// Limits of what is stored.
const (
	maxName       = 256 // bytes of a connection's or role's name
	maxStatements = 64  // of one kind
	maxText       = 16 << 10
	maxList       = 1024 // allowed roles
)

// Plugin is the engine's line in the list of plug-ins. The connections to databases are shared by all that it opens.
func Plugin() conclave.Plugin {
	shared, names := newPools(), &templates{}
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Logins of databases that live as long as their leases, and passwords that rotate.",
		Open: func(map[string]string) (conclave.Engine, error) { return &Engine{shared, names}, nil },
	}
}

// Engine serves the routes. Its state is a cache: connections to databases by what they were made of, and templates.
type Engine struct {
	pools     *pools
	templates *templates
}

var (
	_ conclave.Leaser = (*Engine)(nil)
	_ conclave.Worker = (*Engine)(nil)
)

// Kind is "database".
func (e *Engine) Kind() string { return kind }

// Routes are those of connections, of dynamic roles and of static ones.
func (e *Engine) Routes() []conclave.Route {
	routes := e.connectionRoutes()
	routes = append(routes, e.rootRoutes()...)
	routes = append(routes, e.roleRoutes()...)
	return append(routes, e.staticRoutes()...)
}

// checkName holds a name against what Vault takes for one.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return conclave.Errorf(conclave.Invalid, "a name has 1 to %d bytes", maxName)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.' && r != '@' {
			return conclave.Errorf(conclave.Invalid, "a name has letters, digits and _ - . @ only")
		}
	}
	return nil
}

type nameIn struct {
	Name string `path:"name" doc:"The name."`
}

func notFound() error { return &conclave.Error{Kind: conclave.NotFound} }
