package cluster

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"conclave"
	"conclave/fsm"
)

// patience bounds every wait of a test; what is waited for takes far less.
const patience = 30 * time.Second

// lab is a cluster in one process, over real TLS on loopback, whose links can be cut.
type lab struct {
	t      testing.TB
	dir    string
	expect int
	mu     sync.Mutex
	nodes  map[string]*labNode
	conns  map[*labConn]struct{}
	cut    map[string]bool // node → cut off from all others
}

type labNode struct {
	*Node
	state *fsm.FSM
	id    string
}

// labConn is a connection between two nodes.
type labConn struct {
	net.Conn
	lab      *lab
	from, to string
}

func (c *labConn) Close() error {
	c.lab.mu.Lock()
	delete(c.lab.conns, c)
	c.lab.mu.Unlock()
	return c.Conn.Close()
}

func newLab(t testing.TB, expect int) *lab {
	if test, ok := t.(*testing.T); ok {
		test.Parallel() // labs wait more than they work
	}
	l := &lab{t: t, dir: t.TempDir(), expect: expect, nodes: make(map[string]*labNode), conns: make(map[*labConn]struct{}), cut: make(map[string]bool)}
	t.Cleanup(func() {
		for id := range l.running() {
			l.stop(id)
		}
	})
	return l
}

func (l *lab) running() map[string]*labNode {
	l.mu.Lock()
	defer l.mu.Unlock()
	nodes := make(map[string]*labNode, len(l.nodes))
	for id, n := range l.nodes {
		nodes[id] = n
	}
	return nodes
}

// owner finds whose cluster address that is.
func (l *lab) owner(address string) string {
	for id, n := range l.running() {
		if n.Address() == address {
			return id
		}
	}
	return ""
}

func (l *lab) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		to := l.owner(address)
		l.mu.Lock()
		cut := l.cut[from] || l.cut[to]
		l.mu.Unlock()
		if cut {
			return nil, errors.New("cut")
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		c := &labConn{conn, l, from, to}
		l.mu.Lock()
		l.conns[c] = struct{}{}
		cut = l.cut[from] || l.cut[to]
		l.mu.Unlock()
		if cut {
			c.Close()
			return nil, errors.New("cut")
		}
		return c, nil
	}
}

// isolate cuts a node off from the others, or joins it again. Gossip goes on.
func (l *lab) isolate(id string, cut bool) {
	l.mu.Lock()
	l.cut[id] = cut
	var doomed []*labConn
	for c := range l.conns {
		if cut && (c.from == id || c.to == id) {
			doomed = append(doomed, c)
		}
	}
	l.mu.Unlock()
	for _, c := range doomed {
		c.Close()
	}
}

func (l *lab) path(id string) string { return filepath.Join(l.dir, id) }

var labSecret = []byte("a secret of the laboratory, 32 b")

// start runs a node; change may alter its configuration.
func (l *lab) start(id string, change ...func(*Config)) *labNode {
	l.t.Helper()
	n, err := l.tryStart(id, change...)
	if err != nil {
		l.t.Fatalf("start %s: %v", id, err)
	}
	return n
}

func (l *lab) tryStart(id string, change ...func(*Config)) (*labNode, error) {
	c := Config{NodeID: id, DataDir: l.path(id), ClusterAddress: "127.0.0.1:0", GossipAddress: "127.0.0.1:0", Secret: labSecret,
		BootstrapExpect: l.expect, Dial: l.dialer(id), Version: "test", APIAddress: "https://" + id}
	for _, other := range l.running() {
		c.Join = append(c.Join, other.GossipAddress())
	}
	if os.Getenv("LAB_LOG") != "" {
		c.Logger = hclog.New(&hclog.LoggerOptions{Name: id, Level: hclog.LevelFromString(os.Getenv("LAB_LOG")), Output: os.Stderr})
	}
	for _, f := range change {
		f(&c)
	}
	state, err := fsm.Open(fsm.Options{Dir: filepath.Join(c.DataDir, "fsm"), Logger: c.Logger})
	if err != nil {
		return nil, err
	}
	n, err := Start(context.Background(), c, state)
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	node := &labNode{n, state, id}
	l.mu.Lock()
	l.nodes[id] = node
	l.mu.Unlock()
	return node, nil
}

