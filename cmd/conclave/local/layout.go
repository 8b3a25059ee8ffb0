package local

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// nodeName is the node id of node n.
func nodeName(n int) string { return "node" + strconv.Itoa(n) }

// lay makes the directory of a new lab:
//
//	DIR/cluster.json  ca.pem  cluster.secret
//	DIR/node1/conclave.hcl  tls.crt  tls.key  server.log  data/  audit/audit.log
//	DIR/node2/…
func lay(dir, program string, nodes int, now time.Time) (*Cluster, error) {
	api, cluster, gossip, err := freePorts(nodes)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c := &Cluster{CA: filepath.Join(dir, "ca.pem"), ClusterPorts: cluster, GossipPorts: gossip, PIDs: make([]int, nodes), UnsealKeys: []string{}}
	ca, err := newAuthority(c.CA, now)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	secretFile := filepath.Join(dir, "cluster.secret")
	if err := os.WriteFile(secretFile, []byte(hex.EncodeToString(secret)+"\n"), 0o600); err != nil {
		return nil, err
	}
	for n := 1; n <= nodes; n++ {
		home := filepath.Join(dir, nodeName(n))
		for _, sub := range []string{"data", "audit"} {
			if err := os.MkdirAll(filepath.Join(home, sub), 0o700); err != nil {
				return nil, err
			}
		}
		if err := ca.issue(home, n, now); err != nil {
			return nil, err
		}
		config := filepath.Join(home, "conclave.hcl")
		text := nodeConfig{n, home, secretFile, api[n-1], cluster[n-1], gossip}.hcl()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		c.Addrs = append(c.Addrs, "https://127.0.0.1:"+strconv.Itoa(api[n-1]))
		c.DataDirs = append(c.DataDirs, filepath.Join(home, "data"))
		c.LogFiles = append(c.LogFiles, filepath.Join(home, "server.log"))
		c.AuditFiles = append(c.AuditFiles, filepath.Join(home, "audit", "audit.log"))
		c.StartCmds = append(c.StartCmds, StartCmd{Argv: []string{program, "server", "-config", config}, Dir: home, Env: []string{}})
	}
	return c, nil
}

// nodeConfig is what a node's configuration says.
type nodeConfig struct {
	n            int
	home, secret string
	api, cluster int
	gossip       []int // of all nodes
}

func (c nodeConfig) hcl() string {
	var join []string // the others: a node that is alone founds its cluster only if it is told of nobody
	for i, port := range c.gossip {
		if i != c.n-1 {
			join = append(join, strconv.Quote("127.0.0.1:"+strconv.Itoa(port)))
		}
	}
	return fmt.Sprintf(`# Node %d of a local lab, made by "conclave local up".
listener "tcp" {
  address         = "127.0.0.1:%d"
  cluster_address = "127.0.0.1:%d"
  tls_cert_file   = %q
  tls_key_file    = %q
}

storage "raft" {
  path    = %q
  node_id = %q
}

cluster {
  bootstrap_expect = %d
  join             = [%s]
  gossip_addr      = "127.0.0.1:%d"
  secret_file      = %q
}

audit {
  directories = [%q]
}

api_addr     = "https://127.0.0.1:%d"
cluster_addr = "127.0.0.1:%d"
log_level    = "info"
`, c.n, c.api, c.cluster, filepath.Join(c.home, "tls.crt"), filepath.Join(c.home, "tls.key"), filepath.Join(c.home, "data"), nodeName(c.n),
		len(c.gossip), strings.Join(join, ", "), c.gossip[c.n-1], c.secret, filepath.Join(c.home, "audit"), c.api, c.cluster)
}

// freePorts finds ports on loopback that nothing listens on, for API and cluster (TCP) and gossip (TCP and UDP). They
// are free when it returns; what takes one before the servers do makes `up` fail with the address in the log.
func freePorts(nodes int) (api, cluster, gossip []int, err error) {
	var held []interface{ Close() error }
	defer func() {
		for _, h := range held {
			err = errors.Join(err, h.Close())
		}
	}()
	tcp := func(port int) (int, error) {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return 0, err
		}
		held = append(held, l)
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	const attempts = 50
	both := func() (int, error) {
		for range attempts {
			port, err := tcp(0)
			if err != nil {
				return 0, err
			}
			if u, err := net.ListenPacket("udp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
				held = append(held, u)
				return port, nil
			}
		}
		return 0, errors.New("no port is free for both TCP and UDP")
	}
	for range nodes {
		a, err1 := tcp(0)
		c, err2 := tcp(0)
		g, err3 := both()
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, nil, nil, fmt.Errorf("find free ports on loopback: %w", err)
		}
		api, cluster, gossip = append(api, a), append(cluster, c), append(gossip, g)
	}
	return api, cluster, gossip, nil
}
