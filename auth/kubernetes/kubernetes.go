// Package kubernetes lets in the service accounts of a Kubernetes cluster. Who logs in shows the account's token; the
// cluster's API server is asked whether it is good (TokenReview), and tells whose it is. Where the keys that sign the
// tokens are configured as well, the signature is checked first, so that strangers can't make the API server work.
//
// The API server's word is what counts: that the account exists still, and so does the pod or secret that the token is
// bound to. What the token says of itself must agree with it. Times are judged by cluster time too.
//
// Absent is use_annotations_as_alias_metadata.
package kubernetes

import (
	"conclave"
	"conclave/internal/outbound"
)

const kind = "kubernetes"

// Limits of this package.
const (
	maxConfig   = 256 << 10 // bytes of the settings' JSON
	maxRole     = 128 << 10 // bytes of a role's JSON
	maxKeys     = 64        // pem_keys
	maxRoleName = 256       // bytes
	maxSelector = 4096      // bytes of a label selector
	maxLocal    = 256 << 10 // bytes of a file of the pod's own
)

// Where things are in the mount's storage.
const (
	configPath = "config"
	roleDir    = "role/"
)

// localDir is where a pod finds its own token and the cluster's authority.
const localDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// Engine serves one mount. What it keeps are connections.
type Engine struct {
	local   string // localDir
	clients outbound.Pool
}

var (
	_ conclave.Engine  = (*Engine)(nil)
	_ conclave.Renewer = (*Engine)(nil)
)

// Plugin is the method's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{Kind: kind, Doc: "Log in with the token of a Kubernetes service account.", Auth: true,
		Open: func(map[string]string) (conclave.Engine, error) { return &Engine{local: localDir}, nil }}
}

// Kind is kubernetes.
func (e *Engine) Kind() string { return kind }

// Routes are the operations that the engine serves.
func (e *Engine) Routes() []conclave.Route {
	roleWrite := conclave.WriteRoute(conclave.Update, "role/{name}", roleWriteDoc, writeRole)
	roleWrite.Exists = roleExists
	login := conclave.ReadRoute(conclave.Update, "login", loginDoc, login).With(conclave.Public)
	login.Gather, login.Prepare = gatherLogin, e.review
	return []conclave.Route{
		conclave.ReadRoute(conclave.Read, "config", configReadDoc, readConfig),
		conclave.WriteRoute(conclave.Update, "config", configWriteDoc, writeConfig),
		conclave.ReadRoute(conclave.List, "role", roleListDoc, listRoles),
		conclave.ReadRoute(conclave.Read, "role/{name}", roleReadDoc, readRole),
		roleWrite,
		conclave.WriteRoute(conclave.Delete, "role/{name}", roleDeleteDoc, deleteRole),
		login,
	}
}
