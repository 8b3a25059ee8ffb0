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
	"slices"
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
	healthPatience = 2 * time.Second // for a new leader to hear from its voters
	watchPause     = 20 * time.Millisecond
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
		i.GetAddress() == "" || len(i.GetAddress()) > roster.MaxAddress || len(i.GetServerId()) > roster.MaxAddress:
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
	if known != nil && bytes.Equal(known.TLSPublic, conn.SPKI[:]) {
		return wire.Reception_ADDED, n.addServer(i)
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

// addServer puts a listed node into Raft's configuration at its present address, as a non-voter if it is new there. An
// older server id of the same node goes first: its log is gone.
func (n *Node) addServer(i *wire.Introduction) error {
	id, address := raft.ServerID(i.GetServerId()), raft.ServerAddress(i.GetAddress())
	var present *raft.Server
	for _, s := range n.servers() {
		switch {
		case s.ID == id:
			present = &s
		case disk.NodeOf(string(s.ID)) == i.GetNodeId():
			if err := n.raft.RemoveServer(s.ID, 0, changeTimeout).Error(); err != nil {
				return err
			}
		}
	}
	switch {
	case present == nil:
		n.logger.Info("node joins", "node", i.GetNodeId())
		return n.raft.AddNonvoter(id, address, 0, changeTimeout).Error()
	case present.Address == address:
		return nil
	case present.Suffrage == raft.Voter:
		return n.raft.AddVoter(id, address, 0, changeTimeout).Error()
	}
	return n.raft.AddNonvoter(id, address, 0, changeTimeout).Error()
}

// tendMembers makes the first list, removes servers that aren't listed, and promotes those that have caught up.
func (n *Node) tendMembers(ctx context.Context) error {
	return every(ctx, tendInterval, func() error {
		list, err := n.storedList()
		if err != nil {
			return err
		}
		if list == nil {
			_, err := n.changeList(ctx, nil, nil, func(l *List) error {
				if l.Number > 1 {
					return nil // made meanwhile
				}
				l.Put(n.ownEntry())
				return nil
			})
			return err
		}
		n.health.keep(list)
		for _, s := range n.servers() {
			if err := n.tendServer(list, s); err != nil {
				return err
			}
		}
		return nil
	})
}

func (n *Node) tendServer(list *List, s raft.Server) error {
	nodeID := disk.NodeOf(string(s.ID))
	if list.Find(nodeID) == nil && nodeID != n.id.NodeID {
		n.logger.Info("node removed", "node", nodeID)
		return n.raft.RemoveServer(s.ID, 0, changeTimeout).Error()
	}
	if own := raft.ServerAddress(n.port.Advertised()); nodeID == n.id.NodeID && s.Address != own {
		return n.raft.AddVoter(s.ID, own, 0, changeTimeout).Error() // this leader has moved
	}
	r, fresh := n.health.of(nodeID)
	if s.Suffrage == raft.Voter || !fresh || r.applied+caughtUp < n.fsm.Applied() || r.term != n.raft.CurrentTerm() {
		return nil
	}
	n.logger.Info("node has caught up and votes", "node", nodeID)
	return n.raft.AddVoter(s.ID, s.Address, 0, changeTimeout).Error()
}

func (n *Node) ownEntry() Member {
	return Member{NodeID: n.id.NodeID, TLSPublic: n.id.SPKI[:], HPKEPublic: n.config.HPKEPublic, AuditPublic: n.config.AuditPublic,
		ServerID: n.id.ServerID(), Address: n.port.Advertised()}
}

// storedList is the list in the replicated state, nil if there is none.
func (n *Node) storedList() (*List, error) {
	v := n.fsm.View()
	defer v.Release()
	version, value, err := v.Get(membersKey)
	if err != nil || version == 0 {
		return nil, err
	}
	return roster.Decode(value)
}

// watchMembers adopts the list as this node applies it.
func (n *Node) watchMembers(ctx context.Context) {
	var seen, index uint64
	for ctx.Err() == nil {
		if version := n.adoptStored(seen); version != seen {
			seen = version
		}
		index = n.fsm.Applied()
		if n.fsm.WaitApplied(ctx, index+1) != nil {
			return
		}
		select { // at most so often, however much is applied
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// adoptStored adopts the stored list if its version isn't seen, and returns its version.
func (n *Node) adoptStored(seen uint64) uint64 {
	v := n.fsm.View()
	defer v.Release()
	version, value, err := v.Get(membersKey)
	if err != nil || version == 0 || version == seen {
		return seen
	}
	l, err := roster.Decode(value)
	if err == nil {
		err = n.roster.Adopt(l)
	}
	if err != nil && !errors.Is(err, roster.ErrStale) {
		n.logger.Error("the stored list of members isn't accepted", "error", err)
	}
	return version
}

// RemovePeer takes a node off the list, which cuts it off, and out of Raft's configuration. It is Precondition if the
// rest would have no quorum of healthy voters, Sealed if the list is signed and the leader is sealed.
func (n *Node) RemovePeer(ctx context.Context, nodeID string) error {
	if n.IsLeader() && nodeID == n.id.NodeID {
		if err := n.TransferLeadership(ctx); err != nil {
			return err
		}
		if err := n.awaitOtherLeader(ctx); err != nil {
			return err
		}
	}
	if !n.IsLeader() {
		_, err := n.callLeader(ctx, callRemove, []byte(nodeID))
		return err
	}
	patience, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	err := n.sparePeer(nodeID)
	for err != nil && patience.Err() == nil { // a new leader has yet to hear from everybody
		select {
		case <-patience.Done():
		case <-time.After(tendInterval):
		}
		err = n.sparePeer(nodeID)
	}
	if err != nil {
		return err
	}
	_, err = n.changeList(ctx, nil, nil, func(l *List) error {
		if l.Find(nodeID) == nil {
			return conclave.Errorf(conclave.NotFound, "no such node")
		}
		l.Drop(nodeID)
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range n.servers() {
		if disk.NodeOf(string(s.ID)) == nodeID {
			if err := n.raft.RemoveServer(s.ID, 0, changeTimeout).Error(); err != nil {
				n.logger.Warn("remove node from raft; it will be tried again", "node", nodeID, "error", err)
			}
		}
	}
	return nil
}

// sparePeer checks that the cluster goes on without the node.
func (n *Node) sparePeer(nodeID string) error {
	voters, healthy := 0, 0
	for _, s := range n.servers() {
		id := disk.NodeOf(string(s.ID))
		if s.Suffrage != raft.Voter || id == nodeID {
			continue
		}
		voters++
		if _, fresh := n.health.of(id); fresh || id == n.id.NodeID {
			healthy++
		}
	}
	if voters == 0 || healthy <= voters/2 {
		return conclave.Errorf(conclave.Precondition, "without that node, %d of %d voters would be healthy: no quorum", healthy, voters)
	}
	return nil
}

func (n *Node) awaitOtherLeader(ctx context.Context) error {
	for {
		news := n.leaderNews()
		if leader := n.leaderID(); leader != "" && leader != n.id.NodeID {
			return nil
		}
		select {
		case <-ctx.Done():
			return unavailable("no other leader was elected in time", busyRetry)
		case <-news:
		case <-time.After(routePause):
		}
	}
}

// Leave hands leadership over and takes this node off the list. It runs on, cut off, until Shutdown.
func (n *Node) Leave(ctx context.Context) error {
	err := n.RemovePeer(ctx, n.id.NodeID)
	if !conclave.Is(err, conclave.Unavailable) {
		return err
	}
	// The answer may have been cut off with this node: ask whether it is still on the list.
	if asked := n.introduce(ctx); asked != nil {
		n.logger.Debug("asked after leaving", "answer", asked)
	}
	if l := n.roster.List(); l != nil && l.Find(n.id.NodeID) == nil {
		return nil
	}
	return err
}

// Members are the nodes of the list, with what is known of them besides.
func (n *Node) Members() []Member {
	l := n.roster.List()
	if l == nil {
		return nil
	}
	members := slices.Clone(l.Members)
	servers := n.servers()
	for i := range members {
		m := &members[i]
		for _, s := range servers {
			if disk.NodeOf(string(s.ID)) == m.NodeID {
				m.ServerID, m.Address, m.Voter = string(s.ID), string(s.Address), s.Suffrage == raft.Voter
			}
		}
		if g, ok := n.gossip.Peer(m.NodeID); ok {
			m.APIAddress, m.Ready = g.API, g.Ready
		}
		if m.NodeID == n.id.NodeID {
			m.APIAddress, m.Ready = n.config.APIAddress, n.ready.Load()
		}
	}
	return members
}
