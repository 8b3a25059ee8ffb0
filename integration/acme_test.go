package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/miekg/dns"
	"golang.org/x/crypto/acme"

	"conclave/integration/lab"
)

// acmeWorld is what the clients of ACME and the vault find outside: a name server, and an address of this machine's loopback
// network with the ports that challenges are met at.
type acmeWorld struct {
	t       *testing.T
	address string // every name's
	names   string // the name server's, HOST:PORT
	records string // directory of TXT records: a file for each name, a line for each record
}

func newACMEWorld(t *testing.T) *acmeWorld {
	t.Helper()
	w := &acmeWorld{t: t, records: t.TempDir()}
	for n := range 20 { // others may test at the same time
		address := fmt.Sprintf("127.77.%d.%d", os.Getpid()%250+1, n+1)
		listener, err := net.Listen("tcp", address+":80")
		if err != nil {
			continue
		}
		_ = listener.Close()
		w.address = address
		break
	}
	if w.address == "" {
		t.Skip("port 80 of the loopback network can't be opened: it takes root, or net.ipv4.ip_unprivileged_port_start")
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.names = packets.LocalAddr().String()
	stream, err := net.Listen("tcp", w.names)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: w}, {Listener: stream, Handler: w}} {
		done := make(chan struct{})
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			_ = server.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); <-done })
	}
	return w
}

// ServeDNS answers questions about example.com.
func (w *acmeWorld) ServeDNS(reply dns.ResponseWriter, query *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(query)
	answer.Authoritative = true
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1}, Ns: "ns.example.com.", Mbox: "admin.example.com.", Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: 1}
	for _, question := range query.Question {
		header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: 1}
		switch question.Qtype {
		case dns.TypeA:
			answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: net.ParseIP(w.address)})
		case dns.TypeSOA:
			if question.Name == "example.com." {
				answer.Answer = append(answer.Answer, soa)
			}
		case dns.TypeTXT:
			text, _ := os.ReadFile(filepath.Join(w.records, strings.ToLower(question.Name)))
			for _, line := range strings.Fields(string(text)) {
				answer.Answer = append(answer.Answer, &dns.TXT{Hdr: header, Txt: []string{line}})
			}
		}
	}
	if len(answer.Answer) == 0 {
		answer.Ns = append(answer.Ns, soa)
	}
	_ = reply.WriteMsg(answer)
}

// hook is a program for lego's provider exec, which writes records.
func (w *acmeWorld) hook() string {
	file := filepath.Join(w.t.TempDir(), "hook")
	script := "#!/bin/sh\nif [ \"$1\" = present ]; then echo \"$3\" >> \"" + w.records + "/$2\"; else rm -f \"" + w.records + "/$2\"; fi\n"
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// startACME is a cluster whose mount pki speaks ACME at its first node's address.
func startACME(t *testing.T, w *acmeWorld, more map[string]any) (*lab.Lab, string) {
	t.Helper()
	l := startLab(t, 3)
	ctx := within(t, time.Minute)
	root := sdk(t, l, 1)
	mustWrite(t, ctx, root, "sys/mounts/pki", map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "8760h"}})
	mustWrite(t, ctx, root, "pki/root/generate/internal", map[string]any{"common_name": "Root", "key_type": "ec", "ttl": "8000h"})
	mustWrite(t, ctx, root, "pki/config/cluster", map[string]any{"path": l.Addrs[0] + "/v1/pki"})
	mustWrite(t, ctx, root, "pki/roles/web", map[string]any{"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "any", "max_ttl": "72h"})
	settings := map[string]any{"enabled": true, "dns_resolver": w.names, "challenge_permitted_ip_ranges": w.address}
	for name, value := range more {
		settings[name] = value
	}
	mustWrite(t, ctx, root, "pki/config/acme", settings)
	return l, l.Addrs[0] + "/v1/pki"
}

// runClient runs an ACME client of a package.
func runClient(t *testing.T, l *lab.Lab, dir, program string, environment []string, arguments ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed: apt-get install %s", program, program)
		}
		t.Skipf("%s is not installed (Debian: apt-get install %s)", program, program)
	}
	command := exec.CommandContext(within(t, 4*time.Minute), path, arguments...)
	command.Dir = dir
	command.Env = append(os.Environ(), append(environment, "LEGO_CA_CERTIFICATES="+l.CA, "REQUESTS_CA_BUNDLE="+l.CA)...)
	out, err := command.CombinedOutput()
	return string(out), err
}

