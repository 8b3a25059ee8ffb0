package integration

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"conclave/integration/lab"
)

// member is a node as sys/members lists it.
type member struct {
	NodeID     string `json:"node_id"`
	ServerID   string `json:"server_id"`
	Address    string `json:"address"`
	APIAddress string `json:"api_address"`
	Voter      bool   `json:"voter"`
	Unsealed   bool   `json:"unsealed"`
	Leader     bool   `json:"leader"`
}

// memberNamed asks node n for the entry of a node; nil if it isn't listed.
func memberNamed(ctx context.Context, l *lab.Lab, n int, id string) (*member, error) {
	var list struct{ Members []member }
	if err := l.Client(n).Read(ctx, "sys/members", &list); err != nil {
		return nil, err
	}
	for _, m := range list.Members {
		if m.NodeID == id {
			return &m, nil
		}
	}
	return nil, nil
}

// health is what sys/health says.
type health struct {
	Initialized bool `json:"initialized"`
	Sealed      bool `json:"sealed"`
	Removed     bool `json:"removed_from_cluster"`
}

// wantHealth waits until node n answers sys/health with a status and a body that fit.
func wantHealth(t *testing.T, l *lab.Lab, n, status int, want health) {
	t.Helper()
	said := "nothing"
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		answer, err := l.Client(n).Do(ctx, "GET", "sys/health", nil)
		if err != nil {
			return fmt.Errorf("node %d: %w; before that: %s", n, err, said)
		}
		said = fmt.Sprintf("%d %s", answer.Status, answer.Body)
		var got health
		if err := answer.Decode(&got); err != nil {
			return err
		}
		if answer.Status != status || got != want {
			return fmt.Errorf("node %d: health = %s, want %d %+v", n, said, status, want)
		}
		return nil
	})
}

// wantNoService fails the test if node n answers a request with data, or acknowledges a write.
func wantNoService(t *testing.T, l *lab.Lab, n int) {
	t.Helper()
	for _, method := range []string{"GET", "PUT"} {
		answer, err := l.Client(n).Do(within(t, 20*time.Second), method, "secret/data/a", map[string]any{"data": map[string]string{"v": "x"}})
		if err != nil {
			t.Fatalf("node %d: %v", n, err)
		}
		if err := answer.Want(503); err != nil {
			t.Errorf("node %d, which can't serve: %s: %v", n, method, err)
		}
	}
}

// put writes one member of a secret through node n.
func put(ctx context.Context, l *lab.Lab, n int, name, value string) error {
	return l.Client(n).Write(ctx, "secret/data/"+name, map[string]any{"data": map[string]string{"v": value}}, nil)
}

// wantValue reads a secret through node n.
func wantValue(ctx context.Context, l *lab.Lab, n int, name, want string) error {
	var got struct{ Data struct{ V string } }
	if err := l.Client(n).Read(ctx, "secret/data/"+name, &got); err != nil {
		return fmt.Errorf("node %d: %w", n, err)
	}
	if got.Data.V != want {
		return fmt.Errorf("node %d: %s = %q, want %q", n, name, got.Data.V, want)
	}
	return nil
}

// mustPut and mustRead fail the test at once.
func mustPut(t *testing.T, l *lab.Lab, n int, name, value string) {
	t.Helper()
	if err := put(within(t, 20*time.Second), l, n, name, value); err != nil {
		t.Fatalf("write through node %d: %v", n, err)
	}
}

func mustRead(t *testing.T, l *lab.Lab, n int, name, want string) {
	t.Helper()
	if err := wantValue(within(t, 20*time.Second), l, n, name, want); err != nil {
		t.Fatal(err)
	}
}

// submit gives shares to node n, as soon as it knows the seal that they are for.
func submit(t *testing.T, l *lab.Lab, n int) {
	t.Helper()
	for _, key := range l.UnsealKeys[:l.Threshold] {
		eventually(t, 20*time.Second, func(ctx context.Context) error {
			answer, err := l.Client(n).Do(ctx, "PUT", "sys/unseal", map[string]string{"key": key})
			if err == nil && !bytes.Contains(answer.Body, []byte("submitted already")) {
				err = answer.Want(200)
			}
			return err
		})
	}
}

// logged is how often the logs of the nodes have a line with all of these words.
func logged(t *testing.T, l *lab.Lab, words ...string) int {
	t.Helper()
	count := 0
	for _, file := range l.LogFiles {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	lines:
		for line := range bytes.Lines(text) {
			for _, word := range words {
				if !bytes.Contains(line, []byte(word)) {
					continue lines
				}
			}
			count++
		}
	}
	return count
}

