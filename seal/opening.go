package seal

import (
	"context"
	"time"
)

const (
	openPause    = 500 * time.Millisecond // between attempts to open a node
	sealPatience = 5 * time.Second        // that a share waits for a node that has just started to know the seal
)

// KeepOpening opens a node that has just started, if it takes until ctx ends: by the static seal's key, if that is asked for,
// or with the shares of a ceremony that runs.
func (v *Vault) KeepOpening(ctx context.Context, static bool) {
	for v.Sealed() && ctx.Err() == nil {
		if !v.awaitBlob(ctx, openPause) {
			continue
		}
		if static {
			if _, err := v.OpenStatic(ctx); err != nil {
				v.Logger.Warn("auto-unseal does not succeed yet", "error", err)
			}
		}
		if v.Fetch(ctx); !v.Sealed() {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(openPause):
		}
	}
}

// AwaitSeal waits a moment for a node that has just started to know the seal of its vault: it learns what it has applied from
// the leader.
func (v *Vault) AwaitSeal(ctx context.Context) { v.awaitBlob(ctx, sealPatience) }

func (v *Vault) awaitBlob(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		applied := v.State.Applied()
		if b, _, _, err := v.blob(); b != nil || err != nil {
			return true // what can't be read, the attempt to open tells
		}
		if v.State.WaitApplied(ctx, applied+1) != nil {
			return false
		}
	}
}
