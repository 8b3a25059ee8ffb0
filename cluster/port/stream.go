package port

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"conclave/cluster/disk"
)

// streamLayer is the Raft side of the port. Its addresses are "server id/host:port": the address provider makes them so,
// and a connection to another server than the one meant is refused.
type streamLayer struct {
	*queueListener
	t *Port
}

var _ raft.StreamLayer = (*streamLayer)(nil)

// Dial opens a Raft connection.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.t.ctx, timeout)
	defer cancel()
	serverID, at, ok := strings.Cut(string(address), "/")
	if !ok {
		return nil, errors.New("the node to dial has no known address")
	}
	conn, err := s.t.connect(ctx, disk.NodeOf(serverID), at, protocolRaft)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(preamble(s.t.clusterID(), s.t.id.NodeID, serverID)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// queueListener is a net.Listener fed with connections that were accepted elsewhere.
type queueListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// advertised is an address as peers are told it.
type advertised string

// Network is always tcp.
func (advertised) Network() string { return "tcp" }

// String is host:port.
func (a advertised) String() string { return string(a) }

func newQueueListener(addr net.Addr) *queueListener {
	return &queueListener{addr: addr, conns: make(chan net.Conn, acceptBacklogSize), closed: make(chan struct{})}
}

func (l *queueListener) put(c net.Conn) error {
	select {
	case l.conns <- c:
		return nil
	case <-l.closed:
		return ErrClosed
	}
}

// Accept returns the next connection.
func (l *queueListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept return.
func (l *queueListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is what peers dial.
func (l *queueListener) Addr() net.Addr { return l.addr }
