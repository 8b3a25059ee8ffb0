// Package jwt lets in who shows a token of an issuer that the mount trusts: a signed JWT sent to login (roles of type
// jwt), or an ID token that the vault fetches itself after a person has logged in to the issuer with a browser (roles of
// type oidc, OpenID Connect Core 1.0, authorization code with PKCE). It is mounted as kind jwt or oidc, which differ in
// nothing but their name.
//
// Signatures are checked before the transaction, with keys that are configured or fetched from the issuer over TLS and
// kept in memory for minutes; times are checked within it, by cluster time. A browser login that has begun is kept in the
// mount's storage for ten minutes, so that it can end on any node, and ends once.
//
// Absent are what providers add beyond the standard (provider_config), oauth2_metadata, and policies made from claims.
package jwt

import (
	"crypto/rand"
	"io"

	"conclave"
	"conclave/internal/jws"
	"conclave/internal/outbound"
)

// Limits of this package.
const (
	maxRoleName = 256       // bytes
	maxRole     = 128 << 10 // bytes of a role's JSON
	maxConfig   = 256 << 10 // bytes of the settings' JSON
	maxSources  = 16        // jwks_pairs
	maxKeys     = 64        // jwt_validation_pubkeys
	maxName     = 512       // bytes of who logs in, and of a group
	maxGroups   = 1024
	maxMappings = 60  // claim_mappings
	maxMetaKey  = 128 // bytes of a name in metadata
	maxMetadata = 512 // bytes of a claim that is copied to metadata, as the identity store takes it
)

// Where things are in the mount's storage. Roles are below role/, logins that have begun below attempts/.
const (
	configPath = "config"
	roleDir    = "role/"
)

// Engine serves one mount. What it keeps are copies of documents that issuers publish.
type Engine struct {
	kind      string
	random    io.Reader
	clients   outbound.Pool
	keys      *documents[[]jws.Key]
	providers *documents[*provider]
}

var (
	_ conclave.Engine  = (*Engine)(nil)
	_ conclave.Renewer = (*Engine)(nil)
)

// Plugin is the line of the kind jwt in the list of plug-ins.
func Plugin() conclave.Plugin {
	return plugin("jwt", "Log in with a signed token (JWT), or with a browser (OIDC).")
}

// OIDCPlugin is the line of the kind oidc in the list of plug-ins.
func OIDCPlugin() conclave.Plugin {
	return plugin("oidc", "Log in with a browser (OIDC), or with a signed token (JWT).")
}

func plugin(kind, doc string) conclave.Plugin {
	return conclave.Plugin{Kind: kind, Doc: doc, Auth: true, Open: func(map[string]string) (conclave.Engine, error) {
		return newEngine(kind), nil
	}}
}

func newEngine(kind string) *Engine {
	return &Engine{kind: kind, random: rand.Reader, keys: newDocuments[[]jws.Key](), providers: newDocuments[*provider]()}
}

// Kind is jwt or oidc.
func (e *Engine) Kind() string { return e.kind }

// Routes are the operations that the engine serves.
func (e *Engine) Routes() []conclave.Route {
	configWrite := conclave.WriteRoute(conclave.Update, "config", configWriteDoc, writeConfig)
	configWrite.Prepare = e.tryConfig
	roleWrite := conclave.WriteRoute(conclave.Update, "role/{name}", roleWriteDoc, writeRole)
	roleWrite.Exists = roleExists
	login := conclave.ReadRoute(conclave.Update, "login", loginDoc, login).With(conclave.Public)
	login.Gather, login.Prepare = gatherLogin, e.verifyLogin
	begin := conclave.WriteRoute(conclave.Update, "oidc/auth_url", beginDoc, beginAttempt).With(conclave.Public)
	begin.Gather, begin.Prepare = gatherBegin, e.prepareAttempt
	finish := conclave.WriteRoute(conclave.Read, "oidc/callback", finishDoc, finishAttempt).With(conclave.Public)
	finish.Gather, finish.Prepare = gatherFinish, e.redeem
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "config", configReadDoc, readConfig),
		configWrite,
		conclave.ReadRoute(conclave.List, "role", roleListDoc, listRoles),
		conclave.ReadRoute(conclave.Read, "role/{name}", roleReadDoc, readRole),
		roleWrite,
		conclave.WriteRoute(conclave.Delete, "role/{name}", roleDeleteDoc, deleteRole),
		login,
		begin,
		finish,
		conclave.WriteRoute(conclave.Update, "oidc/callback", postDoc, postAttempt).With(conclave.Public),
	}
}
