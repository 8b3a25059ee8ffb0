package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"conclave"
	"conclave/fsm"
	"conclave/identity"
	"conclave/lockout"
	"conclave/mfa"
	"conclave/mount"
	"conclave/pipeline"
	"conclave/store"
	"conclave/token"
)

// Leader-only work beside requests.
const (
	expiryPause  = time.Second
	expiryBatch  = 256 // tokens, or records of their cubbyholes, that one transaction clears
	membersPause = 200 * time.Millisecond
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

// expireTokens clears tokens whose time has come, and what revoked ones left, in all namespaces. They are dead already:
// this is tidying.
func (d *daemon) expireTokens(ctx context.Context) error {
	sweeps := map[string]*sweep{} // namespace id → how far it is swept
	for {
		if !d.store.Locked() {
			if err := d.expireAll(ctx, sweeps); err != nil && ctx.Err() == nil {
				d.log.Debug("clearing what expired tokens left goes on later", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(expiryPause):
		}
	}
}

func (d *daemon) expireAll(ctx context.Context, sweeps map[string]*sweep) error {
	all, err := d.store.Namespaces()
	if err != nil {
		return err
	}
	maps.DeleteFunc(sweeps, func(id string, _ *sweep) bool {
		return !slices.ContainsFunc(all, func(n conclave.Namespace) bool { return n.ID == id })
	})
	for _, at := range all {
		s := sweeps[at.ID]
		if s == nil {
			s = &sweep{}
			sweeps[at.ID] = s
		}
		if err := d.inNamespace(ctx, at, clearTokens); err != nil {
			return err
		}
		if err := d.inNamespace(ctx, at, s.cubbyholes.clear); err != nil {
			return err
		}
		s.cubbyholes.advance()
		if err := d.inNamespace(ctx, at, s.factors.clear); err != nil {
			return err
		}
		s.factors.advance()
		if err := d.inNamespace(ctx, at, s.lockouts.clear); err != nil {
			return err
		}
		s.lockouts.advance()
	}
	return nil
}

// sweep is how far the parts of a namespace are swept that are too large for one step.
type sweep struct {
	cubbyholes cubbyholeSweep
	factors    factorSweep
	lockouts   lockoutSweep
}

// lockoutSweep goes over the wrong guesses at accounts, some at a time, and removes those that are forgotten by now.
type lockoutSweep struct {
	after string // the record that the last step ended with; "" begins anew
	next  string // where the step that runs will have ended
}

// advance notes that a step is committed, or will be done again later.
func (s *lockoutSweep) advance() { s.after = s.next }

func (s *lockoutSweep) clear(_ *store.Tx, system conclave.System) error {
	var failed error
	next, err := lockout.Tidy(system, s.after, expiryBatch, func(accessor string) lockout.Settings {
		settings, _, err := pipeline.LockoutSettings(system, accessor) // those of a mount that is gone are the defaults
		failed = errors.Join(failed, err)
		return settings
	})
	s.next = next
	return errors.Join(err, failed)
}

func clearTokens(_ *store.Tx, system conclave.System) error {
	names, err := token.Due(system, expiryBatch)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if _, err := token.Expire(system, names); err != nil {
			return err
		}
	}
	if _, _, err = token.Tidy(system, expiryBatch); err != nil {
		return err
	}
	_, _, err = identity.Tidy(system, expiryBatch)
	return err
}

// factorSweep goes over the entities that have second factors or unfinished logins, some at a time, and removes what is over
// or belongs to nobody any more. None of it can be used any longer.
type factorSweep struct {
	after string // the entity that the last step ended with; "" begins anew
	next  string // where the step that runs will have ended
}

// advance notes that a step is committed, or will be done again later.
func (s *factorSweep) advance() { s.after = s.next }

func (s *factorSweep) clear(_ *store.Tx, system conclave.System) (err error) {
	s.next, err = mfa.Tidy(system, s.after, expiryBatch, func(id string) (bool, error) { return directory{}.Entity(system, id) })
	return err
}

// cubbyholeSweep goes over the cubbyholes, some at a time, and removes what tokens that are no more have left there.
// Nobody could read it any longer.
type cubbyholeSweep struct {
	after string // the owner that the last step ended with; "" begins anew
	next  string // where the step that runs will have ended
}

// advance notes that a step is committed, or will be done again later.
func (s *cubbyholeSweep) advance() { s.after = s.next }

func (s *cubbyholeSweep) clear(tx *store.Tx, system conclave.System) error {
	s.next = s.after
	table, err := mount.Load(system, mount.Defaults{})
	if err != nil {
		return err
	}
	entry, _, ok := table.Find("cubbyhole/")
	if !ok {
		return nil
	}
	all, err := tx.Space(entry.Space, "", entry.Mount())
	if err != nil {
		return err
	}
	owners, err := all.List("", s.after, expiryBatch)
	if err != nil {
		return err
	}
	left, last := expiryBatch, ""
	for _, owner := range owners {
		alive, err := token.Exists(system, strings.TrimSuffix(owner, "/"))
		if err != nil {
			return err
		}
		if !alive {
			if left, err = clearTree(all, owner, left); err != nil {
				return err
			}
			if left == 0 {
				break // this owner may have more
			}
		}
		last = owner
	}
	switch {
	case left == 0 && last != "":
		s.next = last
	case left == 0:
		s.next = s.after
	case len(owners) < expiryBatch:
		s.next = ""
	default:
		s.next = last
	}
	return nil
}

// clearTree deletes at most limit values under dir and returns how many of limit are left.
func clearTree(view *store.View, dir string, limit int) (left int, err error) {
	names, err := view.List(dir, "", 0)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if limit == 0 {
			return 0, nil
		}
		if strings.HasSuffix(name, "/") {
			limit, err = clearTree(view, dir+name, limit)
		} else {
			limit--
			err = view.Delete(dir + name)
		}
		if err != nil {
			return 0, err
		}
	}
	return limit, nil
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