// stop ends a node's process, so to speak.
func (l *lab) stop(id string) {
	l.t.Helper()
	l.mu.Lock()
	n := l.nodes[id]
	delete(l.nodes, id)
	l.mu.Unlock()
	if err := n.Shutdown(); err != nil {
		l.t.Errorf("shut down %s: %v", id, err)
	}
	if err := n.state.Close(); err != nil {
		l.t.Errorf("close state of %s: %v", id, err)
	}
}

// three starts nodes a, b and c and waits until they are a cluster.
func three(t testing.TB, change ...func(*Config)) (*lab, []*labNode) {
	t.Helper()
	l := newLab(t, 3)
	nodes := []*labNode{l.start("a", change...), l.start("b", change...), l.start("c", change...)}
	l.awaitVoters(3)
	return l, nodes
}

// await waits until ok, or fails.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// awaitVoters waits until every running node is in the quorum and sees n voters.
func (l *lab) awaitVoters(n int) {
	l.t.Helper()
	await(l.t, fmt.Sprintf("%d voters", n), func() bool {
		for _, node := range l.running() {
			voters := 0
			for _, m := range node.Members() {
				if m.Voter {
					voters++
				}
			}
			if voters != n || !node.InQuorum() {
				return false
			}
		}
		return true
	})
}

func (l *lab) leader() *labNode {
	l.t.Helper()
	var leader *labNode
	await(l.t, "a leader", func() bool {
		for _, n := range l.running() {
			l.mu.Lock()
			cut := l.cut[n.id]
			l.mu.Unlock()
			if n.IsLeader() && !cut {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

func (l *lab) follower() *labNode {
	l.t.Helper()
	leader := l.leader()
	for _, n := range l.running() {
		if n != leader {
			return n
		}
	}
	l.t.Fatal("there is no follower")
	return nil
}

// signList signs the list of members with a new cluster key and lets every node sign later ones. It waits until all have
// pinned the key.
func (l *lab) signList() ed25519.PrivateKey {
	l.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	sign := func(message []byte) []byte { return ed25519.Sign(private, message) }
	if err := l.leader().SignList(context.Background(), public, sign); err != nil {
		l.t.Fatalf("sign list: %v", err)
	}
	for _, n := range l.running() {
		n.SetSigner(public, sign)
	}
	await(l.t, "the signed list on every node", func() bool {
		for _, n := range l.running() {
			if list := n.roster.List(); list == nil || !list.Signed() {
				return false
			}
		}
		return true
	})
	return private
}

const (
	testSpace = 7
	boxBytes  = 700
)

// recordKey names a record, or with another class the cell or stamp beside it.
func recordKey(class byte, child uint64) fsm.Key {
	b := make([]byte, 1+8+16+16)
	b[0] = class
	binary.BigEndian.PutUint64(b[1:], testSpace)
	binary.BigEndian.PutUint64(b[1+8+16+8:], child)
	return fsm.Key(b)
}

func auditRecord(size int) fsm.AuditRecord {
	r := fsm.AuditRecord{Box: make([]byte, size)}
	return r
}

// reading is a read-only transaction on a node's state.
func reading(n *labNode, child uint64) *fsm.Transaction {
	v := n.state.View()
	defer v.Release()
	version, _, err := v.Get(recordKey('r', child))
	if err != nil {
		panic(err)
	}
	return &fsm.Transaction{Snapshot: v.Index(), NotBefore: fsm.NotBeforeAny, NotAfter: fsm.NotAfterAny,
		Reads: []fsm.Read{{Key: recordKey('r', child), Version: version}}, Record: auditRecord(boxBytes)}
}

// writing puts a record.
func writing(n *labNode, child uint64, value string) *fsm.Transaction {
	tx := reading(n, child)
	op := fsm.Replace
	if tx.Reads[0].Version == 0 {
		op = fsm.Create
	}
	tx.Writes = []fsm.Write{{Op: op, Key: tx.Reads[0].Key, Version: tx.Snapshot + 1, Value: []byte(value)}}
	return tx
}

// mustCommit commits until there is no conflict.
func mustCommit(t testing.TB, n *labNode, make func() *fsm.Transaction) fsm.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		o, err := n.Commit(ctx, make())
		if conclave.Is(err, conclave.Unavailable) && ctx.Err() == nil {
			continue // it was certainly not done: on a busy machine elections take long
		}
		if err != nil {
			t.Fatalf("commit on %s: %v", n.id, err)
		}
		if o.Verdict == fsm.Committed {
			return o
		}
		if err := n.state.WaitApplied(ctx, o.Index); err != nil {
			t.Fatalf("%s doesn't apply %d: %v", n.id, o.Index, err)
		}
	}
}
