package seal

import (
	"context"

	"conclave"
	"conclave/cluster"
	"conclave/crypto"
	"conclave/fsm"
	"conclave/store"
)

// tryOpen combines the shares when there are enough and opens this node.
func (v *Vault) tryOpen(ctx context.Context, b *blob) error {
	v.mu.Lock()
	v.keepOnlyLocked(b)
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

// open checks that root binds the blob, makes sure that initialisation can't be repeated any more, moves root into locked
// memory and lets transactions begin. On an error the node is as sealed as before.
func (v *Vault) open(ctx context.Context, root []byte) error {
	defer crypto.Wipe(root)
	v.opening.Lock()
	defer v.opening.Unlock()
	v.mu.Lock()
	isOpen, seals := v.root != nil, v.seals
	v.mu.Unlock()
	if isOpen {
		return nil
	}
	b, err := v.settleInit(ctx, root)
	if err != nil {
		return err
	}
	v.mu.Lock()
	if v.seals != seals {
		v.mu.Unlock()
		return errSealedMeanwhile
	}
	held := v.arena.Hold(root)
	if err := v.Store.Unlock(rootKey{held}, b.cluster()); err != nil {
		held.Wipe()
		v.mu.Unlock()
		return err
	}
	v.root = held
	if len(v.owed) == 0 {
		v.forgetLocked()
	}
	v.mu.Unlock()
	v.Gate.Resume()
	v.Node.SetReady(true)
	v.Logger.Info("this node is open")
	return nil
}

var errSealedMeanwhile = conclave.Errorf(conclave.Sealed, "the vault was sealed while this node was opening")

// settleAttempts bounds how often the first opening is noted again after a conflict.
const settleAttempts = 5

// settleInit returns the blob that root binds, once the cluster has noted that the vault was opened: from then on nobody
// can initialise it again, which needs no token and would wipe it. Only the first opening needs a quorum for that.
func (v *Vault) settleInit(ctx context.Context, root []byte) (*blob, error) {
	aead, err := crypto.NewAEAD(root)
	if err != nil {
		return nil, err
	}
	for range settleAttempts {
		b, mark, err := v.boundBlob(aead)
		if err != nil || mark == nil {
			return b, err
		}
		outcome, err := v.Node.Commit(ctx, mark)
		if err != nil {
			return nil, err
		}
		if err := v.State.WaitApplied(ctx, outcome.Index); err != nil {
			return nil, conclave.Errorf(conclave.Unavailable, "this node did not catch up in time: it stays sealed, try again")
		}
	}
	return nil, conclave.Errorf(conclave.Unavailable, "the first opening could not be noted: this node stays sealed, try again")
}

// boundBlob reads the blob, which must be bound by the root key, and returns the transaction that notes the first
// opening of the vault that it belongs to; nil if that is noted.
func (v *Vault) boundBlob(root *crypto.AEAD) (*blob, *fsm.Transaction, error) {
	view := v.State.View()
	defer view.Release()
	blobVersion, stored, err := view.Get(store.PlainKey(blobItem))
	if err != nil {
		return nil, nil, err
	}
	b, item, tag, err := readBlob(stored)
	if err != nil {
		return nil, nil, err
	}
	if b == nil {
		return nil, nil, errNotInitialized
	}
	if err := root.Bound(item, tag); err != nil {
		return nil, nil, conclave.Errorf(conclave.Internal, "the root key does not bind the seal blob: it was changed")
	}
	opened, _, err := view.Get(store.PlainKey(openedItem))
	if err != nil || opened != 0 {
		return b, nil, err
	}
	return b, &fsm.Transaction{Snapshot: view.Index(), NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny,
		Reads:  []fsm.Read{{Key: store.PlainKey(blobItem), Version: blobVersion}, {Key: store.PlainKey(openedItem)}},
		Writes: []fsm.Write{{Op: fsm.Create, Key: store.PlainKey(openedItem), Version: view.Index() + 1, Value: []byte{1}}}}, nil
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
	v.mu.Lock()
	v.seals++
	v.Store.Lock()
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
