// Package lab runs clusters of real server processes on loopback for tests and benchmarks: it has `conclave local up`
// form one, and from then on kills, pauses and starts its nodes, and talks to them over the HTTP API alone.
//
// A lab signals only processes that it had started itself: it notes when each was born, and leaves a process alone
// that has taken over the number of one that is gone. Close ends them all.
package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits in time. They say when a lab gives up, not how long anything should take.
const (
	upTimeout    = 2 * time.Minute
	exitTimeout  = 30 * time.Second
	pollInterval = 20 * time.Millisecond
)

// Cluster is the content of cluster.json, as `conclave local up` writes it: one element per node, in node order. Other
// Vault-compatible clusters can be described alike; then only Addrs and RootToken are needed.
type Cluster struct {
	Addrs      []string  `json:"addrs"` // "https://127.0.0.1:8200"
	RootToken  string    `json:"root_token"`
	UnsealKeys []string  `json:"unseal_keys"`
	Threshold  int       `json:"threshold"`
	CA         string    `json:"ca"` // path of a PEM file; empty: the system's roots
	DataDirs   []string  `json:"data_dirs"`
	PIDs       []int     `json:"pids"`
	LogFiles   []string  `json:"log_files"`
	AuditFiles []string  `json:"audit_files"`
	StartCmds  []Command `json:"start_cmds"`
}

// Command starts a node.
type Command struct {
	Argv []string `json:"argv"`
	Dir  string   `json:"dir"`
	Env  []string `json:"env"` // added to the environment
}

// Options say what lab to start.
type Options struct {
	Binary string // path of the built program
	Dir    string // to be made; the cluster lives in it
	Nodes  int
	Shares int // of the unseal key; default 3 with a threshold of 2
	// Env is added to the environment of the nodes.
	Env []string
}

// Lab is a running cluster. Nodes are numbered from 1. Its methods may be called at the same time, but not two that
// start or stop the same node.
type Lab struct {
	Cluster
	dir    string
	binary string
	env    []string
	tls    *tls.Config
	http   []*http.Client // one per node, so that a dead node's connections are its own

	mu    sync.Mutex
	nodes []*server // the process of each node; nil while it is down
}

// Start forms a new cluster, initialised and open, and waits until every node serves.
func Start(ctx context.Context, options Options) (*Lab, error) {
	shares := options.Shares
	if shares == 0 {
		shares = 3
	}
	up, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	command := exec.CommandContext(up, options.Binary, "local", "up", "--nodes", strconv.Itoa(options.Nodes),
		"--dir", options.Dir, "--shares", strconv.Itoa(shares), "--threshold", strconv.Itoa(shares/2+1))
	command.Env = append(environment(), options.Env...)
	command.WaitDelay = exitTimeout
	// The nodes outlive the command: given a file, not a pipe, it need not wait for them to close it.
	output, err := os.CreateTemp("", "conclave-local-up-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	command.Stdout, command.Stderr = output, output
	runErr := command.Run()
	l, err := Open(filepath.Join(options.Dir, "cluster.json"))
	if runErr != nil {
		said, _ := os.ReadFile(output.Name())
		if l != nil {
			err = l.Close()
		}
		return nil, errors.Join(fmt.Errorf("conclave local up: %w\n%s", runErr, bytes.TrimSpace(said)), err)
	}
	if err != nil {
		return nil, err
	}
	l.binary, l.env = options.Binary, options.Env
	if err := l.WaitServing(up); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Open attaches to the cluster that a cluster.json describes. Closing a lab ends the processes that are named there, so
// attach only to measure, and Detach then.
func Open(path string) (*Lab, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open lab: %w", err)
	}
	l := &Lab{dir: filepath.Dir(path)}
	if err := json.Unmarshal(text, &l.Cluster); err != nil {
		return nil, fmt.Errorf("open lab: %s: %w", path, err)
	}
	if len(l.Addrs) == 0 {
		return nil, fmt.Errorf("open lab: %s names no addresses", path)
	}
	if l.tls, err = trust(l.CA); err != nil {
		return nil, fmt.Errorf("open lab: %w", err)
	}
	l.nodes = make([]*server, len(l.Addrs))
	for i := range l.Addrs {
		if i < len(l.PIDs) {
			l.nodes[i] = adopt(l.PIDs[i])
		}
		l.http = append(l.http, &http.Client{Transport: &http.Transport{
			TLSClientConfig: l.tls, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: false,
		}})
	}
	return l, nil
}

// environment is that of this process without what is meant for another cluster.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "VAULT_") || strings.HasPrefix(entry, "CONCLAVE_")
	})
}

func trust(ca string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca == "" {
		return config, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	return config, nil
}

// Nodes is how many nodes the cluster has, running or not.
func (l *Lab) Nodes() int { return len(l.Addrs) }

// Dir is where the cluster lives.
func (l *Lab) Dir() string { return l.dir }

// TLS is how clients trust the nodes. Don't change it; clone it.
func (l *Lab) TLS() *tls.Config { return l.tls }

// Detach lets go of the cluster without ending it.
func (l *Lab) Detach() {
	for _, c := range l.http {
		c.CloseIdleConnections()
	}
}

// Close kills all nodes and waits until they are gone. What they wrote stays.
func (l *Lab) Close() error {
	l.Detach()
	var errs []error
	for n := 1; n <= l.Nodes(); n++ {
		if l.process(n) != nil {
			errs = append(errs, l.Kill(n))
		}
	}
	return errors.Join(errs...)
}
