package seal

import (
	"context"
	"errors"

	"conclave"
	"conclave/cluster"
	"conclave/crypto"
	"conclave/fsm"
)

// tryOpen combines the shares when there are enough and opens this node.
func (v *Vault) tryOpen(ctx context.Context, b *blob) error {
	v.mu.Lock()
	if v.root != nil || len(v.shares) < b.Threshold {
		v.mu.Unlock()
		return nil
	}
	shares := make([][]byte, 0, len(v.shares))
	for _, held := range v.shares {
		_ = held.share.Use(func(share []byte) error {
			shares = append(shares, append([]byte(nil), share...))
			return nil
		})
	}
	v.mu.Unlock()
	defer func() {
		for _, share := range shares {
			crypto.Wipe(share)
		}
	}()
	unsealKey, err := combineKey(shares[:b.Threshold])
	if err != nil {
		return conclave.Errorf(conclave.Invalid, "the shares don't combine to a key")
	}
	defer crypto.Wipe(unsealKey)
	root, err := crypto.UnwrapRootKey(unsealKey, b.Shamir, b.aad(kindShamir))
	if err != nil {
		return conclave.Errorf(conclave.Internal, "the combined shares don't open the root key: the seal blob was changed")
	}
	return v.open(ctx, root)
}

// OpenStatic opens this node with the key of the static seal, if the vault has one. It reports whether it is open.
func (v *Vault) OpenStatic(ctx context.Context) (bool, error) {
	if !v.Sealed() {
		return true, nil
	}
	b, _, _, err := v.blob()
	if err != nil || b == nil || v.StaticKey == nil {
		return false, err
	}
	if b.Kind != kindStatic {
		return false, conclave.Errorf(conclave.Invalid, "a static seal is configured, but this vault was initialised with shares")
	}
	root, err := crypto.UnwrapRootKey(v.StaticKey, b.Static, b.aad(kindStatic))
	if err != nil {
		return false, conclave.Errorf(conclave.Invalid, "the configured static seal key does not open this vault")
	}
	return true, v.open(ctx, root)
}

// open moves root into locked memory, checks that it binds the blob, and lets transactions begin.
func (v *Vault) open(ctx context.Context, root []byte) error {
	defer crypto.Wipe(root)
	b, item, tag, err := v.blob()
	if err != nil {
		return err
	}
	aead, err := crypto.NewAEAD(root)
	if err != nil {
		return err
	}
	if err := aead.Bound(item, tag); err != nil {
		return conclave.Errorf(conclave.Internal, "the root key does not bind the seal blob: it was changed")
	}
	v.mu.Lock()
	if v.root != nil {
		v.mu.Unlock()
		return nil
	}
	held := v.arena.Hold(root)
	if err := v.Store.Unlock(rootKey{held}, b.cluster()); err != nil {
		held.Wipe()
		v.mu.Unlock()
		return err
	}
	v.root = held
	v.forgetLocked()
	v.mu.Unlock()
	v.Gate.Resume()
	v.Node.SetReady(true)
	v.Logger.Info("this node is open")
	if err := v.markOpened(ctx); err != nil {
		v.Logger.Warn("can't note that the vault was opened: initialisation stays repeatable", "error", err)
	}
	return nil
}

// markOpened ends the time in which initialisation may be repeated.
func (v *Vault) markOpened(ctx context.Context) error {
	for range 3 {
		tx, err := v.Store.Begin()
		if err != nil {
			return err
		}
		opened, err := tx.Plain(openedItem)
		if err != nil || opened != nil {
			tx.Close()
			return err
		}
		if err = tx.PutPlain(openedItem, []byte{1}); err == nil {
			_, err = tx.Commit(ctx, fsm.AuditRecord{})
		}
		tx.Close()
		if err == nil {
			return nil
		}
		if v.Sealed() {
			return err
		}
	}
	return errors.New("other changes kept coming in between")
}

// SealAll closes the whole cluster: every member drains and seals itself. It returns when this node is sealed; members
// that could not be reached are named in the error.
func (v *Vault) SealAll(ctx context.Context) error {
	err := v.eachPeer(ctx, func(ctx context.Context, peer cluster.Member) error {
		if _, err := v.Node.Call(ctx, peer.NodeID, methodClose, nil); err != nil {
			return conclave.Errorf(conclave.Unavailable, "node %s could not be reached: seal it there with `conclave operator seal -node=%s`", peer.NodeID, peer.NodeID)
		}
		return nil
	})
	v.SealNode(ctx)
	return err
}

// SealOther closes one other member.
func (v *Vault) SealOther(ctx context.Context, nodeID string) error {
	if nodeID == v.Node.Self().NodeID {
		v.SealNode(ctx)
		return nil
	}
	_, err := v.Node.Call(ctx, nodeID, methodClose, nil)
	return err
}

// SealNode drains this node, wipes its keys and tells the process to replace itself.
func (v *Vault) SealNode(ctx context.Context) {
	v.Node.SetReady(false)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := v.Gate.Drain(drain); err != nil {
		v.Logger.Warn("sealing without waiting longer for requests in flight", "error", err)
	}
	v.Store.Lock()
	v.mu.Lock()
	wasOpen := v.root != nil
	if wasOpen {
		v.root.Wipe()
		v.root = nil
	}
	v.forgetLocked()
	v.mu.Unlock()
	if wasOpen {
		v.Logger.Info("this node is sealed")
		v.Closed()
	}
}

func (v *Vault) receiveClose(ctx context.Context, from cluster.Member, _ []byte) ([]byte, error) {
	v.Logger.Info("sealing, as another member asks", "node", from.NodeID)
	v.SealNode(ctx)
	return nil, nil
}
