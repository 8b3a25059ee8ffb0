package main

import (
	"conclave"
	"conclave/auth/approle"
	"conclave/auth/cert"
	"conclave/auth/jwt"
	"conclave/auth/kubernetes"
	"conclave/auth/ldap"
	"conclave/auth/userpass"
	"conclave/engine/cubbyhole"
	"conclave/engine/database"
	"conclave/engine/kv"
	"conclave/engine/pki"
	"conclave/engine/rotate"
	"conclave/engine/ssh"
	"conclave/engine/totp"
	"conclave/engine/transit"
)

// plugins is the one list of secrets engines and auth methods that can be mounted, with what this node brings to them.
func plugins(rotation rotate.Settings) []conclave.Plugin {
	return []conclave.Plugin{
		approle.Plugin(),
		cert.Plugin(),
		jwt.Plugin(),
		jwt.OIDCPlugin(),
		kubernetes.Plugin(),
		ldap.Plugin(),
		userpass.Plugin(),
		cubbyhole.Plugin(),
		database.Plugin(),
		kv.Plugin(),
		pki.Plugin(),
		rotate.Plugin(rotation),
		transit.Plugin(),
		ssh.Plugin(),
		totp.Plugin(),
	}
}

// mountable finds plug-ins by kind.
type mountable struct{ rotation rotate.Settings }

// Plugin returns the secrets engine, or the auth method, of a kind.
func (m mountable) Plugin(kind string, auth bool) (conclave.Plugin, bool) {
	for _, plugin := range plugins(m.rotation) {
		if plugin.Kind == kind && plugin.Auth == auth {
			return plugin, true
		}
	}
	return conclave.Plugin{}, false
}