// chainIn reads a chain of certificates, and checks that it is one of the mount's, for these names.
func chainIn(t *testing.T, l *lab.Lab, file string, names ...string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	checkChain(t, l, chain, names...)
	return chain[0]
}

func checkChain(t *testing.T, l *lab.Lab, chain []*x509.Certificate, names ...string) {
	t.Helper()
	answer, err := l.Client(2).Do(within(t, time.Minute), "GET", "pki/ca", nil)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if len(chain) < 2 {
		t.Fatalf("a chain of %d certificates", len(chain))
	}
	for _, name := range names {
		if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("for %s: %v", name, err)
		}
	}
	if len(chain[0].DNSNames) != len(names) {
		t.Errorf("the certificate has the names %v, want %v", chain[0].DNSNames, names)
	}
}

func TestLegoGetsCertificatesByEachChallenge(t *testing.T) {
	w := newACMEWorld(t)
	l, base := startACME(t, w, nil)
	for _, row := range []struct {
		name, directory string
		names           []string
		arguments       []string
	}{
		{"http-01", "/acme/directory", []string{"a.example.com", "b.example.com"}, []string{"--http", "--http.port", w.address + ":80"}},
		{"tls-alpn-01", "/roles/web/acme/directory", []string{"c.example.com"}, []string{"--tls", "--tls.port", w.address + ":443"}},
		{"dns-01", "/issuer/default/roles/web/acme/directory", []string{"*.example.com", "d.example.com"}, []string{"--dns", "exec", "--dns.resolvers", w.names, "--dns.disable-cp"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			arguments := append([]string{"--server", base + row.directory, "--email", "admin@example.com", "--accept-tos", "--path", dir}, row.arguments...)
			domains := func(names ...string) []string {
				all := arguments
				for _, name := range names {
					all = append(slices.Clip(all), "--domains", name)
				}
				return all
			}
			environment := []string{"EXEC_PATH=" + w.hook(), "EXEC_PROPAGATION_TIMEOUT=10", "EXEC_POLLING_INTERVAL=1", "EXEC_SEQUENCE_INTERVAL=1"}
			if out, err := runClient(t, l, dir, "lego", environment, append(domains(row.names...), "run")...); err != nil {
				t.Fatalf("lego run: %v\n%s", err, out)
			}
			file := filepath.Join(dir, "certificates", strings.ReplaceAll(row.names[0], "*", "_")+".crt")
			chainIn(t, l, file, row.names...)
			if out, err := runClient(t, l, dir, "lego", environment, append(domains(row.names...), "renew", "--days", "1000", "--no-random-sleep")...); err != nil {
				t.Fatalf("lego renew: %v\n%s", err, out)
			}
			cert := chainIn(t, l, file, row.names...)
			if out, err := runClient(t, l, dir, "lego", environment, append(domains(row.names[0]), "revoke")...); err != nil {
				t.Fatalf("lego revoke: %v\n%s", err, out)
			}
			var kept struct {
				Revoked int64 `json:"revocation_time"`
			}
			if err := l.Client(3).Read(within(t, time.Minute), fmt.Sprintf("pki/cert/%x", cert.SerialNumber.Bytes()), &kept); err != nil || kept.Revoked == 0 {
				t.Errorf("the certificate that was revoked: %+v, %v", kept, err)
			}
		})
	}
	dir := t.TempDir()
	out, err := runClient(t, l, dir, "lego", nil, "--server", base+"/roles/web/acme/directory", "--email", "admin@example.com", "--accept-tos", "--path", dir,
		"--http", "--http.port", w.address+":80", "--domains", "example.org", "run")
	if err == nil || !strings.Contains(out, "rejectedIdentifier") {
		t.Errorf("a name that the role doesn't allow: %v\n%s", err, out)
	}
}

