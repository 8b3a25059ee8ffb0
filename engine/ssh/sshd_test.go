package ssh

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"conclave"
	"conclave/engine/enginetest"
)

// privilegeSeparation is where a sshd that runs as root wants an empty directory.
const privilegeSeparation = "/run/sshd"

// server is a real sshd on loopback, that trusts an authority for users, and has its host key signed by it.
type server struct {
	t         *testing.T
	dir       string
	port      int
	user      string
	authority string
}

func startSSHD(t *testing.T, h *enginetest.Harness) *server {
	t.Helper()
	binary, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		missing(t, "openssh-server")
	}
	if _, err := exec.LookPath("ssh"); err != nil {
		missing(t, "openssh-client")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: t.TempDir(), user: me.Username, authority: string(ssh.MarshalAuthorizedKey(authority(t, h)))}
	public, private := newKey(t)
	s.write("host", private)
	signed := h.Data(conclave.Update, "sign/host", map[string]any{"public_key": public, "cert_type": "host", "valid_principals": "server.example.com"})
	s.put("host-cert.pub", signed["signed_key"].(string))
	s.put("authority.pub", s.authority)
	s.put("known", "@cert-authority *.example.com "+s.authority)
	if me.Uid == "0" {
		if err := os.Mkdir(privilegeSeparation, 0o755); err == nil {
			t.Cleanup(func() { _ = os.Remove(privilegeSeparation) })
		} else if !errors.Is(err, fs.ErrExist) {
			t.Skipf("sshd needs %s: %v", privilegeSeparation, err)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = free.Addr().(*net.TCPAddr).Port
	_ = free.Close()
	s.put("config", fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nHostCertificate %s\nTrustedUserCAKeys %s\nAuthorizedKeysFile none\nPasswordAuthentication no\n"+
		"KbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin prohibit-password\nStrictModes no\nPidFile none\nLogLevel VERBOSE\n",
		s.port, s.path("host"), s.path("host-cert.pub"), s.path("authority.pub")))
	command := exec.Command(binary, "-D", "-e", "-f", s.path("config"))
	log, err := os.Create(s.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	command.Stderr = log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() { _ = command.Process.Kill(); <-ended })
	deadline := time.After(20 * time.Second)
	for {
		connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			_ = connection.Close()
			return s
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("sshd has ended: %v: %s", err, s.log())
		case <-deadline:
			t.Fatal("sshd doesn't listen")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

// log is what sshd has logged.
func (s *server) log() string {
	text, _ := os.ReadFile(s.path("log"))
	return string(text)
}

func (s *server) put(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) write(name string, private ed25519.PrivateKey) {
	s.t.Helper()
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.put(name, string(pem.EncodeToMemory(block)))
}

// login runs a command on the server with a key and, if there is one, a certificate.
func (s *server) login(private ed25519.PrivateKey, signed string) (string, error) {
	s.t.Helper()
	s.write("id", private)
	arguments := []string{"-F", "none", "-p", fmt.Sprint(s.port), "-i", s.path("id"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "IdentityAgent=none",
		"-o", "UserKnownHostsFile=" + s.path("known"), "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=server.example.com", "-o", "ConnectTimeout=10"}
	if signed != "" {
		s.put("id-cert.pub", signed)
		arguments = append(arguments, "-o", "CertificateFile="+s.path("id-cert.pub"))
	}
	out, err := exec.Command("ssh", append(arguments, s.user+"@127.0.0.1", "echo in as $(id -un)")...).CombinedOutput()
	_ = os.Remove(s.path("id-cert.pub"))
	return strings.TrimSpace(string(out)), err
}

func TestSSHDLetsInWhomTheVaultHasSigned(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	h := enginetest.New(t, quick(), enginetest.Fast())
	h.Data(conclave.Update, "config/ca", map[string]any{"key_type": "rsa", "key_bits": 2048})
	h.Data(conclave.Update, "roles/host", map[string]any{"key_type": "ca", "allow_host_certificates": true, "allowed_domains": "example.com", "allow_subdomains": true})
	h.Data(conclave.Update, "roles/web", caRoleWith(map[string]any{"allowed_users": me.Username + ",somebody", "default_user": me.Username, "ttl": "1h"}))
	public, private := newKey(t)
	past := h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public})["signed_key"].(string)
	h.Advance(time.Since(h.Now()))
	s := startSSHD(t, h)

	signed := h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public})["signed_key"].(string)
	if out, err := s.login(private, signed); err != nil || out != "in as "+me.Username {
		t.Fatalf("login with a signed key: %v: %s\nsshd: %s", err, out, s.log())
	}
	refused := func(why string, key ed25519.PrivateKey, certificate string) {
		t.Helper()
		if out, err := s.login(key, certificate); err == nil || !strings.Contains(out, "Permission denied") {
			t.Errorf("%s: %v: %s", why, err, out)
		}
	}
	refused("a key that nobody signed", private, "")
	refused("a certificate that has expired", private, past)
	refused("a certificate for somebody else", private, h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public, "valid_principals": "somebody"})["signed_key"].(string))
	refused("a certificate for another server", private, h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public, "critical_options": map[string]any{"source-address": "192.0.2.1"}})["signed_key"].(string))
	_, other := newKey(t)
	refused("another's certificate", other, signed)
	stranger := newCA(t, map[string]any{"allowed_users": "*", "default_user": me.Username})
	stranger.Advance(time.Since(stranger.Now()))
	refused("a certificate of another authority", private, stranger.Data(conclave.Update, "sign/web", map[string]any{"public_key": public})["signed_key"].(string))
	if out, err := s.login(private, h.Data(conclave.Update, "sign/web", map[string]any{"public_key": public, "critical_options": map[string]any{"force-command": "echo forced"}})["signed_key"].(string)); err != nil || out != "forced" {
		t.Errorf("with a forced command: %v: %s", err, out)
	}
	if want := "ID vault-tester-"; !strings.Contains(s.log(), want) {
		t.Errorf("sshd's log doesn't show %q:\n%s", want, s.log())
	}
}
