package port

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"conclave/cluster/disk"
	"conclave/cluster/roster"
)

const testCluster = "000102030405060708090a0b0c0d0e0f"

// end is one node's port with what it believes.
type end struct {
	*Port
	id     *disk.Identity
	roster *roster.Roster
}

func newEnd(t *testing.T, nodeID, cluster string) *end {
	t.Helper()
	dir := t.TempDir()
	id, err := disk.Open(&disk.Options{Dir: dir, NodeID: nodeID})
	if err != nil {
		t.Fatal(err)
	}
	r, err := roster.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Listen(id, r, Options{Address: "127.0.0.1:0", ClusterID: func() string { return cluster }, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); id.Close() })
	return &end{p, id, r}
}

// list gives every end a list of those that are named.
func list(t *testing.T, number uint64, ends []*end, listed ...*end) {
	t.Helper()
	l := &roster.List{Number: number, ClusterID: testCluster}
	for _, e := range listed {
		l.Put(roster.Member{NodeID: e.id.NodeID, TLSPublic: e.id.SPKI[:]})
	}
	for _, e := range ends {
		if err := e.roster.Adopt(l); err != nil {
			t.Fatal(err)
		}
	}
}

func (e *end) dialRaft(serverID, address string) (net.Conn, error) {
	return e.Raft().Dial(raft.ServerAddress(serverID+"/"+address), 5*time.Second)
}

// refused reports whether the other side has closed a connection that was opened: in TLS 1.3 a client learns late.
func refused(t *testing.T, conn net.Conn, err error) bool {
	t.Helper()
	if err != nil {
		return true
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err = conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

func TestMembersConnectAndOthersDoNot(t *testing.T) {
	a, b, c := newEnd(t, "a", testCluster), newEnd(t, "b", testCluster), newEnd(t, "c", testCluster)
	list(t, 1, []*end{a, b, c}, a, b)
	conn, err := a.dialRaft(b.id.ServerID(), b.Advertised())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := b.Raft().Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1)
	if _, err := io.ReadFull(accepted, got); err != nil || got[0] != 'x' || accepted.(*Conn).NodeID != "a" {
		t.Errorf("b read %q from %q, %v", got, accepted.(*Conn).NodeID, err)
	}
	stranger, err := c.dialRaft(b.id.ServerID(), b.Advertised())
	if !refused(t, stranger, err) {
		t.Error("a node that isn't listed got a Raft connection")
	}
	if _, err := a.dialRaft(b.id.ServerID(), c.Advertised()); err == nil {
		t.Error("a took c for b")
	}
	intro, err := c.Introduce(context.Background(), b.Advertised())
	if err != nil {
		t.Fatalf("a stranger can't introduce itself: %v", err)
	}
	met, err := b.GRPC().Accept()
	if err != nil || met.(*Conn).NodeID != "" || met.(*Conn).SPKI != c.id.SPKI {
		t.Errorf("b met %q, %v; want a stranger with c's key", met.(*Conn).NodeID, err)
	}
	intro.Close()

	list(t, 2, []*end{b}, b) // without a
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(got); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a's connection after a was taken off b's list: %v", err)
	}
}

func TestRaftConnectionOfAnotherClusterIsRefused(t *testing.T) {
	a, b := newEnd(t, "a", strings.Repeat("f", 32)), newEnd(t, "b", testCluster)
	list(t, 1, []*end{a, b}, a, b)
	conn, err := a.dialRaft(b.id.ServerID(), b.Advertised())
	if !refused(t, conn, err) {
		t.Error("a connection that names another cluster wasn't closed")
	}
}

func TestNodeIDThatIsNotTheCertificatesIsRefused(t *testing.T) {
	a, b := newEnd(t, "a", testCluster), newEnd(t, "b", testCluster)
	list(t, 1, []*end{a, b}, a, b)
	a.id.NodeID = "c"
	conn, err := a.dialRaft(b.id.ServerID(), b.Advertised())
	if !refused(t, conn, err) {
		t.Error("a connection under another's node id wasn't closed")
	}
}

func TestGoldenPreamble(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "preamble"))
	if err != nil {
		t.Fatal(err)
	}
	if b := preamble(testCluster, "node-1", "node-2-0123456789abcdef"); !bytes.Equal(b, golden) {
		t.Errorf("preamble %q, want %q", b, golden)
	}
	cluster, node, server, err := parsePreamble(bytes.NewReader(golden))
	if err != nil || cluster != testCluster || node != "node-1" || server != "node-2-0123456789abcdef" {
		t.Errorf("parsed %q, %q, %q, %v", cluster, node, server, err)
	}
}

func FuzzPreamble(f *testing.F) {
	f.Add(preamble(testCluster, "a", "b-0123456789abcdef"))
	f.Add([]byte{255})
	f.Fuzz(func(t *testing.T, b []byte) {
		cluster, node, server, err := parsePreamble(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, preamble(cluster, node, server)) {
			t.Errorf("parsed %q, %q, %q from %q", cluster, node, server, b)
		}
	})
}

func TestServerThatLostItsDiskIsNotTakenForWhatItWas(t *testing.T) {
	a, b := newEnd(t, "a", testCluster), newEnd(t, "b", testCluster)
	list(t, 1, []*end{a, b}, a, b)
	conn, err := a.dialRaft(b.id.ServerID(), b.Advertised())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := b.Raft().Accept(); err != nil {
		t.Fatal(err)
	}
	former, err := a.dialRaft("b-0123456789abcdef", b.Advertised())
	if !refused(t, former, err) {
		t.Error("a connection meant for b's former disk wasn't closed")
	}
}
