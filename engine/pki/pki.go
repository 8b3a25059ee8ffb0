// Package pki is the secrets engine for X.509 certificates: authorities with their keys, roles that say which
// certificates may be had, and what becomes of certificates once they are issued: revocation lists, OCSP, tidying.
//
// Keys are made before the transaction opens; certificates are signed in it, for their validity and the issuer's is judged
// by the transaction's time. Signatures are a function of what is signed, so a handler may run again. A certificate that is
// revoked is on the revocation list, and so answered by OCSP, on every node, as of the answer to the request that revoked
// it: lists are made when they are asked for, from what is stored, and kept until something changes.
//
// Stored are, besides the settings at config/…:
//
//	role/NAME               a role
//	key/ID  keyname/NAME    a private key; the id that a name stands for
//	issuer/ID  issuername/NAME
//	cert/HH/SERIAL          a certificate; HH are the last two digits of the serial number, hexadecimal
//	expiry/DAY/HH/SERIAL    the same serial number by the time when its certificate ends, for tidying
//	revoked/HH/SERIAL       that it is revoked
//	register/AUTHORITY/head  what an authority has revoked: package revocation
//	register/AUTHORITY/N
//	expiry-watch            which day's certificates are told of next: package expiring
//	acme/…                  package acme
package pki

import (
	"context"
	"slices"
	"time"

	"conclave"
	"conclave/engine/pki/acme"
	"conclave/engine/pki/authority"
	"conclave/engine/pki/expiring"
	"conclave/engine/pki/revocation"
	"conclave/engine/pki/stored"
	"conclave/engine/pki/tidying"
)

const kind = "pki"

// Plugin is the engine's line in the list of plug-ins.
func Plugin() conclave.Plugin {
	return conclave.Plugin{
		Kind: kind,
		Doc:  "Issues and revokes X.509 certificates.",
		Open: func(map[string]string) (conclave.Engine, error) { return Engine{}, nil },
	}
}

// Engine serves the routes. It has no state.
type Engine struct{}

var (
	_ conclave.Leaser = Engine{}
	_ conclave.Worker = Engine{}
)

// Kind is "pki".
func (Engine) Kind() string { return kind }

// Routes are those of authorities, roles, certificates and revocation.
func (Engine) Routes() []conclave.Route {
	return slices.Concat(authority.Routes(), roleRoutes(), issueRoutes(), certRoutes(), revocation.Routes(), tidying.Routes(), acmeService().Routes())
}

// RenewLease refuses: a certificate ends when it says.
func (Engine) RenewLease(context.Context, conclave.View, *conclave.GrantedLease, time.Duration) (*conclave.Lease, error) {
	return nil, conclave.Errorf(conclave.Invalid, "certificates can't be renewed: issue another one")
}

// GatherRevoke has nothing to read: all is done in the vault.
func (Engine) GatherRevoke(conclave.View, *conclave.GrantedLease) (any, error) { return nil, nil }

// Revoke has nothing to do outside of the vault.
func (Engine) Revoke(context.Context, *conclave.GrantedLease, any) error { return nil }

// ForgetLease revokes the certificate, unless it has ended or is gone.
func (Engine) ForgetLease(tx conclave.Tx, lease *conclave.GrantedLease) error {
	return revocation.ForgetLease(tx, lease)
}

// BeginWork does a step of tidying, or of telling what ends soon, and more of it is due at once, if there is more; or it
// begins with what ACME has to do.
func (Engine) BeginWork(ctx context.Context, tx conclave.Tx, name string) (any, error) {
	if acme.IsWork(name) {
		return acmeService().BeginWork(ctx, tx, name)
	}
	if name == stored.WatchName {
		return nil, expiring.Work(tx)
	}
	return nil, tidying.Work(tx, name)
}

// Work asks servers for ACME; tidying has nothing to do outside of the vault.
func (Engine) Work(ctx context.Context, name string, begun any) (any, error) {
	return acmeService().Work(ctx, name, begun)
}

// FinishWork records what came of it.
func (Engine) FinishWork(ctx context.Context, tx conclave.Tx, name string, begun, done any, failure error) error {
	return acmeService().FinishWork(ctx, tx, name, begun, done, failure)
}
