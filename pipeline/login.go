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
	entry, engine, view, err := l.method(tx, mountUUID)
	if err != nil {
		return nil, nil, err
	}
	renewer, ok := engine.(conclave.Renewer)
	if !ok {
		return &login.Terms, entry.Mount(), nil
	}
	terms, err := renewer.RenewLogin(ctx, view, login)
	if err != nil {
		return nil, nil, err
	}
	if terms == nil {
		terms = &login.Terms
	}
	if login.Groups != nil {
		if err := identity.Regroup(tx, entry.Accessor, login); err != nil {
			return nil, nil, err
		}
	}
	return terms, entry.Mount(), terms.Check()
}

// renewal is what an auth method asks outside of the vault about.
type renewal struct {
	Engine   conclave.RenewalAsker
	Gathered any
}

// GatherRenewal has the method of a mount read what it asks outside about; nil if it asks nobody.
func (l *logins) GatherRenewal(view conclave.View, mountUUID string, login *conclave.Login) (any, error) {
	_, engine, inner, err := l.method(view, mountUUID)
	if err != nil {
		return nil, err
	}
	asker, ok := engine.(conclave.RenewalAsker)
	if !ok {
		return nil, nil
	}
	gathered, err := asker.GatherRenewal(inner, login)
	if err != nil || gathered == nil {
		return nil, err
	}
	return renewal{asker, gathered}, nil
}

// AskRenewal has the method ask.
func (l *logins) AskRenewal(ctx context.Context, gathered any) (any, error) {
	r, ok := gathered.(renewal)
	if !ok {
		return nil, conclave.Errorf(conclave.Internal, "a renewal asks about nothing")
	}
	return r.Engine.AskRenewal(ctx, r.Gathered)
}

// method is the auth method of a mount, with a view of its storage.
func (l *logins) method(view conclave.View, mountUUID string) (*mount.Entry, conclave.Engine, conclave.View, error) {
	table, err := mount.Load(view, l.routing.defaults)
	if err != nil {
		return nil, nil, nil, err
	}
	entry := table.ByUUID(mountUUID)
	if entry == nil || !entry.Auth() {
		return nil, nil, nil, errMountGone
	}
	opened, err := l.routing.open(entry)
	if err != nil {
		return nil, nil, nil, err
	}
	system, ok := view.(*store.View)
	if !ok {
		return nil, nil, nil, conclave.Errorf(conclave.Internal, "tokens are renewed outside the system space")
	}
	inner, err := system.Mounted(entry.Space, "", entry.Mount())
	return entry, opened.engine, inner, err
}