func TestCertbotGetsACertificate(t *testing.T) {
	w := newACMEWorld(t)
	l, base := startACME(t, w, map[string]any{"eab_policy": "always-required"})
	dir := t.TempDir()
	certbot := func(arguments ...string) (string, error) {
		return runClient(t, l, dir, "certbot", nil, append(arguments, "--server", base+"/acme/directory", "--config-dir", dir, "--work-dir", dir, "--logs-dir", dir, "-n")...)
	}
	order := []string{"certonly", "--standalone", "--http-01-address", w.address, "--agree-tos", "--register-unsafely-without-email", "-d", "e.example.com", "-d", "f.example.com"}
	if out, err := certbot(order...); err == nil || !strings.Contains(out, "xternal") {
		t.Fatalf("certbot without an external account binding: %v\n%s", err, out)
	}
	bound := mustWrite(t, within(t, time.Minute), sdk(t, l, 2), "pki/acme/new-eab", nil)
	order = append(order, "--eab-kid", bound["id"].(string), "--eab-hmac-key", bound["key"].(string))
	if out, err := certbot(order...); err != nil {
		t.Fatalf("certbot: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "live", "e.example.com", "fullchain.pem")
	chainIn(t, l, file, "e.example.com", "f.example.com")
	if out, err := certbot("renew", "--force-renewal", "--no-random-sleep-on-renew"); err != nil {
		t.Errorf("certbot renew: %v\n%s", err, out)
	}
	if out, err := certbot("revoke", "--cert-path", file, "--no-delete-after-revoke", "--reason", "superseded"); err != nil {
		t.Errorf("certbot revoke: %v\n%s", err, out)
	}
	if out, err := certbot("unregister"); err != nil {
		t.Errorf("certbot unregister: %v\n%s", err, out)
	}
}

// overNodes sends each request to the next node, whatever its URL says: a load balancer.
type overNodes struct {
	lab  *lab.Lab
	next atomic.Int64
	skip atomic.Int64 // a node that is down
}

func (o *overNodes) RoundTrip(r *http.Request) (*http.Response, error) {
	n := int(o.next.Add(1) % 3)
	if int64(n+1) == o.skip.Load() {
		n = (n + 1) % 3
	}
	to, err := url.Parse(o.lab.Addrs[n])
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, to.Host)
	}
	transport := &http.Transport{TLSClientConfig: o.lab.TLS(), DialContext: dial, DisableKeepAlives: true}
	return transport.RoundTrip(r)
}