// TestNodeFarBehindCatchesUpBySnapshot has a node down while more is written than the others keep a log of.
func TestNodeFarBehindCatchesUpBySnapshot(t *testing.T) {
	const writes, size, writers = 450, 256 << 10, 8 // 112 MiB: two snapshots, at 48 MiB of log each, and as much log kept
	l := startLab(t, 3)
	leader, err := l.Leader(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	away := leader%3 + 1
	others := []int{leader, away%3 + 1}
	mustPut(t, l, away, "a", "before")
	if err := l.Kill(away); err != nil {
		t.Fatal(err)
	}
	mountKV1(t, l, leader, "bulk")
	filler := strings.Repeat("x", size)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(within(t, time.Minute))
	began := time.Now()
	for w := range writers {
		group.Go(func() error {
			for {
				i := next.Add(1)
				if i > writes {
					return nil
				}
				if err := l.Client(others[w%2]).Write(ctx, fmt.Sprintf("bulk/%d", i%1000), map[string]string{"v": filler}, nil); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d writes, %d MiB, took %v", writes, writes*size>>20, time.Since(began))
	mustPut(t, l, leader, "a", "after")
	before := logged(t, l, "nstalled remote snapshot")
	began = time.Now()
	if err := l.Start(within(t, 30*time.Second), away); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error { return wantValue(ctx, l, away, "a", "after") })
	t.Logf("node %d was up to date again after %v", away, time.Since(began))
	if logged(t, l, "nstalled remote snapshot") == before {
		t.Error("no snapshot was needed to catch up: the test shows nothing")
	}
	var got struct{ V string }
	if err := l.Client(away).Read(within(t, 20*time.Second), "bulk/7", &got); err != nil || got.V != filler {
		t.Errorf("what came with the snapshot isn't there: %d bytes, %v", len(got.V), err)
	}
	wantHeadsAgree(t, l)
	wantVerified(t, l)
}

// mountKV1 mounts kv version 1 at path.
func mountKV1(t *testing.T, l *lab.Lab, n int, path string) {
	t.Helper()
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		return l.Client(n).Write(ctx, "sys/mounts/"+path, map[string]any{"type": "kv", "options": map[string]string{"version": "1"}}, nil)
	})
}

// TestStaticSealOpensNodesByThemselves replaces a lab by one whose configuration has a static seal.
func TestStaticSealOpensNodesByThemselves(t *testing.T) {
	l := startLab(t, 3)
	key := filepath.Join(l.Dir(), "seal.key")
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	if err := os.WriteFile(key, []byte(hex.EncodeToString(raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	block := fmt.Sprintf("\nseal \"static\" {\n  key_file = %q\n}\n", key)
	for n := 1; n <= 3; n++ {
		if err := l.Kill(n); err != nil {
			t.Fatal(err)
		}
		if err := l.Wipe(n); err != nil {
			t.Fatal(err)
		}
		if err := l.Configure(n, func(text string) (string, error) { return text + block, nil }); err != nil {
			t.Fatal(err)
		}
	}
	launch(t, l, 1, 2, 3)
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		answer, err := l.Client(2).Do(ctx, "PUT", "sys/init", map[string]int{"recovery_shares": 3, "recovery_threshold": 2})
		if err == nil {
			err = answer.Want(200)
		}
		if err != nil {
			return err
		}
		var made struct {
			RecoveryKeys []string `json:"recovery_keys"`
			RootToken    string   `json:"root_token"`
			Members      []struct {
				NodeID    string `json:"node_id"`
				TLSPublic []byte `json:"tls_public"`
			}
		}
		if err := answer.Decode(&made); err != nil {
			return err
		}
		for _, m := range made.Members {
			if key := base64.StdEncoding.EncodeToString(m.TLSPublic); logged(t, l, "this node", m.NodeID, key) != 1 {
				t.Errorf("init shows %s with the key %s, which isn't what it says of itself", m.NodeID, key)
			}
		}
		if len(made.Members) != 3 {
			t.Errorf("init shows %+v, want three nodes", made.Members)
		}
		l.UnsealKeys, l.Threshold, l.RootToken = made.RecoveryKeys, 2, made.RootToken
		return nil
	})
	open := health{Initialized: true}
	for n := 1; n <= 3; n++ {
		wantHealth(t, l, n, 200, open)
	}
	mountKV(t, l, "secret")
	eventually(t, 20*time.Second, func(ctx context.Context) error { return put(ctx, l, 1, "a", "kept") })
	wantSigned(t, l)
	for n := 1; n <= 3; n++ {
		if err := l.Kill(n); err != nil {
			t.Fatal(err)
		}
	}
	launch(t, l, 1)
	wantHealth(t, l, 1, 503, health{Initialized: true, Sealed: true}) // alone: it has yet to hear what the seal is
	launch(t, l, 2, 3)
	for n := 1; n <= 3; n++ {
		wantHealth(t, l, n, 200, open)
		mustRead(t, l, n, "a", "kept")
	}
	if err := l.Kill(3); err != nil {
		t.Fatal(err)
	}
	without := func(text string) (string, error) { return strings.Replace(text, block, "", 1), nil }
	if err := l.Configure(3, without); err != nil {
		t.Fatal(err)
	}
	launch(t, l, 3)
	wantHealth(t, l, 3, 503, health{Initialized: true, Sealed: true})
	wantNoService(t, l, 3)
	if len(l.UnsealKeys) != 3 {
		t.Fatalf("init gave %d recovery keys, want 3", len(l.UnsealKeys))
	}
	submit(t, l, 3)
	wantHealth(t, l, 3, 200, open)
	mustRead(t, l, 3, "a", "kept")
}

func launch(t *testing.T, l *lab.Lab, nodes ...int) {
	t.Helper()
	for _, n := range nodes {
		if err := l.Launch(n); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSealedNodeGoesOnVoting seals single nodes, a follower and the leader, while the others serve.
func TestSealedNodeGoesOnVoting(t *testing.T) {
	l := startLab(t, 3)
	leader, err := l.Leader(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	follower := leader%3 + 1
	third := follower%3 + 1
	sealNode(t, l, leader, follower)
	wantNoService(t, l, follower)
	mustPut(t, l, leader, "a", "one is sealed")
	mustRead(t, l, third, "a", "one is sealed")
	if err := l.Kill(third); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error { return put(ctx, l, leader, "a", "with a sealed vote") })
	mustRead(t, l, leader, "a", "with a sealed vote")
	if err := l.Start(within(t, 30*time.Second), third); err != nil {
		t.Fatal(err)
	}
	if err := l.Unseal(within(t, 30*time.Second), follower); err != nil {
		t.Fatal(err)
	}
	if leader, err = l.Leader(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	sealNode(t, l, leader%3+1, leader)
	eventually(t, 20*time.Second, func(ctx context.Context) error { return put(ctx, l, leader%3+1, "a", "the leader is sealed") })
	t.Logf("a write after the leader was sealed was acknowledged %v after the request to seal it", time.Since(began))
	eventually(t, 35*time.Second, func(ctx context.Context) error {
		now, err := l.Leader(ctx)
		if err == nil && now == leader {
			err = fmt.Errorf("node %d leads though it is sealed", leader)
		}
		return err
	})
	wantHealth(t, l, leader, 503, health{Initialized: true, Sealed: true})
	mustRead(t, l, (leader+1)%3+1, "a", "the leader is sealed")
	if err := l.Unseal(within(t, 30*time.Second), leader); err != nil {
		t.Fatal(err)
	}
	mustRead(t, l, leader, "a", "the leader is sealed")
	wantHeadsAgree(t, l)
}

// sealNode closes one node by asking another.
func sealNode(t *testing.T, l *lab.Lab, through, n int) {
	t.Helper()
	if out, err := cli(within(t, 30*time.Second), l, through, "operator", "seal", fmt.Sprintf("-node=node%d", n)); err != nil {
		t.Fatalf("seal node %d: %v\n%s", n, err, out)
	}
	wantHealth(t, l, n, 503, health{Initialized: true, Sealed: true})
}

// TestStepDownLosesNoRequest moves leadership about while clients of all nodes write.
func TestStepDownLosesNoRequest(t *testing.T) {
	const writers, moves, between = 6, 3, 60
	l := startLab(t, 3)
	var acknowledged [writers]int
	var slowest [writers]time.Duration
	var total atomic.Int64
	group, ctx := errgroup.WithContext(within(t, 25*time.Second))
	stop := make(chan struct{})
	for w := range writers {
		group.Go(func() error {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return nil
				default:
				}
				began := time.Now()
				if err := put(ctx, l, w%3+1, fmt.Sprintf("w%d", w), fmt.Sprint(i)); err != nil {
					return fmt.Errorf("write %d through node %d: %w", i, w%3+1, err)
				}
				acknowledged[w], slowest[w] = i, max(slowest[w], time.Since(began))
				total.Add(1)
			}
		})
	}
	for range moves {
		enough := total.Load() + between
		eventually(t, 20*time.Second, func(ctx context.Context) error {
			if n := total.Load(); n < enough {
				return fmt.Errorf("%d writes, want %d", n, enough)
			}
			return nil
		})
		leader, err := l.Leader(within(t, 20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.StepDown(within(t, 20*time.Second), leader); err != nil {
			t.Errorf("step-down: %v", err)
		}
		eventually(t, 20*time.Second, func(ctx context.Context) error {
			now, err := l.Leader(ctx)
			if err == nil && now == leader {
				err = fmt.Errorf("node %d still leads", leader)
			}
			return err
		})
	}
	close(stop)
	if err := group.Wait(); err != nil {
		t.Errorf("a request was lost: %v", err)
	}
	for w := range writers {
		if acknowledged[w] == 0 {
			t.Fatalf("writer %d did nothing", w)
		}
		mustRead(t, l, (w+1)%3+1, fmt.Sprintf("w%d", w), fmt.Sprint(acknowledged[w]))
	}
	t.Logf("acknowledged %v; slowest of each writer %v", acknowledged, slowest)
}

// TestHangupReloads rotates certificates, the log level and the audit file of a node that serves meanwhile.
func TestHangupReloads(t *testing.T) {
	l := startLab(t, 1)
	home := filepath.Dir(l.LogFiles[0])
	want := newCertificate(t, home)
	level := lab.Set(map[string]string{"log_level": `"trace"`})
	if err := l.Configure(1, level); err != nil {
		t.Fatal(err)
	}
	if logged(t, l, "[TRACE]")+logged(t, l, "[DEBUG]") != 0 {
		t.Fatal("the log has details before it should")
	}
	const writes = 200
	written := make(chan struct{}) // the second half is written while the node reloads
	var group errgroup.Group
	group.Go(func() error {
		for i := range writes {
			if err := put(within(t, 20*time.Second), l, 1, fmt.Sprintf("rotated/%d", i), "x"); err != nil {
				return err
			}
			if i < writes/2 {
				written <- struct{}{}
			}
		}
		return nil
	})
	for range writes/2 - 1 {
		<-written
	}
	eventually(t, 20*time.Second, func(context.Context) error {
		if len(auditLines(t, l.AuditFiles[0], "rotated/")) == 0 {
			return fmt.Errorf("%s has no lines", l.AuditFiles[0])
		}
		return nil
	})
	<-written
	moved := l.AuditFiles[0] + ".1"
	if err := os.Rename(l.AuditFiles[0], moved); err != nil {
		t.Fatal(err)
	}
	if err := l.Hangup(1); err != nil {
		t.Fatal(err)
	}
	if err := group.Wait(); err != nil {
		// The new certificate is of an authority that the client doesn't know; its connection is kept.
		t.Fatalf("write while the node reloads: %v", err)
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		got, err := servedCertificate(ctx, l, 1)
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("the old certificate is still served")
		}
		return err
	})
	eventually(t, 20*time.Second, func(context.Context) error {
		if logged(t, l, "[TRACE]")+logged(t, l, "[DEBUG]") == 0 {
			return fmt.Errorf("the log has no details after the level was changed")
		}
		return nil
	})
	eventually(t, 20*time.Second, func(context.Context) error {
		first, second := auditLines(t, moved, "rotated/"), auditLines(t, l.AuditFiles[0], "rotated/")
		for i := range writes {
			path := fmt.Sprintf("secret/data/rotated/%d", i)
			for _, kind := range []string{"request", "response"} {
				a, b := first[kind+" "+path], second[kind+" "+path]
				if a+b > 1 {
					t.Fatalf("%s of %s: %d lines in the old file, %d in the new", kind, path, a, b)
				}
				if a+b == 0 {
					return fmt.Errorf("%s of %s has no line", kind, path)
				}
			}
		}
		if len(first) == 0 || len(second) == 0 {
			return fmt.Errorf("%d lines in the old file, %d in the new", len(first), len(second))
		}
		return nil
	})
}

// auditLines counts the lines of an audit file about paths with a part in them: "request PATH" → lines.
func auditLines(t *testing.T, file, part string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for line := range bytes.Lines(text) {
		var l struct {
			Type    string
			Request struct{ Path string }
		}
		if json.Unmarshal(line, &l) == nil && strings.Contains(l.Request.Path, part) {
			counts[l.Type+" "+l.Request.Path]++
		}
	}
	return counts
}

// newCertificate replaces the certificate in dir by a self-signed one, and returns it.
func newCertificate(t *testing.T, dir string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "renewed"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: certificate}, "tls.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate
}

// servedCertificate is what node n shows to a client that connects now.
func servedCertificate(ctx context.Context, l *lab.Lab, n int) ([]byte, error) {
	address, err := url.Parse(l.Addrs[n-1])
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // what is served is compared, not trusted
	conn, err := dialer.DialContext(ctx, "tcp", address.Host)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw, nil
}
