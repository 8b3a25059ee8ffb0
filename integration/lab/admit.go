package lab

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// config is the path of node n's configuration: what its command names last.
func (l *Lab) config(n int) string {
	argv := l.StartCmds[n-1].Argv
	return argv[len(argv)-1]
}

// Configure changes the configuration of node n, which takes effect when it starts next, or in part on a hangup.
func (l *Lab) Configure(n int, edit func(text string) (string, error)) error {
	text, err := os.ReadFile(l.config(n))
	if err != nil {
		return err
	}
	edited, err := edit(string(text))
	if err != nil {
		return fmt.Errorf("configure node %d: %w", n, err)
	}
	return os.WriteFile(l.config(n), []byte(edited), 0o600)
}

// Set is an edit for Configure that gives the settings with these names other values, which are HCL.
func Set(values map[string]string) func(text string) (string, error) {
	return func(text string) (string, error) {
		for name, value := range values {
			line := regexp.MustCompile(`(?m)^( *` + regexp.QuoteMeta(name) + ` *= ).*$`)
			if len(line.FindAllString(text, -1)) != 1 {
				return "", fmt.Errorf("the setting %s isn't there once", name)
			}
			text = line.ReplaceAllString(text, "${1}"+strings.ReplaceAll(value, "$", "$$"))
		}
		return text, nil
	}
}

// Admitted is an edit for Configure: the node asks to join with a token. "" takes the token away.
func Admitted(token string) func(text string) (string, error) {
	return func(text string) (string, error) {
		text = regexp.MustCompile(`(?m)^ *admit_token *=.*\n`).ReplaceAllString(text, "")
		if token == "" {
			return text, nil
		}
		before, after, ok := strings.Cut(text, "cluster {\n")
		if !ok {
			return "", errors.New("there is no cluster block")
		}
		return before + "cluster {\n  admit_token = " + strconv.Quote(token) + "\n" + after, nil
	}
}

// Lay makes the files of one more node, which is known to nobody yet, and returns its number. It is like node 1 in all
// but its name, its addresses and its directories.
func (l *Lab) Lay() (n int, err error) {
	n = l.Nodes() + 1
	home := filepath.Join(l.dir, "node"+strconv.Itoa(n))
	for _, sub := range []string{"data", "audit"} {
		if err := os.MkdirAll(filepath.Join(home, sub), 0o700); err != nil {
			return 0, err
		}
	}
	text, err := os.ReadFile(l.config(1))
	if err != nil {
		return 0, err
	}
	met := regexp.MustCompile(`(?m)^ *gossip_addr *= (".*")$`).FindStringSubmatch(string(text))
	if met == nil {
		return 0, errors.New("node 1 names no gossip_addr")
	}
	gossip, err := freeAddress()
	if err != nil {
		return 0, err
	}
	config := filepath.Join(home, "conclave.hcl")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return 0, err
	}
	first := l.StartCmds[0]
	argv := append(append([]string(nil), first.Argv[:len(first.Argv)-1]...), config)
	l.StartCmds = append(l.StartCmds, Command{Argv: argv, Dir: home, Env: first.Env})
	l.Addrs = append(l.Addrs, "")
	l.DataDirs = append(l.DataDirs, filepath.Join(home, "data"))
	l.LogFiles = append(l.LogFiles, filepath.Join(home, "server.log"))
	l.AuditFiles = append(l.AuditFiles, filepath.Join(home, "audit", "audit.log"))
	l.http = append(l.http, &http.Client{Transport: &http.Transport{TLSClientConfig: l.tls, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute}})
	l.mu.Lock()
	l.nodes = append(l.nodes, nil)
	l.mu.Unlock()
	err = l.Configure(n, Set(map[string]string{
		"path": strconv.Quote(filepath.Join(home, "data")), "node_id": strconv.Quote("node" + strconv.Itoa(n)),
		"join": "[" + met[1] + "]", "gossip_addr": strconv.Quote(gossip), "directories": "[" + strconv.Quote(filepath.Join(home, "audit")) + "]",
	}))
	if err != nil {
		return 0, err
	}
	return n, l.Move(n)
}

// Move gives node n, which is down, another API address and another cluster address.
func (l *Lab) Move(n int) error {
	api, err := freeAddress()
	if err != nil {
		return err
	}
	cluster, err := freeAddress()
	if err != nil {
		return err
	}
	l.Addrs[n-1] = "https://" + api
	return l.Configure(n, Set(map[string]string{"address": strconv.Quote(api), "cluster_address": strconv.Quote(cluster),
		"api_addr": strconv.Quote("https://" + api), "cluster_addr": strconv.Quote(cluster)}))
}

// Wipe empties the data directory of node n, which is down, as a new disk would be.
func (l *Lab) Wipe(n int) error {
	if l.Running(n) {
		return fmt.Errorf("node %d is running", n)
	}
	if err := os.RemoveAll(l.DataDirs[n-1]); err != nil {
		return err
	}
	return os.Mkdir(l.DataDirs[n-1], 0o700)
}

// Hangup has node n read its certificates and its log level again, and open its audit files anew.
func (l *Lab) Hangup(n int) error { return l.signal(n, syscall.SIGHUP) }

// freeAddress is one on loopback that nothing listens on, for TCP and UDP alike.
func freeAddress() (string, error) {
	const attempts = 50
	for range attempts {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		address := tcp.Addr().String()
		udp, err := net.ListenPacket("udp", address)
		if err == nil {
			err = udp.Close()
		}
		if err := errors.Join(err, tcp.Close()); err == nil {
			return address, nil
		}
	}
	return "", errors.New("no port is free for both TCP and UDP")
}