// serveChallenges answers challenges of kind http-01 with what is in the map: token → key authorization.
func (w *acmeWorld) serveChallenges() *sync.Map {
	w.t.Helper()
	listener, err := net.Listen("tcp", w.address+":80")
	if err != nil {
		w.t.Fatal(err)
	}
	answers := &sync.Map{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, ok := answers.Load(strings.TrimPrefix(r.URL.Path, "/.well-known/acme-challenge/")); ok {
			_, _ = fmt.Fprint(w, text)
			return
		}
		http.NotFound(w, r)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	w.t.Cleanup(func() { _ = server.Close(); <-done })
	return answers
}

// waitForFailure waits until an attempt at a challenge has failed, and another one is due.
func waitForFailure(t *testing.T, c *acme.Client, authorization string) {
	t.Helper()
	eventually(t, 4*time.Minute, func(ctx context.Context) error {
		tried, err := c.GetAuthorization(ctx, authorization)
		if err != nil {
			return err
		}
		for _, one := range tried.Challenges {
			if one.Type == "http-01" && one.Error != nil {
				return nil
			}
		}
		return fmt.Errorf("nobody has asked for the answer to the challenge: the authorization is %s", tried.Status)
	})
}

// TestAnyNodeAnswersForAllInACME has each request of a client answered by another node, and the leader die between two
// attempts at a challenge.
func TestAnyNodeAnswersForAllInACME(t *testing.T) {
	w := newACMEWorld(t)
	l, base := startACME(t, w, nil)
	ctx := within(t, 6*time.Minute)
	nodes := &overNodes{lab: l}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &acme.Client{Key: key, DirectoryURL: base + "/acme/directory", HTTPClient: &http.Client{Transport: nodes}}
	if _, err := c.Register(ctx, &acme.Account{Contact: []string{"mailto:admin@example.com"}}, acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	answers := w.serveChallenges() // the answer isn't there at first
	order, err := c.AuthorizeOrder(ctx, acme.DomainIDs("g.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	authorization, err := c.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		t.Fatal(err)
	}
	var challenge *acme.Challenge
	for _, one := range authorization.Challenges {
		if one.Type == "http-01" {
			challenge = one
		}
	}
	if _, err := c.Accept(ctx, challenge); err != nil {
		t.Fatal(err)
	}
	waitForFailure(t, c, authorization.URI)
	leader, err := l.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	nodes.skip.Store(int64(leader))
	if err := l.Kill(leader); err != nil {
		t.Fatal(err)
	}
	text, err := c.HTTP01ChallengeResponse(challenge.Token)
	if err != nil {
		t.Fatal(err)
	}
	answers.Store(challenge.Token, text)
	if _, err := c.WaitAuthorization(ctx, authorization.URI); err != nil {
		t.Fatalf("after the leader has died: %v", err)
	}
	owned, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"g.example.com"}}, owned)
	if err != nil {
		t.Fatal(err)
	}
	ders, _, err := c.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	if leader == 2 { // which the chain is checked by
		if err := l.Start(ctx, leader); err != nil {
			t.Fatal(err)
		}
	}
	checkChain(t, l, chain, "g.example.com")
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AccountKeyRollover(ctx, other); err != nil {
		t.Fatalf("another key for the account: %v", err)
	}
	if err := c.RevokeCert(ctx, nil, ders[0], acme.CRLReasonUnspecified); err != nil {
		t.Fatalf("revoke with the new key: %v", err)
	}
}

// TestANonceIsGoodOnceOverNodes sends the same signed request to all nodes at once.
func TestANonceIsGoodOnceOverNodes(t *testing.T) {
	l := startLab(t, 3)
	ctx := within(t, 4*time.Minute)
	root := sdk(t, l, 1)
	mustWrite(t, ctx, root, "sys/mounts/pki", map[string]any{"type": "pki"})
	mustWrite(t, ctx, root, "pki/root/generate/internal", map[string]any{"common_name": "Root", "key_type": "ec"})
	mustWrite(t, ctx, root, "pki/config/cluster", map[string]any{"path": "https://vault.example.com/v1/pki"})
	mustWrite(t, ctx, root, "pki/config/acme", map[string]any{"enabled": true})
	for round := range 5 {
		answer, err := l.Client(round%3+1).With("").Do(ctx, "HEAD", "pki/acme/new-nonce", nil)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).
			WithHeader("url", "https://vault.example.com/v1/pki/acme/new-account").WithHeader("nonce", answer.Header.Get("Replay-Nonce")))
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign([]byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		body := json.RawMessage(jws.FullSerialize())
		good := atOnce(t, l, 9, func(n int) bool {
			answer, err := l.Client(n).With("").Do(ctx, "POST", "pki/acme/new-account", body)
			if err != nil {
				t.Error(err)
				return false
			}
			if answer.Status != 201 && (answer.Status != 400 || !strings.Contains(string(answer.Body), "badNonce")) {
				t.Errorf("node %d answers %d %s", n, answer.Status, answer.Body)
			}
			return answer.Status == 201
		})
		if good != 1 {
			t.Errorf("a nonce was good %d times", good)
		}
	}
}
