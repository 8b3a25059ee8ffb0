// Package cert is the auth method for clients that hold a TLS certificate. A role pins a certificate authority, or one
// certificate, and says what else a certificate must be to log in with it.
//
// The listener lets anybody connect and has each client prove that it holds the key of the certificate it presents. All
// trust is decided here, in the transaction: chains, validity by cluster time, names, uses, revocation lists. Only the
// questions to OCSP responders are asked before. A token can be renewed with the certificate that it was got with and
// no other. The method keeps no private keys, follows no redirects and trusts no certificate of the system.
package cert

import (
	"strings"

	"conclave"
)

const kind = "cert"

// Limits.
const (
	maxName  = 128  // bytes of a role's or a CRL's name
	maxRoles = 1000 // tried by a login that names none
	maxList  = 256  // patterns of one kind in a role
	maxText  = 1024 // bytes of one pattern
	maxPEM   = 256 << 10
)

// Plugin is the method's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Logs in with TLS client certificates.",
		Open: func(map[string]string) (conclave.Engine, error) { return Engine{}, nil },
		Auth: true,
	}
}

// Engine serves the routes. It has no state.
type Engine struct{}

var _ conclave.Renewer = Engine{}

// Kind is "cert".
func (Engine) Kind() string { return kind }

// Routes are those of roles, of revocation lists, of the configuration and the login.
func (Engine) Routes() []conclave.Route {
	login := conclave.WriteRoute(conclave.Update, "login", loginDoc, login).With(conclave.Public)
	login.Gather, login.Prepare = gatherLogin, runErrands
	login.ClearRequest = []string{"name"}
	revocations := conclave.WriteRoute(conclave.Update, "crls/{name}", crlDoc, writeCRL)
	revocations.Prepare = prepareCRL
	return []conclave.Route{
		login, revocations,
		conclave.ReadRoute(conclave.Read, "crls/{name}", "Read what a revocation list revokes, and how long it is valid.", readCRL),
		conclave.WriteRoute(conclave.Delete, "crls/{name}", "Remove a revocation list: what it revoked can log in again.", deleteCRL),
		conclave.ReadRoute(conclave.List, "crls", "List the revocation lists.", listNames("crls/")),
		conclave.WriteRoute(conclave.Update, "certs/{name}", roleDoc, writeRole),
		conclave.ReadRoute(conclave.Read, "certs/{name}", "Read a role.", readRole),
		conclave.WriteRoute(conclave.Delete, "certs/{name}", "Remove a role: its tokens can't be renewed any more.", deleteRole),
		conclave.ReadRoute(conclave.List, "certs", "List the roles.", listNames("certs/")),
		conclave.WriteRoute(conclave.Update, "config", "Configure the method.", writeConfig),
		conclave.ReadRoute(conclave.Read, "config", "Read the configuration.", readConfig),
	}
}

// canonicalName is a role's or a CRL's name in its one spelling: lower case, of letters, digits, "_", "-" and ".".
func canonicalName(name string) (string, error) {
	name = strings.ToLower(name)
	strange := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	}
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, strange) {
		return "", conclave.Errorf(conclave.Invalid, "a name is 1 to %d letters, digits, underscores, hyphens and dots", maxName)
	}
	return name, nil
}
