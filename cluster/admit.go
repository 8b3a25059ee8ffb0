package cluster

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"conclave"
	"conclave/cluster/disk"
	"conclave/cluster/port"
	"conclave/cluster/roster"
	"conclave/cluster/wire"
	"conclave/fsm"
)

// Limits of admission.
const (
	admitLife      = time.Hour // of a token, in cluster time
	maxAdmitTokens = 16        // at once
	admitPrefix    = fsm.Key("padmit/")
	admitText      = "conclave-admit."
	maxListTries   = 8
)

// signer signs lists with the cluster key.
type signer struct {
	public ed25519.PublicKey
	sign   func([]byte) []byte
}

// SetSigner gives the node the means to sign lists of members while it is unsealed; a nil sign takes them away. A signed
// list can be changed only by way of a leader that has a signer.
func (n *Node) SetSigner(public ed25519.PublicKey, sign func(message []byte) []byte) {
	if sign == nil {
		n.signer.Store(nil)
		return
	}
	n.signer.Store(&signer{bytes.Clone(public), sign})
}

// SignList signs the list of those present with the cluster key, and so pins that key on every node for good. It is
// called once, when init can't be repeated any more. It is Precondition if fewer nodes vote than bootstrap_expect, or
// if the list is signed by another key.
func (n *Node) SignList(ctx context.Context, public ed25519.PublicKey, sign func(message []byte) []byte) error {
	voters := 0
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters < n.config.BootstrapExpect {
		return conclave.Errorf(conclave.Precondition, "%d of %d nodes have joined", voters, n.config.BootstrapExpect)
	}
	_, err := n.changeList(ctx, nil, &signer{public, sign}, func(*List) error { return nil })
	return err
}

// Admit makes a token with which one more node may join, once, within an hour.
func (n *Node) Admit(ctx context.Context) (token string, err error) {
	raw := make([]byte, 32)
	rand.Read(raw)
	for range maxListTries {
		tx, err := n.admitTransaction(admitKey(raw))
		if err != nil {
			return "", err
		}
		o, err := n.Commit(ctx, tx)
		if err != nil {
			return "", err
		}
		if o.Verdict == fsm.Committed {
			return admitText + base64.RawURLEncoding.EncodeToString(raw), nil
		}
		if err := n.fsm.WaitApplied(ctx, o.Index); err != nil {
			return "", unavailable("this node lags", busyRetry)
		}
	}
	return "", unavailable("too many changes at once", busyRetry)
}

// admitTransaction adds a token and drops those that have expired.
func (n *Node) admitTransaction(key fsm.Key) (*fsm.Transaction, error) {
	v := n.fsm.View()
	defer v.Release()
	now := v.Time()
	tx := &fsm.Transaction{Snapshot: v.Index(), NotBefore: fsm.NotBeforeAny, NotAfter: now + int64(admitLife)}
	live := 0
	err := v.Scan(admitPrefix, admitPrefix, func(k fsm.Key, version uint64, value []byte) bool {
		if len(value) == 8 && int64(binary.BigEndian.Uint64(value)) > now {
			live++
			return true
		}
		tx.Reads = append(tx.Reads, fsm.Read{Key: k, Version: version})
		tx.Writes = append(tx.Writes, fsm.Write{Op: fsm.Delete, Key: k})
		return len(tx.Writes) < 4*maxAdmitTokens
	})
	if err != nil {
		return nil, err
	}
	if live >= maxAdmitTokens {
		return nil, conclave.Errorf(conclave.Limited, "%d admit tokens are out already", live)
	}
	tx.Reads = append(tx.Reads, fsm.Read{Key: key})
	tx.Writes = append(tx.Writes, fsm.Write{Op: fsm.Create, Key: key, Version: tx.Snapshot + 1,
		Value: binary.BigEndian.AppendUint64(nil, uint64(now+int64(admitLife)))})
	return tx, nil
}

// admitKey is where a token is kept: hashed, so that the state doesn't hold it.
func admitKey(raw []byte) fsm.Key {
	sum := sha256.Sum256(append([]byte("conclave admit v1\x00"), raw...))
	return admitPrefix + fsm.Key(hex.EncodeToString(sum[:16]))
}

// keyOf is where the token that a node shows is kept, "" if it isn't a token.
func keyOf(token string) fsm.Key {
	text, ok := strings.CutPrefix(token, admitText)
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != 32 {
		return ""
	}
	return admitKey(raw)
}

// membersKey is where the list of members is in the replicated state: readable while sealed.
const membersKey = fsm.Key("pmembers")

