package seal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"conclave"
	"conclave/cluster"
	"conclave/crypto"
)

// Messages between members. Bodies with shares are sealed to the receiver's key.
const (
	methodShares = "seal/shares" // here are shares: sealed shareMessage
	methodFetch  = "seal/fetch"  // give me what you have: answered with a sealed shareMessage
	methodReset  = "seal/reset"  // forget the shares of this ceremony
	methodOpened = "seal/opened" // I have opened with the shares that I fetched
	methodClose  = "seal/close"  // seal yourself

	shareInfo = "conclave shares v1"
)

// shareMessage is what members pass on: all that the sender has.
type shareMessage struct {
	Nonce  string   `json:"nonce"`
	Shares [][]byte `json:"shares"`
}

// Submit takes one share from its holder, recognises it, passes it to all members, and opens this node when there are
// enough. The error says why a share is refused.
func (v *Vault) Submit(ctx context.Context, share []byte) (Status, error) {
	b, _, _, err := v.blob()
	if err != nil {
		return Status{}, err
	}
	if b == nil {
		return Status{}, errNotInitialized
	}
	err = v.admitShare(b, share)
	v.recordCeremony(ctx, "sys/unseal", err)
	if err != nil {
		return Status{}, err
	}
	v.passOn(ctx, share)
	if err := v.tryOpen(ctx, b); err != nil {
		return Status{}, err
	}
	return v.Status()
}

// admitShare keeps a share that belongs to this vault and isn't here yet. An open node admits it for the others' sake.
func (v *Vault) admitShare(b *blob, share []byte) error {
	at := b.share(share)
	if at < 0 {
		return conclave.Errorf(conclave.Invalid, "this is no share of this vault: it is damaged, or from another vault or an earlier key")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.expireLocked()
	v.keepOnlyLocked(b)
	if v.root != nil {
		return nil
	}
	if _, again := v.shares[at]; again {
		if len(v.shares) >= b.Threshold {
			return nil // there are enough, but this node could not open: try once more
		}
		return conclave.Errorf(conclave.Invalid, "this share was submitted already: another holder's is needed")
	}
	v.shares[at] = heldShare{share: v.arena.Hold(slices.Clone(share)), since: v.Node.Now(), salt: [32]byte(b.Salt)}
	if v.nonce == "" {
		var nonce [16]byte
		_, _ = rand.Read(nonce[:])
		v.nonce = hex.EncodeToString(nonce[:])
	}
	return nil
}

// expireLocked forgets shares that have been here too long.
func (v *Vault) expireLocked() {
	now := v.Node.Now()
	for at, held := range v.shares {
		if held.since.IsZero() { // it came before this node knew the cluster's time
			held.since = now
			v.shares[at] = held
		}
		if now.Sub(held.since) > shareLife {
			held.share.Wipe()
			delete(v.shares, at)
		}
	}
	if len(v.shares) == 0 {
		v.nonce, v.owed = "", nil
	}
}

// keepOnlyLocked forgets shares of an earlier initialisation.
func (v *Vault) keepOnlyLocked(b *blob) {
	for at, held := range v.shares {
		if held.salt != [32]byte(b.Salt) {
			held.share.Wipe()
			delete(v.shares, at)
		}
	}
	if len(v.shares) == 0 {
		v.nonce = ""
	}
}

func (v *Vault) forgetLocked() {
	for at, held := range v.shares {
		held.share.Wipe()
		delete(v.shares, at)
	}
	v.nonce, v.owed = "", nil
}

// Reset forgets the shares submitted so far, on every member. It needs no token, so it can't be asked for at any rate:
// what is refused for that leaves no record and does nothing.
func (v *Vault) Reset(ctx context.Context) (Status, error) {
	if !v.mayReset() {
		return Status{}, errResets
	}
	v.mu.Lock()
	v.forgetLocked()
	v.mu.Unlock()
	v.recordCeremony(ctx, "sys/unseal", nil)
	_ = v.eachPeer(ctx, func(ctx context.Context, peer cluster.Member) error {
		_, err := v.Node.Call(ctx, peer.NodeID, methodReset, nil)
		return err
	})
	return v.Status()
}

var errResets = conclave.Errorf(conclave.Limited, "resets come too fast: nothing was done, wait a second")

func (v *Vault) mayReset() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.Node.Now()
	if last, ok := v.last["reset"]; ok && now.Sub(last) < resetPause {
		return false
	}
	v.last["reset"] = now
	return true
}

// eachPeer runs f for every other member at once. The first error is returned, when all are done.
func (v *Vault) eachPeer(ctx context.Context, f func(context.Context, cluster.Member) error) error {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	self := v.Node.Self().NodeID
	var group errgroup.Group
	for _, member := range v.Node.Members() {
		if member.NodeID != self {
			group.Go(func() error { return f(ctx, member) })
		}
	}
	return group.Wait()
}

