package revoke

import (
	"context"
	"errors"
	"time"

	"conclave"
	"conclave/lease"
	"conclave/store"
)

// warnPause is the time between looks at which leases are about to expire.
const warnPause = 5 * time.Second

// Warn tells of leases that are about to expire, until ctx ends. It is for the leader.
func (r *Reaper) Warn(ctx context.Context) error {
	for {
		if !r.Store.Locked() {
			if err := r.warnAll(ctx); err != nil && ctx.Err() == nil {
				r.Logger.Debug("leases that are about to expire are told of later", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(warnPause):
		}
	}
}

func (r *Reaper) warnAll(ctx context.Context) error {
	all, err := r.Store.Namespaces()
	if err != nil {
		return err
	}
	for _, at := range all {
		err = errors.Join(err, r.warn(ctx, at.Path))
	}
	return err
}

func (r *Reaper) warn(ctx context.Context, path string) error {
	for range stepsInTurn {
		var found *lease.Warnings
		err := r.Store.Look(path, func(system conclave.Tx) (err error) {
			found, err = lease.FindWarnings(system)
			return err
		})
		if err != nil || found == nil {
			return err
		}
		if err := r.Store.Change(ctx, path, func(_ *store.Tx, system conclave.System) error { return found.Tell(system) }); err != nil {
			return err
		}
	}
	return nil
}