// errBadToken is all that a node with a wrong, used or expired token is told.
var errBadToken = conclave.Errorf(conclave.Denied, "an admit token is needed, and this isn't a valid one")

// changeList replaces the list of members by a changed successor, signed if it has to be. With a token, which may be
// empty only if token is nil, the token is used up in the same transaction.
func (n *Node) changeList(ctx context.Context, token *string, by *signer, change func(*List) error) (*List, error) {
	for range maxListTries {
		tx, list, err := n.listTransaction(token, by, change)
		if err != nil {
			return nil, err
		}
		o, err := n.CommitUrgent(ctx, tx)
		if err != nil {
			return nil, err
		}
		if o.Verdict == fsm.Committed {
			return list, n.roster.Adopt(list)
		}
		if err := n.fsm.WaitApplied(ctx, o.Index); err != nil {
			return nil, unavailable("this node lags", busyRetry)
		}
	}
	return nil, unavailable("too many changes at once", busyRetry)
}

func (n *Node) listTransaction(token *string, by *signer, change func(*List) error) (*fsm.Transaction, *List, error) {
	v := n.fsm.View()
	defer v.Release()
	tx := &fsm.Transaction{Snapshot: v.Index(), NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny}
	version, value, err := v.Get(membersKey)
	if err != nil {
		return nil, nil, err
	}
	list := &List{ClusterID: n.clusterID()}
	if version != 0 {
		if list, err = roster.Decode(value); err != nil {
			return nil, nil, err
		}
	}
	next := list.Successor()
	if err := change(next); err != nil {
		return nil, nil, err
	}
	if by == nil && list.Signed() {
		if by = n.signer.Load(); by == nil {
			return nil, nil, conclave.Errorf(conclave.Sealed, "the list of members can be changed only while the leader is unsealed")
		}
	}
	if by != nil {
		if list.Signed() && !bytes.Equal(by.public, list.ClusterKey) {
			return nil, nil, conclave.Errorf(conclave.Precondition, "the list of members is signed by another cluster key")
		}
		if err := next.Sign(by.public, by.sign); err != nil {
			return nil, nil, err
		}
	}
	if value, err = next.Encode(); err != nil {
		return nil, nil, err
	}
	tx.Reads = append(tx.Reads, fsm.Read{Key: membersKey, Version: version})
	op := fsm.Replace
	if version == 0 {
		op = fsm.Create
	}
	tx.Writes = append(tx.Writes, fsm.Write{Op: op, Key: membersKey, Version: tx.Snapshot + 1, Value: value})
	if token != nil {
		if err := n.useToken(v, tx, *token); err != nil {
			return nil, nil, err
		}
	}
	return tx, next, nil
}

// useToken adds to tx that the token is used up before it expires.
func (n *Node) useToken(v *fsm.View, tx *fsm.Transaction, token string) error {
	key := keyOf(token)
	if key == "" {
		return errBadToken
	}
	version, value, err := v.Get(key)
	if err != nil {
		return err
	}
	if version == 0 || len(value) != 8 {
		return errBadToken
	}
	tx.NotAfter = int64(binary.BigEndian.Uint64(value))
	if now, _ := n.clock.Now(); max(now, v.Time()) >= tx.NotAfter {
		return errBadToken
	}
	tx.Reads = append(tx.Reads, fsm.Read{Key: key, Version: version})
	tx.Writes = append(tx.Writes, fsm.Write{Op: fsm.Delete, Key: key})
	return nil
}

// introduced answers an introduction.
func (n *Node) introduced(ctx context.Context, conn *port.Conn, i *wire.Introduction) (*wire.Welcome, error) {
	proof, err := n.proof(conn, "asks", conn.SPKI, n.id.SPKI, i.GetNodeId(), i.GetServerId(), i.GetAddress())
	if err != nil || !hmac.Equal(proof, i.GetProof()) {
		return nil, errors.New("the caller doesn't know the cluster secret")
	}
	w := n.receive(ctx, conn, i)
	w.Wall = n.config.Wall().UnixNano()
	w.Proof, err = n.proof(conn, "answers", conn.SPKI, n.id.SPKI, w.GetClusterId(), string(w.GetList()), w.GetLeaderAddress())
	return w, err
}

func refused(reason string) *wire.Welcome {
	return &wire.Welcome{Reception: wire.Reception_REFUSED, Reason: reason}
}

