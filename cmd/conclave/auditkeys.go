package main

import (
	"context"
	"errors"
	"time"

	"conclave/audit"
	"conclave/store"
)

const (
	// auditKeyPause is the time between looks for keys of audit records that are no more.
	auditKeyPause = time.Minute
	// auditKeyLife is how long such a key is kept after it was the active one: a node that was cut off since before may
	// still send a record of a request that it answered with "again".
	auditKeyLife = 30 * 24 * time.Hour
)

// dropAuditKeys destroys keys of audit records that were all pruned. It runs on the leader until ctx ends.
func (d *daemon) dropAuditKeys(ctx context.Context) error {
	for {
		if !d.store.Locked() {
			err := d.internalTx(ctx, func(tx *store.Tx) error { return d.dropUnusedAuditKeys(ctx, tx, auditKeyLife) })
			if err != nil && ctx.Err() == nil {
				d.log.Debug("keys of pruned audit records are dropped later", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(auditKeyPause):
		}
	}
}

func (d *daemon) dropUnusedAuditKeys(ctx context.Context, tx *store.Tx, life time.Duration) error {
	log := d.state.Audit()
	base := log.Shown().Base
	if base.Seq == 0 || len(tx.Keyring().AuditData) == 1 {
		return nil // nothing was pruned, or there is nothing to drop
	}
	first := time.Time{}
	err := log.Read(ctx, base.Seq, func(f audit.Frame) bool {
		first = time.Unix(0, f.Stamp)
		return false
	})
	if errors.Is(err, audit.ErrPruned) || err == nil && first.IsZero() {
		return nil // it moves; the next look will see
	}
	if err != nil {
		return err
	}
	keyring := tx.Keyring().Clone()
	defer keyring.Wipe()
	if keyring.DropAuditBefore(first.Add(-life).Unix()) == 0 {
		return nil
	}
	return tx.PutKeyring(keyring)
}
