package pipeline

import (
	"context"
	"slices"

	"conclave"
	"conclave/identity"
	"conclave/mount"
	"conclave/policy"
	"conclave/store"
	"conclave/token"
)

// login makes the token of a login, in the transaction that found out who logs in.
func (r *run) login(tx *store.Tx, resp *conclave.Response) (*conclave.Response, error) {
	c := r.call
	if c.entry == nil || !c.entry.Auth() || !c.route.Public {
		return nil, conclave.Errorf(conclave.Internal, "only auth methods log in")
	}
	if r.minted == nil {
		minted, err := token.Mint(r.pipeline.random)
		if err != nil {
			return nil, err
		}
		ids, err := identity.Mint(r.pipeline.random)
		if err != nil {
			return nil, err
		}
		r.minted, r.ids = &minted, &ids
	}
	who, err := identity.Attach(c.here().system, c.mount.Accessor, resp.Login, *r.ids)
	if err != nil {
		return nil, err
	}
	instead, warnings, err := r.secondFactor(resp.Login, who)
	if err != nil {
		return nil, err
	}
	if instead != nil {
		instead.Warnings = append(resp.Warnings, instead.Warnings...)
		return instead, nil
	}
	granted := token.Granted{EntityID: who.EntityID, Policies: policy.WithoutRoot(who.Policies)}
	made, err := token.Login(c.here().system, *r.minted, resp.Login, granted, c.mount, r.request.Path)
	if err != nil {
		return nil, err
	}
	made.Data, made.Warnings = resp.Data, slices.Concat(resp.Warnings, warnings, made.Warnings)
	return made, nil
}

// logins lets the auth methods have their say when tokens are renewed.
type logins struct{ routing *routing }

var errMountGone = conclave.Errorf(conclave.Invalid, "the auth method that the token comes from is gone: log in again")

// RenewLogin has the method of a mount look at a login again. The answer is Invalid when the mount is gone.
func (l *logins) RenewLogin(ctx context.Context, tx conclave.Tx, mountUUID string, login *conclave.Login) (*conclave.TokenTerms, *conclave.Mount, error) {
	table, err := mount.Load(tx, l.routing.defaults)
	if err != nil {
		return nil, nil, err
	}
	entry := table.ByUUID(mountUUID)
	if entry == nil || !entry.Auth() {
		return nil, nil, errMountGone
	}
	opened, err := l.routing.open(entry)
	if err != nil {
		return nil, nil, err
	}
	renewer, ok := opened.engine.(conclave.Renewer)
	if !ok {
		return &login.Terms, entry.Mount(), nil
	}
	system, ok := tx.(*store.View)
	if !ok {
		return nil, nil, conclave.Errorf(conclave.Internal, "tokens are renewed outside the system space")
	}
	view, err := system.Tx().Space(entry.Space, "", entry.Mount())
	if err != nil {
		return nil, nil, err
	}
	terms, err := renewer.RenewLogin(ctx, view, login)
	if err != nil {
		return nil, nil, err
	}
	if terms == nil {
		terms = &login.Terms
	}
	return terms, entry.Mount(), terms.Check()
}
