package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"conclave/fsm"
	"conclave/store"
	"conclave/token"
)

// Leader-only work beside requests.
const (
	expiryPause  = time.Second
	expiryBatch  = 256 // tokens that one transaction clears
	membersPause = 2 * time.Second
)

// internalTx runs work as a transaction of the vault's own, again after a conflict, a bounded number of times.
func (d *daemon) internalTx(ctx context.Context, work func(*store.Tx) error) error {
	const attempts = 8
	for range attempts {
		tx, err := d.store.Begin()
		if err != nil {
			return err
		}
		err = work(tx)
		if err == nil && tx.Writing() {
			_, err = tx.Commit(ctx, fsm.AuditRecord{})
		}
		tx.Close()
		conflict, again := errors.AsType[*store.ErrConflict](err)
		if !again {
			return err
		}
		if err := d.store.WaitApplied(ctx, conflict.Index); err != nil {
			return err
		}
	}
	return errors.New("other changes kept coming in between")
}

// expireTokens clears tokens whose time has come, and what revoked ones left. They are dead already: this is tidying.
func (d *daemon) expireTokens(ctx context.Context) error {
	for {
		if !d.store.Locked() {
			if err := d.internalTx(ctx, d.clearTokens); err != nil && ctx.Err() == nil {
				d.log.Debug("clearing expired tokens goes on later", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(expiryPause):
		}
	}
}

func (d *daemon) clearTokens(tx *store.Tx) error {
	system := tx.System()
	names, err := token.Due(system, expiryBatch)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if _, err := token.Expire(system, names); err != nil {
			return err
		}
	}
	_, _, err = token.Tidy(system, expiryBatch)
	return err
}

// signMembers lets this node, while it leads and is open, sign lists of members with the cluster's key, and signs the
// first one.
func (d *daemon) signMembers(ctx context.Context) error {
	signs := false
	for {
		if d.store.Locked() {
			signs = false
			d.cluster.SetSigner(nil, nil)
		} else if !signs || !d.cluster.MembersSigned() {
			err := d.signOnce(ctx)
			signs = err == nil
			if err != nil && ctx.Err() == nil {
				d.log.Warn("the list of members is not signed yet", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(membersPause):
		}
	}
}

func (d *daemon) signOnce(ctx context.Context) error {
	tx, err := d.store.Begin()
	if err != nil {
		return err
	}
	private := tx.Keyring().ClusterPrivate
	tx.Close()
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the keyring has no cluster key")
	}
	sign := func(message []byte) []byte { return ed25519.Sign(private, message) }
	d.cluster.SetSigner(public, sign)
	if d.cluster.MembersSigned() {
		return nil
	}
	return d.cluster.SignList(ctx, public, sign)
}
