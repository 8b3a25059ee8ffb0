package gossip

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestAddressesToListenOnAndToTell(t *testing.T) {
	for _, tc := range []struct{ host, cluster, bind, advertise string }{
		{"127.0.0.1", "192.0.2.1:8201", "127.0.0.1", ""},
		{"localhost", "192.0.2.1:8201", "127.0.0.1", ""},
		{"0.0.0.0", "192.0.2.1:8201", "0.0.0.0", "192.0.2.1"},
		{"", "192.0.2.1:8201", "0.0.0.0", "192.0.2.1"},
		{"::", "[2001:db8::1]:8201", "::", "2001:db8::1"},
		{"0.0.0.0", "localhost:8201", "0.0.0.0", "127.0.0.1"},
		{"0.0.0.0", "[::]:8201", "0.0.0.0", ""},
	} {
		bind, advertise, err := addresses(tc.host, tc.cluster)
		if err != nil || bind != tc.bind || advertise != tc.advertise {
			t.Errorf("addresses(%q, %q) = %q, %q, %v; want %q, %q", tc.host, tc.cluster, bind, advertise, err, tc.bind, tc.advertise)
		}
	}
}

// freePort is a port on loopback that is free for TCP and UDP.
func freePort(t *testing.T) string {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		u, err := net.ListenPacket("udp", "127.0.0.1:"+port)
		l.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
	t.Fatal("no port is free for TCP and UDP")
	return ""
}

func TestNodesFindEachOtherByName(t *testing.T) {
	nodes, ports, news := map[string]*Gossip{}, map[string]string{}, make(chan struct{}, 64)
	for _, id := range []string{"a", "b"} {
		ports[id] = freePort(t)
		g, err := Start(Options{NodeID: id, Address: "localhost:" + ports[id], Secret: []byte("0123456789abcdef"),
			Logger: hclog.NewNullLogger(), OnNews: func() { news <- struct{}{} }}, Meta{Address: "localhost:1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		nodes[id] = g
	}
	if n := nodes["b"].Join([]string{"localhost:" + ports["a"]}); n != 1 {
		t.Fatalf("joined %d nodes by name, want 1", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(nodes["a"].Peers()) == 0 || len(nodes["b"].Peers()) == 0 {
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatal("the nodes don't see each other")
		}
	}
	if m, _ := nodes["a"].Peer("b"); m.Address != "localhost:1" {
		t.Errorf("b says that its address is %q, want the name as it was given", m.Address)
	}
}
