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
// with the caller's token.
func (r *run) keepLease(tx *store.Tx, resp *conclave.Response) error {
	if resp == nil || resp.Lease == nil || resp.Lease.Data == nil {
		return nil
	}
	c := r.call
	opened, err := r.pipeline.routing.open(c.entry)
	if err != nil {
		return err
	}
	if _, ok := opened.engine.(conclave.Leaser); !ok {
		return conclave.Errorf(conclave.Internal, "an engine that ends no leases gave one")
	}
	if r.leaseLetters == "" {
		if r.leaseLetters, err = lease.Mint(r.pipeline.random); err != nil {
			return err
		}
	}
	at := c.here()
	grant := lease.Grant{Mount: c.mount, Path: r.request.Path[min(len(c.mount.Path), len(r.request.Path)):], Lease: resp.Lease, Letters: r.leaseLetters}
	if c.token != nil {
		grant.OwnerEnds, grant.Within = c.token.Expires, c.token.Batch
		if name := c.token.Owner(); name != "" {
			grant.Owner = &lease.Owner{NamespaceID: c.home.ID, Namespace: c.home.Path, Token: name}
		}
	}
	grant.Counted, err = quota.TakeLease(tx.System(), at.system, quota.Lease{Namespace: at.Namespace, Mount: c.mount.Path, Path: r.request.Path})
	if err != nil {
		return err
	}
	kept, err := lease.New(at.system, grant)
	if err != nil {
		return err
	}
	resp.Lease = kept.Answer(tx.Now())
	if grant.Owner == nil {
		return nil
	}
	value, err := json.Marshal(lease.Held{NamespaceID: at.ID, Namespace: at.Path, ID: kept.ID})
	if err != nil {
		return err
	}
	return token.Hold(c.home.system, grant.Owner.Token, kept.Key(), value)
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
	inner, err := view.Tx().Space(entry.Space, "", entry.Mount())
	return opened.engine, inner, err
}