// receive decides about an introduction whose proof is right.
func (n *Node) receive(ctx context.Context, conn *port.Conn, i *wire.Introduction) *wire.Welcome {
	own := n.clusterID()
	switch {
	case own == "":
		return &wire.Welcome{Reception: wire.Reception_NO_CLUSTER}
	case i.GetProbe():
		return &wire.Welcome{Reception: wire.Reception_KNOWN, ClusterId: own}
	case i.GetClusterId() != "" && i.GetClusterId() != own:
		return refused("this is another cluster")
	case !roster.ValidNodeID(i.GetNodeId()) || disk.NodeOf(i.GetServerId()) != i.GetNodeId() || i.GetNodeId() == n.id.NodeID ||
		i.GetAddress() == "" || max(len(i.GetAddress()), len(i.GetGossip()), len(i.GetServerId())) > roster.MaxAddress:
		return refused("these ids or this address can't be")
	}
	if term, _ := n.order.OpenTerm(); term == 0 {
		w := &wire.Welcome{Reception: wire.Reception_ELSEWHERE, ClusterId: own, LeaderId: n.leaderID()}
		w.LeaderAddress, _ = n.addressOf(w.LeaderId)
		return n.withList(w)
	}
	select {
	case n.joining <- struct{}{}:
		defer func() { <-n.joining }()
	case <-ctx.Done():
		return refused("too many nodes join at once")
	}
	reception, err := n.welcome(ctx, conn, i)
	if err != nil {
		n.logger.Warn("a node that wants to join is refused", "node", i.GetNodeId(), "error", err)
		w := refused("this node can't do it now")
		if e, ok := errors.AsType[*conclave.Error](err); ok {
			w.Reason = e.Error()
		}
		w.ClusterId = own
		return n.withList(w) // by which a removed node learns that it is
	}
	return n.withList(&wire.Welcome{Reception: reception, ClusterId: own, LeaderId: n.id.NodeID, LeaderAddress: n.port.Advertised()})
}

func (n *Node) withList(w *wire.Welcome) *wire.Welcome {
	if l := n.roster.List(); l != nil {
		if b, err := l.Encode(); err == nil {
			w.List = b
		}
	}
	return w
}

// welcome lists the node, or, if it is listed, adds it to Raft's configuration.
func (n *Node) welcome(ctx context.Context, conn *port.Conn, i *wire.Introduction) (wire.Reception, error) {
	list := n.roster.List()
	if list == nil {
		return 0, unavailable("the first list of members isn't made yet", 0)
	}
	known := list.Find(i.GetNodeId())
	// A certificate of an authority may outlive its disk; the other key doesn't, and shares are sealed to the listed one.
	if known != nil && bytes.Equal(known.TLSPublic, conn.SPKI[:]) && bytes.Equal(known.HPKEPublic, i.GetHpkePublic()) {
		return wire.Reception_ADDED, n.addServer(ctx, i)
	}
	var token *string
	if list.Signed() || len(list.Members) >= n.config.BootstrapExpect || i.GetToken() != "" || known != nil {
		token = &i.Token
	}
	m := Member{NodeID: i.GetNodeId(), TLSPublic: conn.SPKI[:], HPKEPublic: i.GetHpkePublic(), AuditPublic: i.GetAuditPublic(),
		ServerID: i.GetServerId(), Address: i.GetAddress()}
	_, err := n.changeList(ctx, token, nil, func(l *List) error {
		if len(l.Members) >= roster.MaxMembers {
			return conclave.Errorf(conclave.Limited, "the cluster has %d nodes already", roster.MaxMembers)
		}
		if token == nil && (l.Signed() || len(l.Members) >= n.config.BootstrapExpect || l.Find(m.NodeID) != nil) {
			return errBadToken
		}
		l.Put(m)
		return nil
	})
	return wire.Reception_LISTED, err
}

// addServer puts a listed node into Raft's configuration, as a non-voter, unless it is there, and keeps where it is now. An
// older server id of the same node goes first: its log is gone.
func (n *Node) addServer(ctx context.Context, i *wire.Introduction) error {
	if err := n.recordContact(ctx, i.GetNodeId(), roster.Contact{Cluster: i.GetAddress(), Gossip: i.GetGossip()}); err != nil {
		return err
	}
	id, present := raft.ServerID(i.GetServerId()), false
	for _, s := range n.servers() {
		switch {
		case s.ID == id:
			present = true
		case disk.NodeOf(string(s.ID)) == i.GetNodeId():
			if err := n.raft.RemoveServer(s.ID, 0, changeTimeout).Error(); err != nil {
				return err
			}
		}
	}
	if present {
		return nil
	}
	n.logger.Info("node joins", "node", i.GetNodeId())
	return n.raft.AddNonvoter(id, raftAddress(id), 0, changeTimeout).Error()
}
