package pipeline

import (
	"encoding/json"

	"conclave"
	"conclave/lease"
	"conclave/mount"
	"conclave/quota"
	"conclave/store"
	"conclave/token"
)

// keepLease keeps the lease of an answer that has to be ended one day, in the transaction that made the answer. It ends
// with the caller's token. What was intended and isn't answered is ended.
func (r *run) keepLease(tx *store.Tx, resp *conclave.Response) error {
	intended := r.intent != nil && r.intent.lease != ""
	if resp == nil || resp.Lease == nil || resp.Lease.Data == nil && !intended {
		return r.withdraw(tx)
	}
	if err := r.outlives(); err != nil {
		return err
	}
	if r.leaseLetters == "" && !intended {
		letters, err := lease.Mint(r.pipeline.random)
		if err != nil {
			return err
		}
		r.leaseLetters = letters
	}
	grant, err := r.grantOf(resp.Lease, r.leaseLetters)
	if err != nil {
		return err
	}
	var kept *lease.Record
	if intended {
		kept, err = lease.Confirm(r.call.here().system, r.intent.lease, grant)
	} else {
		kept, err = r.take(tx, grant, lease.New)
	}
	if err != nil {
		return err
	}
	resp.Lease = kept.Answer(tx.Now())
	return nil
}

// grantOf is what a lease of the request's is made of.
func (r *run) grantOf(given *conclave.Lease, letters string) (lease.Grant, error) {
	c := r.call
	opened, err := r.pipeline.routing.open(c.entry)
	if err != nil {
		return lease.Grant{}, err
	}
	if _, ok := opened.engine.(conclave.Leaser); !ok {
		return lease.Grant{}, errNoLeaser
	}
	grant := lease.Grant{Mount: c.mount, Path: r.request.Path[min(len(c.mount.Path), len(r.request.Path)):], Lease: given, Letters: letters}
	if c.token != nil {
		grant.OwnerEnds, grant.Within = c.token.Expires, c.token.Batch
		if name := c.token.Owner(); name != "" {
			grant.Owner = &lease.Owner{NamespaceID: c.home.ID, Namespace: c.home.Path, Token: name}
		}
	}
	return grant, nil
}

// take keeps a new lease where it is, at its token and at what counts it.
func (r *run) take(tx *store.Tx, grant lease.Grant, keep func(conclave.Tx, lease.Grant) (*lease.Record, error)) (kept *lease.Record, err error) {
	c, at := r.call, r.call.here()
	grant.Counted, err = quota.TakeLease(tx.System(), at.system, quota.Lease{Namespace: at.Namespace, Mount: c.mount.Path, Path: r.request.Path})
	if err != nil {
		return nil, err
	}
	kept, err = keep(at.system, grant)
	if err != nil || grant.Owner == nil {
		return kept, err
	}
	value, err := json.Marshal(lease.Held{NamespaceID: at.ID, Namespace: at.Path, ID: kept.ID})
	if err != nil {
		return nil, err
	}
	if err := token.Hold(c.home.system, grant.Owner.Token, kept.Key(), value); err != nil {
		return nil, err
	}
	return kept, token.Watch(c.home.system, c.token)
}

// outlives refuses a lease to a token whose last use this is: it would end at once.
func (r *run) outlives() error {
	c := r.call
	if c.token == nil || c.token.NumUses == 0 {
		return nil
	}
	left, err := token.UsesLeft(c.home.system, c.token)
	if err == nil && left == 0 {
		err = errLastUse
	}
	return err
}

// Engine opens the engine of a mount of the namespace whose system space is given, with the mount's storage in the same
// transaction. A mount that is gone is Invalid.
func (p *Pipeline) Engine(system conclave.Tx, mountUUID string) (conclave.Engine, conclave.Tx, error) {
	table, err := mount.Load(system, p.routing.defaults)
	if err != nil {
		return nil, nil, err
	}
	entry := table.ByUUID(mountUUID)
	if entry == nil || entry.Space.ID == 0 {
		return nil, nil, conclave.Errorf(conclave.Invalid, "the mount is gone")
	}
	opened, err := p.routing.open(entry)
	if err != nil {
		return nil, nil, err
	}
	view, ok := system.(*store.View)
	if !ok || opened.perCaller {
		return nil, nil, conclave.Errorf(conclave.Internal, "an engine is opened outside the system space")
	}
	inner, err := view.Mounted(entry.Space, "", entry.Mount())
	return opened.engine, inner, err
}