// message holds everything this node has, and also, which need not be kept here.
func (v *Vault) message(also []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := shareMessage{Nonce: v.nonce}
	if also != nil {
		m.Shares = append(m.Shares, also)
	}
	for _, at := range slices.Sorted(maps.Keys(v.shares)) {
		if err := v.shares[at].share.Use(func(share []byte) error {
			if !slices.Equal(share, also) {
				m.Shares = append(m.Shares, slices.Clone(share))
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	defer func() {
		for i := range m.Shares {
			if also == nil || i > 0 {
				crypto.Wipe(m.Shares[i])
			}
		}
	}()
	return json.Marshal(m)
}

// passOn gives the other members all shares that this node has. One that can't be reached, or can't use them yet, fetches
// them when it can: until it has, this node keeps them, also once it is open.
func (v *Vault) passOn(ctx context.Context, share []byte) {
	body, err := v.message(share)
	if err != nil {
		v.Logger.Error("can't pass shares on", "error", err)
		return
	}
	defer crypto.Wipe(body)
	self := v.Node.Self().NodeID
	owed := map[string]bool{}
	for _, member := range v.Node.Members() {
		if member.NodeID != self {
			owed[member.NodeID] = true
		}
	}
	v.mu.Lock()
	v.owed = owed
	v.mu.Unlock()
	_ = v.eachPeer(ctx, func(ctx context.Context, peer cluster.Member) error {
		sealed, err := v.sealFor(peer, body)
		if err == nil {
			_, err = v.Node.Call(ctx, peer.NodeID, methodShares, sealed)
		}
		if err != nil {
			v.Logger.Warn("a member did not get the shares: it will ask for them", "node", peer.NodeID, "error", err)
			return nil
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.owed, peer.NodeID)
		return nil
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.root != nil && len(v.owed) == 0 { // it has opened meanwhile
		v.forgetLocked()
	}
}

func (v *Vault) sealFor(peer cluster.Member, body []byte) ([]byte, error) {
	return crypto.SealTo(peer.HPKEPublic, []byte(shareInfo), []byte(peer.NodeID), body)
}

func (v *Vault) unsealFrom(sealed []byte) (shareMessage, error) {
	var m shareMessage
	body, err := crypto.OpenWith(v.HPKEPrivate, []byte(shareInfo), []byte(v.Node.Self().NodeID), sealed)
	if err != nil {
		return m, err
	}
	defer crypto.Wipe(body)
	if err := json.Unmarshal(body, &m); err != nil || len(m.Shares) > MaxShares {
		return m, conclave.Errorf(conclave.Invalid, "malformed message with shares")
	}
	return m, nil
}

// receiveShares takes what another member passes on.
func (v *Vault) receiveShares(ctx context.Context, _ cluster.Member, sealed []byte) ([]byte, error) {
	m, err := v.unsealFrom(sealed)
	if err != nil {
		return nil, err
	}
	return nil, v.adopt(ctx, m)
}

func (v *Vault) adopt(ctx context.Context, m shareMessage) error {
	b, _, _, err := v.blob()
	if err != nil {
		return err
	}
	if b == nil && len(m.Shares) > 0 { // this node lags: the others have seen the initialisation
		return conclave.Errorf(conclave.Unavailable, "this node does not know the vault's initialisation yet")
	}
	if b == nil {
		return nil
	}
	for _, share := range m.Shares {
		_ = v.admitShare(b, share) // foreign and repeated ones are simply not kept
		crypto.Wipe(share)
	}
	v.mu.Lock()
	if v.root == nil && m.Nonce != "" && len(v.shares) > 0 {
		v.nonce = m.Nonce
	}
	v.mu.Unlock()
	return v.tryOpen(ctx, b)
}

// lendShares answers a member that starts in the middle of a ceremony, or that the shares didn't reach. One that had opened
// and was sealed since gets nothing.
func (v *Vault) lendShares(_ context.Context, from cluster.Member, _ []byte) ([]byte, error) {
	v.mu.Lock()
	v.expireLocked()
	mayHave := v.root == nil || v.owed[from.NodeID]
	v.mu.Unlock()
	body, err := json.Marshal(shareMessage{})
	if mayHave {
		body, err = v.message(nil)
	}
	if err != nil {
		return nil, err
	}
	defer crypto.Wipe(body)
	return v.sealFor(from, body)
}

// Fetch asks the other members for the shares of a running ceremony. It is for a node that has just started.
func (v *Vault) Fetch(ctx context.Context) {
	if !v.Sealed() {
		return
	}
	_ = v.eachPeer(ctx, func(ctx context.Context, peer cluster.Member) error {
		sealed, err := v.Node.Call(ctx, peer.NodeID, methodFetch, nil)
		if err != nil {
			return nil // not up, or not listed: there is nothing to be had there
		}
		m, err := v.unsealFrom(sealed)
		if err != nil {
			return nil
		}
		return v.adopt(ctx, m)
	})
	if v.Sealed() {
		return
	}
	_ = v.eachPeer(ctx, func(ctx context.Context, peer cluster.Member) error {
		_, _ = v.Node.Call(ctx, peer.NodeID, methodOpened, nil) // who doesn't hear it forgets the shares in time
		return nil
	})
}

// receiveOpened forgets the shares once nobody is owed them any more.
func (v *Vault) receiveOpened(_ context.Context, from cluster.Member, _ []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.owed, from.NodeID)
	if v.root != nil && len(v.owed) == 0 {
		v.forgetLocked()
	}
	return nil, nil
}

func (v *Vault) receiveReset(context.Context, cluster.Member, []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forgetLocked()
	return nil, nil
}
